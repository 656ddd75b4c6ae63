//! Records of a namespace's contents before isolation, as ConfigMaps in a namespace of the operator where no tenant can write. A record
//! is a set of entries, packed into pages. A page is named by the digest of its content and never overwritten, so that repeating a write
//! changes nothing and a crash in between loses nothing.

use std::collections::BTreeMap;

use futures::future::join_all;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use super::MANAGED_BY;
use crate::api::{MANAGED_BY_LABEL, RECORDS_NAMESPACE, field_manager};
use crate::calls::{IoError, call, call_opt, list_all};

/// Labels of a page: kind of record, namespace, seal.
const KIND_LABEL: &str = "resurgam.dev/record";
const NAMESPACE_LABEL: &str = "resurgam.dev/namespace";
const SEAL_LABEL: &str = "resurgam.dev/seal";
/// Bytes in one page. The limit of a ConfigMap is 1 MiB.
const PAGE: usize = 512 << 10;
/// Separates the key of an entry that is longer than a page from the number of its part.
const PART: &str = ".part-";

/// Kind of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Network policies that were too large to be neutralised in place.
    Network,
    /// ServiceAccounts that are being recreated.
    Identity,
    /// Replicas of workloads that have no room for the annotation.
    Workloads,
}

impl Kind {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Network => "network",
            Self::Identity => "identity",
            Self::Workloads => "workloads",
        }
    }
}

/// Why a record could not be written or read.
#[derive(Clone, Debug, thiserror::Error)]
pub enum RecordError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// An entry cannot be converted from or to JSON.
    #[error("record of {kind} of namespace {namespace} in {RECORDS_NAMESPACE}, entry {entry}: {why}")]
    Unreadable {
        /// Kind of the record.
        kind: &'static str,
        /// The namespace.
        namespace: String,
        /// Key of the entry.
        entry: String,
        /// What is wrong with the entry.
        why: String,
    },
    /// What was read back differs from what was written.
    #[error(
        "record of {kind} of namespace {namespace} in {RECORDS_NAMESPACE} does not hold what was written into it"
    )]
    NotRecorded {
        /// Kind of the record.
        kind: &'static str,
        /// The namespace.
        namespace: String,
    },
}

/// The record of one kind, namespace and seal.
#[derive(Clone)]
pub struct Record<'a> {
    /// Client for reading and writing.
    pub client: &'a Client,
    /// Kind of the record.
    pub kind: Kind,
    /// The isolated namespace.
    pub namespace: &'a str,
    /// UID of the object that isolated the namespace: of its Quarantine, or of the namespace.
    pub seal: &'a str,
}

impl Record<'_> {
    fn api(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), RECORDS_NAMESPACE)
    }

    fn what(&self, verb: &str) -> String {
        format!(
            "{verb} record of {} of namespace {} in {RECORDS_NAMESPACE}",
            self.kind.as_str(),
            self.namespace
        )
    }

    fn unreadable(&self, entry: &str, why: impl ToString) -> RecordError {
        RecordError::Unreadable {
            kind: self.kind.as_str(),
            namespace: self.namespace.to_owned(),
            entry: entry.to_owned(),
            why: why.to_string(),
        }
    }

    /// Reads the pages of the record.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn pages(&self) -> Result<Vec<ConfigMap>, IoError> {
        let selector = format!(
            "{KIND_LABEL}={},{NAMESPACE_LABEL}={},{SEAL_LABEL}={}",
            self.kind.as_str(),
            self.namespace,
            self.seal
        );
        list_all(&self.what("list"), &self.api(), ListParams::default().labels(&selector), 20).await
    }

    /// Returns all entries in these pages, by key.
    ///
    /// # Errors
    /// [`RecordError`]: the record is incomplete, so nothing follows from a missing entry.
    pub fn entries<T: DeserializeOwned>(
        &self,
        pages: &[ConfigMap],
    ) -> Result<BTreeMap<String, T>, RecordError> {
        let data = pages.iter().flat_map(|page| page.data.clone().unwrap_or_default());
        let entries = assemble(data).map_err(|entry| self.unreadable(&entry, "a part of it is missing"))?;
        let read = entries.into_iter().map(|(key, text)| {
            let entry = serde_json::from_str(&text).map_err(|error| self.unreadable(&key, error))?;
            Ok((key, entry))
        });
        read.collect()
    }

    /// Adds entries and reads them back. An entry whose key is recorded already is kept as first recorded.
    ///
    /// # Errors
    /// [`RecordError`]. What was written is kept, and the next call continues.
    pub async fn add<T>(&self, entries: &BTreeMap<String, T>) -> Result<(), RecordError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        self.add_to(self.pages().await?, entries).await.map(drop)
    }

    /// As [`Record::add`], with the pages just read. Returns the pages after the write.
    ///
    /// # Errors
    /// As [`Record::add`].
    pub async fn add_to<T>(
        &self,
        pages: Vec<ConfigMap>,
        entries: &BTreeMap<String, T>,
    ) -> Result<Vec<ConfigMap>, RecordError>
    where
        T: Serialize + DeserializeOwned + PartialEq,
    {
        let known: BTreeMap<String, serde_json::Value> = self.entries(&pages)?;
        let mut texts = BTreeMap::new();
        for (key, entry) in entries.iter().filter(|(key, _)| !known.contains_key(*key)) {
            let text = serde_json::to_string(entry).map_err(|error| self.unreadable(key, error))?;
            texts.insert(key.clone(), text);
        }
        if texts.is_empty() {
            return Ok(pages);
        }
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        for data in paginate(texts) {
            let page = self.page(data);
            match call(self.what("write"), self.api().create(&params, &page)).await {
                Err(error) if !error.status().is_some_and(kube::core::Status::is_already_exists) => {
                    return Err(error.into());
                }
                Ok(_) | Err(_) => {}
            }
        }
        let pages = self.pages().await?;
        let stored = self.entries::<T>(&pages)?;
        if entries.keys().all(|key| stored.contains_key(key)) {
            return Ok(pages);
        }
        Err(RecordError::NotRecorded { kind: self.kind.as_str(), namespace: self.namespace.to_owned() })
    }

    fn page(&self, data: BTreeMap<String, String>) -> ConfigMap {
        let mut digest = Sha256::new();
        digest.update(self.seal);
        for (key, text) in &data {
            digest.update(key);
            digest.update(text);
        }
        let digest: String = digest.finalize().iter().take(10).map(|byte| format!("{byte:02x}")).collect();
        let labels = [
            (MANAGED_BY_LABEL, MANAGED_BY),
            (KIND_LABEL, self.kind.as_str()),
            (NAMESPACE_LABEL, self.namespace),
            (SEAL_LABEL, self.seal),
        ];
        ConfigMap {
            metadata: ObjectMeta {
                name: Some(format!("{}.{}.{digest}", self.kind.as_str(), self.namespace)),
                namespace: Some(RECORDS_NAMESPACE.to_owned()),
                labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
                ..ObjectMeta::default()
            },
            data: Some(data),
            ..ConfigMap::default()
        }
    }

    /// Deletes the record, given its pages.
    ///
    /// # Errors
    /// The API server refused, or did not answer.
    pub async fn forget(&self, pages: Vec<ConfigMap>) -> Result<(), RecordError> {
        let api = self.api();
        let params = DeleteParams::default();
        let deletes = pages.into_iter().map(|page| {
            let (api, params, name) = (api.clone(), params.clone(), page.name_any());
            async move { call_opt(self.what("delete"), api.delete(&name, &params)).await }
        });
        for deleted in join_all(deletes).await {
            deleted?;
        }
        Ok(())
    }
}

/// Packs entries into pages. An entry longer than a page is split into parts. Pure.
fn paginate(entries: BTreeMap<String, String>) -> Vec<BTreeMap<String, String>> {
    let mut pages = vec![BTreeMap::new()];
    let mut size = 0;
    let mut push = |key: String, text: String| {
        let length = key.len() + text.len();
        if size > 0 && size + length > PAGE {
            pages.push(BTreeMap::new());
            size = 0;
        }
        size += length;
        if let Some(page) = pages.last_mut() {
            page.insert(key, text);
        }
    };
    for (key, text) in entries {
        if text.len() <= PAGE {
            push(key, text);
            continue;
        }
        let parts = split(&text);
        let count = parts.len();
        for (number, part) in parts.into_iter().enumerate() {
            push(format!("{key}{PART}{number}-of-{count}"), part.to_owned());
        }
    }
    pages
}

/// Splits a text into parts of at most a page, at character boundaries.
fn split(mut text: &str) -> Vec<&str> {
    let mut parts = Vec::new();
    while text.len() > PAGE {
        let mut end = PAGE;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let (part, rest) = text.split_at(end);
        parts.push(part);
        text = rest;
    }
    parts.push(text);
    parts
}

/// Joins the parts of entries.
///
/// # Errors
/// The key of an entry with a missing part.
fn assemble(data: impl IntoIterator<Item = (String, String)>) -> Result<BTreeMap<String, String>, String> {
    let mut entries = BTreeMap::new();
    let mut parts: BTreeMap<String, BTreeMap<usize, String>> = BTreeMap::new();
    let mut counts = BTreeMap::new();
    for (key, text) in data {
        let part = key.rsplit_once(PART).and_then(|(key, number)| {
            let (number, count) = number.split_once("-of-")?;
            Some((key.to_owned(), number.parse::<usize>().ok()?, count.parse::<usize>().ok()?))
        });
        match part {
            Some((key, number, count)) => {
                counts.insert(key.clone(), count);
                parts.entry(key).or_default().insert(number, text);
            }
            None => {
                entries.insert(key, text);
            }
        }
    }
    for (key, parts) in parts {
        let whole = counts.get(&key).is_some_and(|count| parts.keys().copied().eq(0..*count));
        if !whole {
            return Err(key);
        }
        entries.insert(key, parts.into_values().collect());
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_any_size_and_number_come_back_as_they_were() {
        let many = (0..3_000).map(|n| (format!("uid-{n}"), "x".repeat(1_000)));
        let huge = [("huge".to_owned(), "ü".repeat(PAGE)), ("small".to_owned(), "{}".to_owned())];
        let entries: BTreeMap<_, _> = many.chain(huge).collect();
        let pages = paginate(entries.clone());
        assert!(pages.len() > 6);
        for page in &pages {
            let size: usize = page.iter().map(|(key, text)| key.len() + text.len()).sum();
            assert!(size < 900 << 10, "{size}");
        }
        assert_eq!(assemble(pages.into_iter().flatten()).unwrap(), entries);
    }

    #[test]
    fn an_entry_with_a_part_missing_is_no_entry() {
        let pages = paginate([("huge".to_owned(), "x".repeat(3 * PAGE))].into());
        assert_eq!(pages.len(), 3);
        assert_eq!(assemble(pages.into_iter().skip(1).flatten()).unwrap_err(), "huge");
    }

    #[test]
    fn nothing_to_record_is_one_empty_page_at_most() {
        assert_eq!(paginate(BTreeMap::new()), [BTreeMap::new()]);
        assert_eq!(assemble([]).unwrap(), BTreeMap::new());
    }
}
