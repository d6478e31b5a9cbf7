//! The protocol room alone. It is pure, so that it can be built here without the rest of the house, whose
//! dependencies would all have to be instrumented too.

#[path = "../../src/protocol/mod.rs"]
pub mod protocol;
