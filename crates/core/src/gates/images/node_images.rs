//! Which digests are the same image, as nodes list the images that they have.
//!
//! `status.images` of a Node is written by its kubelet (admission lets it write no other Node), and by whoever may write `nodes/status`.
//! Both can also write what a Pod's status says it runs, so this adds nobody to those who are trusted for that. Names by digest only
//! count: the runtime has checked that content against its digest, whereas a tag is what some registry said.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;

use super::pinned;

/// Images of the nodes that were read, by node.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeImages {
    /// The digests of each image.
    images: BTreeMap<String, Vec<BTreeSet<String>>>,
    /// Why a node could not be read.
    unread: BTreeMap<String, String>,
}

impl NodeImages {
    /// Adds a node.
    pub fn add(&mut self, name: &str, node: &Node) {
        let images = node.status.iter().flat_map(|status| status.images.iter().flatten());
        let digests = images.map(|image| {
            image.names.iter().flatten().filter_map(|name| pinned(name)).map(str::to_owned).collect()
        });
        // An image under one digest says nothing.
        let several = digests.filter(|digests: &BTreeSet<String>| digests.len() > 1).collect();
        self.images.insert(name.to_owned(), several);
    }

    /// Adds a node that could not be read. `why`: in the API server's words.
    pub fn add_unread(&mut self, name: &str, why: String) {
        self.unread.insert(name.to_owned(), why);
    }

    /// Returns whether a node lists both digests for one image.
    #[must_use]
    pub fn are_same(&self, node: &str, a: &str, b: &str) -> bool {
        self.images
            .get(node)
            .is_some_and(|images| images.iter().any(|digests| digests.contains(a) && digests.contains(b)))
    }

    /// Returns why a node could not be read.
    #[must_use]
    pub fn why_unread(&self, node: &str) -> Option<&str> {
        self.unread.get(node).map(String::as_str)
    }
}
