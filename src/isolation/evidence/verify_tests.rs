use std::path::PathBuf;

use serde_json::{Value, json};

use super::*;
use crate::isolation::evidence::Kept;

/// A folder with one sealing of `library`: an index, manifests and a log.
struct Sealed {
    folder: tempfile::TempDir,
    store: Store,
    index: Kept,
    manifests: Kept,
    log: Kept,
}

impl Sealed {
    async fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::folder(folder.path());
        // Longer than what an index is known by, and than one chunk.
        let pods = vec![json!({"kind": "Pod", "metadata": {"name": "web"}}); 4000];
        let manifests = json!({"evidence": "resurgam.dev/v2", "namespace": "library", "objects": pods});
        let manifests = keep(&store, "json", manifests.to_string().into_bytes()).await;
        let log = keep(&store, "log.age", b"not to be read".to_vec()).await;
        let index = keep(&store, "json", index(&manifests, &log).to_string().into_bytes()).await;
        Self { folder, store, index, manifests, log }
    }

    fn path(&self, kept: &Kept) -> PathBuf {
        self.folder.path().join(&kept.object)
    }

    async fn verify(&self, recorded: Option<&str>) -> Vec<Verified> {
        let recorded = recorded.map(|digest| ("library".to_owned(), digest.to_owned()));
        self.store.read_all(None).await.unwrap().verify(&recorded.into_iter().collect())
    }

    /// Problem and object of each finding.
    async fn findings(&self, recorded: Option<&str>) -> Vec<(Problem, String)> {
        let mut all = self.verify(recorded).await;
        assert_eq!(all.len(), 1);
        let verified = all.remove(0);
        let problems: Vec<_> = verified.findings.iter().map(|f| (f.problem, f.object.clone())).collect();
        assert_eq!(verified.is_sound(), problems.iter().all(|(problem, _)| *problem == Problem::Extra));
        problems
    }
}

async fn keep(store: &Store, extension: &str, bytes: Vec<u8>) -> Kept {
    store.keep("library", extension, bytes).await.unwrap()
}

fn index(manifests: &Kept, log: &Kept) -> Value {
    let mut log = json!(log);
    log["bytes"] = 14.into();
    log["truncated"] = false.into();
    json!({
        "evidence": "resurgam.dev/v2", "namespace": "library", "quarantine": "uid", "at": "2025-11-24T03:00:00.123Z",
        "manifests": manifests, "objects": 4000, "secrets": "metadata", "snapshots": [{"name": "data", "uid": "1"}],
        "missing": ["secrets: refused"],
        "containers": [
            {"pod": "web", "container": "web", "log": {"kept": log}, "previousLog": {"none": "it has not run before"}},
            {"pod": "old", "container": "web", "log": {"gone": "away"}, "previousLog": {"failed": "no answer"}},
        ],
    })
}

/// Changes one byte, and nothing else.
fn tamper(path: &PathBuf) {
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 3;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn stored_evidence_is_listed_and_intact() {
    let sealed = Sealed::new().await;
    let found = sealed.store.read_all(None).await.unwrap();
    assert_eq!((found.objects.len(), found.sealings.len()), (3, 1), "manifests are no index");
    let sealing = &found.sealings[0];
    assert!(sealing.is_intact() && sealing.digest == sealed.index.digest);
    let listed: Vec<_> = sealing.index.listed().into_iter().map(|l| (l.what, l.kept)).collect();
    let expected = [("manifests", sealed.manifests.clone()), ("log of web/web", sealed.log.clone())]
        .map(|(w, k)| (w.to_owned(), k));
    assert_eq!(listed, expected);
    assert_eq!(
        (sealing.index.logs(), sealing.index.snapshots().count(), sealing.index.missing.len()),
        (1, 1, 1)
    );
    assert_eq!(sealed.findings(Some(&sealed.index.digest)).await, []);
    assert_eq!(sealed.store.read_all(Some("others")).await.unwrap(), Found::default());
    assert_eq!(sealed.store.sealings(None).await.unwrap(), found.sealings);
}

#[tokio::test]
async fn one_changed_byte_is_noticed_in_each_object() {
    let sealed = Sealed::new().await;
    for kept in [&sealed.manifests, &sealed.log] {
        let before = std::fs::read(sealed.path(kept)).unwrap();
        tamper(&sealed.path(kept));
        let found = sealed.findings(None).await;
        assert_eq!(found, [(Problem::Changed, kept.object.clone())]);
        std::fs::write(sealed.path(kept), before).unwrap();
    }
    assert_eq!(sealed.findings(None).await, []);
    tamper(&sealed.path(&sealed.index));
    // What it says is worth nothing, so that nobody lists the others any more.
    let found = sealed.findings(Some(&sealed.index.digest)).await;
    assert_eq!(found.iter().filter(|(problem, _)| problem.is_failure()).count(), 1, "{found:?}");
    assert!(found.contains(&(Problem::Changed, sealed.index.object.clone())), "{found:?}");
}

#[tokio::test]
async fn missing_objects_are_found_and_sealings_by_the_cluster() {
    let sealed = Sealed::new().await;
    std::fs::remove_file(sealed.path(&sealed.log)).unwrap();
    assert_eq!(sealed.findings(None).await, [(Problem::Missing, sealed.log.object.clone())]);
    for kept in [&sealed.index, &sealed.manifests] {
        std::fs::remove_file(sealed.path(kept)).unwrap();
    }
    assert_eq!(sealed.verify(None).await, [], "nobody in the store knows of it");
    let found = sealed.findings(Some(&sealed.index.digest)).await;
    assert_eq!(found, [(Problem::Missing, sealed.index.object.clone())]);
}

#[tokio::test]
async fn added_objects_are_reported_and_forged_index_is_worthless() {
    let sealed = Sealed::new().await;
    let added = keep(&sealed.store, "log.age", b"another".to_vec()).await;
    std::fs::write(sealed.folder.path().join("library/notes.txt"), b"hello").unwrap();
    // What a failed write left is none of the store's objects.
    std::fs::write(sealed.folder.path().join("library/.a.json.7.tmp"), b"half").unwrap();
    let found = sealed.findings(Some(&sealed.index.digest)).await;
    let (notes, added) = ("library/notes.txt".to_owned(), added.object);
    assert_eq!(
        found.into_iter().collect::<BTreeSet<_>>(),
        [(Problem::Extra, notes), (Problem::Extra, added)].into()
    );
    // Sound in itself, in the place of the one that was kept.
    let forged =
        keep(&sealed.store, "json", index(&sealed.manifests, &sealed.manifests).to_string().into_bytes())
            .await;
    std::fs::remove_file(sealed.path(&sealed.index)).unwrap();
    let found = sealed.findings(Some(&sealed.index.digest)).await;
    assert!(found.contains(&(Problem::Missing, sealed.index.object.clone())), "{found:?}");
    assert_ne!(forged.digest, sealed.index.digest);
}

#[tokio::test]
async fn unreadable_object_is_an_error_and_not_missing() {
    let store = Store::folder("/nowhere/at/all");
    let error = store.read_all(None).await.unwrap_err().to_string();
    assert!(error.contains("/nowhere/at/all"), "{error}");
    let sealed = Sealed::new().await;
    let link = format!("{}.log.age", "0".repeat(64));
    std::os::unix::fs::symlink("/dev/zero", sealed.folder.path().join("library").join(&link)).unwrap();
    let error = sealed.store.read_all(None).await.unwrap_err().to_string();
    assert!(error.contains(&link) && error.contains("no regular file"), "{error}");
}
