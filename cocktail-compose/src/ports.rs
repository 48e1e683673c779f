//! `ports` and `expose`.

use std::net::{IpAddr, Ipv4Addr};

use crate::field::{Field, Keys};
use crate::names::{self, Taken};
use crate::unit::Port;
use crate::yaml::{Outcome, shown};

/// Most ports of a Unit.
const MOST: usize = 64;

const RANGE: &str = "write it like \"8080:80\", \"127.0.0.1:8080:80\" or \"3000-3005\"";

/// Takes the ports, published ones first.
pub(crate) fn decode(keys: &mut Keys<'_>) -> Outcome<Vec<Port>> {
    let mut ports = Ports::default();
    if let Some(field) = keys.take("ports") {
        for item in field.list_or_one()? {
            let done = if item.is_map() { ports.long(&item) } else { ports.short(&item) };
            match done {
                // What was written is well, but what its variables are is not.
                Err(problem) if item.has_variables() => {
                    item.note(problem.message.clone(), "it is left out: set the variables, and import again");
                }
                done => done?,
            }
        }
    }
    if let Some(field) = keys.take("expose") {
        for item in field.list_or_one()? {
            ports.exposed(&item)?;
        }
    }
    Ok(ports.list)
}

#[derive(Default)]
struct Ports {
    list: Vec<Port>,
    names: Taken,
}

/// Where a port of the container is published.
struct Published {
    address: Option<IpAddr>,
    service: Option<u16>,
}

impl Ports {
    /// `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`, where both numbers may be ranges.
    fn short(&mut self, field: &Field<'_>) -> Outcome<()> {
        let text = field.text()?;
        let (plain, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "tcp"));
        if !is_tcp(field, protocol, plain) {
            return Ok(());
        }
        let (before, container) = match plain.rsplit_once(':') {
            Some((before, container)) => (Some(before), container),
            None => (None, plain),
        };
        let (address, host) = match before.map(|before| before.rsplit_once(':').unwrap_or(("", before))) {
            None => (None, None),
            Some(("", host)) => (Some(IpAddr::V4(Ipv4Addr::UNSPECIFIED)), Some(host)),
            Some((address, host)) => {
                let inner = address.trim_start_matches('[').trim_end_matches(']');
                let parsed =
                    inner.parse().map_err(|_| field.problem(format!("`{}` is no IP address", shown(inner)), RANGE))?;
                (Some(parsed), Some(host))
            }
        };
        let containers = range(container).ok_or_else(|| self.no_range(field, container, &text))?;
        let hosts = match host {
            None | Some("") => None,
            Some(host) => Some(range(host).ok_or_else(|| self.no_range(field, host, &text))?),
        };
        self.publish(field, None, address, hosts, containers)
    }

    fn no_range(&self, field: &Field<'_>, part: &str, text: &str) -> Box<cocktail_core::manifest::Diagnostic> {
        field.problem(format!("`{}` in `{}` is no port and no range of ports", shown(part), shown(text)), RANGE)
    }

    /// `target`, `published`, `host_ip`, `protocol`.
    fn long(&mut self, field: &Field<'_>) -> Outcome<()> {
        let mut keys = field.keys()?;
        let Some(target) = keys.take("target") else {
            return Err(field.problem("a port needs a `target`", "write target: 80"));
        };
        let protocol = keys.text("protocol")?.unwrap_or_else(|| "tcp".to_owned());
        let text = target.text()?;
        let containers = range(text.trim()).ok_or_else(|| self.no_range(&target, &text, &text))?;
        let published = keys.take_as("published", Field::text)?;
        let hosts = match &published {
            Some((text, field)) if !text.trim().is_empty() => {
                Some(range(text.trim()).ok_or_else(|| self.no_range(field, text, text))?)
            }
            _ => None,
        };
        let address = match keys.take("host_ip") {
            None => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            Some(field) => {
                let text = field.text()?;
                text.parse().map_err(|_| field.problem(format!("`{}` is no IP address", shown(&text)), ""))?
            }
        };
        let name = keys.text("name")?;
        let of_app = keys.text("app_protocol")?;
        if let Some(mode) = keys.take("mode")
            && mode.text()? != "ingress"
        {
            mode.note("ports of the host are not published directly", "the service port forwards to every container");
        }
        keys.finish("leave it out");
        if is_tcp(field, &protocol, &text) {
            self.publish(field, name.or(of_app).as_deref(), Some(address), hosts, containers)?;
        }
        Ok(())
    }

    fn exposed(&mut self, field: &Field<'_>) -> Outcome<()> {
        let text = field.text()?;
        let (plain, protocol) = text.trim().split_once('/').unwrap_or((text.trim(), "tcp"));
        if !is_tcp(field, protocol, plain) {
            return Ok(());
        }
        let containers = range(plain).ok_or_else(|| self.no_range(field, plain, &text))?;
        for container in containers.0..=containers.1 {
            if self.list.iter().all(|port| port.container != container) {
                self.push(field, None, container, Published { address: None, service: None });
            }
        }
        Ok(())
    }

    fn publish(
        &mut self,
        field: &Field<'_>,
        name: Option<&str>,
        address: Option<IpAddr>,
        hosts: Option<(u16, u16)>,
        containers: (u16, u16),
    ) -> Outcome<()> {
        let Some((first, last)) = hosts else {
            for container in containers.0..=containers.1 {
                self.push(field, name, container, Published { address: None, service: None });
            }
            let instead = "every container has a leased port of its own: add `service`, the port that is to be stable";
            field.note("the port of the host is not given, so none is stable", instead);
            return Ok(());
        };
        if containers.0 == containers.1 && first != last {
            field.note("one of several ports of the host is not chosen", format!("{first} is used"));
            self.push(field, name, containers.0, Published { address, service: Some(first) });
            return Ok(());
        }
        if last - first != containers.1 - containers.0 {
            return Err(field.problem("the two ranges differ in length", "give both as many ports"));
        }
        for at in 0..=(last - first) {
            self.push(field, name, containers.0 + at, Published { address, service: Some(first + at) });
        }
        Ok(())
    }

    fn push(&mut self, field: &Field<'_>, name: Option<&str>, container: u16, published: Published) {
        let Published { address, service } = published;
        let twice = |port: &Port| port.container == container && (port.service == service || service.is_none());
        if self.list.iter().any(twice) {
            return;
        }
        // Beside its own service port, a port that was only exposed has nothing to say.
        if let Some(port) = self.list.iter_mut().find(|port| port.container == container && port.service.is_none()) {
            (port.service, port.address) = (service, address.filter(|_| service.is_some()));
            return;
        }
        if self.list.len() == MOST {
            field.note(format!("a Unit has at most {MOST} ports"), "the others are left out");
            return;
        }
        let name = self.names.unique(&name_of(name, container));
        let address = address.filter(|_| service.is_some());
        self.list.push(Port { name, container, service, address, line: field.place.line });
    }
}

/// A name that says what the port is for, where that can be told.
pub(crate) fn name_of(given: Option<&str>, container: u16) -> String {
    let known = match container {
        80 | 3000 | 5000 | 8000 | 8080 => "http",
        443 | 8443 => "https",
        _ => "",
    };
    match (given.filter(|given| !given.is_empty()), known) {
        (Some(given), _) => names::nearest(given, "port"),
        (None, "") => format!("p{container}"),
        (None, known) => known.to_owned(),
    }
}

fn is_tcp(field: &Field<'_>, protocol: &str, port: &str) -> bool {
    if protocol.eq_ignore_ascii_case("tcp") || protocol.is_empty() {
        return true;
    }
    let what = format!("only TCP is forwarded, so {} is left out of port {}", shown(protocol), shown(port));
    field.note(what, "run what needs it beside cocktail");
    false
}

/// `80` or `8000-8010`, both above zero.
fn range(text: &str) -> Option<(u16, u16)> {
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|number| *number > 0);
    let (first, last) = (number(first)?, number(last)?);
    (first <= last).then_some((first, last))
}
