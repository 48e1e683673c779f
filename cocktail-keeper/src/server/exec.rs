//! A command beside a container's main process, and the connection that carries its streams.
//!
//! Input is bounded by the pipe: while the command does not read, the connection is not read either. When the connection
//! ends the command's process group is killed.

use std::{
    cell::Cell,
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    rc::Rc,
    sync::Arc,
    time::Duration,
};

use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
    process::{Pid, Signal, kill_process_group},
    pty::{OpenptFlags, grantpt, openpt, unlockpt},
    termios::{Winsize, tcsetwinsize},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest, unix::AsyncFd},
    net::unix::{OwnedReadHalf, OwnedWriteHalf},
    sync::oneshot,
    time::timeout,
};

use super::{
    Server,
    containers::{inherited_limits, refuse},
    io_refusal, reaper,
    spawner::{Job, candidates},
};
use crate::{
    client::kind,
    frame::{FrameBuf, push_json, push_stream},
    protocol::{ExecRequest, ExitStatus, Refusal, Reply, ServerFrame},
    sys::{
        self,
        spawn::{Command, Stdio},
    },
};

/// After the command ended, output that its children still write is waited for this long.
const LAST_OUTPUT: Duration = Duration::from_millis(500);

/// Bounds the sessions.
#[derive(Debug)]
pub(super) struct ExecSlots {
    free: Cell<u32>,
}

impl ExecSlots {
    pub(super) fn new(slots: u32) -> Self {
        Self { free: Cell::new(slots) }
    }
}

struct Slot(Rc<Server>);

impl Slot {
    fn take(server: &Rc<Server>) -> Result<Self, Refusal> {
        let free = server.exec_slots.free.get();
        if free == 0 {
            return Err(Refusal::Limit { what: "exec sessions".to_owned() });
        }
        server.exec_slots.free.set(free - 1);
        Ok(Self(Rc::clone(server)))
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let free = &self.0.exec_slots.free;
        free.set(free.get() + 1);
    }
}

/// Our ends of a running command's streams.
struct Running {
    _slot: Slot,
    pid: u32,
    ended: oneshot::Receiver<ExitStatus>,
    /// `None` once it was closed.
    input: Option<AsyncFd<OwnedFd>>,
    /// With the kind of frame each becomes; a terminal is both input and the one output.
    outputs: Vec<(u8, AsyncFd<OwnedFd>)>,
    terminal: bool,
}

pub(super) async fn stream(
    server: &Rc<Server>,
    id: u64,
    request: ExecRequest,
    reader: OwnedReadHalf,
    mut writer: OwnedWriteHalf,
    buf: FrameBuf,
) {
    let mut out = Vec::new();
    let started = start(server, request).await;
    let greeting = match &started {
        Ok(_) => ServerFrame::Ok(id, Reply::Done),
        Err(refusal) => ServerFrame::Err(id, refusal.clone()),
    };
    // Both are small.
    let _ = push_json(&mut out, &greeting);
    let told = writer.write_all(&out).await.is_ok();
    let Ok(running) = started else { return };
    let pid = running.pid;
    if !told || carry(running, reader, writer, buf).await.is_err() {
        // The command is our unreaped child for as long as it is registered, so the group is its own.
        if server.children.is_known(pid)
            && let Some(group) = Pid::from_raw(pid.cast_signed())
        {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

async fn start(server: &Rc<Server>, request: ExecRequest) -> Result<Running, Refusal> {
    let container = server.container(&request.container)?;
    if container.running().is_none() {
        return Err(Refusal::NotRunning { container: request.container });
    }
    let slot = Slot::take(server)?;
    let spec = Rc::clone(&container.record.borrow().spec);
    let bad = |why: &str| Refusal::BadRequest { why: why.to_owned() };
    let text = |bytes: &[u8]| CString::new(bytes).map_err(|_| bad("a zero byte in the command"));
    let program = request.argv.first().filter(|program| !program.is_empty()).ok_or_else(|| bad("an empty command"))?;
    let overridden = |entry: &[u8]| {
        let name = entry.split(|byte| *byte == b'=').next().unwrap_or_default();
        request.env.keys().any(|key| key.as_bytes() == name)
    };
    let mut env = spec.entries().filter(|entry| !overridden(entry)).map(text).collect::<Result<Vec<_>, _>>()?;
    for (name, value) in &request.env {
        env.push(text(format!("{name}={value}").as_bytes())?);
    }
    let path = env.iter().find_map(|entry| entry.to_str().ok()?.strip_prefix("PATH=").map(str::to_owned));
    let streams = if request.tty { terminal(request.rows, request.cols) } else { pipes() };
    let (stdio, theirs, ours) = streams.map_err(io_refusal("opening the command's streams"))?;
    let command = Command {
        programs: candidates(program, path.as_deref()),
        argv: request.argv.iter().map(|arg| text(arg.as_bytes())).collect::<Result<_, _>>()?,
        env,
        cwd: text(spec.cwd.as_os_str().as_bytes())?,
        stdio,
        listen: Vec::new(),
        user: None,
        rlimits: inherited_limits(),
        cgroup: container
            .record
            .borrow()
            .cgroup
            .as_ref()
            .and_then(|group| text(group.procs().as_os_str().as_bytes()).ok()),
        umask: 0o077,
        die_with_parent: false,
        terminal: request.tty,
    };
    let job = Job { command, user: spec.user.clone(), pipes: false, keep: theirs };
    let (input, outputs) = ours.map_err(io_refusal("watching the command's streams"))?;
    let in_flight = server.spawner.begin();
    let spawned = server.spawner.spawn(job).await.map_err(refuse)?;
    let ended = reaper::register_exec(server, spawned.pid, &request.container);
    drop(in_flight);
    reaper::reap_deferred(server);
    Ok(Running { _slot: slot, pid: spawned.pid, ended, input: Some(input), outputs, terminal: request.tty })
}

type Ours = io::Result<(AsyncFd<OwnedFd>, Vec<(u8, AsyncFd<OwnedFd>)>)>;
type Streams = ([Stdio; 3], Vec<Arc<OwnedFd>>, Ours);

fn watch(fd: OwnedFd, interest: Interest) -> io::Result<AsyncFd<OwnedFd>> {
    rustix::io::ioctl_fionbio(&fd, true)?;
    sys::watch(fd, interest)
}

fn pipes() -> io::Result<Streams> {
    let (in_theirs, in_ours) = pipe_with(PipeFlags::CLOEXEC)?;
    let (out_ours, out_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let (err_ours, err_theirs) = pipe_with(PipeFlags::CLOEXEC)?;
    let stdio = [&in_theirs, &out_theirs, &err_theirs].map(|fd| Stdio::Fd(fd.as_raw_fd()));
    let theirs = [in_theirs, out_theirs, err_theirs].map(Arc::new).into();
    let ours = (|| {
        let outputs = vec![
            (kind::STDOUT, watch(out_ours, Interest::READABLE)?),
            (kind::STDERR, watch(err_ours, Interest::READABLE)?),
        ];
        Ok((watch(in_ours, Interest::WRITABLE)?, outputs))
    })();
    Ok((stdio, theirs, ours))
}

fn terminal(rows: u16, cols: u16) -> io::Result<Streams> {
    let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    grantpt(&master)?;
    unlockpt(&master)?;
    resize(&master, rows, cols);
    let name = rustix::pty::ptsname(&master, Vec::new())?;
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
    let slave = rustix::fs::open(name.as_c_str(), flags, Mode::empty())?;
    let stdio = [0; 3].map(|_| Stdio::Fd(slave.as_raw_fd()));
    let ours = (|| {
        let input = watch(master.try_clone()?, Interest::WRITABLE)?;
        Ok((input, vec![(kind::STDOUT, watch(master, Interest::READABLE)?)]))
    })();
    Ok((stdio, vec![Arc::new(slave)], ours))
}

fn resize(terminal: &OwnedFd, rows: u16, cols: u16) {
    if rows > 0 && cols > 0 {
        // The command sees its old size when this fails, which harms nothing.
        let _ = tcsetwinsize(terminal, Winsize { ws_row: rows, ws_col: cols, ws_xpixel: 0, ws_ypixel: 0 });
    }
}

/// Carries both directions until the command ended. An error means that the peer is gone.
async fn carry(mut running: Running, reader: OwnedReadHalf, writer: OwnedWriteHalf, buf: FrameBuf) -> io::Result<()> {
    let writer = tokio::sync::Mutex::new(writer);
    let outputs = std::mem::take(&mut running.outputs);
    let input = running.input.take();
    let pumps = async {
        let mut outputs = outputs.iter().map(|(kind, fd)| Box::pin(output(*kind, fd, &writer))).collect::<Vec<_>>();
        // One or two, side by side.
        match (outputs.pop(), outputs.pop()) {
            (Some(one), Some(other)) => tokio::try_join!(one, other).map(|_| ()),
            (Some(one), None) => one.await,
            _ => Ok(()),
        }
    };
    tokio::pin!(pumps);
    let inputs = inputs(input, running.terminal, reader, buf);
    tokio::pin!(inputs);
    let mut drained = false;
    let status = loop {
        tokio::select! {
            status = &mut running.ended => break status.unwrap_or(ExitStatus::Unknown),
            result = &mut pumps, if !drained => {
                result?;
                drained = true;
            }
            result = &mut inputs => return result,
        }
    };
    if !drained {
        // Children of the command may hold its output open for ever; then this is where it ends.
        if let Ok(result) = timeout(LAST_OUTPUT, pumps).await {
            result?;
        }
    }
    let mut out = Vec::new();
    let status = serde_json::to_vec(&status).unwrap_or_default();
    push_stream(&mut out, kind::EXIT, &status);
    writer.lock().await.write_all(&out).await
}

/// From the command to the peer, until the command closes it.
async fn output(kind: u8, fd: &AsyncFd<OwnedFd>, writer: &tokio::sync::Mutex<OwnedWriteHalf>) -> io::Result<()> {
    let mut buf = vec![0; 16 * 1024];
    loop {
        let mut ready = fd.readable().await?;
        let read = match rustix::io::read(fd.get_ref(), &mut buf) {
            // A terminal whose other end is closed says EIO.
            Ok(0) | Err(Errno::IO) => return Ok(()),
            Ok(length) => length,
            Err(Errno::AGAIN) => {
                ready.clear_ready();
                continue;
            }
            Err(Errno::INTR) => continue,
            Err(_) => return Ok(()),
        };
        let mut out = Vec::with_capacity(read + 5);
        push_stream(&mut out, kind, &buf[..read]);
        writer.lock().await.write_all(&out).await?;
    }
}

/// From the peer to the command; ends, with an error, only when the peer is gone.
async fn inputs(
    mut input: Option<AsyncFd<OwnedFd>>,
    terminal: bool,
    mut reader: OwnedReadHalf,
    mut buf: FrameBuf,
) -> io::Result<()> {
    loop {
        while let Some((frame, body)) = buf.next_stream()? {
            match (frame, &input) {
                (kind::STDIN, Some(fd)) if write(fd, body).await.is_err() => {
                    // The command closed its input; the rest goes nowhere, as in a shell.
                    input = None;
                }
                (kind::RESIZE, Some(fd)) if terminal => {
                    if let [a, b, c, d] = *body {
                        resize(fd.get_ref(), u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]));
                    }
                }
                // Control-D is how a terminal's input ends.
                (kind::CLOSE_STDIN, Some(fd)) if terminal => _ = write(fd, &[4]).await,
                (kind::CLOSE_STDIN, Some(_)) => input = None,
                _ => {}
            }
        }
        if reader.read_buf(buf.spare()).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

async fn write(fd: &AsyncFd<OwnedFd>, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let mut ready = fd.writable().await?;
        match rustix::io::write(fd.get_ref(), bytes) {
            Ok(length) => bytes = &bytes[length..],
            Err(Errno::AGAIN) => ready.clear_ready(),
            Err(Errno::INTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(())
}
