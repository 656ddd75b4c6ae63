//! Files in memory, and the reproducible archive made of them.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::path::Path;

use anyhow::{Context, Result};
use flate2::{Compression, GzBuilder};
use tar::{Builder, EntryType, Header};

#[derive(Clone)]
enum Node {
    File { content: Vec<u8>, is_executable: bool },
    Link(String),
}

/// Files and links by path without a leading slash. Folders are implied.
#[derive(Clone, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a file, replacing one with the same path.
    pub(crate) fn file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), Node::File { content: content.into(), is_executable: false });
    }

    /// Adds an executable file.
    pub(crate) fn program(&mut self, path: impl Into<String>, content: Vec<u8>) {
        self.0.insert(path.into(), Node::File { content, is_executable: true });
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.0.insert(path.into(), Node::Link(target.into()));
    }

    /// Adds all files of another tree.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Returns the content of a file.
    pub(crate) fn content(&self, path: &str) -> Option<&[u8]> {
        match self.0.get(path) {
            Some(Node::File { content, .. }) => Some(content),
            _ => None,
        }
    }

    /// Removes a folder and returns the content of its files by path, in order.
    pub(crate) fn take_files(&mut self, folder: &str) -> Vec<Vec<u8>> {
        let taken = self.0.extract_if(.., |path, _| path.starts_with(folder));
        taken
            .filter_map(|(_, node)| if let Node::File { content, .. } = node { Some(content) } else { None })
            .collect()
    }

    /// Writes the files to a folder.
    pub(crate) fn write(&self, folder: &Path) -> Result<()> {
        for (path, node) in &self.0 {
            let to = folder.join(path);
            let Node::File { content, .. } = node else { continue };
            let parent = to.parent().context("a file without a folder")?;
            fs::create_dir_all(parent).with_context(|| format!("cannot create {}", parent.display()))?;
            fs::write(&to, content).with_context(|| format!("cannot write {}", to.display()))?;
        }
        Ok(())
    }

    /// Returns the archive: sorted by path, owned by root, not writable by others, without times. Times would only make equal layers
    /// differ.
    pub(crate) fn archive(&self) -> Result<Vec<u8>> {
        let folders = self.0.keys().flat_map(|path| path.match_indices('/').map(|(end, _)| &path[..end]));
        let mut nodes: BTreeMap<&str, Option<&Node>> = folders.map(|folder| (folder, None)).collect();
        nodes.extend(self.0.iter().map(|(path, node)| (path.as_str(), Some(node))));
        let mut archive = Builder::new(Vec::new());
        for (path, node) in nodes {
            let mut header = Header::new_gnu();
            header.set_uid(0);
            header.set_gid(0);
            header.set_mtime(0);
            header.set_size(0);
            let added = match node {
                None => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    archive.append_data(&mut header, format!("{path}/"), std::io::empty())
                }
                Some(Node::File { content, is_executable }) => {
                    header.set_entry_type(EntryType::Regular);
                    header.set_mode(if *is_executable { 0o755 } else { 0o644 });
                    header.set_size(u64::try_from(content.len())?);
                    archive.append_data(&mut header, path, content.as_slice())
                }
                Some(Node::Link(target)) => {
                    header.set_entry_type(EntryType::Symlink);
                    header.set_mode(0o777);
                    archive.append_link(&mut header, path, target)
                }
            };
            added.with_context(|| format!("cannot archive {path}"))?;
        }
        archive.into_inner().context("cannot end the archive")
    }
}

/// Compresses a layer. Size matters, as many nodes may pull the operator's image at once. The result depends on the compressor, whose
/// version Cargo.lock pins like the binary's crates; the header has neither name nor time.
pub(crate) fn gzip(archive: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    encoder.write_all(archive)?;
    Ok(encoder.finish()?)
}
