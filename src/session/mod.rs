//! Sessions: the pure state, the actor around it, and who lives on this node.

mod clock;
mod router;
pub mod state;

pub use clock::{Clock, SystemClock};
pub use router::Sessions;
