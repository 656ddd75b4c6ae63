//! A folder as a store. `object_store` has one too, but neither folders of mode 0700 nor files of mode 0600, and it leaves
//! what a failed write began.

use std::fs::File;
use std::io::{self, ErrorKind, Write};
use std::path::Path;

/// Stores the bytes under that name, durably, without ever overwriting, and reads them back. Blocks.
pub(super) fn store(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    private_folder(folder)?;
    let path = folder.join(name);
    let temporary = folder.join(format!(".{name}.{}.tmp", std::process::id()));
    let linked = write(&temporary, bytes).and_then(|()| {
        // A link, unlike a rename, fails where something is already.
        std::fs::hard_link(&temporary, &path)
    });
    // Nothing is there to be removed if it could not be made.
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

/// Evidence is for the operator's eyes: it names what an attacker would like to know.
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
    fn what_is_there_is_never_overwritten_nor_taken_for_what_it_is_not() {
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
        // A folder in its place: the link fails, and so does reading it back.
        std::fs::create_dir_all(into.join("a.json")).unwrap();
        assert!(store(&into, "a.json", b"first").is_err());
        assert_eq!(std::fs::read_dir(&into).unwrap().count(), 1);
    }
}
