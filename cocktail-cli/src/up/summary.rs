//! Where the Units of an `up` can be reached, as text.

use cocktail_core::view::{EndpointView, UnitView};

use crate::commands::list::{address, unit_name};
use crate::progress::counted;

/// One line for each service port, and one for each Unit without any: `web  http://127.0.0.1:8080 → 3 ready`.
pub(super) fn summary(units: &[UnitView], endpoints: &[EndpointView]) -> String {
    let mut lines: Vec<(String, String, String)> = Vec::new();
    for unit in units {
        let alone = units.iter().filter(|other| other.unit == unit.unit).count() == 1;
        let name = if alone { unit.unit.clone() } else { unit_name(unit) };
        let ready = if unit.job { counted(unit) } else { format!("{} ready", unit.ready) };
        let mine = endpoints.iter().filter(|endpoint| {
            (&endpoint.service, &endpoint.map, &endpoint.unit) == (&unit.service, &unit.map, &unit.unit)
        });
        let before = lines.len();
        for endpoint in mine {
            let Some(address) = address(endpoint) else { continue };
            let text = match &endpoint.error {
                Some(error) => format!("does not listen: {error}"),
                None => format!("→ {} ready", endpoint.backends.len()),
            };
            lines.push((name.clone(), format!("{}{address}", scheme(&endpoint.port_name)), text));
        }
        if lines.len() == before {
            lines.push((name, ready, String::new()));
        }
    }
    let width = |part: fn(&(String, String, String)) -> &str| {
        lines.iter().filter(|line| !line.2.is_empty()).map(|line| part(line).chars().count()).max().unwrap_or(0)
    };
    let name_width = lines.iter().map(|line| line.0.chars().count()).max().unwrap_or(0);
    let address_width = width(|line| &line.1);
    let mut text = String::new();
    for (name, address, rest) in &lines {
        text.push_str(format!("{name:name_width$}  {address:address_width$} {rest}").trim_end());
        text.push('\n');
    }
    text
}

/// What to put before an address so that it can be clicked, by the name of the port.
fn scheme(port_name: &str) -> &'static str {
    match port_name {
        "http" => "http://",
        "https" => "https://",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{endpoint, unit};

    #[test]
    fn every_service_port_and_every_unit_without_one_has_a_line() {
        let mut database = endpoint("db", Some(5432), 1);
        database.port_name = "sql".into();
        database.address = "::1".into();
        let job = UnitView { job: true, succeeded: 2, ..unit("import", 2, 0) };
        let units = [unit("web", 3, 3), unit("db", 1, 1), unit("worker", 2, 2), job];
        let endpoints = [endpoint("web", Some(8080), 3), database, endpoint("worker", None, 2)];
        let expected = "\
web     http://127.0.0.1:8080 → 3 ready
db      [::1]:5432            → 1 ready
worker  2 ready
import  2/2 done
";
        assert_eq!(summary(&units, &endpoints), expected);
    }

    #[test]
    fn units_of_the_same_name_are_told_by_their_full_name() {
        let mut other = unit("web", 1, 1);
        other.map = "dev".into();
        assert_eq!(summary(&[unit("web", 1, 1), other], &[]), "shop/prod/web  1 ready\nshop/dev/web   1 ready\n");
    }
}
