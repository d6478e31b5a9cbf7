//! The session's rules, pure: `handle(now, command) -> decision`.

mod record;

pub use record::*;
