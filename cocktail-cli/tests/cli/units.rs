//! Updates, jobs, maps, volumes and metrics.

use std::io::{Read, Write};

use rustix::process::Signal;

use crate::support::{EMPTY, Folder, sleeping};

#[test]
fn an_update_that_goes_back_ends_up_and_apply_with_1_and_the_reason() {
    let folder = Folder::new();
    folder.write("good.toml", sleeping(600));
    folder.write("bad.toml", sleeping(600).replace("\"sleep\", \"600\"", "\"sh\", \"-c\", \"exit 3\""));
    assert_eq!(folder.run("up -d good.toml").code, Some(0));
    for command in ["up -d bad.toml", "apply bad.toml --wait"] {
        let run = folder.run(command);
        assert_eq!((run.code, run.data.as_str()), (Some(1), ""), "{command}: {run:?}");
        assert!(run.people.contains("the update went back") && run.people.contains("code 3"), "{command}: {run:?}");
        let unit = &folder.run("units -o json").json()[0];
        assert_eq!((&unit["ready"], &unit["rollout"]["state"]), (&1.into(), &"rolled-back".into()), "{unit}");
    }
    let status = folder.run("rollout status web -o json").json();
    assert_eq!((&status["state"], &status["failed"]), (&"rolled-back".into(), &true.into()), "{status}");
    // How it ended does not stain what comes later.
    for command in ["apply good.toml --wait", "up -d good.toml", "scale web 2 --wait", "restart web --wait"] {
        let run = folder.run(command);
        assert_eq!(run.code, Some(0), "{command}: {run:?}");
    }
}

#[test]
fn a_rollback_by_hand_goes_to_what_served_before() {
    let folder = Folder::new();
    folder.write("one.toml", sleeping(600));
    folder.write("two.toml", sleeping(601));
    assert_eq!(folder.run("up -d one.toml").code, Some(0));
    let run = folder.run("apply two.toml --wait");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert_eq!(folder.run("units -o json").json()[0]["revision"], 2);
    let run = folder.run("rollback web --wait");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.people.contains("back at revision 1"), "{run:?}");
    assert_eq!(folder.run("units -o json").json()[0]["revision"], 1);
    assert_eq!(folder.run("rollback web --to 2 --wait").code, Some(0));
    assert_eq!(folder.run("rollback web --to 99").code, Some(3));
    assert_eq!(folder.run("rollout pause web").code, Some(4), "there is nothing to pause");
    assert_eq!(folder.run("rollout status nobody").code, Some(3));
    let page = folder.run("inspect web");
    for part in ["Revisions", "Changes from revision", "Containers", "Last events"] {
        assert!(page.data.contains(part), "{part} is not in {}", page.data);
    }
    let all = folder.run("inspect prod").data;
    assert!(all.starts_with("shop/prod\n") && all.contains("shop/prod/web"), "{all}");
}

#[test]
fn a_job_is_done_when_its_containers_are() {
    let folder = Folder::new();
    let script = "echo '{\\\"level\\\":\\\"info\\\",\\\"msg\\\":\\\"working\\\",\\\"n\\\":1}'; echo plain; exit 0";
    let text = format!(
        "service = \"shop\"\n[maps.batch.units.import]\ncommand = [\"sh\", \"-c\", \"{script}\"]\nreplicas = 2\n\
         restart = {{ when = \"failure\" }}\n"
    );
    folder.write("job.toml", text);
    let run = folder.run("up -d job.toml");
    assert_eq!(run.code, Some(0), "{run:?}");
    let done = || folder.run("units -o json").json()[0]["succeeded"] == 2;
    while !done() {
        std::thread::yield_now();
    }
    let containers = folder.run("ps -o json").json();
    let states: Vec<_> = containers.as_array().unwrap().iter().map(|container| container["state"].clone()).collect();
    assert_eq!(states, ["stopped", "stopped"]);
    let run = folder.run("logs import --grep working -o json");
    let lines: Vec<serde_json::Value> = run.data.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), 2, "{run:?}");
    assert!(lines.iter().all(|line| line["fields"]["n"] == 1), "{run:?}");
}

#[test]
fn a_whole_map_is_stopped_started_restarted_and_removed_unit_by_unit() {
    let folder = Folder::new();
    let two = format!(
        "{EMPTY}[maps.prod.units.api]\ncommand = [\"sleep\", \"60\"]\n[maps.dev.units.web]\ncommand = [\"sleep\", \"60\"]\n"
    );
    folder.write("two.toml", two);
    assert_eq!(folder.run("up -d two.toml").code, Some(0));
    for (verb, doing, done) in [
        ("stop", "stopping", "stopped"),
        ("start", "starting", "started"),
        ("restart", "restarting", "restarted"),
        ("rm", "removing", "removed"),
    ] {
        let run = folder.run(&format!("{verb} prod"));
        assert_eq!(run.code, Some(0), "{verb}: {run:?}");
        assert_eq!(run.people, format!("{doing} shop/prod/api\n{doing} shop/prod/web\n"), "{verb}");
        let run = folder.run(&format!("{verb} prod --wait"));
        // What is removed may be gone before the second command comes.
        assert!(run.code == Some(0) || (verb, run.code) == ("rm", Some(3)), "{verb}: {run:?}");
        assert!(run.code != Some(0) || run.people.contains(&format!("{done} shop/prod/api")), "{verb}: {run:?}");
        let desired = folder.run("units -o json").json();
        let dev = desired.as_array().unwrap().iter().find(|unit| unit["map"] == "dev").unwrap();
        assert_eq!((&dev["ready"], &dev["stopped"]), (&1.into(), &false.into()), "{verb} touched another map");
    }
    let run = folder.run("stop dev nobody");
    assert_eq!(run.code, Some(3));
    assert!(run.people.starts_with("stopping shop/dev/web\n"), "{run:?}");
}

/// What a Manager answers to a scrape.
fn scrape(address: &str) -> String {
    let mut stream = std::net::TcpStream::connect(address).unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn metrics_are_printed_and_scraped_where_the_settings_say() {
    let folder = Folder::new();
    folder.write("cocktail.toml", "[manager]\nmetrics = \"127.0.0.1:0\"\n");
    let (serve, line) = folder.stay("serve -o json");
    let told: serde_json::Value = serde_json::from_str(&line).unwrap();
    let address = told["metrics"].as_str().unwrap().to_owned();
    assert_eq!(folder.run("apply empty.toml").code, Some(0));
    let desired = "cocktail_unit_desired{service=\"shop\",map=\"prod\",unit=\"web\"} 0";
    let run = folder.run("metrics");
    assert!(run.code == Some(0) && run.data.contains(desired), "{run:?}");
    let answer = scrape(&address);
    assert!(answer.starts_with("HTTP/1.1 200") && answer.contains(desired), "{answer}");
    // A second Manager cannot have the address, and says so before it starts anything.
    let other = Folder::new();
    other.write("cocktail.toml", format!("[manager]\nmetrics = \"{address}\"\n"));
    let run = other.run("serve");
    assert_eq!(run.code, Some(4), "{run:?}");
    assert!(run.people.contains(&address) && other.nothing_runs(), "{run:?}");
    assert_eq!(serve.end(Signal::TERM), Some(0));
    assert!(std::net::TcpStream::connect(&address).is_err(), "somebody answers still");
}

#[test]
fn volumes_and_usage_are_listed() {
    let folder = Folder::new();
    let volume = "volumes.data = { mount = \"data\", kind = \"exclusive\" }\n";
    folder.write("kept.toml", format!("{}{volume}", sleeping(600)));
    let run = folder.run("up -d kept.toml");
    assert_eq!(run.code, Some(0), "{run:?}");
    let volumes = folder.run("volumes -o json").json();
    assert_eq!((&volumes[0]["unit"], &volumes[0]["name"]), (&"web".into(), &"data".into()), "{volumes}");
    let run = folder.run("top");
    assert!(run.code == Some(0) && run.data.starts_with("UNIT ") && run.data.contains("shop/prod/web"), "{run:?}");
    assert!(folder.run("top -o json").json()["units"].is_object());
}
