//! Builds the control plane's programs from the pinned Go modules in `modules/` into the user's cache folder.
//!
//! A cache folder is named after its module and a digest of all its inputs. Each program is moved there by one rename, so that it is
//! complete. A file lock next to the folder serialises builders.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use sha2::{Digest, Sha256};

use crate::Kubernetes;
use crate::modules::{KUBERNETES, MODULES, Module, OLDEST, PARTS, Program};
use crate::process::spawn_bound;

const ENVIRONMENT: &[(&str, &str)] =
    &[("CGO_ENABLED", "0"), ("GOTOOLCHAIN", "local"), ("GOFLAGS", ""), ("GOWORK", "off")];

/// Interval of progress messages of a build.
const PROGRESS: Duration = Duration::from_secs(10);

/// Returns every program of a control plane by name: from the folder `KUBEBUILDER_ASSETS` if it is there, otherwise from the cache, built
/// first if missing; including those of a real node if one is wanted. Blocks for minutes with a cold cache, with progress on stderr.
pub(crate) fn programs(
    kubernetes: Kubernetes,
    real_node: bool,
) -> anyhow::Result<BTreeMap<&'static str, PathBuf>> {
    let is_wanted = |module: &&Module| kubernetes == Kubernetes::Newest || module.name != KUBERNETES;
    let oldest = (kubernetes == Kubernetes::Oldest).then_some(&OLDEST);
    find(MODULES.iter().filter(is_wanted).chain(oldest), |program| real_node || !program.node)
}

/// Returns the names of the parts that are built on demand.
#[must_use]
pub fn parts() -> Vec<&'static str> {
    all_parts().map(Module::part).collect()
}

/// Returns a part that is not in every control plane, from the same places: a third-party program, or the folder of a part of several
/// programs. Blocks for minutes with a cold cache, with progress on stderr.
///
/// # Errors
/// There is no part of that name, or the build fails.
pub fn part(name: &str) -> anyhow::Result<PathBuf> {
    let module = module_of(name)?;
    let program = find([module], |_| true)?.into_values().next();
    let program = program.with_context(|| format!("part {name} has no program"))?;
    Ok(match module.programs {
        [_] => program,
        _ => program.parent().with_context(|| format!("part {name} has no folder"))?.to_owned(),
    })
}

/// Returns the part, as [`part`] does, if it is built already, for a test that is skipped without it; the skip is reported on stderr. With
/// `RESURGAM_PARTS=1`, a missing part is an error.
///
/// # Errors
/// As [`part`]; or the part is missing and required.
pub fn part_if_built(name: &str) -> anyhow::Result<Option<PathBuf>> {
    let module = module_of(name)?;
    let folder = cache()?.join(format!("{}-{}", module.name, key(module, &go_version()?)?));
    if missing(&folder, &module.programs.iter().collect::<Vec<_>>()).is_empty() {
        return Ok(Some(match module.programs {
            [program] => folder.join(program.name),
            _ => folder,
        }));
    }
    let lacks = format!("{name} is not built on this machine (`cargo xtask parts {name}` builds it)");
    ensure!(std::env::var_os("RESURGAM_PARTS").is_none(), "{lacks}");
    say(&format!("{lacks}: what needs it is not tested"));
    Ok(None)
}

/// Returns the source folder of a part's Go module, for example for its CRDs. Downloaded if missing.
///
/// # Errors
/// There is no part of that name, or `go` fails.
pub fn part_source(name: &str) -> anyhow::Result<PathBuf> {
    let module = module_of(name)?;
    let package = module.programs[0].package;
    let mut command = Command::new("go");
    command.args(["list", "-f", "{{.Module.Dir}}", package]).current_dir(source(module));
    let output = command.envs(ENVIRONMENT.iter().copied()).output().context("run `go list`")?;
    ensure!(output.status.success(), "`go list {package}`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
}

fn all_parts() -> impl Iterator<Item = &'static Module> {
    PARTS.iter().chain([&OLDEST])
}

fn module_of(part: &str) -> anyhow::Result<&'static Module> {
    let module = all_parts().find(|module| module.part() == part);
    module.with_context(|| format!("there is no part {part}; there are {}", parts().join(", ")))
}

fn find<'a>(
    modules: impl IntoIterator<Item = &'a Module>,
    is_needed: impl Fn(&Program) -> bool,
) -> anyhow::Result<BTreeMap<&'static str, PathBuf>> {
    let assets =
        std::env::var_os("KUBEBUILDER_ASSETS").filter(|folder| !folder.is_empty()).map(PathBuf::from);
    let mut found = BTreeMap::new();
    let mut go = None;
    let mut announced = false;
    for module in modules {
        // A folder of the user has programs of one release, which need not be this one.
        let assets = assets.as_ref().filter(|_| module.name != OLDEST.name);
        let given = |program: &&Program| assets.is_some_and(|a| a.join(program.name).is_file());
        let needed = || module.programs.iter().filter(|program| is_needed(program));
        for program in needed().filter(given) {
            found.extend(assets.map(|assets| (program.name, assets.join(program.name))));
        }
        let wanted: Vec<&Program> = needed().filter(|program| !given(program)).collect();
        if wanted.is_empty() {
            continue;
        }
        let version = match &go {
            Some(version) => version,
            None => go.insert(go_version()?),
        };
        let folder = cache()?.join(format!("{}-{}", module.name, key(module, version)?));
        if !missing(&folder, &wanted).is_empty() {
            if !announced {
                say("building from source, once: about 10 minutes on two cores for a whole control plane, \
                     2 to 6 for another part, seconds when Go has built it before");
                announced = true;
            }
            build(module, &folder, &wanted, version)?;
        }
        found.extend(wanted.iter().map(|program| (program.name, folder.join(program.name))));
    }
    Ok(found)
}

fn missing<'a>(folder: &Path, wanted: &[&'a Program]) -> Vec<&'a Program> {
    wanted.iter().copied().filter(|program| !folder.join(program.name).is_file()).collect()
}

fn build(module: &Module, folder: &Path, wanted: &[&Program], go: &str) -> anyhow::Result<()> {
    let source = source(module);
    let needed = needed_go(&fs::read_to_string(source.join("go.mod"))?)?;
    ensure!(
        version_numbers(go) >= version_numbers(&needed),
        "the control plane needs Go {needed} or newer to be built; this is {go}. Install it from https://go.dev/dl/"
    );
    fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let _turn = take_turn(module, &folder.with_extension("lock"))?;
    let missing = missing(folder, wanted);
    if missing.is_empty() {
        return Ok(());
    }
    // Whatever a killed builder left is thrown away; Go's own cache makes that cheap.
    let partial = folder.with_extension("partial");
    if partial.exists() {
        fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    }
    fs::create_dir_all(&partial).with_context(|| format!("cannot create {}", partial.display()))?;
    let names: Vec<&str> = missing.iter().map(|program| program.name).collect();
    say(&format!("building {} ({}) with {go}", module.name, names.join(", ")));
    let start = Instant::now();

    let mut command = Command::new("go");
    command
        .arg("install")
        .arg("-v")
        .args(module.flags)
        .args(missing.iter().map(|program| program.import_path()));
    command.current_dir(&source).envs(ENVIRONMENT.iter().copied()).env("GOBIN", &partial);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
    watch(module, command, start)?;

    for program in missing {
        let (from, to) = (partial.join(program.installed), folder.join(program.name));
        fs::rename(&from, &to)
            .with_context(|| format!("cannot move {} to {}", from.display(), to.display()))?;
    }
    fs::remove_dir_all(&partial).with_context(|| format!("cannot remove {}", partial.display()))?;
    say(&format!("built {} in {}", module.name, spell(start.elapsed())));
    Ok(())
}

/// Runs a build to its end, with progress messages.
fn watch(module: &Module, command: Command, start: Instant) -> anyhow::Result<()> {
    let mut child = spawn_bound(command).context("cannot run `go install`")?;
    let stderr = child.stderr.take().context("go has no stderr")?;
    let (line, lines) = mpsc::channel();
    std::thread::spawn(move || {
        // Ends with the pipe, or when nobody listens.
        BufReader::new(stderr).lines().map_while(Result::ok).all(|text| line.send(text).is_ok());
    });
    let (mut downloaded, mut compiled, mut other) = (0_u32, 0_u32, Vec::new());
    let mut next = Instant::now() + PROGRESS;
    loop {
        match lines.recv_timeout(next.saturating_duration_since(Instant::now())) {
            Ok(text) if text.starts_with("go: downloading ") => downloaded += 1,
            // With -v, go prints the import path of each package it compiles: one word.
            Ok(text) if !text.is_empty() && !text.contains([' ', '\t', '#']) => compiled += 1,
            Ok(text) => other.push(text),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                say(&format!(
                    "building {}: {} so far, {downloaded} modules fetched, {compiled} packages compiled",
                    module.name,
                    spell(start.elapsed())
                ));
                next += PROGRESS;
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => break,
        }
    }
    let status = child.wait()?;
    ensure!(status.success(), "building {} failed ({status}):\n{}", module.name, other.join("\n"));
    Ok(())
}

/// An exclusive lock, released when dropped or when this process ends.
fn take_turn(module: &Module, path: &Path) -> anyhow::Result<File> {
    let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
    let start = Instant::now();
    let mut next = start;
    loop {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(fs::TryLockError::Error(error)) => bail!("cannot lock {}: {error}", path.display()),
            Err(fs::TryLockError::WouldBlock) => {}
        }
        if Instant::now() >= next {
            say(&format!("another process is building {}; waiting for it", module.name));
            next += PROGRESS;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns a digest of all inputs of a module's programs.
fn key(module: &Module, go: &str) -> anyhow::Result<String> {
    let mut digest = Sha256::new();
    let mut add = |part: &[u8]| {
        // The length first, so that no two different lists of parts read the same.
        digest.update(part.len().to_le_bytes());
        digest.update(part);
    };
    for file in ["go.mod", "go.sum"] {
        let path = source(module).join(file);
        add(&fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?);
    }
    module.flags.iter().for_each(|flag| add(flag.as_bytes()));
    ENVIRONMENT.iter().for_each(|(name, value)| add(format!("{name}={value}").as_bytes()));
    add(go.as_bytes());
    add(std::env::consts::ARCH.as_bytes());
    Ok(digest.finalize().iter().take(8).map(|byte| format!("{byte:02x}")).collect())
}

fn source(module: &Module) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("modules").join(module.name)
}

fn cache() -> anyhow::Result<PathBuf> {
    // The XDG specification has relative paths ignored.
    let given = std::env::var_os("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let cache = given.or_else(|| std::env::home_dir().map(|home| home.join(".cache")));
    Ok(cache.context("neither XDG_CACHE_HOME nor HOME says where to cache")?.join("resurgam/control-plane"))
}

/// Returns the version of the installed Go, such as `go1.26.8`.
fn go_version() -> anyhow::Result<String> {
    let mut command = Command::new("go");
    // Not in a module's folder: there, a Go that is too old would refuse to say its version.
    command.args(["env", "GOVERSION"]).current_dir(std::env::temp_dir()).env("GOTOOLCHAIN", "local");
    let output = command.output().with_context(|| {
        let needed = fs::read_to_string(source(&MODULES[0]).join("go.mod")).ok().and_then(|m| needed_go(&m).ok());
        format!(
            "cannot run `go`: the control plane is built from source with Go {} or newer, from https://go.dev/dl/",
            needed.as_deref().unwrap_or("1.26")
        )
    })?;
    ensure!(output.status.success(), "`go env GOVERSION`: {}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

/// Returns the `go` line of a go.mod.
fn needed_go(module: &str) -> anyhow::Result<String> {
    let line = module.lines().find_map(|line| line.strip_prefix("go "));
    Ok(line.context("go.mod has no `go` line")?.trim().to_owned())
}

/// Parses `go1.26.8`, `go1.26rc1` or `1.26.0` as numbers for comparison, up to the first part that is not a number.
fn version_numbers(version: &str) -> Vec<u32> {
    let version = version.trim_start_matches("go");
    let end = version.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(version.len());
    let mut numbers: Vec<u32> = version[..end].split('.').map_while(|part| part.parse().ok()).collect();
    numbers.resize(3, 0);
    numbers
}

fn spell(elapsed: Duration) -> String {
    match (elapsed.as_secs() / 60, elapsed.as_secs() % 60) {
        (0, seconds) => format!("{seconds} s"),
        (minutes, seconds) => format!("{minutes} min {seconds} s"),
    }
}

/// Prints to the real stderr, so that a test runner that captures output still shows the progress.
fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "control-plane: {text}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_versions_compare_by_number() {
        assert!(version_numbers("go1.26.8") > version_numbers("1.26.0"));
        assert!(version_numbers("go1.9") < version_numbers("1.26.0"));
        assert_eq!(version_numbers("go1.26rc1"), version_numbers("1.26"));
        assert!(version_numbers("devel") < version_numbers("1.26.0"));
    }

    #[test]
    fn the_needed_go_is_read_from_each_module() {
        for module in MODULES.iter().chain(all_parts()) {
            let text = fs::read_to_string(source(module).join("go.mod")).unwrap();
            assert!(version_numbers(&needed_go(&text).unwrap()) >= vec![1, 21, 0], "{}", module.name);
        }
    }

    #[test]
    fn programs_are_tools_of_their_module_and_keyed_by_go_version() {
        for module in MODULES.iter().chain(all_parts()) {
            let text = fs::read_to_string(source(module).join("go.mod")).unwrap();
            for program in module.programs {
                assert!(
                    text.contains(&program.import_path()),
                    "{} is not in {}/go.mod",
                    program.import_path(),
                    module.name
                );
            }
            assert_ne!(key(module, "go1.26.8").unwrap(), key(module, "go1.26.9").unwrap());
        }
    }
}
