//! Commands on a real server: their output, input, end, and what is left of them.

mod process;

use std::{
    fs,
    time::{Duration, Instant},
};

use process::{Canary, FAMILIES, News, Server, await_true, is_running, noise};
use serde_json::json;
use sixfour::{limits::INPUT_WINDOW_BYTES, wire::frame::client};

const MIB: usize = 1024 * 1024;

#[test]
fn outputs_are_apart_and_the_exit_is_exact() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let answer = user.run_to_end(1, "echo out; echo err >&2; exit 7");
        assert_eq!((answer.text().as_str(), answer.error_text().as_str()), ("out\n", "err\n"));
        answer.assert_exit(7);
        for (tag, (command, code)) in (2..).zip([
            ("true", 0),
            ("exit 255", 255),
            ("exit 256", 0),
            ("no-such-program-here", 127),
            ("/etc/passwd", 126),
            ("-c", 127),
            ("echo a;echo 'b' \"$(echo c)\" `echo d`", 0),
        ]) {
            user.run_to_end(tag, command).assert_exit(code);
        }
        let answer = user.run_to_end(20, "kill -TERM $$");
        assert_eq!(answer.outcome, json!({"outcome": "signal", "number": 15}));
        let text = "a\nb\t'\"\\$x";
        let answer = user.run_to_end(21, &format!("cat <<'END'\n{text}\nEND"));
        assert_eq!(answer.text(), format!("{text}\n"));
        user.run(22, "  ");
        assert!(matches!(user.next(), News::End(22, why) if why["code"] == "bad-arguments"));
        user.run(23, "echo a\0b");
        assert!(matches!(user.next(), News::End(23, why) if why["code"] == "bad-text"));
        user.run_to_end(24, "cat").assert_exit(0);
        user.reset();
        await_nobody(&server);
    }
}

#[test]
fn output_is_whole_however_soon_the_command_ends() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        for tag in 1..=20 {
            let answer =
                user.run_to_end(tag, "head -c 1000000 /dev/zero; head -c 70000 /dev/zero >&2");
            assert_eq!((answer.stdout.len(), answer.stderr.len()), (1_000_000, 70_000));
            answer.assert_exit(0);
        }
        let mut line = server.line(ip);
        for _ in 0..20 {
            line.send("run head -c 1000000 /dev/zero");
            assert!(line.exactly(1_000_000).iter().all(|byte| *byte == 0));
            // The end stands on a line of its own.
            assert_eq!(line.lines(2), ["", "[exit 0]"]);
        }
        user.reset();
        await_nobody(&server);
    }
}

#[test]
fn standard_input_reaches_the_command_within_its_window() {
    let server = Server::start();
    let input = noise(7, MIB);
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let answer = user.run_with_input(1, "wc -c", &input);
        assert_eq!(answer.text().trim(), MIB.to_string());
        let answer = user.run_with_input(2, "cat", &input);
        assert!(answer.stdout == input, "cat gave something else back");
        answer.assert_exit(0);
        let answer = user.run_with_input(3, "sleep 0.1; cat | tail -c 3; exit 3", b"abc");
        assert_eq!(answer.text(), "abc");
        answer.assert_exit(3);
        user.run_with_input(4, "wc -c", b"").assert_exit(0);
        // Who closes its input early is not waited for, and the rest of the input is dropped.
        let answer = user.run_with_input(5, "head -c 1; exec 0<&-; sleep 0.2; echo end", &input);
        assert_eq!(answer.text().as_bytes(), [&input[..1], b"end\n"].concat().as_slice());
        user.run_with_input(6, "true", &input).assert_exit(0);
        user.run_to_end(7, "echo alive").assert_exit(0);
        user.reset();
        await_nobody(&server);
    }
}

#[test]
fn more_input_than_the_window_ends_the_connection() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        user.request(1, json!({"op": "run", "command": "sleep 100", "stdin": true}));
        // The pipe takes some, so twice the window is too much in any case.
        let chunk = vec![0; 64 * 1024];
        for _ in 0..2 * INPUT_WINDOW_BYTES as usize / chunk.len() {
            user.send(client::DATA, 1, &chunk);
        }
        loop {
            match user.next() {
                News::Credit(1, _) => {}
                News::Goodbye(Some(why)) => break assert_eq!(why["code"], "protocol"),
                other => panic!("unexpected: {other:?}"),
            }
        }
        await_nobody(&server);
    }
}

#[test]
fn a_child_in_the_background_does_not_hold_the_answer() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let begun = Instant::now();
        let answer = user.run_to_end(1, "sleep 1000 & echo $! hi");
        assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
        answer.assert_exit(0);
        let text = answer.text();
        let pid = text.strip_suffix(" hi\n").expect("a number");
        assert!(is_running(pid));
        user.run_to_end(2, &format!("kill {pid}")).assert_exit(0);
        await_true("the child is gone", || !is_running(pid));
        // One that goes on writing ends as it does where `head` has read enough.
        let answer = user.run_to_end(3, "yes & echo $! >&2");
        await_true("the child is gone", || !is_running(answer.error_text().trim()));
        user.reset();
        await_nobody(&server);
    }
}

#[test]
fn a_child_that_has_left_its_group_cannot_hold_the_answer_by_writing() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let begun = Instant::now();
        user.run(1, "setsid sh -c 'echo $$; exec yes' & sleep 0.1; echo end >&2");
        let pid = first_line(&mut user, 1);
        // Read so slowly that its pipe is never empty.
        let mut errors = Vec::new();
        loop {
            match user.next() {
                News::Stdout(1, bytes) => {
                    std::thread::sleep(Duration::from_millis(2));
                    user.credit(1, bytes.len() as u32);
                }
                News::Stderr(1, bytes) => errors.extend(bytes),
                News::End(1, outcome) => break assert_eq!(outcome["code"], 0),
                other => panic!("unexpected: {other:?}"),
            }
            assert!(begun.elapsed() < Duration::from_secs(5), "it goes on for ever");
        }
        assert_eq!(errors, b"end\n");
        // The end of its pipe is what ends it: nobody reads any more.
        await_true("the child is gone", || !is_running(&pid));
        user.reset();
        await_nobody(&server);
    }
}

#[test]
fn the_end_needs_no_credit() {
    let server = Server::start();
    let window = sixfour::limits::OUTPUT_WINDOW_BYTES as usize;
    server.put("window", &noise(8, window));
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        user.run(1, &format!("head -c {window} /dev/zero; exit 5"));
        user.download(2, "window");
        user.run(3, "yes");
        user.request(4, json!({"op": "run", "command": "yes", "timeout_ms": 1000}));
        let (mut bytes, mut ends) = ([0; 5], Vec::new());
        while ends.len() < 4 {
            match user.next() {
                News::Detail(2, _) => {}
                News::Stdout(tag, chunk) => {
                    bytes[tag as usize] += chunk.len();
                    if bytes[3] == window && tag == 3 {
                        user.cancel(3);
                    }
                }
                News::End(tag, outcome) => ends.push((tag, outcome)),
                other => panic!("unexpected: {other:?}"),
            }
        }
        ends.sort_by_key(|(tag, _)| *tag);
        assert_eq!(bytes[..4], [0, window, window, window]);
        // A busy machine may not get so far in its time.
        assert!(bytes[4] <= window, "{} bytes", bytes[4]);
        assert_eq!(ends[0].1["code"], 5);
        assert_eq!(ends[1].1["outcome"], "sent");
        assert_eq!(ends[2].1["because"], "cancelled");
        assert_eq!(ends[3].1["because"], "timed-out");
        user.reset();
        await_nobody(&server);
    }
}

#[test]
fn cd_is_kept_for_the_session_alone() {
    let server = Server::start();
    fs::create_dir_all(server.path("one/two words")).expect("folders");
    let root = server.root().canonicalize().expect("it is there");
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let mut other = server.line(ip);
        let answer = user.run_to_end(1, "cd one/'two words'");
        let there = root.join("one/two words").to_str().expect("text").to_owned();
        assert_eq!(answer.text().trim_end(), there);
        assert_eq!(answer.outcome["directory"], there);
        assert_eq!(user.run_to_end(2, "pwd").text().trim_end(), there);
        user.run_to_end(3, "cd nowhere").assert_exit(2);
        user.run_to_end(4, "cd /; true").assert_exit(0);
        assert_eq!(user.run_to_end(5, "pwd").text().trim_end(), there);
        user.run_to_end(6, "cd ..").assert_exit(0);
        let answer = user.run_to_end(7, "ls");
        assert_eq!(answer.text(), "two words\n");

        other.send("run pwd\nrun cd one\nrun pwd");
        let root = root.to_str().expect("text");
        let one = format!("{root}/one");
        let expected = [root, "[exit 0]", &one, "[exit 0]", &one, "[exit 0]"];
        assert_eq!(other.lines(6), expected);

        // A folder that is gone is said to be gone.
        user.run_to_end(8, "mkdir gone").assert_exit(0);
        user.run_to_end(9, "cd gone").assert_exit(0);
        fs::remove_dir(server.path("one/gone")).expect("it is there");
        let answer = user.run_to_end(10, "pwd");
        assert_eq!(answer.outcome["code"], "cannot-start", "{answer:?}");
        // One can leave it all the same.
        user.run_to_end(11, "cd /").assert_exit(0);
        assert_eq!(user.run_to_end(12, "pwd").text(), "/\n");
        user.reset();
        await_nobody(&server);
    }
}

#[test]
fn cancel_ends_the_group_by_term_and_then_by_kill() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        user.run(1, "echo $$; echo so far; sleep 1000 | cat");
        let pid = first_line(&mut user, 1);
        user.cancel(1);
        user.cancel(1);
        let answer = user.answer(1);
        assert_eq!(
            answer.outcome,
            json!({"outcome": "signal", "number": 15, "because": "cancelled"})
        );
        await_true("the group is gone", || !is_running(&pid));

        user.run(2, "trap '' TERM; echo $$; while :; do sleep 0.05; done");
        let pid = first_line(&mut user, 2);
        let begun = Instant::now();
        user.cancel(2);
        let answer = user.answer(2);
        assert_eq!(
            answer.outcome,
            json!({"outcome": "signal", "number": 9, "because": "cancelled"})
        );
        let took = begun.elapsed();
        assert!((1900..3500).contains(&took.as_millis()), "{took:?}");
        await_true("the group is gone", || !is_running(&pid));

        user.request(3, json!({"op": "run", "command": "echo a; sleep 1000", "timeout_ms": 200}));
        let answer = user.answer(3);
        assert_eq!(answer.text(), "a\n");
        assert_eq!(
            answer.outcome,
            json!({"outcome": "signal", "number": 15, "because": "timed-out"})
        );
        user.request(4, json!({"op": "run", "command": "echo b", "timeout_ms": 20_000}));
        user.answer(4).assert_exit(0);
        // Nothing of these numbers runs any more: that is no fault.
        user.cancel(4);
        user.credit(4, 10);
        user.run_to_end(4, "echo again").assert_exit(0);
        user.reset();
        await_nobody(&server);
    }
}

/// The first line of a command's output, which it must have written by itself.
fn first_line(user: &mut process::Framed, tag: u32) -> String {
    let mut text = String::new();
    while !text.contains('\n') {
        match user.next() {
            News::Stdout(number, bytes) if number == tag => {
                text.push_str(&String::from_utf8_lossy(&bytes));
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
    text.lines().next().expect("a line").to_owned()
}

#[test]
fn a_client_that_goes_takes_its_commands_with_it() {
    let server = Server::start();
    for ip in FAMILIES {
        for in_order in [true, false] {
            let mut user = server.framed(ip, "user");
            user.run(1, "echo $$; sleep 1000 | cat");
            let pid = first_line(&mut user, 1);
            assert!(is_running(&pid));
            match in_order {
                true => drop(user),
                false => user.reset(),
            }
            await_true("the command is gone", || !is_running(&pid));
            await_nobody(&server);
        }
        let mut line = server.line(ip);
        line.send("run echo $$; sleep 1000 | cat");
        let pid = line.next();
        assert!(is_running(&pid));
        line.reset();
        await_true("the command is gone", || !is_running(&pid));
    }
}

#[test]
fn a_reset_that_comes_with_the_request_ends_the_command_too() {
    let server = Server::start();
    for ip in FAMILIES {
        // All of it waits for the server, which then sees it in one turn.
        let mut line = server.line(ip);
        line.send("echo here");
        assert_eq!(line.next(), "here");
        server.signal(rustix::process::Signal::STOP);
        line.send("run echo $$ > pid; exec sleep 1000");
        line.reset();
        server.signal(rustix::process::Signal::CONT);
        let pid = server.path("pid");
        // It may never have run at all, which is as good.
        let mut later = server.line(ip);
        later.send("quit");
        assert_eq!(later.rest_text(), "goodbye\n");
        await_true("the command is gone", || {
            let pid = fs::read_to_string(&pid).unwrap_or_default();
            let is_gone = pid.is_empty() || !is_running(pid.trim());
            is_gone && children_named(&server, "sleep") == 0
        });
        let _ = fs::remove_file(&pid);
    }
}

/// Children of the server that run a program of this name.
fn children_named(server: &Server, name: &str) -> usize {
    server
        .children()
        .iter()
        .filter(|pid| {
            fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.trim() == name)
        })
        .count()
}

#[test]
fn output_that_nobody_reads_is_held_in_the_pipe() {
    let server = Server::start();
    let canary = Canary::start(&server);
    let mut framed = server.framed(FAMILIES[0], "framed");
    framed.run(1, "yes");
    assert!(matches!(framed.next(), News::Stdout(1, _)));
    let mut line = server.line(FAMILIES[1]);
    line.send("run yes");
    assert_eq!(line.next(), "y");
    let mut slow = server.framed(FAMILIES[0], "slow");
    slow.run(1, "yes");
    // It takes its whole window, and then asks for no more.
    let mut taken = 0;
    while taken < sixfour::limits::OUTPUT_WINDOW_BYTES as usize {
        let News::Stdout(1, bytes) = slow.next() else { panic!("no output") };
        taken += bytes.len();
    }
    let before = server.resident_kib();
    let begun = Instant::now();
    let mut rounds = 0;
    while begun.elapsed() < Duration::from_secs(1) {
        let mut other = server.framed(FAMILIES[rounds % 2], "other");
        other.run_to_end(1, "head -c 300000 /dev/zero").assert_exit(0);
        other.send(client::GOODBYE, 0, b"");
        assert_eq!(other.next(), News::Goodbye(None));
        rounds += 1;
    }
    let ticks = server.processor_ticks();
    let grown = server.resident_kib().saturating_sub(before);
    assert!(grown < 2048, "{grown} KiB more");
    slow.run_to_end(2, "echo others").assert_exit(0);
    // Standing still costs no time: half a second of it at most in any case.
    canary.stop();
    std::thread::sleep(Duration::from_millis(500));
    let used = server.processor_ticks() - ticks;
    assert!(used < 40, "{used} ticks of 10 ms while nothing happened");
    slow.cancel(1);
    let answer = slow.answer(1);
    assert_eq!(answer.outcome["because"], "cancelled");
}

#[test]
fn two_hundred_commands_at_once_all_answer() {
    let server = Server::start();
    let canary = Canary::start(&server);
    let before = server.descriptors();
    for ip in FAMILIES {
        let mut users: Vec<_> = (0..4).map(|it| server.framed(ip, &format!("user{it}"))).collect();
        for user in &mut users {
            for tag in 1..=50 {
                user.run(tag, "true");
            }
        }
        for user in &mut users {
            let mut ended = std::collections::HashSet::new();
            while ended.len() < 50 {
                let News::End(tag, outcome) = user.next() else { panic!("no end") };
                assert_eq!(outcome, json!({"outcome": "exit", "code": 0}));
                assert!(ended.insert(tag));
            }
        }
        for mut user in users {
            user.send(client::GOODBYE, 0, b"");
            assert_eq!(user.next(), News::Goodbye(None));
        }
    }
    canary.stop();
    await_true("no zombies are left", || server.zombies() == 0);
    await_true("all descriptors are closed", || server.descriptors() <= before);
}

#[test]
fn a_storm_of_commands_does_not_hold_up_the_chat() {
    let server = Server::start();
    let mut users: Vec<_> =
        (0..12).map(|it| server.framed(FAMILIES[it % 2], &format!("user{it}"))).collect();
    let canary = Canary::start(&server);
    // All of it is there when the server looks.
    server.signal(rustix::process::Signal::STOP);
    for user in &mut users {
        for tag in 1..=60 {
            user.run(tag, "true");
        }
    }
    server.signal(rustix::process::Signal::CONT);
    for user in &mut users {
        for _ in 0..60 {
            assert!(matches!(user.next(), News::End(_, outcome) if outcome["code"] == 0));
        }
    }
    let slowest = canary.stop();
    // 720 starts take the better part of a second together.
    assert!(slowest < Duration::from_millis(400), "a message took {slowest:?}");
}

#[test]
fn the_kernel_asks_often_whether_a_half_closed_peer_is_there() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send("run echo begun; exec sleep 1000");
        assert_eq!(line.next(), "begun");
        line.half_close();
        let port = line.stream().local_addr().expect("it is bound").port();
        await_true("the keepalive of a few seconds is set", || {
            keepalive_seconds(ip, server.port, port).is_some_and(|left| left <= 4)
        });
        line.reset();
    }
}

/// Seconds until the kernel asks the peer of a connection whether it is there, from
/// `/proc/net/tcp` (proc_net_tcp.txt of the kernel's documentation).
fn keepalive_seconds(ip: std::net::IpAddr, local: u16, remote: u16) -> Option<u64> {
    let path = if ip.is_ipv6() { "/proc/net/tcp6" } else { "/proc/net/tcp" };
    let table = fs::read_to_string(path).expect("a table");
    let (local, remote) = (format!(":{local:04X}"), format!(":{remote:04X}"));
    table.lines().find_map(|line| {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_it = fields[1].ends_with(&local) && fields[2].ends_with(&remote);
        let ticks = fields.get(5)?.strip_prefix("02:").filter(|_| is_it)?;
        u64::from_str_radix(ticks, 16).ok().map(|ticks| ticks / 100)
    })
}

#[test]
fn there_is_a_bound_to_what_one_client_may_have_under_way() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let limits = sixfour::limits::Limits::default();
        for tag in 1..=limits.operations_max as u32 {
            user.run(tag, "cat; exec sleep 1000");
        }
        user.run(9999, "true");
        let News::End(9999, outcome) = user.next() else { panic!("no end") };
        assert_eq!(outcome["code"], "too-many");
        user.run(1, "true");
        let News::Error(1, refusal) = user.next() else { panic!("no error") };
        assert_eq!(refusal["code"], "id-in-use");
        user.reset();
        await_nobody(&server);
        await_true("all are gone", || children_named(&server, "sleep") == 0);
    }
}

/// Waits until nobody has a name.
fn await_nobody(server: &Server) {
    await_true("nobody is there any more", || {
        let mut line = server.line(FAMILIES[1]);
        line.send("who");
        line.next() == "[0 users]"
    });
}
