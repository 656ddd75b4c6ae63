//! Gate `backupBefore` on a real S3 server that keeps versions, with its own clock, signatures, checksums and locks.

use std::time::Instant;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, Method, Request, StatusCode};
use k8s_openapi::jiff::fmt::rfc2822;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequestBody;
use rehearsal::S3Server;
use sha2::{Digest, Sha256};

use super::*;

const REGION: &str = "us-east-1";

/// The server, a bucket on it that keeps and locks versions, and its owner.
struct Store {
    server: S3Server,
    _folder: tempfile::TempDir,
    credential: AwsCredential,
}

impl Store {
    /// `None`: the part is not built on this machine.
    async fn start() -> Option<Store> {
        let program = control_plane::part_if_built("versitygw").unwrap()?;
        // Not in a memory file system of old, which has no extended attributes.
        let folder = tempfile::tempdir().unwrap();
        let server = S3Server::start(&program, folder.path(), "access", CANARY).unwrap();
        let credential = AwsCredential { key_id: "access".into(), secret_key: CANARY.into(), token: None };
        let store = Store { server, _folder: folder, credential };
        let locks = [("x-amz-bucket-object-lock-enabled", "true".to_owned())];
        store.send(Method::PUT, "", &locks, "").await.unwrap();
        let versioning = "<VersioningConfiguration xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">\
                          <Status>Enabled</Status></VersioningConfiguration>";
        store.send(Method::PUT, "?versioning", &[], versioning).await.unwrap();
        Some(store)
    }

    /// Sends a signed request about something in the bucket.
    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&'static str, String)],
        body: &'static str,
    ) -> Result<HeaderMap, StatusCode> {
        let url = format!("{}/{BUCKET}{path}", self.server.url());
        let mut request = Request::builder()
            .method(method.clone())
            .uri(&url)
            .body(HttpRequestBody::from(body.as_bytes().to_vec()))
            .unwrap();
        for (name, value) in headers {
            request.headers_mut().insert(*name, value.parse().unwrap());
        }
        if !body.is_empty() {
            request.headers_mut().insert("x-amz-checksum-sha256", sha256(body).parse().unwrap());
        }
        AwsAuthorizer::new(&self.credential, "s3", REGION).try_authorize(&mut request, None).unwrap();
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::new();
        let signed = request.headers().clone();
        let answer = client.request(method, &url).headers(signed).body(body).send().await.unwrap();
        if answer.status().is_success() { Ok(answer.headers().clone()) } else { Err(answer.status()) }
    }

    /// Writes a version, and returns its ID and its time, which is after `after`.
    async fn put(&self, body: &'static str, after: Option<Timestamp>) -> (String, Timestamp) {
        self.put_with(body, &[], after).await
    }

    async fn put_with(
        &self,
        body: &'static str,
        headers: &[(&'static str, String)],
        after: Option<Timestamp>,
    ) -> (String, Timestamp) {
        // The store's times have seconds.
        let until = Instant::now() + Duration::from_secs(10);
        while after.is_some_and(|after| Timestamp::now().as_second() <= after.as_second()) {
            assert!(Instant::now() < until, "the clock stands still");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let written = self.send(Method::PUT, KEY_PATH, headers, body).await.unwrap();
        let id = written["x-amz-version-id"].to_str().unwrap().to_owned();
        let head = self.send(Method::HEAD, KEY_PATH, &[], "").await.unwrap();
        let at = rfc2822::parse(head["last-modified"].to_str().unwrap()).unwrap().timestamp();
        assert!(after.is_none_or(|after| at > after), "{at} is not after {after:?}");
        (id, at)
    }

    fn asks(&self, secret: &str, object: BackupObject) -> BackupBeforeSpec {
        let mut spec = objects(&self.server.url(), secret, vec![object]);
        spec.objects.as_mut().unwrap().region = Some(REGION.into());
        spec
    }
}

const KEY: &str = "nightly/db 1.tar";
const KEY_PATH: &str = "/nightly/db%201.tar";

fn sha256(body: &str) -> String {
    STANDARD.encode(Sha256::digest(body))
}

fn version(id: &str) -> BackupObject {
    BackupObject { version_id: Some(id.into()), ..key(KEY) }
}

#[tokio::test]
async fn real_store_is_judged_by_the_version_that_is_named() {
    let Some(store) = Store::start().await else { return };
    let bench = bench("gates-backup-versions").await;
    let (first, first_at) = store.put("what was there", None).await;
    let (second, second_at) = store.put("encrypted", Some(first_at)).await;
    let (third, third_at) = store.put("encrypted again", Some(second_at)).await;
    let answer = async |object: BackupObject, since: Timestamp| {
        ask(&bench, store.asks("store", object), Some(since)).await
    };

    // This store dates a version by when the next one took its place: later than it was written, so nothing passes for that.
    let passed = answer(version(&first), third_at).await;
    assert_eq!(says(&passed), (Pass, "BackupOlder"), "{passed:?}");
    assert!(passed.message.contains(&first), "{passed:?}");
    assert_eq!(passed.exceptions.len(), 1, "it answers by http: {passed:?}");
    let digest = Sha256::digest("what was there").iter().map(|b| format!("{b:02x}")).collect::<String>();
    let exact = BackupObject { sha256: Some(digest.clone()), size: Some(14), ..version(&first) };
    let later = third_at + SignedDuration::from_hours(1);
    for (object, since, expected) in [
        // The same version, with the compromise before it and after it.
        (version(&first), first_at, (Fail, "BackupTooNew")),
        (version(&second), third_at, (Fail, "BackupTooNew")),
        (version(&second), later, (Pass, "BackupOlder")),
        (version(&third), third_at, (Fail, "BackupTooNew")),
        // Unnamed, the newest is meant.
        (key(KEY), third_at, (Fail, "BackupTooNew")),
        (key(KEY), later, (Pass, "BackupOlder")),
        (exact.clone(), third_at, (Pass, "BackupOlder")),
        (BackupObject { size: Some(9), ..version(&first) }, third_at, (Fail, "BackupDiffers")),
        (BackupObject { sha256: Some(digest), ..version(&second) }, later, (Fail, "BackupDiffers")),
        (key("nobody"), later, (Unknown, "BackupMissing")),
    ] {
        let answer = answer(object.clone(), since).await;
        assert_eq!(says(&answer), expected, "{object:?} {since}: {answer:?}");
    }

    // Deleted: a marker hides it, and its versions are there.
    let deleted = store.send(Method::DELETE, KEY_PATH, &[], "").await.unwrap();
    let marker = deleted["x-amz-version-id"].to_str().unwrap();
    for (object, named) in
        [(key(KEY), "no such object"), (version(marker), "it was deleted: name the versionId")]
    {
        let hidden = answer(object, later).await;
        assert_eq!(says(&hidden), (Unknown, "BackupMissing"), "{hidden:?}");
        assert!(hidden.message.contains(named), "{hidden:?}");
    }
    assert_eq!(says(&answer(exact.clone(), third_at).await), (Pass, "BackupOlder"));
    // Deleted by its version: gone.
    let of_first = format!("{KEY_PATH}?versionId={first}");
    store.send(Method::DELETE, &of_first, &[], "").await.unwrap();
    let gone = answer(exact, third_at).await;
    assert_eq!(gone.verdict, Unknown, "{gone:?}");
    assert!(!gone.message.contains(CANARY), "{gone:?}");
}

#[tokio::test]
async fn locked_version_of_a_real_store_is_said_to_be_locked() {
    let Some(store) = Store::start().await else { return };
    let bench = bench("gates-backup-locked").await;
    let until = Timestamp::now() + SignedDuration::from_hours(1);
    let until = format!("{}Z", until.strftime("%Y-%m-%dT%H:%M:%S"));
    let lock = [
        ("x-amz-object-lock-mode", "COMPLIANCE".to_owned()),
        ("x-amz-object-lock-retain-until-date", until.clone()),
    ];
    let (locked, at) = store.put_with("what was there", &lock, None).await;
    let since = Some(at + SignedDuration::from_secs(1));
    let answer = ask(&bench, store.asks("store", version(&locked)), since).await;
    assert_eq!(says(&answer), (Pass, "BackupOlder"), "{answer:?}");
    assert!(answer.message.contains("locked, COMPLIANCE until"), "{answer:?}");
    // Its owner cannot delete it.
    let of_it = format!("{KEY_PATH}?versionId={locked}");
    let refused = store.send(Method::DELETE, &of_it, &[], "").await.unwrap_err();
    assert_eq!(refused, StatusCode::FORBIDDEN);
    assert_eq!(says(&ask(&bench, store.asks("store", version(&locked)), since).await), (Pass, "BackupOlder"));
    let answer = ask(&bench, store.asks("wrong", version(&locked)), since).await;
    assert_eq!(says(&answer), (Unknown, "StoreRefused"), "{answer:?}");
}
