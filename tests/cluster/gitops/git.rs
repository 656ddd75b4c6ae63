//! A Git server on loopback: git's own CGI program, behind a web server.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::task::JoinHandle;

/// A server with one repository, `estate.git`. Dropped, it ends.
pub struct Server {
    folder: tempfile::TempDir,
    url: String,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

impl Server {
    /// Serves a repository with these files in it.
    pub async fn start(files: &[(&str, String)]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let estate = folder.path().join("work");
        std::fs::create_dir(&estate).unwrap();
        git(&estate, &["init", "--quiet", "--initial-branch=main"]);
        for (name, text) in files {
            std::fs::write(estate.join(name), text).unwrap();
        }
        git(&estate, &["add", "."]);
        let author = ["-c", "user.name=platform", "-c", "user.email=platform@example.org"];
        git(
            &estate,
            &[&author[..], &["commit", "--quiet", "--message", "estate: isolate and recover"]].concat(),
        );
        git(folder.path(), &["clone", "--quiet", "--bare", "work", "estate.git"]);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/estate.git", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(folder.path().to_owned());
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { folder, url, serving }
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// Changes a file, and serves the commit with that.
    pub fn push(&self, name: &str, text: &str) {
        let estate = self.folder.path().join("work");
        std::fs::write(estate.join(name), text).unwrap();
        git(&estate, &["add", "."]);
        let author = ["-c", "user.name=platform", "-c", "user.email=platform@example.org"];
        git(&estate, &[&author[..], &["commit", "--quiet", "--message", "estate: change it"]].concat());
        git(&estate, &["push", "--quiet", "../estate.git", "main"]);
    }

    /// What is checked out of it, as the commit that everybody is given.
    pub fn commit(&self) -> String {
        git(&self.folder.path().join("work"), &["rev-parse", "HEAD"])
    }
}

fn git(folder: &Path, arguments: &[&str]) -> String {
    let output = std::process::Command::new("git").arg("-C").arg(folder).args(arguments).output().unwrap();
    assert!(output.status.success(), "git {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// By CGI (RFC 3875), as `git help http-backend` describes it.
async fn answer(
    State(root): State<PathBuf>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
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
    let mut child = backend.spawn().unwrap();
    child.stdin.take().unwrap().write_all(&body).await.unwrap();
    let said = child.wait_with_output().await.unwrap().stdout;
    let end = said.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let mut response = (StatusCode::OK, said[end + 4..].to_vec()).into_response();
    for line in String::from_utf8_lossy(&said[..end]).lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name.eq_ignore_ascii_case("status") {
            *response.status_mut() = value.split(' ').next().unwrap().parse().unwrap();
        } else {
            let name: HeaderName = name.parse().unwrap();
            response.headers_mut().insert(name, HeaderValue::from_str(value).unwrap());
        }
    }
    response
}
