//! `credentialsRotated` on a real API server: Secrets with real managed fields, certificates and JWTs.

use std::collections::BTreeMap;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::api::DeleteParams;
use resurgam::isolation::evidence::{DigestKey, Store};

use super::*;

mod recovery;

const UID: &str = "11111111-1111-4111-8111-111111111111";
/// Values that must appear nowhere but in Secrets.
const CANARY: &str = "canary-Ieh4eiSh";

/// All that the gate reads.
fn secrets_reader() -> Value {
    json!([
        {"apiGroups": [""], "verbs": ["get"], "resources": ["secrets"]},
        {"apiGroups": [""], "verbs": ["get"], "resources": ["configmaps"]},
    ])
}

fn key() -> DigestKey {
    DigestKey::new(vec![7; 32]).unwrap()
}

fn data(values: &[(&str, &str)]) -> BTreeMap<String, ByteString> {
    values.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.as_bytes().to_vec()))).collect()
}

/// A bench whose account reads Secrets, with an asker that has the key, and a namespace that was isolated at a time.
struct Vault {
    bench: Bench,
    asker: Asker,
    isolated_at: Timestamp,
    compromised_since: Option<Timestamp>,
}

impl Vault {
    async fn new(namespace: &'static str) -> Vault {
        let bench = Bench::new(namespace, secrets_reader()).await;
        let asker = Asker::new(Vec::new()).unwrap().with_digest_key(Some(key()));
        let now = Timestamp::now();
        let hour = SignedDuration::from_hours(1);
        Vault { bench, asker, isolated_at: now - hour, compromised_since: Some(now - hour * 24) }
    }

    async fn secret(&self, name: &str, kind: &str, values: &[(&str, &str)]) -> Secret {
        let secret = json!({"metadata": {"name": name}, "type": kind, "data": data(values)});
        self.bench.create::<Secret>(secret).await
    }

    async fn rotate(&self, name: &str, values: &[(&str, &str)]) {
        let patch = Patch::Merge(json!({"data": data(values)}));
        self.bench.api::<Secret>().patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    /// Captures the namespace as the operator does, and applies the record of it.
    async fn capture(&self, uid: &str) -> String {
        use resurgam::isolation::evidence::{Evidence, Snapshots, Subject, capture};
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path());
        let evidence = Evidence { key: Some(key()), ..Evidence::new(store.clone()) };
        let namespace = self.bench.namespace;
        let mode = resurgam::api::quarantine::CaptureMode::BestEffort;
        let subject = Subject { namespace, quarantine: uid, before: None, mode };
        let kept =
            capture(&self.bench.administrator, &evidence, subject, Snapshots::default()).await.unwrap();
        store.digest_record(namespace, uid, &kept.digest, &[], &key()).await.unwrap()
    }

    async fn record(&self, text: &str) {
        let data = json!({self.bench.namespace: text});
        let api = self.bench.api::<ConfigMap>();
        if api.get_opt("captured").await.unwrap().is_some() {
            let patch = Patch::Merge(json!({"data": data}));
            api.patch("captured", &PatchParams::default(), &patch).await.unwrap();
        } else {
            self.bench.create::<ConfigMap>(json!({"metadata": {"name": "captured"}, "data": data})).await;
        }
    }

    fn question(&self, secrets: Value) -> Question {
        let spec = json!({"name": "rotated", "credentialsRotated":
            {"secrets": secrets, "capturedFrom": {"configMap": {"name": "captured"}}}});
        let namespace = self.bench.namespace;
        let spec = serde_json::from_value(spec).unwrap();
        let mut question = Question::new(namespace, vec![namespace.into()], Phase::BeforeRestore, spec);
        let seal = Seal { uid: UID.to_owned(), created_at: Some(self.isolated_at), ..Seal::default() };
        question.seals.insert(namespace.to_owned(), seal);
        question.compromised_since = self.compromised_since;
        question
    }

    async fn ask(&self, secrets: Value) -> Answer {
        let answer = self.asker.ask(&self.bench.account, &self.question(secrets)).await;
        assert!(!format!("{answer:?}").contains(CANARY), "a value of a Secret is shown: {answer:?}");
        answer
    }
}

fn certificate(not_before: Timestamp) -> (String, String) {
    let mut params = rcgen::CertificateParams::new(vec!["library.example".to_owned()]).unwrap();
    let days = not_before.as_second().div_euclid(86_400);
    params.not_before = rcgen::date_time_ymd(1970, 1, 1)
        + std::time::Duration::from_secs(u64::try_from(days * 86_400).unwrap());
    let key = rcgen::KeyPair::generate().unwrap();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn token(iat: Timestamp, nonce: &str) -> String {
    let payload = json!({"iat": iat.as_second(), "jti": nonce}).to_string();
    format!("{}.{}.c2ln", URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256"}"#), URL_SAFE_NO_PAD.encode(payload))
}

#[tokio::test]
async fn rotated_secret_passes_and_one_put_back_fails() {
    let vault = Vault::new("credentials-rotated").await;
    let old = format!("{CANARY}-old");
    vault.secret("db", "Opaque", &[("password", &old), ("user", "library")]).await;
    let record = vault.capture(UID).await;
    assert!(!record.contains(CANARY), "{record}");
    vault.record(&record).await;
    let db = || json!([{"name": "db", "keys": ["password"]}]);

    let answer = vault.ask(db()).await;
    assert_eq!(says(&answer), (Fail, "CapturedValue"), "{answer:?}");
    assert!(answer.message.starts_with("Secret credentials-rotated/db, key password: "), "{answer:?}");
    vault.rotate("db", &[("password", &format!("{CANARY}-new"))]).await;
    let answer = vault.ask(db()).await;
    assert_eq!(says(&answer), (Pass, "Rotated"), "{answer:?}");
    let all = vault.ask(json!([{"name": "db"}])).await;
    assert_eq!(says(&all), (Fail, "CapturedValue"), "the user was not changed: {all:?}");
    vault.rotate("db", &[("password", &old)]).await;
    let answer = vault.ask(db()).await;
    assert_eq!(says(&answer), (Fail, "CapturedValue"), "put back to its old value: {answer:?}");

    // Deleted and created again, under another name.
    vault.bench.api::<Secret>().delete("db", &DeleteParams::default()).await.unwrap();
    assert_eq!(says(&vault.ask(db()).await), (Unknown, "SecretMissing"));
    vault.secret("db-2", "Opaque", &[("password", &format!("{CANARY}-third"))]).await;
    let answer = vault.ask(json!([{"name": "db-2", "capturedAs": "db"}])).await;
    assert_eq!(says(&answer), (Pass, "Rotated"), "{answer:?}");
}

#[tokio::test]
async fn times_before_the_isolation_disprove_a_new_value() {
    let mut vault = Vault::new("credentials-times").await;
    let (now, day) = (Timestamp::now(), SignedDuration::from_hours(24));
    let (old, old_key) = certificate(now - day * 30);
    let (new, new_key) = certificate(now);
    let (backdated, _) = certificate(now - day * 20);
    vault.isolated_at = now - day * 3;
    vault.compromised_since = Some(now - day * 10);
    vault.secret("tls", "kubernetes.io/tls", &[("tls.crt", &old), ("tls.key", &old_key)]).await;
    vault.secret("api", "Opaque", &[("token", &token(now - day * 9, "a"))]).await;
    vault.record(&vault.capture(UID).await).await;
    let tls = || json!([{"name": "tls"}]);

    vault.rotate("tls", &[("tls.crt", &new)]).await;
    let answer = vault.ask(tls()).await;
    assert_eq!(says(&answer), (Fail, "CapturedValue"), "the private key is the old one: {answer:?}");
    vault.rotate("tls", &[("tls.key", &new_key)]).await;
    let answer = vault.ask(tls()).await;
    assert_eq!(says(&answer), (Pass, "Rotated"), "{answer:?}");
    assert!(answer.message.contains("1 with a date"), "{answer:?}");
    vault.rotate("tls", &[("tls.crt", &backdated)]).await;
    let answer = vault.ask(tls()).await;
    assert_eq!(says(&answer), (Fail, "IssuedBefore"), "{answer:?}");
    vault
        .rotate("tls", &[("tls.crt", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")])
        .await;
    assert_eq!(says(&vault.ask(tls()).await), (Unknown, "MalformedCredential"));

    let api = || json!([{"name": "api"}]);
    vault.rotate("api", &[("token", &token(now - day * 9, "b"))]).await;
    assert_eq!(says(&vault.ask(api()).await), (Fail, "IssuedBefore"));
    vault.rotate("api", &[("token", &token(now, "c"))]).await;
    assert_eq!(says(&vault.ask(api()).await), (Pass, "Rotated"));
    // The Incident's time is moved behind the change.
    vault.compromised_since = Some(Timestamp::now() + day);
    assert_eq!(says(&vault.ask(api()).await), (Fail, "NotChanged"));
    vault.compromised_since = None;
    assert_eq!(says(&vault.ask(api()).await), (Unknown, "IsolationTimeUnknown"));
}

#[tokio::test]
async fn forged_managed_fields_make_no_captured_value_new() {
    let mut vault = Vault::new("credentials-forged").await;
    vault.secret("db", "Opaque", &[("password", CANARY)]).await;
    vault.record(&vault.capture(UID).await).await;
    let api = vault.bench.api::<Secret>();
    let forge = async |time: &str| {
        let mut secret = api.get("db").await.unwrap();
        let mut fields = serde_json::to_value(secret.metadata.managed_fields.take()).unwrap();
        for entry in fields.as_array_mut().unwrap() {
            entry["time"] = json!(time);
        }
        secret.metadata.managed_fields = serde_json::from_value(fields).unwrap();
        api.replace("db", &PostParams::default(), &secret).await.unwrap();
    };
    forge("2099-01-01T00:00:00Z").await;
    let db = || json!([{"name": "db"}]);
    assert_eq!(says(&vault.ask(db()).await), (Fail, "CapturedValue"));
    // An old time on a new value: rather not.
    vault.rotate("db", &[("password", &format!("{CANARY}-new"))]).await;
    assert_eq!(says(&vault.ask(db()).await), (Pass, "Rotated"));
    vault.isolated_at = Timestamp::now() + SignedDuration::from_hours(1);
    assert_eq!(says(&vault.ask(db()).await), (Fail, "NotChanged"));
    vault.isolated_at = Timestamp::now() - SignedDuration::from_hours(1);
    // No managed fields at all.
    let strip = Patch::Merge(json!({"metadata": {"managedFields": [{}]}}));
    api.patch("db", &PatchParams::default(), &strip).await.unwrap();
    let answer = vault.ask(db()).await;
    assert_eq!(says(&answer), (Unknown, "ChangeTimeUnknown"), "{answer:?}");
}

#[tokio::test]
async fn every_way_not_to_know_of_a_rotation_is_unknown() {
    let vault = Vault::new("credentials-unknown").await;
    vault.secret("db", "Opaque", &[("password", CANARY)]).await;
    let db = || json!([{"name": "db"}]);
    let answer = vault.ask(db()).await;
    assert_eq!(says(&answer), (Unknown, "NothingCaptured"), "no record: {answer:?}");
    let record = vault.capture(UID).await;
    vault.rotate("db", &[("password", &format!("{CANARY}-new"))]).await;
    vault.secret("late", "Opaque", &[("password", &format!("{CANARY}-late")), ("empty", "")]).await;
    let of_another = vault.capture("22222222-2222-4222-8222-222222222222").await;
    let other_key = {
        let (record, _) = resurgam_core::gates::credentials_rotated::DigestRecord::parse(&record).unwrap();
        record.signed(format!("hmac-sha512:{}", "00".repeat(64)))
    };
    for (what, text, reason) in [
        ("malformed", "{", "MalformedCapture"),
        ("of another key", other_key.as_str(), "CaptureNotAuthentic"),
        ("changed", &record.replacen("\"db\"", "\"db2\"", 1), "CaptureNotAuthentic"),
        ("of another Quarantine", &of_another, "CaptureStale"),
        ("empty", "", "MalformedCapture"),
    ] {
        vault.record(text).await;
        let answer = vault.ask(db()).await;
        assert_eq!(says(&answer), (Unknown, reason), "{what}: {answer:?}");
    }
    vault.record(&record).await;
    assert_eq!(says(&vault.ask(db()).await), (Pass, "Rotated"));
    for (what, secrets, reason) in [
        ("created since", json!([{"name": "late", "keys": ["password"]}]), "NothingCaptured"),
        ("empty", json!([{"name": "late", "keys": ["empty"]}]), "ValueEmpty"),
        ("without the key", json!([{"name": "db", "keys": ["token"]}]), "KeyMissing"),
        ("missing", json!([{"name": "db"}, {"name": "nobody"}]), "SecretMissing"),
        ("elsewhere", json!([{"name": "db", "namespace": "kube-system"}]), "Malformed"),
    ] {
        let answer = vault.ask(secrets).await;
        assert_eq!(says(&answer), (Unknown, reason), "{what}: {answer:?}");
    }
    let question = vault.question(db());
    let keyless = Asker::new(Vec::new()).unwrap();
    let answer = keyless.ask(&vault.bench.account, &question).await;
    assert_eq!(says(&answer), (Unknown, "NoDigestKey"), "{answer:?}");
    let unsealed = Question { seals: BTreeMap::new(), ..question };
    let answer = vault.asker.ask(&vault.bench.account, &unsealed).await;
    assert_eq!(says(&answer), (Unknown, "CaptureStale"), "{answer:?}");
}

#[tokio::test]
async fn account_needs_exactly_the_rights_that_are_printed() {
    let vault = Vault::new("credentials-rights").await;
    vault.secret("db", "Opaque", &[("password", CANARY)]).await;
    vault.record(&vault.capture(UID).await).await;
    let question = vault.question(json!([{"name": "db"}]));
    let rights: Vec<String> = resurgam::gates::rights(&question).iter().map(ToString::to_string).collect();
    let namespace = "credentials-rights";
    let expected =
        ["configmaps/captured", "secrets/db"].map(|of| format!("get {of} in namespace {namespace}"));
    let mut sorted = rights.clone();
    sorted.sort();
    assert_eq!(sorted, expected);
    // An account with rights to the record alone.
    let user = format!("system:serviceaccount:{namespace}:default");
    let account = Account { client: impersonating(&user).await, user };
    let answer = vault.asker.ask(&account, &question).await;
    assert_eq!(says(&answer), (Unknown, "Forbidden"), "{answer:?}");
    assert!(answer.message.contains("system:serviceaccount:credentials-rights:default"), "{answer:?}");
}

#[tokio::test]
async fn printed_record_is_what_the_gate_compares_with() {
    use resurgam::api::Quarantine;
    use resurgam::isolation::evidence::{Evidence, Snapshots, Subject, capture};
    let namespace = "credentials-command";
    let mut vault = Vault::new(namespace).await;
    let administrator = vault.bench.administrator.clone();
    rehearsal::install_kinds(&administrator).await.unwrap();
    let quarantines: Api<Quarantine> = Api::all(administrator.clone());
    let quarantine = json!({"metadata": {"name": namespace}, "spec": {"reason": "a test"}});
    let quarantine = serde_json::from_value(quarantine).unwrap();
    let quarantine = quarantines.create(&PostParams::default(), &quarantine).await.unwrap();
    let uid = quarantine.uid().unwrap();
    vault.secret("db", "Opaque", &[("password", CANARY)]).await;

    let folder = tempfile::tempdir().unwrap();
    let (evidence, file) = (folder.path().join("evidence"), folder.path().join("key"));
    std::fs::write(&file, [7; 32]).unwrap();
    let print = async || {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_resurgam"));
        command
            .args(["evidence", "digests", namespace, "--config-map", "credentials-command/captured"])
            .arg("--evidence-key")
            .arg(&file)
            .arg("--evidence")
            .arg(&evidence)
            .env("KUBECONFIG", control_plane().await.kubeconfig(Identity::PlatformAdministrator));
        let output = tokio::task::spawn_blocking(move || command.output()).await.unwrap().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    };
    let (code, _, error) = print().await;
    assert_eq!(code, Some(2), "{error}");
    assert!(error.contains("nothing was captured of namespace credentials-command yet"), "{error}");

    let settings = Evidence { key: Some(key()), ..Evidence::new(Store::folder(&evidence)) };
    let mode = resurgam::api::quarantine::CaptureMode::BestEffort;
    let subject = Subject { namespace, quarantine: &uid, before: None, mode };
    let kept = capture(&administrator, &settings, subject, Snapshots::default()).await.unwrap();
    let status = Patch::Merge(json!({"status": {"capture": kept}}));
    quarantines.patch_status(namespace, &PatchParams::default(), &status).await.unwrap();
    let (code, text, error) = print().await;
    assert_eq!(code, Some(0), "{error}");
    assert!(!text.contains(CANARY) && !error.contains(CANARY), "{text}");
    let printed: Value = serde_yaml::from_str(&text).unwrap();
    vault.bench.create::<ConfigMap>(json!({"metadata": {"name": "captured"}, "data": printed["data"]})).await;

    vault.isolated_at = quarantine.creation_timestamp().unwrap().0;
    let asked = async || {
        let mut question = vault.question(json!([{"name": "db"}]));
        question.seals.get_mut(namespace).unwrap().uid.clone_from(&uid);
        vault.asker.ask(&vault.bench.account, &question).await
    };
    assert_eq!(says(&asked().await), (Fail, "CapturedValue"));
    // The times of the API server have seconds: a change within the second of the isolation is not after it.
    let next = vault.isolated_at + SignedDuration::from_secs(1);
    within("the second after the isolation", async {
        while Timestamp::now() < next {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    vault.rotate("db", &[("password", &format!("{CANARY}-new"))]).await;
    let answer = asked().await;
    assert_eq!(says(&answer), (Pass, "Rotated"), "{answer:?}");
}
