//! The contract, seen from outside: real nodes, and clients written from the published page alone.
//!
//! Nothing here uses the project's own types. What is asserted are the literals of the wire, so that a change of our
//! own constants cannot change what the tests ask for. Each module is a part of the contract; `support` has the nodes
//! and the clients. A node is shared by all tests that need no settings of their own.

mod support;

mod accounts;
mod asks;
mod bus;
mod catching_up;
mod clocks;
mod closing;
mod cluster;
mod damage;
mod database;
mod deployment;
mod durability;
mod encryption;
mod frames;
mod full_disk;
mod history;
mod inbox;
mod information;
mod joining;
mod known_failures;
mod leaving;
mod limits;
mod load;
mod load_reports;
mod moderation;
mod observability;
mod operators;
mod order;
mod programs;
mod racing;
mod refusals;
mod room_keys;
mod rotation;
mod shape;
mod speaking;
mod starting;
mod terminal;
mod tls;
