//! An HTTP server that has one short answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::thread::JoinHandle;

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime;
use tokio::sync::oneshot;

use super::socket;
use crate::bench::Error;
use crate::net::NetNs;

const ANSWER: &[u8] = b"netdp bench\n";

/// It runs on one thread, and ends when dropped.
#[derive(Debug)]
pub(in crate::bench) struct Server {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens in a namespace.
    pub(in crate::bench) fn start(ns: &NetNs, on: SocketAddr) -> Result<Self, Error> {
        let doing = || Error::system(format!("listening on {on}"));
        let listener = ns.run(|| socket::tcp_listening(on))?.map_err(doing())?;
        let runtime = runtime::Builder::new_current_thread().enable_io().build().map_err(doing())?;
        let listener = {
            let _entered = runtime.enter();
            TcpListener::from_std(listener).map_err(doing())?
        };
        let (stop, stopped) = oneshot::channel();
        // Sockets stay in the namespace they were made in: the thread needs not enter it.
        let thread = std::thread::spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = serve(&listener) => {}
                    _ = stopped => {}
                }
            });
        });
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // Its panic has been printed.
            let _ = thread.join();
        }
    }
}

async fn serve(listener: &TcpListener) {
    let answer =
        async |_: Request<_>| Ok::<_, Infallible>(Response::new(Full::new(Bytes::from_static(ANSWER))));
    loop {
        // A connection that fails is the client's to tell of.
        if let Ok((stream, _)) = listener.accept().await {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            tokio::spawn(connection);
        }
    }
}
