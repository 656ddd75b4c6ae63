//! Image references.

use std::str::FromStr;

use anyhow::{Error, ensure};

/// A reference by tag: `REGISTRY/REPOSITORY:TAG`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Reference {
    pub(crate) registry: String,
    pub(crate) repository: String,
    pub(crate) tag: String,
}

impl FromStr for Reference {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let example = "registry.example/team/resurgam:0.1.0";
        ensure!(
            !text.contains('@'),
            "{text}: an image is named by a tag, such as {example}; its digest follows"
        );
        let (registry, path) = text.split_once('/').unwrap_or(("", text));
        // As every client tells a registry from the first part of a repository.
        ensure!(
            registry.contains(['.', ':']) || registry == "localhost",
            "{text}: the registry is missing. Write it in full, such as {example}"
        );
        let (repository, tag) = path.rsplit_once(':').unwrap_or((path, env!("CARGO_PKG_VERSION")));
        let is_name = |part: &str, more: &str| {
            !part.is_empty() && part.chars().all(|c| c.is_ascii_alphanumeric() || more.contains(c))
        };
        ensure!(
            repository.split('/').all(|part| is_name(part, "._-") && part.to_lowercase() == part)
                && is_name(tag, "._-"),
            "{text}: not the name of an image. A repository has small letters, digits and ._-/, a tag letters, digits and ._-, \
             as in {example}"
        );
        Ok(Self { registry: registry.to_owned(), repository: repository.to_owned(), tag: tag.to_owned() })
    }
}

impl std::fmt::Display for Reference {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}:{}", self.registry, self.repository, self.tag)
    }
}
