//! Sessions: the pure state, the actor around it, and who lives on this node.

mod router;
pub mod state;

pub use router::Sessions;
