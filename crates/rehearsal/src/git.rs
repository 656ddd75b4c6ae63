//! A Git server on loopback: Git's own CGI program, behind a web server.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// Who commits.
const AUTHOR: [&str; 4] = ["-c", "user.name=platform", "-c", "user.email=platform@example.org"];

/// A server with one repository, `estate.git`. Dropped, it ends.
#[derive(Debug)]
pub struct GitServer {
    folder: PathBuf,
    url: String,
    serving: JoinHandle<()>,
}

impl Drop for GitServer {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl GitServer {
    /// Serves a repository with these files in it, from a new folder.
    ///
    /// # Errors
    /// Git fails, or no port is free.
    pub async fn start(folder: &Path, files: &[(&str, String)]) -> Result<Self> {
        let estate = folder.join("work");
        std::fs::create_dir_all(&estate)?;
        git(&estate, &["init", "--quiet", "--initial-branch=main"])?;
        for (name, text) in files {
            std::fs::write(estate.join(name), text)?;
        }
        commit(&estate, "estate: isolate and recover")?;
        git(folder, &["clone", "--quiet", "--bare", "work", "estate.git"])?;
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/estate.git", listener.local_addr()?);
        let app = Router::new().fallback(answer).with_state(folder.to_owned());
        let serving = tokio::spawn(async move {
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { folder: folder.to_owned(), url, serving })
    }

    /// Returns the repository's URL.
    #[must_use]
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes a file, and serves the commit with that.
    ///
    /// # Errors
    /// Git fails.
    pub fn push(&self, name: &str, text: &str) -> Result<()> {
        let estate = self.folder.join("work");
        std::fs::write(estate.join(name), text)?;
        commit(&estate, "estate: change it")?;
        git(&estate, &["push", "--quiet", "../estate.git", "main"]).map(drop)
    }

    /// Returns the commit that is served.
    ///
    /// # Errors
    /// Git fails.
    pub fn commit(&self) -> Result<String> {
        git(&self.folder.join("work"), &["rev-parse", "HEAD"])
    }
}

fn commit(estate: &Path, message: &str) -> Result<()> {
    git(estate, &["add", "."])?;
    git(estate, &[&AUTHOR[..], &["commit", "--quiet", "--message", message]].concat()).map(drop)
}

fn git(folder: &Path, arguments: &[&str]) -> Result<String> {
    let output = std::process::Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(arguments)
        .output()
        .context("Git cannot be run")?;
    ensure!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn answer(
    State(root): State<PathBuf>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let answer = ask_git(&root, &method, &uri, &headers, &body).await;
    answer.unwrap_or_else(|error| (StatusCode::INTERNAL_SERVER_ERROR, format!("{error:#}")).into_response())
}

/// By CGI (RFC 3875), as `git help http-backend` describes it.
async fn ask_git(
    root: &Path,
    method: &Method,
    uri: &Uri,
    headers: &HeaderMap,
    body: &Bytes,
) -> Result<Response> {
    let header =
        |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let mut backend = Command::new("git");
    backend
        .arg("http-backend")
        .env("GIT_PROJECT_ROOT", root)
        .env("GIT_HTTP_EXPORT_ALL", "1")
        .env("PATH_INFO", uri.path())
        .env("QUERY_STRING", uri.query().unwrap_or_default())
        .env("REQUEST_METHOD", method.as_str())
        .env("CONTENT_TYPE", header("content-type"))
        .env("CONTENT_LENGTH", body.len().to_string())
        .env("HTTP_CONTENT_ENCODING", header("content-encoding"))
        .env("GIT_PROTOCOL", header("git-protocol"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true);
    let mut child = backend.spawn()?;
    child.stdin.take().context("it has no input")?.write_all(body).await?;
    let said = child.wait_with_output().await?.stdout;
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").context("it answers without headers")?;
    let mut response = (StatusCode::OK, said[end + 4..].to_vec()).into_response();
    for line in String::from_utf8_lossy(&said[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = value.split(' ').next().unwrap_or_default().parse()?;
        } else {
            let name: HeaderName = name.parse()?;
            response.headers_mut().insert(name, HeaderValue::from_str(value)?);
        }
    }
    Ok(response)
}
