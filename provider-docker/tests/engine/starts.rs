//! How containers are started: ports, volumes, names, networks, images, probes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use cocktail_core::contract::{ExecInput, ExecSession, ExecSpec, Exit, LaunchProbe, LaunchVolume, ProbeKind, Sighting};
use cocktail_core::error::ErrorKind;
use cocktail_core::id::{ContainerId, Generation, UnitId};
use cocktail_core::name::Name;
use cocktail_core::quantity::{Bytes, CpuMillis};
use cocktail_core::spec::{Check, SecretSource, VolumeKind};
use futures_util::{SinkExt, StreamExt, stream};

use crate::machine::{self, IMAGE, Machine, kill, port};

machine::trials![
    a_leased_port_leads_to_another_number_inside_the_container,
    a_tcp_probe_is_not_fooled_by_the_proxy_of_the_engine,
    units_of_a_map_reach_each_other_by_name,
    volumes_outlive_their_containers_unless_they_are_ephemeral,
    a_container_cannot_gain_privileges_has_limits_and_bounded_logs_and_is_restarted_by_nobody,
    an_image_is_read_only_but_for_what_passes_unless_its_unit_says_otherwise,
    a_foreign_container_with_our_next_name_is_not_touched,
    a_network_and_a_volume_of_somebody_else_with_our_names_are_not_touched,
    the_same_start_asked_for_many_times_at_once_is_made_once,
    what_was_made_under_another_name_is_found_by_its_labels,
    a_network_that_goes_before_the_start_is_made_again,
    a_command_that_takes_no_input_ends_at_its_deadline,
    what_an_earlier_call_made_is_adopted_and_what_is_older_is_removed,
    an_image_that_does_not_exist_is_said_to,
    a_secret_reaches_the_program_and_no_error,
    a_network_that_a_dead_manager_left_goes_with_the_next_one,
    many_containers_come_and_go_and_leave_nothing,
];

/// What a command may take in a test that waits for its end.
const DEADLINE: Duration = Duration::from_secs(2);

pub(crate) fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn get(port: u16) -> String {
    let mut stream = TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).unwrap();
    stream.write_all(b"GET /index.html HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    answer
}

pub(crate) fn probe(check: Check, port: Option<u16>) -> LaunchProbe {
    let (every, timeout) = (Duration::from_millis(100), Duration::from_secs(5));
    LaunchProbe { kind: ProbeKind::Ready, check, port, every, timeout, failures: 2 }
}

pub(crate) const WEB: &str = "cd /tmp; echo hello > index.html; exec httpd -f -p 80";

async fn a_leased_port_leads_to_another_number_inside_the_container(machine: &mut Machine) {
    let leased = free_port();
    let mut launch = machine.launch("web", WEB);
    launch.ports.push(port(leased, Some(80)));
    launch.probes.push(probe(Check::Http { path: "/index.html".into(), port: None }, Some(leased)));
    machine.run(&launch).await;
    assert_eq!(machine.probed("web", true).await, "GET /index.html answered 200");
    assert!(get(leased).ends_with("hello\n"));
}

async fn a_tcp_probe_is_not_fooled_by_the_proxy_of_the_engine(machine: &mut Machine) {
    let leased = free_port();
    let mut launch = machine.launch("web", &format!("sleep 2; {WEB}"));
    launch.ports.push(port(leased, Some(80)));
    launch.probes.push(probe(Check::Tcp { port: None }, Some(leased)));
    machine.run(&launch).await;
    // The proxy takes the connection at once.
    TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], leased))).unwrap();
    assert!(machine.probed("web", false).await.contains("nobody listens behind"));
    machine.probed("web", true).await;
}

async fn units_of_a_map_reach_each_other_by_name(machine: &mut Machine) {
    machine.run(&machine.launch("web", WEB)).await;
    let unit = |map: &str| {
        let name = |text: &str| Name::new(text).unwrap();
        UnitId::new(name("shop"), name(map), name("client"))
    };
    // It may take a moment until the other one listens. Where the name is not known, others are asked for it in vain.
    let script = "for i in 1 2 3; do timeout 3 wget -q -O- http://web/index.html && exit 0; sleep 0.2; done; exit 9";
    for (map, exit) in [("test", Exit::Code(0)), ("other", Exit::Code(9))] {
        let mut client = machine.launch(&format!("client-{map}"), script);
        client.image.as_mut().unwrap().unit = unit(map);
        machine.run(&client).await;
        assert_eq!(machine.exited(&format!("client-{map}")).await, exit, "from the map {map}");
    }
}

async fn volumes_outlive_their_containers_unless_they_are_ephemeral(machine: &mut Machine) {
    let folder = tempfile::tempdir_in("/tmp").unwrap();
    std::fs::write(folder.path().join("given"), "x").unwrap();
    let volume = |name: &str, path: &str, kind| LaunchVolume {
        name: Name::new(name).unwrap(),
        path: path.into(),
        link: Some(format!("/mnt/{name}").into()),
        kind,
    };
    let volumes = vec![
        volume("kept", "shop/test/web/kept", VolumeKind::Shared),
        volume("gone", "shop/test/web/gone.a", VolumeKind::Ephemeral),
        volume("host", folder.path().to_str().unwrap(), VolumeKind::Bind),
    ];
    let mut first =
        machine.launch("a", "echo 1 > /mnt/kept/f && echo 1 > $COCKTAIL_VOLUME_GONE/f && cat /mnt/host/given");
    first.volumes = volumes.clone();
    machine.run(&first).await;
    assert_eq!(machine.exited("a").await, Exit::Code(0));
    machine.runtime().remove(&first.container).await.unwrap();
    assert_eq!(machine.left()[2].len(), 1, "the shared one stays, the ephemeral one goes");
    let found = machine.runtime().volumes().await.unwrap();
    let [kept] = &found[..] else { panic!("one volume: {found:?}") };
    assert!(kept.path.ends_with("shop/test/web/kept") && kept.location.join("f").is_file(), "{kept:?}");
    let mut second = machine.launch("b", "test -f /mnt/kept/f && ! test -f /mnt/gone/f");
    second.volumes = volumes;
    machine.run(&second).await;
    assert_eq!(machine.exited("b").await, Exit::Code(0));

    let link = folder.path().join("link");
    std::os::unix::fs::symlink("/etc", &link).unwrap();
    let mut third = machine.launch("c", "true");
    third.volumes = vec![volume("host", link.to_str().unwrap(), VolumeKind::Bind)];
    let refused = machine.runtime().prepare(&third).await.unwrap_err();
    assert!(*refused.kind() == ErrorKind::InvalidConfig && refused.to_string().contains("/etc"), "{refused}");
}

async fn a_container_cannot_gain_privileges_has_limits_and_bounded_logs_and_is_restarted_by_nobody(
    machine: &mut Machine,
) {
    let mut launch = machine.launch("a", "exec sleep 600");
    launch.resources.cpu = CpuMillis(500);
    launch.resources.memory = Bytes(64 << 20);
    launch.rlimits.insert("nofile".into(), 512);
    let id = machine.run(&launch).await.docker_id.unwrap();
    let format = "{{.HostConfig.SecurityOpt}} {{.HostConfig.RestartPolicy.Name}} {{.HostConfig.LogConfig.Type}} \
                  {{len .HostConfig.LogConfig.Config}} {{.HostConfig.Memory}} {{.HostConfig.NanoCpus}} \
                  {{(index .HostConfig.Ulimits 0).Soft}} {{.HostConfig.Init}} {{.HostConfig.ReadonlyRootfs}}";
    let seen = machine.engine.docker(&["inspect", "--format", format, &id]).unwrap();
    assert_eq!(seen, "[no-new-privileges:true] no json-file 2 67108864 500000000 512 true true");
}

async fn an_image_is_read_only_but_for_what_passes_unless_its_unit_says_otherwise(machine: &mut Machine) {
    let script = "for at in /tmp /run /var/cache /var/log /var/tmp; do echo x > $at/f || exit 3; done; echo x > /etc/f || exit 4";
    let mut launch = machine.launch("read", script);
    machine.run(&launch).await;
    assert_eq!(machine.exited("read").await, Exit::Code(4));
    launch.container = ContainerId::new("write");
    launch.image.as_mut().unwrap().read_only = Some(false);
    launch.argv = ["sh", "-c", "echo x > /etc/f && test ! -e /var/cache"].map(str::to_owned).to_vec();
    machine.run(&launch).await;
    assert_eq!(machine.exited("write").await, Exit::Code(0));
    // A volume at one of these places stays one.
    let mut launch = machine.launch("volume", "echo x > /run/f");
    launch.volumes.push(LaunchVolume {
        name: Name::new("run").unwrap(),
        path: "shop/test/web/run.volume".into(),
        link: Some("/run".into()),
        kind: VolumeKind::Ephemeral,
    });
    machine.run(&launch).await;
    assert_eq!(machine.exited("volume").await, Exit::Code(0));
}

async fn a_foreign_container_with_our_next_name_is_not_touched(machine: &mut Machine) {
    let launch = machine.launch("a", "exec sleep 600");
    let name = format!("cocktail-{}-a-1", machine.store);
    let foreign = machine.engine.docker(&["run", "-d", "--name", &name, IMAGE, "sleep", "600"]).unwrap();
    let refused = machine.runtime().prepare(&launch).await.unwrap_err();
    assert!(*refused.kind() == ErrorKind::Conflict && refused.to_string().contains(&name), "{refused}");
    machine.runtime().stop(&kill("a")).await.unwrap();
    machine.runtime().remove(&ContainerId::new("a")).await.unwrap();
    assert!(machine.runtime().list().await.unwrap().containers.is_empty());
    let state = machine.engine.docker(&["inspect", "--format", "{{.State.Status}}", &foreign]).unwrap();
    assert_eq!(state, "running");
    machine.engine.docker(&["rm", "--force", &foreign]).unwrap();
    machine.run(&launch).await;
}

async fn a_network_and_a_volume_of_somebody_else_with_our_names_are_not_touched(machine: &mut Machine) {
    let network = format!("cocktail-{}-shop.test", machine.store);
    let volume = format!("cocktail-{}-shop.test.web.data", machine.store);
    machine.engine.docker(&["network", "create", &network]).unwrap();
    machine.engine.docker(&["volume", "create", &volume]).unwrap();
    machine.run(&machine.launch("a", "exec sleep 600")).await;
    let mut launch = machine.launch("b", "true");
    launch.volumes.push(LaunchVolume {
        name: Name::new("data").unwrap(),
        path: "shop/test/web/data".into(),
        link: Some("/mnt".into()),
        kind: VolumeKind::Shared,
    });
    let refused = machine.runtime().prepare(&launch).await.unwrap_err();
    assert!(*refused.kind() == ErrorKind::Conflict && refused.to_string().contains(&volume), "{refused}");
    let inside = machine.engine.docker(&["network", "inspect", "--format", "{{len .Containers}}", &network]);
    assert_eq!(inside.unwrap(), "0");
    machine.runtime().stop(&kill("a")).await.unwrap();
    for name in ["a", "b"] {
        machine.runtime().remove(&ContainerId::new(name)).await.unwrap();
    }
    assert_eq!(machine.left(), [const { Vec::<String>::new() }; 3]);
    machine.engine.docker(&["network", "rm", &network]).unwrap();
    machine.engine.docker(&["volume", "rm", &volume]).unwrap();
}

async fn the_same_start_asked_for_many_times_at_once_is_made_once(machine: &mut Machine) {
    let (runtime, launch) = (machine.runtime(), machine.launch("a", "exec sleep 600"));
    let start = || async {
        runtime.prepare(&launch).await?;
        runtime.start(&launch).await
    };
    let handles = futures_util::future::join_all((0..8).map(|_| start())).await;
    let ids: std::collections::BTreeSet<_> = handles.into_iter().map(|handle| handle.unwrap().docker_id).collect();
    assert_eq!((ids.len(), machine.left()[0].len()), (1, 1));
}

async fn what_was_made_under_another_name_is_found_by_its_labels(machine: &mut Machine) {
    let launch = machine.launch("a", "exec sleep 600");
    let labels = [("store", machine.store.as_str()), ("container", "a"), ("generation", "1")];
    let labels = labels.map(|(key, value)| format!("--label=cocktail.{key}={value}"));
    let mut arguments = vec!["create", "--name", "something-else"];
    arguments.extend(labels.iter().map(String::as_str));
    arguments.extend([IMAGE, "sleep", "600"]);
    let made = machine.engine.docker(&arguments).unwrap();
    let handle = machine.runtime().start(&launch).await.unwrap();
    assert_eq!(handle.docker_id, Some(made));
}

async fn a_network_that_goes_before_the_start_is_made_again(machine: &mut Machine) {
    let launch = machine.launch("a", "exec sleep 600");
    machine.runtime().prepare(&launch).await.unwrap();
    let network = machine.left()[1].first().unwrap().clone();
    machine.engine.docker(&["network", "rm", &network]).unwrap();
    let failed = machine.runtime().start(&launch).await.unwrap_err();
    assert!(failed.kind().is_transient(), "{failed}");
    machine.run(&launch).await;
    assert_eq!((machine.left()[0].len(), machine.left()[1].len()), (1, 1));
}

async fn a_command_that_takes_no_input_ends_at_its_deadline(machine: &mut Machine) {
    let launch = machine.launch("a", "exec sleep 600");
    machine.run(&launch).await;
    let spec = ExecSpec { command: ["sleep", "600"].map(str::to_owned).to_vec(), tty: None, timeout: Some(DEADLINE) };
    let ExecSession { mut input, mut output } = machine.runtime().exec(&launch.container, &spec).await.unwrap();
    let writing = tokio::spawn(async move {
        let bytes = bytes::Bytes::from(vec![0; 1 << 20]);
        while input.send(ExecInput::Stdin(bytes.clone())).await.is_ok() {}
    });
    let error = output.next().await.unwrap().unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Deadline, "{error}");
    writing.await.unwrap();
}

async fn what_an_earlier_call_made_is_adopted_and_what_is_older_is_removed(machine: &mut Machine) {
    let first = machine.launch("a", "exec sleep 600");
    let handle = machine.run(&first).await;
    // The next Manager knows nothing of it, and asks for the same start.
    machine.attach(&[]).await;
    assert_eq!(machine.run(&first).await, handle);
    let mut second = first.clone();
    second.generation = Generation(2);
    machine.attach(&[]).await;
    machine.run(&second).await;
    assert_eq!(machine.left()[0].len(), 1, "generation 1 is removed");
    let late = machine.runtime().prepare(&first).await.unwrap_err();
    assert_eq!(*late.kind(), ErrorKind::Conflict, "{late}");
}

async fn an_image_that_does_not_exist_is_said_to(machine: &mut Machine) {
    let mut launch = machine.launch("a", "true");
    // Nobody listens there: it may come later.
    launch.image.as_mut().unwrap().reference = "127.0.0.1:1/no/such:1".into();
    let error = machine.runtime().prepare(&launch).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::Unavailable, "{error}");
    assert!(error.to_string().contains("127.0.0.1:1/no/such:1"), "{error}");
    // A registry that knows no such image says so for good.
    let registry = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = registry.local_addr().unwrap();
    let serving = std::thread::spawn(move || {
        for stream in registry.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut head = [0; 4096];
            let read = stream.read(&mut head).unwrap_or_default();
            let head = String::from_utf8_lossy(&head[..read]).into_owned();
            if head.starts_with("GET /end") {
                return;
            }
            let (status, body) = match head.starts_with("GET /v2/ ") {
                true => ("200 OK", "{}"),
                false => ("404 Not Found", r#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown"}]}"#),
            };
            let length = body.len();
            let headers =
                "Content-Type: application/json\r\nDocker-Distribution-Api-Version: registry/2.0\r\nConnection: close";
            let _gone = write!(stream, "HTTP/1.1 {status}\r\n{headers}\r\nContent-Length: {length}\r\n\r\n{body}");
        }
    });
    launch.image.as_mut().unwrap().reference = format!("{address}/no/such:1");
    let error = machine.runtime().prepare(&launch).await.unwrap_err();
    assert_eq!(*error.kind(), ErrorKind::InvalidConfig, "{error}");
    TcpStream::connect(address).unwrap().write_all(b"GET /end HTTP/1.0\r\n\r\n").unwrap();
    serving.join().unwrap();
    assert!(machine.left()[0].is_empty());
}

async fn a_secret_reaches_the_program_and_no_error(machine: &mut Machine) {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "hunter2\n").unwrap();
    let mut launch = machine.launch("a", "test \"$KEY\" = hunter2");
    launch.secrets.insert("KEY".into(), SecretSource::File(file.path().into()));
    machine.run(&launch).await;
    assert_eq!(machine.exited("a").await, Exit::Code(0));
    launch.container = ContainerId::new("b");
    launch.argv = vec!["no-such-program".into()];
    let error = machine.runtime().prepare(&launch).await.unwrap_err();
    assert!(error.to_string().contains("no-such-program") && !format!("{error:?}").contains("hunter2"), "{error:?}");
}

async fn a_network_that_a_dead_manager_left_goes_with_the_next_one(machine: &mut Machine) {
    let id = machine.run(&machine.launch("a", "exec sleep 600")).await.docker_id.unwrap();
    machine.attach(&[]).await;
    assert_eq!(machine.left()[1].len(), 1, "what is used stays");
    machine.engine.docker(&["rm", "--force", &id]).unwrap();
    machine.attach(&[]).await;
    assert_eq!(machine.left(), [const { Vec::<String>::new() }; 3]);
}

/// Descriptors of this process.
fn descriptors() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// Memory of this process that is in use, in KiB.
fn memory() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// Containers that are made and removed, and how many at once.
const CYCLES: u16 = 500;
const LANES: usize = 8;
/// After so many everything that is kept has been allocated.
const WARM: u16 = 100;
/// What memory may be more in the end, in KiB: what is kept for each would be more than that.
const SLACK: usize = 16 * 1024;

async fn many_containers_come_and_go_and_leave_nothing(machine: &mut Machine) {
    let machine = &*machine;
    let cycle = |number: u16| async move {
        let (runtime, name) = (machine.runtime(), format!("c{number}"));
        let mut launch = machine.launch(&name, "exec sleep 600");
        // Nobody else is in this network.
        launch.ports.push(port(20_000 + number, None));
        launch.volumes.push(LaunchVolume {
            name: Name::new("tmp").unwrap(),
            path: format!("shop/test/web/tmp.{name}").into(),
            link: Some("/mnt".into()),
            kind: VolumeKind::Ephemeral,
        });
        machine.run(&launch).await;
        let seen = runtime.list().await.unwrap().containers;
        assert!(matches!(seen[&launch.container].sighting, Sighting::Running(_)));
        runtime.stop(&kill(&name)).await.unwrap();
        runtime.remove(&launch.container).await.unwrap();
    };
    let all = |numbers| stream::iter(numbers).map(cycle).buffer_unordered(LANES).collect::<Vec<()>>();
    all(0..WARM).await;
    let before = (descriptors(), memory());
    all(WARM..CYCLES).await;
    assert_eq!(machine.left(), [const { Vec::<String>::new() }; 3]);
    let after = (descriptors(), memory());
    assert!(after.0 <= before.0 + LANES && after.1 <= before.1 + SLACK, "{before:?} before, {after:?} after");
}
