//! Files of a command that come from a URL: another host has them, and nobody believes it.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use cocktail_tests::Net;

use super::rack::{Rack, WITNESS};

/// Answers every request with an archive over HTTP, on the Manager's host, until the test ends.
struct Shop {
    url: String,
    asked: Arc<AtomicUsize>,
}

impl Shop {
    fn open(rack: &Rack, archive: Vec<u8>) -> Self {
        let host = rack.net.host(Net::MANAGER);
        let listener = host.within(|| TcpListener::bind((host.address(), 0)).unwrap());
        let url = format!("http://{}/dist.tar.gz", listener.local_addr().unwrap());
        let asked = Arc::new(AtomicUsize::new(0));
        let count = asked.clone();
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let mut reader = BufReader::new(stream);
                let mut line = String::new();
                // Up to the empty line.
                while reader.read_line(&mut line).is_ok_and(|length| length > 2) {
                    line.clear();
                }
                count.fetch_add(1, Ordering::Relaxed);
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n", archive.len());
                // Who asks may have gone.
                let _ = reader.get_mut().write_all(&[head.as_bytes(), &archive].concat());
            }
        });
        Self { url, asked }
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Every path below a folder.
fn below(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().unwrap().is_dir() {
            found.extend(below(&entry.path()));
        }
    }
    found
}

fn sha256(file: &Path) -> String {
    let sum = Command::new("sha256sum").arg(file).output().unwrap();
    String::from_utf8(sum.stdout).unwrap().split(' ').next().unwrap().to_owned()
}

#[test]
fn a_unit_runs_what_a_url_leads_to_and_nothing_that_is_not_what_it_should_be() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(1);
    let (testimony, root) = (rack.testimony(), rack.home.root());
    rack.home.write("dist/bin/serve.sh", format!("exec {WITNESS} {}", testimony.display()));
    rack.home.write("evil/escaped", "no");
    let tar = |args: &[&str]| assert!(Command::new("tar").args(args).current_dir(&root).status().unwrap().success());
    tar(&["-czf", "dist.tar.gz", "-C", "dist", "."]);
    // An archive that names a file above its folder.
    tar(&["-czf", "evil.tar.gz", "--transform", "s,^,../../../../,", "-P", "-C", "evil", "escaped"]);
    let good = Shop::open(&rack, fs::read(root.join("dist.tar.gz")).unwrap());
    let evil = Shop::open(&rack, fs::read(root.join("evil.tar.gz")).unwrap());
    fs::remove_dir_all(root.join("evil")).unwrap();
    let unit = |name: &str, shop: &Shop, sha256: &str, replicas: usize| {
        format!(
            "[maps.prod.units.{name}]\ncommand = [\"sh\", \"bin/serve.sh\"]\nreplicas = {replicas}\n\
             artifact = {{ url = \"{}\", sha256 = \"{sha256}\" }}\nenv = {{ ADDRESS = \"0.0.0.0\" }}\nports.http = {{}}\n\
             ready = {{ http = \"/\", every = \"200ms\" }}\nrestart = {{ base = \"100ms\", max = \"1s\" }}\n",
            shop.url
        )
    };
    let right = sha256(&root.join("dist.tar.gz"));
    rack.home.write("m.toml", format!("service = \"shop\"\n{}", unit("witness", &good, &right, 3)));
    rack.home.ok(&["apply", "--wait", "m.toml"]);
    assert_eq!(rack.ready(), [3]);
    assert_eq!(good.asked(), 1, "a server fetches it once for all");
    let artifacts = rack.agent_dir(1).join("artifacts");
    let before = below(&artifacts);
    // What comes is another one than was named, and one that would write elsewhere.
    let wrong = "5e".repeat(32);
    let others = [unit("wrong", &good, &wrong, 1), unit("evil", &evil, &sha256(&root.join("evil.tar.gz")), 1)];
    rack.home.write("m.toml", format!("service = \"shop\"\n{}{}", unit("witness", &good, &right, 3), others.concat()));
    rack.home.ok(&["apply", "m.toml"]);
    for (name, because) in [("wrong", "should begin with 5e5e5e5e5e5e"), ("evil", "has `..` in its path")] {
        rack.home.eventually("`why` says it", || rack.home.why(name).iter().any(|line| line.contains(because)));
        let inspect = || rack.home.ok(&["inspect", name]).stdout;
        // While it is tried again it is starting.
        rack.home.eventually("`inspect` says it", || inspect().contains(because));
        assert_eq!(rack.home.pids(name).len(), 0, "it does not run");
    }
    assert!(good.asked() > 1 && evil.asked() > 0);
    // Nothing of them is left, neither where it belongs nor elsewhere.
    rack.home.eventually("nothing half done is left", || below(&artifacts) == before);
    let escaped: Vec<_> = below(rack.home.base()).into_iter().filter(|path| path.ends_with("escaped")).collect();
    assert!(escaped.is_empty(), "{escaped:?}");
    assert_eq!(rack.ready(), [3], "what served before serves");
    rack.finish(3);
}
