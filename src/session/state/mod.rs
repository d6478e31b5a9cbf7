//! The session's rules, pure: `handle(now, command) -> decision`.

mod command;
mod record;

pub use command::Command;
pub use record::*;
