//! `resurgam evidence`: lists, reads and verifies captured evidence.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use clap::Subcommand;
use futures::StreamExt;
use kube::Api;
use kube::api::ListParams;
use sha2::{Digest, Sha256};
use tokio::sync::mpsc;

use super::Output;
use crate::api::Quarantine;
use crate::calls::list_all;
use crate::isolation::evidence::{Identities, Location, Object, Store};

mod digests;
mod report;

/// Page size of a list of Quarantines.
const PAGE: u32 = 500;
/// Maximum number of chunks read ahead of the writer.
const AHEAD: usize = 4;

/// What `--help` ends with.
const EXAMPLES: &str = "\
Each sealing of a namespace has an index: it lists the manifests, the containers' logs and the VolumeSnapshots that were kept, and \
what could not be had. Every object is named by the SHA-256 of its content. status.capture.digest of the Quarantine is that of the \
index.

Examples:
  # What was captured of library-db, and when?
  resurgam evidence list library-db --evidence s3://evidence/council

  # Is all of it there, unchanged, and is it what the Quarantines say?
  resurgam evidence verify --cluster --evidence s3://evidence/council

  # One object; and a log in clear, for who holds the identity of an --evidence-recipient.
  resurgam evidence get sha256:9f86d081884c7d65 --evidence ./evidence -o index.json
  resurgam evidence get 2c26b46b68ffc68f --evidence ./evidence --identity key.txt

  # Which values were captured, by keyed digest: for the plan's gate credentialsRotated.
  resurgam evidence digests library-db --config-map recovery/captured --evidence-key key --evidence s3://evidence/council \
    | kubectl apply --server-side -f -

Exit status: 0 it is so; 1 something is missing or changed, or is not there; 2 it could not be found out.";

/// Arguments of `resurgam evidence`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES, arg_required_else_help = true)]
pub(super) struct Args {
    #[command(subcommand)]
    command: Command,

    /// The evidence store, as the operator has it. A folder, or s3://bucket/prefix with credentials, region and endpoint from the
    /// environment (AWS_ACCESS_KEY_ID, AWS_ENDPOINT_URL and so on).
    #[arg(
        long,
        global = true,
        value_name = "DIR|s3://BUCKET/PREFIX",
        default_value = "/var/lib/resurgam/evidence"
    )]
    evidence: Location,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List the sealings, and what was captured of each. Nothing is verified: see verify.
    List(List),
    /// Write one object's content, once it is compared with the digest in its name.
    Get(Get),
    /// Read everything, and compare it with its digests. 0: complete and unchanged; 1: not; 2: unknown.
    Verify(Verify),
    /// Print the digests of captured Secrets as a ConfigMap, for gate credentialsRotated. Changes nothing.
    Digests(digests::Digests),
}

#[derive(Debug, clap::Args)]
struct List {
    /// Only this namespace.
    namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

#[derive(Debug, clap::Args)]
struct Get {
    /// Its digest (sha256:…), or the beginning of one; or its name within the store (NAMESPACE/NAME).
    #[arg(value_name = "DIGEST|PATH")]
    object: String,
    /// Write it to this file, which must not be there yet, readable by its owner only. Default: standard output.
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Decrypt it with an age identity of this file. Without it, what is encrypted stays so.
    #[arg(short, long, value_name = "FILE")]
    identity: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Verify {
    /// Only this namespace.
    namespace: Option<String>,
    /// Compare with the statuses of the cluster's Quarantines, too: only they show that a whole index was removed.
    #[arg(long)]
    cluster: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t = Output::Text)]
    output: Output,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let store = Store::open(args.evidence.clone(), std::env::vars_os())
        .with_context(|| format!("--evidence {}", args.evidence))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        match &args.command {
            Command::List(list) => self::list(&store, list).await,
            Command::Get(get) => self::get(store, get).await,
            Command::Verify(verify) => self::verify(&store, verify).await,
            Command::Digests(args) => digests::run(&store, args).await,
        }
    })
}

async fn list(store: &Store, args: &List) -> Result<ExitCode> {
    let sealings = store.sealings(args.namespace.as_deref()).await?;
    match args.output {
        Output::Text => anstream::print!("{}", report::list(&sealings)),
        Output::Json => {
            let sealings: Vec<_> = sealings.iter().map(report::sealing).collect();
            anstream::println!("{}", serde_json::to_string_pretty(&sealings)?);
        }
    }
    Ok(if sealings.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

async fn verify(store: &Store, args: &Verify) -> Result<ExitCode> {
    let recorded = if args.cluster { recorded(args.namespace.as_deref()).await? } else { BTreeMap::new() };
    let found = store.read_all(args.namespace.as_deref()).await?;
    let verified = found.verify(&recorded);
    match args.output {
        Output::Text => anstream::print!("{}", report::verified(&verified, args.cluster)),
        Output::Json => anstream::println!("{}", serde_json::to_string_pretty(&verified)?),
    }
    // An empty store proves nothing.
    let sound = !verified.is_empty() && verified.iter().all(|verified| verified.is_sound());
    Ok(if sound { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Returns the digests in the Quarantines' statuses, by namespace.
async fn recorded(namespace: Option<&str>) -> Result<BTreeMap<String, String>> {
    let client = crate::client::with_read_retries(super::cluster().await?)?;
    let mut only = ListParams::default();
    if let Some(namespace) = namespace {
        only = only.fields(&format!("metadata.name={namespace}"));
    }
    let all = list_all("list quarantines", &Api::<Quarantine>::all(client), only, PAGE).await?;
    let digest = |quarantine: Quarantine| {
        let capture = quarantine.status?.capture?;
        Some((quarantine.metadata.name?, capture.digest))
    };
    Ok(all.into_iter().filter_map(digest).collect())
}

async fn get(store: Store, args: &Get) -> Result<ExitCode> {
    let identities = args.identity.as_deref().map(read_identities).transpose()?;
    let Some(object) = find_object(&args.object, store.objects(None).await?)? else {
        anstream::eprintln!(
            "resurgam: the evidence store {store} holds no {}: resurgam evidence list shows its contents",
            args.object
        );
        return Ok(ExitCode::FAILURE);
    };
    // The object is read twice, so that nothing is written before its digest is verified.
    let digest = store.digest_of(&object).await?;
    if object.digest().is_some_and(|said| said != digest) {
        anstream::eprintln!(
            "resurgam: {object} was changed: its content has the digest {digest}. Nothing was written"
        );
        return Ok(ExitCode::FAILURE);
    }
    let (sender, receiver) = mpsc::channel(AHEAD);
    let file = args.output.clone();
    let written = tokio::task::spawn_blocking(move || write(file.as_deref(), identities.as_ref(), receiver));
    let mut chunks = store.open_object(&object).await?;
    while let Some(chunk) = chunks.next().await {
        // If the receiver is gone, the writer has failed and returns its error.
        if sender.send(chunk.map_err(std::io::Error::other)).await.is_err() {
            break;
        }
    }
    drop(sender);
    let read = written.await?.with_context(|| object.to_string())?;
    if read != digest {
        bail!("{object} was changed while it was read: what was written is worth nothing");
    }
    Ok(ExitCode::SUCCESS)
}

fn read_identities(path: &Path) -> Result<Identities> {
    let named = || format!("--identity {}", path.display());
    let text = std::fs::read_to_string(path).with_context(named)?;
    text.parse().map_err(anyhow::Error::msg).with_context(named)
}

/// Returns the object that `meant` names. `None`: there is none.
fn find_object(meant: &str, objects: Vec<Object>) -> Result<Option<Object>> {
    let digits = meant.strip_prefix("sha256:").unwrap_or(meant);
    let is_meant = |object: &Object| {
        if meant.contains('/') { object.to_string() == meant } else { object.name.starts_with(digits) }
    };
    let mut found: Vec<Object> = objects.into_iter().filter(is_meant).collect();
    match (found.pop(), found.len()) {
        (Some(object), 0) => Ok(Some(object)),
        (Some(object), others) => {
            bail!("{meant} begins the names of {} objects, such as {object}", others + 1)
        }
        (None, _) => Ok(None),
    }
}

/// Writes the received content, decrypted if there are identities. Returns the digest of the received content. Blocks.
fn write(
    file: Option<&Path>,
    identities: Option<&Identities>,
    receiver: mpsc::Receiver<std::io::Result<Vec<u8>>>,
) -> Result<String> {
    let mut content = Received { receiver, chunk: Vec::new(), at: 0, digest: Sha256::new() };
    let mut into: Box<dyn Write> = match file {
        None => Box::new(std::io::stdout().lock()),
        Some(path) => {
            let mut options = OpenOptions::new();
            options.write(true).create_new(true);
            #[cfg(unix)]
            std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
            Box::new(options.open(path).with_context(|| path.display().to_string())?)
        }
    };
    match identities {
        Some(identities) => {
            std::io::copy(&mut identities.decrypt(&mut content)?, &mut into)?;
        }
        None => _ = std::io::copy(&mut content, &mut into)?,
    }
    into.flush()?;
    Ok(format!(
        "sha256:{}",
        content.digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect::<String>()
    ))
}

/// A blocking reader of content from the store.
struct Received {
    receiver: mpsc::Receiver<std::io::Result<Vec<u8>>>,
    chunk: Vec<u8>,
    at: usize,
    digest: Sha256,
}

impl Read for Received {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        while self.at == self.chunk.len() {
            let Some(chunk) = self.receiver.blocking_recv() else { return Ok(0) };
            self.chunk = chunk?;
            self.digest.update(&self.chunk);
            self.at = 0;
        }
        let rest = self.chunk.get(self.at..).unwrap_or_default();
        let length = rest.len().min(into.len());
        if let (Some(from), Some(to)) = (rest.get(..length), into.get_mut(..length)) {
            to.copy_from_slice(from);
        }
        self.at += length;
        Ok(length)
    }
}

#[cfg(test)]
mod tests;
