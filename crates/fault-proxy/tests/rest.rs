//! What the server holds once a client has died, whenever and however it dies.

#![allow(clippy::unwrap_used, reason = "helpers of tests are not recognised as tests")]

use std::sync::Arc;
use std::time::Duration;

use fault_proxy::{Moment, Proxy, Schedule};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;

/// Longer than anything here takes.
const DEADLINE: Duration = Duration::from_secs(30);

/// A server that tells of each request, and answers once it may.
struct Server {
    address: String,
    asked: Arc<Notify>,
    may_answer: Arc<Notify>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (asked, may_answer) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
        let (tells, waits) = (asked.clone(), may_answer.clone());
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let (tells, waits) = (tells.clone(), waits.clone());
                tokio::spawn(async move {
                    let mut request = [0; 4096];
                    while stream.read(&mut request).await.is_ok_and(|read| read > 0) {
                        tells.notify_one();
                        waits.notified().await;
                        let answer = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2\r\n\r\n{}";
                        stream.write_all(answer.as_bytes()).await.unwrap();
                    }
                });
            }
        });
        Self { address, asked, may_answer }
    }
}

#[tokio::test]
async fn last_request_of_a_client_that_is_gone_is_done_before_rest() {
    let server = Server::start().await;
    let folder = tempfile::tempdir().unwrap();
    let (from, to) = (folder.path().join("from.yaml"), folder.path().join("client.yaml"));
    let kubeconfig = format!(
        "{{apiVersion: v1, kind: Config, current-context: a, clusters: [{{name: a, cluster: {{server: 'http://{}'}}}}], \
         users: [{{name: a, user: {{token: t}}}}], contexts: [{{name: a, context: {{cluster: a, user: a}}}}]}}",
        server.address
    );
    std::fs::write(&from, kubeconfig).unwrap();
    let proxy = Proxy::start(&from, &to, Schedule::default()).await.unwrap();
    proxy.stop_at(1, Moment::Unanswered);

    let mut client = TcpStream::connect(proxy.address()).await.unwrap();
    let effect = "DELETE /api/v1/namespaces/a HTTP/1.1\r\nhost: proxy\r\ncontent-length: 0\r\n\r\n";
    client.write_all(effect.as_bytes()).await.unwrap();
    tokio::time::timeout(DEADLINE, server.asked.notified()).await.unwrap();
    client.shutdown().await.unwrap();
    // The proxy has noticed, and drops whatever it does for this connection.
    let closed = tokio::time::timeout(DEADLINE, client.read(&mut [0; 16])).await.unwrap();
    assert_eq!(closed.unwrap_or(0), 0);
    let stopped = proxy.stopped();
    tokio::pin!(stopped);
    assert!(futures::poll!(&mut stopped).is_pending(), "it is not done yet");
    server.may_answer.notify_one();
    tokio::time::timeout(DEADLINE, stopped).await.unwrap();
    assert_eq!(proxy.effects(), 1);
}
