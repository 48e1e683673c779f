//! An agent that has stopped reading, while its connection stands.

use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use cocktail_agent::gate::GateLimits;
use cocktail_agent::wire::gate_client::GateClient;
use cocktail_core::contract::ExecInput;
use futures_util::future::BoxFuture;
use futures_util::{SinkExt as _, StreamExt as _};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use tonic::transport::Endpoint;

use super::support::{HERE, House, LONG, Opened, Session, tls};

/// A connection that reads nothing any more once it is told so.
struct Deaf {
    stream: TlsStream<TcpStream>,
    is_deaf: Arc<AtomicBool>,
}

impl AsyncRead for Deaf {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.is_deaf.load(Ordering::Relaxed) {
            return Poll::Pending;
        }
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Deaf {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

struct Dialer(SocketAddr, Arc<ClientConfig>, Arc<AtomicBool>);

impl tower_service::Service<http::Uri> for Dialer {
    type Response = TokioIo<Deaf>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        let (address, config, is_deaf) = (self.0, self.1.clone(), self.2.clone());
        Box::pin(async move { Ok(TokioIo::new(Deaf { stream: tls(address, config, HERE).await?, is_deaf })) })
    }
}

/// Its windows are so large that the gate fills the connection, and waits there to write.
#[tokio::test]
async fn an_agent_that_stops_reading_is_gone_when_no_ping_is_answered() {
    let (ping, pong) = (Duration::from_millis(300), Duration::from_millis(300));
    // Its place is the only one.
    let mut house = House::with(GateLimits { ping, pong, connections: 1, ..GateLimits::default() }).await;
    let is_deaf = Arc::new(AtomicBool::new(false));
    let window = (1 << 31) - 1;
    let endpoint = Endpoint::from_static("http://manager");
    let endpoint = endpoint.initial_stream_window_size(window).initial_connection_window_size(window);
    let dialer = Dialer(house.address(), house.agent("a").calls(), is_deaf.clone());
    let client = GateClient::new(endpoint.connect_with_connector(dialer).await.unwrap());
    let mut session = Session::open(client).await.unwrap();
    let mut link = house.link().await;
    let _unread = Opened::with(1, &mut session.client).await.unwrap();
    let mut aside = link.sender.aside(1).await.unwrap();
    is_deaf.store(true, Ordering::Relaxed);
    let flood = async { while aside.input.send(ExecInput::Stdin(vec![7; 64 << 10].into())).await.is_ok() {} };
    timeout(LONG, flood).await.expect("whoever writes learns that it is gone");
    while timeout(LONG, link.frames.next()).await.expect("the session ends").is_some() {}
    timeout(LONG, house.goes_on()).await.expect("its place is free");
}
