//! Verifies evidence: each object is compared with the digest in its name and with the index that lists it, and an index with the
//! Quarantine's status.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::index::{Listed, Sealing, sort};
use super::read::{Object, ReadError};
use super::store::Store;
use crate::api::OPERATOR_NAMESPACE;

/// All objects read from a store.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// All objects, with the digests of their contents.
    pub objects: Vec<(Object, String)>,
    /// The indices among them.
    pub sealings: Vec<Sealing>,
}

/// Kind of a problem.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Problem {
    /// The object was stored and is gone.
    Missing,
    /// The content of the object changed.
    Changed,
    /// No index lists the object. Repeated captures leave such objects, so this alone is no failure.
    Extra,
}

impl Problem {
    /// Returns whether the evidence is incomplete because of it.
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::Missing | Self::Changed => true,
            Self::Extra => false,
        }
    }
}

/// A problem with an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// Kind of the problem.
    pub problem: Problem,
    /// Name within the store.
    pub object: String,
    /// What the object is, and how the problem was found.
    pub why: String,
}

/// Result for one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// The namespace.
    pub namespace: String,
    /// Number of sealings.
    pub sealings: usize,
    /// Number of objects.
    pub objects: usize,
    /// Problems found.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Returns whether all objects exist and are unchanged.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|finding| finding.problem.is_failure())
    }
}

impl Store {
    /// Reads all objects of one namespace or of all. Keeps digests and indices.
    ///
    /// # Errors
    /// [`ReadError`]. An object that cannot be read does not count as missing.
    pub async fn read_all(&self, namespace: Option<&str>) -> Result<Found, ReadError> {
        let mut found = Found::default();
        for object in self.objects(namespace).await? {
            let (digest, index) = self.examine(&object, true).await?;
            if let Some(index) = index {
                let (object, digest) = (object.clone(), digest.clone());
                found.sealings.push(Sealing { object, digest, index });
            }
            found.objects.push((object, digest));
        }
        sort(&mut found.sealings);
        Ok(found)
    }
}

impl Found {
    /// Returns the problems by namespace. `recorded`: digests in the Quarantines' statuses, by namespace.
    #[must_use]
    pub fn verify(&self, recorded: &BTreeMap<String, String>) -> Vec<Verified> {
        let namespaces: BTreeSet<&str> = self
            .objects
            .iter()
            .map(|(object, _)| object.namespace.as_str())
            .chain(recorded.keys().map(String::as_str))
            .collect();
        namespaces.into_iter().map(|namespace| self.verify_one(namespace, recorded.get(namespace))).collect()
    }

    fn verify_one(&self, namespace: &str, recorded: Option<&String>) -> Verified {
        let objects: BTreeMap<String, (&Object, &str)> = self
            .objects
            .iter()
            .filter(|(object, _)| object.namespace == namespace)
            .map(|(object, digest)| (object.to_string(), (object, digest.as_str())))
            .collect();
        let sealings: Vec<&Sealing> =
            self.sealings.iter().filter(|sealing| sealing.object.namespace == namespace).collect();
        // The content of a modified index is worthless.
        let intact = || sealings.iter().filter(|sealing| sealing.is_intact());
        let mut listed: BTreeSet<String> =
            sealings.iter().map(|sealing| sealing.object.to_string()).collect();
        // By object, since indices also describe the objects they list.
        let mut wrong: BTreeMap<String, (Problem, String)> = BTreeMap::new();
        for sealing in intact() {
            if sealing.index.namespace != namespace {
                let why = format!("it is an index of namespace {}", sealing.index.namespace);
                wrong.insert(sealing.object.to_string(), (Problem::Changed, why));
            }
            for Listed { what, kept } in sealing.index.listed() {
                let of = format!("{what}, captured at {}", sealing.index.at);
                match objects.get(&kept.object) {
                    None => _ = wrong.insert(kept.object.clone(), (Problem::Missing, of)),
                    Some((_, digest)) if *digest != kept.digest => {
                        let why = format!("{of}; its content has the digest {digest}");
                        wrong.insert(kept.object.clone(), (Problem::Changed, why));
                    }
                    Some(_) => {}
                }
                listed.insert(kept.object);
            }
        }
        for (name, (object, digest)) in
            objects.iter().filter(|(name, _)| !wrong.contains_key(*name)).collect::<Vec<_>>()
        {
            let (problem, why) = match object.digest() {
                Some(said) if said != *digest => {
                    (Problem::Changed, format!("its content has the digest {digest}"))
                }
                None => (Problem::Extra, "no name that the operator gives".to_owned()),
                // The operator's own namespace only has objects that verify the store.
                Some(_) if namespace == OPERATOR_NAMESPACE => continue,
                Some(_) if !listed.contains(name) => (Problem::Extra, "no index lists it".to_owned()),
                Some(_) => continue,
            };
            wrong.insert(name.clone(), (problem, why));
        }
        if let Some(digest) = recorded
            && !intact().any(|sealing| sealing.digest == *digest)
        {
            let digits = digest.trim_start_matches("sha256:");
            let why = "the index that the Quarantine's status.capture.digest names";
            // A modified index is reported as modified.
            wrong.entry(format!("{namespace}/{digits}.json")).or_insert((Problem::Missing, why.to_owned()));
        }
        let mut findings: Vec<Finding> =
            wrong.into_iter().map(|(object, (problem, why))| Finding { problem, object, why }).collect();
        findings.sort();
        Verified {
            namespace: namespace.to_owned(),
            sealings: sealings.len(),
            objects: objects.len(),
            findings,
        }
    }
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
