//! Connections over real sockets: a node in this process, and clients that write their frames byte by byte.

mod cluster;
mod flow;
mod rfc6455;
mod slow;
mod support;
mod wire;
