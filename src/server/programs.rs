//! Which program does what was asked for, and with which arguments.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use crate::{
    hub::Program,
    limits::{PING_COUNT, PING_SECONDS},
    sys::process::programs,
    wire::{ErrorCode, Refusal, host::Interpreter},
};

/// A program that is there, and what it is started with.
#[derive(Debug, Eq, PartialEq)]
pub struct Invocation {
    /// Where it is.
    pub program: PathBuf,
    /// Its arguments, each as it gets it.
    pub arguments: Vec<OsString>,
}

/// Programs of which the first that is there will do, each with its arguments, and what to say
/// where there is none.
struct Choice {
    candidates: Vec<(&'static str, Vec<String>)>,
    advice: &'static str,
}

/// Finds the program in the folders of `path`.
///
/// # Errors
/// `no-interpreter` says what to install.
pub fn resolve(program: &Program, path: &OsStr) -> Result<Invocation, Refusal> {
    let Choice { candidates, advice } = choice(program);
    for (name, arguments) in candidates {
        if let Some(program) = programs::find(name, path) {
            let arguments = arguments.into_iter().map(OsString::from).collect();
            return Ok(Invocation { program, arguments });
        }
    }
    Err(Refusal::new(0, ErrorCode::NoInterpreter, advice))
}

fn choice(program: &Program) -> Choice {
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    match program {
        Program::Ping(host) => {
            // Numbers alone, or the answer would wait for names; and the end of it by itself.
            let (count, seconds) = (PING_COUNT.to_string(), PING_SECONDS.to_string());
            let arguments = words(&["-n", "-c", &count, "-w", &seconds, host.as_str()]);
            // Some of the older ones speak one family only.
            let names = if host.is_v6() { &["ping6", "ping"][..] } else { &["ping"] };
            Choice {
                candidates: names.iter().map(|name| (*name, arguments.clone())).collect(),
                advice: "this host has no program `ping`; install it (iputils-ping)",
            }
        }
        Program::PythonVersion => Choice {
            candidates: ["python3", "python"].map(|name| (name, words(&["--version"]))).into(),
            advice: "this host has neither python3 nor python; install python3",
        },
        Program::Script { interpreter, command } => script(*interpreter, command),
    }
}

fn script(interpreter: Interpreter, command: &str) -> Choice {
    let with = |words: &[&str]| {
        let words = words.iter().chain([&command]);
        words.map(|word| (*word).to_owned()).collect::<Vec<_>>()
    };
    match interpreter {
        Interpreter::Linux => Choice {
            candidates: vec![("sh", with(&["-c", "--"]))],
            advice: "this host has no program `sh` in its PATH",
        },
        Interpreter::Dos => Choice {
            candidates: vec![
                ("cmd.exe", with(&["/c"])),
                ("cmd", with(&["/c"])),
                ("wine", with(&["cmd", "/c"])),
            ],
            advice: "this host cannot run DOS commands: it has no cmd.exe, and no Wine to bring \
                     one; install wine, or write `run COMMAND`",
        },
        Interpreter::PowerShell => {
            let options = ["-NoLogo", "-NoProfile", "-NonInteractive", "-Command"];
            let names = ["pwsh", "powershell.exe", "powershell"];
            Choice {
                candidates: names.map(|name| (name, with(&options))).into(),
                advice: "this host has no PowerShell; install it (`pwsh`), or write `run COMMAND`",
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::wire::host::PingHost;

    fn with_programs(names: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().expect("a folder");
        for name in names {
            let path = folder.path().join(name);
            std::fs::write(&path, "").expect("a file");
            let mode = std::fs::Permissions::from_mode(0o755);
            std::fs::set_permissions(path, mode).expect("executable");
        }
        folder
    }

    fn resolved(program: &Program, names: &[&str]) -> Result<Vec<String>, Refusal> {
        let folder = with_programs(names);
        let Invocation { program, arguments } = resolve(program, folder.path().as_os_str())?;
        let name = program.file_name().expect("a name").to_owned();
        let words = [name].into_iter().chain(arguments);
        Ok(words.map(|word| word.into_string().expect("text")).collect())
    }

    fn script(interpreter: Interpreter) -> Program {
        Program::Script { interpreter, command: "dir; \"x y\" -z".to_owned() }
    }

    #[test]
    fn the_first_program_that_is_there_gets_the_command_as_one_argument() {
        let ping = |host| Program::Ping(PingHost::parse(host).expect("a host"));
        let command = "dir; \"x y\" -z";
        for (program, names, words) in [
            (
                ping("::1"),
                &["ping", "ping6"][..],
                &["ping6", "-n", "-c", "4", "-w", "10", "::1"][..],
            ),
            (ping("::1"), &["ping"], &["ping", "-n", "-c", "4", "-w", "10", "::1"]),
            (ping("host"), &["ping", "ping6"], &["ping", "-n", "-c", "4", "-w", "10", "host"]),
            (Program::PythonVersion, &["python", "python3"], &["python3", "--version"]),
            (Program::PythonVersion, &["python"], &["python", "--version"]),
            (script(Interpreter::Linux), &["sh"], &["sh", "-c", "--", command]),
            (script(Interpreter::Dos), &["wine"], &["wine", "cmd", "/c", command]),
            (script(Interpreter::Dos), &["wine", "cmd.exe"], &["cmd.exe", "/c", command]),
            (
                script(Interpreter::PowerShell),
                &["pwsh"],
                &["pwsh", "-NoLogo", "-NoProfile", "-NonInteractive", "-Command", command],
            ),
        ] {
            assert_eq!(resolved(&program, names).expect("there"), words);
        }
    }

    #[test]
    fn what_is_not_there_is_named_with_what_to_install() {
        for (program, part) in [
            (Program::PythonVersion, "install python3"),
            (Program::Ping(PingHost::parse("::1").expect("a host")), "iputils-ping"),
            (script(Interpreter::Dos), "install wine"),
            (script(Interpreter::PowerShell), "pwsh"),
        ] {
            let refusal = resolved(&program, &[]).expect_err("nothing is there");
            assert_eq!(refusal.code, ErrorCode::NoInterpreter);
            assert!(refusal.text.contains(part), "{}", refusal.text);
        }
    }
}
