//! Sessions: the pure state, the actor around it, and who lives on this node.

pub mod state;
