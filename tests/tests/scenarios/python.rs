//! The worker of `examples/python-worker`: the protocol is not Rust's alone.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use cocktail_tests::{Home, Load, Shape, http};

/// A Python that has grpcio-tools: `cargo xtask test --setup` installs it.
fn python() -> PathBuf {
    env::var_os("COCKTAIL_GRPC_PYTHON").map(PathBuf::from).unwrap()
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name)
}

#[test]
fn what_is_generated_for_python_is_what_the_protocol_says() {
    xtask::skip_if!(NoGrpcPython);
    let out = tempfile::tempdir().unwrap();
    let mut command = Command::new(python());
    command.args(["-m", "grpc_tools.protoc", "-I"]).arg(folder("cocktail-agent/proto"));
    command.arg(format!("--python_out={}", out.path().display()));
    command.arg(format!("--grpc_python_out={}", out.path().display())).arg("worker.proto");
    assert!(command.status().unwrap().success());
    for file in ["worker_pb2.py", "worker_pb2_grpc.py"] {
        let kept = fs::read_to_string(folder("examples/python-worker").join(file)).unwrap();
        assert!(fs::read_to_string(out.path().join(file)).unwrap() == kept, "{file} is to be generated again");
    }
}

#[test]
fn a_worker_in_python_serves_waits_asks_for_help_and_loses_no_request() {
    xtask::skip_if!(NoGrpcPython);
    let home = Home::new();
    let manager = home.serve();
    let port = home.port();
    let worker = folder("examples/python-worker").canonicalize().unwrap();
    let manifest = |greeting: &str| {
        format!(
            "service = \"shop\"\n[maps.prod.units.orders]\nworker = [\"{}\", \"-B\", \"{}/orders.py\"]\n\
             microservices = [\"orders\"]\nconfig.orders = {{ greeting = \"{greeting}\" }}\n\
             scale = {{ min = 1, max = 3 }}\nwarm = 1\nupdate = {{ monitor = \"300ms\" }}\n\
             ports.http = {{ service = {port} }}\n",
            python().display(),
            worker.display()
        )
    };
    home.write("m.toml", manifest("v1"));
    home.ok(&["apply", "--wait", "m.toml"]);
    let states = || {
        let all = home.look_at_containers("orders").unwrap_or_default();
        let mut states: Vec<String> = all.iter().map(|it| it["state"].as_str().unwrap().to_owned()).collect();
        states.sort();
        states
    };
    home.eventually("one serves and one waits", || states() == ["ready", "waiting"]);
    let body = || http::get(port, "/").unwrap().body;
    assert!(body().starts_with("v1 orders-"), "{}", body());
    let load = Load::of(port, Shape { kept_rate: 50, kept: 4, new_rate: 50, path: "/".into() });
    home.eventually("the load is at work", || load.answered() > 20 || load.failed() > 0);
    manager.kill();
    let _manager = home.serve();
    // It is heard again, and helped by the one that waits.
    home.eventually("it is known again", || states() == ["ready", "waiting"]);
    assert!(http::get(port, "/help").unwrap().body.starts_with("v1 "));
    home.eventually("help has come", || states() == ["ready", "ready", "waiting"]);
    home.eventually("each knows of both", || (0..4).all(|_| http::get(port, "/peers").unwrap().body == "2\n"));
    home.write("m.toml", manifest("v2"));
    home.ok(&["apply", "--wait", "m.toml"]);
    home.eventually("the second version is alone", || {
        home.look("orders").is_some_and(|unit| unit["rollout"]["state"] == "completed")
            && states() == ["ready", "ready", "waiting"]
    });
    assert!(body().starts_with("v2 "), "{}", body());
    home.ok(&["scale", "orders", "1"]);
    home.eventually("one is left", || states() == ["ready", "waiting"]);
    home.eventually("it knows that it is alone", || http::get(port, "/peers").unwrap().body == "1\n");
    load.stop_after(50);
    home.finish();
}
