//! ServiceAccounts of a sealed namespace are recreated: a token is bound to the UID of its account, so that every token which was
//! issued before is void. All of them are recorded in a namespace of the operator's own before the first goes; each goes by its
//! UID and is created again with a mark; the record goes last. Whatever crashes in between, nothing is lost and nothing is done
//! twice. One that cannot be recreated keeps none of the others.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::api::{SEALED_LABEL, field_manager};
use crate::calls::{IoError, call, call_opt, list_all};
use crate::isolation::records::{Kind, Record, RecordError};

/// Accounts recreated at a time.
const PARALLEL: usize = 8;
/// Accounts listed at a time.
const PAGE: u32 = 500;

/// Why accounts are not recreated.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IdentityError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// They could not be recorded: nothing is deleted.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Something keeps it, and its tokens with it for a while.
    #[error("ServiceAccount {0}/{1} is deleted, and is still there")]
    Lingers(String, String),
}

/// Which sealing an account was recreated by: the Quarantine, and the evidence that was taken before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    /// UID of the Quarantine.
    pub seal: String,
    /// Digest of the evidence: another one at each sealing.
    pub evidence: String,
}

impl Mark {
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
struct Recorded {
    /// UID it had.
    uid: String,
    /// What creates it again.
    account: ServiceAccount,
}

/// What is to be done about an account.
#[derive(Clone, Debug, PartialEq)]
enum Todo {
    /// Deleted, by its UID, and created again.
    Renew,
    /// There is none: created again.
    Make,
    /// Somebody created one of that name since the record: what it was like is written into it. No token of it is old.
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

/// An account as it is created again: with the mark, and nothing that belongs to the one that goes.
fn again(account: &ServiceAccount, mark: &Mark) -> ServiceAccount {
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

/// Key of an account's entry. Each sealing has its own, so that none has to be written over.
fn key(name: &str, mark: &Mark) -> String {
    format!("{}.{name}", &mark.label()[..8])
}

/// The entries by the accounts' names; those of this sealing count before those of an earlier one.
fn by_name(entries: BTreeMap<String, Recorded>, mark: &Mark) -> BTreeMap<String, Recorded> {
    let (now, earlier): (Vec<_>, Vec<_>) =
        entries.into_values().partition(|entry| mark.is_on(&entry.account.metadata));
    earlier.into_iter().chain(now).map(|entry| (entry.account.name_any(), entry)).collect()
}

/// Reads the namespace's ServiceAccounts, page by page.
///
/// # Errors
/// The API server refused, or did not answer.
pub async fn list(client: &Client, namespace: &str) -> Result<Vec<ServiceAccount>, IoError> {
    let api: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    list_all(&format!("list serviceaccounts in namespace {namespace}"), &api, ListParams::default(), PAGE)
        .await
}

/// Recreates every account of the namespace that does not bear the mark, as far as it gets. Returns whether anything had to be
/// written.
///
/// # Errors
/// The first [`IdentityError`]; the other accounts were recreated all the same, and a next call goes on from there.
pub async fn renew(client: &Client, namespace: &str, mark: &Mark) -> Result<bool, IdentityError> {
    let accounts = list(client, namespace).await?;
    let work = Work::new(client, namespace);
    let record = work.record(&mark.seal);
    let mut known = by_name(record.read().await?, mark);
    let unmarked = accounts.iter().filter(|account| !mark.is_on(&account.metadata));
    // What an earlier sealing recorded and could not end counts for what is missing; what is there now is newer than it.
    let is_recorded = |name: &str| known.get(name).is_some_and(|was| mark.is_on(&was.account.metadata));
    let news: BTreeMap<_, _> = unmarked
        .filter(|account| !is_recorded(&account.name_any()))
        .map(|account| {
            let uid = account.uid().unwrap_or_default();
            (account.name_any(), Recorded { uid, account: again(account, mark) })
        })
        .collect();
    if known.is_empty() && news.is_empty() {
        return Ok(false);
    }
    let entries = news.iter().map(|(name, entry)| (key(name, mark), entry.clone())).collect();
    record.add(&entries).await?;
    known.extend(news);
    known.values_mut().for_each(|entry| entry.account = again(&entry.account, mark));
    let mut outcomes = stream::iter(todo(&accounts, &known, mark))
        .map(|(name, todo)| work.recreate(name, todo, &accounts, &known))
        .buffer_unordered(PARALLEL);
    let mut failed = None;
    while let Some(outcome) = outcomes.next().await {
        if let Err(error) = outcome {
            failed = failed.or(Some(error));
        }
    }
    if let Some(error) = failed {
        return Err(error);
    }
    record.forget().await?;
    Ok(true)
}

/// Ends what a sealing began and did not come to the end of: accounts that it deleted are created again.
///
/// # Errors
/// [`IdentityError`]; what was done so far stands, and a next call goes on from there.
pub async fn complete(client: &Client, namespace: &str, seal: &str) -> Result<(), IdentityError> {
    let work = Work::new(client, namespace);
    let record = work.record(seal);
    let known: BTreeMap<String, Recorded> = record.read().await?;
    for was in known.values() {
        let name = was.account.name_any();
        if work.get(&name).await?.is_none() {
            work.make(&name, was).await?;
        }
    }
    if !known.is_empty() {
        record.forget().await?;
    }
    Ok(())
}

/// Takes our mark off the accounts of a namespace that is released.
///
/// # Errors
/// The API server refused, or did not answer; a next call goes on from there.
pub async fn unmark(client: &Client, namespace: &str) -> Result<(), IoError> {
    let work = Work::new(client, namespace);
    for account in list(client, namespace).await? {
        if account.labels().contains_key(SEALED_LABEL) {
            let patch = Patch::Merge(json!({"metadata": {"labels": {SEALED_LABEL: null}}}));
            let name = account.name_any();
            call_opt(work.what("unmark", &name), work.accounts.patch_metadata(&name, &manager(), &patch))
                .await?;
        }
    }
    Ok(())
}

struct Work<'a> {
    client: &'a Client,
    namespace: &'a str,
    accounts: Api<ServiceAccount>,
}

impl<'a> Work<'a> {
    fn new(client: &'a Client, namespace: &'a str) -> Self {
        Self { client, namespace, accounts: Api::namespaced(client.clone(), namespace) }
    }

    fn record<'b>(&'b self, seal: &'b str) -> Record<'b> {
        Record { client: self.client, kind: Kind::Identity, namespace: self.namespace, seal }
    }

    fn what(&self, verb: &str, name: &str) -> String {
        format!("{verb} ServiceAccount {}/{name}", self.namespace)
    }

    async fn get(&self, name: &str) -> Result<Option<ServiceAccount>, IoError> {
        call_opt(self.what("get", name), self.accounts.get(name)).await
    }

    async fn recreate(
        &self,
        name: String,
        todo: Todo,
        there: &[ServiceAccount],
        record: &BTreeMap<String, Recorded>,
    ) -> Result<(), IdentityError> {
        let Some(was) = record.get(&name) else { return Ok(()) };
        if todo == Todo::Renew {
            let is_kept =
                |account: &&ServiceAccount| account.name_any() == name && !account.finalizers().is_empty();
            if there.iter().any(|account| is_kept(&account)) {
                self.finalize(&name, &was.uid).await?;
            }
            self.delete(&name, &was.uid).await?;
        }
        self.make(&name, was).await
    }

    /// Takes finalizers off, which would keep the account and its tokens.
    async fn finalize(&self, name: &str, uid: &str) -> Result<(), IoError> {
        let patch = Patch::Merge(json!({"metadata": {"uid": uid, "finalizers": null}}));
        let what = self.what("take finalizers off", name);
        call_opt(what, self.accounts.patch_metadata(name, &manager(), &patch)).await?;
        Ok(())
    }

    async fn delete(&self, name: &str, uid: &str) -> Result<(), IoError> {
        let same = Preconditions { uid: Some(uid.to_owned()), resource_version: None };
        let params = DeleteParams::default().preconditions(same);
        call_opt(self.what("delete", name), self.accounts.delete(name, &params)).await?;
        Ok(())
    }

    /// Creates it again. `default` is created again by its own controller too, which knows nothing of what it was like.
    async fn make(&self, name: &str, was: &Recorded) -> Result<(), IdentityError> {
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        let made = call(self.what("create", name), self.accounts.create(&params, &was.account)).await;
        let error = match made {
            Ok(_) => return Ok(()),
            Err(error) if error.status().is_some_and(kube::core::Status::is_already_exists) => error,
            Err(error) => return Err(error.into()),
        };
        // Gone again in between: the next pass creates it.
        let Some(there) = self.get(name).await? else { return Err(error.into()) };
        if there.uid().as_ref() == Some(&was.uid) {
            return Err(IdentityError::Lingers(self.namespace.to_owned(), name.to_owned()));
        }
        let patch = Patch::Merge(completing(&there, &was.account));
        call(self.what("complete", name), self.accounts.patch(name, &manager(), &patch)).await?;
        Ok(())
    }
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() }
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
