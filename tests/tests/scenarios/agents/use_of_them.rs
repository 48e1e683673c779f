//! What users do with servers that are not this one: files, secrets, output, commands, and who may not come back.

use std::process::Command;

use rustix::process::Signal;

use super::rack::{Rack, WITNESS};

#[test]
fn a_command_comes_with_its_files_and_secrets_and_leaves_neither_where_others_look() {
    xtask::skip_if!(NoNetworkNamespaces);
    let rack = Rack::new(2);
    let (testimony, root) = (rack.testimony(), rack.home.root());
    // The program is in the archive, and nowhere else.
    rack.home.write("dist/bin/serve.sh", format!("echo \"with $WORD\"; exec {WITNESS} {}", testimony.display()));
    let packed = Command::new("tar").args(["-czf", "dist.tar.gz", "-C", "dist", "."]).current_dir(&root).status();
    assert!(packed.unwrap().success());
    let sum = Command::new("sha256sum").arg(root.join("dist.tar.gz")).output().unwrap();
    let sum = String::from_utf8(sum.stdout).unwrap();
    let sha256 = sum.split(' ').next().unwrap().to_owned();
    rack.home.write("word", "swordfish-of-the-manager\n");
    let unit = |sha256: &str| {
        format!(
            "service = \"shop\"\n[maps.prod.units.witness]\ncommand = [\"sh\", \"bin/serve.sh\"]\nreplicas = 4\n\
             artifact = {{ file = \"dist.tar.gz\", sha256 = \"{sha256}\" }}\nsecrets.WORD = {{ file = \"{}\" }}\n\
             env = {{ ADDRESS = \"0.0.0.0\" }}\nports.http = {{}}\nready = {{ http = \"/\", every = \"200ms\" }}\n",
            root.join("word").display()
        )
    };
    rack.home.write("witness.toml", unit(&sha256));
    rack.home.ok(&["apply", "--wait", "witness.toml"]);
    assert_eq!(rack.ready(), [2, 2]);
    let id = rack.home.pids("witness").into_keys().next().unwrap();
    let log = rack.home.ok(&["logs", &id]).stdout;
    assert!(log.contains("with swordfish-of-the-manager"), "{log}");
    // A command beside it, whose exit code comes back.
    let said = rack.home.run(&["exec", &id, "--", "sh", "-c", "pwd; seq 1 50000 | tail -1; exit 7"]);
    assert_eq!(said.code(), 7);
    assert!(said.stdout.contains(&sha256) && said.stdout.ends_with("50000\n"), "{}", said.stdout);
    // What the worker was told is in its environment and its output, and in no file of the agent or the Manager.
    for dir in [rack.agent_dir(1), rack.agent_dir(2), rack.home.data_dir()] {
        let found = Command::new("grep").args(["-rl", "--exclude-dir=logs", "swordfish"]).arg(&dir).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&found.stdout), "", "below {}", dir.display());
    }
    // What is not what it should be is not run.
    let wrong = sha256.replace(|it: char| it.is_ascii_digit(), "0");
    rack.home.write("witness.toml", unit(&wrong));
    let said = rack.home.run(&["apply", "--wait", "witness.toml"]).fails(1);
    assert!(said.contains("went back"), "{said}");
    assert_eq!(rack.ready(), [2, 2], "what served before serves");
    rack.finish(4);
}

#[test]
fn a_revoked_server_is_cut_off_at_once_and_joins_again_when_it_is_allowed() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::new(2);
    rack.witnesses(4, "");
    rack.home.ok(&["revoke", "rack-1", "--because", "it was sold"]);
    rack.home.eventually("it runs nothing any more", || rack.workers(1).is_empty());
    rack.home.eventually("others have taken over", || rack.ready() == [0, 4]);
    assert!(rack.home.why("rack-1").iter().any(|because| because.contains("it was sold")));
    // Its token is used up, and another one would not help.
    rack.kill_agent(1);
    let command = rack.command(1, 1, &rack.home.base().join("other"), None);
    let said = rack.home.spawn_command(command).wait().fails(4);
    assert!(said.contains("the token is wrong, was used, or has run out"), "{said}");
    rack.home.ok(&["allow", "rack-1"]);
    rack.start(1);
    rack.home.eventually("it is back", || rack.state(1) == "ready");
    rack.home.ok(&["scale", "witness", "8"]);
    rack.home.eventually("it serves again", || rack.ready()[0] > 0);
    rack.settled(8);
    rack.finish(8);
}

#[test]
fn an_authority_is_exchanged_while_everything_runs() {
    xtask::skip_if!(NoNetworkNamespaces);
    let mut rack = Rack::new(2);
    rack.witnesses(4, "");
    let before = rack.home.pids("witness");
    rack.home.ok(&["rotate-ca"]);
    let said = rack.home.run(&["rotate-ca"]).fails(4);
    assert!(said.contains("has not ended"), "{said}");
    // Old certificates are good for new connections as long as both authorities are trusted.
    rack.end_manager(Signal::TERM);
    rack.serve();
    rack.home.eventually("all are back", || rack.ready() == [2, 2]);
    assert_eq!(rack.home.pids("witness"), before, "nothing was touched");
    rack.finish(4);
}
