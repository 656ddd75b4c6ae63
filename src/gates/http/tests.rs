use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::super::{Account, Asker, Question};
use super::*;
use crate::api::{GateSpec, Phase, Verdict};

/// A server that reads a request, answers as told and closes; a `None` keeps silent. Ends with the test's runtime.
async fn server(answer: Option<&'static str>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = [0; 1024];
                let _ = stream.read(&mut request).await;
                match answer {
                    Some(answer) => stream.write_all(answer.as_bytes()).await.unwrap(),
                    None => futures::future::pending().await,
                }
            });
        }
    });
    address
}

const OK: &str = "HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecret";

async fn ask(url: &str, status: Option<u16>, allow: &[&str]) -> Answer {
    // As the operator does it, with an API server that is not there: nobody asks it.
    let client = kube::Client::try_from(kube::Config::new("http://127.0.0.1:1".parse().unwrap())).unwrap();
    let account = Account { user: "nobody".to_owned(), client };
    let asker = Asker::new(allow.iter().map(|net| net.parse().unwrap()).collect()).unwrap();
    let spec = GateSpec {
        name: "login".into(),
        http: Some(HttpSpec { url: url.into(), status }),
        timeout: Some("2s".parse().unwrap()),
        ..Default::default()
    };
    let question = Question::new("recovery", Vec::new(), Phase::BeforeRelease, spec);
    asker.ask(&account, &question).await
}

fn says(answer: &Answer) -> (Verdict, &str, &str) {
    (answer.verdict, answer.reason.as_str(), &answer.message)
}

const LOOPBACK: &[&str] = &["127.0.0.0/8", "::1/128"];

#[tokio::test]
async fn the_wanted_status_passes_with_evidence() {
    let address = server(Some(OK)).await;
    let answer = ask(&format!("http://{address}/login"), None, LOOPBACK).await;
    assert_eq!(says(&answer), (Verdict::Pass, "Answers", "got 200"));
    assert!(answer.evidence.unwrap().starts_with("sha256:"));
}

#[tokio::test]
async fn any_other_status_fails_and_says_which_was_wanted() {
    let address = server(Some("HTTP/1.1 503 Down\r\ncontent-length: 6\r\n\r\nsecret")).await;
    let url = format!("http://{address}/");
    let answer = ask(&url, None, LOOPBACK).await;
    assert_eq!(says(&answer), (Verdict::Fail, "Status", "got 503, wanted 200"));
    assert_eq!(ask(&url, Some(503), LOOPBACK).await.verdict, Verdict::Pass);
}

#[tokio::test]
async fn a_redirect_is_a_status_and_is_not_followed() {
    let target = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = target.local_addr().unwrap();
    let answer = format!("HTTP/1.1 302 Found\r\nlocation: http://{location}/\r\ncontent-length: 0\r\n\r\n");
    let address = server(Some(answer.leak())).await;
    let answer = ask(&format!("http://{address}/"), None, LOOPBACK).await;
    assert_eq!(says(&answer), (Verdict::Fail, "Status", "got 302, wanted 200"));
    // A connection that had been made would be in the listener's queue.
    let queued = tokio::time::timeout(Duration::from_millis(50), target.accept()).await;
    assert!(queued.is_err(), "the redirect was followed");
}

#[tokio::test]
async fn hanging_endpoint_is_unknown_within_the_timeout() {
    let address = server(None).await;
    let started = Instant::now();
    let answer = ask(&format!("http://{address}/?token=secret"), None, LOOPBACK).await;
    let wanted = format!("{address} did not answer within 2s");
    assert_eq!(says(&answer), (Verdict::Unknown, "TimedOut", wanted.as_str()));
    assert!(started.elapsed() < Duration::from_secs(4), "{:?}", started.elapsed());
}

#[tokio::test]
async fn an_answer_whose_body_never_ends_is_an_answer() {
    let address = server(Some("HTTP/1.1 200 OK\r\ncontent-length: 999999\r\n\r\n")).await;
    assert_eq!(ask(&format!("http://{address}/"), None, LOOPBACK).await.verdict, Verdict::Pass);
}

#[tokio::test]
async fn refused_connection_and_bad_answer_are_unknown() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let closed = listener.local_addr().unwrap();
    drop(listener);
    let answer = ask(&format!("http://{closed}/"), None, LOOPBACK).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "CannotConnect"));
    assert!(answer.message.contains("127.0.0.1") && answer.message.contains("refused"), "{}", answer.message);

    let address = server(Some("SSH-2.0-secret\r\n")).await;
    let answer = ask(&format!("http://{address}/?token=secret"), None, LOOPBACK).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "NoAnswer"));
    assert!(!answer.message.contains("secret"), "{}", answer.message);

    let answer = ask(&format!("https://{address}/?token=secret"), None, LOOPBACK).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "CannotConnect"));
    assert!(!answer.message.contains("secret"), "{}", answer.message);
}

/// An HTTPS server whose certificate is good for `localhost`, but vouched for by nobody. Ends with the test's process.
fn untrusted_server() -> u16 {
    let certified = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certified.cert.der().clone()], key)
        .unwrap();
    let config = Arc::new(config);
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let connection = rustls::ServerConnection::new(Arc::clone(&config)).unwrap();
            let mut stream = rustls::StreamOwned::new(connection, stream.unwrap());
            let _ = std::io::Write::write_all(&mut stream, OK.as_bytes());
            let _ = std::io::Write::flush(&mut stream);
        }
    });
    port
}

#[tokio::test]
async fn untrusted_certificate_is_unknown() {
    let port = untrusted_server();
    let answer = ask(&format!("https://localhost:{port}/"), None, LOOPBACK).await;
    assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "CannotConnect"));
    assert!(answer.message.contains("certificate") && answer.message.contains("UnknownIssuer"), "{answer:?}");
}

#[tokio::test]
async fn loopback_is_refused_by_address_and_name_unless_allowed() {
    let port = server(Some(OK)).await.port();
    for host in ["127.0.0.1", "localhost", "0x7f.1", "2130706433", "[::ffff:127.0.0.1]", "127.0.0.1."] {
        let answer = ask(&format!("http://{host}:{port}/"), None, &[]).await;
        assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, "AddressRefused"), "{host}");
        assert!(answer.message.contains("loopback"), "{}", answer.message);
    }
    for host in ["127.0.0.1", "localhost"] {
        let answer = ask(&format!("http://{host}:{port}/"), None, LOOPBACK).await;
        assert_eq!(answer.verdict, Verdict::Pass, "{host}: {answer:?}");
    }
    let answer = ask(&format!("http://127.0.0.1:{port}/"), None, &["127.0.0.2/32"]).await;
    assert_eq!(answer.reason, GateReason::AddressRefused);
}

#[tokio::test]
async fn the_resolver_gives_out_no_refused_address() {
    let resolved = CheckedResolver { allow: Arc::from([]) }.resolve("localhost".parse().unwrap()).await;
    let Err(error) = resolved else { panic!("localhost was resolved") };
    assert!(error.downcast_ref::<Refused>().is_some(), "{error}");
}

#[tokio::test]
async fn invalid_urls_and_credentials_are_unknown_and_not_repeated() {
    for (url, reason) in [
        ("http://user:hunter2@example.org/", "CredentialsInUrl"),
        ("http://hunter2@example.org/", "CredentialsInUrl"),
        ("http://:hunter2@example.org/", "CredentialsInUrl"),
        ("http://hunter2:x@[broken/", "MalformedUrl"),
        ("ftp://example.org/hunter2", "MalformedUrl"),
        ("hunter2", "MalformedUrl"),
        ("", "MalformedUrl"),
    ] {
        let answer = ask(url, None, LOOPBACK).await;
        assert_eq!((answer.verdict, answer.reason.as_str()), (Verdict::Unknown, reason), "{url}");
        assert!(!answer.message.contains("hunter2"), "{}", answer.message);
    }
}
