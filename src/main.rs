//! The server: arguments, configuration, run, exit code.

fn main() {}
