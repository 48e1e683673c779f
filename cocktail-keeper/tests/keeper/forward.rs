//! Service ports.

use std::{
    net::{Ipv6Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use cocktail_keeper::protocol::{Backend, BindOutcome, Event, Service, ServiceInfo, SetServices};
use libtest_mimic::Trial;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::Notify,
    time::timeout,
};

use crate::support::{Keeper, free_port, local, test};

pub(crate) fn tests() -> Vec<Trial> {
    vec![
        test("forward::bytes_go_both_ways_over_both_families", both_ways),
        test("forward::a_connection_goes_to_the_backend_with_the_fewest", least_connections),
        test("forward::a_refusing_backend_is_ejected_and_the_client_carried_elsewhere", ejection),
        test("forward::a_removed_backend_keeps_its_connections_until_they_end", draining),
        test("forward::connections_on_either_thread_are_counted_drained_and_told_idle", lanes),
        test("forward::connections_on_either_thread_end_with_their_keeper", lanes_end),
        test("forward::a_client_is_held_until_a_backend_comes", holding),
        test("forward::a_client_without_backend_is_closed_after_the_hold", hold_ends),
        test("forward::the_limit_makes_clients_wait", back_pressure),
        test("forward::addresses_in_use_are_said_and_reservations_become_services", listening),
        test("forward::much_data_and_half_closed_connections_come_through", half_close),
        test("forward::connections_outlive_their_manager", without_manager),
        test("forward::an_idle_http_client_goes_on_with_another_when_its_backend_leaves", idle_moves),
        test("forward::an_answer_on_its_way_is_finished_before_its_client_goes_on", answer_first),
        test("forward::a_request_without_an_answer_is_sent_again_once_if_that_does_no_harm", again),
        test("forward::an_idle_http_client_does_not_see_its_backend_end", idle_end),
        test("forward::a_client_that_asks_late_does_not_see_its_backend_end", late_asker),
        test("forward::clients_that_go_on_all_the_time_are_always_answered", always_answered),
        test("forward::requests_are_counted_with_their_latencies", counted),
        test("forward::the_first_client_that_waits_is_told", waiting_told),
    ]
}

/// A backend that answers each line with its name and the line, and counts connections.
async fn backend(name: &'static str, addr: SocketAddr) -> (Backend, Arc<AtomicUsize>) {
    let listener = TcpListener::bind(addr).await.unwrap();
    let addr = listener.local_addr().unwrap();
    let count = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&count);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            counted.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let mut buf = [0; 1024];
                while let Ok(length) = stream.read(&mut buf).await {
                    if length == 0 {
                        return;
                    }
                    let answer = format!("{name}:{}", String::from_utf8_lossy(&buf[..length]));
                    if stream.write_all(answer.as_bytes()).await.is_err() {
                        return;
                    }
                }
            });
        }
    });
    (Backend { container: name.to_owned(), addr }, count)
}

async fn ask(stream: &mut TcpStream, text: &str) -> String {
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut buf = [0; 1024];
    let length = stream.read(&mut buf).await.unwrap();
    String::from_utf8_lossy(&buf[..length]).into_owned()
}

fn service(listen: Vec<SocketAddr>, backends: &[&Backend]) -> Service {
    let backends = backends.iter().map(|backend| (*backend).clone()).collect();
    Service { key: "web".to_owned(), listen, backends, ..Service::default() }
}

async fn set(keeper: &Keeper, service: Service) {
    let table = SetServices { version: 1, services: vec![service] };
    let outcomes = keeper.client.set_services(table).await.unwrap();
    assert_eq!(outcomes["web"], BindOutcome::Bound);
}

async fn info(keeper: &Keeper) -> ServiceInfo {
    keeper.client.connections().await.unwrap().remove(0)
}

async fn both_ways() {
    let keeper = Keeper::new().await;
    let (four, _) = backend("four", local(0)).await;
    let (six, _) = backend("six", (Ipv6Addr::LOCALHOST, 0).into()).await;
    let port = free_port();
    let listen = vec![local(port), (Ipv6Addr::LOCALHOST, port).into()];
    set(&keeper, service(listen.clone(), &[&four])).await;
    for addr in listen.clone() {
        let mut stream = TcpStream::connect(addr).await.unwrap();
        assert_eq!(ask(&mut stream, "a").await, "four:a");
        assert_eq!(ask(&mut stream, "b").await, "four:b");
    }
    set(&keeper, service(listen.clone(), &[&six])).await;
    assert_eq!(ask(&mut TcpStream::connect(listen[0]).await.unwrap(), "a").await, "six:a");
}

async fn least_connections() {
    let keeper = Keeper::new().await;
    let (one, ones) = backend("one", local(0)).await;
    let (two, twos) = backend("two", local(0)).await;
    let port = free_port();
    set(&keeper, service(vec![local(port)], &[&one, &two])).await;
    let mut held = Vec::new();
    for _ in 0..10 {
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        ask(&mut stream, "x").await;
        held.push(stream);
    }
    assert_eq!((ones.load(Ordering::SeqCst), twos.load(Ordering::SeqCst)), (5, 5));
    let (three, threes) = backend("three", local(0)).await;
    set(&keeper, service(vec![local(port)], &[&one, &two, &three])).await;
    for _ in 0..5 {
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, "x").await, "three:x");
        held.push(stream);
    }
    assert_eq!(threes.load(Ordering::SeqCst), 5);
}

async fn ejection() {
    let mut keeper = Keeper::new().await;
    let (good, _) = backend("good", local(0)).await;
    let bad = Backend { container: "bad".to_owned(), addr: local(free_port()) };
    let port = free_port();
    set(&keeper, service(vec![local(port)], &[&bad, &good])).await;
    for _ in 0..20 {
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, "x").await, "good:x");
    }
    let frame = keeper.events.next().await.unwrap();
    assert_eq!(frame.event, Event::BackendRefused { service: "web".to_owned(), container: "bad".to_owned() });
    let bad_info = info(&keeper).await.backends.into_iter().find(|backend| backend.container == "bad").unwrap();
    assert!(bad_info.ejected);
    assert_eq!(bad_info.refused, 1, "asked once, then left alone");
    set(&keeper, service(vec![local(port)], &[&bad, &good])).await;
    assert!(info(&keeper).await.backends.iter().all(|backend| !backend.ejected), "the planner has spoken");
}

async fn draining() {
    let mut keeper = Keeper::new().await;
    let (old, _) = backend("old", local(0)).await;
    let (new, _) = backend("new", local(0)).await;
    let port = free_port();
    set(&keeper, service(vec![local(port)], &[&old])).await;
    let mut stream = TcpStream::connect(local(port)).await.unwrap();
    assert_eq!(ask(&mut stream, "a").await, "old:a");
    set(&keeper, service(vec![local(port)], &[&new])).await;
    assert_eq!(ask(&mut stream, "b").await, "old:b");
    assert_eq!(ask(&mut TcpStream::connect(local(port)).await.unwrap(), "c").await, "new:c");
    assert!(info(&keeper).await.backends.iter().any(|backend| backend.container == "old" && backend.removed));
    drop(stream);
    let frame = keeper.events.next().await.unwrap();
    assert_eq!(frame.event, Event::BackendIdle { service: "web".to_owned(), container: "old".to_owned() });
    assert!(info(&keeper).await.backends.iter().all(|backend| backend.container == "new"));
}

async fn lanes() {
    let mut keeper = Keeper::new().await;
    let (old, _) = backend("old", local(0)).await;
    let (new, _) = backend("new", local(0)).await;
    let port = free_port();
    set(&keeper, service(vec![local(port)], &[&old])).await;
    for _ in 0..4 {
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, "x").await, "old:x");
        drop(stream);
        while info(&keeper).await.active > 0 {
            tokio::task::yield_now().await;
        }
    }
    assert_eq!(forwarder_threads(&keeper), 1, "one connection after the other needs no second thread");
    let mut streams = Vec::new();
    for _ in 0..6 {
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, "x").await, "old:x");
        streams.push(stream);
    }
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(forwarder_threads(&keeper), cores.min(2));
    set(&keeper, service(vec![local(port)], &[&new])).await;
    // In this order both threads end one in turns, and the last one is not on the table's own.
    for left in (0..6).rev() {
        let service = info(&keeper).await;
        let draining = service.backends.iter().find(|backend| backend.container == "old").unwrap();
        assert_eq!((service.active, service.total), (left + 1, 10));
        assert_eq!((draining.active, draining.total, draining.removed), (left + 1, 10, true));
        assert_eq!(ask(streams.last_mut().unwrap(), "y").await, "old:y");
        drop(streams.remove(0));
        while info(&keeper).await.active > left {
            tokio::task::yield_now().await;
        }
        if left == 0 {
            let idle = Event::BackendIdle { service: "web".to_owned(), container: "old".to_owned() };
            assert_eq!(keeper.events.next().await.unwrap().event, idle);
        }
    }
    assert!(info(&keeper).await.backends.iter().all(|backend| backend.container == "new"));
}

async fn lanes_end() {
    let keeper = Keeper::in_process().await;
    let (one, _) = backend("one", local(0)).await;
    let port = free_port();
    set(&keeper, service(vec![local(port)], &[&one])).await;
    let mut streams = Vec::new();
    for _ in 0..4 {
        let mut stream = TcpStream::connect(local(port)).await.unwrap();
        assert_eq!(ask(&mut stream, "x").await, "one:x");
        streams.push(stream);
    }
    drop(keeper);
    for mut stream in streams {
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap_or(0), 0);
    }
}

fn forwarder_threads(keeper: &Keeper) -> usize {
    let threads = std::fs::read_dir(format!("/proc/{}/task", keeper.pid())).unwrap();
    let names = threads.map(|thread| std::fs::read_to_string(thread.unwrap().path().join("comm")).unwrap_or_default());
    names.filter(|name| name.starts_with("forwarder")).count()
}

async fn holding() {
    let keeper = Keeper::new().await;
    let port = free_port();
    set(&keeper, Service { hold_ms: 60_000, ..service(vec![local(port)], &[]) }).await;
    let mut stream = TcpStream::connect(local(port)).await.unwrap();
    stream.write_all(b"early").await.unwrap();
    while info(&keeper).await.waiting == 0 {
        tokio::task::yield_now().await;
    }
    let (late, _) = backend("late", local(0)).await;
    set(&keeper, Service { hold_ms: 60_000, ..service(vec![local(port)], &[&late]) }).await;
    let mut buf = [0; 64];
    let length = stream.read(&mut buf).await.unwrap();
    assert_eq!(&buf[..length], b"late:early");
}

async fn hold_ends() {
    let keeper = Keeper::new().await;
    let port = free_port();
    set(&keeper, Service { hold_ms: 20, ..service(vec![local(port)], &[]) }).await;
    let mut stream = TcpStream::connect(local(port)).await.unwrap();
    assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(info(&keeper).await.refused, 1);
}

async fn back_pressure() {
    let keeper = Keeper::new().await;
    let (one, ones) = backend("one", local(0)).await;
    let port = free_port();
    set(&keeper, Service { max_connections: 2, ..service(vec![local(port)], &[&one]) }).await;
    let mut first = TcpStream::connect(local(port)).await.unwrap();
    let mut second = TcpStream::connect(local(port)).await.unwrap();
    ask(&mut first, "x").await;
    ask(&mut second, "x").await;
    let mut third = TcpStream::connect(local(port)).await.unwrap();
    third.write_all(b"x").await.unwrap();
    assert_eq!(info(&keeper).await.active, 2);
    assert_eq!(ones.load(Ordering::SeqCst), 2);
    drop(first);
    let mut buf = [0; 64];
    let length = third.read(&mut buf).await.unwrap();
    assert_eq!(&buf[..length], b"one:x");
}

async fn listening() {
    let keeper = Keeper::new().await;
    let taken = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let taken = taken.local_addr().map(|addr| (taken, addr)).unwrap();
    let port = free_port();
    let outcomes = keeper.client.check_listen(vec![taken.1, local(port)]).await.unwrap();
    assert!(matches!(&outcomes[0], BindOutcome::AddrInUse { holder: Some(_), .. }), "{outcomes:?}");
    assert_eq!(outcomes[1], BindOutcome::Bound);
    let table = SetServices { version: 1, services: vec![service(vec![taken.1], &[])] };
    assert!(matches!(keeper.client.set_services(table).await.unwrap()["web"], BindOutcome::AddrInUse { .. }));
    set(&keeper, service(vec![local(port)], &[])).await;
    TcpStream::connect(local(port)).await.unwrap();
    assert_eq!(keeper.client.check_listen(vec![local(port)]).await.unwrap(), [BindOutcome::Bound]);
    // What is no longer named is closed, and the address is free at once, also for another service.
    let other = Service { key: "other".to_owned(), ..service(vec![local(port)], &[]) };
    let table = SetServices { version: 2, services: vec![other] };
    assert_eq!(keeper.client.set_services(table).await.unwrap()["other"], BindOutcome::Bound);
    keeper.client.set_services(SetServices::default()).await.unwrap();
    TcpListener::bind(local(port)).await.unwrap();
}

async fn half_close() {
    const BYTES: usize = 20_000_000;
    let keeper = Keeper::new().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let sum = Backend { container: "sum".to_owned(), addr: listener.local_addr().unwrap() };
    // Reads to the end, then answers: works only when the end of the client's sending is passed on.
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream.write_all(&all).await.unwrap();
    });
    let port = free_port();
    set(&keeper, service(vec![local(port)], &[&sum])).await;
    let mut stream = TcpStream::connect(local(port)).await.unwrap();
    let sent: Vec<u8> = (0..BYTES).map(|place| (place % 251) as u8).collect();
    stream.write_all(&sent).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut back = Vec::new();
    stream.read_to_end(&mut back).await.unwrap();
    assert!(back == sent);
}

async fn without_manager() {
    let mut keeper = Keeper::new().await;
    let (one, _) = backend("one", local(0)).await;
    let port = free_port();
    set(&keeper, service(vec![local(port)], &[&one])).await;
    let mut stream = TcpStream::connect(local(port)).await.unwrap();
    ask(&mut stream, "x").await;
    keeper.let_go().await;
    assert_eq!(ask(&mut stream, "y").await, "one:y");
    assert_eq!(ask(&mut TcpStream::connect(local(port)).await.unwrap(), "z").await, "one:z");
}

/// What an HTTP backend of these tests does with a request.
#[derive(Clone, Copy, PartialEq)]
enum Does {
    Answers,
    /// Answers, and closes the connection some time after, without a word in the answer.
    AnswersAndEnds,
    /// Sends a part of an answer, and the rest when it is told to.
    Lingers,
    /// Closes the connection when it is asked something.
    Dies,
    /// Closes the connection before it is.
    DiesUnasked,
}

/// An HTTP/1.1 backend that answers with its name. Counts requests; `go` lets those that linger go on.
async fn web(name: &'static str, does: Does) -> (Backend, Arc<AtomicUsize>, Arc<Notify>) {
    let listener = TcpListener::bind(local(0)).await.unwrap();
    let backend = Backend { container: name.to_owned(), addr: listener.local_addr().unwrap() };
    let (count, go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Notify::new()));
    let (counted, gone) = (Arc::clone(&count), Arc::clone(&go));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (counted, go) = (Arc::clone(&counted), Arc::clone(&gone));
            tokio::spawn(async move {
                let mut buf = [0; 1024];
                if does == Does::DiesUnasked {
                    drop(stream);
                    counted.fetch_add(1, Ordering::SeqCst);
                    return;
                }
                while stream.read(&mut buf).await.is_ok_and(|length| length > 0) {
                    counted.fetch_add(1, Ordering::SeqCst);
                    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", name.len());
                    let (first, rest) = name.split_at(1);
                    match does {
                        Does::Dies | Does::DiesUnasked => return,
                        Does::Lingers => {
                            stream.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
                            go.notified().await;
                            stream.write_all(rest.as_bytes()).await.unwrap();
                        }
                        Does::Answers | Does::AnswersAndEnds => {
                            stream.write_all(format!("{head}{name}").as_bytes()).await.unwrap();
                        }
                    }
                    if does == Does::AnswersAndEnds {
                        go.notified().await;
                        return;
                    }
                }
            });
        }
    });
    (backend, count, go)
}

/// Sends a request and reads the whole answer; the body, or nothing when the connection ended.
async fn request(stream: &mut TcpStream, method: &str) -> Option<String> {
    let request = format!("{method} / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n");
    stream.write_all(request.as_bytes()).await.ok()?;
    answer(stream).await
}

async fn answer(stream: &mut TcpStream) -> Option<String> {
    let mut text = String::new();
    let mut buf = [0; 1024];
    loop {
        let length = stream.read(&mut buf).await.ok().filter(|length| *length > 0)?;
        text.push_str(std::str::from_utf8(&buf[..length]).unwrap());
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let announced: usize = head.rsplit(' ').next().unwrap().parse().unwrap();
        if body.len() == announced {
            return Some(body.to_owned());
        }
    }
}

/// Clients on both threads.
async fn clients(addr: SocketAddr) -> Vec<TcpStream> {
    let mut clients = Vec::new();
    for _ in 0..4 {
        clients.push(TcpStream::connect(addr).await.unwrap());
    }
    clients
}

async fn idle_moves() {
    let mut keeper = Keeper::new().await;
    let (old, ..) = web("old", Does::Answers).await;
    let (new, ..) = web("new", Does::Answers).await;
    let addr = local(free_port());
    set(&keeper, service(vec![addr], &[&old])).await;
    let mut clients = clients(addr).await;
    for client in &mut clients {
        assert_eq!(request(client, "POST").await.as_deref(), Some("old"));
    }
    set(&keeper, service(vec![addr], &[&new])).await;
    let idle = Event::BackendIdle { service: "web".to_owned(), container: "old".to_owned() };
    assert_eq!(keeper.events.next().await.unwrap().event, idle, "nobody is kept by the old one");
    for client in &mut clients {
        assert_eq!(request(client, "POST").await.as_deref(), Some("new"));
        assert_eq!(request(client, "GET").await.as_deref(), Some("new"));
    }
}

async fn answer_first() {
    let keeper = Keeper::new().await;
    let (old, asked, go) = web("old", Does::Lingers).await;
    let (new, ..) = web("new", Does::Answers).await;
    let addr = local(free_port());
    set(&keeper, service(vec![addr], &[&old])).await;
    let mut clients = clients(addr).await;
    for client in &mut clients {
        client.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    }
    until(|| asked.load(Ordering::SeqCst) == clients.len()).await;
    set(&keeper, service(vec![addr], &[&new])).await;
    for _ in &clients {
        go.notify_one();
    }
    go.notify_waiters();
    for client in &mut clients {
        assert_eq!(answer(client).await.as_deref(), Some("old"));
        assert_eq!(request(client, "GET").await.as_deref(), Some("new"));
    }
}

async fn again() {
    let keeper = Keeper::new().await;
    let (bad, tried, _) = web("bad", Does::Dies).await;
    let (good, ..) = web("good", Does::Answers).await;
    let addr = local(free_port());
    // The one that waited longest is taken first, and that is the one that was named first.
    set(&keeper, service(vec![addr], &[&bad, &good])).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    assert_eq!(request(&mut client, "GET").await.as_deref(), Some("good"));
    assert_eq!(tried.load(Ordering::SeqCst), 1);
    // Also where the bad one has fewer connections than all others: it is not tried twice for one request.
    let mut others = Vec::new();
    for _ in 0..4 {
        let mut other = TcpStream::connect(addr).await.unwrap();
        assert_eq!(request(&mut other, "GET").await.as_deref(), Some("good"));
        others.push(other);
    }
    let before = tried.load(Ordering::SeqCst);
    set(&keeper, service(vec![addr], &[&bad])).await;
    for (method, tries) in [("POST", 1), ("GET", 3)] {
        let mut client = TcpStream::connect(addr).await.unwrap();
        assert_eq!(request(&mut client, method).await, None);
        assert_eq!(tried.load(Ordering::SeqCst) - before, tries, "{method}");
    }
}

async fn idle_end() {
    let keeper = Keeper::new().await;
    let (old, _, go) = web("old", Does::AnswersAndEnds).await;
    let addr = local(free_port());
    set(&keeper, service(vec![addr], &[&old])).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    assert_eq!(request(&mut client, "GET").await.as_deref(), Some("old"));
    go.notify_one();
    // It ends without having left the table, as one that crashes does.
    for _ in 0..3 {
        assert_eq!(request(&mut client, "GET").await.as_deref(), Some("old"));
        go.notify_one();
    }
}

async fn late_asker() {
    let keeper = Keeper::new().await;
    let (bad, ended, _) = web("bad", Does::DiesUnasked).await;
    let (good, ..) = web("good", Does::Answers).await;
    let addr = local(free_port());
    set(&keeper, service(vec![addr], &[&bad, &good])).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    until(|| ended.load(Ordering::SeqCst) == 1).await;
    assert_eq!(request(&mut client, "GET").await.as_deref(), Some("good"));
    // Once more is all: who is ended by every backend is told so, as it would be without a keeper between.
    set(&keeper, service(vec![addr], &[&bad])).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    assert_eq!(client.read(&mut [0; 8]).await.unwrap(), 0);
    assert_eq!(ended.load(Ordering::SeqCst), 3);
}

async fn always_answered() {
    let keeper = Keeper::new().await;
    let (one, ..) = web("one", Does::Answers).await;
    let (two, ..) = web("two", Does::Answers).await;
    let (three, ..) = web("three", Does::Answers).await;
    let addr = local(free_port());
    set(&keeper, service(vec![addr], &[&one])).await;
    let done = Arc::new(AtomicUsize::new(0));
    let asking = (0..16).map(|number| {
        let done = Arc::clone(&done);
        tokio::spawn(async move {
            let mut client = TcpStream::connect(addr).await.unwrap();
            while done.load(Ordering::SeqCst) == 0 {
                let answered = timeout(Duration::from_secs(5), request(&mut client, "GET")).await;
                assert!(answered.expect("an answer comes in time").is_some(), "the connection was ended");
                tokio::time::sleep(Duration::from_micros(50 * number)).await;
            }
        })
    });
    let asking: Vec<_> = asking.collect();
    for round in 0..300 {
        let table: &[&Backend] = match round % 4 {
            0 => &[&two],
            1 => &[&two, &three],
            2 => &[&three],
            _ => &[&one],
        };
        set(&keeper, service(vec![addr], table)).await;
        tokio::time::sleep(Duration::from_micros(100 * (round % 17))).await;
        assert!(!asking.iter().any(|client| client.is_finished()), "in round {round}");
    }
    done.store(1, Ordering::SeqCst);
    for client in asking {
        client.await.unwrap();
    }
}

async fn counted() {
    let keeper = Keeper::new().await;
    let (slow, asked, go) = web("slow", Does::Lingers).await;
    let addr = local(free_port());
    set(&keeper, service(vec![addr], &[&slow])).await;
    let mut client = TcpStream::connect(addr).await.unwrap();
    for _ in 0..3 {
        go.notify_one();
        assert!(request(&mut client, "GET").await.is_some());
    }
    let mut other = TcpStream::connect(addr).await.unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    until(|| asked.load(Ordering::SeqCst) == 4).await;
    assert!(other.read(&mut [0; 8]).await.unwrap() > 0, "its answer has begun");
    let info = info(&keeper).await;
    let backend = &info.backends[0];
    assert_eq!((backend.requests, info.requests, backend.in_flight), (4, 4, 0));
    assert_eq!(backend.latencies.iter().sum::<u64>(), 4);
}

async fn waiting_told() {
    let mut keeper = Keeper::new().await;
    let addr = local(free_port());
    set(&keeper, service(vec![addr], &[])).await;
    let _client = TcpStream::connect(addr).await.unwrap();
    let waits = Event::ClientWaiting { service: "web".to_owned() };
    assert_eq!(keeper.events.next().await.unwrap().event, waits);
}

async fn until(mut true_: impl FnMut() -> bool) {
    while !true_() {
        tokio::task::yield_now().await;
    }
}
