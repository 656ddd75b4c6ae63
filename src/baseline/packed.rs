//! A signed baseline in ConfigMaps: compressed, in as many parts as it takes.

use std::io::{Read, Write};

use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::core::ObjectMeta;
use resurgam_core::baseline::MAX_BYTES;

/// Key of the value in a ConfigMap.
pub const KEY: &str = "baseline";
/// Bytes in one ConfigMap. Its limit is 1 MiB.
const PART: usize = 900 << 10;
/// What compressed data begins with.
const GZIP: [u8; 2] = [0x1f, 0x8b];
/// The base64 of the payload, signatures and quotes of the largest inventory.
const LIMIT: usize = MAX_BYTES / 3 * 4 + (1 << 20);

/// Returns ConfigMaps that hold these bytes: `NAME`, `NAME-2` and so on.
///
/// # Errors
/// They cannot be compressed.
pub fn config_maps(namespace: Option<&str>, name: &str, bytes: &[u8]) -> std::io::Result<Vec<ConfigMap>> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes)?;
    let packed = encoder.finish()?;
    let maps = packed.chunks(PART).enumerate().map(|(index, part)| ConfigMap {
        metadata: ObjectMeta {
            name: Some(if index == 0 { name.to_owned() } else { format!("{name}-{}", index + 1) }),
            namespace: namespace.map(str::to_owned),
            ..ObjectMeta::default()
        },
        binary_data: Some([(KEY.to_owned(), ByteString(part.to_vec()))].into()),
        ..ConfigMap::default()
    });
    Ok(maps.collect())
}

/// Returns the part that a ConfigMap holds. `None`: it holds none.
#[must_use]
pub fn part(map: &ConfigMap) -> Option<&[u8]> {
    let binary = map.binary_data.as_ref().and_then(|data| data.get(KEY)).map(|value| value.0.as_slice());
    let part = binary.or_else(|| map.data.as_ref().and_then(|data| data.get(KEY)).map(String::as_bytes));
    part.filter(|part| !part.is_empty())
}

/// Returns what the parts hold together, decompressed.
///
/// # Errors
/// A message: they cannot be decompressed, or are too large.
pub fn unpacked(bytes: Vec<u8>) -> Result<Vec<u8>, String> {
    if !bytes.starts_with(&GZIP) {
        return Ok(bytes);
    }
    let limit = u64::try_from(LIMIT).unwrap_or(u64::MAX);
    let mut all = Vec::new();
    let read = GzDecoder::new(bytes.as_slice()).take(limit).read_to_end(&mut all);
    match read {
        Ok(length) if length == LIMIT => Err(format!("it is larger than {LIMIT} bytes")),
        Ok(_) => Ok(all),
        Err(error) => Err(format!("it cannot be decompressed, a part may be missing: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_come_back_as_what_they_were() {
        // Hardly compressible.
        let mut state = 7_u32;
        let bytes: Vec<u8> = (0..2 * PART)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                state.to_be_bytes()[0]
            })
            .collect();
        let maps = config_maps(Some("recovery"), "approved", &bytes).unwrap();
        let names: Vec<_> = maps.iter().filter_map(|map| map.metadata.name.as_deref()).collect();
        assert_eq!(names, ["approved", "approved-2", "approved-3"]);
        let parts: Vec<&[u8]> = maps.iter().filter_map(part).collect();
        assert_eq!(unpacked(parts.concat()).unwrap(), bytes);
        assert!(unpacked(parts[..2].concat()).unwrap_err().contains("a part may be missing"));
        assert_eq!(unpacked(b"{}".to_vec()).unwrap(), b"{}");
        assert_eq!(part(&ConfigMap::default()), None);
    }

    #[test]
    fn what_decompresses_without_end_is_refused() {
        let bomb = config_maps(None, "bomb", &vec![0; LIMIT + 1]).unwrap();
        assert!(bomb.len() < 3);
        let parts: Vec<&[u8]> = bomb.iter().filter_map(part).collect();
        assert!(unpacked(parts.concat()).unwrap_err().contains("larger"));
    }
}
