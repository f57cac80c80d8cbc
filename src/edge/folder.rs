//! The data folder and everything that changes it, one thing after the other.

use std::{hash::Hash, io, net::IpAddr};

use super::{
    compute::Counted,
    data_name,
    disk::{Disk, DiskFile as _},
    journal::{self, Deed, JOURNAL, NEW_JOURNAL, Record},
    log::{DELETION_LOG, DEVICE_LOG, UPLOAD_LOG},
    memory::{Memory, answer_of},
    roster::{Roster, devices_in},
    stage::{Staged, refusal_of},
};
use crate::wire::{
    EdgeAnswer, ErrorCode, Name, Refusal,
    edge::{NO_SUCH_DATA, RequestId},
};

/// Acts that are decided together: they share the waiting for the disk.
const BATCH_MAX: usize = 256;

/// A journal below this is not written anew.
pub(super) const COMPACT_MIN_BYTES: u64 = 4 * 1024 * 1024;

/// The name of the log of devices while it is written anew.
const NEW_DEVICE_LOG: &str = ".edge/devices.new";

/// Something to be done in the folder, and in the order in which it comes.
#[derive(Debug)]
pub enum Act<S, D: Disk> {
    /// A device becomes active, or tells another port.
    Join {
        /// By which session.
        session: S,
        /// Its name.
        device: Name,
        /// Where it connected from.
        ip: IpAddr,
        /// Its port.
        udp_port: u16,
    },
    /// The device of a session is gone.
    Leave {
        /// Which session.
        session: S,
    },
    /// Who is active?
    List {
        /// But for this one.
        except: Option<Name>,
    },
    /// A file of samples gets its name.
    Upload {
        /// Whose it is.
        device: Name,
        /// Its number.
        file_id: u32,
        /// As the client named the request.
        request: Option<RequestId>,
        /// The file.
        staged: Staged<D>,
    },
    /// A file of samples is deleted.
    Delete {
        /// Whose it is.
        device: Name,
        /// Its number.
        file_id: u32,
        /// As the client named the request.
        request: Option<RequestId>,
        /// What was found when it was counted.
        counted: Result<Counted, Refusal>,
    },
}

/// Why an act was not done.
#[derive(Debug, Eq, PartialEq)]
pub enum Failure {
    /// For this reason.
    Refused(Refusal),
    /// The file is another one than was counted: count it again.
    Changed,
}

/// What becomes of an act.
pub type Done = Result<EdgeAnswer, Failure>;

/// The data folder of a server. `S` tells one session from another.
#[derive(Debug)]
pub struct Folder<S, D: Disk> {
    disk: D,
    journal: Journal<D>,
    memory: Memory,
    roster: Roster<S>,
    /// Whether the log of devices is to be written anew.
    devices_changed: bool,
    /// Whether it was said that this fails.
    devices_warned: bool,
    /// What has failed so that nobody knows what is on the disk. Nothing is done after that:
    /// the next start reads the journal and finds out.
    broken: Option<String>,
    warnings: Vec<String>,
}

/// The open journal.
#[derive(Debug)]
pub(super) struct Journal<D: Disk> {
    pub(super) file: D::File,
    /// So many bytes of it are good.
    pub(super) length: u64,
    /// The number of the last batch.
    pub(super) batch: u64,
    /// From this length on it is written anew.
    pub(super) compact_at: u64,
}

/// One act of a batch.
struct Planned {
    /// Its place among the results.
    index: usize,
    record: Record,
}

/// One log of a batch.
struct Appended<D: Disk> {
    name: &'static str,
    file: D::File,
    /// Its length before.
    start: u64,
    text: String,
}

/// How much a failure spoils.
enum Trouble {
    /// All is as it was before.
    Clean(io::Error),
    /// Nobody knows.
    Unknown(io::Error),
}

impl<S: Copy + Eq + Hash, D: Disk> Folder<S, D> {
    /// Opens the folder: finishes what was decided when the last server ended, puts the logs in
    /// order, and removes what nobody will ask for. Nobody is active then.
    ///
    /// # Errors
    /// A sentence: the disk fails, or the journal is damaged.
    pub fn open(disk: D) -> Result<Folder<S, D>, String> {
        let mut warnings = Vec::new();
        let (journal, memory) = super::recovery::recover(&disk, &mut warnings)?;
        let mut folder = Folder {
            disk,
            journal,
            memory,
            roster: Roster::default(),
            devices_changed: false,
            devices_warned: false,
            broken: None,
            warnings,
        };
        folder.compact_if_long();
        Ok(folder)
    }

    /// Takes over the devices that are active in `former`, a folder that is gone. The log of
    /// devices is owed then.
    pub fn take_devices_of(&mut self, former: Folder<S, D>) {
        self.roster = former.roster;
        self.devices_changed = true;
    }

    /// The disk below.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// What the operator should know, since it was last asked for.
    pub fn take_warnings(&mut self) -> Vec<String> {
        std::mem::take(&mut self.warnings)
    }

    /// Whether the log of devices is not as it should be, since writing it has failed: then
    /// [`Folder::perform`] is to be called again after a while, if only with nothing to do.
    pub fn owes_log(&self) -> bool {
        self.devices_changed
    }

    /// Does all of it, each with its result, in order. `time` is the local time for the logs.
    pub fn perform(&mut self, acts: Vec<Act<S, D>>, time: &str) -> Vec<Done> {
        let mut results: Vec<Option<Done>> = acts.iter().map(|_| None).collect();
        let mut batch: Vec<Planned> = Vec::new();
        let mut joined = Vec::new();
        for (index, act) in acts.into_iter().enumerate() {
            let done = match act {
                Act::Join { session, device, ip, udp_port } => {
                    let since = self.roster.join(session, device, ip, udp_port, time);
                    self.devices_changed = true;
                    joined.push((index, session));
                    Some(Ok(EdgeAnswer::Joined { device, udp_port, since }))
                }
                Act::Leave { session } => {
                    let left = self.roster.leave(session);
                    self.devices_changed |= left.is_some();
                    Some(left.map(|device| EdgeAnswer::Left { device }).ok_or_else(not_joined))
                }
                Act::List { except } => {
                    self.flush_devices(&mut joined, &mut results);
                    Some(self.list(except))
                }
                data => {
                    let device = match &data {
                        Act::Upload { device, .. } | Act::Delete { device, .. } => *device,
                        _ => unreachable!("the others are done above"),
                    };
                    // What is decided together does not depend on each other.
                    let depends = batch.iter().any(|planned| planned.record.device == device);
                    if depends || batch.len() == BATCH_MAX {
                        self.commit(&mut batch, &mut results);
                    }
                    match self.plan(data, time) {
                        Ok(record) => {
                            batch.push(Planned { index, record });
                            None
                        }
                        Err(done) => Some(done),
                    }
                }
            };
            results[index] = done;
        }
        self.commit(&mut batch, &mut results);
        self.flush_devices(&mut joined, &mut results);
        results.into_iter().map(|result| result.expect("each act has its result")).collect()
    }

    /// What is to be decided of an act, or what becomes of it without that.
    fn plan(&mut self, act: Act<S, D>, time: &str) -> Result<Record, Done> {
        let (device, file_id, request, hash) = match &act {
            Act::Upload { device, file_id, request, staged } => {
                (*device, *file_id, request.clone(), Some(staged.hash.as_str()))
            }
            Act::Delete { device, file_id, request, .. } => {
                (*device, *file_id, request.clone(), None)
            }
            _ => unreachable!("nothing else is planned"),
        };
        if let Some(broken) = &self.broken {
            return Err(refuse(ErrorCode::SystemError, broken.clone()));
        }
        if let Some(request) = &request {
            match self.memory.answer(&device, request, file_id, hash) {
                Ok(None) => {}
                Ok(Some(answer)) => return Err(Ok(answer)),
                Err(refusal) => return Err(Err(Failure::Refused(refusal))),
            }
        }
        let (samples, deed) = match act {
            Act::Upload { mut staged, .. } => {
                let (hash, stage) = (staged.hash.clone(), staged.name().to_owned());
                // From here on it is removed by us, or by the next start, or not at all.
                staged.keep();
                (staged.samples, Deed::Upload { hash, stage })
            }
            Act::Delete { counted, .. } => {
                let counted = counted.map_err(|refusal| Err(Failure::Refused(refusal)))?;
                self.check_same(&data_name(&device, file_id), &counted)?;
                (counted.samples, Deed::Delete)
            }
            _ => unreachable!("nothing else is planned"),
        };
        let time = time.to_owned();
        Ok(Record { batch: 0, device, file_id, samples, request, offset: 0, time, deed })
    }

    fn check_same(&self, name: &str, counted: &Counted) -> Result<(), Done> {
        match self.disk.open(name).and_then(|file| file.identity()) {
            Ok(identity) if identity == counted.identity => Ok(()),
            Ok(_) => Err(Err(Failure::Changed)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Err(refuse(ErrorCode::NoSuchData, NO_SUCH_DATA.to_owned()))
            }
            Err(error) => Err(Err(Failure::Refused(refusal_of(&error)))),
        }
    }

    /// Decides and does a batch.
    fn commit(&mut self, batch: &mut Vec<Planned>, results: &mut [Option<Done>]) {
        while !batch.is_empty() {
            let (count, trouble) = self.try_batch(batch);
            for planned in batch.drain(..count) {
                results[planned.index] = Some(Ok(answer_of(&planned.record, false)));
                self.memory.note(planned.record);
            }
            match trouble {
                None => self.compact_if_long(),
                Some(Trouble::Clean(error)) => {
                    // Where some were done it is the next one that failed, else all of them.
                    let failed = if count > 0 { 1 } else { batch.len() };
                    for planned in batch.drain(..failed) {
                        if let Deed::Upload { stage, .. } = &planned.record.deed {
                            let _ = self.disk.remove(stage);
                        }
                        let refusal = refusal_of(&error);
                        results[planned.index] = Some(Err(Failure::Refused(refusal)));
                    }
                }
                Some(Trouble::Unknown(error)) => {
                    let text = format!(
                        "the server's data folder failed while it was written ({error}); \
                         the server must be started again, and will then finish or drop this"
                    );
                    self.warnings.push(text.clone());
                    self.broken = Some(text.clone());
                    for planned in batch.drain(..) {
                        results[planned.index] = Some(refuse(ErrorCode::SystemError, text.clone()));
                    }
                }
            }
        }
    }

    /// How many acts of the batch are done, and what has kept the next one from it.
    fn try_batch(&mut self, batch: &mut [Planned]) -> (usize, Option<Trouble>) {
        let mut logs = match self.open_logs(batch) {
            Ok(logs) => logs,
            Err(error) => return (0, Some(Trouble::Clean(error))),
        };
        // The temporary names, and logs that are new, must be there whenever the journal is.
        if let Err(error) = self.disk.sync() {
            return (0, Some(Trouble::Unknown(error)));
        }
        let starts = match self.decide(batch) {
            Ok(starts) => starts,
            Err(trouble) => return (0, Some(trouble)),
        };
        if let Err(trouble) = self.append_lines(&mut logs) {
            return (0, Some(self.take_back(trouble, starts[0])));
        }
        for (index, planned) in batch.iter().enumerate() {
            let Err(trouble) = self.do_deed(&planned.record) else { continue };
            let trouble = self.cut_logs(&logs, &batch[index..], trouble);
            let trouble = self.take_back(trouble, starts[index]);
            return match (trouble, self.end_batch()) {
                (Trouble::Clean(error), Ok(())) => (index, Some(Trouble::Clean(error))),
                (Trouble::Clean(_), Err(error)) => (0, Some(Trouble::Unknown(error))),
                (unknown, _) => (0, Some(unknown)),
            };
        }
        match self.end_batch() {
            Ok(()) => (batch.len(), None),
            Err(error) => (0, Some(Trouble::Unknown(error))),
        }
    }

    /// Opens the logs of a batch and gives each record its line there.
    fn open_logs(&mut self, batch: &mut [Planned]) -> io::Result<Vec<Appended<D>>> {
        let mut logs = Vec::new();
        for name in [UPLOAD_LOG, DELETION_LOG] {
            if batch.iter().any(|planned| planned.record.log() == name) {
                logs.push(Appended::open(&self.disk, name)?);
            }
        }
        self.journal.batch += 1;
        for planned in batch {
            let record = &mut planned.record;
            let log = logs.iter_mut().find(|log| log.name == record.log()).expect("it is open");
            record.batch = self.journal.batch;
            record.offset = log.start + log.text.len() as u64;
            log.text += &record.line();
        }
        Ok(logs)
    }

    /// Writes the batch into the journal: where each record begins.
    fn decide(&mut self, batch: &[Planned]) -> Result<Vec<u64>, Trouble> {
        let start = self.journal.length;
        let mut bytes = Vec::new();
        let mut starts = Vec::new();
        for planned in batch {
            starts.push(start + bytes.len() as u64);
            planned.record.write(&mut bytes);
        }
        if let Err(error) = self.journal.file.write_all_at(&bytes, start) {
            return Err(self.take_back(Trouble::Clean(error), start));
        }
        self.journal.length += bytes.len() as u64;
        self.journal.file.sync().map_err(Trouble::Unknown)?;
        Ok(starts)
    }

    fn append_lines(&self, logs: &mut [Appended<D>]) -> Result<(), Trouble> {
        for log in logs.iter() {
            if let Err(error) = log.file.write_all_at(log.text.as_bytes(), log.start) {
                let cut =
                    |log: &Appended<D>| log.file.set_len(log.start).and_then(|()| log.file.sync());
                return Err(match logs.iter().try_for_each(cut) {
                    Ok(()) => Trouble::Clean(error),
                    Err(error) => Trouble::Unknown(error),
                });
            }
        }
        logs.iter().try_for_each(|log| log.file.sync()).map_err(Trouble::Unknown)
    }

    fn do_deed(&self, record: &Record) -> Result<(), Trouble> {
        let name = record.data_name();
        let (done, is_unchanged) = match &record.deed {
            Deed::Upload { stage, .. } => {
                (self.disk.rename(stage, &name), self.disk.open(stage).is_ok())
            }
            Deed::Delete => match self.disk.remove(&name) {
                // Somebody has been faster, by hand.
                Err(error) if error.kind() == io::ErrorKind::NotFound => (Ok(()), false),
                done => (done, self.disk.open(&name).is_ok()),
            },
        };
        match done {
            Ok(()) => Ok(()),
            Err(error) if is_unchanged => Err(Trouble::Clean(error)),
            Err(error) => Err(Trouble::Unknown(error)),
        }
    }

    /// Takes the lines of what was not done out of the logs.
    fn cut_logs(&self, logs: &[Appended<D>], undone: &[Planned], trouble: Trouble) -> Trouble {
        let Trouble::Clean(error) = trouble else { return trouble };
        for log in logs {
            let mut records = undone.iter().map(|planned| &planned.record);
            let Some(first) = records.find(|record| record.log() == log.name) else { continue };
            if let Err(error) = log.file.set_len(first.offset).and_then(|()| log.file.sync()) {
                return Trouble::Unknown(error);
            }
        }
        Trouble::Clean(error)
    }

    /// Cuts the journal, so that nothing behind `length` is decided any more.
    fn take_back(&mut self, trouble: Trouble, length: u64) -> Trouble {
        let Trouble::Clean(error) = trouble else { return trouble };
        let file = &self.journal.file;
        match file.set_len(length).and_then(|()| file.sync()) {
            Ok(()) => {
                self.journal.length = length;
                Trouble::Clean(error)
            }
            Err(error) => Trouble::Unknown(error),
        }
    }

    /// Makes the names durable and says that the batch is done.
    fn end_batch(&mut self) -> io::Result<()> {
        self.disk.sync()?;
        let mut mark = Vec::new();
        journal::write_done(self.journal.batch, &mut mark);
        // Without it the next start finds that there is nothing left to do.
        if self.journal.file.write_all_at(&mark, self.journal.length).is_ok() {
            self.journal.length += mark.len() as u64;
        }
        Ok(())
    }

    /// Writes the journal anew, with what must be remembered alone.
    fn compact_if_long(&mut self) {
        if self.journal.length < self.journal.compact_at {
            return;
        }
        match self.compact() {
            Ok(()) => {}
            // It may be long; it must not be wrong.
            Err(error) => self.warnings.push(format!("the journal could not be cut: {error}")),
        }
        self.journal.compact_at = COMPACT_MIN_BYTES.max(2 * self.journal.length);
    }

    fn compact(&mut self) -> io::Result<()> {
        let mut bytes = Vec::new();
        for record in self.memory.records() {
            Record { batch: 0, ..record.clone() }.write(&mut bytes);
        }
        journal::write_done(self.journal.batch, &mut bytes);
        let file = self.disk.open_to_write(NEW_JOURNAL)?;
        file.set_len(0)?;
        file.write_all_at(&bytes, 0)?;
        file.sync()?;
        self.disk.rename(NEW_JOURNAL, JOURNAL)?;
        // From here on that is the journal. Where its name is not durable yet, the older one has
        // the same to say; what is decided next waits for the folder to be synced in any case.
        self.journal.file = file;
        self.journal.length = bytes.len() as u64;
        Ok(())
    }

    fn list(&self, except: Option<Name>) -> Done {
        let text = match super::recovery::read_whole(&self.disk, DEVICE_LOG) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(Failure::Refused(refusal_of(&error))),
        };
        let (devices, bad) = devices_in(&text, except);
        if bad > 0 {
            let text = format!("{DEVICE_LOG} at the server has {bad} lines that are none of ours");
            return refuse(ErrorCode::SystemError, text);
        }
        Ok(EdgeAnswer::Devices { devices })
    }

    /// Writes the log of devices, if it has changed. Where that fails, those who have just come are
    /// not active; those who have gone are gone, and the log is tried again: see
    /// [`Folder::owes_log`].
    fn flush_devices(&mut self, joined: &mut Vec<(usize, S)>, results: &mut [Option<Done>]) {
        let joined = std::mem::take(joined);
        if !self.devices_changed {
            return;
        }
        match self.write_devices() {
            Ok(()) => (self.devices_changed, self.devices_warned) = (false, false),
            Err(error) => {
                if !std::mem::replace(&mut self.devices_warned, true) {
                    let text =
                        format!("{DEVICE_LOG} cannot be written, and is tried again: {error}");
                    self.warnings.push(text);
                }
                for (index, session) in joined {
                    self.roster.leave(session);
                    results[index] = Some(Err(Failure::Refused(refusal_of(&error))));
                }
            }
        }
    }

    fn write_devices(&self) -> io::Result<()> {
        let file = self.disk.open_to_write(NEW_DEVICE_LOG)?;
        file.set_len(0)?;
        file.write_all_at(self.roster.log().as_bytes(), 0)?;
        file.sync()?;
        self.disk.rename(NEW_DEVICE_LOG, DEVICE_LOG)
    }
}

impl<D: Disk> Appended<D> {
    fn open(disk: &D, name: &'static str) -> io::Result<Appended<D>> {
        let file = disk.open_to_write(name)?;
        let start = file.length()?;
        let mut last = [b'\n'];
        if start > 0 {
            file.fill_at(&mut last, start - 1)?;
        }
        // Somebody has edited it and left its last line open.
        let text = if last == [b'\n'] { String::new() } else { "\n".to_owned() };
        Ok(Appended { name, file, start, text })
    }
}

fn refuse(code: ErrorCode, text: String) -> Done {
    Err(Failure::Refused(Refusal::new(0, code, text)))
}

fn not_joined() -> Failure {
    let text = "this session is no active device; it has not joined, or has left";
    Failure::Refused(Refusal::new(0, ErrorCode::NotJoined, text))
}
