//! An HTTP endpoint on loopback for `http` gates.

use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::Result;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Answers every request with one status. Stops when dropped.
pub struct Endpoint {
    url: String,
    status: Arc<AtomicU16>,
    task: JoinHandle<()>,
}

impl Endpoint {
    /// Starts the endpoint on a free port. It answers 200 until changed.
    ///
    /// # Errors
    /// No port is available.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/healthz", listener.local_addr()?);
        let status = Arc::new(AtomicU16::new(200));
        let answer = status.clone();
        let task = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let status = answer.load(Ordering::Relaxed);
                tokio::spawn(async move {
                    // 0: takes the connection, and never answers.
                    if status == 0 {
                        std::future::pending::<()>().await;
                    }
                    let mut request = [0; 1024];
                    if stream.read(&mut request).await.is_ok() {
                        let reply = format!(
                            "HTTP/1.1 {status} Rehearsed\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
                        );
                        let _ = stream.write_all(reply.as_bytes()).await;
                    }
                });
            }
        });
        Ok(Self { url, status, task })
    }

    /// Returns its URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Sets the status of further answers. 0: it accepts connections and never answers.
    pub fn answer(&self, status: u16) {
        self.status.store(status, Ordering::Relaxed);
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        self.task.abort();
    }
}
