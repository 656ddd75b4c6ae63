//! `cargo xtask demo --node`: a library with a real database, on a real node, from the attack to the recovery.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity, Options};
use rehearsal::library::{self, CATALOGUE, DATABASE, Library, NAMESPACE, PLAN};
use rehearsal::{Helm, decisions_needed};
use resurgam::cli::Output;
use resurgam::cli::follow::{Scope, follow};
use resurgam::status::View;

use super::say::{note, quote, scene};
use super::{Args, FinishedDemo, attacks};

/// Time limit of the recovery, including people's actions.
const DEADLINE: Duration = Duration::from_secs(300);
const IMAGE: &str = concat!("localhost/resurgam:", env!("CARGO_PKG_VERSION"));

/// Resources that are built before entering the private network.
pub(super) struct Parts {
    image: PathBuf,
    helm: PathBuf,
    kube_router: PathBuf,
}

impl Parts {
    /// Builds everything, and moves this thread into a private network.
    pub(super) fn prepare() -> Result<Self> {
        let mut lacks = control_plane::real_node_lacks();
        lacks.extend(library::lacks());
        ensure!(lacks.is_empty(), "a real node cannot run here, for want of {}", lacks.join(", "));
        scene("Building the operator and its image, and what a real node takes");
        let part = control_plane::part;
        let parts = Self { image: image()?, helm: part("helm")?, kube_router: part("kube-router")? };
        control_plane::build_real_node()?;
        control_plane::enter_private_network()?;
        Ok(parts)
    }
}

/// Builds the archive of the operator's image from a debug build, as `cargo xtask image` does.
fn image() -> Result<PathBuf> {
    let out = rehearsal::repository("target/demo-image");
    let mut image = Command::new(std::env::current_exe()?);
    image.args(["image", "--name", IMAGE, "--binary"]).arg(super::build()?).arg("--out").arg(&out);
    // Downloaded once.
    let packages = out.join("packages");
    if packages.is_dir() {
        image.arg("--packages").arg(&packages);
    }
    let built = image.stdout(Stdio::null()).status().context("cannot run cargo xtask image")?;
    ensure!(built.success(), "the operator's image cannot be made");
    Ok(out.join("resurgam.tar"))
}

pub(super) async fn play(args: &Args, parts: &Parts) -> Result<FinishedDemo> {
    let began = Instant::now();
    scene("Starting a control plane and a real node: kubelet, containerd, kube-proxy, kube-router");
    let options = Options { dir: args.dir.clone(), nodes: 0, real_node: true, ..Options::default() };
    let cluster = ControlPlane::start(options).await?;
    let enforced = cluster.enforce_network_policies(&parts.kube_router)?;
    note(&format!("audit log: {}", cluster.audit_log().display()));

    scene("Installing the operator: helm install resurgam charts/resurgam");
    cluster.import_archive(&parts.image)?;
    let helm = Helm::new(&cluster, &parts.helm);
    helm.install_on_real_node(IMAGE, "5s").await?;
    note("it runs in a pod of its own image");
    for line in helm.test(Identity::PlatformAdministrator).await.context("helm test")?.lines() {
        quote("helm test", line);
    }

    scene("A library: PostgreSQL with its data on a volume, and a catalogue on the web that reads it");
    let library = Library::lay_down(&cluster).await?;
    library.add_book().await?;
    note("a book is in the database, the catalogue shows it, and a visitor connects to both all the time");

    scene("An attacker was here: the catalogue's image is not what was approved");
    library.tamper().await?;
    let before = library.before().await?;

    scene("On-call staff contain both: no connection gets through, processes live, as memory is evidence");
    let quarantines = library.isolate("Contained").await?;
    controls(quarantines.last());
    let isolated = library.is_contained(&before).await?;
    note("the same processes run as before, and the visitor is refused everywhere");

    scene("They seal both: evidence is kept, then everything stops");
    let quarantines = library.isolate("Sealed").await?;
    controls(quarantines.last());
    library.is_stopped().await?;
    note("no pod by the API server's word, no process by the node's");

    scene("A tenant administrator, and GitOps as cluster-admin, try to bring a service back on their own");
    attacks::try_all(&cluster, CATALOGUE).await?;

    scene("GitOps applies the Incident and the plan, which names it and is thereby armed");
    let plan = library.arm().await?;
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let asked = |view: &View| view.plans.iter().any(|p| p.needs_decision > 0 && p.recovered == 1);
    let seen =
        watch(&admin, None, asked).await.context("the recovery did not come to where people are needed")?;

    scene("The database is back. The catalogue needs a person");
    let lead = cluster.client(Identity::RecoveryLead).await?;
    let asked = decisions_needed(&lead, NAMESPACE).await?;
    for asked in &asked {
        quote(&asked.service, &format!("{}: {}", asked.reason, asked.message));
    }
    ensure!(
        asked.len() == 1
            && asked.iter().all(|asked| asked.service == CATALOGUE && asked.reason == "GateFailed"),
        "somebody else than {CATALOGUE} asks for a person, or for something else: {asked:?}"
    );

    scene("The recovery lead puts the approved image back, and decides: retry");
    library.repair().await?;
    rehearsal::retry(&lead, NAMESPACE, PLAN, CATALOGUE, "the image was replaced by the approved build")
        .await?;
    quote(CATALOGUE, "Decision written: Retry");
    let done =
        |view: &View| view.plans.iter().any(|p| p.ready == "True" && p.recovered == p.total && p.total > 0);
    watch(&admin, Some(seen), done).await.context("the recovery did not come to its end")?;
    helm.operator_never_ended().await?;

    scene("Is it what it was before?");
    let refused = library.is_back(&before, isolated).await?;
    let (status, books) = library.books().await?;
    quote(DATABASE, "the same database as before, in another process");
    quote(CATALOGUE, &format!("{status}: {}", books.join(", ")));
    quote("visitor", &format!("gets in again; tried {refused} times in vain in between, and never got in"));

    scene("The judge reads the API server's audit log and the plan, and nothing else");
    let report = judge::judge(
        std::io::BufReader::new(std::fs::File::open(cluster.audit_log())?),
        plan,
        &judge::Options::default(),
    )?;
    anstream::print!("{report}");
    note(&format!("the whole demo took {:.0} s once everything was built", began.elapsed().as_secs_f64()));
    Ok(FinishedDemo { report, cluster, operator: None, _more: Box::new(enforced) })
}

async fn watch(admin: &kube::Client, seen: Option<View>, until: impl Fn(&View) -> bool) -> Result<View> {
    tokio::time::timeout(DEADLINE, follow(admin, &Scope::default(), Output::Text, seen, until)).await?
}

fn controls(quarantine: Option<&serde_json::Value>) {
    for [name, state, message] in quarantine.map(library::controls).unwrap_or_default() {
        quote(&format!("{name} {state}"), message);
    }
}
