//! `manifest import-compose`: streams, files and exit codes.

use std::fs;
use std::io::Write;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Folder, Run};

/// Two services, and one thing that a manifest cannot say.
const COMPOSE: &str = "\
name: shop
services:
  web:
    image: nginx:${TAG:-1.27}
    restart: always
    ports: [\"8080:80\"]
    volumes: [./site:/usr/share/nginx/html]
  cache:
    image: redis:7
    restart: always
    privileged: true
";

/// A folder with that file and what it names.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("compose.yaml", COMPOSE);
    fs::create_dir(folder.path().join("site")).unwrap();
    folder
}

#[test]
fn the_manifest_is_data_and_notes_are_for_people() {
    let folder = folder();
    let run = folder.run("manifest import-compose compose.yaml");
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.data.starts_with("# From compose.yaml") && run.data.contains("image = \"nginx:1.27\""), "{run:?}");
    let lines: Vec<&str> = run.people.lines().collect();
    let [first, second, last] = lines.as_slice() else { panic!("{run:?}") };
    let note = "compose.yaml:11: cache: privileged: containers have no privileges; run what needs them beside cocktail";
    assert_eq!((*first, *last), (note, "2 Units; 2 notes"));
    assert!(second.starts_with("compose.yaml:3: web: volumes: "), "{second}");
    folder.write("shop.toml", &run.data);
    assert_eq!(folder.run("manifest check shop.toml").code, Some(0));
    assert!(!folder.path().join(".cocktail").exists(), "an import needs no data dir");
}

#[test]
fn as_json_manifest_and_notes_are_data() {
    let run = folder().run("manifest import-compose compose.yaml -o json --service other --map blue");
    assert_eq!((run.code, run.people.as_str()), (Some(0), ""), "{run:?}");
    let value: Value = serde_json::from_str(&run.data).unwrap();
    let manifest = value["manifest"].as_str().unwrap();
    assert!(manifest.contains("service = \"other\"") && manifest.contains("[maps.blue.units.web]"), "{manifest}");
    let expected = serde_json::json!({
        "service": "cache", "key": "privileged", "line": 11,
        "what": "containers have no privileges", "instead": "run what needs them beside cocktail",
    });
    assert_eq!(value["notes"][0], expected);
    assert_eq!(value["notes"].as_array().unwrap().len(), 2);
}

#[test]
fn a_file_is_written_once_and_never_again() {
    let folder = folder();
    fs::create_dir(folder.path().join("deploy")).unwrap();
    let run = folder.run("manifest import-compose compose.yaml --out shop.toml");
    assert_eq!((run.code, run.data.as_str()), (Some(0), ""), "{run:?}");
    let written = fs::read_to_string(folder.path().join("shop.toml")).unwrap();
    assert!(written.contains("source = \"./site\""), "{written}");
    folder.write("shop.toml", "mine");
    let run = folder.run("manifest import-compose compose.yaml --out shop.toml");
    assert_eq!((run.code, run.data.as_str()), (Some(2), ""), "{run:?}");
    assert!(run.people.contains("shop.toml is there already"), "{run:?}");
    assert_eq!(fs::read_to_string(folder.path().join("shop.toml")).unwrap(), "mine");
    // Elsewhere a relative path would lead to another folder.
    assert_eq!(folder.run("manifest import-compose compose.yaml --out deploy/shop.toml").code, Some(0));
    let written = fs::read_to_string(folder.path().join("deploy/shop.toml")).unwrap();
    assert!(!written.contains("./site") && written.contains("/site\" }"), "{written}");
    let run = folder.run("manifest import-compose compose.yaml --out none/shop.toml");
    assert_eq!(run.code, Some(1), "{run:?}");
}

#[test]
fn variables_come_from_the_environment_before_dotenv() {
    let folder = folder();
    folder.write(".env", "TAG=from-file\n");
    let run = folder.run("manifest import-compose compose.yaml");
    assert!(run.data.contains("image = \"nginx:from-file\""), "{run:?}");
    let mut command = folder.command("manifest import-compose compose.yaml");
    let run = Run::of(command.env("TAG", "from-env").output().unwrap());
    assert!(run.data.contains("image = \"nginx:from-env\""), "{run:?}");
}

#[test]
fn standard_input_is_a_file_of_the_working_directory() {
    let folder = folder();
    let mut command = folder.command("manifest import-compose -");
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(COMPOSE.as_bytes()).unwrap();
    let run = Run::of(child.wait_with_output().unwrap());
    assert_eq!(run.code, Some(0), "{run:?}");
    assert!(run.data.contains("source = \"./site\""), "{run:?}");
}

#[test]
fn what_is_no_compose_file_is_shown_with_its_place_and_ends_with_2() {
    let folder = Folder::new();
    folder.write("bad.yaml", "services:\n  web:\n    image: [nginx]\n");
    let expected = "\
error: `services.web.image`: expected a text, found a list
 --> bad.yaml:3:12
  |
3 |     image: [nginx]
  |            ^
";
    for command in ["manifest import-compose bad.yaml", "manifest import-compose bad.yaml -o json --out x.toml"] {
        let run = folder.run(command);
        assert_eq!((run.code, run.data.as_str(), run.people.as_str()), (Some(2), "", expected), "{command}");
    }
    assert!(!folder.path().join("x.toml").exists());
    folder.write("garbage", "x".repeat(10 << 20));
    folder.write("deep", "[".repeat(100_000));
    folder.write("binary", [0xff; 100]);
    folder.write("nothing", "");
    folder.write("laughs", "a: &a [x, x]\nb: &b [*a, *a]\n");
    for file in ["garbage", "deep", "binary", "nothing", "laughs", "missing", ".", "/dev/zero"] {
        let run = folder.run(&format!("manifest import-compose {file}"));
        assert_eq!((run.code, run.data.as_str()), (Some(2), ""), "{file}: {run:?}");
    }
    for usage in ["manifest import-compose", "manifest import-compose bad.yaml --map Bad_Name"] {
        assert_eq!(folder.run(usage).code, Some(2), "{usage}");
    }
}
