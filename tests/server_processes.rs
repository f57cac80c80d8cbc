//! Commands as processes: what they inherit, what they leave behind, and who collects the dead.

mod process;

use std::{fs, process::Command};

use process::{FAMILIES, News, Server, await_true, is_running};
use rustix::process::Signal;
use serde_json::json;

#[test]
fn what_a_command_leaves_in_the_background_goes_on_when_it_has_ended_by_itself() {
    let server = Server::start();
    server.fifo("go");
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let _ = fs::remove_file(server.path("made"));
        // One that has let go of the streams, and one that holds them until it is told to end.
        for job in ["(cat go; mkdir made) </dev/null >/dev/null 2>&1 &", "(cat go; mkdir made) &"] {
            let answer = user.run_to_end(1, &format!("{job} echo $!"));
            answer.assert_exit(0);
            let pid = answer.text().trim().to_owned();
            user.run_to_end(2, "true").assert_exit(0);
            assert!(is_running(&pid), "{job} was ended");
            fs::write(server.path("go"), "").expect("the job reads it");
            await_true("the job has done its work", || server.path("made").exists());
            fs::remove_dir(server.path("made")).expect("it was made");
        }
        // Nobody has waited for these at all.
        for number in 0..10 {
            user.run_to_end(1, &format!("mkdir made{number} &")).assert_exit(0);
        }
        let made = |number: i32| server.path(&format!("made{number}"));
        await_true("all are made", || (0..10).all(|number| made(number).exists()));
        (0..10).for_each(|number| fs::remove_dir(made(number)).expect("it was made"));
    }
    await_true("no zombies are left", || server.zombies() == 0);
}

#[test]
fn commands_get_the_limit_of_open_files_that_the_server_was_started_with() {
    let server = Server::start_after("ulimit -S -n 200");
    for ip in FAMILIES {
        let mut line = server.line(ip);
        line.send("run ulimit -H -n");
        assert_ne!(line.lines(2)[0], "200", "the server could raise nothing here");
        // The second without a shell between it and the server.
        for command in ["run ulimit -S -n", "Linux:ulimit -S -n"] {
            line.send(command);
            assert_eq!(line.lines(2), ["200", "[exit 0]"], "{command}");
        }
    }
}

#[test]
fn a_command_that_is_ended_takes_its_background_with_it() {
    let server = Server::start();
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let job = "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!; sleep 1000";
        user.request(1, json!({"op": "run", "command": job, "timeout_ms": 300}));
        let answer = user.answer(1);
        assert_eq!(answer.outcome["because"], "timed-out");
        await_true("the job is gone", || !is_running(answer.text().trim()));

        user.run(2, job);
        let News::Stdout(2, pid) = user.next() else { panic!("no output") };
        user.cancel(2);
        assert_eq!(user.answer(2).outcome["because"], "cancelled");
        let pid = String::from_utf8(pid).expect("a number");
        await_true("the job is gone", || !is_running(pid.trim()));

        user.run(3, job);
        let News::Stdout(3, pid) = user.next() else { panic!("no output") };
        user.reset();
        let pid = String::from_utf8(pid).expect("a number");
        await_true("the job is gone", || !is_running(pid.trim()));
    }
}

#[test]
fn commands_inherit_nothing_that_was_not_meant_for_them() {
    let mut command = Command::new("/bin/sh");
    command.args(["-c", "exec 9</etc/passwd; exec \"$0\" \"$@\"", env!("CARGO_BIN_EXE_server")]);
    command.args(["--port", "0", "--command-env", "SIXFOUR_TEST_PASSED"]);
    command.env("SIXFOUR_TEST_PASSED", "on").env("SIXFOUR_TEST_KEPT", "back");
    command.env("AWS_SECRET_ACCESS_KEY", "secret").env("LC_TIME", "C");
    let server = Server::start_command(command);
    let mut line = server.line(FAMILIES[0]);
    line.send("run echo $SIXFOUR_TEST_PASSED$SIXFOUR_TEST_KEPT$AWS_SECRET_ACCESS_KEY $LC_TIME");
    assert_eq!(line.lines(2), ["on C", "[exit 0]"]);
    line.send("run ls /proc/self/fd | tr '\\n' ' '; echo; ulimit -S -c");
    // The fourth is the folder that `ls` lists.
    assert_eq!(line.lines(3), ["0 1 2 3 ", "0", "[exit 0]"]);
    // In a session of its own: the number behind that of its group, which is its own.
    line.send(
        "run read -r all </proc/$$/stat; set -- ${all##*) }; echo $(($3 - $$)) $(($4 - $$)) $5",
    );
    assert_eq!(line.lines(2), ["0 0 0", "[exit 0]"]);
}

#[test]
fn a_dash_leads_back_to_where_the_session_was_before() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_server"));
    // That of the server is nobody's business.
    command.args(["--port", "0"]).env("OLDPWD", "/usr");
    let server = Server::start_command(command);
    let root = server.root().canonicalize().expect("it is there");
    let root = root.to_str().expect("text");
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        // Shells differ in what it is before that; the server's own it is not.
        assert_ne!(user.run_to_end(1, "cd -").outcome["directory"], "/usr");
        for (to, there) in [("/", "/"), ("-", root), ("-", "/"), ("/tmp", "/tmp"), ("-", "/")] {
            let answer = user.run_to_end(1, &format!("cd {to}"));
            assert_eq!(
                (answer.text().trim_end(), &answer.outcome["directory"]),
                (there, &json!(there))
            );
        }
        assert_eq!(user.run_to_end(1, "pwd").text(), "/\n");
        user.reset();
    }
}

#[test]
fn as_process_1_the_server_leaves_no_zombies_and_keeps_exit_codes() {
    let mut command = Command::new("unshare");
    command.args(["--pid", "--fork", "--kill-child", "--mount-proc", "--"]);
    if !command.arg("true").output().is_ok_and(|output| output.status.success()) {
        return eprintln!("no PID namespace can be made here: not tested");
    }
    let prefix = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", "--"];
    let mut server = Server::start_inside(&prefix.map(str::to_owned));
    let mut line = server.line(FAMILIES[0]);
    // Orphans that die at once, each in a session of its own, so that nobody else asks for them.
    line.send("run for i in 1 2 3 4 5; do setsid -f true; done; exit 7");
    assert_eq!(line.next(), "[exit 7]");
    await_true("all of them are collected", || {
        line.send("run cat /proc/[0-9]*/stat | grep -c ') Z '");
        let [count, _] = &line.lines(2)[..] else { panic!("two lines") };
        count == "0"
    });
    line.send("run kill -9 $$");
    assert_eq!(line.next(), "[signal 9]");
    // What a container is stopped by reaches the server, once.
    line.send("run kill -TERM 1; sleep 0.2; exit 5");
    let mut rest = line.lines(2);
    rest.sort();
    assert_eq!(rest[0], "[exit 5]");
    assert!(rest[1].starts_with("error shutting-down"), "{rest:?}");
    assert_eq!(server.wait().code(), Some(0));
}

#[test]
fn what_ended_in_time_is_not_out_of_time_because_the_server_was_stopped() {
    let server = Server::start();
    server.fifo("go");
    for ip in FAMILIES {
        let mut user = server.framed(ip, "user");
        let command = "echo $$; cat go; exit 5";
        user.request(1, json!({"op": "run", "command": command, "timeout_ms": 400}));
        let News::Stdout(1, pid) = user.next() else { panic!("no output") };
        let pid = String::from_utf8(pid).expect("a number");
        server.signal(Signal::STOP);
        fs::write(server.path("go"), "").expect("the command reads it");
        await_true("the command has ended", || !is_running(pid.trim()));
        std::thread::sleep(std::time::Duration::from_millis(500));
        server.signal(Signal::CONT);
        user.answer(1).assert_exit(5);
        user.reset();
    }
}
