//! Service accounts of a sealed namespace are made anew: a token is bound to the UID of its account, so that every token which
//! was issued before is void. All of them are in a record before the first goes; each goes by its UID and is made again with
//! a mark; the record goes last. Whatever crashes in between, nothing is lost and nothing is done twice.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{ConfigMap, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::MANAGED_BY;
use crate::api::{EVIDENCE_ANNOTATION, MANAGED_BY_LABEL, SEAL_ANNOTATION, field_manager};
use crate::calls::{IoError, call, call_opt};

/// ConfigMap in the namespace with the accounts that are being made anew. It is there only until they are.
pub const RECORD: &str = "resurgam-identity-record";

/// Why accounts are not made anew.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// An entry of the record cannot be read or written: nothing is deleted.
    #[error("ConfigMap {0}/{RECORD}, entry {1}: {2}")]
    Unreadable(String, String, String),
    /// What was written is not what is read: nothing is deleted.
    #[error("ConfigMap {0}/{RECORD} does not hold what was written into it: no service account was deleted")]
    NotRecorded(String),
    /// Finalizers keep it, and its tokens with it for a while.
    #[error("ServiceAccount {0}/{1} is deleted, and kept by its finalizers: who owns them has to let it go")]
    Lingers(String, String),
}

/// Which sealing an account was made anew by: the Quarantine, and the evidence that was taken before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// UID of the Quarantine.
    pub seal: String,
    /// Digest of the evidence: another one at each sealing.
    pub evidence: String,
}

impl Mark {
    fn annotations(&self) -> [(String, String); 2] {
        [
            (SEAL_ANNOTATION.to_owned(), self.seal.clone()),
            (EVIDENCE_ANNOTATION.to_owned(), self.evidence.clone()),
        ]
    }

    /// Is it on this?
    fn is_on(&self, meta: &ObjectMeta) -> bool {
        let annotations = meta.annotations.as_ref();
        self.annotations().iter().all(|(key, value)| annotations.and_then(|a| a.get(key)) == Some(value))
    }
}

/// One account that is being made anew.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Recorded {
    /// UID it had.
    uid: String,
    /// What makes it again.
    account: ServiceAccount,
}

/// What is to be done about an account.
#[derive(Clone, Debug, PartialEq)]
enum Todo {
    /// Deleted, by its UID, and made again.
    Renew,
    /// There is none: made again.
    Make,
    /// Somebody made one of that name since the record: what it was like is written into it. No token of it is old.
    Complete,
}

/// What is there without the mark, and what the record has that is not there. Pure.
fn todo(
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

/// An account as it is made again: with the mark, and nothing that belongs to the one that goes.
fn again(account: &ServiceAccount, mark: &Mark) -> ServiceAccount {
    let meta = &account.metadata;
    let mut annotations = meta.annotations.clone().unwrap_or_default();
    annotations.extend(mark.annotations());
    ServiceAccount {
        metadata: ObjectMeta {
            name: meta.name.clone(),
            namespace: meta.namespace.clone(),
            labels: meta.labels.clone(),
            annotations: Some(annotations),
            owner_references: meta.owner_references.clone(),
            ..ObjectMeta::default()
        },
        ..account.clone()
    }
}

/// Makes every account of the namespace anew that does not bear the mark. Tells whether anything had to be written.
///
/// # Errors
/// [`IdentityError`]; what was done so far stands, and a next call goes on from there.
pub async fn renew(client: &Client, namespace: &str, mark: &Mark) -> Result<bool, IdentityError> {
    let work = Work::new(client, namespace);
    let listing = format!("list serviceaccounts in namespace {namespace}");
    let accounts = call(listing, work.accounts.list(&ListParams::default())).await?.items;
    let (stored, mut record) = work.record(&mark.seal).await?;
    let intended = stored.as_ref().is_some_and(|stored| mark.is_on(&stored.metadata));
    let unmarked = accounts.iter().filter(|account| !mark.is_on(&account.metadata));
    // The record of an earlier sealing says what is missing; what is there now is newer than it.
    let news: Vec<_> =
        unmarked.filter(|account| !(intended && record.contains_key(&account.name_any()))).collect();
    if stored.is_none() && news.is_empty() {
        return Ok(false);
    }
    for account in &news {
        let uid = account.uid().unwrap_or_default();
        record.insert(account.name_any(), Recorded { uid, account: again(account, mark) });
    }
    let stored = match stored {
        Some(stored) if intended && news.is_empty() => stored,
        old => {
            record.values_mut().for_each(|entry| entry.account = again(&entry.account, mark));
            work.write(old, &record, mark).await?
        }
    };
    for (name, todo) in todo(&accounts, &record, mark) {
        let Some(was) = record.get(&name) else { continue };
        if todo == Todo::Renew {
            work.delete(&name, &was.uid).await?;
        }
        work.make(&name, was).await?;
    }
    work.forget(&stored).await?;
    Ok(true)
}

/// Ends what a sealing began and did not come to the end of: accounts that it deleted are made again.
///
/// # Errors
/// [`IdentityError`]; what was done so far stands, and a next call goes on from there.
pub async fn complete(client: &Client, namespace: &str, seal: &str) -> Result<(), IdentityError> {
    let work = Work::new(client, namespace);
    let (Some(stored), record) = work.record(seal).await? else { return Ok(()) };
    for (name, was) in &record {
        if work.get(name).await?.is_none() {
            work.make(name, was).await?;
        }
    }
    work.forget(&stored).await
}

struct Work {
    namespace: String,
    accounts: Api<ServiceAccount>,
    records: Api<ConfigMap>,
}

impl Work {
    fn new(client: &Client, namespace: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            accounts: Api::namespaced(client.clone(), namespace),
            records: Api::namespaced(client.clone(), namespace),
        }
    }

    fn what(&self, verb: &str, name: &str) -> String {
        format!("{verb} ServiceAccount {}/{name}", self.namespace)
    }

    fn unreadable(&self, entry: &str, error: &serde_json::Error) -> IdentityError {
        IdentityError::Unreadable(self.namespace.clone(), entry.to_owned(), error.to_string())
    }

    async fn get(&self, name: &str) -> Result<Option<ServiceAccount>, IoError> {
        call_opt(self.what("get", name), self.accounts.get(name)).await
    }

    /// What is stored under the record's name, and what this seal has recorded in it: one of another seal, or a tenant's own,
    /// says nothing.
    async fn record(
        &self,
        seal: &str,
    ) -> Result<(Option<ConfigMap>, BTreeMap<String, Recorded>), IdentityError> {
        let what = format!("get ConfigMap {}/{RECORD}", self.namespace);
        let stored = call_opt(what, self.records.get(RECORD)).await?;
        let is_ours =
            |stored: &&ConfigMap| stored.annotations().get(SEAL_ANNOTATION).is_some_and(|s| s == seal);
        let entries = stored.iter().filter(is_ours).flat_map(|stored| stored.data.iter().flatten());
        let read = entries.map(|(name, text)| {
            let entry = serde_json::from_str(text).map_err(|error| self.unreadable(name, &error))?;
            Ok((name.clone(), entry))
        });
        let record = read.collect::<Result<_, IdentityError>>()?;
        Ok((stored, record))
    }

    /// Writes the intent, and reads what came of it.
    async fn write(
        &self,
        old: Option<ConfigMap>,
        record: &BTreeMap<String, Recorded>,
        mark: &Mark,
    ) -> Result<ConfigMap, IdentityError> {
        let entry = |(name, entry): (&String, &Recorded)| match serde_json::to_string(entry) {
            Ok(text) => Ok((name.clone(), text)),
            Err(error) => Err(self.unreadable(name, &error)),
        };
        let data = record.iter().map(entry).collect::<Result<BTreeMap<_, _>, _>>()?;
        let new = ConfigMap {
            metadata: ObjectMeta {
                name: Some(RECORD.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some([(MANAGED_BY_LABEL.to_owned(), MANAGED_BY.to_owned())].into()),
                annotations: Some(mark.annotations().into()),
                resource_version: old.as_ref().and_then(|old| old.metadata.resource_version.clone()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        };
        let params = post();
        let what = format!("write ConfigMap {}/{RECORD}", self.namespace);
        match old {
            Some(_) => call(what.clone(), self.records.replace(RECORD, &params, &new)).await?,
            None => call(what.clone(), self.records.create(&params, &new)).await?,
        };
        let (stored, kept) = self.record(&mark.seal).await?;
        let stored = stored.filter(|_| kept == *record);
        stored.ok_or_else(|| IdentityError::NotRecorded(self.namespace.clone()))
    }

    async fn delete(&self, name: &str, uid: &str) -> Result<(), IoError> {
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::default().preconditions(same);
        call_opt(self.what("delete", name), self.accounts.delete(name, &params)).await?;
        Ok(())
    }

    /// Makes it again. `default` is made again by its own controller too, which knows nothing of what it was like.
    async fn make(&self, name: &str, was: &Recorded) -> Result<(), IdentityError> {
        let made = call(self.what("create", name), self.accounts.create(&post(), &was.account)).await;
        let error = match made {
            Ok(_) => return Ok(()),
            Err(error) if error.status().is_some_and(kube::core::Status::is_already_exists) => error,
            Err(error) => return Err(error.into()),
        };
        // Gone again in between: the next pass makes it.
        let Some(there) = self.get(name).await? else { return Err(error.into()) };
        if there.uid().as_ref() == Some(&was.uid) {
            return Err(IdentityError::Lingers(self.namespace.clone(), name.to_owned()));
        }
        let params = PatchParams {
            field_manager: Some(field_manager::ISOLATION.to_owned()),
            ..PatchParams::default()
        };
        let patch = Patch::Merge(completing(&there, &was.account));
        call(self.what("complete", name), self.accounts.patch(name, &params, &patch)).await?;
        Ok(())
    }

    async fn forget(&self, stored: &ConfigMap) -> Result<(), IdentityError> {
        let same = Preconditions { uid: stored.uid(), resource_version: None };
        let params = DeleteParams::default().preconditions(same);
        let what = format!("delete ConfigMap {}/{RECORD}", self.namespace);
        call_opt(what, self.records.delete(RECORD, &params)).await?;
        Ok(())
    }
}

fn post() -> PostParams {
    PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) }
}

/// The merge patch that makes an account what it was, over what was read only.
fn completing(there: &ServiceAccount, was: &ServiceAccount) -> Value {
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
        ServiceAccount {
            metadata: ObjectMeta {
                name: Some(name.into()),
                namespace: Some("library".into()),
                uid: Some(uid.into()),
                resource_version: Some("7".into()),
                finalizers: Some(vec!["example.org/kept".into()]),
                labels: Some([("team".to_owned(), "library".to_owned())].into()),
                annotations: mark.map(|mark| mark.annotations().into()),
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
    fn an_account_is_made_anew_once_for_each_sealing() {
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
            (&meta.labels, &meta.owner_references),
            (&was.metadata.labels, &was.metadata.owner_references)
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
