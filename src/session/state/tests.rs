//! Tests of the rules. [`harness`] wraps a state and checks it after every step; the others are tables and stories.

mod epochs;
mod harness;
mod known_failures;
mod people;
mod phases;
mod refusals;
mod simulation;
