//! Verdicts on what was found: pure functions, one for each check.

use cocktail_core::settings::Settings;

use super::facts::{Facts, Limit};
use super::{Check, Verdict};
use crate::output::memory;

/// Longest path of a Unix socket.
const SOCKET_PATH: usize = 107;

/// File systems without locks and synced writes that can be relied on, by the number that statfs gives.
const REMOTE: [(u64, &str); 8] = [
    (0x6969, "NFS"),
    (0xff53_4d42, "CIFS"),
    (0xfe53_4d42, "SMB"),
    (0x517b, "SMB"),
    (0x0102_1997, "9P"),
    (0x00c3_6400, "Ceph"),
    (0x0bd0_0bd0, "Lustre"),
    (0x7375_7245, "Coda"),
];

/// File systems that forget everything at a restart of the machine.
const FORGETFUL: [(u64, &str); 2] = [(0x0102_1994, "tmpfs"), (0x8584_58f6, "ramfs")];

/// All checks, in the order in which they are shown.
pub(super) fn all(facts: &Facts, settings: &Settings) -> Vec<Check> {
    vec![
        kernel(facts),
        cgroups(facts),
        open_files(facts.files),
        processes(facts.processes),
        ports(facts, settings),
        systemd(facts),
        data_dir(facts),
        file_system(facts),
        free_disk(facts),
        manager(facts),
    ]
}

fn check(check: &'static str, status: Verdict, found: impl Into<String>, advice: impl Into<String>) -> Check {
    Check { check, status, found: found.into(), advice: advice.into() }
}

fn kernel(facts: &Facts) -> Check {
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
    let version = (numbers.next().and_then(Result::ok), numbers.next().and_then(Result::ok));
    let found = facts.kernel.as_str();
    match version {
        (Some(major), Some(minor)) if (major, minor) < (5, 9) => {
            check("kernel", Verdict::Fail, found, "cocktail needs Linux 5.9 or newer")
        }
        (Some(major), Some(minor)) if (major, minor) < (6, 15) => {
            let text =
                format!("{found}: after a crash of the keeper, exit codes of that time are unknown (6.15 tells)");
            check("kernel", Verdict::Ok, text, "")
        }
        (Some(_), Some(_)) => check("kernel", Verdict::Ok, found, ""),
        _ => check("kernel", Verdict::Warn, found, "this version cannot be read; cocktail needs Linux 5.9 or newer"),
    }
}

fn cgroups(facts: &Facts) -> Check {
    let Some(controllers) = &facts.controllers else {
        let advice = "`resources` are counted but not enforced: boot with systemd.unified_cgroup_hierarchy=1";
        return check("cgroups", Verdict::Warn, "no cgroup v2", advice);
    };
    let missing: Vec<_> =
        ["cpu", "memory"].into_iter().filter(|name| !controllers.split_whitespace().any(|has| has == *name)).collect();
    if !missing.is_empty() {
        let found = format!("version 2 without {}", missing.join(" and "));
        let advice = "`resources` are counted but not enforced: delegate the controllers (systemd: Delegate=yes)";
        return check("cgroups", Verdict::Warn, found, advice);
    }
    if !facts.may_make_groups {
        let advice = "`resources` are counted but not enforced: run as root or let systemd delegate (Delegate=yes)";
        return check("cgroups", Verdict::Warn, "version 2, not ours to divide", advice);
    }
    check("cgroups", Verdict::Ok, "version 2 with cpu and memory", "")
}

fn limit_text(limit: Limit) -> String {
    let text = |value: Option<u64>| value.map_or_else(|| "unlimited".to_owned(), |value| value.to_string());
    format!("{} (at most {})", text(limit.soft), text(limit.hard))
}

/// The keeper raises its own soft limit, so that the hard one counts. Each worker costs it a few descriptors.
fn open_files(limit: Limit) -> Check {
    let found = limit_text(limit);
    match limit.hard {
        Some(hard) if hard < 1024 => {
            check("open files", Verdict::Warn, found, "raise the hard limit (ulimit -Hn) to 4096 or more")
        }
        Some(hard) if hard < 4096 => {
            let advice = "enough for a few hundred workers; raise the hard limit (ulimit -Hn) for more";
            check("open files", Verdict::Warn, found, advice)
        }
        _ => check("open files", Verdict::Ok, found, ""),
    }
}

fn processes(limit: Limit) -> Check {
    let found = limit_text(limit);
    match limit.soft {
        Some(soft) if soft < 1024 => {
            check("processes", Verdict::Warn, found, "workers count against it: raise it (ulimit -u)")
        }
        _ => check("processes", Verdict::Ok, found, ""),
    }
}

fn ports(facts: &Facts, settings: &Settings) -> Check {
    let range = settings.port_range;
    let Some((first, last)) = facts.ephemeral else {
        return check(
            "ports",
            Verdict::Warn,
            format!("{range}, the kernel's own range is unknown"),
            "keep port_range outside of it",
        );
    };
    let found = format!("{range}, the kernel's own are {first}-{last}");
    if range.first <= last && first <= range.last {
        let advice = "the ranges overlap, so that any connection may take a worker's port: set port_range in [manager]";
        return check("ports", Verdict::Warn, found, advice);
    }
    check("ports", Verdict::Ok, found, "")
}

fn systemd(facts: &Facts) -> Check {
    let Some(service) = &facts.service else {
        return check("systemd", Verdict::Ok, "not started by a service", "");
    };
    match facts.kill_mode.as_deref() {
        Some("process" | "none") => check("systemd", Verdict::Ok, format!("{service} with KillMode=process"), ""),
        mode => {
            let found = format!("{service} with KillMode={}", mode.unwrap_or("unknown"));
            let advice = "set KillMode=process, or stopping the service kills the keeper and all workers";
            check("systemd", Verdict::Warn, found, advice)
        }
    }
}

fn data_dir(facts: &Facts) -> Check {
    let path = facts.data_dir.display();
    if facts.socket_path > SOCKET_PATH {
        let found = format!("{path}: the keeper's socket in it has a path of {} bytes", facts.socket_path);
        let advice = format!("a socket's path has at most {SOCKET_PATH} bytes: choose a shorter --data-dir");
        return check("data dir", Verdict::Fail, found, advice);
    }
    match facts.owner_and_mode {
        None => check("data dir", Verdict::Ok, format!("{path}, not made yet"), ""),
        Some((owner, _)) if owner != facts.uid => {
            let found = format!("{path} belongs to uid {owner}");
            check("data dir", Verdict::Fail, found, format!("we are uid {}: use a data dir of ours", facts.uid))
        }
        Some((_, mode)) if mode & 0o077 != 0 => {
            let found = format!("{path} with mode {mode:o}");
            check("data dir", Verdict::Warn, found, format!("others can look in: chmod 700 {path}"))
        }
        Some(_) => check("data dir", Verdict::Ok, path.to_string(), ""),
    }
}

fn file_system(facts: &Facts) -> Check {
    let named = |list: &[(u64, &'static str)]| {
        list.iter().find(|(number, _)| Some(*number) == facts.file_system).map(|(_, name)| *name)
    };
    if let Some(name) = named(&REMOTE) {
        let advice = "locks and synced writes are not reliable there: choose a --data-dir on a local disk";
        return check("file system", Verdict::Fail, name, advice);
    }
    if let Some(name) = named(&FORGETFUL) {
        let advice = "a restart of the machine forgets what was applied: choose a --data-dir on a disk";
        return check("file system", Verdict::Warn, name, advice);
    }
    match facts.file_system {
        Some(_) => check("file system", Verdict::Ok, "local", ""),
        None => check("file system", Verdict::Warn, "unknown", "the folder above the data dir cannot be looked at"),
    }
}

fn free_disk(facts: &Facts) -> Check {
    let Some(free) = facts.free else {
        return check("free disk", Verdict::Warn, "unknown", "the folder above the data dir cannot be looked at");
    };
    let found = memory(free);
    let advice = "commands are refused while the store cannot be written: make room";
    match free {
        0..0x400_0000 => check("free disk", Verdict::Fail, found, advice),
        0x400_0000..0x4000_0000 => check("free disk", Verdict::Warn, found, advice),
        _ => check("free disk", Verdict::Ok, found, ""),
    }
}

fn manager(facts: &Facts) -> Check {
    let keeper = if facts.keeper { "a keeper runs" } else { "no keeper runs" };
    match &facts.manager {
        Ok(Some(manager)) if manager.state == "running" => {
            let found = format!("version {}, process {}, {keeper}", manager.version, manager.pid);
            check("manager", Verdict::Ok, found, "")
        }
        Ok(Some(manager)) => {
            let found = format!("{}: {}", manager.state, manager.reason);
            check("manager", Verdict::Warn, found, "see `cocktail events`")
        }
        Ok(None) if facts.keeper => {
            let advice = "workers run on without a Manager: `cocktail serve` or `cocktail up FILE` adopts them";
            check("manager", Verdict::Warn, "none runs, but a keeper does", advice)
        }
        Ok(None) => check("manager", Verdict::Ok, "none runs", ""),
        Err(error) => check("manager", Verdict::Fail, error.as_str(), "it does not answer as it should"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(check: Check) -> Verdict {
        assert_eq!(
            check.status == Verdict::Ok,
            check.advice.is_empty(),
            "advice where something is to be done: {check:?}"
        );
        check.status
    }

    fn facts() -> Facts {
        Facts {
            kernel: "6.13.0".into(),
            controllers: None,
            may_make_groups: false,
            files: Limit::default(),
            processes: Limit::default(),
            ephemeral: None,
            service: None,
            kill_mode: None,
            data_dir: "/srv/.cocktail".into(),
            socket_path: 0,
            owner_and_mode: None,
            uid: 7,
            file_system: None,
            free: None,
            manager: Ok(None),
            keeper: false,
        }
    }

    #[test]
    fn old_kernels_fail_and_unreadable_ones_warn() {
        let of = |kernel: &str| status(super::kernel(&Facts { kernel: kernel.into(), ..facts() }));
        assert_eq!(of("4.19.0-27-amd64"), Verdict::Fail);
        assert_eq!(of("5.8.1"), Verdict::Fail);
        assert_eq!(of("5.9.0"), Verdict::Ok);
        assert_eq!(of("6.14-rc1"), Verdict::Ok);
        assert_eq!(of("custom"), Verdict::Warn);
    }

    #[test]
    fn kernels_that_forget_exit_codes_are_told_apart() {
        let of = |kernel: &str| super::kernel(&Facts { kernel: kernel.into(), ..facts() }).found;
        assert!(of("6.14.11-cloud").contains("exit codes of that time are unknown (6.15 tells)"));
        assert_eq!(of("6.15.0-rc3"), "6.15.0-rc3");
        assert_eq!(of("7.0.1"), "7.0.1");
    }

    #[test]
    fn limits_that_nobody_enforces_are_told() {
        let of = |controllers: Option<&str>, may_make_groups| {
            status(cgroups(&Facts { controllers: controllers.map(Into::into), may_make_groups, ..facts() }))
        };
        assert_eq!(of(None, true), Verdict::Warn);
        assert_eq!(of(Some("cpuset cpu io pids"), true), Verdict::Warn);
        assert_eq!(of(Some("cpu memory pids"), false), Verdict::Warn);
        assert_eq!(of(Some("cpuset cpu io memory pids\n"), true), Verdict::Ok);
    }

    #[test]
    fn few_descriptors_and_processes_are_told() {
        let limit = |soft, hard| Limit { soft: Some(soft), hard: Some(hard) };
        assert_eq!(status(open_files(limit(1024, 524_288))), Verdict::Ok);
        assert_eq!(status(open_files(limit(256, 1024))), Verdict::Warn);
        assert_eq!(status(open_files(Limit::default())), Verdict::Ok);
        assert_eq!(status(processes(limit(100, 100))), Verdict::Warn);
        assert_eq!(status(processes(Limit::default())), Verdict::Ok);
    }

    #[test]
    fn ports_that_the_kernel_gives_away_are_told() {
        let of = |ephemeral| status(ports(&Facts { ephemeral: Some(ephemeral), ..facts() }, &Settings::default()));
        assert_eq!(of((32_768, 60_999)), Verdict::Ok);
        assert_eq!(of((1_024, 65_535)), Verdict::Warn);
        assert_eq!(of((29_999, 40_000)), Verdict::Warn);
        assert_eq!(of((30_000, 40_000)), Verdict::Ok);
    }

    #[test]
    fn a_service_that_kills_its_workers_is_told() {
        let of = |service: Option<&str>, mode: Option<&str>| {
            let (service, kill_mode) = (service.map(Into::into), mode.map(Into::into));
            status(systemd(&Facts { service, kill_mode, ..facts() }))
        };
        assert_eq!(of(None, None), Verdict::Ok);
        assert_eq!(of(Some("shop.service"), None), Verdict::Warn);
        assert_eq!(of(Some("shop.service"), Some("control-group")), Verdict::Warn);
        assert_eq!(of(Some("shop.service"), Some("process")), Verdict::Ok);
    }

    #[test]
    fn a_data_dir_must_be_ours_alone_and_its_socket_must_fit() {
        let of = |owner_and_mode, socket_path| status(data_dir(&Facts { owner_and_mode, socket_path, ..facts() }));
        assert_eq!(of(None, 20), Verdict::Ok);
        assert_eq!(of(Some((7, 0o700)), 107), Verdict::Ok);
        assert_eq!(of(Some((7, 0o700)), 108), Verdict::Fail);
        assert_eq!(of(Some((8, 0o700)), 20), Verdict::Fail);
        assert_eq!(of(Some((7, 0o755)), 20), Verdict::Warn);
    }

    #[test]
    fn file_systems_that_do_not_keep_what_is_written_are_told() {
        let of = |file_system| status(super::file_system(&Facts { file_system, ..facts() }));
        assert_eq!(of(Some(0x6969)), Verdict::Fail);
        assert_eq!(of(Some(0xff53_4d42)), Verdict::Fail);
        assert_eq!(of(Some(0x0102_1994)), Verdict::Warn);
        assert_eq!(of(Some(0xef53)), Verdict::Ok);
        assert_eq!(of(None), Verdict::Warn);
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_told() {
        let of = |free| status(free_disk(&Facts { free: Some(free), ..facts() }));
        assert_eq!((of(1 << 20), of(100 << 20), of(100 << 30)), (Verdict::Fail, Verdict::Warn, Verdict::Ok));
    }

    #[test]
    fn workers_without_a_manager_are_told() {
        let of = |manager, keeper| status(super::manager(&Facts { manager, keeper, ..facts() }));
        assert_eq!(of(Ok(None), false), Verdict::Ok);
        assert_eq!(of(Ok(None), true), Verdict::Warn);
        assert_eq!(of(Err("refused".into()), true), Verdict::Fail);
    }
}
