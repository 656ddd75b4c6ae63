use std::path::Path;

use super::*;
use crate::isolation::evidence::Found;

fn object(name: &str) -> Object {
    Object { namespace: "library".to_owned(), name: name.to_owned(), size: 1 }
}

#[test]
fn an_object_is_named_by_its_digest_its_beginning_or_its_path() {
    let objects = || vec![object("aa11.json"), object("aa22.log.age"), object("bb33.json")];
    for (meant, found) in [
        ("sha256:bb", Ok(Some("library/bb33.json"))),
        ("aa2", Ok(Some("library/aa22.log.age"))),
        ("library/aa11.json", Ok(Some("library/aa11.json"))),
        ("aa", Err("2 objects")),
        ("others/aa11.json", Ok(None)),
        ("cc", Ok(None)),
    ] {
        match (find_object(meant, objects()), found) {
            (Ok(object), Ok(expected)) => {
                assert_eq!(object.map(|object| object.to_string()).as_deref(), expected, "{meant}");
            }
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{meant}: {error}"),
            (got, _) => panic!("{meant}: {got:?}"),
        }
    }
}

/// Gets an object of a store into a file.
async fn got(store: &Store, object: &str, into: &Path, identity: Option<&Path>) -> Result<ExitCode> {
    let args = Get {
        object: object.to_owned(),
        output: Some(into.to_owned()),
        identity: identity.map(Path::to_owned),
    };
    get(store.clone(), &args).await
}

#[tokio::test]
async fn object_is_read_verified_and_never_overwrites_a_file() {
    use age::secrecy::ExposeSecret;
    let folder = tempfile::tempdir().unwrap();
    let store = Store::folder(folder.path().join("kept"));
    let who = age::x25519::Identity::generate();
    // More than the chunks that are read ahead.
    let clear = b"Mrs Miggins, 3 Mitre Square\n".repeat(40_000);
    let encrypted = age::encrypt(&who.to_public(), &clear).unwrap();
    let kept = store.keep("library", "log.age", encrypted.clone()).await.unwrap();
    let identity = folder.path().join("key.txt");
    std::fs::write(&identity, who.to_string().expose_secret()).unwrap();
    let [raw, read, none] = ["raw", "read", "none"].map(|name| folder.path().join(name));

    got(&store, &kept.digest, &raw, None).await.unwrap();
    assert!(std::fs::read(&raw).unwrap() == encrypted);
    got(&store, &kept.object, &read, Some(&identity)).await.unwrap();
    assert!(std::fs::read(&read).unwrap() == clear);
    assert!(got(&store, &kept.digest, &raw, None).await.is_err(), "a file that is there is kept");
    let code = got(&store, "sha256:0000", &none, None).await.unwrap();
    assert_eq!((format!("{code:?}"), none.exists()), (format!("{:?}", ExitCode::FAILURE), false));

    let path = folder.path().join("kept").join(&kept.object);
    let mut changed = encrypted;
    changed[100] ^= 1;
    std::fs::write(path, changed).unwrap();
    let code = got(&store, &kept.digest, &none, None).await.unwrap();
    assert_eq!((format!("{code:?}"), none.exists()), (format!("{:?}", ExitCode::FAILURE), false));
}

/// Two sealings, of which one lacks its log; one object that nobody lists.
async fn damaged(folder: &Path) -> Found {
    let store = Store::folder(folder);
    for (namespace, pods) in [("library-db", 3), ("library-web", 12)] {
        let manifests = serde_json::json!({"namespace": namespace, "objects": vec![serde_json::json!({"kind": "Pod"}); pods]});
        let manifests = store.keep(namespace, "json", manifests.to_string().into_bytes()).await.unwrap();
        let log = store.keep(namespace, "log.age", vec![7; 20_000]).await.unwrap();
        let index = serde_json::json!({
            "evidence": "resurgam.dev/v2", "namespace": namespace, "quarantine": "uid", "at": "2025-11-24T03:00:00.123Z",
            "manifests": manifests, "objects": pods, "snapshots": [], "missing": ["secrets: refused"],
            "containers": [{"pod": "web-0", "container": "web", "log": {"kept": log}}],
        });
        store.keep(namespace, "json", index.to_string().into_bytes()).await.unwrap();
        if namespace == "library-web" {
            std::fs::remove_file(folder.join(log.object)).unwrap();
            std::fs::write(folder.join(&manifests.object), b"{}").unwrap();
            store.keep(namespace, "json", b"[]".to_vec()).await.unwrap();
        }
    }
    store.read_all(None).await.unwrap()
}

#[tokio::test]
async fn list_of_sealings_is_readable() {
    let folder = tempfile::tempdir().unwrap();
    let found = damaged(folder.path()).await;
    let plain = |text: String| anstream::adapter::strip_str(&text).to_string();
    insta::assert_snapshot!("list", plain(report::list(&found.sealings)));
    insta::assert_snapshot!("verify", plain(report::verified(&found.verify(&BTreeMap::new()), false)));
}
