//! Is what a store holds what was put there? Each object is compared with its name, and with the index that lists it; an index, with
//! what the Quarantine's status says.

use std::collections::{BTreeMap, BTreeSet};

use serde::Serialize;

use super::index::{Listed, Sealing, sort};
use super::read::{Object, ReadError};
use super::store::Store;
use crate::api::OPERATOR_NAMESPACE;

/// What was read of a store, object by object.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Found {
    /// Every object, with the digest of its content.
    pub objects: Vec<(Object, String)>,
    /// Those that are indices.
    pub sealings: Vec<Sealing>,
}

/// What is wrong with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Problem {
    /// It was kept, and is not there.
    Missing,
    /// It is not what it was.
    Changed,
    /// No index lists it. A capture that was tried again leaves such objects, so that this alone is no failure.
    Extra,
}

impl Problem {
    /// Does evidence lack anything by it?
    #[must_use]
    pub fn is_failure(self) -> bool {
        match self {
            Self::Missing | Self::Changed => true,
            Self::Extra => false,
        }
    }
}

/// Something that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Finding {
    /// What is wrong with it.
    pub problem: Problem,
    /// Its name within the store.
    pub object: String,
    /// What it is, and how that is known.
    pub why: String,
}

/// What came of it for one namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verified {
    /// Whose evidence it is.
    pub namespace: String,
    /// How many sealings there are.
    pub sealings: usize,
    /// How many objects were read.
    pub objects: usize,
    /// What is wrong.
    pub findings: Vec<Finding>,
}

impl Verified {
    /// Is everything there, and unchanged?
    #[must_use]
    pub fn is_sound(&self) -> bool {
        !self.findings.iter().any(|finding| finding.problem.is_failure())
    }
}

impl Store {
    /// Reads everything, or what is of one namespace. Of the content, digests and indices are kept.
    ///
    /// # Errors
    /// [`ReadError`]: what cannot be read is not taken for missing.
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
    /// What is wrong, by namespace. `recorded`: by namespace, the digest that its Quarantine's status says.
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
        // What an index says that is not what it was is worth nothing.
        let intact = || sealings.iter().filter(|sealing| sealing.is_intact());
        let mut listed: BTreeSet<String> =
            sealings.iter().map(|sealing| sealing.object.to_string()).collect();
        // By object: of what an index lists it is told what that is.
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
                // Where the operator proved that it can write: nothing was captured there.
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
            // One that was changed is told as such.
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
