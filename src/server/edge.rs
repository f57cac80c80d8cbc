//! The edge network in the loop: files of samples come in, acts wait for the one who does them,
//! answers go out.
//!
//! ```text
//!   upload:   input ─▶ receivers (check, hash, write) ─▶ inbox ─▶ clerk ─▶ answer
//!   delete:   readers (count) ────────────────────────▶ inbox ─▶ clerk ─▶ answer
//!   join ...: ────────────────────────────────────────▶ inbox ─▶ clerk ─▶ answer
//!   compute:  readers ──────────────────────────────────────────────────▶ answer
//! ```
//!
//! The clerk is one thread, and has the data folder while it works; what comes meanwhile waits in
//! the inbox and is done together. No thread and no file is there before the first request.

mod glue;
mod gone;
mod place;
mod pools;
mod quota;
mod refusals;

use std::{
    collections::{HashMap, HashSet, VecDeque},
    net::IpAddr,
    sync::Arc,
};

pub use place::{DataChoice, Place};
use place::{DataFolders, DataPlace};
use pools::Pools;
use quota::Quota;
use refusals::{changing, fault, lost};

use crate::{
    edge::{
        self, Act, DataFolder, Failure, Stage, Staged, compute::Counted, folder, samples::lines_of,
    },
    hub::{OperationId, SessionId},
    sys::{
        clock,
        workers::{Behalf, Cancelled, NotTaken},
    },
    wire::{
        EdgeAnswer, EdgeCall, ErrorCode, Name, Outcome, Refusal,
        edge::{RequestId, Statistic},
        event::Object,
    },
};

/// Devices in one piece of a listing: of the longest names and addresses 40 KiB.
const DEVICES_PER_PIECE: usize = 200;

/// A log of devices that could not be written is tried again after this.
const LOG_RETRY_MS: u64 = 1000;

/// A file that changes so often while it is counted is not deleted.
const COUNTS_MAX: u32 = 16;

/// All requests of devices that are under way.
pub struct Edge {
    place: DataPlace,
    folder: FolderState,
    /// A folder that was removed meanwhile: its devices are still here.
    former: Option<Box<DataFolders>>,
    /// The disk of the folder, once that is open.
    disk: Option<DataFolder>,
    workers: Pools,
    /// Where anybody may store something.
    quota: Option<Arc<Quota>>,
    running: HashMap<OperationId, Task>,
    inbox: Vec<(Option<OperationId>, Act<SessionId, DataFolder>)>,
    /// Sessions that are, or are about to be, active devices.
    joined: HashSet<SessionId>,
    /// The log of devices is not as it should be.
    owes_log: bool,
    /// There was no thread for the clerk, and something is still in the inbox.
    lacks_thread: bool,
    /// When one or the other is tried again.
    retry_at: Option<u64>,
    news: Vec<News>,
}

/// Where the folder is.
enum FolderState {
    /// Not open.
    Closed,
    /// With nothing to do.
    Idle(Box<DataFolders>),
    /// With the clerk.
    Busy,
    /// A fault of ours has lost it.
    Lost,
}

/// What a worker has done.
pub enum Done {
    /// The folder is open, or could not be opened.
    Opened(Result<Box<DataFolders>, Refusal>),
    /// The clerk has done these.
    Acts(Box<DataFolders>, Vec<(Option<OperationId>, folder::Done)>),
    /// The clerk has panicked.
    Lost,
    /// A part of an upload is written.
    Written(OperationId, Result<Box<Stage<DataFolder>>, Refusal>),
    /// An upload is here as a whole.
    Received(OperationId, Result<Staged<DataFolder>, Refusal>),
    /// The samples of a file are counted, which is to be deleted.
    Counted(OperationId, Result<Counted, Refusal>),
    /// There is a result.
    Computed(OperationId, Result<EdgeAnswer, Refusal>),
}

struct Task {
    session: SessionId,
    ip: IpAddr,
    device: Option<Name>,
    plain: bool,
    step: Step,
}

enum Step {
    /// Until the folder is open.
    Waiting(EdgeCall),
    Receiving(Upload),
    Counting(Deletion, Cancelled),
    Computing(Cancelled),
    /// In the inbox, or with the clerk.
    Deciding(Option<Deletion>),
    /// So much is still to be said, and then this.
    Answering(VecDeque<EdgeAnswer>, Outcome),
}

struct Upload {
    file_id: u32,
    request: Option<RequestId>,
    hash: Option<[u8; 32]>,
    /// While no worker has it; `None` also before the first byte.
    stage: Option<Box<Stage<DataFolder>>>,
    /// So many bytes are with a worker; `None`: none are.
    in_flight: Option<usize>,
}

struct Deletion {
    file_id: u32,
    request: Option<RequestId>,
    /// How often it was counted.
    counts: u32,
}

/// What an operation has to say.
pub enum Produced {
    /// This, for people.
    Text(String),
    /// This, for programs.
    Object(Object),
    /// Nothing for now.
    Nothing,
    /// It is over.
    Over(Outcome),
}

/// What follows from the work of a worker.
pub enum News {
    /// The operation may have something to say: see [`Edge::produce`].
    Ready(OperationId),
    /// So many bytes of its input were taken, and more may be given.
    Taken(OperationId, usize),
}

/// On whose behalf something is asked.
pub struct Asker {
    /// The session.
    pub session: SessionId,
    /// Where it connected from.
    pub ip: IpAddr,
    /// Who it is.
    pub device: Option<Name>,
    /// Whether a person reads the answer.
    pub plain: bool,
}

impl Edge {
    /// Nothing is under way.
    /// `quota_bytes`: how much all devices may store, where anybody may be one.
    pub fn new(place: Place, quota_bytes: Option<u64>, waker: Arc<mio::Waker>) -> Edge {
        let Place { place, opened } = place;
        let disk = opened.as_ref().map(|folder| folder.disk().clone());
        Edge {
            place,
            folder: opened.map_or(FolderState::Closed, FolderState::Idle),
            former: None,
            disk,
            workers: Pools::new(&waker),
            quota: quota_bytes.map(|bytes| Arc::new(Quota::new(bytes))),
            running: HashMap::new(),
            inbox: Vec::new(),
            joined: HashSet::new(),
            owes_log: false,
            lacks_thread: false,
            retry_at: None,
            news: Vec::new(),
        }
    }

    /// Starts what a device has asked for.
    ///
    /// # Errors
    /// The server cannot do such a thing at the moment.
    pub fn start(&mut self, id: OperationId, asker: Asker, call: EdgeCall) -> Result<(), Refusal> {
        if matches!(self.folder, FolderState::Lost) {
            return Err(lost());
        }
        self.leave_if_gone();
        let Asker { session, ip, device, plain } = asker;
        let is_open = self.disk.is_some();
        self.running.insert(id, Task { session, ip, device, plain, step: Step::Waiting(call) });
        if is_open {
            self.begin(id);
        } else if matches!(self.folder, FolderState::Closed) {
            self.open();
        }
        Ok(())
    }

    fn open(&mut self) {
        self.folder = FolderState::Busy;
        let place = self.place.clone();
        let on_panic = Done::Opened(Err(fault()));
        let job = move || Done::Opened(place.open());
        if let Err(why) = self.workers.clerk.submit(Behalf::SERVER, job, on_panic) {
            let text = format!("the data folder cannot be opened: {why}");
            self.on_opened(Err(Refusal::new(0, ErrorCode::SystemError, text)));
        }
    }

    /// The folder is open.
    fn begin(&mut self, id: OperationId) {
        let Some(task) = self.running.get_mut(&id) else { return };
        let Step::Waiting(call) = std::mem::replace(&mut task.step, Step::Deciding(None)) else {
            unreachable!("it is begun once");
        };
        let Task { session, ip, device, .. } = *task;
        let named = || device.expect("the hub asks for a name");
        match call {
            EdgeCall::Join { udp_port } => {
                self.joined.insert(session);
                self.put(Some(id), Act::Join { session, device: named(), ip, udp_port });
            }
            EdgeCall::Leave => {
                self.joined.remove(&session);
                self.put(Some(id), Act::Leave { session });
            }
            EdgeCall::List => self.put(Some(id), Act::List { except: device }),
            EdgeCall::Upload { file_id, request, hash, samples } => {
                let upload = Upload { file_id, request, hash, stage: None, in_flight: None };
                task.step = Step::Receiving(upload);
                if let Some(samples) = samples {
                    self.receive(id, lines_of(&samples), true);
                }
            }
            EdgeCall::Compute { file_id, operation } => {
                self.compute(id, named(), file_id, operation);
            }
            EdgeCall::Delete { file_id, request } => {
                self.count(id, Deletion { file_id, request, counts: 0 });
            }
        }
    }

    fn compute(&mut self, id: OperationId, device: Name, file_id: u32, operation: Statistic) {
        let (disk, cancelled) = (self.open_disk(), Cancelled::default());
        let flag = cancelled.clone();
        let job = move || {
            let flag = flag.as_flag();
            Done::Computed(id, edge::compute(&disk, &device, file_id, operation, flag))
        };
        self.set_step(id, Step::Computing(cancelled));
        let on_panic = Done::Computed(id, Err(fault()));
        let submitted = self.workers.readers.submit(self.behalf(id), job, on_panic);
        self.check_room(id, submitted);
    }

    fn count(&mut self, id: OperationId, mut deletion: Deletion) {
        let Some(task) = self.running.get(&id) else { return };
        let device = task.device.expect("the hub asks for a name");
        let (disk, cancelled) = (self.open_disk(), Cancelled::default());
        let (flag, file_id) = (cancelled.clone(), deletion.file_id);
        let job = move || Done::Counted(id, edge::count(&disk, &device, file_id, flag.as_flag()));
        deletion.counts += 1;
        self.set_step(id, Step::Counting(deletion, cancelled));
        let on_panic = Done::Counted(id, Err(fault()));
        let submitted = self.workers.readers.submit(self.behalf(id), job, on_panic);
        self.check_room(id, submitted);
    }

    /// Uploads that were given up may have left jobs behind, more than there is room for.
    fn check_room(&mut self, id: OperationId, submitted: Result<(), NotTaken>) {
        if let Err(why) = submitted {
            let text = format!("the server does not keep up with its devices: {why}; try again");
            self.answer(id, Err(Refusal::new(0, ErrorCode::Busy, text)));
        }
    }

    fn behalf(&self, id: OperationId) -> Behalf {
        self.running.get(&id).map_or(Behalf::SERVER, |task| task.session.into())
    }

    fn open_disk(&self) -> DataFolder {
        self.disk.clone().expect("nothing begins before the folder is open")
    }

    fn set_step(&mut self, id: OperationId, step: Step) {
        if let Some(task) = self.running.get_mut(&id) {
            task.step = step;
        }
    }

    /// Takes input of an upload, where it can: see [`News::Taken`]. `ended`: nothing follows it.
    pub fn feed(&mut self, id: OperationId, bytes: &[u8], ended: bool) {
        let Some(Task { step: Step::Receiving(upload), .. }) = self.running.get(&id) else {
            return;
        };
        let is_idle = upload.in_flight.is_none();
        if is_idle && (ended || !bytes.is_empty()) {
            // The end has a turn of its own, so that all bytes are counted as taken before.
            self.receive(id, bytes.to_vec(), ended && bytes.is_empty());
        }
    }

    /// Has these bytes written, and with `is_all` the file finished.
    fn receive(&mut self, id: OperationId, bytes: Vec<u8>, is_all: bool) {
        let disk = self.open_disk();
        let Some(task) = self.running.get_mut(&id) else { return };
        let Step::Receiving(upload) = &mut task.step else { unreachable!("the caller has looked") };
        upload.in_flight = Some(bytes.len());
        let (stage, hash) = (upload.stage.take(), upload.hash);
        let quota = self.quota.clone();
        let write = move || {
            if let Some(quota) = &quota {
                stage.is_none().then(|| quota.begin(&disk)).transpose()?;
                quota.write(&disk, bytes.len())?;
            }
            let mut stage = match stage {
                Some(stage) => stage,
                None => Box::new(Stage::begin(disk, id.to_bits())?),
            };
            stage.write(&bytes).map(|()| stage)
        };
        let job = move || match (write(), is_all) {
            (Ok(stage), true) => Done::Received(id, stage.finish(hash.as_ref())),
            (written, _) => Done::Written(id, written),
        };
        let behalf = task.session.into();
        let submitted = self.workers.receivers.submit(behalf, job, Done::Written(id, Err(fault())));
        self.check_room(id, submitted);
    }

    /// Puts an act into the inbox, and lets the clerk begin if he is idle.
    fn put(&mut self, id: Option<OperationId>, act: Act<SessionId, DataFolder>) {
        self.inbox.push((id, act));
        self.let_clerk_work();
    }

    /// Time has passed.
    pub fn tick(&mut self, now_ms: u64) {
        if !self.owes_log && !self.lacks_thread {
            self.retry_at = None;
        } else if now_ms >= *self.retry_at.get_or_insert(now_ms + LOG_RETRY_MS) {
            self.retry_at = Some(now_ms + LOG_RETRY_MS);
            self.call_clerk();
        }
    }

    /// When [`Edge::tick`] is due.
    pub fn next_deadline(&self) -> Option<u64> {
        self.retry_at
    }

    fn let_clerk_work(&mut self) {
        if !self.inbox.is_empty() {
            self.call_clerk();
        }
    }

    /// Has what is in the inbox done, and what is owed, unless the clerk is at work.
    fn call_clerk(&mut self) {
        if !matches!(self.folder, FolderState::Idle(_)) {
            return;
        }
        if let Err(why) = self.workers.clerk.prepare() {
            return self.turn_away(why);
        }
        self.lacks_thread = false;
        let FolderState::Idle(mut folder) = std::mem::replace(&mut self.folder, FolderState::Busy)
        else {
            unreachable!("it was just looked at");
        };
        let inbox = std::mem::take(&mut self.inbox);
        let job = move || {
            let (ids, acts): (Vec<_>, Vec<_>) = inbox.into_iter().unzip();
            let time = clock::log_time(clock::wall_clock());
            let results = folder.perform(acts, &time);
            Done::Acts(place::told(folder), ids.into_iter().zip(results).collect())
        };
        // The clerk has a thread, and one job at a time. Where it is not taken all the same, the
        // folder is gone with the job, as after a panic.
        if self.workers.clerk.submit(Behalf::SERVER, job, Done::Lost).is_err() {
            self.on_done(Done::Lost);
        }
    }

    /// There is no clerk: a request that waits for an answer is told so, the rest is tried again.
    fn turn_away(&mut self, why: NotTaken) {
        let asked = self.inbox.extract_if(.., |(id, _)| id.is_some());
        let ids: Vec<_> = asked.filter_map(|(id, _)| id).collect();
        ids.into_iter().for_each(|id| self.check_room(id, Err(why)));
        self.lacks_thread = !self.inbox.is_empty();
    }

    /// What has come of it all since.
    pub fn take_news(&mut self) -> Vec<News> {
        while let Some(done) = self.workers.try_recv() {
            self.on_done(done);
        }
        std::mem::take(&mut self.news)
    }

    fn on_done(&mut self, done: Done) {
        match done {
            Done::Opened(opened) => self.on_opened(opened),
            Done::Acts(folder, results) => {
                self.owes_log = folder.owes_log();
                self.folder = FolderState::Idle(folder);
                for (id, result) in results {
                    if let Some(id) = id {
                        self.on_decided(id, result);
                    }
                }
                self.let_clerk_work();
            }
            Done::Lost => {
                self.folder = FolderState::Lost;
                self.inbox.clear();
                let deciding = |task: &Task| matches!(task.step, Step::Deciding(_));
                let ids = self.running.iter().filter(|(_, task)| deciding(task));
                let ids: Vec<_> = ids.map(|(id, _)| *id).collect();
                ids.into_iter().for_each(|id| self.answer(id, Err(lost())));
            }
            Done::Written(id, Err(refusal)) => self.answer(id, Err(refusal)),
            Done::Written(id, Ok(stage)) => {
                let task = self.running.get_mut(&id);
                let Some(Task { step: Step::Receiving(upload), .. }) = task else {
                    return self.discard(stage);
                };
                upload.stage = Some(stage);
                let count = upload.in_flight.take().unwrap_or(0);
                self.news.push(News::Taken(id, count));
            }
            Done::Received(id, received) => self.on_received(id, received),
            Done::Counted(id, counted) => self.on_counted(id, counted),
            Done::Computed(id, computed) => self.answer(id, computed),
        }
    }

    fn on_opened(&mut self, opened: Result<Box<DataFolders>, Refusal>) {
        let waiting = self.running.iter().filter(|(_, task)| matches!(task.step, Step::Waiting(_)));
        let mut waiting: Vec<_> = waiting.map(|(id, _)| *id).collect();
        waiting.sort_unstable();
        match opened {
            Ok(mut folder) => {
                if let Some(former) = self.former.take() {
                    folder.take_devices_of(*former);
                    self.owes_log = folder.owes_log();
                }
                self.disk = Some(folder.disk().clone());
                self.folder = FolderState::Idle(folder);
                for id in waiting {
                    self.begin(id);
                    // Its input may have come meanwhile.
                    self.news.push(News::Taken(id, 0));
                }
                // Who has gone meanwhile.
                self.let_clerk_work();
            }
            Err(refusal) => {
                log::warn!("{}", refusal.text);
                self.folder = FolderState::Closed;
                waiting.into_iter().for_each(|id| self.answer(id, Err(refusal.clone())));
            }
        }
    }

    fn on_received(&mut self, id: OperationId, received: Result<Staged<DataFolder>, Refusal>) {
        let staged = match received {
            Ok(staged) => staged,
            Err(refusal) => return self.answer(id, Err(refusal)),
        };
        let task = self.running.get_mut(&id);
        // Nobody waits for it, or it was given up when the folder was removed.
        let Some(task) = task.filter(|it| matches!(it.step, Step::Receiving(_))) else {
            return self.discard(staged);
        };
        let device = task.device.expect("the hub asks for a name");
        let Step::Receiving(upload) = std::mem::replace(&mut task.step, Step::Deciding(None))
        else {
            unreachable!("it was just looked at");
        };
        let Upload { file_id, request, .. } = upload;
        self.put(Some(id), Act::Upload { device, file_id, request, staged });
    }

    fn on_counted(&mut self, id: OperationId, counted: Result<Counted, Refusal>) {
        let Some(task) = self.running.get_mut(&id) else { return };
        let device = task.device.expect("the hub asks for a name");
        let Step::Counting(deletion, _) = std::mem::replace(&mut task.step, Step::Deciding(None))
        else {
            unreachable!("a file is counted once at a time");
        };
        let (file_id, request) = (deletion.file_id, deletion.request.clone());
        task.step = Step::Deciding(Some(deletion));
        self.put(Some(id), Act::Delete { device, file_id, request, counted });
    }

    fn on_decided(&mut self, id: OperationId, done: folder::Done) {
        let done = match done {
            Ok(answer) => Ok(answer),
            Err(Failure::Refused(refusal)) => Err(refusal),
            Err(Failure::Changed) => {
                let step = self.running.get_mut(&id).map(|task| &mut task.step);
                match step {
                    None => return,
                    Some(Step::Deciding(deletion)) => match deletion.take() {
                        Some(deletion) if deletion.counts < COUNTS_MAX => {
                            return self.count(id, deletion);
                        }
                        _ => Err(changing()),
                    },
                    Some(_) => unreachable!("the clerk had it"),
                }
            }
        };
        self.answer(id, done);
    }

    fn answer(&mut self, id: OperationId, done: Result<EdgeAnswer, Refusal>) {
        let Some(task) = self.running.get_mut(&id) else { return };
        let (pieces, outcome) = match done {
            Err(refusal) => (VecDeque::new(), Outcome::Failed(refusal)),
            Ok(EdgeAnswer::Devices { devices }) => {
                let count = devices.len() as u64;
                let piece = |devices: &[_]| EdgeAnswer::Devices { devices: devices.to_vec() };
                let mut pieces: VecDeque<_> =
                    devices.chunks(DEVICES_PER_PIECE).map(piece).collect();
                if pieces.is_empty() {
                    pieces.push_back(piece(&[]));
                }
                (pieces, Outcome::Counted { count, noun: "devices" })
            }
            Ok(answer) => (VecDeque::from([answer]), Outcome::Done),
        };
        task.step = Step::Answering(pieces, outcome);
        self.news.push(News::Ready(id));
    }

    /// What the operation has to say next; without room only its end.
    pub fn produce(&mut self, id: OperationId, room: usize) -> Produced {
        let Some(task) = self.running.get_mut(&id) else { return Produced::Nothing };
        let Step::Answering(pieces, outcome) = &mut task.step else { return Produced::Nothing };
        if pieces.is_empty() {
            return Produced::Over(outcome.clone());
        }
        if room == 0 {
            return Produced::Nothing;
        }
        match pieces.pop_front() {
            None => Produced::Nothing,
            Some(piece) if task.plain => Produced::Text(piece.text()),
            Some(piece) => Produced::Object(piece.to_object()),
        }
    }

    /// Ends an operation before its time, if that is still possible: what is with the clerk is
    /// done. True where it is over at once.
    pub fn terminate(&mut self, id: OperationId) -> bool {
        match self.running.get(&id).map(|task| &task.step) {
            Some(Step::Counting(_, cancelled) | Step::Computing(cancelled)) => {
                cancelled.set();
                false
            }
            Some(Step::Waiting(_) | Step::Receiving(_)) => true,
            Some(Step::Deciding(_) | Step::Answering(..)) | None => false,
        }
    }

    /// Forgets an operation; what it was about to do is not done, if that is still possible.
    pub fn drop_operation(&mut self, id: OperationId) {
        match self.running.remove(&id).map(|task| task.step) {
            Some(Step::Counting(_, cancelled) | Step::Computing(cancelled)) => cancelled.set(),
            Some(Step::Receiving(Upload { stage: Some(stage), .. })) => self.discard(stage),
            _ => {}
        }
    }

    /// Removes a file that nobody wants, which may wait for the disk.
    fn discard(&self, staged: impl Send + 'static) {
        self.workers.receivers.dispose(Behalf::SERVER, staged);
    }

    /// The session is gone, and so is its device.
    pub fn forget_session(&mut self, session: SessionId) {
        if self.joined.remove(&session) && !matches!(self.folder, FolderState::Lost) {
            self.put(None, Act::Leave { session });
        }
    }

    /// True where the operation is one of these, under way.
    pub fn has(&self, id: OperationId) -> bool {
        self.running.contains_key(&id)
    }

    /// True where nothing is left to be done.
    pub fn is_idle(&self) -> bool {
        match self.folder {
            FolderState::Busy => false,
            FolderState::Idle(_) => self.inbox.is_empty(),
            // What waits for a folder that is not there waits no longer.
            FolderState::Closed | FolderState::Lost => true,
        }
    }
}
