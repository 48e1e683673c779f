//! Engines that are reached by ssh, and over TCP with TLS.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use bytes::Bytes;
use cocktail_core::contract::{ExecInput, ExecOutput, ExecSpec, Exit, LogOptions};
use cocktail_core::error::ErrorKind;
use cocktail_provider_docker::EngineTls;
use futures_util::{SinkExt, StreamExt};
use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use tempfile::TempDir;

use crate::machine::{self, Machine, kill};

machine::trials![
    an_engine_behind_ssh_does_everything_that_a_local_one_does,
    an_engine_whose_host_wants_another_key_is_said_to,
    an_engine_over_tls_takes_whom_its_authority_names_and_nobody_else,
];

/// The variable that says where the configuration of ssh is.
pub(crate) const FOLDER: &str = "CKT_SSH";

/// A server for ssh on the loopback of the tests, which takes one key.
struct Server {
    folder: PathBuf,
    port: u16,
    child: Child,
}

impl Server {
    fn start() -> Self {
        let folder = PathBuf::from(std::env::var_os(FOLDER).unwrap());
        let _old = fs::remove_dir_all(&folder);
        fs::create_dir_all(&folder).unwrap();
        // The folder of its own that it changes into; its package makes it with the service.
        fs::create_dir_all("/run/sshd").unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for key in ["host", "ours", "other"] {
            let file = folder.join(key);
            let made = Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(file).status();
            assert!(made.unwrap().success());
        }
        let at = |name: &str| folder.join(name).display().to_string();
        let server = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\n\
             PidFile none\nPasswordAuthentication no\nPermitRootLogin prohibit-password\n",
            at("host"),
            at("ours.pub")
        );
        fs::write(folder.join("server"), server).unwrap();
        let known = fs::read_to_string(folder.join("host.pub")).unwrap();
        fs::write(folder.join("known"), format!("[127.0.0.1]:{port} {known}")).unwrap();
        let mut command = Command::new("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(folder.join("server")).stdin(Stdio::null());
        let log = fs::File::create(folder.join("log")).unwrap();
        let child = command.stderr(log).spawn().unwrap();
        let server = Self { folder, port, child };
        server.client_has("ours");
        while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        server
    }

    /// Which key our side has.
    fn client_has(&self, key: &str) {
        let at = |name: &str| self.folder.join(name).display().to_string();
        let text = format!(
            "UserKnownHostsFile {}\nIdentityFile {}\nIdentitiesOnly yes\nStrictHostKeyChecking yes\n",
            at("known"),
            at(key)
        );
        fs::write(self.folder.join("client"), text).unwrap();
    }

    fn url(&self, socket: &Path) -> String {
        format!("ssh://root@127.0.0.1:{}{}", self.port, socket.display())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ended = self.child.kill();
        let _ended = self.child.wait();
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

async fn an_engine_behind_ssh_does_everything_that_a_local_one_does(machine: &mut Machine) {
    let server = Server::start();
    machine.url = Some(server.url(&machine.engine.socket()));
    machine.attach(&[]).await;
    machine.run(&machine.launch("ends", "echo said; exit 5")).await;
    assert_eq!(machine.exited("ends").await, Exit::Code(5));
    let launch = machine.launch("stays", "echo said; exec sleep 600");
    machine.run(&launch).await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = machine.runtime().logs(&launch.container, &options).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().text, "said");
    let spec = ExecSpec { command: vec!["cat".into()], tty: None, timeout: None };
    let mut session = machine.runtime().exec(&launch.container, &spec).await.unwrap();
    session.input.send(ExecInput::Stdin(Bytes::from_static(b"over ssh"))).await.unwrap();
    assert!(matches!(session.output.next().await, Some(Ok(ExecOutput::Stdout(said))) if said == "over ssh"));
    session.input.send(ExecInput::Eof).await.unwrap();
    assert!(matches!(session.output.next().await, Some(Ok(ExecOutput::Exit(Exit::Code(0))))));
    machine.runtime().stop(&kill("stays")).await.unwrap();
    for name in ["stays", "ends"] {
        machine.runtime().remove(&machine.launch(name, "").container).await.unwrap();
    }
    machine.url = None;
    machine.attach(&[]).await;
}

async fn an_engine_whose_host_wants_another_key_is_said_to(machine: &mut Machine) {
    let server = Server::start();
    server.client_has("other");
    machine.url = Some(server.url(&machine.engine.socket()));
    machine.attach(&[]).await;
    let error = machine.runtime().list().await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.chain().contains("Permission denied (publickey"), "{}", error.chain());
    machine.url = None;
    machine.attach(&[]).await;
}

/// An authority, and a certificate of it for each end.
struct Authority {
    folder: TempDir,
}

impl Authority {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let key = KeyPair::generate().unwrap();
        let mut authority = CertificateParams::new(Vec::new()).unwrap();
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let certificate = authority.self_signed(&key).unwrap();
        fs::write(folder.path().join("ca"), certificate.pem()).unwrap();
        let issuer = Issuer::new(authority, key);
        for (end, purpose) in
            [("engine", ExtendedKeyUsagePurpose::ServerAuth), ("ours", ExtendedKeyUsagePurpose::ClientAuth)]
        {
            let key = KeyPair::generate().unwrap();
            let mut named = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
            named.extended_key_usages = vec![purpose];
            let signed = named.signed_by(&key, &issuer).unwrap();
            fs::write(folder.path().join(end), signed.pem()).unwrap();
            fs::write(folder.path().join(format!("{end}.key")), key.serialize_pem()).unwrap();
        }
        Self { folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// What we show, and whom we trust.
    fn tls(&self) -> EngineTls {
        EngineTls { ca: self.file("ca"), cert: self.file("ours"), key: self.file("ours.key") }
    }
}

async fn an_engine_over_tls_takes_whom_its_authority_names_and_nobody_else(machine: &mut Machine) {
    let (ours, other) = (Authority::new(), Authority::new());
    let port = crate::starts::free_port();
    let mut arguments = vec!["--tlsverify".to_owned(), format!("--host=tcp://127.0.0.1:{port}")];
    for (option, name) in [("tlscacert", "ca"), ("tlscert", "engine"), ("tlskey", "engine.key")] {
        arguments.push(format!("--{option}={}", ours.file(name).display()));
    }
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    machine.engine.crash().unwrap();
    machine.engine.start_again(&arguments).unwrap();
    machine.url = Some(format!("tcp://127.0.0.1:{port}"));

    machine.tls = Some(ours.tls());
    machine.attach(&[]).await;
    let launch = machine.launch("a", "echo said; exec sleep 600");
    machine.run(&launch).await;
    let options = LogOptions { follow: true, ..LogOptions::default() };
    let mut lines = machine.runtime().logs(&launch.container, &options).await.unwrap();
    assert_eq!(lines.next().await.unwrap().unwrap().text, "said");
    machine.runtime().stop(&kill("a")).await.unwrap();
    machine.runtime().remove(&launch.container).await.unwrap();

    for (tls, says) in [
        (EngineTls { ca: other.file("ca"), ..ours.tls() }, "invalid peer certificate"),
        (EngineTls { ca: ours.file("ca"), ..other.tls() }, "alert"),
    ] {
        machine.tls = Some(tls);
        machine.attach(&[]).await;
        let error = machine.runtime().list().await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
        assert!(error.chain().contains(says), "{}", error.chain());
    }

    (machine.url, machine.tls) = (None, None);
    machine.engine.crash().unwrap();
    machine.engine.start_again(&[]).unwrap();
    machine.attach(&[]).await;
}
