//! Conclave: an actor-based, distributed, end-to-end-encrypted chat backend.
//!
//! # The rooms
//!
//! | room | what it has |
//! | --- | --- |
//! | [`protocol`] | the wire contract as types, pure: it knows no other room |
//! | [`session`] | `state`: a session's rules, pure; the actor around them; who is alive on this node |
//! | [`store`] | what outlives the process, and group commit |
//! | [`cluster`] | what a node needs of its peers: the bus, publications, its lease |
//! | [`connection`] | a user's WebSocket: actor, outbox, the hub of a worker thread, catching up |
//! | [`accounts`] | registration, login, tokens, public keys |
//! | [`http`] | routes, errors, health, metrics |
//! | [`config`], [`telemetry`] | settings; logs and every metric's name |
//! | [`admin`] | what operators see of a running cluster and do to it |
//! | [`server`] | puts the rooms together: the order of start and stop |
//! | [`client`] | the reference client, for programs and tests |
//!
//! Arrows go one way, from the pure rooms to the server; a test reads the sources and fails if one does not.
//!
//! # The life of a message
//!
//! A connection decodes a frame into a request and hands it to its session through [`session::Sessions`], here or on the node that owns the session. The
//! session's actor lets its state decide: a reply, changes, events. The changes go to the store's
//! [group commit](store::GroupCommit); nothing leaves before they are durable. Then one parcel goes to
//! [`connection::Subscriptions`]: the reply to its sender, the commit, encoded once, to each worker thread with members
//! of the session, and to the bus for other nodes. A hub pushes the same bytes to each member's outbox, and each
//! connection writes its outbox in as few calls as its socket takes. Whoever missed something reads it from the store.
//!
//! `docs/ARCHITECTURE.md` has the invariants, the walkthroughs, and why it is so.

pub mod accounts;
pub mod admin;
pub mod client;
pub mod cluster;
pub mod config;
pub mod connection;
pub mod http;
pub mod protocol;
pub mod server;
pub mod session;
pub mod store;
pub mod telemetry;
