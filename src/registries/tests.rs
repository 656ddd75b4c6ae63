use std::net::SocketAddr;
use std::sync::Mutex;

use serde_json::json;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const MANIFEST: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: routes}\n";
/// Answers nothing, and keeps the connection open.
const SILENT: &str = "";

/// What a server answers to a request's first line and its `Authorization`.
type Answers = Box<dyn Fn(&str, Option<&str>) -> String + Send + Sync>;

/// A registry as its answers have it, and the first lines of what it was asked.
async fn server(answers: Answers) -> (SocketAddr, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                request.push(stream.read_u8().await.unwrap());
            }
            let request = String::from_utf8(request).unwrap();
            let first = request.lines().next().unwrap();
            let authorization = request.lines().find_map(|line| line.strip_prefix("authorization: "));
            log.lock().unwrap().push(first.to_owned());
            let answer = answers(first, authorization);
            if answer == SILENT {
                tokio::spawn(async move {
                    let _stream = stream;
                    std::future::pending::<()>().await;
                });
                continue;
            }
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    (address, asked)
}

fn digest_of_bytes(bytes: &[u8]) -> String {
    let digits: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}", body.len())
}

fn status(line: &str, header: &str) -> String {
    format!("HTTP/1.1 {line}\r\n{header}\r\ncontent-length: 6\r\nconnection: close\r\n\r\nsecret")
}

/// An artifact of one YAML file: its manifest, and the digests of both.
fn artifact() -> (String, String, String) {
    let layer = digest_of_bytes(MANIFEST.as_bytes());
    let layers = json!([{"mediaType": "application/yaml", "digest": layer, "size": MANIFEST.len()}]);
    let manifest = json!({"schemaVersion": 2, "layers": layers}).to_string();
    let digest = digest_of_bytes(manifest.as_bytes());
    (manifest, digest, layer)
}

/// A registry that answers with the artifact as it is.
fn honest() -> Answers {
    let (manifest, ..) = artifact();
    Box::new(move |asked, _| if asked.contains("/manifests/") { ok(&manifest) } else { ok(MANIFEST) })
}

async fn read(
    address: SocketAddr,
    login: Option<&str>,
    http_allow: &str,
) -> Result<BTreeMap<String, String>, ArtifactError> {
    let allow = vec![format!("http://{address}/team/").parse().unwrap()];
    let mut registries = Registries::new(allow, http_allow.parse().into_iter().collect()).unwrap();
    registries.deadline = Duration::from_millis(500);
    let (_, digest, _) = artifact();
    let reference = format!("{address}/team/shop@{digest}").parse().unwrap();
    registries.files(&reference, login).await
}

#[tokio::test]
async fn artifact_is_read_by_its_digest() {
    let (address, asked) = server(honest()).await;
    let (_, digest, layer) = artifact();
    let files = read(address, None, "").await.unwrap();
    assert_eq!(files, [(layer.clone(), MANIFEST.to_owned())].into());
    let expected = [format!("manifests/{digest}"), format!("blobs/{layer}")];
    assert_eq!(*asked.lock().unwrap(), expected.map(|path| format!("GET /v2/team/shop/{path} HTTP/1.1")));
}

#[tokio::test]
async fn registry_that_is_not_allowed_is_asked_nothing() {
    let (address, asked) = server(honest()).await;
    let (_, digest, _) = artifact();
    let registries = Registries::new(vec![format!("{address}/other/").parse().unwrap()], Vec::new()).unwrap();
    let reference = format!("{address}/team/shop@{digest}").parse().unwrap();
    let error = registries.files(&reference, None).await.unwrap_err();
    let expected = format!("--oci-allow {address}/team/shop");
    assert!(matches!(&error, ArtifactError::Refused(why) if why.contains(&expected)), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn registry_that_lies_or_refuses_is_told_from_one_that_is_down() {
    let (manifest, ..) = artifact();
    let only_manifest = |other: String| -> Answers {
        let manifest = manifest.clone();
        Box::new(move |asked, _| if asked.contains("/manifests/") { ok(&manifest) } else { other.clone() })
    };
    let always = |answer: String| -> Answers { Box::new(move |_, _| answer.clone()) };
    let forged = MANIFEST.replace("routes", "forged");
    for (answers, is_refused, words) in [
        (always(ok("{}")), true, "with content of digest sha256:"),
        (only_manifest(ok(&forged)), true, "with content of digest sha256:"),
        (only_manifest(ok(&format!("{MANIFEST}\n"))), true, "answers with more than"),
        (always(ok(&"x".repeat(MANIFEST_LIMIT + 1))), true, "answers with more than 262144 bytes"),
        (always(status("404 Not Found", "x: y")), true, "it is not there"),
        (always(status("403 Forbidden", "x: y")), true, "it wants a login, by pullSecret"),
        (always(status("418 I'm a teapot", "x: y")), true, "answers 418"),
        (
            always(status("401 Unauthorized", "www-authenticate: Negotiate")),
            true,
            "of a kind that is not known",
        ),
        (always(status("401 Unauthorized", "www-authenticate: Basic")), true, "name a pullSecret"),
        (always(status("503 Down", "x: y")), false, "answers 503"),
        (always(status("429 Slowly", "x: y")), false, "answers 429"),
        (always(SILENT.to_owned()), false, "within 0 s"),
        (only_manifest(SILENT.to_owned()), false, "within 0 s"),
    ] {
        let (address, _) = server(answers).await;
        let error = read(address, None, "").await.unwrap_err();
        assert_eq!(matches!(error, ArtifactError::Refused(_)), is_refused, "{words}: {error:?}");
        let error = error.to_string();
        assert!(error.contains(words) && !error.contains("secret"), "{words}: {error}");
    }
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let error = read(gone, None, "").await.unwrap_err();
    assert!(matches!(error, ArtifactError::Unavailable(_)), "{error:?}");
}

#[tokio::test]
async fn redirect_is_followed_by_https_only_and_not_everywhere() {
    let (elsewhere, asked_elsewhere) = server(honest()).await;
    for (location, words) in [
        (format!("http://{elsewhere}/blob"), "which is not https"),
        ("https://127.0.0.1:1/blob".to_owned(), "127.0.0.1 is loopback"),
        ("https://169.254.169.254/blob".to_owned(), "169.254.169.254 is link-local"),
        ("https://user:secret@stores.example/blob".to_owned(), "sends elsewhere: the URL holds credentials"),
        ("file:///etc/passwd".to_owned(), "which is not https"),
        ("/v2/team/shop/again".to_owned(), "redirects more than 4 times"),
    ] {
        let header = format!("location: {location}");
        let (address, _) = server(Box::new(move |_, _| status("307 Elsewhere", &header))).await;
        let error = read(address, None, "").await.unwrap_err().to_string();
        assert!(error.contains(words) && !error.contains("secret"), "{location}: {error}");
    }
    // What `http` gates may reach, a registry may send to; nothing listens there.
    let (address, _) =
        server(Box::new(|_, _| status("307 Elsewhere", "location: https://127.0.0.1:1/blob"))).await;
    let error = read(address, None, "127.0.0.0/8").await.unwrap_err();
    assert!(matches!(error, ArtifactError::Unavailable(_)), "{error:?}");
    assert!(asked_elsewhere.lock().unwrap().is_empty());
    // On the registry itself it is followed.
    let (manifest, ..) = artifact();
    let moved: Answers = Box::new(move |asked, _| match asked {
        asked if asked.contains("/moved") => ok(MANIFEST),
        asked if asked.contains("/blobs/") => status("307 Elsewhere", "location: /moved"),
        _ => ok(&manifest),
    });
    let (address, _) = server(moved).await;
    assert_eq!(read(address, None, "").await.unwrap().len(), 1);
}

#[tokio::test]
async fn login_is_sent_when_asked_for_and_only_to_the_registry() {
    let (manifest, ..) = artifact();
    let body = manifest.clone();
    let basic: Answers = Box::new(move |asked, authorization| match authorization {
        None => status("401 Unauthorized", "www-authenticate: Basic realm=\"x\""),
        Some("Basic dTpw") if asked.contains("/manifests/") => ok(&body),
        Some("Basic dTpw") => ok(MANIFEST),
        Some(_) => status("403 Forbidden", "x: y"),
    });
    let (address, asked) = server(basic).await;
    assert_eq!(read(address, Some("dTpw"), "").await.unwrap().len(), 1);
    assert_eq!(asked.lock().unwrap().len(), 3, "once it is known, it is sent at once");
    let error = read(address, Some("dTp4"), "").await.unwrap_err().to_string();
    assert!(error.contains("the login of pullSecret may not read it") && !error.contains("dTp4"), "{error}");

    // By a token, of the registry itself.
    let own = Arc::new(Mutex::new(String::new()));
    let realm = own.clone();
    let tokens: Answers = Box::new(move |asked, authorization| match (asked, authorization) {
        (asked, Some("Basic dTpw")) if asked.contains("/token?") => ok(r#"{"token": "let-me-in"}"#),
        (asked, Some("Bearer let-me-in")) if asked.contains("/manifests/") => ok(&manifest),
        (_, Some("Bearer let-me-in")) => ok(MANIFEST),
        _ => {
            let header =
                format!("www-authenticate: Bearer realm=\"{}\",service=\"restore\"", realm.lock().unwrap());
            status("401 Unauthorized", &header)
        }
    });
    let (address, asked) = server(tokens).await;
    *own.lock().unwrap() = format!("http://{address}/token");
    assert_eq!(read(address, Some("dTpw"), "").await.unwrap().len(), 1);
    let token = "GET /token?service=restore&scope=repository%3Ateam%2Fshop%3Apull HTTP/1.1";
    assert_eq!(asked.lock().unwrap()[1], token);
    // Nobody else gets it without TLS.
    let (thief, asked) = server(honest()).await;
    *own.lock().unwrap() = format!("http://{thief}/token");
    let error = read(address, Some("dTpw"), "127.0.0.0/8").await.unwrap_err().to_string();
    assert!(error.contains("which is not https"), "{error}");
    assert!(asked.lock().unwrap().is_empty());
}
