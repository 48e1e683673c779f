//! Who may speak to the Manager.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;

use crate::support::Running;

const NOBODY: u32 = 65_534;

/// Reports a test that cannot run, where the run collects such reports.
fn skip(test: &str, reason: &str) {
    if let Some(log) = std::env::var_os("COCKTAIL_SKIP_LOG") {
        let mut log = fs::OpenOptions::new().append(true).create(true).open(log).unwrap();
        writeln!(log, "COCKTAIL-SKIP {test} {reason}").unwrap();
    }
}

/// Runs `act` in a thread of another user. Credentials of a socket are those of the thread that connects.
fn as_nobody<T: Send + 'static>(act: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(move || {
        let nobody = rustix::process::Uid::from_raw(NOBODY);
        rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
        act()
    });
    thread.join().unwrap()
}

#[tokio::test]
async fn another_user_is_refused_by_the_file_and_by_the_api() {
    if !rustix::process::geteuid().is_root() {
        return skip("another_user_is_refused_by_the_file_and_by_the_api", "not-root");
    }
    let api = Running::start().await;
    fs::set_permissions(api.folder.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let socket = api.socket();
    let error =
        tokio::task::spawn_blocking(move || as_nobody(move || UnixStream::connect(socket).unwrap_err())).await.unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::PermissionDenied);

    // Even where somebody has opened the file to all, the credentials of the peer decide.
    let socket = api.socket();
    fs::set_permissions(&socket, fs::Permissions::from_mode(0o666)).unwrap();
    let ask = move || {
        as_nobody(move || {
            let mut stream = UnixStream::connect(socket).unwrap();
            stream.write_all(b"POST /v1/down HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
            let mut answer = String::new();
            stream.read_to_string(&mut answer).unwrap();
            answer
        })
    };
    let answer = tokio::task::spawn_blocking(ask).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
    assert!(answer.contains(r#""kind":"denied""#), "{answer}");
    assert_eq!(api.fake.take_asked(), Vec::<String>::new());
}
