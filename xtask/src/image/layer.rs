//! Files in memory, and the archive made of them: the same bytes wherever and whenever it is made.

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

/// Files and links by their path, which has no slash in front. Folders are whatever something lies in.
#[derive(Clone, Default)]
pub(crate) struct Tree(BTreeMap<String, Node>);

impl Tree {
    /// Adds a file, in place of one that has its path.
    pub(crate) fn file(&mut self, path: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.0.insert(path.into(), Node::File { content: content.into(), is_executable: false });
    }

    /// Adds a program.
    pub(crate) fn program(&mut self, path: impl Into<String>, content: Vec<u8>) {
        self.0.insert(path.into(), Node::File { content, is_executable: true });
    }

    /// Adds a symbolic link.
    pub(crate) fn link(&mut self, path: impl Into<String>, target: impl Into<String>) {
        self.0.insert(path.into(), Node::Link(target.into()));
    }

    /// Adds all that another tree has.
    pub(crate) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Content of a file.
    pub(crate) fn content(&self, path: &str) -> Option<&[u8]> {
        match self.0.get(path) {
            Some(Node::File { content, .. }) => Some(content),
            _ => None,
        }
    }

    /// Takes out what is under a folder: content of files by path, in order.
    pub(crate) fn take_files(&mut self, folder: &str) -> Vec<Vec<u8>> {
        let taken = self.0.extract_if(.., |path, _| path.starts_with(folder));
        taken
            .filter_map(|(_, node)| if let Node::File { content, .. } = node { Some(content) } else { None })
            .collect()
    }

    /// Writes the files themselves into a folder.
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

    /// The archive: sorted by path, all of root's, nothing writable by others, with no time of any file. Times would only make
    /// layers differ whose content does not.
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

/// Compresses a layer. The operator is fetched by every node that it is started on, on a bad day at once, so size counts. The bytes
/// depend on the compressor, which Cargo.lock pins as it does the binary's crates; the header has neither name nor time.
pub(crate) fn gzip(archive: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::default());
    encoder.write_all(archive)?;
    Ok(encoder.finish()?)
}
