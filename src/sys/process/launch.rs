//! Starting a program as the leader of a session of its own, by `posix_spawn(3)`.
//!
//! A session of its own, and not only a process group, because a process without a controlling
//! terminal cannot read from the terminal that we were started at, type into it (`TIOCSTI`), or be
//! stopped by it for trying. Number of session, group and process are the same.
//!
//! std has no `setsid` but by `pre_exec`, and then it forks: 9 ms where we have 512 MiB in memory,
//! and nobody else is served meanwhile. `posix_spawn` borrows our memory instead of copying its
//! tables (`CLONE_VFORK`), so its cost does not grow with it.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::environment::Environment;

/// What a program is started with.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Its file; a name without a slash is looked for in the folders of our `PATH`.
    pub program: &'a OsStr,
    /// What follows its name.
    pub arguments: &'a [&'a OsStr],
    /// Its working folder; ours without one. A folder that is missing is the same error as a
    /// program that is: ask first.
    pub directory: Option<&'a Path>,
    /// All of its environment.
    pub environment: &'a Environment,
    /// Variables on top of that.
    pub variables: &'a [(&'a str, &'a OsStr)],
    /// Standard input, output and error output.
    pub streams: [StreamTo; 3],
}

/// Where one of the three streams leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamTo {
    /// To us, by a pipe.
    Pipe,
    /// To `/dev/null`.
    Null,
    /// Where ours leads.
    Same,
}

/// A program that was started. Nothing happens to it when this is dropped.
#[derive(Debug)]
pub struct Launched {
    /// Its process, group and session.
    pub pid: Pid,
    /// Our ends of the pipes, blocking, and not handed on to other programs.
    pub pipes: [Option<OwnedFd>; 3],
}

impl Launch<'_> {
    /// Starts it. All signals do what they do by default there, and none is blocked.
    ///
    /// # Errors
    /// `InvalidInput` is a NUL byte in an argument, a variable or the folder; otherwise what
    /// `pipe(2)`, `open(2)` of `/dev/null`, `fork(2)`, `chdir(2)` or `execve(2)` say.
    pub fn start(&self) -> io::Result<Launched> {
        let text = |text: &OsStr| {
            CString::new(text.as_bytes()).map_err(|_| {
                let text = "a NUL byte is in the command, and no argument can hold one";
                io::Error::new(io::ErrorKind::InvalidInput, text)
            })
        };
        let program = text(self.program)?;
        let arguments = self.arguments.iter().map(|argument| text(argument));
        let arguments = arguments.collect::<io::Result<Vec<_>>>()?;
        let directory = self.directory.map(|path| text(path.as_os_str())).transpose()?;
        let variables = self.variables.iter().map(|(name, value)| {
            let mut variable = OsStr::new(name).to_owned();
            variable.push("=");
            variable.push(value);
            text(&variable)
        });
        let variables = variables.collect::<io::Result<Vec<_>>>()?;

        let mut theirs = Vec::new();
        let mut pipes = [None, None, None];
        let mut actions = FileActions::new()?;
        for (number, (to, ours)) in (0..).zip(self.streams.into_iter().zip(&mut pipes)) {
            let end = match to {
                StreamTo::Same => continue,
                StreamTo::Null => open_null()?,
                StreamTo::Pipe => {
                    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                    let (end, own) = if number == 0 { (reader, writer) } else { (writer, reader) };
                    *ours = Some(own);
                    end
                }
            };
            actions.duplicate(&end, number)?;
            theirs.push(end);
        }
        if let Some(directory) = &directory {
            actions.change_directory(directory)?;
        }
        let arguments = pointers([&program].into_iter().chain(&arguments));
        let environment = pointers(self.environment.entries().iter().chain(&variables));
        let pid = spawn(&program, &actions, &Attributes::new()?, &arguments, &environment)?;
        Ok(Launched { pid, pipes })
    }
}

fn open_null() -> io::Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| io::Error::new(error.kind(), format!("/dev/null: {error}")))?;
    Ok(null.into())
}

/// A list as C wants it: addresses, and a null at the end.
fn pointers<'a>(texts: impl Iterator<Item = &'a CString>) -> Vec<*mut libc::c_char> {
    texts.map(|text| text.as_ptr().cast_mut()).chain([ptr::null_mut()]).collect()
}

/// What is done to the descriptors and the folder of the new process.
struct FileActions(libc::posix_spawn_file_actions_t);

/// What else the new process does not inherit: session, signals.
struct Attributes(libc::posix_spawnattr_t);

fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}

#[allow(unsafe_code, reason = "C's interface to posix_spawn: no safe crate has setsid in it")]
fn spawn(
    program: &CStr,
    actions: &FileActions,
    attributes: &Attributes,
    arguments: &[*mut libc::c_char],
    environment: &[*mut libc::c_char],
) -> io::Result<Pid> {
    let mut pid = 0;
    // SAFETY: all pointers are to what the caller holds until this returns; both lists end in a
    // null; the strings are not written to. `posix_spawn` returns after the `execve`, or with its
    // error, so that the new process no longer uses our memory.
    let code = unsafe {
        libc::posix_spawnp(
            &mut pid,
            program.as_ptr(),
            &actions.0,
            &attributes.0,
            arguments.as_ptr(),
            environment.as_ptr(),
        )
    };
    check(code)?;
    Ok(Pid::from_raw(pid).expect("a process that was started has a number"))
}

#[allow(unsafe_code, reason = "C's interface to posix_spawn: no safe crate has setsid in it")]
impl FileActions {
    fn new() -> io::Result<Self> {
        let mut actions = MaybeUninit::uninit();
        // SAFETY: it is initialised where the call succeeds, and not looked at where it fails.
        check(unsafe { libc::posix_spawn_file_actions_init(actions.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded.
        Ok(Self(unsafe { actions.assume_init() }))
    }

    /// `end` becomes the descriptor of this number. It is none of the first three itself: the
    /// runtime of Rust opens those before `main` where they are closed.
    fn duplicate(&mut self, end: &OwnedFd, number: RawFd) -> io::Result<()> {
        // SAFETY: the object is initialised; the numbers are noted and not used before the start.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&mut self.0, end.as_raw_fd(), number)
        })
    }

    fn change_directory(&mut self, directory: &CStr) -> io::Result<()> {
        // SAFETY: the object is initialised; the path is copied.
        check(unsafe {
            libc::posix_spawn_file_actions_addchdir_np(&mut self.0, directory.as_ptr())
        })
    }
}

#[allow(unsafe_code, reason = "C's interface to posix_spawn: no safe crate has setsid in it")]
impl Drop for FileActions {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is not used again.
        unsafe { libc::posix_spawn_file_actions_destroy(&mut self.0) };
    }
}

#[allow(unsafe_code, reason = "C's interface to posix_spawn: no safe crate has setsid in it")]
impl Attributes {
    fn new() -> io::Result<Self> {
        let flags = libc::POSIX_SPAWN_SETSID as i32
            | libc::POSIX_SPAWN_SETSIGMASK
            | libc::POSIX_SPAWN_SETSIGDEF;
        let (mut all, mut none) = (MaybeUninit::uninit(), MaybeUninit::uninit());
        let mut attributes = MaybeUninit::uninit();
        // SAFETY: both calls initialise the set that they are given, and cannot fail.
        let (all, none) = unsafe {
            libc::sigfillset(all.as_mut_ptr());
            libc::sigemptyset(none.as_mut_ptr());
            (all.assume_init(), none.assume_init())
        };
        // SAFETY: it is initialised where the call succeeds, and not looked at where it fails.
        check(unsafe { libc::posix_spawnattr_init(attributes.as_mut_ptr()) })?;
        // SAFETY: the call has succeeded.
        let mut attributes = Self(unsafe { attributes.assume_init() });
        // SAFETY: the object is initialised, and so are the sets, which are copied.
        unsafe {
            check(libc::posix_spawnattr_setflags(&mut attributes.0, flags as libc::c_short))?;
            check(libc::posix_spawnattr_setsigdefault(&mut attributes.0, &all))?;
            check(libc::posix_spawnattr_setsigmask(&mut attributes.0, &none))?;
        }
        Ok(attributes)
    }
}

#[allow(unsafe_code, reason = "C's interface to posix_spawn: no safe crate has setsid in it")]
impl Drop for Attributes {
    fn drop(&mut self) {
        // SAFETY: it was initialised, and is not used again.
        unsafe { libc::posix_spawnattr_destroy(&mut self.0) };
    }
}
