//! Sessions: the pure state, the actor around it, and where each one lives.

mod actor;
mod asking;
mod clock;
mod leaving;
mod outgoing;
mod placement;
mod registry;
mod router;
pub mod state;
#[cfg(test)]
mod tests;
mod waiting;

pub use clock::{Clock, SystemClock};
pub use router::{Commits, MayTakeOver, SessionParts, Sessions, SessionsOptions};
pub use waiting::{Load, WaitingLimits};
