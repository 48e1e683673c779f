//! A program that knows nothing of all this: Python's own web server, which closes each connection after its answer and
//! ends on SIGTERM without finishing anything.

use super::{UPDATE, rounds};

#[test]
fn an_update_of_a_plain_program_loses_no_request() {
    xtask::skip_if!(NoPython3);
    let apply = |site: &mut super::Site| {
        site.version += 1;
        let version = format!("v{}", site.version);
        site.home.write(&format!("{version}/index.html"), format!("{version} \n"));
        let keys = format!(
            "[maps.prod.units.web]\ncommand = [\"python3\", \"-m\", \"http.server\", \"--bind\", \"127.0.0.1\", \"${{PORT}}\"]\n\
             cwd = \"{version}\"\nreplicas = 2\nports.http = {{ service = {} }}\n\
             ready = {{ http = \"/\", every = \"100ms\", timeout = \"5s\" }}\n{UPDATE}\n",
            site.port
        );
        site.home.write("web.toml", format!("service = \"shop\"\n{keys}"));
        site.home.ok(&["apply", "web.toml"]);
        version
    };
    rounds(
        2,
        |site| _ = apply(site),
        |site, _| {
            let version = apply(site);
            site.middle();
            site.ends("completed");
            site.answers(&version);
        },
    );
}
