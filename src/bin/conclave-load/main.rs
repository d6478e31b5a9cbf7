//! `conclave-load`: measures a server under load, verifies what it delivers, and shows what it found.

mod report;

fn main() {}
