//! The command that measures, and the spool that its samples go to.

use std::{
    io::{self, Read as _},
    os::unix::process::CommandExt as _,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};

use super::{Job, JobNews, spool::Spool};
use crate::{
    client::post::{News, Post},
    limits::SPOOL_BATCH_MAX_BYTES,
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
        let meter = self.clone();
        thread::spawn(move || {
            let holding = || meter.spool().holding();
            post.send(News::Device(match job {
                Job::Measure => JobNews::Measured(meter.measure(random).map(|()| holding())),
                Job::Delivered => {
                    let done = meter.spool().delivered();
                    JobNews::Spool(done.map(|()| holding()))
                }
                Job::PutAside => {
                    let done = meter.spool().put_aside();
                    JobNews::Spool(done.map(|()| holding()))
                }
                other => unreachable!("{other:?} does not concern the spool"),
            }))
        });
    }

    fn spool(&self) -> std::sync::MutexGuard<'_, Spool> {
        self.spool.lock().expect("nobody panics with the spool")
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
        let mut child = command_of(&self.command)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            // A group of its own, so that all of it can be ended.
            .process_group(0)
            .spawn()
            .map_err(|error| format!("{name:?} cannot be started: {error}"))?;
        let group = Pid::from_child(&child);
        *self.running() = Some(group);
        let mut printed = Vec::new();
        let stdout = child.stdout.take().expect("it is a pipe");
        let limit = SPOOL_BATCH_MAX_BYTES as u64 + 1;
        let read = stdout.take(limit).read_to_end(&mut printed);
        let status = self.wait(&mut child, group);
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
    fn wait(&self, child: &mut Child, group: Pid) -> io::Result<ExitStatus> {
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(group), options) {}
        *self.running() = None;
        child.wait()
    }

    fn running(&self) -> std::sync::MutexGuard<'_, Option<Pid>> {
        self.running.lock().expect("nobody panics with it")
    }

    /// Ends the command, if it runs.
    pub fn stop(&self) {
        if let Some(group) = self.running().take() {
            let _ = kill_process_group(group, Signal::TERM);
        }
    }
}

fn command_of(words: &[String]) -> Command {
    match words {
        [line] => {
            let mut command = Command::new("/bin/sh");
            command.args(["-c", line]);
            command
        }
        words => {
            let mut command = Command::new(&words[0]);
            command.args(&words[1..]);
            command
        }
    }
}
