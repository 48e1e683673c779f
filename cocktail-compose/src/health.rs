//! `healthcheck`: a readiness probe.
//!
//! Compose only tells what an unhealthy container is and does not restart it, so it is `ready` and not `live`. A test that
//! is plainly curl or wget of a port of the same container becomes a request of cocktail's own, which needs no program in
//! the image.

use std::time::Duration;

use crate::field::Keys;
use crate::unit::{Check, Port, Probe, Unit};
use crate::yaml::{Outcome, shown};

/// What Compose assumes for the interval and the time-out.
const USUAL: Duration = Duration::from_secs(30);

/// Shortest span of a probe.
const LEAST: Duration = Duration::from_millis(100);

/// Longest span that is written, far beyond what anybody waits.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);

/// Time in which a container must become ready, by default.
const PROGRESS: Duration = Duration::from_secs(60);

/// Takes the health check.
pub(crate) fn decode(keys: &mut Keys<'_>, unit: &mut Unit) -> Outcome<()> {
    let Some(field) = keys.take("healthcheck") else { return Ok(()) };
    let mut keys = field.keys()?;
    let span = |field: Option<crate::field::Field<'_>>| field.map(|field| field.duration()).transpose();
    let interval = span(keys.take("interval"))?.filter(|it| !it.is_zero()).unwrap_or(USUAL).clamp(LEAST, LONGEST);
    let timeout = span(keys.take("timeout"))?.filter(|it| !it.is_zero()).unwrap_or(USUAL).clamp(LEAST, LONGEST);
    let start = span(keys.take("start_period"))?.unwrap_or_default();
    let retries = keys.take("retries").map(|field| field.number()).transpose()?.filter(|it| *it > 0).unwrap_or(3);
    let disabled = keys.take("disable").map(|field| field.boolean()).transpose()?.unwrap_or(false);
    // Before its first success a probe looks more often by itself.
    span(keys.take("start_interval"))?;
    let test = keys.take("test");
    keys.finish("it is left out");
    let words = match test.filter(|_| !disabled) {
        None => None,
        Some(test) if test.is_list() => {
            let mut words = test.texts()?;
            match words.first().map(String::as_str) {
                Some("NONE") | None => None,
                Some("CMD") => Some(words.split_off(1)).filter(|words| !words.is_empty()),
                Some("CMD-SHELL") => Some(shell(words.get(1).map_or("", String::as_str))),
                Some(other) => {
                    let message = format!("`{}` is not NONE, CMD or CMD-SHELL", shown(other));
                    return Err(test.problem(message, "write test: [\"CMD\", \"program\", \"argument\"]"));
                }
            }
        }
        Some(test) => Some(shell(&test.text()?)),
    };
    let Some(words) = words.filter(|words| !words[0].is_empty()) else {
        if !unit.ports.is_empty() {
            let what = "without a test a container is ready when its first port accepts a connection";
            field.note(what, "write `ready` for another check");
        }
        return Ok(());
    };
    let check = match http(&words, unit) {
        Some((path, port)) => Check::Http { path, port },
        None => Check::Exec(words),
    };
    let failures = retries.min(1_000);
    unit.ready = Some(Probe { check, every: interval, timeout, failures });
    // As long as Compose waits until it calls a container unhealthy.
    let patience = interval.saturating_mul(u32::try_from(failures).unwrap_or(u32::MAX));
    let patience = start.saturating_add(patience).min(LONGEST);
    unit.update.progress = Some(patience).filter(|patience| *patience > PROGRESS);
    Ok(())
}

fn shell(line: &str) -> Vec<String> {
    if line.trim().is_empty() {
        return vec![String::new()];
    }
    ["/bin/sh", "-c", line].map(str::to_owned).to_vec()
}

/// Path and name of the port, if the words ask for nothing but a page of the container itself.
fn http(words: &[String], unit: &Unit) -> Option<(String, String)> {
    let split;
    let words = match words {
        [shell, flag, line] if shell == "/bin/sh" && flag == "-c" => {
            split = plain(line)?;
            &split
        }
        words => words,
    };
    let (program, arguments) = words.split_first()?;
    let url = match program.rsplit('/').next()? {
        "curl" => curl(arguments)?,
        "wget" => wget(arguments)?,
        _ => return None,
    };
    address(url, &unit.service, &unit.ports)
}

/// Words of a line that needs no shell, without the `|| exit 1` that many end with.
fn plain(line: &str) -> Option<Vec<String>> {
    let line = line.trim();
    let line = ["|| exit 1", "||exit 1", "|| false"].iter().find_map(|end| line.strip_suffix(end)).unwrap_or(line);
    let special = |c: char| matches!(c, '|' | '&' | ';' | '<' | '>' | '(' | ')' | '$' | '`' | '*' | '\\' | '\n' | '#');
    if line.contains(special) { None } else { shlex::split(line) }
}

/// The URL of a curl that fails where the answer is an error, and does nothing else.
fn curl(arguments: &[String]) -> Option<&str> {
    let (mut url, mut fails, mut rest) = (None, false, arguments.iter());
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "--fail" => fails = true,
            "--silent" | "--show-error" => {}
            "-o" | "--output" if rest.next().is_some_and(|file| file == "/dev/null") => {}
            flags
                if flags
                    .strip_prefix('-')
                    .is_some_and(|it| !it.is_empty() && it.chars().all(|c| "fsS".contains(c))) =>
            {
                fails |= flags.contains('f');
            }
            other if !other.starts_with('-') && url.is_none() => url = Some(other),
            _ => return None,
        }
    }
    url.filter(|_| fails)
}

/// The URL of a wget that looks and keeps nothing.
fn wget(arguments: &[String]) -> Option<&str> {
    let (mut url, mut keeps, mut rest) = (None, true, arguments.iter());
    while let Some(argument) = rest.next() {
        match argument.as_str() {
            "-q" | "-nv" | "--quiet" | "--no-verbose" | "--tries=1" | "-t1" => {}
            "--spider" | "-O-" | "-qO-" | "-O/dev/null" | "-qO/dev/null" | "--output-document=/dev/null" => {
                keeps = false
            }
            "-O" | "-qO" if rest.next().is_some_and(|file| file == "-" || file == "/dev/null") => keeps = false,
            other if !other.starts_with('-') && url.is_none() => url = Some(other),
            _ => return None,
        }
    }
    url.filter(|_| !keeps)
}

/// Path and port of a URL that leads to the container itself.
fn address(url: &str, service: &str, ports: &[Port]) -> Option<(String, String)> {
    let rest = match url.split_once("://") {
        Some(("http", rest)) => rest,
        Some(_) => return None,
        None => url,
    };
    let (authority, path) = rest.find(['/', '?']).map_or((rest, ""), |at| rest.split_at(at));
    let (host, number) = match authority.rsplit_once(':') {
        Some((host, number)) => (host, number.parse().ok()?),
        None => (authority, 80),
    };
    if !["localhost", "127.0.0.1", "0.0.0.0", "[::1]"].contains(&host) && host != service {
        return None;
    }
    let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
    let plain = path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains('#');
    let port = ports.iter().find(|port| port.container == number).filter(|_| plain)?;
    Some((path, port.name.clone()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn unit() -> Unit {
        let port = |name: &str, container| Port { name: name.into(), container, service: None, address: None, line: 1 };
        Unit { service: "web".into(), ports: vec![port("http", 8080), port("p80", 80)], ..Unit::default() }
    }

    #[test]
    fn a_plain_curl_or_wget_of_an_own_port_is_a_request() {
        for (line, path, port) in [
            ("curl -f http://localhost:8080/health || exit 1", "/health", "http"),
            ("curl --fail --silent localhost", "/", "p80"),
            ("/usr/bin/curl -fsS -o /dev/null http://127.0.0.1:8080/a?b=c", "/a?b=c", "http"),
            ("wget --no-verbose --tries=1 --spider http://web:8080/ || exit 1", "/", "http"),
            ("wget -qO- 'http://[::1]:8080'", "/", "http"),
            ("wget -q -O /dev/null http://0.0.0.0:8080?x", "/?x", "http"),
        ] {
            assert_eq!(http(&shell(line), &unit()), Some((path.into(), port.into())), "{line}");
        }
    }

    #[test]
    fn whatever_else_it_does_stays_a_command() {
        for line in [
            "curl http://localhost:8080/",
            "curl -f https://localhost:8080/",
            "curl -f http://localhost:9999/",
            "curl -f http://db:8080/",
            "curl -fL http://localhost:8080/",
            "curl -f http://localhost:8080/ | grep ok",
            "curl -f -H 'A: b' http://localhost:8080/",
            "curl -f http://localhost:8080/ http://localhost/",
            "wget http://localhost:8080/",
            "wget --spider http://user@localhost:8080/",
            "curl -f http://localhost:99999/",
            "curl -f $URL",
            "curl -f 'http://localhost:8080/",
            "pg_isready",
            "curl",
        ] {
            assert_eq!(http(&shell(line), &unit()), None, "{line}");
        }
    }
}
