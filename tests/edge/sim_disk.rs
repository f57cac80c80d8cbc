//! A disk in memory that fails at a chosen step, and forgets what was not synced.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::{self, ErrorKind},
    rc::Rc,
};

use sixfour::edge::{
    Disk, DiskFile,
    disk::{Identity, NamesOf},
};

/// What happens at the chosen step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Fault {
    /// The process ends; a write is half done.
    Stop,
    /// The step fails, once, with this error.
    Error(ErrorKind),
    /// From this step on there is no room: a write takes one byte, and those after it none.
    Full,
    /// A write takes one byte.
    Short,
}

/// The disk. Clones stand for the same one.
#[derive(Clone, Debug)]
pub struct SimDisk(Rc<RefCell<State>>);

/// A file that is open.
#[derive(Debug)]
pub struct SimFile {
    disk: SimDisk,
    inode: usize,
}

/// What a step does.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    Open,
    Name,
    Sync,
    Read,
    Write,
    Cut,
}

#[derive(Debug, Default)]
struct State {
    inodes: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Changes of names that are not synced, in order.
    pending: Vec<Change>,
    steps: u64,
    fault: Option<(u64, Fault)>,
    is_full: bool,
    /// What was to be done at the chosen step.
    failed: Option<Step>,
    has_stopped: bool,
    clock: i64,
}

#[derive(Clone, Debug, Default)]
struct Inode {
    bytes: Vec<u8>,
    durable: Vec<u8>,
    modified: i64,
}

#[derive(Clone, Debug)]
enum Change {
    Link(String, usize),
    /// The number of the file that has the name.
    Rename(String, String, usize),
    Remove(String),
    /// The name goes if this file still has it.
    Gone(String, usize),
}

fn place_of(name: &str) -> NamesOf {
    if name.starts_with(".edge/") { NamesOf::Own } else { NamesOf::Files }
}

impl Change {
    fn apply(self, names: &mut BTreeMap<String, usize>) {
        match self {
            Change::Link(name, inode) => drop(names.insert(name, inode)),
            Change::Rename(from, to, inode) => {
                if names.get(&from) == Some(&inode) {
                    names.remove(&from);
                }
                names.insert(to, inode);
            }
            Change::Remove(name) => drop(names.remove(&name)),
            Change::Gone(name, inode) => {
                if names.get(&name) == Some(&inode) {
                    names.remove(&name);
                }
            }
        }
    }

    /// Where it is kept when the power goes and nothing was synced; a rename is one step for both
    /// folders then, and comes with that of the new name.
    fn place(&self) -> NamesOf {
        match self {
            Change::Link(name, _)
            | Change::Remove(name)
            | Change::Gone(name, _)
            | Change::Rename(_, name, _) => place_of(name),
        }
    }

    /// What a sync of one folder makes durable of it, and what is left to that of the other one:
    /// of a rename between both, each has a half.
    fn synced(self, place: NamesOf) -> (Option<Change>, Option<Change>) {
        match &self {
            Change::Rename(from, to, inode) if place_of(from) != place_of(to) => {
                let (gone, come) =
                    (Change::Gone(from.clone(), *inode), Change::Link(to.clone(), *inode));
                if place_of(from) == place {
                    (Some(gone), Some(come))
                } else {
                    (Some(come), Some(gone))
                }
            }
            _ if self.place() == place => (Some(self), None),
            _ => (None, Some(self)),
        }
    }
}

/// What comes after a stop.
#[derive(Clone, Copy, Debug)]
pub enum Restart {
    /// The process alone has ended: the system keeps what it was given.
    Process,
    /// The machine has lost its power: of what was not synced some is there and some not.
    Machine(u64),
}

impl SimDisk {
    pub fn new() -> SimDisk {
        SimDisk(Rc::default())
    }

    /// Fails at the `step`-th step from now on, counted from 1.
    pub fn fail_at(&self, step: u64, fault: Fault) {
        let mut state = self.0.borrow_mut();
        state.steps = 0;
        state.fault = Some((step, fault));
    }

    /// Whether the step was reached at which it was to fail.
    pub fn has_failed(&self) -> bool {
        let state = self.0.borrow();
        state.fault.is_some_and(|(step, _)| state.steps >= step)
    }

    pub fn has_stopped(&self) -> bool {
        self.0.borrow().has_stopped
    }

    /// The disk as the next process finds it; nothing fails any more.
    pub fn restart(&self, how: Restart) -> SimDisk {
        let state = self.0.borrow();
        let mut next = State { clock: state.clock + 1, ..State::default() };
        match how {
            Restart::Process => {
                (next.inodes, next.names) = (state.inodes.clone(), state.names.clone());
            }
            Restart::Machine(seed) => {
                let mut dice = Dice(seed);
                next.names = state.durable_names.clone();
                // Each folder keeps some of its changes, and not one without those before it.
                for place in [NamesOf::Own, NamesOf::Files] {
                    let of_it: Vec<_> =
                        state.pending.iter().filter(|it| it.place() == place).collect();
                    let kept = dice.below(of_it.len() as u64 + 1) as usize;
                    of_it[..kept].iter().for_each(|it| (*it).clone().apply(&mut next.names));
                }
                next.inodes = state.inodes.iter().map(|inode| dice.survivor(inode)).collect();
            }
        }
        for inode in &mut next.inodes {
            inode.durable = inode.bytes.clone();
        }
        next.durable_names = next.names.clone();
        SimDisk(Rc::new(RefCell::new(next)))
    }

    /// The content of a file, past all counting.
    pub fn content(&self, name: &str) -> Option<Vec<u8>> {
        let state = self.0.borrow();
        state.names.get(name).map(|inode| state.inodes[*inode].bytes.clone())
    }

    /// Changes a file from outside.
    pub fn put(&self, name: &str, bytes: &[u8]) {
        let mut state = self.0.borrow_mut();
        let inode = Inode { bytes: bytes.to_vec(), durable: bytes.to_vec(), modified: 0 };
        state.inodes.push(inode);
        let number = state.inodes.len() - 1;
        state.names.insert(name.into(), number);
        state.durable_names.insert(name.into(), number);
    }

    /// All names.
    pub fn all(&self) -> Vec<String> {
        self.0.borrow().names.keys().cloned().collect()
    }

    /// What has failed at the chosen step.
    pub fn failed(&self) -> Option<Step> {
        self.0.borrow().failed
    }

    /// Counts a step; the fault that it meets.
    fn step(&self, step: Step) -> io::Result<Option<Fault>> {
        let mut state = self.0.borrow_mut();
        if state.has_stopped {
            return Err(io::Error::other("the process has ended"));
        }
        state.steps += 1;
        let fault = state.fault.filter(|(step, _)| *step == state.steps).map(|(_, fault)| fault);
        if fault.is_some() {
            state.failed = Some(step);
        }
        match fault {
            Some(Fault::Stop) => state.has_stopped = true,
            Some(Fault::Full) => state.is_full = true,
            _ => {}
        }
        Ok(fault)
    }

    /// A step that is done as a whole or not at all.
    fn whole_step(&self, step: Step) -> io::Result<()> {
        match self.step(step)? {
            Some(Fault::Stop) => Err(io::Error::other("the process has ended")),
            Some(Fault::Error(kind)) => Err(kind.into()),
            _ => Ok(()),
        }
    }

    fn change(&self, change: Change) {
        let mut state = self.0.borrow_mut();
        change.clone().apply(&mut state.names);
        state.pending.push(change);
    }

    fn file(&self, inode: usize) -> SimFile {
        SimFile { disk: self.clone(), inode }
    }

    fn find(&self, name: &str) -> io::Result<usize> {
        self.0.borrow().names.get(name).copied().ok_or_else(|| ErrorKind::NotFound.into())
    }

    fn make(&self, name: &str) -> io::Result<SimFile> {
        if self.0.borrow().is_full {
            return Err(ErrorKind::StorageFull.into());
        }
        let inode = {
            let mut state = self.0.borrow_mut();
            state.inodes.push(Inode::default());
            state.inodes.len() - 1
        };
        self.change(Change::Link(name.to_owned(), inode));
        Ok(self.file(inode))
    }
}

impl Disk for SimDisk {
    type File = SimFile;

    fn open(&self, name: &str) -> io::Result<SimFile> {
        self.whole_step(Step::Open)?;
        self.find(name).map(|inode| self.file(inode))
    }

    fn open_to_write(&self, name: &str) -> io::Result<SimFile> {
        self.whole_step(Step::Open)?;
        match self.find(name) {
            Ok(inode) => Ok(self.file(inode)),
            Err(_) => self.make(name),
        }
    }

    fn create(&self, name: &str) -> io::Result<SimFile> {
        self.whole_step(Step::Open)?;
        match self.find(name) {
            Ok(_) => Err(ErrorKind::AlreadyExists.into()),
            Err(_) => self.make(name),
        }
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.whole_step(Step::Name)?;
        let inode = self.find(from)?;
        // The folder has to take one more name.
        if self.0.borrow().is_full && self.find(to).is_err() {
            return Err(ErrorKind::StorageFull.into());
        }
        self.change(Change::Rename(from.to_owned(), to.to_owned(), inode));
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.whole_step(Step::Name)?;
        self.find(name)?;
        self.change(Change::Remove(name.to_owned()));
        Ok(())
    }

    fn sync_names(&self, place: NamesOf) -> io::Result<()> {
        self.whole_step(Step::Sync)?;
        let state = &mut *self.0.borrow_mut();
        for change in std::mem::take(&mut state.pending) {
            let (durable, left) = change.synced(place);
            if let Some(change) = durable {
                change.apply(&mut state.durable_names);
            }
            state.pending.extend(left);
        }
        Ok(())
    }

    fn names(&self, prefix: &str) -> io::Result<Vec<String>> {
        self.whole_step(Step::Open)?;
        let state = self.0.borrow();
        Ok(state.names.keys().filter(|name| name.starts_with(prefix)).cloned().collect())
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
        self.disk.whole_step(Step::Read)?;
        let state = self.disk.0.borrow();
        let bytes = &state.inodes[self.inode].bytes;
        let rest = &bytes[bytes.len().min(offset as usize)..];
        let count = rest.len().min(buffer.len());
        buffer[..count].copy_from_slice(&rest[..count]);
        Ok(count)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<usize> {
        let was_full = self.disk.0.borrow().is_full;
        let fault = self.disk.step(Step::Write)?;
        let count = match fault {
            Some(Fault::Stop) => bytes.len() / 2,
            Some(Fault::Error(kind)) => return Err(kind.into()),
            Some(Fault::Short | Fault::Full) => 1,
            None if was_full => return Err(ErrorKind::StorageFull.into()),
            None => bytes.len(),
        };
        let mut state = self.disk.0.borrow_mut();
        state.clock += 1;
        let clock = state.clock;
        let inode = &mut state.inodes[self.inode];
        inode.modified = clock;
        let end = offset as usize + count;
        if inode.bytes.len() < end {
            inode.bytes.resize(end, 0);
        }
        inode.bytes[offset as usize..end].copy_from_slice(&bytes[..count]);
        match fault {
            Some(Fault::Stop) => Err(io::Error::other("the process has ended")),
            _ => Ok(count),
        }
    }

    fn set_len(&self, length: u64) -> io::Result<()> {
        self.disk.whole_step(Step::Cut)?;
        self.disk.0.borrow_mut().inodes[self.inode].bytes.resize(length as usize, 0);
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        self.disk.whole_step(Step::Sync)?;
        let mut state = self.disk.0.borrow_mut();
        let inode = &mut state.inodes[self.inode];
        inode.durable = inode.bytes.clone();
        Ok(())
    }

    fn identity(&self) -> io::Result<Identity> {
        self.disk.whole_step(Step::Read)?;
        let state = self.disk.0.borrow();
        let inode = &state.inodes[self.inode];
        let length = inode.bytes.len() as u64;
        Ok(Identity { file: (0, self.inode as u64), length, modified: (inode.modified, 0) })
    }
}

/// Numbers that look random and are the same every time (splitmix64).
pub struct Dice(pub u64);

impl Dice {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (mixed ^ (mixed >> 31)) % end
    }

    /// What is left of a file when the power goes: what was synced, all of it, or the synced part
    /// with some of what was appended, the rest missing or zero.
    fn survivor(&mut self, inode: &Inode) -> Inode {
        let (old, new) = (&inode.durable, &inode.bytes);
        let appended = new.len() > old.len() && new.starts_with(old);
        let bytes = match self.below(4) {
            0 => old.clone(),
            1 => new.clone(),
            kind if appended => {
                let some = old.len() + self.below((new.len() - old.len()) as u64) as usize;
                let mut bytes = new[..some].to_vec();
                if kind == 2 {
                    bytes.resize(new.len(), 0);
                }
                bytes
            }
            _ => old.clone(),
        };
        Inode { bytes, ..inode.clone() }
    }
}
