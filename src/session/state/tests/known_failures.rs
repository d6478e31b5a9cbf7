//! known_failures
