//! `resurgam baseline sign`, `verify` and `keygen`.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use resurgam_core::baseline::Baseline;
use resurgam_core::baseline::envelope::{Envelope, Signature};
use serde::Deserialize;

use crate::baseline::{PublicKey, SigningKey, packed};

/// Arguments of `resurgam baseline sign`.
#[derive(Debug, clap::Args)]
pub(super) struct SignArgs {
    /// The inventory, or a signed one. `-`: standard input.
    file: PathBuf,
    /// Private key: ed25519 or ECDSA P-256, PKCS#8 in PEM.
    #[arg(long, value_name = "KEY.pem")]
    key: PathBuf,
    /// Write it as ConfigMaps: NAME, and NAME-2 and so on if it is large.
    #[arg(long, value_name = "NAMESPACE/NAME", value_parser = crate::cli::namespaced)]
    config_map: Option<(String, String)>,
    /// File to write. Default: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

/// Arguments of `resurgam baseline verify`.
#[derive(Debug, clap::Args)]
pub(super) struct VerifyArgs {
    /// The signed inventory, or its ConfigMaps. `-`: standard input.
    file: PathBuf,
    /// Public key (repeatable). All of them must have signed it.
    #[arg(long, value_name = "PUB.pem", required = true)]
    key: Vec<PathBuf>,
}

/// Arguments of `resurgam baseline keygen`.
#[derive(Debug, clap::Args)]
pub(super) struct KeygenArgs {
    /// File for the private key, which must not be there yet, readable by its owner only. The public key goes to standard output.
    #[arg(short, long, value_name = "KEY.pem")]
    output: PathBuf,
}

pub(super) fn sign(args: &SignArgs) -> Result<ExitCode> {
    let (named, text) = crate::cli::read(&args.file)?;
    let pem = zeroize::Zeroizing::new(crate::cli::read(&args.key)?.1);
    let key = SigningKey::from_pem(&pem).with_context(|| format!("--key {}", args.key.display()))?;
    let mut envelope = match envelope(&text) {
        Ok(envelope) => envelope,
        Err(_) => Envelope::new(text.into_bytes()),
    };
    let baseline = Baseline::parse(&envelope.payload.0)
        .map_err(|why| anyhow::anyhow!("{named} is no inventory: {why}"))?;
    let keyid = key.public().id();
    envelope.signatures.retain(|signature| signature.keyid != keyid);
    let sig = ByteString(key.sign(&envelope.signed_bytes())?);
    envelope.signatures.push(Signature { keyid: keyid.clone(), sig });
    let text = serde_json::to_string(&envelope)? + "\n";
    let written = match &args.config_map {
        None => text,
        Some((namespace, name)) => {
            let maps = packed::config_maps(Some(namespace), name, text.as_bytes())?;
            let yaml: Result<Vec<String>, _> = maps.iter().map(serde_yaml::to_string).collect();
            yaml?.join("---\n")
        }
    };
    super::write(args.output.as_deref(), &written)?;
    anstream::eprintln!(
        "signed by {keyid}: {} objects in {}, of {}",
        baseline.objects.len(),
        baseline.namespaces.join(", "),
        baseline.captured_at.0
    );
    Ok(ExitCode::SUCCESS)
}

/// Parses a signed inventory: the envelope itself, or the ConfigMaps that hold it, in order.
fn envelope(text: &str) -> Result<Envelope> {
    let maps: Option<Vec<ConfigMap>> = serde_yaml::Deserializer::from_str(text)
        .map(|document| ConfigMap::deserialize(document).ok().filter(|map| packed::part(map).is_some()))
        .collect();
    let Some(maps) = maps.filter(|maps| !maps.is_empty()) else {
        if Baseline::parse(text.as_bytes()).is_ok() {
            bail!("it is not signed: resurgam baseline sign");
        }
        return Ok(Envelope::parse(text.as_bytes())?);
    };
    let bytes = maps.iter().filter_map(packed::part).flatten().copied().collect();
    Ok(Envelope::parse(&packed::unpacked(bytes).map_err(anyhow::Error::msg)?)?)
}

pub(super) fn verify(args: &VerifyArgs) -> Result<ExitCode> {
    let (named, text) = crate::cli::read(&args.file)?;
    let keys = read_keys(&args.key)?;
    let envelope = envelope(&text).with_context(|| named.clone())?;
    match envelope.open(&keys, keys.len(), PublicKey::verifies) {
        Ok(payload) => {
            let baseline = Baseline::parse(payload).map_err(|why| anyhow::anyhow!("{named}: {why}"))?;
            anstream::println!(
                "{named}: signed by {} of {} keys; {} objects in {}, of {}",
                keys.len(),
                keys.len(),
                baseline.objects.len(),
                baseline.namespaces.join(", "),
                baseline.captured_at.0
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(why) => {
            anstream::println!("{named}: {why}");
            Ok(ExitCode::FAILURE)
        }
    }
}

pub(super) fn keygen(args: &KeygenArgs) -> Result<ExitCode> {
    let pem = SigningKey::generate()?;
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(&args.output).with_context(|| args.output.display().to_string())?;
    std::io::Write::write_all(&mut file, pem.as_bytes())?;
    anstream::print!("{}", SigningKey::from_pem(&pem)?.public().to_pem());
    Ok(ExitCode::SUCCESS)
}

/// Reads an inventory, signed or not. With keys, all of them must have signed it.
pub(super) fn read_inventory(path: &Path, keys: &[PathBuf]) -> Result<Baseline> {
    let (named, text) = crate::cli::read(path)?;
    let keys = read_keys(keys)?;
    let malformed = |why| anyhow::anyhow!("{named}: {why}");
    match envelope(&text) {
        Ok(envelope) if keys.is_empty() => {
            anstream::eprintln!("{named}: no signature was verified; --key names a public key");
            Baseline::parse(&envelope.payload.0).map_err(malformed)
        }
        Ok(envelope) => {
            let payload =
                envelope.open(&keys, keys.len(), PublicKey::verifies).with_context(|| named.clone())?;
            Baseline::parse(payload).map_err(malformed)
        }
        Err(why) if !keys.is_empty() => bail!("{named}: {why}"),
        Err(_) => Baseline::parse(text.as_bytes()).map_err(malformed),
    }
}

fn read_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>> {
    let read = |path: &PathBuf| {
        let (named, text) = crate::cli::read(path)?;
        PublicKey::from_pem(&text).with_context(|| format!("--key {named}"))
    };
    paths.iter().map(read).collect()
}
