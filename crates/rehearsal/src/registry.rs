//! A real container registry on a free port.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context, Result, bail};

/// Time limit of the start.
const START: Duration = Duration::from_secs(30);

/// A registry without TLS. It stops when dropped.
#[derive(Debug)]
pub struct Registry {
    address: String,
    child: Child,
}

impl Registry {
    /// Starts the registry from the program of the part `registry`. Blobs and configuration are in `folder`; `auth` is that section of
    /// its configuration, in YAML flow style.
    ///
    /// # Errors
    /// It cannot be started, or does not listen. With its output.
    pub fn start(program: &Path, folder: &Path, auth: Option<&str>) -> Result<Self> {
        let auth = auth.map(|auth| format!("auth: {auth}\n")).unwrap_or_default();
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}/blobs}}}}\nhttp: {{addr: \"127.0.0.1:0\"}}\n{auth}",
            folder.display()
        );
        let path = folder.join("registry.yaml");
        std::fs::write(&path, config)?;
        let mut command = Command::new(program);
        command.arg("serve").arg(&path).env("OTEL_TRACES_EXPORTER", "none");
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let mut child = control_plane::spawn_bound(command)?;
        let stderr = BufReader::new(child.stderr.take().context("its stderr is gone")?);
        let mut registry = Self { address: String::new(), child };
        let (send, lines) = mpsc::channel();
        std::thread::spawn(move || {
            stderr.lines().map_while(Result::ok).for_each(|line| drop(send.send(line)));
        });
        let mut log = Vec::new();
        loop {
            let Ok(line) = lines.recv_timeout(START) else {
                bail!("the registry does not listen:\n{}", log.join("\n"))
            };
            if let Some((_, rest)) = line.split_once("listening on ") {
                registry.address =
                    rest.chars().take_while(|c| c.is_ascii_digit() || ".:".contains(*c)).collect();
                return Ok(registry);
            }
            log.push(line);
        }
    }

    /// Returns its host and port.
    #[must_use]
    pub fn address(&self) -> &str {
        &self.address
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
