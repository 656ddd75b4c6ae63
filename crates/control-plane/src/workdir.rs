//! Folder of all files of a control plane: data, certificates, kubeconfigs, logs.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::process::{getpid, getuid};

/// File that marks the folder as a control plane's. It has the owner's process ID, and is locked while the owner lives.
const LOCK: &str = "control-plane.lock";

/// Entries that a control plane creates in its folder.
const CONTENT: &[&str] =
    &["audit", "certificates", "config", "containers", "etcd", "home", "kubeconfigs", "logs", "node"];

/// A folder that only this process uses.
#[derive(Debug)]
pub(crate) struct Workdir {
    path: PathBuf,
    temporary: bool,
    /// Lock that the kernel releases when this process ends, so that the folder has no owner. `None`: another process owns it.
    _lock: Option<File>,
}

impl Workdir {
    /// Takes the folder `dir`, or a new temporary one. Files of an earlier control plane are removed.
    pub(crate) fn take(dir: Option<&Path>) -> anyhow::Result<Workdir> {
        let (path, lock) = match dir {
            None => temporary(&std::env::temp_dir())?,
            Some(dir) => given(dir)?,
        };
        let workdir = Workdir { path, temporary: dir.is_none(), _lock: Some(lock) };
        for name in CONTENT {
            let content = workdir.path.join(name);
            if content.exists() {
                fs::remove_dir_all(&content)
                    .with_context(|| format!("cannot remove {}", content.display()))?;
            }
            private_dir(&content)?;
        }
        Ok(workdir)
    }

    /// Returns the folder `dir` of a control plane in another process. Nothing in it is removed.
    pub(crate) fn of_another_process(dir: &Path) -> anyhow::Result<Workdir> {
        let running = owner(dir)?.is_some();
        ensure!(running, "no cluster is running in {}: cargo xtask cluster up --dir DIR", dir.display());
        let path = fs::canonicalize(dir).with_context(|| format!("cannot find {}", dir.display()))?;
        Ok(Workdir { path, temporary: false, _lock: None })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn join(&self, part: &str) -> PathBuf {
        self.path.join(part)
    }
}

impl Drop for Workdir {
    fn drop(&mut self) {
        if self.temporary {
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}

/// Returns the process that runs a control plane in `dir`, if any.
pub(crate) fn owner(dir: &Path) -> anyhow::Result<Option<i32>> {
    let path = dir.join(LOCK);
    let mut file = match File::open(&path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("cannot read {}", path.display())),
    };
    match file.try_lock_shared() {
        Ok(()) => Ok(None),
        Err(TryLockError::Error(error)) => {
            Err(error).with_context(|| format!("cannot lock {}", path.display()))
        }
        Err(TryLockError::WouldBlock) => {
            let mut text = String::new();
            file.read_to_string(&mut text)?;
            let pid =
                text.trim().parse().with_context(|| format!("{} holds no process id", path.display()))?;
            Ok(Some(pid))
        }
    }
}

fn given(dir: &Path) -> anyhow::Result<(PathBuf, File)> {
    fs::create_dir_all(dir).with_context(|| format!("cannot create {}", dir.display()))?;
    let path = fs::canonicalize(dir)?;
    let foreign = !path.join(LOCK).exists() && fs::read_dir(&path)?.next().is_some();
    ensure!(!foreign, "{} is neither empty nor an earlier control plane's folder", path.display());
    match lock(&path)? {
        Some(lock) => Ok((path, lock)),
        None => bail!("a control plane is running in {} already", path.display()),
    }
}

/// Creates a temporary folder, and removes those of this user without an owner: of tests that were killed, or whose control plane is a
/// static and never dropped.
fn temporary(parent: &Path) -> anyhow::Result<(PathBuf, File)> {
    let user = getuid().as_raw();
    let parent = parent.join(format!("resurgam-control-plane-{user}"));
    private_dir(&parent)?;
    ensure!(fs::metadata(&parent)?.uid() == user, "{} belongs to another user", parent.display());
    // One process at a time, or one could remove what another has created and not locked yet.
    let turn = File::create(parent.join("lock"))?;
    turn.lock().with_context(|| format!("cannot lock {}", parent.display()))?;
    for entry in fs::read_dir(&parent)?.flatten() {
        let path = entry.path();
        // A folder that cannot be removed now is tried again at the next start.
        if path.is_dir() && matches!(lock(&path), Ok(Some(_))) {
            let _ = fs::remove_dir_all(&path);
        }
    }
    let prefix = format!("{}-", getpid().as_raw_nonzero());
    let path = tempfile::Builder::new().prefix(&prefix).tempdir_in(&parent)?.keep();
    let lock = lock(&path)?.context("a new folder is locked by somebody else")?;
    Ok((path, lock))
}

/// Locks a control plane's folder and writes our process ID to it. `None`: another process has the lock.
fn lock(dir: &Path) -> anyhow::Result<Option<File>> {
    let path = dir.join(LOCK);
    let open = || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path);
    let mut file = open().with_context(|| format!("cannot write {}", path.display()))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            return Err(error).with_context(|| format!("cannot lock {}", path.display()));
        }
    }
    file.set_len(0)?;
    write!(file, "{}", getpid().as_raw_nonzero())?;
    Ok(Some(file))
}

fn private_dir(path: &Path) -> anyhow::Result<()> {
    let mut builder = DirBuilder::new();
    builder.mode(0o700).recursive(true);
    builder.create(path).with_context(|| format!("cannot create {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folder_with_foreign_files_is_rejected_and_unchanged() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("etcd")).unwrap();
        let error = Workdir::take(Some(dir.path())).unwrap_err().to_string();
        assert!(error.contains("neither empty"), "{error}");
        assert!(dir.path().join("etcd").exists());
    }

    #[test]
    fn a_folder_is_taken_by_one_at_a_time_and_again_once_free() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(owner(dir.path()).unwrap(), None);
        let first = Workdir::take(Some(dir.path())).unwrap();
        assert_eq!(owner(dir.path()).unwrap(), Some(getpid().as_raw_nonzero().get()));
        assert!(Workdir::take(Some(dir.path())).unwrap_err().to_string().contains("running in"));
        fs::write(first.join("logs/old.log"), "old").unwrap();
        drop(first);
        assert_eq!(owner(dir.path()).unwrap(), None);
        let second = Workdir::take(Some(dir.path())).unwrap();
        assert!(!second.join("logs/old.log").exists());
    }

    #[test]
    fn temporary_folder_without_owner_is_removed_at_next_start() {
        let parent = tempfile::tempdir().unwrap();
        let (left, lock_of_left) = temporary(parent.path()).unwrap();
        let (beside, _lock_of_beside) = temporary(parent.path()).unwrap();
        assert!(left.exists(), "it has an owner");
        drop(lock_of_left);
        let _next = temporary(parent.path()).unwrap();
        assert!(!left.exists());
        assert!(beside.exists());
    }
}
