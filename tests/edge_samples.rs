//! Files of samples on a real disk: what is computed against numbers of any length, however the
//! file is cut; and uploads, deletions and computing side by side.

#[path = "edge/big.rs"]
mod big;

use std::{cmp::Ordering, sync::atomic::AtomicBool};

use big::Big;
use proptest::prelude::*;
use sixfour::{
    edge::{
        self, Act, DataFolder, Disk as _, Failure, Folder, Stage, Staged,
        compute::Counted,
        log::{DELETION_LOG, UPLOAD_LOG},
        samples::{Fault, Scanner, Tally, Wrong},
    },
    wire::{EdgeAnswer, ErrorCode, Name, Refusal, edge::Statistic},
};
use tempfile::TempDir;

const TIME: &str = "30 September 2022 10:31:13";
static NOBODY: AtomicBool = AtomicBool::new(false);

/// A sample as somebody may write it: any length of number, zeros in front.
fn sample() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>(),
        -1000_i64..1000,
        prop::sample::select(vec![i64::MIN, i64::MAX, 0, -1, 99_999_999, 100_000_000]),
        (0_u32..63, any::<bool>()).prop_map(|(bits, minus)| {
            let power = 1_i64 << bits;
            if minus { -power } else { power }
        }),
    ];
    (number, 0_usize..20).prop_map(|(number, zeros)| {
        let digits = number.unsigned_abs().to_string();
        let zeros = "0".repeat(zeros.saturating_sub(12) * 3);
        format!("{}{zeros}{digits}", if number < 0 { "-" } else { "" })
    })
}

fn scanned(pieces: &[&[u8]]) -> Result<Tally, Fault> {
    let mut scanner = Scanner::default();
    for piece in pieces {
        scanner.feed(piece)?;
    }
    scanner.finish()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn results_are_those_of_numbers_of_any_length(
        samples in prop::collection::vec((sample(), any::<bool>()), 1..80),
        is_closed in any::<bool>(),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..6),
    ) {
        let mut text = String::new();
        for (sample, has_cr) in &samples {
            text += sample;
            text += if *has_cr { "\r\n" } else { "\n" };
        }
        if !is_closed {
            text.truncate(text.trim_end().len());
        }
        let mut ends: Vec<_> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        ends.extend([0, text.len()]);
        ends.sort_unstable();
        let pieces: Vec<_> = ends.windows(2).map(|at| &text.as_bytes()[at[0]..at[1]]).collect();
        let tally = scanned(&pieces).expect("samples");
        let numbers: Vec<_> = samples.iter().map(|(sample, _)| Big::parse(sample)).collect();
        let sum = numbers.iter().fold(Big::zero(), |sum, number| sum.add(number));
        let by_size = |a: &&Big, b: &&Big| -> Ordering { a.compare(b) };
        prop_assert_eq!(tally.count, samples.len() as u64);
        prop_assert_eq!(tally.sum.to_string(), sum.to_string());
        prop_assert_eq!(tally.average(), Some(sum.average(samples.len())));
        let max = numbers.iter().max_by(by_size).expect("there is one").to_string();
        let min = numbers.iter().min_by(by_size).expect("there is one").to_string();
        prop_assert_eq!((tally.max.to_string(), tally.min.to_string()), (max, min));
    }

    #[test]
    fn a_bad_line_is_named_wherever_the_file_is_cut(
        before in prop::collection::vec(sample(), 0..40),
        bad in "[ -~\u{e4}]{0,30}",
        cut in any::<prop::sample::Index>(),
    ) {
        prop_assume!(bad.parse::<i64>().is_err());
        let mut text: String = before.iter().map(|sample| format!("{sample}\n")).collect();
        text += &format!("{bad}\n1\n");
        let cut = cut.index(text.len() + 1);
        let (head, tail) = text.as_bytes().split_at(cut);
        let digits = bad.strip_prefix('-').unwrap_or(&bad);
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        let what = if is_number { Wrong::OutOfRange } else { Wrong::NotAnInteger };
        let line = before.len() as u64 + 1;
        prop_assert_eq!(scanned(&[head, tail]), Err(Fault { line, what }));
    }
}

/// A data folder on the real disk.
struct Place {
    root: TempDir,
    disk: DataFolder,
    folder: Folder<u32, DataFolder>,
}

fn device() -> Name {
    Name::parse("watch").expect("a name")
}

impl Place {
    fn new() -> Place {
        let root = TempDir::new().expect("a folder");
        let disk = DataFolder::lock(root.path()).expect("nobody else has it");
        let folder = Folder::open(disk.clone()).expect("an empty folder");
        Place { root, disk, folder }
    }

    fn stage(&self, text: &str, number: u64) -> Staged<DataFolder> {
        let mut stage = Stage::begin(self.disk.clone(), number).expect("room");
        stage.write(text.as_bytes()).expect("samples");
        stage.finish(None).expect("samples")
    }

    fn perform(&mut self, act: Act<u32, DataFolder>) -> Result<EdgeAnswer, Failure> {
        self.folder.perform(vec![act], TIME).remove(0)
    }

    fn upload(&mut self, staged: Staged<DataFolder>) {
        let act = Act::Upload { device: device(), file_id: 1, request: None, staged };
        self.perform(act).expect("it is stored");
    }

    fn delete(&mut self, counted: Result<Counted, Refusal>) -> Result<EdgeAnswer, Failure> {
        self.perform(Act::Delete { device: device(), file_id: 1, request: None, counted })
    }

    fn count(&self) -> Result<Counted, Refusal> {
        edge::count(&self.disk, &device(), 1, &NOBODY)
    }

    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.root.path().join(name)).unwrap_or_default()
    }
}

#[test]
fn a_folder_has_one_server_at_a_time() {
    let place = Place::new();
    let error = DataFolder::lock(place.root.path()).expect_err("it is taken");
    assert_eq!(error.kind(), std::io::ErrorKind::WouldBlock);
    let Place { root, disk, folder } = place;
    drop((disk, folder));
    DataFolder::lock(root.path()).expect("it is free again");
}

#[test]
fn links_and_pipes_in_the_folder_are_not_followed() {
    let place = Place::new();
    let path = |name: &str| place.root.path().join(name);
    std::fs::write(path("secret"), "1\n").expect("a file");
    std::os::unix::fs::symlink("secret", path("watch-1.txt")).expect("a link");
    let fifo = path("watch-2.txt");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RWXU).expect("a FIFO");
    std::fs::create_dir(path("watch-3.txt")).expect("a folder");
    for file_id in 1..=3 {
        let computed = edge::compute(&place.disk, &device(), file_id, Statistic::Sum, &NOBODY);
        let refusal = computed.expect_err("no regular file");
        assert_eq!(refusal.code, ErrorCode::SystemError, "{}", refusal.text);
    }
    let computed = edge::compute(&place.disk, &device(), 4, Statistic::Sum, &NOBODY);
    assert_eq!(computed.expect_err("nothing").code, ErrorCode::NoSuchData);
    assert!(place.disk.open("../secret").is_err(), "and no name of ours has a slash");
}

#[test]
fn damaged_and_empty_files_are_named_and_can_be_deleted() {
    let mut place = Place::new();
    for (content, text, samples) in
        [("1\nx\n", "line 2 is not an integer", 2), ("", "there are no samples in it", 0)]
    {
        std::fs::write(place.root.path().join("watch-1.txt"), content).expect("a file");
        let computed = edge::compute(&place.disk, &device(), 1, Statistic::Average, &NOBODY);
        let refusal = computed.expect_err("no samples");
        assert!(refusal.text.contains(text), "{}", refusal.text);
        let deleted = place.delete(place.count()).expect("it is there");
        assert!(matches!(deleted, EdgeAnswer::Deleted { samples: it, .. } if it == samples));
    }
}

/// One step of one of three operations.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Step {
    Open,
    Read,
    Stage,
    Store,
    Count,
    Delete,
}

/// All orders of the steps in which each operation keeps its own.
fn interleavings() -> Vec<Vec<Step>> {
    use Step::*;
    let mut orders = vec![];
    let mut open: Vec<(Vec<Step>, [&[Step]; 3])> =
        vec![(vec![], [&[Open, Read], &[Stage, Store], &[Count, Delete]])];
    while let Some((order, rest)) = open.pop() {
        if rest.iter().all(|steps| steps.is_empty()) {
            orders.push(order);
            continue;
        }
        for at in 0..3 {
            if let [step, later @ ..] = rest[at] {
                let (mut order, mut rest) = (order.clone(), rest);
                order.push(*step);
                rest[at] = later;
                open.push((order, rest));
            }
        }
    }
    orders
}

#[test]
fn whatever_their_order_computing_sees_the_old_or_the_new_content_whole() {
    let orders = interleavings();
    assert_eq!(orders.len(), 90);
    for order in orders {
        let mut place = Place::new();
        place.upload(place.stage("1\n2\n", 1));
        let (mut opened, mut staged, mut counted) = (None, None, None);
        for step in &order {
            match step {
                Step::Open => opened = Some(place.disk.open("watch-1.txt")),
                Step::Read => match opened.take().expect("it was opened") {
                    Ok(file) => {
                        let tally = edge::compute::tally(&file, &NOBODY).expect("samples");
                        assert!([3, 30].contains(&tally.sum), "{order:?}: {tally:?}");
                    }
                    Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::NotFound),
                },
                Step::Stage => staged = Some(place.stage("5\n10\n15\n", 2)),
                Step::Store => place.upload(staged.take().expect("it was received")),
                Step::Count => counted = Some(place.count()),
                Step::Delete => {
                    let mut done = place.delete(counted.take().expect("it was counted"));
                    if done == Err(Failure::Changed) {
                        done = place.delete(place.count());
                    }
                    assert!(done.is_ok(), "{order:?}: {done:?}");
                }
            }
        }
        check_logs(&place, &order);
    }
}

/// The logs tell what was done, in its order.
fn check_logs(place: &Place, order: &[Step]) {
    let at = |step| order.iter().position(|it| *it == step);
    let is_new_deleted = at(Step::Store) < at(Step::Delete);
    let deleted = if is_new_deleted { 3 } else { 2 };
    assert_eq!(place.log(DELETION_LOG), format!("watch; {TIME}; 1; {deleted}\n"), "{order:?}");
    let uploads = format!("watch; {TIME}; 1; 2\nwatch; {TIME}; 1; 3\n");
    assert_eq!(place.log(UPLOAD_LOG), uploads, "{order:?}");
    assert_eq!(place.root.path().join("watch-1.txt").exists(), !is_new_deleted, "{order:?}");
}
