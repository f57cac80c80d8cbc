//! The data folder on a disk that fails at every step: an act and its line in the log come
//! together or not at all, what was confirmed stays, and what is asked again is done once.

#[path = "edge/sim_disk.rs"]
mod sim_disk;

use std::{collections::BTreeMap, io::ErrorKind, net::IpAddr, sync::atomic::AtomicBool};

use sim_disk::{Dice, Fault, Restart, SimDisk, Step};
use sixfour::{
    edge::{
        self, Act, Failure, Folder, Stage, data_name,
        folder::Done,
        log::{DELETION_LOG, DEVICE_LOG, UPLOAD_LOG},
    },
    wire::{EdgeAnswer, ErrorCode, Name, Refusal, edge::RequestId},
};

const TIME: &str = "30 September 2022 10:31:13";
static NOBODY: AtomicBool = AtomicBool::new(false);

type SimFolder = Folder<u32, SimDisk>;

/// What is asked for: a device, the number of its file, its samples or `None` to delete it, and
/// the id of the request.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Deed {
    device: &'static str,
    file_id: u32,
    samples: Option<&'static str>,
    request: Option<&'static str>,
}

const fn deed(
    device: &'static str,
    file_id: u32,
    samples: Option<&'static str>,
    request: Option<&'static str>,
) -> Deed {
    Deed { device, file_id, samples, request }
}

/// Asked one group after the other; a group together. Of the same device there is one deed in a
/// group at most: else the model below would have to know how batches are cut.
const SCRIPT: &[&[Deed]] = &[
    &[deed("a", 1, Some("1\n2\n3\n"), Some("r1"))],
    &[deed("b", 1, Some("10\n"), Some("r2")), deed("a", 2, Some("5\n6"), None)],
    &[deed("a", 1, Some("-7\n"), Some("r3"))],
    &[deed("b", 1, None, Some("r4"))],
    &[deed("a", 2, None, Some("r5")), deed("b", 3, Some("8\n9\n"), Some("r6"))],
    &[deed("b", 3, None, None), deed("a", 3, Some("0\n"), Some("r7"))],
];

impl Deed {
    fn name(&self) -> Name {
        Name::parse(self.device).expect("a name")
    }

    fn request(&self) -> Option<RequestId> {
        self.request.map(|id| RequestId::parse(id).expect("an id"))
    }

    /// Receives the file, or counts the one that is to go.
    fn act(&self, disk: &SimDisk, number: u64) -> Result<Act<u32, SimDisk>, Refusal> {
        let (device, file_id, request) = (self.name(), self.file_id, self.request());
        let Some(samples) = self.samples else {
            let counted = edge::count(disk, &device, file_id, &NOBODY);
            return Ok(Act::Delete { device, file_id, request, counted });
        };
        let mut stage = Stage::begin(disk.clone(), number)?;
        for byte in samples.as_bytes().chunks(2) {
            stage.write(byte)?;
        }
        let hash = blake3::hash(samples.as_bytes());
        let staged = stage.finish(Some(hash.as_bytes()))?;
        Ok(Act::Upload { device, file_id, request, staged })
    }
}

/// What should be on the disk.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    upload_log: String,
    deletion_log: String,
    files: BTreeMap<String, String>,
}

impl Model {
    /// Does a deed; false where there is nothing to delete.
    fn apply(&mut self, deed: &Deed) -> bool {
        let name = data_name(&deed.name(), deed.file_id);
        let (log, samples) = match deed.samples {
            Some(samples) => {
                self.files.insert(name, samples.to_owned());
                (&mut self.upload_log, samples.to_owned())
            }
            None => match self.files.remove(&name) {
                Some(samples) => (&mut self.deletion_log, samples),
                None => return false,
            },
        };
        let count = samples.lines().count();
        *log += &format!("{}; {TIME}; {}; {count}\n", deed.device, deed.file_id);
        true
    }

    fn of(deeds: &[Deed]) -> Model {
        let mut model = Model::default();
        for deed in deeds {
            model.apply(deed);
        }
        model
    }

    /// What is on the disk, in the same form.
    fn read(disk: &SimDisk) -> Model {
        let text = |name: &str| {
            String::from_utf8(disk.content(name).unwrap_or_default()).expect("it is text")
        };
        let is_data = |name: &&String| {
            !name.starts_with(".edge/") && !edge::log::LOGS.contains(&name.as_str())
        };
        let names = disk.all();
        let files = names.iter().filter(is_data).map(|name| (name.clone(), text(name)));
        Model {
            upload_log: text(UPLOAD_LOG),
            deletion_log: text(DELETION_LOG),
            files: files.collect(),
        }
    }
}

/// How far the script came.
#[derive(Default)]
struct Run {
    /// Done, as the answers said, in order.
    done: Vec<Deed>,
    /// Perhaps done: nobody was told, or was told that nobody knows.
    unknown: Vec<Deed>,
    /// Not done, as the answers said.
    failed: Vec<Deed>,
    /// Why, of those that the folder was asked for.
    codes: Vec<ErrorCode>,
}

/// Performs the script until the process ends.
fn run(disk: &SimDisk, folder: &mut SimFolder) -> Run {
    let mut run = Run::default();
    for (at, group) in SCRIPT.iter().enumerate() {
        join_and_leave(folder, at as u32);
        let mut acts = Vec::new();
        let mut asked = Vec::new();
        for deed in group.iter() {
            match deed.act(disk, acts.len() as u64 + 100 * at as u64) {
                Ok(act) => {
                    acts.push(act);
                    asked.push(*deed);
                }
                Err(_) => run.failed.push(*deed),
            }
        }
        if disk.has_stopped() {
            break;
        }
        let results = folder.perform(acts, TIME);
        for (deed, result) in asked.into_iter().zip(results) {
            match result {
                Ok(_) => run.done.push(deed),
                Err(_) if disk.has_stopped() => run.unknown.push(deed),
                Err(failure) if is_unknown(&failure) => run.unknown.push(deed),
                Err(Failure::Refused(refusal)) => {
                    run.codes.push(refusal.code);
                    run.failed.push(deed);
                }
                Err(Failure::Changed) => panic!("nobody else is at work"),
            }
        }
        if disk.has_stopped() {
            break;
        }
    }
    run
}

fn is_unknown(failure: &Failure) -> bool {
    let Failure::Refused(refusal) = failure else { panic!("nobody else is at work") };
    refusal.text.contains("must be started again")
}

fn join_and_leave(folder: &mut SimFolder, at: u32) {
    let ip: IpAddr = "::1".parse().expect("an address");
    let device = |name: &str| Name::parse(name).expect("a name");
    let acts = match at {
        0 => vec![
            Act::Join { session: 1, device: device("a"), ip, udp_port: 1 },
            Act::Join { session: 2, device: device("b"), ip, udp_port: 2 },
        ],
        3 => vec![Act::Leave { session: 1 }],
        _ => return,
    };
    folder.perform(acts, TIME);
}

fn open(disk: &SimDisk) -> SimFolder {
    Folder::open(disk.clone()).expect("a folder that was written by us")
}

/// The deeds that are done after a restart: those that were said to be, then perhaps some of those
/// of which nobody knows, in their order.
fn check_restarted(disk: &SimDisk, run: &Run, what: &str) -> Vec<Deed> {
    let found = Model::read(disk);
    for count in 0..=run.unknown.len() {
        let deeds = [&run.done[..], &run.unknown[..count]].concat();
        if Model::of(&deeds) == found {
            let leftovers: Vec<_> =
                disk.all().into_iter().filter(|it| it.contains(".stage.")).collect();
            assert_eq!(leftovers, [""; 0], "{what}");
            assert_eq!(disk.content(DEVICE_LOG), Some(vec![]), "{what}: somebody is active");
            return deeds;
        }
    }
    panic!("{what}: done {:?}, perhaps {:?}, but the disk has {found:#?}", run.done, run.unknown);
}

/// Asks again for all that has an id, and for what was not done at all.
fn check_repeats(disk: &SimDisk, folder: &mut SimFolder, mut done: Vec<Deed>, what: &str) {
    let mut model = Model::of(&done);
    for (number, deed) in SCRIPT.iter().flat_map(|group| group.iter()).enumerate() {
        let was_done = done.contains(deed);
        if deed.request.is_none() {
            continue;
        }
        let act = deed.act(disk, 7000 + number as u64).expect("the disk is well");
        let result = folder.perform(vec![act], TIME).remove(0);
        match &result {
            Ok(answer) => assert_eq!(is_repeated(answer), was_done, "{what}: {deed:?}"),
            Err(Failure::Refused(refusal)) => {
                assert_eq!(refusal.code, ErrorCode::NoSuchData, "{what}: {deed:?}");
            }
            Err(Failure::Changed) => panic!("{what}: nobody else is at work"),
        }
        if !was_done {
            assert_eq!(model.apply(deed), result.is_ok(), "{what}: {deed:?}");
            done.push(*deed);
        }
        assert_eq!(Model::read(disk), model, "{what}: after {deed:?}");
    }
}

fn is_repeated(answer: &EdgeAnswer) -> bool {
    match answer {
        EdgeAnswer::Uploaded { repeated, .. } | EdgeAnswer::Deleted { repeated, .. } => *repeated,
        other => panic!("no answer to a deed: {other:?}"),
    }
}

#[test]
fn without_faults_all_is_done_and_survives_a_restart() {
    let disk = SimDisk::new();
    let mut folder = open(&disk);
    let run = run(&disk, &mut folder);
    assert_eq!(run.done.len(), SCRIPT.iter().map(|group| group.len()).sum::<usize>());
    assert_eq!(Model::read(&disk), Model::of(&run.done));
    let log = String::from_utf8(disk.content(DEVICE_LOG).expect("a log")).expect("text");
    assert_eq!(log, format!("1; {TIME}; b; ::1; 2\n"));
    assert_eq!(folder.take_warnings(), [""; 0]);
    for how in [Restart::Process, Restart::Machine(1)] {
        let disk = disk.restart(how);
        let mut folder = open(&disk);
        // The mark that the last batch is done is not waited for: power may take it.
        let warnings = folder.take_warnings();
        assert!(warnings.is_empty() || matches!(how, Restart::Machine(_)), "{warnings:?}");
        let done = check_restarted(&disk, &run, "no fault");
        check_repeats(&disk, &mut folder, done, "no fault");
    }
}

/// Lets the n-th step fail, for n = 1, 2, 3 ... until the script has fewer.
fn at_every_step(fault: Fault, mut check: impl FnMut(&SimDisk, Run, &str)) {
    let mut step = 0;
    loop {
        step += 1;
        let disk = SimDisk::new();
        disk.fail_at(step, fault);
        let what = format!("{fault:?} at step {step}");
        let run = match Folder::open(disk.clone()) {
            Ok(mut folder) => run(&disk, &mut folder),
            Err(why) => {
                assert!(disk.has_failed(), "{what}: {why}");
                Run::default()
            }
        };
        if !disk.has_failed() {
            assert!(step > 100, "the script has only {step} steps");
            return;
        }
        check(&disk, run, &what);
    }
}

#[test]
fn a_process_that_ends_at_any_step_leaves_whole_acts() {
    at_every_step(Fault::Stop, |disk, run, what| {
        let disk = disk.restart(Restart::Process);
        let mut folder = open(&disk);
        let done = check_restarted(&disk, &run, what);
        check_repeats(&disk, &mut folder, done, what);
    });
}

#[test]
fn a_machine_that_loses_power_at_any_step_leaves_whole_acts() {
    at_every_step(Fault::Stop, |disk, run, what| {
        for seed in 0..12 {
            let what = format!("{what}, power lost as {seed}");
            let disk = disk.restart(Restart::Machine(seed));
            let mut folder = open(&disk);
            let done = check_restarted(&disk, &run, &what);
            check_repeats(&disk, &mut folder, done, &what);
        }
    });
}

#[test]
fn what_was_finished_at_a_start_is_not_told_of_at_the_next() {
    let mut told = 0;
    at_every_step(Fault::Stop, |disk, _, what| {
        let disk = disk.restart(Restart::Process);
        let is_told = |text: &String| text.contains("are finished now");
        told += usize::from(open(&disk).take_warnings().iter().any(is_told));
        let journal = disk.content(".edge/journal");
        let disk = disk.restart(Restart::Process);
        assert_eq!(open(&disk).take_warnings(), [""; 0], "{what}");
        assert_eq!(disk.content(".edge/journal"), journal, "{what}: a start alone adds nothing");
    });
    assert!(told > 10, "only {told} starts had something to finish");
}

#[test]
fn a_recovery_that_is_interrupted_is_begun_again() {
    let mut dice = Dice(99);
    at_every_step(Fault::Stop, |disk, run, what| {
        let mut disk = disk.restart(Restart::Machine(dice.below(1000)));
        for _ in 0..3 {
            disk.fail_at(1 + dice.below(40), Fault::Stop);
            drop(Folder::<u32, _>::open(disk.clone()));
            disk = disk.restart(Restart::Machine(dice.below(1000)));
        }
        let mut folder = open(&disk);
        let done = check_restarted(&disk, &run, what);
        check_repeats(&disk, &mut folder, done, what);
    });
}

#[test]
fn a_step_that_fails_fails_its_act_and_nothing_else() {
    use ErrorKind::{Interrupted, Other, PermissionDenied};
    for kind in [Other, PermissionDenied, Interrupted] {
        at_every_step(Fault::Error(kind), |disk, run, what| {
            let is_known = run.unknown.is_empty();
            // After a sync that failed nobody knows what is on the disk (fsync(2)).
            assert!(is_known || disk.failed() == Some(Step::Sync), "{what}: {:?}", disk.failed());
            // What was asked for together fails together, and what deletes a file that is missing.
            let largest = SCRIPT.iter().map(|group| group.len()).max().unwrap_or(0);
            let missing = run.codes.iter().filter(|it| **it == ErrorCode::NoSuchData).count();
            assert!(run.failed.len() <= largest + missing, "{what}: {:?}", run.failed);
            if is_known {
                assert_eq!(Model::read(disk), Model::of(&run.done), "{what}: before a restart");
            }
            let disk = disk.restart(Restart::Machine(5));
            let mut folder = open(&disk);
            let done = check_restarted(&disk, &run, what);
            check_repeats(&disk, &mut folder, done, what);
        });
    }
}

#[test]
fn an_act_that_fails_behind_others_of_its_batch_fails_alone() {
    let mut alone = 0;
    for step in 1.. {
        let disk = SimDisk::new();
        let mut folder = open(&disk);
        let act = |(device, number)| {
            deed(device, 1, Some("1\n"), None).act(&disk, number).expect("the disk is well")
        };
        let acts = [("a", 1), ("b", 2), ("c", 3)].map(act);
        disk.fail_at(step, Fault::Error(ErrorKind::Other));
        let done = folder.perform(acts.into(), TIME);
        if !disk.has_failed() {
            break;
        }
        let failed = done.iter().filter(|it| it.is_err()).count();
        // Else it was what they have in common: the journal, a log, the folders.
        assert!([0, 1, 3].contains(&failed), "step {step}: {done:?}");
        alone += usize::from(failed == 1);
    }
    assert_eq!(alone, 2, "each but the first can fail alone");
}

#[test]
fn a_full_disk_fails_what_needs_room_and_takes_it_back() {
    let mut all_failed = 0;
    at_every_step(Fault::Full, |disk, run, what| {
        assert_eq!(run.unknown, [], "{what}: cutting files needs no room");
        let is_named =
            |code: &ErrorCode| matches!(code, ErrorCode::NoSpace | ErrorCode::NoSuchData);
        assert!(run.codes.iter().all(is_named), "{what}: {:?}", run.codes);
        all_failed += run.failed.len();
        assert_eq!(Model::read(disk), Model::of(&run.done), "{what}: before a restart");
        let disk = disk.restart(Restart::Machine(3));
        let mut folder = open(&disk);
        let done = check_restarted(&disk, &run, what);
        check_repeats(&disk, &mut folder, done, what);
    });
    assert!(all_failed > 100, "only {all_failed} deeds met the full disk");
}

#[test]
fn short_writes_are_continued() {
    at_every_step(Fault::Short, |disk, run, what| {
        assert_eq!((run.failed, run.unknown), (vec![], vec![]), "{what}");
        assert_eq!(Model::read(disk), Model::of(&run.done), "{what}");
    });
}

/// A folder in which the script was performed.
fn performed() -> SimDisk {
    let disk = SimDisk::new();
    let mut folder = open(&disk);
    run(&disk, &mut folder);
    disk.restart(Restart::Process)
}

#[test]
fn a_torn_last_line_of_a_log_is_repaired_and_said() {
    let whole = performed();
    let good = whole.content(UPLOAD_LOG).expect("a log");
    let last = good[..good.len() - 1].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
    for cut in last + 1..good.len() {
        let disk = whole.restart(Restart::Process);
        disk.put(UPLOAD_LOG, &good[..cut]);
        let mut folder = open(&disk);
        let (repaired, warnings) =
            (disk.content(UPLOAD_LOG).expect("a log"), folder.take_warnings());
        if cut + 1 == good.len() {
            assert_eq!((repaired, warnings.len()), (good.clone(), 0), "only its end was missing");
        } else {
            assert_eq!(repaired, &good[..last], "cut at {cut}");
            assert!(warnings[0].contains("upload-log.txt"), "{warnings:?}");
        }
    }
}

#[test]
fn a_log_that_was_taken_away_is_begun_anew_and_stays_so() {
    let disk = performed();
    let mut folder = open(&disk);
    disk.put(UPLOAD_LOG, b"");
    let deed = deed("c", 1, Some("4\n"), None);
    let act = deed.act(&disk, 1).expect("the disk is well");
    assert!(folder.perform(vec![act], TIME)[0].is_ok());
    assert_eq!(disk.content(UPLOAD_LOG).expect("a log"), format!("c; {TIME}; 1; 1\n").as_bytes());
    // An operator's last line without its end.
    disk.put(UPLOAD_LOG, b"mine");
    let act = deed.act(&disk, 2).expect("the disk is well");
    assert!(folder.perform(vec![act], TIME)[0].is_ok());
    let log = disk.content(UPLOAD_LOG).expect("a log");
    assert_eq!(log, format!("mine\nc; {TIME}; 1; 1\n").as_bytes());
    disk.put(UPLOAD_LOG, b"");
    open(&disk);
    assert_eq!(disk.content(UPLOAD_LOG), Some(vec![]), "what was done is not written again");
}

#[test]
fn a_damaged_journal_stops_the_start_and_names_the_place() {
    let disk = performed();
    let mut journal = disk.content(".edge/journal").expect("a journal");
    let middle = journal.len() / 2;
    journal[middle] ^= 4;
    disk.put(".edge/journal", &journal);
    let why = Folder::<u32, _>::open(disk.clone()).expect_err("it is damaged");
    let begin = journal[..middle].iter().rposition(|byte| *byte == b'\n').expect("lines") + 1;
    assert!(why.contains(&format!("damaged at byte {begin};")), "{why}");
}

#[test]
fn a_file_that_changes_between_count_and_deletion_is_counted_again() {
    let disk = SimDisk::new();
    let mut folder = open(&disk);
    let upload = |samples, number| {
        deed("a", 1, Some(samples), None).act(&disk, number).expect("the disk is well")
    };
    let delete = || deed("a", 1, None, None).act(&disk, 0).expect("the disk is well");
    let mut perform = |act| -> Done { folder.perform(vec![act], TIME).remove(0) };
    assert!(perform(upload("1\n", 1)).is_ok());
    let counted_before = delete();
    assert!(perform(upload("1\n2\n", 2)).is_ok());
    assert_eq!(perform(counted_before), Err(Failure::Changed));
    assert!(perform(delete()).is_ok());
    let log = disk.content(DELETION_LOG).expect("a log");
    assert_eq!(log, format!("a; {TIME}; 1; 2\n").as_bytes());
}

#[test]
fn a_line_that_an_operator_left_open_is_never_joined_with_ours() {
    let deed = deed("c", 1, Some("4\n"), None);
    for (step, seed) in (1..).flat_map(|step| (0..8).map(move |seed| (step, seed))) {
        let disk = SimDisk::new();
        let mut folder = open(&disk);
        disk.put(UPLOAD_LOG, b"mine");
        let act = deed.act(&disk, 1).expect("the disk is well");
        disk.fail_at(step, Fault::Stop);
        folder.perform(vec![act], TIME);
        if !disk.has_stopped() {
            return;
        }
        let how = if seed == 0 { Restart::Process } else { Restart::Machine(seed) };
        let disk = disk.restart(how);
        open(&disk);
        let log = disk.content(UPLOAD_LOG).expect("a log");
        let lines = match disk.content("c-1.txt") {
            Some(_) => format!("mine\nc; {TIME}; 1; 1\n"),
            None => String::new(),
        };
        assert_eq!(String::from_utf8_lossy(&log), lines, "stopped at step {step}, {how:?}");
    }
}

#[test]
fn a_long_line_of_an_operator_is_left_as_it_is() {
    let disk = performed();
    let long = format!("{}\n{}", "a".repeat(10), "b".repeat(10_000));
    disk.put(UPLOAD_LOG, long.as_bytes());
    let mut folder = open(&disk);
    assert_eq!(disk.content(UPLOAD_LOG), Some(format!("{long}\n").into_bytes()));
    assert!(folder.take_warnings()[0].contains("upload-log.txt is none of ours"));
    assert!(open(&disk).take_warnings().is_empty());
}
