//! A small network of hosts of its own, whose lines can fail.
//!
//! Start at [`Net::new`]. Each [`Host`] is a network namespace with one interface, `eth0`, on a line to a switch, which
//! is a bridge in one more namespace; the Manager is host 0. No namespace leads anywhere else, so that nothing of the
//! machine's own network is touched, and every host has loopback ports of its own.
//!
//! Faults are made at the switch's end of a line, and add up until [`Net::heal`]:
//!
//! | | the host's link | packets to it | packets from it |
//! | --- | --- | --- | --- |
//! | [`Net::cut`] | without carrier, as a pulled cable | vanish | vanish |
//! | [`Net::drop_silently`] | up | vanish | vanish |
//! | [`Net::deaf`] | up | vanish | arrive |
//! | [`Net::mute`] | up | arrive | vanish |
//! | [`Net::loss`] | up | some vanish | some vanish |
//! | [`Net::delay`] | up | are late | arrive |
//!
//! Hosts know each other's hardware addresses from the beginning. Otherwise a line that fails would be told to programs
//! within seconds (`EHOSTUNREACH`, of ARP), which does not happen where a router lies between.
//!
//! Everything goes when a [`Net`] is dropped, what still runs in it included. What a killed test run has left is removed
//! by the next [`Net::new`]. All hosts share one clock, one disk and one table of processes.

mod fault;
mod space;

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use std::{io, process};

use self::fault::{Fault, NOWHERE};
use self::space::Space;
pub use self::space::{names, own_prefix};
use crate::process::Process;

/// How many networks can be there at once, on one machine.
const SUBNETS: u32 = 1 << 12;

/// Most hosts of a network, the Manager's not counted.
const MOST: usize = 200;

/// A network. See the [module](self).
#[derive(Debug)]
pub struct Net {
    /// Before the switch, so that what runs on hosts has ended when their lines go.
    hosts: Vec<Host>,
    switch: Space,
    faults: Mutex<Vec<Fault>>,
    prefix: String,
    _subnet: Subnet,
}

impl Net {
    /// The host that the Manager is meant for.
    pub const MANAGER: usize = 0;

    /// Makes the Manager's host and `hosts` more, numbered from 1, which all reach one another.
    ///
    /// # Errors
    /// When this machine cannot do that, with what it lacks. Tests say so first, with
    /// `xtask::skip_if!(NoNetworkNamespaces)`.
    pub fn new(hosts: usize) -> io::Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        assert!(hosts <= MOST, "a network has at most {MOST} hosts");
        let enter = xtask::condition::find_program("nsenter")
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "there is no nsenter (Debian: util-linux)"))?;
        space::sweep();
        let subnet = Subnet::take()?;
        let prefix = format!("{}{}-", own_prefix(), MADE.fetch_add(1, Ordering::Relaxed));
        let switch = Space::make(format!("{prefix}switch"))?;
        // It does not ask its ports who wants multicast, and no port waits before it takes part.
        switch.ip(&format!(
            "link add switch type bridge forward_delay 0 mcast_snooping 0\nlink set switch up\n\
             link add {NOWHERE} type veth peer name end\nlink set {NOWHERE} up\nlink set end up\n"
        ))?;
        let make = |number: usize| {
            let name = if number == Self::MANAGER { "manager".to_owned() } else { format!("host-{number}") };
            let space = Space::make(format!("{prefix}{name}"))?;
            Ok(Host { name, address: subnet.address(number), space, enter: enter.clone() })
        };
        let hosts = (0..=hosts).map(make).collect::<io::Result<Vec<_>>>()?;
        let faults = Mutex::new(vec![Fault::default(); hosts.len()]);
        let net = Self { hosts, switch, faults, prefix, _subnet: subnet };
        net.lay_lines()?;
        Ok(net)
    }

    /// A host: [`Net::MANAGER`], or a number from 1.
    #[track_caller]
    pub fn host(&self, number: usize) -> &Host {
        self.hosts.get(number).unwrap_or_else(|| panic!("there is no host {number}"))
    }

    /// All hosts, the Manager's first.
    pub fn hosts(&self) -> &[Host] {
        &self.hosts
    }

    /// What the names of this network's namespaces begin with.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// Pulls the cable of a host: its link has no carrier. Nobody is told by a packet.
    #[track_caller]
    pub fn cut(&self, host: usize) {
        self.change(host, |fault| fault.cut = true);
    }

    /// Ends whatever is wrong with the line of a host.
    #[track_caller]
    pub fn heal(&self, host: usize) {
        self.change(host, |fault| *fault = Fault::default());
    }

    /// Lets packets from and to a host vanish, while its link looks well.
    #[track_caller]
    pub fn drop_silently(&self, host: usize, on: bool) {
        self.change(host, |fault| fault.silent = on);
    }

    /// Lets packets to a host vanish. It can still send.
    #[track_caller]
    pub fn deaf(&self, host: usize, on: bool) {
        self.change(host, |fault| fault.deaf = on);
    }

    /// Lets packets from a host vanish. It still hears.
    #[track_caller]
    pub fn mute(&self, host: usize, on: bool) {
        self.change(host, |fault| fault.mute = on);
    }

    /// Lets so many of a hundred packets vanish at random, in each direction.
    #[track_caller]
    pub fn loss(&self, host: usize, percent: u8) {
        assert!(percent <= 100, "of a hundred packets at most a hundred are lost");
        self.change(host, |fault| fault.loss = percent);
    }

    /// Lets packets to a host arrive that much later, so that an answer is as much later, too.
    ///
    /// A kernel may lack what it takes: tests that call this say `xtask::skip_if!(NoNetem)` first.
    #[track_caller]
    pub fn delay(&self, host: usize, delay: Duration) {
        self.change(host, |fault| fault.delay = delay);
    }

    /// Everything that runs on a host.
    pub fn processes(&self) -> Vec<Process> {
        self.hosts.iter().flat_map(Host::processes).collect()
    }

    /// Connects every host with the switch, and tells each about all others.
    fn lay_lines(&self) -> io::Result<()> {
        let mut ports = String::new();
        let mut control = String::new();
        for (number, host) in self.hosts.iter().enumerate() {
            let (port, space, hardware) = (port(number), host.space.name(), host.hardware());
            // Writing to a String cannot fail.
            let _ = write!(
                ports,
                "link add {port} type veth peer name eth0 address {hardware} netns {space}\n\
                 link set {port} master switch up\n"
            );
            let _ = writeln!(control, "qdisc add dev {port} clsact");
        }
        self.switch.ip(&ports)?;
        self.switch.tc(&control)?;
        for host in &self.hosts {
            let mut lines = format!("addr add {}/24 dev eth0\nlink set eth0 up\n", host.address);
            for other in self.hosts.iter().filter(|other| other.address != host.address) {
                let (address, hardware) = (other.address, other.hardware());
                let _ = writeln!(lines, "neigh add {address} lladdr {hardware} dev eth0 nud permanent");
            }
            host.space.ip(&lines)?;
        }
        Ok(())
    }

    /// Changes what is wrong with a line.
    #[track_caller]
    fn change(&self, host: usize, change: impl FnOnce(&mut Fault)) {
        let result = {
            let mut faults = self.faults.lock().expect("no holder of this lock panics");
            faults.get_mut(host).map(|fault| {
                let before = *fault;
                change(fault);
                self.apply(host, before, *fault)
            })
        };
        match result {
            Some(Ok(())) => {}
            Some(Err(error)) => panic!("cannot change the line of host {host}: {error}"),
            None => panic!("there is no host {host}"),
        }
    }

    fn apply(&self, host: usize, before: Fault, now: Fault) -> io::Result<()> {
        let port = port(host);
        let lines = now.lines(before, &port);
        if !lines.is_empty() {
            self.switch.tc(&lines)?;
        }
        if now.cut != before.cut {
            let state = if now.cut { "down" } else { "up" };
            self.switch.ip(&format!("link set {port} {state}\n"))?;
        }
        Ok(())
    }
}

/// The switch's end of a host's line.
fn port(number: usize) -> String {
    format!("port{number}")
}

/// A host of a [`Net`].
#[derive(Debug)]
pub struct Host {
    name: String,
    address: Ipv4Addr,
    space: Space,
    enter: PathBuf,
}

impl Host {
    /// `manager`, `host-1`, `host-2` and so on.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address on `eth0`.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// A command that runs on it, not started yet. The process id of the child is the program's own.
    ///
    /// It goes through `nsenter` and not `ip netns exec`, which would also give the program a `/sys` of its own, without
    /// the cgroups. So `/sys/class/net` shows the links of the machine; `ip link` shows those of the host.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut net = std::ffi::OsString::from("--net=");
        net.push(self.space.path());
        let mut command = Command::new(&self.enter);
        command.arg(net).arg("--").arg(program);
        command
    }

    /// Does something on this host: what it opens, and every process and thread that it starts, is there and stays there.
    ///
    /// Only this thread goes. Threads that were there before, those of a runtime for example, stay where they are.
    ///
    /// # Panics
    /// When the host cannot be entered.
    #[track_caller]
    pub fn within<T>(&self, act: impl FnOnce() -> T) -> T {
        let _inside = self.space.enter().unwrap_or_else(|error| panic!("cannot enter {}: {error}", self.name));
        act()
    }

    /// What runs on it, this process left out.
    pub fn processes(&self) -> Vec<Process> {
        self.space.processes()
    }

    /// The hardware address of `eth0`: one of those that are free for use, with the address in it.
    fn hardware(&self) -> String {
        let [a, b, c, d] = self.address.octets();
        format!("02:00:{a:02x}:{b:02x}:{c:02x}:{d:02x}")
    }
}

/// 256 addresses that no other network of tests on this machine has, so that what a log says of an address is plain.
///
/// An abstract socket holds them; it goes with the process whatever happens.
#[derive(Debug)]
struct Subnet {
    first: u32,
    _held: UnixListener,
}

impl Subnet {
    fn take() -> io::Result<Self> {
        let base = u32::from(Ipv4Addr::new(10, 64, 0, 0));
        // Tests that start at once begin to look in different places.
        let start = process::id() % SUBNETS;
        for number in 0..SUBNETS {
            let first = base + (start + number) % SUBNETS * 256;
            let name = SocketAddr::from_abstract_name(format!("cocktail-tests-subnet-{}", Ipv4Addr::from(first)))?;
            if let Ok(held) = UnixListener::bind_addr(&name) {
                return Ok(Self { first, _held: held });
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "all subnets for tests are taken"))
    }

    /// The address of a host.
    fn address(&self, number: usize) -> Ipv4Addr {
        let number = u32::try_from(number).expect("a network has few hosts");
        Ipv4Addr::from(self.first + 1 + number)
    }
}
