//! Recreates ServiceAccounts of a sealed namespace, which revokes all tokens bound to their UIDs. The record is kept in a namespace of
//! the operator. An account that fails does not stop the others.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use super::cleanup;
use crate::api::conditions::shorten;
use crate::api::quarantine::LostTokenSecrets;
use crate::api::{SEALED_LABEL, field_manager};
use crate::calls::{IoError, call, call_opt, call_within, list_all};
use crate::isolation::records::{Kind, Record, RecordError};

pub use resurgam_core::isolation::controls::identity::{
    AccountAction, RecordedAccount, SealMark, actions, completion_patch, entries_by_name, key, recreated,
    token_secrets_of, unrecorded,
};

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
    /// The accounts could not be recorded, so none was deleted.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// Something keeps the account, and its tokens for a while.
    #[error("ServiceAccount {0}/{1} is deleted, and is still there")]
    Lingers(String, String),
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

/// How long the list of token Secrets may take: tokens are valid meanwhile.
const SECRETS_WITHIN: std::time::Duration = std::time::Duration::from_secs(3);

/// Returns the token Secrets that recreating these accounts deletes, by their metadata only. Only the first page is read. An error is
/// part of the answer, as nothing depends on it.
pub async fn token_secrets(
    client: &Client,
    namespace: &str,
    accounts: &[ServiceAccount],
    mark: &SealMark,
) -> LostTokenSecrets {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let params = ListParams::default().fields("type=kubernetes.io/service-account-token").limit(PAGE);
    let what = format!("list token secrets in namespace {namespace}");
    let (names, unknown) = match call_within(SECRETS_WITHIN, what, api.list_metadata(&params)).await {
        Ok(found) => {
            let is_all = found.metadata.continue_.is_none_or(|token| token.is_empty());
            let unknown = if is_all { String::new() } else { format!("there are more than {PAGE}") };
            (token_secrets_of(found.items.iter().map(|secret| &secret.metadata), accounts, mark), unknown)
        }
        Err(error) => (Vec::new(), shorten(&error.to_string(), 256)),
    };
    LostTokenSecrets { names, unknown }
}

/// Recreates every account of the namespace without the mark, as far as possible. Returns whether anything was written.
///
/// # Errors
/// The first [`IdentityError`]. The other accounts were recreated, and the next call continues.
pub async fn renew(client: &Client, namespace: &str, mark: &SealMark) -> Result<bool, IdentityError> {
    renew_listed(client, namespace, mark, &list(client, namespace).await?).await
}

/// As [`renew`], with the accounts just listed.
///
/// # Errors
/// As [`renew`].
pub async fn renew_listed(
    client: &Client,
    namespace: &str,
    mark: &SealMark,
    accounts: &[ServiceAccount],
) -> Result<bool, IdentityError> {
    let work = AccountWriter::new(client, namespace);
    let record = work.record(&mark.seal);
    let mut pages = record.pages().await?;
    let mut known = entries_by_name(record.entries(&pages)?, mark);
    let news = unrecorded(accounts, &known, mark);
    if known.is_empty() && news.is_empty() {
        return Ok(false);
    }
    let entries = news.iter().map(|(name, entry)| (key(name, mark), entry.clone())).collect();
    pages = record.add_to(pages, &entries).await?;
    known.extend(news);
    known.values_mut().for_each(|entry| entry.account = recreated(&entry.account, mark));
    let mut outcomes = stream::iter(actions(accounts, &known, mark))
        .map(|(name, action)| work.recreate(name, action, accounts, &known))
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
    record.forget(pages).await?;
    Ok(true)
}

/// Completes an interrupted sealing: creates the accounts again that it deleted.
///
/// # Errors
/// [`IdentityError`]. What was done is kept, and the next call continues.
pub async fn complete(client: &Client, namespace: &str, seal: &str) -> Result<(), IdentityError> {
    let work = AccountWriter::new(client, namespace);
    let record = work.record(seal);
    let pages = record.pages().await?;
    let known: BTreeMap<String, RecordedAccount> = record.entries(&pages)?;
    for was in known.values() {
        let name = was.account.name_any();
        if work.get(&name).await?.is_none() {
            work.make(&name, was).await?;
        }
    }
    Ok(record.forget(pages).await?)
}

/// Removes our mark and field managers from the accounts of a released namespace. `known`: the accounts, from the cluster cache, so that
/// nothing is read where none is marked.
///
/// # Errors
/// The API server refused, or did not answer. The next call continues.
pub async fn unmark(client: &Client, namespace: &str, known: &[ServiceAccount]) -> Result<(), IoError> {
    if !known.iter().any(|account| account.labels().contains_key(SEALED_LABEL)) {
        return Ok(());
    }
    let work = AccountWriter::new(client, namespace);
    for account in list(client, namespace).await? {
        let Some(patch) = cleanup::account(&account.metadata) else { continue };
        let name = account.name_any();
        let patch = Patch::Merge(patch);
        call_opt(work.what("unmark", &name), work.accounts.patch_metadata(&name, &manager(), &patch)).await?;
    }
    Ok(())
}

struct AccountWriter<'a> {
    client: &'a Client,
    namespace: &'a str,
    accounts: Api<ServiceAccount>,
}

impl<'a> AccountWriter<'a> {
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
        action: AccountAction,
        there: &[ServiceAccount],
        record: &BTreeMap<String, RecordedAccount>,
    ) -> Result<(), IdentityError> {
        let Some(was) = record.get(&name) else { return Ok(()) };
        if action == AccountAction::Recreate {
            let is_kept =
                |account: &&ServiceAccount| account.name_any() == name && !account.finalizers().is_empty();
            if there.iter().any(|account| is_kept(&account)) {
                self.finalize(&name, &was.uid).await?;
            }
            self.delete(&name, &was.uid).await?;
        }
        self.make(&name, was).await
    }

    /// Removes finalizers, which would keep the account and its tokens.
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

    /// Creates the account again. The controller of `default` accounts also does, without the recorded content.
    async fn make(&self, name: &str, was: &RecordedAccount) -> Result<(), IdentityError> {
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        let made = call(self.what("create", name), self.accounts.create(&params, &was.account)).await;
        let error = match made {
            Ok(_) => return Ok(()),
            Err(error) if error.status().is_some_and(kube::core::Status::is_already_exists) => error,
            Err(error) => return Err(error.into()),
        };
        // The account was deleted in between; the next pass creates it.
        let Some(there) = self.get(name).await? else { return Err(error.into()) };
        if there.uid().as_ref() == Some(&was.uid) {
            return Err(IdentityError::Lingers(self.namespace.to_owned(), name.to_owned()));
        }
        let patch = Patch::Merge(completion_patch(&there, &was.account));
        call(self.what("complete", name), self.accounts.patch(name, &manager(), &patch)).await?;
        Ok(())
    }
}

fn manager() -> PatchParams {
    PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() }
}
