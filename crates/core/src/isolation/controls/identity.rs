//! ServiceAccounts of a sealed namespace are recreated: a token is bound to the UID of its account, so that every token which was
//! issued before is void. All of them are recorded before the first goes; each goes by its UID and is created again with a mark; the
//! record goes last. Whatever crashes in between, nothing is lost and nothing is done twice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{Quarantine, SEALED_LABEL};

/// Which sealing an account was recreated by: the Quarantine, and the evidence that was taken before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// UID of the Quarantine.
    pub seal: String,
    /// Digest of the evidence: another one at each sealing.
    pub evidence: String,
}

impl Mark {
    /// Returns the mark of the sealing that a Quarantine is in.
    #[must_use]
    pub fn of(quarantine: &Quarantine) -> Self {
        let capture = quarantine.status.as_ref().and_then(|status| status.capture.as_ref());
        let evidence = capture.map_or_else(String::new, |capture| capture.digest.clone());
        Self { seal: quarantine.uid().unwrap_or_default(), evidence }
    }

    /// Value of [`SEALED_LABEL`]. Nobody can guess it beforehand, and a label needs no room among the annotations, which a tenant
    /// may have filled up.
    #[must_use]
    pub fn label(&self) -> String {
        let digest = Sha256::new_with_prefix(&self.seal).chain_update(&self.evidence).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Is it on this?
    #[must_use]
    pub fn is_on(&self, meta: &ObjectMeta) -> bool {
        meta.labels.as_ref().and_then(|labels| labels.get(SEALED_LABEL)) == Some(&self.label())
    }
}

/// One account that is being recreated.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Recorded {
    /// UID it had.
    pub uid: String,
    /// What creates it again.
    pub account: ServiceAccount,
}

/// What is to be done about an account.
#[derive(Clone, Debug, PartialEq)]
pub enum Todo {
    /// Deleted, by its UID, and created again.
    Renew,
    /// There is none: created again.
    Make,
    /// Somebody created one of that name since the record: what it was like is written into it. No token of it is old.
    Complete,
}

/// Returns what is to be done about each account: about what is there without the mark, and what the record has that is not there.
#[must_use]
pub fn todo(
    accounts: &[ServiceAccount],
    record: &BTreeMap<String, Recorded>,
    mark: &Mark,
) -> BTreeMap<String, Todo> {
    let mut all: BTreeMap<String, Todo> = record.keys().map(|name| (name.clone(), Todo::Make)).collect();
    for account in accounts {
        let name = account.name_any();
        if mark.is_on(&account.metadata) {
            all.remove(&name);
            continue;
        }
        let newcomer = record.get(&name).is_some_and(|was| account.uid().as_ref() != Some(&was.uid));
        all.insert(name, if newcomer { Todo::Complete } else { Todo::Renew });
    }
    all
}

/// Returns an account as it is created again: with the mark, and nothing that belongs to the one that goes.
#[must_use]
pub fn again(account: &ServiceAccount, mark: &Mark) -> ServiceAccount {
    let meta = &account.metadata;
    let mut labels = meta.labels.clone().unwrap_or_default();
    labels.insert(SEALED_LABEL.to_owned(), mark.label());
    ServiceAccount {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            labels: Some(labels),
            annotations: meta.annotations.clone(),
            owner_references: meta.owner_references.clone(),
            ..ObjectMeta::default()
        },
        ..account.clone()
    }
}

/// Returns the key of an account's entry. Each sealing has its own, so that none has to be written over.
#[must_use]
pub fn key(name: &str, mark: &Mark) -> String {
    format!("{}.{name}", &mark.label()[..8])
}

/// Returns the entries by the accounts' names; those of this sealing count before those of an earlier one.
#[must_use]
pub fn by_name(entries: BTreeMap<String, Recorded>, mark: &Mark) -> BTreeMap<String, Recorded> {
    let (now, earlier): (Vec<_>, Vec<_>) =
        entries.into_values().partition(|entry| mark.is_on(&entry.account.metadata));
    earlier.into_iter().chain(now).map(|entry| (entry.account.name_any(), entry)).collect()
}

/// Returns what has to be recorded before any account goes: each that lacks the mark, and is not recorded by this sealing yet. What an
/// earlier sealing recorded and could not end counts for what is missing; what is there now is newer than it.
#[must_use]
pub fn unrecorded(
    accounts: &[ServiceAccount],
    record: &BTreeMap<String, Recorded>,
    mark: &Mark,
) -> BTreeMap<String, Recorded> {
    let unmarked = accounts.iter().filter(|account| !mark.is_on(&account.metadata));
    let is_recorded = |name: &str| record.get(name).is_some_and(|was| mark.is_on(&was.account.metadata));
    unmarked
        .filter(|account| !is_recorded(&account.name_any()))
        .map(|account| {
            let uid = account.uid().unwrap_or_default();
            (account.name_any(), Recorded { uid, account: again(account, mark) })
        })
        .collect()
}

/// Returns the merge patch that makes an account what it was, over what was read only.
#[must_use]
pub fn completing(there: &ServiceAccount, was: &ServiceAccount) -> Value {
    json!({
        "metadata": {
            "uid": there.metadata.uid,
            "resourceVersion": there.metadata.resource_version,
            "labels": was.metadata.labels,
            "annotations": was.metadata.annotations,
            "ownerReferences": was.metadata.owner_references,
        },
        "secrets": was.secrets,
        "imagePullSecrets": was.image_pull_secrets,
        "automountServiceAccountToken": was.automount_service_account_token,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mark(evidence: &str) -> Mark {
        Mark { seal: "seal".into(), evidence: evidence.into() }
    }

    fn account(name: &str, uid: &str, mark: Option<&Mark>) -> ServiceAccount {
        let mut labels = BTreeMap::from([("team".to_owned(), "library".to_owned())]);
        labels.extend(mark.map(|mark| (SEALED_LABEL.to_owned(), mark.label())));
        ServiceAccount {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("library".into()),
                uid: Some(uid.into()),
                resource_version: Some("7".into()),
                finalizers: Some(vec!["example.org/kept".into()]),
                labels: Some(labels),
                owner_references: Some(vec![Default::default()]),
                ..ObjectMeta::default()
            },
            automount_service_account_token: Some(false),
            ..ServiceAccount::default()
        }
    }

    fn record(name: &str, uid: &str) -> BTreeMap<String, Recorded> {
        let account = again(&account(name, uid, None), &mark("now"));
        [(name.to_owned(), Recorded { uid: uid.into(), account })].into()
    }

    #[test]
    fn an_account_is_recreated_once_for_each_sealing() {
        let now = mark("now");
        let of = |account: ServiceAccount, record| todo(&[account], &record, &now).into_values().next();
        assert_eq!(of(account("web", "u1", None), BTreeMap::new()), Some(Todo::Renew));
        assert_eq!(of(account("web", "u1", Some(&mark("before"))), BTreeMap::new()), Some(Todo::Renew));
        assert_eq!(of(account("web", "u2", Some(&now)), BTreeMap::new()), None);
    }

    #[test]
    fn wherever_it_ended_it_goes_on() {
        let now = mark("now");
        let of =
            |accounts: &[ServiceAccount]| todo(accounts, &record("web", "u1"), &now).into_values().next();
        assert_eq!(of(&[account("web", "u1", None)]), Some(Todo::Renew), "recorded");
        assert_eq!(of(&[]), Some(Todo::Make), "deleted");
        assert_eq!(of(&[account("web", "u2", None)]), Some(Todo::Complete), "made by its own controller");
        assert_eq!(of(&[account("web", "u2", Some(&now))]), None, "made");
    }

    #[test]
    fn it_is_what_it_was_and_another() {
        let was = account("web", "u1", Some(&mark("before")));
        let made = again(&was, &mark("now"));
        let meta = &made.metadata;
        assert_eq!((&meta.uid, &meta.resource_version, &meta.finalizers), (&None, &None, &None));
        assert_eq!((&meta.name, &meta.namespace), (&was.metadata.name, &was.metadata.namespace));
        assert_eq!(
            (&meta.annotations, &meta.owner_references, meta.labels.as_ref().unwrap()["team"].as_str()),
            (&was.metadata.annotations, &was.metadata.owner_references, "library")
        );
        assert_eq!(made.automount_service_account_token, Some(false));
        assert!(mark("now").is_on(meta));
        let patch = completing(&account("web", "u2", None), &made);
        assert_eq!(
            (patch["metadata"]["uid"].as_str(), patch["metadata"]["resourceVersion"].as_str()),
            (Some("u2"), Some("7"))
        );
    }
}
