//! The client as an edge device: prompts for a person or a script, or a program that measures by
//! itself.
//!
//! [`command`], [`talk`], [`dialog`] and [`runner`] are pure; [`session`] is the loop, [`files`],
//! [`measure`] and [`spool`] are the threads and the disk beside it.

pub mod carriers;
pub mod command;
pub mod dialog;
pub mod files;
pub mod measure;
pub mod options;
pub mod runner;
pub mod session;
pub mod spool;
pub mod talk;
mod upload;

use std::path::PathBuf;

use dialog::Dialog;
use measure::Meter;
use options::{Device, RunDevice};
use runner::Runner;
use session::Session;
use spool::Spool;
use talk::{Talk, Who};

use super::{arguments::Plan, session::random};
use crate::{
    sys::state,
    wire::{Name, Refusal, Secret, Tag},
};

/// Is a device until it ends: the exit code.
///
/// # Errors
/// What it needs here is missing: a sentence.
pub fn run(plan: &Plan, device: &Device, password: Option<Secret<'static>>) -> Result<u8, String> {
    let failed = |error: std::io::Error| error.to_string();
    match device {
        Device::Prompt { udp_port } => {
            let dialog = Dialog::new(*udp_port, random());
            let mut session = Session::new(plan, dialog, None)?;
            session.open_channels(*udp_port);
            session.run().map_err(failed)
        }
        Device::Run(run) => {
            let folder = spool_folder(plan)?;
            let spool = Spool::open(&folder)?;
            let runner = Runner::new(setup_of(plan, run, password), spool.holding());
            let meter = Meter::new(run.command.clone(), run.file_id, spool);
            Session::new(plan, runner, Some(meter))?.run().map_err(failed)
        }
    }
}

fn setup_of(plan: &Plan, run: &RunDevice, password: Option<Secret<'static>>) -> runner::Setup {
    runner::Setup {
        who: Who { user: plan.user, password, udp_port: run.udp_port },
        every_ms: (run.every.as_millis() as u64).max(1),
        times: run.times,
        quiet: plan.quiet,
        json: plan.json,
    }
}

/// Below the state folder.
fn spool_folder(plan: &Plan) -> Result<PathBuf, String> {
    let folder = state::of_client(plan.state.as_deref())?;
    state::prepare(&folder)?;
    let name = spool::folder_name(plan.user.as_str(), &plan.host.to_string(), plan.port);
    Ok(folder.join("spool").join(name))
}

/// That there is no connection; some reasons say so themselves.
fn unreachable_text(why: &str) -> String {
    match why.starts_with("cannot connect") {
        true => why.to_owned(),
        false => format!("cannot connect: {why}"),
    }
}

/// What drives the loop: the dialog with a person, or the runner of a command.
pub trait Front {
    /// The conversation with the server.
    fn talk(&mut self) -> &mut Talk;

    /// Something has happened.
    fn handle(&mut self, happening: Happening, now_ms: u64, random: u64);

    /// What is to be done next; `None` until something else happens.
    fn poll_effect(&mut self) -> Option<Effect>;

    /// When [`Happening::Time`] is due, apart from the conversation.
    fn poll_timeout_ms(&self) -> Option<u64>;
}

/// What has happened.
#[derive(Debug)]
pub enum Happening {
    /// It begins.
    Start,
    /// A line was typed, or read.
    Line {
        /// Without its end.
        line: String,
        /// Whether a terminal has shown it, and so ended the line there.
        shown: bool,
    },
    /// No more lines will come; why, if that is worth saying.
    LinesEnd(Option<String>),
    /// A thread has something.
    Job(JobNews),
    /// The conversation has changed, or time has passed.
    Time,
    /// A signal wants an end.
    Interrupt(i32),
}

/// What is to be done.
#[derive(Debug, PartialEq)]
pub enum Effect {
    /// Print it on standard output, at once.
    Print(String),
    /// Print it on standard error.
    Complain(String),
    /// Show what is typed, or do not.
    Echo(bool),
    /// One more line may be read.
    Read,
    /// Connect.
    Connect,
    /// Drop the connection.
    Disconnect,
    /// Have a thread do this.
    Do(Job),
    /// Take the goodbye to the server, then exit with this code.
    Leave(u8),
}

/// What a thread does. A number tells the news of one job from those of another.
#[derive(Debug, PartialEq)]
pub enum Job {
    /// Write random samples to a file.
    Generate {
        /// Which.
        path: PathBuf,
        /// How many.
        amount: u64,
    },
    /// Look through a file of samples, and read it when it is asked for.
    Open {
        /// The number of the job.
        number: u64,
        /// Which file.
        path: PathBuf,
        /// It has to be a file of samples.
        samples: bool,
    },
    /// The next block of that file.
    More,
    /// No more of that file.
    Close,
    /// Begin a file that comes from another device.
    Receive {
        /// The operation.
        tag: Tag,
        /// Where it goes.
        path: PathBuf,
        /// Bytes in all.
        size: u64,
    },
    /// More of it.
    Take {
        /// The operation.
        tag: Tag,
        /// In their order.
        bytes: Vec<u8>,
    },
    /// All of it is there: verify it, and give it its name.
    Keep {
        /// The operation.
        tag: Tag,
        /// What it must hash to, if the sender has said that.
        hash: Option<[u8; 32]>,
    },
    /// It will never be whole.
    Discard {
        /// The operation.
        tag: Tag,
    },
    /// Run the command and put its samples into the spool.
    Measure,
    /// The oldest batch of the spool is with the server.
    Delivered,
    /// The oldest batch of the spool was refused for good: put it aside.
    PutAside,
}

/// What a thread has to say.
#[derive(Debug)]
pub enum JobNews {
    /// The samples are written, or why not.
    Generated(Result<(), String>),
    /// The file is as it should be, or it is not.
    Opened(u64, Result<Look, OpenError>),
    /// A block of it; empty at its end.
    Block(u64, Result<Vec<u8>, String>),
    /// So many bytes of a file that comes were written.
    Taken(Tag, u32),
    /// A file that came has this name, or why not.
    Kept(Tag, Result<Vec<u8>, String>),
    /// The command has measured; what is in the spool now, or why there is nothing new.
    Measured(Result<spool::Holding, String>),
    /// The spool has changed otherwise.
    Spool(Result<spool::Holding, String>),
}

/// What a file is before it goes.
#[derive(Clone, Copy, Debug)]
pub struct Look {
    /// BLAKE3.
    pub hash: [u8; 32],
    /// Bytes.
    pub size: u64,
    /// Seconds since 1970 of its last change.
    pub modified: i64,
}

/// Why a file cannot be uploaded.
#[derive(Debug)]
pub enum OpenError {
    /// There is none.
    Missing,
    /// It holds something else than samples, or cannot be read.
    Bad(String),
}

/// The name of the file with this number, here as at the server.
pub fn data_name(device: &Name, file_id: u32) -> PathBuf {
    PathBuf::from(crate::edge::data_name(device, file_id))
}

/// A sentence of the server, harmless, as a line.
fn line_of(refusal: &Refusal) -> String {
    format!("{}\n", crate::wire::escape::escape(&refusal.text))
}

/// Lines of a text of the server, each harmless.
fn lines_of(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", crate::wire::escape::escape(line))).collect()
}
