//! Who follows the endpoints, and who tells them.

use std::time::Duration;

use cocktail_agent::balance::Balancer;
use cocktail_agent::hub::Limits;
use cocktail_agent::protocol::workers_client::WorkersClient;
use cocktail_agent::protocol::{Backend, Endpoint, EndpointTable, WatchRequest};
use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::timeout;
use tonic::Code;

use crate::support::{House, LONG, channel};

fn table(ports: &[u32]) -> EndpointTable {
    let backend = |port: &u32| Backend { container: format!("stock-{port}"), host: "127.0.0.1".into(), port: *port };
    let endpoint = Endpoint {
        service: "shop".into(),
        map: "prod".into(),
        unit: "stock".into(),
        port_name: "http".into(),
        backends: ports.iter().map(backend).collect(),
        ..Endpoint::default()
    };
    EndpointTable { endpoints: vec![endpoint] }
}

/// Has the hub tell what is sent, and to nobody who asks for another unit.
fn tell(house: &House, ports: &[u32]) -> watch::Sender<EndpointTable> {
    let (tables, told) = watch::channel(table(ports));
    house.hub.learn_endpoints_from(std::sync::Arc::new(move |unit| {
        assert_eq!(unit, "shop/prod/stock");
        let mut told = told.clone();
        told.mark_changed();
        let next = |mut told: watch::Receiver<EndpointTable>| async move {
            told.changed().await.ok()?;
            let table = told.borrow_and_update().clone();
            Some((table, told))
        };
        stream::unfold(told, next).boxed()
    }));
    tables
}

async fn picks(stock: &Balancer, ports: &[u16]) {
    let picked = async {
        loop {
            let mut known: Vec<u16> = stock.addresses().iter().map(std::net::SocketAddr::port).collect();
            known.sort_unstable();
            if known == ports {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(LONG, picked).await.unwrap_or_else(|_| panic!("{:?} and not {ports:?}", stock.addresses()));
}

#[tokio::test]
async fn a_balancer_follows_and_goes_on_with_what_it_knows_while_nobody_tells() {
    let house = House::open();
    // It is there before anybody knows anything.
    let stock = Balancer::follow(house.socket(), "shop/prod/stock", "http");
    let tables = tell(&house, &[7]);
    assert_eq!(timeout(LONG, stock.pick()).await.unwrap().address().port(), 7);
    tables.send_replace(table(&[8, 9]));
    picks(&stock, &[8, 9]).await;
    let house = house.again();
    assert_eq!(stock.pick().await.container().split_once('-').unwrap().0, "stock");
    picks(&stock, &[8, 9]).await;
    let _tables = tell(&house, &[4]);
    picks(&stock, &[4]).await;
}

#[tokio::test]
async fn whoever_only_follows_is_no_stranger_and_one_that_asks_for_nonsense_is_told() {
    let house = House::with(Limits { first: Duration::from_secs(1), followers: 1, ..Limits::default() });
    let mut client = WorkersClient::new(channel(&house).await);
    let ask = |unit: &str| WatchRequest { unit: unit.to_owned() };
    let status = client.watch(ask("stock")).await.err().unwrap();
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "nobody knows the endpoints yet"));
    let tables = tell(&house, &[7]);
    let status = client.watch(ask(&"a".repeat(257))).await.err().unwrap();
    let because = "no unit has a name of more than 256 bytes";
    assert_eq!((status.code(), status.message()), (Code::FailedPrecondition, because));
    let mut told = client.watch(ask("shop/prod/stock")).await.unwrap().into_inner();
    assert_eq!(told.message().await.unwrap(), Some(table(&[7])));
    let status = client.watch(ask("shop/prod/stock")).await.err().unwrap();
    let because = "1 follow the endpoints already, which is the limit";
    assert_eq!((status.code(), status.message()), (Code::ResourceExhausted, because));
    // Longer than a connection may be silent that has not said who it is.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    tables.send_replace(table(&[8]));
    assert_eq!(timeout(LONG, told.message()).await.unwrap().unwrap(), Some(table(&[8])));
    drop(house);
    assert_eq!(timeout(LONG, told.message()).await.unwrap().ok().flatten(), None, "it ends with the hub");
}

#[tokio::test]
async fn one_that_never_reads_holds_up_nobody_and_is_told_the_newest() {
    let house = House::open();
    let tables = tell(&house, &[1]);
    let mut slow = WorkersClient::new(channel(&house).await)
        .max_decoding_message_size(64 << 20)
        .watch(WatchRequest { unit: "shop/prod/stock".into() })
        .await
        .unwrap()
        .into_inner();
    let many: Vec<u32> = (1..5_000).collect();
    let stock = Balancer::follow(house.socket(), "shop/prod/stock", "http");
    for last in 20_000..20_020 {
        // Each table is larger than what may be under way unread.
        tables.send_replace(table(&[&many[..], &[last]].concat()));
        let newest = async {
            while !stock.addresses().iter().any(|address| u32::from(address.port()) == last) {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(LONG, newest).await.unwrap();
    }
    let mut read = Vec::new();
    loop {
        let table = timeout(LONG, slow.message()).await.unwrap().unwrap().unwrap();
        read.push(table.endpoints[0].backends.last().unwrap().port);
        if read.last() == Some(&20_019) {
            break;
        }
    }
    assert!(read.len() < 20, "it missed what was in between: {read:?}");
}
