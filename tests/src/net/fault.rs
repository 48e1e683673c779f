//! What can be wrong with the line of a host, and how the kernel is told.
//!
//! A [`Fault`] is a value. [`Fault::lines`] are the lines of `tc` that make it so, at the switch's end of the line: the
//! host itself sees nothing of it, neither a refused send nor a link that is down.
//!
//! Packets vanish through a filter of classic BPF that draws a random number for each, and a redirection of what it
//! matches to a line without an end. The kernel's own means for loss, netem, is a module that not every kernel has;
//! this needs `cls_bpf` and `act_mirred`, and a delay cannot be had without netem.

use std::fmt::Write as _;
use std::time::Duration;

/// The line that leads nowhere: its other end has no address and is nobody's.
pub(super) const NOWHERE: &str = "nowhere";

/// What is wrong with a line, as seen from its host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Fault {
    pub(super) cut: bool,
    pub(super) silent: bool,
    pub(super) deaf: bool,
    pub(super) mute: bool,
    /// Of a hundred packets, in each direction.
    pub(super) loss: u8,
    pub(super) delay: Duration,
}

impl Fault {
    /// Lost packets of a hundred on the way to the host.
    fn unheard(self) -> u8 {
        if self.silent || self.deaf { 100 } else { self.loss }
    }

    /// Lost packets of a hundred on the way from the host.
    fn unsaid(self) -> u8 {
        if self.silent || self.mute { 100 } else { self.loss }
    }

    /// The lines of `tc` that turn `before` into this for a port of the switch. Each of them must succeed.
    pub(super) fn lines(self, before: Self, port: &str) -> String {
        let mut text = String::new();
        // What leaves the switch is on its way to the host.
        for (way, was, is) in
            [("egress", before.unheard(), self.unheard()), ("ingress", before.unsaid(), self.unsaid())]
        {
            let filter = format!("dev {port} {way} protocol all pref 1 handle 1 bpf");
            let (verb, rest) = match (was, is) {
                (was, is) if was == is => continue,
                (_, 0) => ("delete", String::new()),
                (0, _) => ("add", losing(is)),
                _ => ("replace", losing(is)),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "filter {verb} {filter}{rest}");
        }
        if self.delay != before.delay {
            let _ = match self.delay {
                Duration::ZERO => writeln!(text, "qdisc delete dev {port} root"),
                delay => writeln!(text, "qdisc replace dev {port} root netem delay {}us", delay.as_micros()),
            };
        }
        text
    }
}

/// A filter that matches `percent` of all packets, and what becomes of those.
///
/// The program, an instruction of four numbers each: load a random word; if it is greater or equal, leave out one
/// instruction; match; do not match.
fn losing(percent: u8) -> String {
    const RANDOM: u32 = 0xffff_f000 + 56;
    let bound = u32::try_from(u64::from(percent) * (1 << 32) / 100).unwrap_or(u32::MAX);
    let program = match percent {
        100.. => format!("1,6 0 0 {}", u32::MAX),
        _ => format!("4,32 0 0 {RANDOM},53 1 0 {bound},6 0 0 {},6 0 0 0", u32::MAX),
    };
    format!(" bytecode \"{program}\" action mirred egress redirect dev {NOWHERE}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_changes_is_told() {
        let (well, deaf) = (Fault::default(), Fault { deaf: true, ..Fault::default() });
        let silent = Fault { silent: true, ..deaf };
        assert_eq!(well.lines(well, "p1"), "");
        assert!(deaf.lines(well, "p1").starts_with("filter add dev p1 egress "));
        // It was deaf already.
        assert!(silent.lines(deaf, "p1").starts_with("filter add dev p1 ingress "));
        assert_eq!(silent.lines(deaf, "p1").lines().count(), 1);
        assert_eq!(well.lines(silent, "p1").matches("filter delete dev p1 ").count(), 2);
        let lossy = Fault { loss: 10, ..Fault::default() };
        assert_eq!(lossy.lines(silent, "p1").matches("filter replace dev p1 ").count(), 2);
    }

    #[test]
    fn a_delay_is_netem_s() {
        let (well, slow) = (Fault::default(), Fault { delay: Duration::from_millis(3), ..Fault::default() });
        assert_eq!(slow.lines(well, "p2"), "qdisc replace dev p2 root netem delay 3000us\n");
        assert_eq!(well.lines(slow, "p2"), "qdisc delete dev p2 root\n");
    }
}
