//! The image on its way to a real registry and back.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::sync::mpsc;

use rehearsal::Registry;
use serde_json::Value;
use tempfile::TempDir;

use super::{BINARY, IMAGE, PACKAGES, sha256, xtask_image};

/// User `resurgam`, password `restored`, as a registry has them, and as `docker login` leaves them.
const HTPASSWD: &str = r"resurgam:$2y$05$abcdefghijklmnopqrstuu0q3AqWozTSMa1UM96ghNHgnNRe0knkm";
const ENCODED: &str = "cmVzdXJnYW06cmVzdG9yZWQ=";

/// A registry with these credentials, and its folder. `FOLDER` in `auth` is that one.
fn started(program: &Path, auth: &str) -> (Registry, TempDir) {
    let folder = TempDir::new().unwrap();
    fs::write(folder.path().join("htpasswd"), HTPASSWD).unwrap();
    let auth = auth.replace("FOLDER", &folder.path().display().to_string());
    (Registry::start(program, folder.path(), Some(&auth)).unwrap(), folder)
}

/// Pushes as somebody would, with their credentials in a file, and returns what was said on stderr if it failed.
fn push(registry: &Registry, credentials: &Value) -> Result<String, String> {
    let out = TempDir::new().unwrap();
    let auth = out.path().join("auth.json");
    fs::write(&auth, credentials.to_string()).unwrap();
    let mut command = xtask_image(&out.path().join("image"), PACKAGES.as_ref().unwrap());
    command.args([
        "--binary",
        BINARY,
        "--plain-http",
        "--push",
        &format!("{}/team/resurgam:1.2.3", registry.address()),
    ]);
    let output = command.env("REGISTRY_AUTH_FILE", auth).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().trim().to_owned();
    if output.status.success() { Ok(text(&output.stdout)) } else { Err(text(&output.stderr)) }
}

/// Gets the image by its digest, and each blob that it names, as a node does.
fn pull(registry: &Registry, digest: &str, authorization: &str) {
    // An error says that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let client = reqwest::Client::new();
    let get = |path: String| {
        let url = format!("http://{}/v2/team/resurgam/{path}", registry.address());
        let request = client.get(url).header("Authorization", authorization);
        let request = request.header("Accept", "application/vnd.oci.image.manifest.v1+json");
        let content = runtime.block_on(async { request.send().await?.error_for_status()?.bytes().await });
        content.unwrap_or_else(|error| panic!("{path}: {error}")).to_vec()
    };
    let manifest = get(format!("manifests/{digest}"));
    assert_eq!(sha256(&manifest), digest);
    assert_eq!(get("manifests/1.2.3".to_owned()), manifest);
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    for descriptor in manifest["layers"].as_array().unwrap().iter().chain([&manifest["config"]]) {
        let digest = descriptor["digest"].as_str().unwrap();
        assert_eq!(sha256(&get(format!("blobs/{digest}"))), digest);
    }
}

#[test]
fn pushed_image_comes_back_by_its_digest() {
    let (Some(program), Some((_, image))) =
        (control_plane::part_if_built("registry").unwrap(), IMAGE.as_ref())
    else {
        return;
    };
    let (registry, _folder) = started(&program, "{htpasswd: {realm: resurgam, path: FOLDER/htpasswd}}");
    let refusal = push(&registry, &serde_json::json!({})).unwrap_err();
    assert!(refusal.contains(&format!("`skopeo login {}`", registry.address())), "{refusal}");

    let credentials = serde_json::json!({"auths": {registry.address(): {"auth": ENCODED}}});
    assert_eq!(push(&registry, &credentials).unwrap(), image.digest);
    pull(&registry, &image.digest, &format!("Basic {ENCODED}"));
    // Everything is there already, and that is as good.
    assert_eq!(push(&registry, &credentials).unwrap(), image.digest);
}

#[test]
fn registry_that_wants_a_token_gets_one() {
    let (Some(program), Some((_, image))) =
        (control_plane::part_if_built("registry").unwrap(), IMAGE.as_ref())
    else {
        return;
    };
    let tokens = TcpListener::bind("127.0.0.1:0").unwrap();
    let realm = format!("http://{}/token", tokens.local_addr().unwrap());
    let (send, asked) = mpsc::channel();
    std::thread::spawn(move || {
        for stream in tokens.incoming().map_while(Result::ok) {
            let mut request = BufReader::new(&stream);
            let mut head = Vec::new();
            while let Some(line) = read_line(&mut request) {
                head.push(line);
            }
            let body = r#"{"token": "let-me-in"}"#;
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                body.len()
            );
            let _ = (&stream).write_all(answer.as_bytes());
            let _ = send.send(head);
        }
    });
    let (registry, _folder) =
        started(&program, &format!("{{silly: {{realm: \"{realm}\", service: restore}}}}"));
    let credentials = serde_json::json!({"auths": {registry.address(): {"auth": ENCODED}}});
    assert_eq!(push(&registry, &credentials).unwrap(), image.digest);
    pull(&registry, &image.digest, "Bearer let-me-in");
    let head = asked.try_recv().expect("nobody asked for a token");
    assert_eq!(
        head[0],
        "GET /token?service=restore&scope=repository%3Ateam%2Fresurgam%3Apull%2Cpush HTTP/1.1"
    );
    assert!(
        head.iter().any(|line| line.eq_ignore_ascii_case(&format!("authorization: Basic {ENCODED}"))),
        "{head:?}"
    );
    assert!(asked.try_recv().is_err(), "one token does for one push");
}

/// A line of a request's head; none at its end.
fn read_line(request: &mut impl BufRead) -> Option<String> {
    let mut line = String::new();
    request.read_line(&mut line).ok()?;
    Some(line.trim_end().to_owned()).filter(|line| !line.is_empty())
}
