//! sixfour: messages, files and commands between named peers over IPv6 and IPv4 alike.
//!
//! The crate is one library and two thin binaries. [`wire`] is the language, [`hub`] the
//! server's brain without I/O, [`sys`] everything that touches the world; [`server`] and
//! [`client`] glue the halves. ARCHITECTURE.md tells who may import whom.

#![deny(unsafe_code)]

pub mod client;
pub mod direct;
pub mod edge;
pub mod hub;
pub mod limits;
pub mod manual;
pub mod server;
pub mod stream;
pub mod sys;
pub mod tour;
pub mod transfer;
pub mod wire;
