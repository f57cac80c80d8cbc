//! The edge network without its connections: files of samples in one data folder, three logs, and
//! who is active.
//!
//! ```text
//!   upload ─▶ stage (checked while it comes) ─▶ folder: journal, log, rename ─▶ answer
//!   delete ─▶ count ─────────────────────────▶ folder: journal, log, unlink ─▶ answer
//!   compute ─▶ an open file, read by whoever has time
//!   join, leave, list ───────────────────────▶ folder: one rewrite of the log for all that wait
//! ```
//!
//! [`Folder`] does one thing after the other, and every act together with its line in a log or not
//! at all, whenever the machine may stop: see [`journal`]. It knows the disk by way of
//! [`disk::Disk`] alone, so that a test can let each step fail.

pub mod compute;
pub mod disk;
pub mod folder;
pub mod journal;
pub mod log;
pub mod memory;
mod recovery;
pub mod roster;
pub mod samples;
pub mod stage;

pub use compute::{compute, count};
pub use disk::{DataFolder, Disk, DiskFile};
pub use folder::{Act, Failure, Folder};
pub use stage::{Stage, Staged};

use crate::wire::Name;

/// The name of the file with this number of a device.
pub fn data_name(device: &Name, file_id: u32) -> String {
    format!("{device}-{file_id}.txt")
}
