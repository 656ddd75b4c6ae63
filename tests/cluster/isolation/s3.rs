//! S3 servers on loopback: a real one, and one that lies.

use std::ffi::OsString;
use std::path::PathBuf;

use axum::Router;
use axum::http::Method;
use hyper_util::rt::{TokioExecutor, TokioIo};
use resurgam::isolation::evidence::Store;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const BUCKET: &str = "council";

/// A server with one bucket, which is a folder. Dropped, it ends.
pub struct Server {
    root: tempfile::TempDir,
    url: String,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    pub async fn start() -> Self {
        let (server, open) = Self::start_closed().await;
        open.send(()).unwrap();
        server
    }

    /// A server that answers nobody until it is told to.
    pub async fn start_closed() -> (Self, oneshot::Sender<()>) {
        let (open, opened) = oneshot::channel();
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join(BUCKET)).unwrap();
        let mut service = S3ServiceBuilder::new(s3s_fs::FileSystem::new(root.path()).unwrap());
        service.set_auth(SimpleAuth::from_single("access", "secret"));
        let service = service.build();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let serving = tokio::spawn(async move {
            let _ = opened.await;
            let server = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
            while let Ok((stream, _)) = listener.accept().await {
                let connection = server.serve_connection(TokioIo::new(stream), service.clone()).into_owned();
                tokio::spawn(connection);
            }
        });
        (Self { root, url, serving }, open)
    }

    /// A store in its bucket, below `2025/nov`.
    pub fn store(&self) -> Store {
        open(&self.url, "secret")
    }

    /// The same, with credentials that the server does not know.
    pub fn store_of_a_stranger(&self) -> Store {
        open(&self.url, "guessed")
    }

    /// Where its objects are, as files.
    pub fn objects(&self) -> PathBuf {
        self.root.path().join(BUCKET).join("2025/nov")
    }
}

/// A store behind a port that nobody listens on.
pub async fn unreachable() -> Store {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    open(&format!("http://{}", listener.local_addr().unwrap()), "secret")
}

/// A store that says that it took everything, and has something else.
pub async fn lying() -> (Store, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let answer = |method: Method| async move {
        let body = if method == Method::GET { "all is well" } else { "" };
        ([("etag", "\"1\""), ("last-modified", "Mon, 24 Nov 2025 03:00:00 GMT")], body)
    };
    let serving =
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
    (open(&url, "secret"), serving)
}

fn open(url: &str, secret: &str) -> Store {
    let environment = [
        ("AWS_ENDPOINT_URL", url),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_REGION", "eu-west-2"),
        ("AWS_ACCESS_KEY_ID", "access"),
        ("AWS_SECRET_ACCESS_KEY", secret),
        ("HOME", "/nowhere"),
    ];
    let environment = environment.map(|(name, value)| (OsString::from(name), OsString::from(value)));
    Store::open(format!("s3://{BUCKET}/2025/nov").parse().unwrap(), environment).unwrap()
}
