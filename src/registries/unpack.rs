//! Reads manifests in a tar.gz. Nothing is written to a disk, so that names in it are only names.

use std::collections::BTreeMap;
use std::io::Read;

use flate2::read::MultiGzDecoder;
use resurgam_core::steps::apply::oci::{FILES_LIMIT, UNPACKED_LIMIT, is_manifest};
use tar::{Archive, EntryType};

/// Returns the files with manifests in an archive, by name. Other files are ignored.
pub(super) fn unpack(bytes: &[u8]) -> Result<BTreeMap<String, String>, String> {
    let malformed = |error: std::io::Error| format!("its archive is malformed: {error}");
    let limit = u64::try_from(UNPACKED_LIMIT).unwrap_or(u64::MAX);
    let mut archive = Vec::new();
    MultiGzDecoder::new(bytes).take(limit.saturating_add(1)).read_to_end(&mut archive).map_err(malformed)?;
    if archive.len() > UNPACKED_LIMIT {
        return Err(format!("its archive unpacks to more than {UNPACKED_LIMIT} bytes"));
    }
    let mut files = BTreeMap::new();
    for (index, entry) in Archive::new(archive.as_slice()).entries().map_err(malformed)?.enumerate() {
        let entry = entry.map_err(malformed)?;
        if index >= FILES_LIMIT {
            return Err(format!("its archive has more than {FILES_LIMIT} files"));
        }
        let name = String::from_utf8(entry.path_bytes().into_owned());
        let name = name.map_err(|_| "its archive has a file whose name is no text")?;
        let name = name.trim_start_matches("./").to_owned();
        match entry.header().entry_type() {
            EntryType::Regular => {}
            // What tools write about the archive itself.
            EntryType::Directory | EntryType::XGlobalHeader => continue,
            // A link to a manifest would silently not be applied.
            _ => return Err(format!("{name} in its archive is no file: links are not followed")),
        }
        if !is_manifest(&name) {
            continue;
        }
        // A sparse file would be longer than it is in the archive.
        let mut text = Vec::new();
        entry.take(limit).read_to_end(&mut text).map_err(malformed)?;
        let text = String::from_utf8(text).map_err(|_| format!("{name} in its archive is no text"))?;
        if files.insert(name.clone(), text).is_some() {
            return Err(format!("{name} is there twice in its archive"));
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::GzEncoder;
    use tar::{Builder, Header};

    use super::*;

    fn packed(tar: &[u8]) -> Vec<u8> {
        let mut gz = GzEncoder::new(Vec::new(), Compression::fast());
        gz.write_all(tar).unwrap();
        gz.finish().unwrap()
    }

    /// An archive of these entries. Names are written as they are, such as `../x`.
    fn archive(entries: &[(&str, EntryType, &[u8])]) -> Vec<u8> {
        let mut tar = Builder::new(Vec::new());
        for (name, type_, content) in entries {
            let mut header = Header::new_gnu();
            header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
            header.set_entry_type(*type_);
            header.as_gnu_mut().unwrap().realsize = *b"00000000000\0";
            header.set_size(content.len() as u64);
            header.set_cksum();
            tar.append(&header, *content).unwrap();
        }
        packed(&tar.into_inner().unwrap())
    }

    #[test]
    fn manifests_in_an_archive_are_read_by_name() {
        let file = EntryType::Regular;
        let read = unpack(&archive(&[
            ("./b.yaml", file, b"b"),
            ("./", EntryType::Directory, b""),
            ("a/a.yml", file, b"a"),
            ("README.md", file, b"\xff"),
            ("../../etc/c.json", file, b"{}"),
        ]))
        .unwrap();
        let read: Vec<(&str, &str)> = read.iter().map(|(name, text)| (&**name, &**text)).collect();
        assert_eq!(read, [("../../etc/c.json", "{}"), ("a/a.yml", "a"), ("b.yaml", "b")]);
    }

    #[test]
    fn archive_that_hides_or_exceeds_something_is_refused() {
        let file = EntryType::Regular;
        let zeros = vec![0; UNPACKED_LIMIT];
        let many = vec![("x", file, &b""[..]); FILES_LIMIT + 1];
        for (bytes, words) in [
            (archive(&[("a.yaml", EntryType::Symlink, b"")]), "a.yaml in its archive is no file"),
            (archive(&[("a.yaml", EntryType::Link, b"")]), "a.yaml in its archive is no file"),
            (archive(&[("a.yaml", EntryType::GNUSparse, b"")]), "in its archive is no file"),
            (archive(&[("dev", EntryType::Block, b"")]), "dev in its archive is no file"),
            (archive(&[("a.yaml", file, b"1"), ("./a.yaml", file, b"2")]), "a.yaml is there twice"),
            (archive(&[("a.yaml", file, b"\xff")]), "a.yaml in its archive is no text"),
            (archive(&[("zeros", file, &zeros)]), "unpacks to more than 4194304 bytes"),
            (archive(&many), "has more than 1000 files"),
            (b"kind: Service".to_vec(), "its archive is malformed"),
            (packed(b"kind: Service"), "its archive is malformed"),
        ] {
            let error = unpack(&bytes).unwrap_err();
            assert!(error.contains(words), "{words}: {error}");
        }
        let whole = archive(&[("a.yaml", file, &[b'x'; 5000])]);
        assert!(unpack(&whole[..whole.len() / 2]).is_err(), "it is cut off");
    }
}
