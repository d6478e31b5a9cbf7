//! Sessions: the pure state, the actor around it, and who lives on this node.

mod actor;
mod clock;
mod outgoing;
mod router;
pub mod state;
#[cfg(test)]
mod tests;

pub use clock::{Clock, SystemClock};
pub use router::{Commits, SessionParts, Sessions, SessionsOptions};
