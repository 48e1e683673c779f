//! The baseline of `spawn`: a bare loop of `posix_spawn`, in one thread or several.
//!
//! `bench-spawn COUNT THREADS PROGRAM ARG…` prints the seconds from the first call until the last has returned, then
//! kills and reaps what it started. `posix_spawn` returns when the program runs, so then all of them do. They inherit
//! the environment: with a locale to load a program takes longer to start.

#![expect(clippy::print_stdout, reason = "the result goes to stdout")]

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Barrier;
use std::thread;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::spawn::{PosixSpawnAttr, PosixSpawnFileActions, posix_spawn};
use nix::unistd::Pid;

fn main() -> Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [count, threads, argv @ ..] = args.as_slice() else { bail!("usage: bench-spawn COUNT THREADS PROGRAM ARG…") };
    let count: usize = count.parse().context("COUNT is not a number")?;
    let threads: usize = threads.parse().context("THREADS is not a number")?;
    let argv: Vec<CString> = argv.iter().map(|arg| CString::new(arg.as_str())).collect::<Result<_, _>>()?;
    if argv.is_empty() || threads == 0 {
        bail!("a program and at least one thread are needed");
    }

    let start = Barrier::new(threads + 1);
    let (began, results) = thread::scope(|scope| {
        let shares = (0..threads).map(|thread| count / threads + usize::from(thread < count % threads));
        let handles: Vec<_> = shares
            .map(|share| {
                let (argv, start) = (&argv, &start);
                scope.spawn(move || {
                    start.wait();
                    spawn_all(share, argv)
                })
            })
            .collect();
        start.wait();
        let began = Instant::now();
        let results: Vec<_> = handles.into_iter().map(|handle| handle.join()).collect();
        (began, results)
    });
    let seconds = began.elapsed().as_secs_f64();

    let mut complaint = None;
    for result in results {
        match result {
            Ok((pids, error)) => {
                for pid in pids {
                    end(pid);
                }
                complaint = complaint.or(error);
            }
            Err(_) => bail!("a thread of the loop panicked"),
        }
    }
    if let Some(error) = complaint {
        bail!("posix_spawn failed: {error}");
    }
    println!("{seconds}");
    Ok(())
}

/// Starts `count` processes and returns those that run, with the error that ended the loop early.
fn spawn_all(count: usize, argv: &[CString]) -> (Vec<Pid>, Option<String>) {
    let mut pids = Vec::with_capacity(count);
    let (actions, attributes) = match (PosixSpawnFileActions::init(), PosixSpawnAttr::init()) {
        (Ok(actions), Ok(attributes)) => (actions, attributes),
        (Err(error), _) | (_, Err(error)) => return (pids, Some(error.to_string())),
    };
    let pairs = std::env::vars_os().map(|(name, value)| [name.as_bytes(), b"=", value.as_bytes()].concat());
    let environment: Vec<CString> = pairs.filter_map(|pair| CString::new(pair).ok()).collect();
    for _ in 0..count {
        match posix_spawn(argv[0].as_c_str(), &actions, &attributes, argv, &environment) {
            Ok(pid) => pids.push(pid),
            Err(error) => return (pids, Some(error.to_string())),
        }
    }
    (pids, None)
}

fn end(pid: Pid) {
    // Our own child, not yet reaped: the number cannot be anybody else's.
    let Some(pid) = rustix::process::Pid::from_raw(pid.as_raw()) else { return };
    if rustix::process::kill_process(pid, rustix::process::Signal::KILL).is_ok() {
        let _reaped = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}
