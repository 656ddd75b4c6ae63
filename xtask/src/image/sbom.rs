//! Bill of materials in CycloneDX 1.5: the crates linked into the binary, and the Debian packages below it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::packages::{Package, output};

/// Crates linked into the operator's binary, with their dependencies, from `cargo tree`, which knows the features of this build. Macros
/// and build scripts run at compile time and are not included.
struct Crates {
    /// Licence of each crate, by `NAME VERSION`.
    licences: BTreeMap<String, String>,
    needs: BTreeMap<String, BTreeSet<String>>,
}

/// Returns the bill of materials of an image. `created`: RFC 3339; without it the bill has no time.
pub(crate) fn bill(root: &Path, packages: &[Package], digest: &str, created: Option<&str>) -> Result<Value> {
    let crates = crates(root)?;
    let version = env!("CARGO_PKG_VERSION");
    let image = format!("pkg:oci/resurgam@{}", digest.replace(':', "%3A"));
    let mut components = Vec::new();
    let mut dependencies = Vec::new();
    let mut needed_by_image = vec![crate_purl(&format!("resurgam {version}"))];
    for (name_version, licence) in &crates.licences {
        let (name, version) = name_version.split_once(' ').context("a crate without a version")?;
        let purl = crate_purl(name_version);
        let mut component = json!({
            "type": if name == "resurgam" { "application" } else { "library" },
            "bom-ref": purl, "purl": purl, "name": name, "version": version,
        });
        if !licence.is_empty() {
            // `MIT/Apache-2.0` is what some still write for `OR`.
            component["licenses"] = json!([{"expression": licence.replace(" / ", "/").replace('/', " OR ")}]);
        }
        components.push(component);
        let needs: Vec<String> = crates.needs[name_version].iter().map(|name| crate_purl(name)).collect();
        dependencies.push(json!({"ref": purl, "dependsOn": needs}));
    }
    let distribution = distribution(packages);
    for package in packages {
        let (version, architecture) = (encode(&package.version), &package.architecture);
        let purl =
            format!("pkg:deb/debian/{}@{version}?arch={architecture}&distro={distribution}", package.name);
        components.push(json!({
            "type": "library", "bom-ref": purl, "purl": purl, "name": package.name, "version": package.version,
            "hashes": [{"alg": "SHA-256", "content": package.sha256}],
        }));
        needed_by_image.push(purl);
    }
    dependencies.push(json!({"ref": image, "dependsOn": needed_by_image}));
    let mut metadata = json!({
        "component": {
            "type": "container", "bom-ref": image, "purl": image, "name": "resurgam", "version": version,
        },
    });
    if let Some(created) = created {
        metadata["timestamp"] = json!(created);
    }
    Ok(json!({
        "bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1,
        "metadata": metadata, "components": components, "dependencies": dependencies,
    }))
}

fn crates(root: &Path) -> Result<Crates> {
    let mut command = Command::new("cargo");
    command.current_dir(root).args(["tree", "--locked", "--package", "resurgam", "--prefix", "depth"]);
    command.args(["--edges", "normal,no-proc-macro", "--format", "|{p}|{l}|", "--target"]);
    command.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    let output = output(command, "the bill of materials lists the crates that it knows")?;
    parse(&String::from_utf8(output.stdout)?)
}

/// Parses lines such as `2|age-core v0.12.0|MIT OR Apache-2.0| (*)`: a crate, which depends on the previous one with a lower depth.
fn parse(tree: &str) -> Result<Crates> {
    let mut crates = Crates { licences: BTreeMap::new(), needs: BTreeMap::new() };
    let mut path: Vec<String> = Vec::new();
    for line in tree.lines().filter(|line| !line.is_empty()) {
        let parts: Vec<&str> = line.split('|').collect();
        let [depth, package, licence, _] = parts.as_slice() else {
            anyhow::bail!("cargo tree printed a line that is not understood: {line}")
        };
        let mut words = package.split(' ');
        let (name, version) = (words.next(), words.next().and_then(|version| version.strip_prefix('v')));
        let (name, version) = name.zip(version).with_context(|| format!("cargo tree printed {line}"))?;
        let this = format!("{name} {version}");
        path.truncate(depth.parse()?);
        if let Some(parent) = path.last() {
            crates.needs.entry(parent.clone()).or_default().insert(this.clone());
        }
        crates.needs.entry(this.clone()).or_default();
        crates.licences.insert(this.clone(), (*licence).to_owned());
        path.push(this);
    }
    Ok(crates)
}

/// Returns the Debian release, such as `debian-12`, by which package versions are compared.
fn distribution(packages: &[Package]) -> String {
    let release = packages.iter().find_map(|package| package.content("usr/lib/os-release"));
    let release = String::from_utf8_lossy(release.unwrap_or_default()).into_owned();
    let field = |name: &str| {
        let line = release.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    format!("{}-{}", field("ID="), field("VERSION_ID="))
}

fn crate_purl(name_version: &str) -> String {
    let (name, version) = name_version.split_once(' ').unwrap_or((name_version, ""));
    format!("pkg:cargo/{name}@{}", encode(version))
}

/// Percent-encodes text for a package URL: all but letters, digits and `.-_~:`.
fn encode(text: &str) -> String {
    text.bytes().fold(String::new(), |mut encoded, byte| {
        if byte.is_ascii_alphanumeric() || b".-_~:".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
        encoded
    })
}
