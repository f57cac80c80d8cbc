//! Starting a program as the leader of a session of its own, by `clone(2)`.
//!
//! A session of its own, and not only a process group, because a process without a controlling
//! terminal cannot read from the terminal that we were started at, type into it (`TIOCSTI`), or be
//! stopped by it for trying. Number of session, group and process are the same.
//!
//! std has no `setsid` but by `pre_exec`, and then it forks: 9 ms where we have 512 MiB in memory,
//! and nobody else is served meanwhile. A child that borrows our memory until its `execve`
//! (`CLONE_VM`, `CLONE_VFORK`) costs the same however much that is. It is what `posix_spawn(3)`
//! does, which cannot say one thing that is said here: that the limit of open files, which we have
//! raised for ourselves, is again what it was. Said from outside (`prlimit(2)`), it would come too
//! late for a short command; lowered in ourselves for the time of the start, it would fail whatever
//! another thread opens just then; said by a program between us and the command, it would cost a
//! second `execve` each time.

use std::ffi::{CStr, CString, OsStr};
use std::fs::File;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd as _, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::ptr;

use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::Pid;

use super::environment::Environment;
use crate::sys::descriptors;

/// The stack of a new process until its `execve`: the search of `PATH` takes the most of it.
const STACK_BYTES: usize = 64 * 1024;

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

        let mut theirs = [None, None, None];
        let mut pipes = [None, None, None];
        for (number, to) in self.streams.into_iter().enumerate() {
            theirs[number] = match to {
                StreamTo::Same => None,
                StreamTo::Null => Some(open_null()?),
                StreamTo::Pipe => {
                    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
                    let (end, own) = if number == 0 { (reader, writer) } else { (writer, reader) };
                    pipes[number] = Some(own);
                    Some(end)
                }
            };
        }
        let arguments = pointers([&program].into_iter().chain(&arguments));
        let environment = pointers(self.environment.entries().iter().chain(&variables));
        let pid = spawn(Birth {
            program: program.as_ptr(),
            is_path: self.program.as_bytes().contains(&b'/'),
            arguments: &arguments,
            environment: &environment,
            directory: directory.as_deref().map(CStr::as_ptr),
            streams: theirs.each_ref().map(|end| end.as_ref().map(|end| end.as_raw_fd())),
            open_files: descriptors::limit_of_children().map(|limit| libc::rlimit {
                rlim_cur: limit.current.unwrap_or(libc::RLIM_INFINITY),
                rlim_max: limit.maximum.unwrap_or(libc::RLIM_INFINITY),
            }),
            error: 0,
        })?;
        Ok(Launched { pid, pipes })
    }
}

fn open_null() -> io::Result<OwnedFd> {
    let null = File::options().read(true).write(true).open("/dev/null");
    let null = null.map_err(|error| io::Error::new(error.kind(), format!("/dev/null: {error}")))?;
    Ok(null.into())
}

/// A list as C wants it: addresses, and a null at the end.
fn pointers<'a>(texts: impl Iterator<Item = &'a CString>) -> Vec<*const libc::c_char> {
    texts.map(|text| text.as_ptr()).chain([ptr::null()]).collect()
}

/// All that a new process does until its `execve`, in a form that takes no memory to read.
struct Birth<'a> {
    program: *const libc::c_char,
    /// Whether the program has a slash in it; otherwise it is looked for.
    is_path: bool,
    arguments: &'a [*const libc::c_char],
    environment: &'a [*const libc::c_char],
    directory: Option<*const libc::c_char>,
    /// What becomes descriptor 0, 1 and 2. None is one of the first three itself: the runtime of
    /// Rust opens those before `main` where they are closed.
    streams: [Option<RawFd>; 3],
    open_files: Option<libc::rlimit>,
    /// What failed, of those in errno(3).
    error: libc::c_int,
}

#[allow(unsafe_code, reason = "clone(2) has no safe form: the child borrows our memory")]
fn spawn(mut birth: Birth<'_>) -> io::Result<Pid> {
    // Where a program that is no binary is found by its name, the C library copies the arguments.
    let size = STACK_BYTES + 2 * mem::size_of_val(birth.arguments);
    let mut stack: Vec<u8> = Vec::with_capacity(size);
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the sets are initialised by the calls that cannot fail. The child runs on a stack of
    // its own, whose end is aligned as every architecture wants it, and this thread waits
    // (`CLONE_VFORK`) until it no longer uses our memory. No handler of ours runs in it, as all
    // signals are blocked until it has put them back to their defaults.
    let (pid, error) = unsafe {
        let (mut all, mut before) = (mem::zeroed(), mem::zeroed());
        libc::sigfillset(&mut all);
        libc::pthread_sigmask(libc::SIG_SETMASK, &all, &mut before);
        let end = stack.as_mut_ptr().add(size);
        let end = end.sub(end as usize % 16);
        let pid = libc::clone(become_program, end.cast(), flags, (&raw mut birth).cast());
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &before, ptr::null_mut());
        (pid, error)
    };
    let pid = Pid::from_raw(pid).filter(|_| pid > 0).ok_or(error)?;
    // SAFETY: it is ours. The child has written to it behind the compiler's back.
    match unsafe { (&raw const birth.error).read_volatile() } {
        0 => Ok(pid),
        code => {
            let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
            Err(io::Error::from_raw_os_error(code))
        }
    }
}

/// What the new process does first, in our memory and beside our other threads: system calls
/// alone, and nothing that takes memory or a lock.
#[allow(unsafe_code, reason = "clone(2) has no safe form: the child borrows our memory")]
extern "C" fn become_program(birth: *mut libc::c_void) -> libc::c_int {
    // SAFETY: it is the `Birth` of the thread that waits for us, and of nobody else. All pointers
    // in it are to what that thread holds until we are done; both lists end in a null.
    unsafe {
        let birth = &mut *birth.cast::<Birth<'_>>();
        follow(birth);
        let error = &raw mut birth.error;
        error.write_volatile(*libc::__errno_location());
        libc::_exit(127)
    }
}

/// Comes back only where something has failed.
///
/// # Safety
/// To be called in a process that is still to be given its program; see [`become_program`].
#[allow(unsafe_code, reason = "clone(2) has no safe form: the child borrows our memory")]
unsafe fn follow(birth: &Birth<'_>) {
    // SAFETY: the structures are initialised, and all pointers are what `Birth` says.
    unsafe {
        let default: libc::sigaction = mem::zeroed();
        for signal in 1..=libc::SIGRTMAX() {
            // Refused for those that cannot be changed.
            libc::sigaction(signal, &default, ptr::null_mut());
        }
        if libc::setsid() < 0 {
            return;
        }
        for (number, end) in (0..).zip(birth.streams) {
            if end.is_some_and(|end| libc::dup2(end, number) < 0) {
                return;
            }
        }
        if birth.directory.is_some_and(|directory| libc::chdir(directory) < 0) {
            return;
        }
        // The last of all, as descriptors of ours may have higher numbers than it allows.
        if let Some(limit) = &birth.open_files
            && libc::setrlimit(libc::RLIMIT_NOFILE, limit) < 0
        {
            return;
        }
        let mut none = mem::zeroed();
        libc::sigemptyset(&mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &none, ptr::null_mut());
        let (program, arguments) = (birth.program, birth.arguments.as_ptr());
        let environment = birth.environment.as_ptr();
        match birth.is_path {
            true => libc::execve(program, arguments, environment),
            false => libc::execvpe(program, arguments, environment),
        };
    }
}
