//! The file of the socket.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use cocktail_api::{Api, ApiLimits, Client, serve};
use cocktail_core::contract::Manager;
use cocktail_core::error::ErrorKind;

use crate::support::{Fake, Running};

#[tokio::test]
async fn it_belongs_to_its_user_only_and_goes_with_the_api() {
    let mut api = Running::start().await;
    let mode = fs::metadata(api.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let entries = fs::read_dir(api.folder.path()).unwrap().count();
    assert_eq!(entries, 1);
    api.ask_to_end();
    let folder = api.ended().await;
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[tokio::test]
async fn the_file_of_a_dead_manager_is_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cocktail.sock");
    drop(UnixListener::bind(&socket).unwrap());
    // What a Manager that died in the middle of its start leaves behind.
    drop(UnixListener::bind(folder.path().join("cocktail.sock.new")).unwrap());
    assert_eq!(Client::connect(&socket).await.unwrap_err().kind(), &ErrorKind::Unavailable);
    let api = Api::bind(&socket).await.unwrap();
    Client::connect(api.socket()).await.unwrap();
}

#[tokio::test]
async fn a_manager_that_lives_is_not_replaced() {
    let api = Running::start().await;
    let error = Api::bind(&api.socket()).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Conflict);
    assert_eq!(error.to_string(), format!("a Manager runs already for {}", api.folder.path().display()));
    api.client().await.about().await.unwrap();
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cocktail.sock");
    fs::write(&socket, "precious").unwrap();
    assert_eq!(Api::bind(&socket).await.unwrap_err().kind(), &ErrorKind::Conflict);
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
}

#[tokio::test]
async fn the_file_of_a_successor_is_not_removed() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("cocktail.sock");
    let first = Api::bind(&socket).await.unwrap();
    fs::remove_file(&socket).unwrap();
    let _second = Api::bind(&socket).await.unwrap();
    drop(first);
    Client::connect(&socket).await.unwrap();
}

#[tokio::test]
async fn a_folder_that_does_not_exist_is_an_error_on_both_ends() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("missing/cocktail.sock");
    assert_eq!(Api::bind(&socket).await.unwrap_err().kind(), &ErrorKind::InvalidConfig);
    let error = Client::connect(&socket).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    assert_eq!(error.message(), format!("no Manager runs for {}", folder.path().join("missing").display()));
}

#[tokio::test]
async fn a_path_longer_than_an_address_works() {
    let folder = tempfile::tempdir().unwrap();
    let deep = folder.path().join("a".repeat(120)).join("b".repeat(120));
    fs::create_dir_all(&deep).unwrap();
    let socket = deep.join("cocktail.sock");
    let error = Client::connect(&socket).await.unwrap_err();
    assert_eq!(error.kind(), &ErrorKind::Unavailable);
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let manager: Arc<dyn Manager> = Arc::new(Fake::default());
    let path = socket.clone();
    let running = tokio::spawn(async move {
        serve(manager, &path, ApiLimits::default(), async move {
            let _ = ended.await;
        })
        .await
    });
    while !socket.exists() {
        tokio::task::yield_now().await;
    }
    Client::connect(&socket).await.unwrap().about().await.unwrap();
    end.send(()).unwrap();
    running.await.unwrap().unwrap();
    assert!(!socket.exists());
}
