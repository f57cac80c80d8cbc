//! What command lines mean, and what is said of those that mean nothing.

use std::ffi::OsStr;

use super::*;

fn parsed(line: &str) -> Result<Plan, Told> {
    let words = ["client"].into_iter().chain(line.split_whitespace());
    parse(words.map(OsString::from), Some("alice"), 0x0012_3456_789a_bcde)
}

fn orders(line: &str) -> Vec<Order> {
    parsed(line).expect(line).orders.expect("a verb")
}

fn complaint(line: &str) -> String {
    match parsed(line) {
        Err(Told::Wrong(text)) => text,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_prompt_has_the_login_name_and_verbs_a_passing_one() {
    let plan = parsed("--ip ::1 --port 5001").expect("good");
    assert_eq!((plan.user.as_str(), plan.port, plan.own_failure()), ("alice", 5001, None));
    assert!(plan.orders.is_none());
    assert_eq!(parsed("who").expect("good").user.as_str(), "alice-9abcde");
    assert_eq!(parsed("who --user bob").expect("good").user.as_str(), "bob");
    let nobody = parse(["client".into()], Some("no name"), 0);
    assert!(matches!(nobody, Err(Told::Wrong(text)) if text.contains("--user")));
}

#[test]
fn words_after_the_command_are_the_commands() {
    let run =
        |command: &str, timeout_ms| Order::Run { command: command.into(), stdin: true, timeout_ms };
    assert_eq!(orders("run --timeout 1.5s ls -l --user x"), [run("ls -l --user x", 1500)]);
    assert_eq!(orders("run -- -x"), [run("-x", 0)]);
    assert_eq!(orders("run -- sh -c exit"), [run("sh -c exit", 0)]);
    let quoted = parse(["client", "run", "sh", "-c", "exit 7; it's"].map(OsString::from), None, 0);
    let quoted = quoted.expect("good").orders.expect("a verb");
    assert_eq!(quoted, [run(r"sh -c 'exit 7; it'\''s'", 0)]);
    assert_eq!(parsed("run true").expect("good").own_failure(), Some(255));
    let text = Order::Message { to: "bob".into(), text: "a -q b".into(), receipt_ms: None };
    assert_eq!(orders("msg bob a -q b"), [text]);
}

#[test]
fn downloads_go_beside_us_or_where_it_is_said() {
    let got = |line: &str, paths: &[&str], target, limit| {
        let paths = paths.iter().map(|path| path.as_bytes().to_vec()).collect();
        let quoted = |word: &str| quote_shown(OsStr::new(word));
        let again = line.split(' ').map(quoted).collect::<Vec<_>>().join(" ");
        let again = format!("client {again}");
        assert_eq!(orders(line), [Order::Download { paths, target, limit, again }]);
    };
    got("download a/x y", &["a/x", "y"], Target::Beside, None);
    got("download docs/ --limit 5M", &["docs"], Target::Beside, Some(5_000_000));
    got("download a/x -o z", &["a/x"], Target::File("z".into()), None);
    got("download a/x -o -", &["a/x"], Target::Stdout, None);
    got("download a/x -o /dev/stdout", &["a/x"], Target::Stdout, None);
    // It may be the very name of a file; the server looks.
    got("download photo[1].jpg -o z", &["photo[1].jpg"], Target::File("z".into()), None);
    got("download --literal d/a[1] b*", &[r"d/a\[1]", r"b\*"], Target::Beside, None);
}

#[test]
fn uploads_go_to_the_root_or_where_it_is_said() {
    let got = |line: &str, paths: Vec<Local>, into: Option<&str>, limit| {
        let (into, again) = (into.map(|into| into.into()), format!("client {line}"));
        assert_eq!(orders(line), [Order::Upload { paths, into, limit, again }]);
    };
    let path = |path: &str| Local::Path(path.into());
    got("upload /a/x ../y", vec![path("/a/x"), path("../y")], None, None);
    got("upload x --to d/e/ --limit 1.5k", vec![path("x")], Some("d/e"), Some(1500));
    got("upload - --to d/x", vec![Local::Input(b"x".to_vec())], Some("d"), None);
    got("upload - --to x", vec![Local::Input(b"x".to_vec())], None, None);
}

#[test]
fn the_line_that_goes_on_can_be_typed_as_it_is_told() {
    let words = ["client", "download", "it's here"].map(OsString::from);
    let plan = parse(words, Some("alice"), 0).expect("good");
    let Some([Order::Download { again, .. }]) = plan.orders.as_deref() else { panic!("one") };
    assert_eq!(again, r"client download 'it'\''s here'");
    let foreign = OsString::from_vec(b"a'\xff\n\\".to_vec());
    let words = ["client".into(), "download".into(), foreign];
    let plan = parse(words, Some("alice"), 0).expect("good");
    let Some([Order::Download { again, .. }]) = plan.orders.as_deref() else { panic!("one") };
    assert_eq!(again, r"client download $'a\'\xff\x0a\\'");
}

#[test]
fn mistakes_are_told_in_one_line_that_names_the_argument() {
    for (line, part) in [
        ("--port 0", "--port"),
        ("--port 65536", "65535"),
        ("--port x", "--port"),
        ("--ip fe80::1", "--ip"),
        ("--user a|b", "--user"),
        ("--nonsense", "--nonsense"),
        ("dance", "the verbs are"),
        ("msg bob", "TEXT"),
        ("msg bob,,x hello", "TO"),
        ("msg --receipt * hello", "--receipt"),
        ("download", "FILE"),
        ("download ../x", "FILE"),
        ("download a/x b/x", "same name"),
        ("upload a/x b/x", "two of them are called x"),
        ("upload a/data/ b/data --to d", "two of them are called data"),
        ("send a/x c b/x bob", "two of them are called x"),
        ("download -o z a b", "-o"),
        ("--json download -o - a", "--json"),
        ("download a --limit 0", "rate"),
        ("download a --limit 5x", "--limit"),
        ("upload", "FILE"),
        ("upload -", "--to"),
        ("upload - a --to x", "alone"),
        ("upload a --to ../x", "--to"),
        ("run --timeout 5y true", "--timeout"),
        ("run", "COMMAND"),
        ("ls /etc", "DIR"),
        ("-q -v who", "--quiet"),
        ("top -i 99ms", "--interval"),
        ("top -i 61s", "--interval"),
        ("top -c 0", "--count"),
        ("ping -c 0", "--count"),
        ("ping -c 3 ::1", "--count"),
        ("ping -- -f", "HOST"),
        ("ping a;b", "HOST"),
        ("dance", "top"),
        ("127.0.0.1 5000", "a device is `client SERVER PORT UDP_PORT`"),
        ("127.0.0.1 5000 6000 7000", "a device is `client SERVER PORT UDP_PORT`"),
        ("127.0.0.1 5000 65536", "'<UDP_PORT>': a port is a whole number from 1 to 65535"),
        ("127.0.0.1 5000 0", "'<UDP_PORT>': a port is a whole number from 1 to 65535"),
        ("127.0.0.1 5000 x", "'<UDP_PORT>': a port is a whole number from 1 to 65535"),
        ("127.0.0.1 x 6000", "'--port <PORT>': a port is a whole number from 1 to 65535"),
        ("fe80::1 5000 6000", "--ip"),
        ("device run true", "--user"),
        ("--user a device run --every 0 true", "--every"),
        ("--user a device compute 1 sum", "SUM, AVERAGE"),
        ("--user a device compute -1 SUM", "-1"),
        ("--user a device delete x", "fileID"),
    ] {
        let complaint = complaint(line);
        assert!(complaint.contains(part), "{line}: {complaint}");
        assert!(!complaint.contains('\n') && !complaint.starts_with("error"), "{complaint}");
    }
}

#[test]
fn what_looks_after_a_server_has_its_own_options() {
    let plan = parsed("top").expect("good");
    assert_eq!(plan.watch, Some(Watch { interval_ms: 2000, count: None }));
    assert_eq!(plan.user.as_str(), "alice-9abcde", "watching is no reason to be written to");
    let plan = parsed("ping -c 7 -i 1s").expect("good");
    assert_eq!(plan.pings, Some(Pings { count: 7, interval_ms: 1000 }));
    let host = PingHost::parse("fe80::1%eth0").expect("a host");
    let plan = parsed("ping fe80::1%eth0").expect("good");
    assert_eq!((plan.pings, plan.watch), (None, None));
    assert_eq!(plan.orders, Some(vec![Order::Call(Call::Host(HostCall::Ping { host }))]));
    let ask = |question| vec![Order::Call(Call::Host(HostCall::Ask(question)))];
    assert_eq!(orders("info"), ask(Question::Info { interval_ms: 500 }));
    assert_eq!(orders("cpu"), ask(Question::Processor));
    assert_eq!(orders("kill"), [Order::Call(Call::Host(HostCall::Kill))]);
}

#[test]
fn three_words_that_are_no_verb_are_an_edge_device() {
    for line in
        ["::1 5000 6000", "-q ::1 5000 6000", "--user run --connect-timeout 2s ::1 5000 6000"]
    {
        let plan = parsed(line).expect(line);
        assert_eq!((plan.port, plan.host.to_string()), (5000, "::1".to_owned()), "{line}");
        assert!(matches!(plan.device, Some(Device::Prompt { udp_port: 6000 })), "{line}");
    }
    for line in ["run seq 1", "--json run seq 1 10", "run 5000 6000", "msg bob 5000"] {
        assert!(parsed(line).expect(line).device.is_none(), "{line}");
    }
}

#[test]
fn a_device_that_measures_is_known_by_its_name() {
    let plan = parsed("--user w device run --every 500ms --times 3 -- seq 1 5").expect("good");
    let Some(Device::Run(run)) = plan.device else { panic!("{plan:?}") };
    assert_eq!((run.every, run.times, run.file_id), (Duration::from_millis(500), Some(3), None));
    assert_eq!(run.command, ["seq", "1", "5"]);
    assert_eq!(orders("device list"), [Order::Call(Call::Edge(crate::wire::EdgeCall::List))]);
    assert!(matches!(orders("--user w device upload 3")[..], [Order::Call(Call::Edge(_))]));
}

#[test]
fn help_and_version_are_no_mistakes() {
    for asked in ["--help", "--version", "run --help"] {
        assert!(matches!(parsed(asked), Err(Told::Asked(_))), "{asked}");
    }
}

#[test]
fn times_have_units() {
    for (text, milliseconds) in [("5", 5000), ("500ms", 500), ("1.5m", 90_000), ("2h", 7_200_000)] {
        assert_eq!(parse_time(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
    for bad in ["", "s", "-1s", "0", "1e99", "NaN", "inf", "5 y"] {
        assert!(parse_time(bad).is_err(), "{bad}");
    }
}

#[test]
fn an_option_within_a_text_is_refused_and_not_sent() {
    for line in [
        "msg bob hi --port 23020",
        "msg bob hi --json",
        "msg bob --port=1 hi --user=eve",
        "msg bob hi --receipt",
        "echo hi --plaintext",
    ] {
        let told = complaint(line);
        assert!(told.contains("--") && told.contains("before the text"), "{line}: {told}");
    }
    let text = |line: &str| match orders(line).remove(0) {
        Order::Message { text, .. } => text,
        Order::Call(Call::Echo { text }) => text.into_owned(),
        other => panic!("{other:?}"),
    };
    for (line, expected) in [
        ("msg bob -- hi --port 1", "hi --port 1"),
        ("msg bob see --nothing-of-ours -p 1", "see --nothing-of-ours -p 1"),
        ("echo -- --json", "--json"),
    ] {
        assert_eq!(text(line), expected, "{line}");
    }
    assert_eq!(parsed("msg --receipt bob hi --").expect("good").port, 5000);
}

#[test]
fn a_dash_alone_is_the_text_on_standard_input() {
    for (line, is_input) in
        [("msg bob -", true), ("msg bob - x", false), ("msg bob -- -", false), ("echo -", false)]
    {
        assert_eq!(parsed(line).expect(line).text_from_input, is_input, "{line}");
    }
    let filled = |input: &[u8]| {
        let mut plan = parsed("msg bob -").expect("good");
        crate::client::input::fill_text(&mut plan, input)?;
        match &plan.orders.expect("a verb")[..] {
            [Order::Message { text, .. }] => Ok::<_, String>(text.clone()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(filled(b"a\nb\n"), Ok("a\nb".to_owned()));
    assert_eq!(filled(b"x\r\n"), Ok("x".to_owned()));
    for (input, part) in
        [(&b""[..], "empty"), (b" \n", "empty"), (b"\xff", "UTF-8"), (&[b'x'; 70_000], "more than")]
    {
        let why = filled(input).expect_err("no text");
        assert!(why.contains(part), "{why}");
    }
}

#[test]
fn a_slip_of_a_verb_is_told_with_the_one_that_is_meant() {
    let told = complaint("donwload x");
    assert!(told.contains("; a similar subcommand exists: 'download'"), "{told}");
}
