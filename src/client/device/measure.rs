//! The command that measures, and the spool that its samples go to.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read as _},
    os::unix::process::ExitStatusExt as _,
    process::ExitStatus,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use rustix::{
    io::retry_on_intr,
    process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid},
};

use super::{Job, JobNews, spool::Spool};
use crate::{
    client::post::{News, Post},
    limits::SPOOL_BATCH_MAX_BYTES,
    sys::process::{
        environment::Environment,
        launch::{Launch, Launched, StreamTo},
    },
};

/// Runs the command, a thread each time, and keeps the spool.
#[derive(Clone)]
pub struct Meter {
    /// A program and its arguments, or one line for the shell.
    command: Arc<Vec<String>>,
    file_id: Option<u32>,
    spool: Arc<Mutex<Spool>>,
    /// The process group of the command, while it may be sent a signal.
    running: Arc<Mutex<Option<Pid>>>,
}

impl Meter {
    /// A meter; without `file_id` every batch has a file of its own.
    pub fn new(command: Vec<String>, file_id: Option<u32>, spool: Spool) -> Meter {
        let spool = Arc::new(Mutex::new(spool));
        Meter { command: Arc::new(command), file_id, spool, running: Arc::default() }
    }

    /// Has a thread do one of the jobs that concern the spool.
    pub fn start(&self, job: Job, random: u64, post: Post) {
        let (meter, told) = (self.clone(), post.clone());
        let measures = matches!(job, Job::Measure);
        let thread = thread::Builder::new().name("meter".to_owned());
        let started = thread.spawn(move || post.send(News::Device(meter.perform(job, random))));
        if let Err(error) = started {
            let why = format!("no thread can be had for it: {error}");
            told.send(News::Device(match measures {
                true => JobNews::Measured(Err(why)),
                false => JobNews::Spool(Err(why)),
            }));
        }
    }

    fn perform(&self, job: Job, random: u64) -> JobNews {
        let holding = || self.spool().holding();
        match job {
            Job::Measure => JobNews::Measured(self.measure(random).map(|()| holding())),
            Job::Delivered => {
                let done = self.spool().delivered();
                JobNews::Spool(done.map(|()| holding()))
            }
            Job::PutAside => {
                let done = self.spool().put_aside();
                JobNews::Spool(done.map(|()| holding()))
            }
            other => unreachable!("{other:?} does not concern the spool"),
        }
    }

    fn spool(&self) -> std::sync::MutexGuard<'_, Spool> {
        self.spool.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn measure(&self, random: u64) -> Result<(), String> {
        self.spool().check_room()?;
        let samples = self.run()?;
        let name = &self.command[0];
        let added = self.spool().add(self.file_id, random, &samples);
        added.map_err(|why| format!("what {name:?} printed is not kept: {why}"))
    }

    /// Runs the command to its end: what it has printed.
    fn run(&self) -> Result<Vec<u8>, String> {
        let name = &self.command[0];
        let launched = launch(&self.command);
        let launched = launched.map_err(|error| format!("{name:?} cannot be started: {error}"))?;
        let group = launched.pid;
        *self.running() = Some(group);
        let mut printed = Vec::new();
        let [_, stdout, _] = launched.pipes;
        let stdout = File::from(stdout.expect("it is a pipe"));
        let limit = SPOOL_BATCH_MAX_BYTES as u64 + 1;
        let read = stdout.take(limit).read_to_end(&mut printed);
        let status = self.wait(group);
        read.map_err(|error| format!("what {name:?} prints cannot be read: {error}"))?;
        let status = status.map_err(|error| format!("the end of {name:?} is lost: {error}"))?;
        if printed.len() > SPOOL_BATCH_MAX_BYTES {
            return Err(format!(
                "{name:?} printed more than {SPOOL_BATCH_MAX_BYTES} bytes; nothing is kept of it"
            ));
        }
        match status.success() {
            true => Ok(printed),
            false => Err(format!("{name:?} failed ({status}); nothing is kept of what it printed")),
        }
    }

    /// Its number stays its own until nobody can send it a signal any more.
    fn wait(&self, group: Pid) -> io::Result<ExitStatus> {
        let wait = |options| retry_on_intr(|| waitid(WaitId::Pid(group), options));
        let ended = wait(WaitIdOptions::EXITED | WaitIdOptions::NOWAIT);
        *self.running() = None;
        let status = ended.and_then(|_| wait(WaitIdOptions::EXITED))?;
        let status = status.ok_or(io::ErrorKind::NotFound)?;
        let signal = status.terminating_signal().unwrap_or(0);
        // As wait(2) has it: the code in the second byte, the signal in the first.
        Ok(ExitStatus::from_raw((status.exit_status().unwrap_or(0) << 8) | signal))
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Ends the command, if it runs.
    pub fn stop(&self) {
        if let Some(group) = self.running().take() {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

/// Starts it in a session of its own, so that all of it can be ended, and so that it is not stopped
/// where it touches the terminal.
fn launch(words: &[String]) -> io::Result<Launched> {
    let (program, arguments) = match words {
        [line] => ("/bin/sh", vec!["-c", line.as_str()]),
        words => (words[0].as_str(), words[1..].iter().map(String::as_str).collect()),
    };
    let arguments: Vec<_> = arguments.into_iter().map(OsStr::new).collect();
    Launch {
        program: OsStr::new(program),
        arguments: &arguments,
        directory: None,
        environment: &Environment::inherited(),
        variables: &[],
        streams: [StreamTo::Null, StreamTo::Pipe, StreamTo::Same],
    }
    .start()
}
