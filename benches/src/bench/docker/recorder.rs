//! A way to the engine's socket that remembers which containers were asked for.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use anyhow::{Context as _, Result};

/// What a request to create a container begins with, after the version of the API.
const CREATE: &str = "/containers/create?";

#[derive(Debug, Clone)]
pub(super) struct Recorder {
    path: PathBuf,
    bodies: Arc<Mutex<Vec<String>>>,
}

impl Recorder {
    pub(super) fn start(path: &Path, engine: &Path) -> Result<Self> {
        let listener = UnixListener::bind(path).with_context(|| format!("cannot listen at {}", path.display()))?;
        let recorder = Self { path: path.to_owned(), bodies: Arc::default() };
        let (bodies, engine) = (recorder.bodies.clone(), engine.to_owned());
        thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let (bodies, engine) = (bodies.clone(), engine.clone());
                thread::spawn(move || {
                    let Ok(far) = UnixStream::connect(engine) else { return };
                    let (Ok(near_out), Ok(far_in)) = (near.try_clone(), far.try_clone()) else { return };
                    thread::spawn(move || copy(far, near_out, |_| {}));
                    let mut said = Vec::new();
                    copy(near, far_in, |bytes| said.extend_from_slice(bytes));
                    let found = creations(&said);
                    bodies.lock().unwrap_or_else(PoisonError::into_inner).extend(found);
                });
            }
        });
        Ok(recorder)
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn clear(&self) {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// The bodies of what was asked for, as far as its connections have ended.
    pub(super) fn bodies(&self) -> Vec<String> {
        self.bodies.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream, mut seen: impl FnMut(&[u8])) {
    let mut buffer = [0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer) {
        seen(&buffer[..read]);
        if to.write_all(&buffer[..read]).is_err() {
            break;
        }
    }
    // The other side may have gone already.
    let _gone = to.shutdown(Shutdown::Write);
}

/// The bodies of requests that create containers, in what a client said on one connection.
fn creations(said: &[u8]) -> Vec<String> {
    let (mut rest, mut found) = (said, Vec::new());
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 32];
        let mut request = httparse::Request::new(&mut headers);
        let Ok(httparse::Status::Complete(head)) = request.parse(rest) else { return found };
        let length = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case("content-length"));
        let length = length.and_then(|header| std::str::from_utf8(header.value).ok()?.trim().parse().ok()).unwrap_or(0);
        let Some(body) = rest.get(head..head + length) else { return found };
        if request.path.is_some_and(|path| path.contains(CREATE)) {
            found.push(String::from_utf8_lossy(body).into_owned());
        }
        rest = &rest[head + length..];
    }
}
