//! Control `Identity`: recreates the ServiceAccounts of a sealed namespace, which revokes all tokens bound to their UIDs.
//! All accounts are recorded before the first is deleted. Each is deleted by UID and created again with a mark; the record is removed
//! last. A crash at any point loses nothing and repeats nothing.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::ServiceAccount;
use kube::ResourceExt;
use kube::core::ObjectMeta;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{Quarantine, SEALED_LABEL};

/// Identifies the sealing that recreated an account: the Quarantine, and the evidence captured before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealMark {
    /// UID of the Quarantine.
    pub seal: String,
    /// Digest of the evidence. It differs for each sealing.
    pub evidence: String,
}

impl SealMark {
    /// Returns the mark of the Quarantine's current sealing.
    #[must_use]
    pub fn of(quarantine: &Quarantine) -> Self {
        let capture = quarantine.status.as_ref().and_then(|status| status.capture.as_ref());
        let evidence = capture.map_or_else(String::new, |capture| capture.digest.clone());
        Self { seal: quarantine.uid().unwrap_or_default(), evidence }
    }

    /// Returns the value of [`SEALED_LABEL`]. It cannot be guessed before the sealing. It is a label, as a tenant may have used up the
    /// space for annotations.
    #[must_use]
    pub fn label(&self) -> String {
        let digest = Sha256::new_with_prefix(&self.seal).chain_update(&self.evidence).finalize();
        digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Returns whether the object has this mark.
    #[must_use]
    pub fn is_on(&self, meta: &ObjectMeta) -> bool {
        meta.labels.as_ref().and_then(|labels| labels.get(SEALED_LABEL)) == Some(&self.label())
    }
}

/// A recorded account that is being recreated.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct RecordedAccount {
    /// UID of the account before.
    pub uid: String,
    /// The account to create.
    pub account: ServiceAccount,
}

/// Action that an account needs.
#[derive(Clone, Debug, PartialEq)]
pub enum AccountAction {
    /// Delete it by UID, and create it again.
    Recreate,
    /// It does not exist: create it.
    Create,
    /// Another client created an account of that name after the record: merge the recorded fields into it. None of its tokens is old.
    Complete,
}

/// Returns the action for each account that lacks the mark, or that is recorded and does not exist.
#[must_use]
pub fn actions(
    accounts: &[ServiceAccount],
    record: &BTreeMap<String, RecordedAccount>,
    mark: &SealMark,
) -> BTreeMap<String, AccountAction> {
    let mut all: BTreeMap<String, AccountAction> =
        record.keys().map(|name| (name.clone(), AccountAction::Create)).collect();
    for account in accounts {
        let name = account.name_any();
        if mark.is_on(&account.metadata) {
            all.remove(&name);
            continue;
        }
        let newcomer = record.get(&name).is_some_and(|was| account.uid().as_ref() != Some(&was.uid));
        all.insert(name, if newcomer { AccountAction::Complete } else { AccountAction::Recreate });
    }
    all
}

/// Annotation of a token Secret: the name of its ServiceAccount.
const ACCOUNT_NAME: &str = "kubernetes.io/service-account.name";

/// Returns the names of the token Secrets, given by their metadata, of the accounts without the mark, which are recreated.
pub fn token_secrets_of<'a>(
    secrets: impl Iterator<Item = &'a ObjectMeta>,
    accounts: &[ServiceAccount],
    mark: &SealMark,
) -> Vec<String> {
    let is_recreated = |name: &String| {
        accounts
            .iter()
            .any(|account| account.metadata.name.as_ref() == Some(name) && !mark.is_on(&account.metadata))
    };
    let account_of = |meta: &'a ObjectMeta| meta.annotations.as_ref()?.get(ACCOUNT_NAME);
    let lost = secrets.filter(|meta| account_of(meta).is_some_and(is_recreated));
    lost.filter_map(|meta| meta.name.clone()).collect()
}

/// Returns the account to create: with the mark, and without the fields that belong to the deleted object.
#[must_use]
pub fn recreated(account: &ServiceAccount, mark: &SealMark) -> ServiceAccount {
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

/// Returns the key of an account's entry. Each sealing has its own keys, so that no entry is overwritten.
#[must_use]
pub fn key(name: &str, mark: &SealMark) -> String {
    format!("{}.{name}", &mark.label()[..8])
}

/// Returns the entries by account name. Entries of this sealing take precedence over those of an earlier one.
#[must_use]
pub fn entries_by_name(
    entries: BTreeMap<String, RecordedAccount>,
    mark: &SealMark,
) -> BTreeMap<String, RecordedAccount> {
    let (now, earlier): (Vec<_>, Vec<_>) =
        entries.into_values().partition(|entry| mark.is_on(&entry.account.metadata));
    earlier.into_iter().chain(now).map(|entry| (entry.account.name_any(), entry)).collect()
}

/// Returns the accounts to record before any is deleted: those without the mark that this sealing has not recorded yet. An entry of an
/// unfinished earlier sealing counts for an account that is missing, not for one that exists.
#[must_use]
pub fn unrecorded(
    accounts: &[ServiceAccount],
    record: &BTreeMap<String, RecordedAccount>,
    mark: &SealMark,
) -> BTreeMap<String, RecordedAccount> {
    let unmarked = accounts.iter().filter(|account| !mark.is_on(&account.metadata));
    let is_recorded = |name: &str| record.get(name).is_some_and(|was| mark.is_on(&was.account.metadata));
    unmarked
        .filter(|account| !is_recorded(&account.name_any()))
        .map(|account| {
            let uid = account.uid().unwrap_or_default();
            (account.name_any(), RecordedAccount { uid, account: recreated(account, mark) })
        })
        .collect()
}

/// Returns the merge patch that restores the recorded fields of an account, with a resourceVersion precondition.
#[must_use]
pub fn completion_patch(there: &ServiceAccount, was: &ServiceAccount) -> Value {
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

    fn mark(evidence: &str) -> SealMark {
        SealMark { seal: "seal".into(), evidence: evidence.into() }
    }

    fn account(name: &str, uid: &str, mark: Option<&SealMark>) -> ServiceAccount {
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

    fn record(name: &str, uid: &str) -> BTreeMap<String, RecordedAccount> {
        let account = recreated(&account(name, uid, None), &mark("now"));
        [(name.to_owned(), RecordedAccount { uid: uid.into(), account })].into()
    }

    #[test]
    fn an_account_is_recreated_once_for_each_sealing() {
        let now = mark("now");
        let of = |account: ServiceAccount, record| actions(&[account], &record, &now).into_values().next();
        assert_eq!(of(account("web", "u1", None), BTreeMap::new()), Some(AccountAction::Recreate));
        assert_eq!(
            of(account("web", "u1", Some(&mark("before"))), BTreeMap::new()),
            Some(AccountAction::Recreate)
        );
        assert_eq!(of(account("web", "u2", Some(&now)), BTreeMap::new()), None);
    }

    #[test]
    fn only_token_secrets_of_recreated_accounts_are_lost() {
        let now = mark("now");
        let accounts = [account("web", "u1", None), account("api", "u2", Some(&now))];
        let secret = |name: &str, of: Option<&str>| ObjectMeta {
            name: Some(name.into()),
            annotations: of.map(|of| BTreeMap::from([(ACCOUNT_NAME.to_owned(), of.to_owned())])),
            ..ObjectMeta::default()
        };
        let secrets = [
            secret("a", Some("web")),
            secret("b", Some("api")),
            secret("c", Some("gone")),
            secret("d", None),
        ];
        assert_eq!(token_secrets_of(secrets.iter(), &accounts, &now), ["a"]);
    }

    #[test]
    fn wherever_it_ended_it_goes_on() {
        let now = mark("now");
        let of =
            |accounts: &[ServiceAccount]| actions(accounts, &record("web", "u1"), &now).into_values().next();
        assert_eq!(of(&[account("web", "u1", None)]), Some(AccountAction::Recreate), "recorded");
        assert_eq!(of(&[]), Some(AccountAction::Create), "deleted");
        assert_eq!(
            of(&[account("web", "u2", None)]),
            Some(AccountAction::Complete),
            "made by its own controller"
        );
        assert_eq!(of(&[account("web", "u2", Some(&now))]), None, "made");
    }

    #[test]
    fn recreated_account_has_the_same_fields_and_a_new_uid() {
        let was = account("web", "u1", Some(&mark("before")));
        let made = recreated(&was, &mark("now"));
        let meta = &made.metadata;
        assert_eq!((&meta.uid, &meta.resource_version, &meta.finalizers), (&None, &None, &None));
        assert_eq!((&meta.name, &meta.namespace), (&was.metadata.name, &was.metadata.namespace));
        assert_eq!(
            (&meta.annotations, &meta.owner_references, meta.labels.as_ref().unwrap()["team"].as_str()),
            (&was.metadata.annotations, &was.metadata.owner_references, "library")
        );
        assert_eq!(made.automount_service_account_token, Some(false));
        assert!(mark("now").is_on(meta));
        let patch = completion_patch(&account("web", "u2", None), &made);
        assert_eq!(
            (patch["metadata"]["uid"].as_str(), patch["metadata"]["resourceVersion"].as_str()),
            (Some("u2"), Some("7"))
        );
    }
}
