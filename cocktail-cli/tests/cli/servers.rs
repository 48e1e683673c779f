//! `cordon`, `uncordon` and `rearrange` on the one server of this machine.

use crate::support::{Folder, sleeping};

#[test]
fn a_server_is_cordoned_and_what_cannot_move_is_named_until_it_is_called_off() {
    let folder = Folder::new();
    folder.write("web.toml", sleeping(600));
    assert_eq!(folder.run("up -d web.toml").code, Some(0));
    let server = folder.run("servers -o json").json()[0]["id"].as_str().unwrap().to_owned();

    let run = folder.run(&format!("cordon {server}"));
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.people.contains(&format!("{server}: cordoned, 1 containers")), "{run:?}");
    let run = folder.run("scale web 2 --wait=1s");
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(run.people.contains("it is cordoned"), "{run:?}");
    assert!(folder.run("servers").data.contains("cordoned"));

    let run = folder.run(&format!("rearrange {server} --wait=1s"));
    assert_eq!(run.code, Some(5), "{run:?}");
    assert!(run.people.contains("it stays until its replacement is ready"), "{run:?}");
    let why = folder.run(&format!("why {server}"));
    assert!(why.data.contains("asked to empty") && why.data.contains("no room on the only server"), "{why:?}");
    let inspected = folder.run(&format!("inspect {server} -o json")).json();
    assert_eq!(inspected["server"]["rearrangement"]["late"], "cancel", "{inspected}");
    let run = folder.run(&format!("rearrange {server} --deadline 100ms --wait"));
    assert_eq!(run.code, Some(1), "it was called off: {run:?}");

    assert_eq!(folder.run(&format!("cordon {server}")).code, Some(0));
    let run = folder.run(&format!("uncordon {server}"));
    assert!(run.people.contains(&format!("{server}: ready")), "{run:?}");
    assert_eq!(folder.run("scale web 2 --wait").code, Some(0));
    assert_eq!(folder.run("cordon mars").code, Some(3));
    assert_eq!(folder.run(&format!("rearrange {server} --give-back")).code, Some(2));
    let run = folder.run(&format!("rm {server}"));
    assert!(run.people.contains("`rearrange` empties it"), "{run:?}");
}
