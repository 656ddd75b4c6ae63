//! What the operator of this control plane may read artifacts from: a real registry that wants a login, and one that never answers.

use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::LazyLock;

use rehearsal::Registry;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, LOCATION};
use reqwest::{Client, Method, Response, Url};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;

/// User `resurgam`, password `restored`, as a registry has them, and as logins are encoded.
const HTPASSWD: &str = r"resurgam:$2y$05$abcdefghijklmnopqrstuu0q3AqWozTSMa1UM96ghNHgnNRe0knkm";
pub const LOGIN: &str = "cmVzdXJnYW06cmVzdG9yZWQ=";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// All that the operator allows, for as long as this process lives.
struct Allowed {
    /// The registry and its folder, where it is built.
    real: Option<(Registry, TempDir)>,
    silent: TcpListener,
}

static ALLOWED: LazyLock<Allowed> = LazyLock::new(|| {
    let real = control_plane::part_if_built("registry").unwrap().map(|program| {
        let folder = TempDir::new().unwrap();
        let htpasswd = folder.path().join("htpasswd");
        std::fs::write(&htpasswd, HTPASSWD).unwrap();
        let auth = format!("{{htpasswd: {{realm: resurgam, path: {}}}}}", htpasswd.display());
        (Registry::start(&program, folder.path(), Some(&auth)).unwrap(), folder)
    });
    // Connections wait in its queue.
    Allowed { real, silent: TcpListener::bind("127.0.0.1:0").unwrap() }
});

/// Arguments of the operator.
pub fn arguments() -> Vec<String> {
    let real = ALLOWED.real.iter().map(|(registry, _)| format!("http://{}/allowed/", registry.address()));
    let all = real.chain([format!("http://{}/", silent())]);
    all.flat_map(|allowed| ["--oci-allow".to_owned(), allowed]).collect()
}

/// Host and port of the registry that never answers.
pub fn silent() -> String {
    ALLOWED.silent.local_addr().unwrap().to_string()
}

/// Host and port of the real registry. `None`: it is not built on this machine.
pub fn real() -> Option<&'static str> {
    ALLOWED.real.as_ref().map(|(registry, _)| registry.address())
}

pub fn digest_of(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

/// File in which the real registry keeps a blob.
pub fn blob(digest: &str) -> PathBuf {
    let (_, folder) = ALLOWED.real.as_ref().unwrap();
    let digits = digest.strip_prefix("sha256:").unwrap();
    folder.path().join(format!("blobs/docker/registry/v2/blobs/sha256/{}/{digits}/data", &digits[..2]))
}

/// Pushes an artifact of one layer, as Flux and ORAS do, and returns its reference.
pub async fn push(repository: &str, media_type: &str, layer: &[u8]) -> String {
    // An error says that it is set already.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let client = Client::new();
    let base: Url = format!("http://{}/v2/{repository}/", real().unwrap()).parse().unwrap();
    let send = async |method: Method, url: Url, type_: &str, body: &[u8]| -> Response {
        let request = client.request(method, url).header(AUTHORIZATION, format!("Basic {LOGIN}"));
        let answer = request.header(CONTENT_TYPE, type_).body(body.to_vec()).send().await;
        answer.unwrap().error_for_status().unwrap()
    };
    let descriptor = async |type_: &str, content: &[u8]| -> Value {
        let begun = send(Method::POST, base.join("blobs/uploads/").unwrap(), "text/plain", b"").await;
        let mut upload = base.join(begun.headers()[LOCATION].to_str().unwrap()).unwrap();
        upload.query_pairs_mut().append_pair("digest", &digest_of(content));
        send(Method::PUT, upload, "application/octet-stream", content).await;
        json!({"mediaType": type_, "digest": digest_of(content), "size": content.len()})
    };
    let config = descriptor("application/vnd.cncf.flux.config.v1+json", b"{}").await;
    let layer = descriptor(media_type, layer).await;
    let manifest = json!({"schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": [layer]});
    let manifest = manifest.to_string();
    let digest = digest_of(manifest.as_bytes());
    let url = base.join(&format!("manifests/{digest}")).unwrap();
    send(Method::PUT, url, MANIFEST, manifest.as_bytes()).await;
    format!("{}/{repository}@{digest}", real().unwrap())
}
