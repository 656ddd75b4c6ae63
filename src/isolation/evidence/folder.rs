//! A folder as a store. The one of `object_store` neither sets modes 0700 and 0600 nor removes the remains of a failed write.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Writes a file durably, without overwriting, and reads it back. Blocks.
pub(super) fn store(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    private_folder(folder)?;
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let linked = write(&temporary, bytes).and_then(|()| {
        // Unlike a rename, a link fails if the target exists.
        std::fs::hard_link(&temporary, &path)
    });
    // If the file could not be created, there is nothing to remove.
    let removed = std::fs::remove_file(&temporary);
    match linked {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
        linked => linked?,
    }
    removed?;
    if std::fs::read(&path)? != bytes {
        return Err(io::Error::other(format!("{} holds something else", path.display())));
    }
    File::open(folder)?.sync_all()
}

fn write(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = private_file(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Evidence is private to the operator: it would help an attacker.
fn private_folder(folder: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(folder)
}

fn private_file(path: &Path) -> io::Result<File> {
    let mut options = File::options();
    options.write(true).create(true).truncate(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn existing_object_is_never_overwritten_or_mistaken() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("library");
        store(&into, "a.json", b"first").unwrap();
        let path = into.join("a.json");
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        store(&into, "a.json", b"first").unwrap();
        std::fs::write(&path, b"forged").unwrap();
        assert!(store(&into, "a.json", b"first").is_err());
        assert_eq!(std::fs::read(&path).unwrap(), b"forged");
        assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1, "nothing temporary is left");
    }

    #[test]
    fn evidence_is_readable_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("library");
        store(&into, "a.json", b"first").unwrap();
        let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&into), mode(&into.join("a.json"))), (0o700, 0o600));
    }

    #[test]
    fn a_failed_write_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let into = folder.path().join("library");
        // With a folder in its place, both linking and reading back fail.
        std::fs::create_dir_all(into.join("a.json")).unwrap();
        assert!(store(&into, "a.json", b"first").is_err());
        assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1);
    }
}
