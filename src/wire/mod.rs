//! The language: requests, events, errors, and one codec file a dialect.
//!
//! Bytes in, requests out; events in, bytes out. No I/O, no clock, no state that outlives a
//! call: a codec is given the bytes that are there and says how many it used.

pub mod blob;
pub mod check;
pub mod contact;
pub mod control;
pub mod dialect;
pub mod edge;
pub mod error;
pub mod escape;
pub mod event;
pub mod frame;
pub mod host;
pub mod http;
pub mod info;
pub mod introduction;
pub mod json;
pub mod line;
pub mod name;
pub mod offer;
pub mod path;
pub mod request;
pub mod right;
pub mod secret;
mod telnet;
pub mod text;
pub mod verbs;

pub use blob::Blob;
pub use contact::{Contact, Standpoint};
pub use dialect::Dialect;
pub use edge::{EdgeAnswer, EdgeCall};
pub use error::{ErrorCode, Refusal};
pub use event::{Event, Outcome, Stream};
pub use host::HostCall;
pub use introduction::{Announcement, Candidates, Fingerprint, Introduction, OneTimeToken};
pub use name::Name;
pub use offer::{Form, Parcel, Proposal};
pub use path::SharePath;
pub use request::{Call, Item, Post, Recipients, Request, Tag};
pub use right::{Need, Right};
pub use secret::Secret;
pub use text::Text;
