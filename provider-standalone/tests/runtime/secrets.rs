//! What a worker's environment is made of, and where secrets do not appear.

use cocktail_core::error::ErrorKind;
use cocktail_core::spec::SecretSource;

use crate::machine::{Machine, content, trials};

trials![
    a_worker_sees_what_it_was_given_and_nothing_else_of_ours,
    a_secret_reaches_the_worker_and_nobody_else,
    what_is_missing_is_named_and_nothing_starts,
];

const CANARY: &str = "canary-5f2a9c";

async fn a_worker_sees_what_it_was_given_and_nothing_else_of_ours(machine: &mut Machine) {
    let mut launch = machine.launch("job-1", &["sh", "-c", "env > out.new; mv out.new out; sleep 600"]);
    launch.env.insert("GREETING".into(), "hi".into());
    // Set for every test process by cargo, and of no concern to a worker.
    assert!(std::env::var_os("CARGO_MANIFEST_DIR").is_some());
    launch.env_from.push("CARGO_PKG_NAME".into());
    machine.run(&launch).await;
    let env = content(machine.cwd.path().join("out")).await;
    let names: Vec<&str> = env.lines().filter_map(|line| Some(line.split_once('=')?.0)).collect();
    for name in ["GREETING", "CARGO_PKG_NAME", "PATH", "COCKTAIL_CONTAINER", "COCKTAIL_MARKER", "COCKTAIL_GENERATION"] {
        assert!(names.contains(&name), "{name} is missing: {names:?}");
    }
    let own = ["GREETING", "CARGO_PKG_NAME", "PATH", "HOME", "LANG", "TZ", "PWD", "OLDPWD", "SHLVL", "_"];
    let foreign: Vec<_> = names.iter().filter(|name| !own.contains(name) && !name.starts_with("COCKTAIL_")).collect();
    assert!(foreign.is_empty(), "{foreign:?}");
}

async fn a_secret_reaches_the_worker_and_nobody_else(machine: &mut Machine) {
    let file = machine.cwd.path().join("secret");
    std::fs::write(&file, format!("{CANARY}\n")).unwrap();
    let mut launch = machine.launch("job-1", &["sh", "-c", "printf %s \"$KEY\" > out.new; mv out.new out; sleep 600"]);
    launch.secrets.insert("KEY".into(), SecretSource::File(file));
    machine.run(&launch).await;
    assert_eq!(content(machine.cwd.path().join("out")).await, CANARY);

    let attached = machine.attached();
    let shown = format!("{launch:?} {:?} {:?}", attached.provider, attached.runtime);
    assert!(!shown.contains(CANARY));
    // Nor does it lie anywhere in the data dir.
    let mut folders = vec![machine.data().to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap().flatten() {
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                folders.push(entry.path());
            } else if kind.is_file() {
                let bytes = std::fs::read(entry.path()).unwrap();
                let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
                assert!(!found, "{} holds the secret", entry.path().display());
            }
        }
    }
}

async fn what_is_missing_is_named_and_nothing_starts(machine: &mut Machine) {
    let plain = machine.launch("job-1", &["sleep", "600"]);
    machine.runtime().prepare(&plain).await.unwrap();
    let mut from = plain.clone();
    from.env_from.push("NO_SUCH_VARIABLE_HERE".into());
    let mut env = plain.clone();
    env.secrets.insert("KEY".into(), SecretSource::Env("NO_SUCH_VARIABLE_HERE".into()));
    let mut file = plain.clone();
    file.secrets.insert("KEY".into(), SecretSource::File("/no/such/file".into()));
    for (launch, named) in [(from, "NO_SUCH_VARIABLE_HERE"), (env, "NO_SUCH_VARIABLE_HERE"), (file, "/no/such/file")] {
        let error = machine.runtime().start(&launch).await.unwrap_err();
        assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "{}", error.chain());
        assert!(error.message().contains(named), "{error}");
    }
    // Text that cannot be a variable is refused without being shown.
    let path = machine.cwd.path().join("binary");
    std::fs::write(&path, [CANARY.as_bytes(), b"\xff\xfe"].concat()).unwrap();
    let mut binary = plain.clone();
    binary.secrets.insert("KEY".into(), SecretSource::File(path));
    let error = machine.runtime().start(&binary).await.unwrap_err();
    assert!(error.chain().contains("holds no text") && !format!("{error:?} {}", error.chain()).contains(CANARY));

    machine.runtime().start(&plain).await.unwrap();
    machine.runtime().shutdown(true).await.unwrap();
}
