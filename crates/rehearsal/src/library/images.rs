//! Images of the library, built from Debian's PostgreSQL and Perl on this machine.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use control_plane::{ControlPlane, Image};

/// Folder of Debian's PostgreSQL versions.
const POSTGRES: &str = "/usr/lib/postgresql";
/// User and group in the images.
const USER: &str = "999:999";
const ACCOUNTS: &str = "library:x:999:999::/:/bin/sh\n";

/// Names of the images, with digests.
#[derive(Clone, Debug)]
pub(super) struct Images {
    pub(super) postgres: String,
    pub(super) catalogue: String,
    /// Image of the catalogue with an unapproved change.
    pub(super) tampered: String,
    /// Folder of PostgreSQL's programs in the images.
    pub(super) programs: PathBuf,
}

/// Returns what this machine lacks to build the images. Empty: nothing.
#[must_use]
pub fn lacks() -> Vec<String> {
    let mut lacks = Vec::new();
    if postgres().is_none() {
        lacks.push(format!("{POSTGRES} (Debian: postgresql)"));
    }
    if perl().is_none() {
        lacks.push("perl-base".to_owned());
    }
    lacks
}

impl Images {
    /// Builds the images and imports them on the real node.
    pub(super) fn import(cluster: &ControlPlane) -> Result<Self> {
        let postgres = postgres().context("PostgreSQL is not installed")?;
        let perl = perl().context("perl-base is not installed")?;
        let programs = postgres.join("bin");
        let of = |name: &str| {
            let image = Image::new(name).run_as(USER).with_text("/etc/passwd", ACCOUNTS);
            image.with_text("/etc/nsswitch.conf", "hosts: files\npasswd: files\n").with("/bin/sh")
        };

        let mut database = of("localhost/postgres:1");
        for program in ["initdb", "pg_dump", "pg_isready", "postgres", "psql"] {
            database = database.with(programs.join(program));
        }
        for entry in std::fs::read_dir(postgres.join("lib"))? {
            let library = entry?.path();
            // What compiles queries is ten times as large as all the rest, and is done without where it is not there.
            let is_jit = library.file_name().is_some_and(|name| name == "llvmjit.so");
            if library.extension().is_some_and(|extension| extension == "so") && !is_jit {
                database = database.with(library);
            }
        }
        let version = postgres.file_name().unwrap_or_default();
        let database =
            database.with(Path::new("/usr/share/postgresql").join(version)).with("/usr/share/zoneinfo/UTC");

        let catalogue = |name: &str| of(name).with("/usr/bin/perl").with(&perl).with(programs.join("psql"));
        let tampered =
            catalogue("localhost/catalogue:tampered").with_text("/usr/share/implant", "it phones home\n");
        Ok(Self {
            postgres: cluster.import_image(&database)?,
            catalogue: cluster.import_image(&catalogue("localhost/catalogue:1"))?,
            tampered: cluster.import_image(&tampered)?,
            programs,
        })
    }
}

/// Builds the image of PostgreSQL and imports it on the real node. Returns its name with digest, and the folder of its programs in it.
///
/// # Errors
/// This machine lacks something, or the image cannot be imported.
pub fn postgres_image(cluster: &ControlPlane) -> Result<(String, PathBuf)> {
    let images = Images::import(cluster)?;
    Ok((images.postgres, images.programs))
}

/// Returns the folder of the programs of this machine's newest PostgreSQL.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    postgres().map(|folder| folder.join("bin"))
}

/// Returns the folder of the newest PostgreSQL.
fn postgres() -> Option<PathBuf> {
    let version = |folder: &Path| folder.file_name()?.to_str()?.parse::<u32>().ok();
    let folders = std::fs::read_dir(POSTGRES).ok()?.flatten().map(|entry| entry.path());
    folders.filter(|folder| folder.join("bin/postgres").is_file()).max_by_key(|folder| version(folder))
}

/// Returns the folder of Perl's modules.
fn perl() -> Option<PathBuf> {
    let folders = std::fs::read_dir("/usr/lib").ok()?.flatten().map(|entry| entry.path().join("perl-base"));
    folders.into_iter().find(|folder| folder.join("IO/Socket/INET.pm").is_file())
}
