//! A real S3 server on a free port, with versions and object lock.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

/// Time limit of the start.
const START: Duration = Duration::from_secs(30);
/// Interval between two attempts to connect.
const AGAIN: Duration = Duration::from_millis(50);

/// An S3 server without TLS, which checks signatures. It stops when dropped.
#[derive(Debug)]
pub struct S3Server {
    address: SocketAddr,
    child: Child,
}

impl S3Server {
    /// Starts the server from the program of the part `versitygw`, for the owner of these keys. Objects, versions and log are in `folder`,
    /// on a file system that has extended attributes.
    ///
    /// # Errors
    /// It cannot be started, or does not listen. With its output.
    pub fn start(program: &Path, folder: &Path, access: &str, secret: &str) -> Result<Self> {
        let [objects, versions] = ["objects", "versions"].map(|name| folder.join(name));
        std::fs::create_dir_all(&objects)?;
        std::fs::create_dir_all(&versions)?;
        // The server does not say which port it was given, so it is given one that is free now.
        let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let path = folder.join("s3.log");
        let log = std::fs::File::create(&path)?;
        let mut command = Command::new(program);
        command
            .args([
                "--port",
                &address.to_string(),
                "--access",
                access,
                "--quiet",
                "posix",
                "--versioning-dir",
            ])
            .arg(versions)
            .arg(objects)
            .env("ROOT_SECRET_ACCESS_KEY", secret)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        let child = control_plane::spawn_bound(command)?;
        let mut server = Self { address, child };
        let until = Instant::now() + START;
        while TcpStream::connect(address).is_err() {
            let said = || std::fs::read_to_string(&path).unwrap_or_default();
            let ended = server.child.try_wait().context("its state")?;
            ensure!(ended.is_none(), "the S3 server ended:\n{}", said());
            ensure!(Instant::now() < until, "the S3 server does not listen:\n{}", said());
            std::thread::sleep(AGAIN);
        }
        Ok(server)
    }

    /// Returns its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
