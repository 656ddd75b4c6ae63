//! The image as an OCI layout: blobs by digest, and an index with the manifest.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::layer::{Tree, gzip};

pub(crate) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";

/// An image: its blobs, including the manifest.
pub(crate) struct Image {
    /// Content by digest, as `sha256:…`.
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
    /// Digest of the manifest, which is the image's digest.
    pub(crate) digest: String,
    platform: Value,
}

impl Image {
    /// Returns an image of these layers, lowest first. `config`: its configuration without the layers.
    pub(crate) fn new(layers: &[&Tree], mut config: Value, annotations: &Value) -> Result<Self> {
        let mut blobs = BTreeMap::new();
        let mut put = |media_type: &str, content: Vec<u8>| {
            let digest = format!("sha256:{}", sha256(&content));
            let descriptor = json!({"mediaType": media_type, "digest": digest, "size": content.len()});
            blobs.insert(digest, content);
            descriptor
        };
        let (mut uncompressed, mut compressed) = (Vec::new(), Vec::new());
        for layer in layers {
            let archive = layer.archive()?;
            uncompressed.push(format!("sha256:{}", sha256(&archive)));
            compressed.push(put(LAYER, gzip(&archive)?));
        }
        let platform = json!({"architecture": architecture(), "os": "linux"});
        config["architecture"] = platform["architecture"].clone();
        config["os"] = platform["os"].clone();
        config["rootfs"] = json!({"type": "layers", "diff_ids": uncompressed});
        let config = put(CONFIG, to_bytes(config));
        let manifest = put(
            MANIFEST,
            to_bytes(json!({
                "schemaVersion": 2, "mediaType": MANIFEST, "config": config, "layers": compressed,
                "annotations": annotations,
            })),
        );
        let digest = manifest["digest"].as_str().context("a descriptor without a digest")?.to_owned();
        Ok(Self { blobs, digest, platform })
    }

    /// Writes the layout as a folder, and as an archive for `ctr images import` and skopeo's `oci-archive:`. The name is in the index
    /// only, so that the digest does not depend on it.
    pub(crate) fn write(&self, folder: &Path, archive: &Path, name: &str, tag: &str) -> Result<()> {
        let manifest = self.blobs.get(&self.digest).context("the image has no manifest")?;
        let index = json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST, "digest": self.digest, "size": manifest.len(), "platform": self.platform,
                "annotations": {"io.containerd.image.name": name, "org.opencontainers.image.ref.name": tag},
            }],
        });
        let mut files = Tree::default();
        files.file("oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        files.file("index.json", to_bytes(index));
        for (digest, content) in &self.blobs {
            files.file(format!("blobs/{}", digest.replace(':', "/")), content.as_slice());
        }
        if folder.exists() {
            fs::remove_dir_all(folder).with_context(|| format!("cannot remove {}", folder.display()))?;
        }
        files.write(folder)?;
        fs::write(archive, files.archive()?).with_context(|| format!("cannot write {}", archive.display()))
    }
}

/// Returns the architecture of this build, as OCI and Debian call it.
pub(crate) fn architecture() -> &'static str {
    if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }
}

/// Returns the SHA-256 in hexadecimal.
pub(crate) fn sha256(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Serialises JSON with sorted keys: a feature that any crate may enable makes serde_json keep insertion order.
pub(crate) fn to_bytes(mut value: Value) -> Vec<u8> {
    value.sort_all_objects();
    value.to_string().into_bytes()
}
