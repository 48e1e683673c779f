//! Networks of hosts, judged by what sockets on them see.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::unix::process::ExitStatusExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use cocktail_tests::program::end_of;
use cocktail_tests::{Host, Net, Process, net};
use rustix::process::Signal;

/// Far longer than a packet needs between two hosts.
const LONG: Duration = Duration::from_secs(1);

/// Longest that anything may take. TCP waits longer and longer before it sends again.
const PATIENCE: Duration = Duration::from_secs(60);

/// A connection from one host to another, both ends of it.
fn connected(from: &Host, to: &Host) -> (TcpStream, TcpStream) {
    let listener = to.within(|| TcpListener::bind((to.address(), 0))).unwrap();
    let near = connect(from, listener.local_addr().unwrap()).unwrap();
    let (far, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), from.address());
    (near, far)
}

fn connect(from: &Host, to: SocketAddr) -> std::io::Result<TcpStream> {
    from.within(|| TcpStream::connect_timeout(&to, LONG))
}

/// Says something at one end of a connection, which must arrive at the other.
fn says(from: &mut TcpStream, to: &mut TcpStream) {
    from.write_all(b"hello").unwrap();
    hears(to);
}

fn hears(to: &mut TcpStream) {
    to.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut text = [0; 5];
    to.read_exact(&mut text).unwrap();
    assert_eq!(&text, b"hello");
}

/// Nothing arrives for a while: no word, no end of stream, no reset.
fn hears_nothing(to: &mut TcpStream) {
    to.set_read_timeout(Some(LONG)).unwrap();
    let result = to.read(&mut [0; 5]);
    assert!(result.as_ref().is_err_and(|error| error.kind() == ErrorKind::WouldBlock), "{result:?}");
}

fn datagrams(host: &Host) -> UdpSocket {
    let socket = host.within(|| UdpSocket::bind((host.address(), 0))).unwrap();
    socket.set_read_timeout(Some(LONG / 4)).unwrap();
    socket
}

/// How many of `count` datagrams arrive.
fn arriving(from: &UdpSocket, to: &UdpSocket, count: u32) -> u32 {
    let address = to.local_addr().unwrap();
    (0..count).for_each(|_| assert_eq!(from.send_to(b"x", address).unwrap(), 1));
    let arrived = std::iter::from_fn(|| to.recv(&mut [0; 9]).ok()).count();
    u32::try_from(arrived).unwrap()
}

/// The network namespace that this thread is in.
fn here() -> PathBuf {
    std::fs::read_link("/proc/thread-self/ns/net").unwrap()
}

/// Whether the link of a host looks well to those on it.
fn has_carrier(host: &Host) -> bool {
    let output = host.command("ip").args(["link", "show", "dev", "eth0"]).output().unwrap();
    String::from_utf8(output.stdout).unwrap().contains("LOWER_UP")
}

#[test]
fn all_hosts_reach_one_another_and_have_loopbacks_of_their_own() {
    xtask::skip_if!(NoNetworkNamespaces);
    let outside = here();
    let net = Net::new(2).unwrap();
    assert_ne!(net.host(1).within(here), outside);
    assert_eq!(here(), outside, "it has come back");
    assert_eq!(net.hosts().iter().map(Host::name).collect::<Vec<_>>(), ["manager", "host-1", "host-2"]);
    for from in net.hosts() {
        for to in net.hosts() {
            let (mut near, mut far) = connected(from, to);
            says(&mut near, &mut far);
            says(&mut far, &mut near);
        }
    }
    // Nobody asks for a hardware address: that would tell programs of a line that fails.
    let known = net.host(1).command("ip").args(["neigh", "show", "dev", "eth0"]).output().unwrap();
    let known = String::from_utf8(known.stdout).unwrap();
    assert_eq!(known.lines().filter(|line| line.contains("PERMANENT")).count(), 2, "{known}");
    let bind = |host: usize| net.host(host).within(|| TcpListener::bind((Ipv4Addr::LOCALHOST, 8080)));
    let held = (bind(Net::MANAGER).unwrap(), bind(1).unwrap());
    assert!(bind(1).is_err(), "it is taken on that host");
    drop(held);
}

#[test]
fn a_cut_line_tells_nobody_and_a_healed_one_goes_on() {
    xtask::skip_if!(NoNetworkNamespaces);
    let net = Net::new(2).unwrap();
    let (manager, host) = (net.host(Net::MANAGER), net.host(1));
    let faults: [(&str, &dyn Fn(), bool); 2] =
        [("cut", &|| net.cut(1), false), ("silent", &|| net.drop_silently(1, true), true)];
    for (name, fail, carrier) in faults {
        let listener = host.within(|| TcpListener::bind((host.address(), 0))).unwrap();
        let (mut near, mut far) = connected(manager, host);
        fail();
        assert_eq!(has_carrier(host), carrier, "{name}");
        near.write_all(b"hello").unwrap();
        hears_nothing(&mut far);
        hears_nothing(&mut near);
        let refused = connect(manager, listener.local_addr().unwrap()).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::TimedOut, "{name}: {refused}");
        let (mut one, mut other) = connected(manager, net.host(2));
        says(&mut one, &mut other);

        net.heal(1);
        assert!(has_carrier(host), "{name}");
        hears(&mut far);
        says(&mut far, &mut near);
        connect(manager, listener.local_addr().unwrap()).unwrap();
    }
}

#[test]
fn one_direction_can_fail_alone() {
    xtask::skip_if!(NoNetworkNamespaces);
    let net = Net::new(2).unwrap();
    let [manager, host, other] = [0, 1, 2].map(|number| datagrams(net.host(number)));
    let both = || (arriving(&manager, &host, 10), arriving(&host, &manager, 10));
    assert_eq!(both(), (10, 10));
    net.deaf(1, true);
    assert_eq!(both(), (0, 10));
    // What was asked for stays, whatever else comes and goes.
    net.drop_silently(1, true);
    assert_eq!(both(), (0, 0));
    net.drop_silently(1, false);
    assert_eq!(both(), (0, 10));
    net.mute(1, true);
    assert_eq!(both(), (0, 0));
    assert_eq!((arriving(&manager, &other, 10), arriving(&other, &manager, 10)), (10, 10), "another host is well");
    net.deaf(1, false);
    assert_eq!(both(), (10, 0));
    net.drop_silently(1, true);
    assert_eq!(both(), (0, 0));
    net.drop_silently(1, false);
    assert_eq!(both(), (10, 0));
    net.cut(1);
    net.heal(1);
    assert_eq!(both(), (10, 10));
}

#[test]
fn some_packets_get_lost() {
    xtask::skip_if!(NoNetworkNamespaces);
    let net = Net::new(1).unwrap();
    let [manager, host] = [0, 1].map(|number| datagrams(net.host(number)));
    net.loss(1, 20);
    // 160 are expected. Chance alone leaves these bounds less than once in 10^12 runs.
    for arrived in [arriving(&manager, &host, 200), arriving(&host, &manager, 200)] {
        assert!((115..=199).contains(&arrived), "{arrived} of 200");
    }
    net.loss(1, 0);
    assert_eq!(arriving(&manager, &host, 50), 50);
}

#[test]
fn packets_can_be_late() {
    xtask::skip_if!(NoNetem);
    let net = Net::new(1).unwrap();
    let (mut near, mut far) = connected(net.host(Net::MANAGER), net.host(1));
    net.delay(1, LONG / 4);
    let begin = Instant::now();
    says(&mut near, &mut far);
    assert!(begin.elapsed() >= LONG / 4, "{:?}", begin.elapsed());
    net.heal(1);
    says(&mut near, &mut far);
}

#[test]
fn a_command_runs_on_its_host_under_its_own_process_id() {
    xtask::skip_if!(NoNetworkNamespaces);
    let net = Net::new(1).unwrap();
    let mut child = net.host(1).command("sleep").arg("1000").spawn().unwrap();
    let eventually = |what: &str, is_so: &dyn Fn(Process) -> bool| {
        let begin = Instant::now();
        while !Process::find(child.id()).is_some_and(is_so) {
            assert!(begin.elapsed() < PATIENCE, "{what}: {:?}", Process::find(child.id()));
            sleep(LONG / 100);
        }
    };
    eventually("it is the program itself", &|process| process.command == "sleep 1000");
    let on = |host: usize| net.host(host).processes().iter().any(|process| process.pid == child.id());
    assert!(on(1) && !on(Net::MANAGER));
    cocktail_tests::process::signal_pid(child.id(), Signal::STOP);
    eventually("it is stopped", &|process| process.state == 'T');
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(net.processes().is_empty());
}

#[test]
fn a_network_goes_with_all_that_runs_on_it_after_a_panic_too() {
    xtask::skip_if!(NoNetworkNamespaces);
    let (outside, mut left) = (here(), None);
    let result = catch_unwind(AssertUnwindSafe(|| {
        let net = Net::new(1).unwrap();
        let names = net::names(net.prefix());
        assert_eq!(names.len(), 3, "two hosts and a switch: {names:?}");
        let child =
            net.host(1).command("sleep").arg("1000").stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        left = Some((net.prefix().to_owned(), child));
        net.host(1).within(|| panic!("on purpose"))
    }));
    assert_eq!(result.unwrap_err().downcast_ref(), Some(&"on purpose"));
    assert_eq!(here(), outside, "this thread has come back");
    let (prefix, mut child) = left.unwrap();
    assert!(net::names(&prefix).is_empty());
    assert_eq!(end_of(&mut child, PATIENCE).unwrap().signal(), Some(Signal::KILL.as_raw()));
}

#[test]
fn what_a_killed_run_has_left_is_removed_and_nothing_else() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut gone = Command::new("true").spawn().unwrap();
    gone.wait().unwrap();
    let add = |prefix: &str| {
        let name = format!("{prefix}999-host-1");
        assert!(Command::new("ip").args(["netns", "add", &name]).status().unwrap().success());
        name
    };
    let dead = add(&net::own_prefix().replacen(&std::process::id().to_string(), &gone.id().to_string(), 1));
    let own = add(&net::own_prefix());
    let mut orphan = Command::new("ip")
        .args(["netns", "exec", &dead, "sleep", "1000"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let begin = Instant::now();
    while Process::find(orphan.id()).is_none_or(|process| process.command != "sleep 1000") {
        assert!(begin.elapsed() < PATIENCE, "it does not start");
        sleep(LONG / 100);
    }

    let net = Net::new(0).unwrap();
    assert!(net::names(&dead).is_empty());
    assert_eq!(end_of(&mut orphan, PATIENCE).unwrap().signal(), Some(Signal::KILL.as_raw()));
    assert_eq!(net::names(&own).len(), 1, "its maker lives");
    assert!(Command::new("ip").args(["netns", "delete", &own]).status().unwrap().success());
    drop(net);
}

#[test]
fn two_networks_know_nothing_of_each_other() {
    xtask::skip_if!(NoNetworkNamespaces);
    let (one, other) = (Net::new(1).unwrap(), Net::new(1).unwrap());
    assert_ne!(one.prefix(), other.prefix());
    assert_ne!(one.host(1).address().octets()[..3], other.host(1).address().octets()[..3]);
    let (host, far) = (one.host(1), other.host(1));
    let listener = far.within(|| TcpListener::bind((far.address(), 0))).unwrap();
    let refused = connect(host, listener.local_addr().unwrap()).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NetworkUnreachable, "there is no way out: {refused}");
    one.cut(1);
    connect(other.host(Net::MANAGER), listener.local_addr().unwrap()).unwrap();
    drop(one);
    connect(other.host(Net::MANAGER), listener.local_addr().unwrap()).unwrap();
}
