use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

/// Answers each connection with the same bytes, after having read a request.
async fn endpoint(answer: Vec<u8>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                let _ = stream.write_all(&answer).await;
            });
        }
    });
    at
}

fn target(at: SocketAddr) -> Target {
    let wanted = BTreeSet::from(["zz_jobs".to_owned()]);
    Target { container: ContainerId::new("web-1"), at, path: "/metrics".into(), wanted }
}

fn ok(body: &str) -> Vec<u8> {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes()
}

#[tokio::test]
async fn a_body_is_read_with_a_length_and_without_one() {
    let plain = endpoint(ok("jobs{q=\"a\"} 3\njobs{q=\"b\"} 4\n")).await;
    assert_eq!(ask(target(plain)).await.1.unwrap(), BTreeMap::from([("jobs".into(), 7.0)]));
    let chunked = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n7\r\njobs 7\n\r\n0\r\n\r\n".to_vec();
    assert_eq!(ask(target(endpoint(chunked).await)).await.1.unwrap(), BTreeMap::from([("jobs".into(), 7.0)]));
    let until_closed = b"HTTP/1.1 200 OK\r\n\r\njobs 7\n".to_vec();
    assert_eq!(ask(target(endpoint(until_closed).await)).await.1.unwrap(), BTreeMap::from([("jobs".into(), 7.0)]));
}

#[tokio::test]
async fn what_is_no_answer_is_an_error_and_no_metric() {
    let missing = endpoint(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_vec()).await;
    assert_eq!(ask(target(missing)).await.1.unwrap_err(), "it answered 404");
    let huge = endpoint(ok(&"a 1\n".repeat(MOST_BYTES / 4 + 1))).await;
    assert!(ask(target(huge)).await.1.unwrap_err().contains("limit"));
    assert!(ask(target(endpoint(b"SSH-2.0\r\n".to_vec()).await)).await.1.is_err());
    let mut odd = target(endpoint(ok("")).await);
    odd.path = "no path".into();
    assert!(ask(odd).await.1.unwrap_err().contains("no path"));
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_silent_is_given_up_and_its_old_answer_is_not_used_for_long() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let at = listener.local_addr().unwrap();
    assert_eq!(ask(target(at)).await.1.unwrap_err(), "no answer within a second");
    let scraper = Scraper::new(Duration::from_secs(10));
    let answer = Ok(BTreeMap::from([("jobs".to_owned(), 7.0)]));
    note(&mut lock(&scraper.found), target(at), answer);
    let id = ContainerId::new("web-1");
    assert_eq!(scraper.metrics(&id).len(), 1);
    tokio::time::advance(Duration::from_secs(22)).await;
    assert!(scraper.metrics(&id).is_empty(), "two intervals later nothing is known");
}

#[tokio::test]
async fn a_container_keeps_what_somebody_asked_for_and_a_bounded_rest() {
    let many: String = (0..200).map(|n| format!("a{n:03} 1\n")).collect();
    let at = endpoint(ok(&format!("{many}zz_jobs 9\n"))).await;
    let mut scraper = Scraper::new(Duration::from_secs(10));
    scraper.begin(vec![target(at)]);
    assert!(scraper.round.join_next().await.is_some());
    let metrics = scraper.metrics(&ContainerId::new("web-1"));
    assert_eq!((metrics.len(), metrics["zz_jobs"]), (MOST_METRICS + 1, 9.0));
    scraper.begin(Vec::new());
    assert!(scraper.metrics(&ContainerId::new("web-1")).is_empty(), "who is gone is forgotten");
}
