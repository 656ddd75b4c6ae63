//! A real Kubernetes control plane on loopback: etcd, API server, controller manager, scheduler, and kwok in place of
//! nodes. For Resurgam's tests and its demo.
//!
//! Everything is built from source on first use, takes free ports, has certificates of its own, and ends with this
//! process, however it ends. Nothing depends on the runtime that it was started on.

#![cfg(target_os = "linux")]

mod bootstrap;
mod build;
mod client;
mod components;
mod identity;
mod image;
mod network;
mod node;
mod pki;
mod process;
mod workdir;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use kube::Client;
use kube::config::Kubeconfig;
use rustix::process::{Pid, Signal, kill_process};

pub use crate::build::{part, part_if_built, part_source, parts};
pub use crate::identity::Identity;
pub use crate::image::Image;
pub use crate::network::enter_private_network;
pub use crate::node::{NetworkPolicies, build_real_node, real_node_lacks};
pub use crate::process::{spawn_bound, terminate};

use crate::components::Rig;
use crate::identity::{Account, Server};
use crate::node::Node;
use crate::pki::{Authority, write_private};
use crate::process::Process;
use crate::workdir::Workdir;

/// How long a component may take to end when asked to.
const STOP: Duration = Duration::from_secs(5);
/// How long a control plane in another process may take to end when asked to: its components one after another.
const END: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    /// The folder for everything; a temporary one when `None`. One that exists must be empty, or an earlier control
    /// plane's, whose leftovers are then removed.
    pub dir: Option<PathBuf>,
    /// How many fake nodes there are to run pods on.
    pub nodes: usize,
    /// Manifests of admission policies that the API server is given as files (KEP-5793), in YAML. `None`: it has none.
    pub static_policies: Option<String>,
    /// Further API servers on the same etcd, each with these arguments besides those that all have. With any, all of them are
    /// advertised in the EndpointSlice of `default/kubernetes`; [`ControlPlane::api_servers`] tells where. Everything else, every
    /// kubeconfig included, goes by the first.
    pub further_api_servers: Vec<Vec<String>>,
    /// Whether there is a real node too, `real-1`, whose pods are processes on a network, with Services. [`real_node_lacks`] says what
    /// this machine lacks for it. It is started by who has built what it needs ([`build_real_node`]) and then entered a network of their
    /// own ([`enter_private_network`]), and has no further API servers beside it.
    pub real_node: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dir: None,
            nodes: 2,
            static_policies: None,
            further_api_servers: Vec::new(),
            real_node: false,
        }
    }
}

/// An API server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiServer {
    /// Where it says that it is, in the EndpointSlice of `default/kubernetes`. Nobody is there: the network is for documentation.
    pub advertised: SocketAddr,
    /// Where it is, on loopback.
    pub url: String,
}

/// A running control plane. Dropping it kills it; [`ControlPlane::stop`] ends it in order.
#[derive(Debug)]
pub struct ControlPlane {
    /// In the order of their start. Dropped before the folder that they write to.
    processes: Vec<Process>,
    programs: BTreeMap<&'static str, PathBuf>,
    api_servers: Vec<ApiServer>,
    kubeconfigs: Kubeconfigs,
    audit_log: PathBuf,
    node: Option<Node>,
    workdir: Workdir,
}

impl ControlPlane {
    /// Starts a control plane and waits until pods can be run on it. On a machine that has never done so, it is built
    /// from source first, which takes minutes and says so on stderr.
    ///
    /// # Errors
    /// When it cannot be built, or a component ends or is not ready in time, with the end of that component's log.
    pub async fn start(options: Options) -> anyhow::Result<ControlPlane> {
        let dir = options.dir;
        // The folder first: whoever has it already is told so before anything is built.
        let prepare =
            move || anyhow::Ok((Workdir::take(dir.as_deref())?, build::programs(options.real_node)?));
        let (workdir, programs) = tokio::task::spawn_blocking(prepare).await??;
        if options.real_node {
            network::ensure_private()?;
            ensure!(options.further_api_servers.is_empty(), "a real node has one API server");
        }
        let authority = Authority::new("resurgam-control-plane")?;
        let rig = Rig { workdir: &workdir, programs: &programs, authority: &authority };
        write_private(&rig.ca(), &authority.pem())?;

        let (etcd, etcd_access) = rig.etcd().await?;
        let (apiservers, servers) = rig
            .apiservers(
                &etcd_access,
                options.static_policies.as_deref(),
                &options.further_api_servers,
                options.real_node,
            )
            .await?;
        let api_servers = servers.iter().enumerate().map(|(number, server)| {
            let advertised = (components::advertised(number, options.real_node), server.port()?).into();
            anyhow::Ok(ApiServer { advertised, url: server.url.clone() })
        });
        let api_servers = api_servers.collect::<anyhow::Result<Vec<_>>>()?;
        let server = servers.into_iter().next().context("no API server was started")?;

        // Of system:masters only this much: one client, in memory, for one write.
        let masters = authority.client("resurgam-rig-bootstrap", Some("system:masters"))?;
        let masters = client::client(server.with_certificate("bootstrap", &masters)?).await?;
        bootstrap::hand_over(masters).await?;

        let kubeconfigs = Kubeconfigs::new(&workdir);
        kubeconfigs.write_users(&server, &authority)?;
        let administrator = kubeconfigs.client(Identity::PlatformAdministrator).await?;
        let mut nodes: Vec<String> = (1..=options.nodes).map(|number| format!("node-{number}")).collect();
        let set_up = async {
            bootstrap::handed_over(&administrator).await?;
            bootstrap::apply_rig(&administrator).await?;
            let registrar = authority.client(bootstrap::REGISTRAR, None)?;
            let registrar = client::client(server.with_certificate("registrar", &registrar)?).await?;
            bootstrap::issues_tokens(&registrar).await?;
            // kwok asks once a second at first: it finds its rights and the nodes in place.
            bootstrap::create_nodes(&administrator, &nodes).await?;
            let (kwok, ()) =
                tokio::try_join!(rig.kwok(&server), kubeconfigs.write_accounts(&server, &registrar))?;
            anyhow::Ok(kwok)
        };
        let (controller_manager, scheduler, kwok) =
            tokio::try_join!(rig.controller_manager(&server), rig.scheduler(&server), set_up)?;

        let mut processes = vec![etcd];
        processes.extend(apiservers);
        processes.extend([controller_manager, scheduler, kwok]);
        let mut node = None;
        if options.real_node {
            let (started, of_node) = rig.node(&server).await?;
            processes.extend(of_node);
            node = Some(started);
            nodes.push(node::NAME.to_owned());
        }
        let audit_log = rig.audit_log(0);
        let control_plane =
            ControlPlane { processes, programs, api_servers, kubeconfigs, audit_log, node, workdir };
        if let Err(error) = bootstrap::usable(&administrator, &nodes).await {
            control_plane.check()?;
            let tail = control_plane.processes.last().map(Process::tail).unwrap_or_default();
            return Err(error.context(tail));
        }
        Ok(control_plane)
    }

    /// Attaches to the control plane that another process runs in `dir`, as `cargo xtask cluster up --dir` does. Dropping it ends
    /// nothing.
    ///
    /// # Errors
    /// When none runs there, or it has more than one API server or a real node.
    pub async fn attach(dir: &Path) -> anyhow::Result<ControlPlane> {
        let dir = dir.to_owned();
        let prepare = move || anyhow::Ok((Workdir::of_another_process(&dir)?, build::programs(false)?));
        let (workdir, programs) = tokio::task::spawn_blocking(prepare).await??;
        let kubeconfigs = Kubeconfigs::new(&workdir);
        let url = kubeconfigs.server(Identity::PlatformAdministrator)?;
        let port = url.rsplit_once(':').and_then(|(_, port)| port.parse().ok());
        let port: u16 = port.with_context(|| format!("{url} has no port"))?;
        let advertised = (components::advertised(0, false), port).into();
        let audit_log = components::audit_log(&workdir, 0);
        Ok(ControlPlane {
            processes: Vec::new(),
            programs,
            api_servers: vec![ApiServer { advertised, url }],
            kubeconfigs,
            audit_log,
            node: None,
            workdir,
        })
    }

    /// A kubeconfig file with that identity's credentials in it.
    pub fn kubeconfig(&self, who: Identity) -> &Path {
        self.kubeconfigs.path(who)
    }

    /// A client of that identity for the runtime that this is called on, with a limit on every wait and no retries.
    ///
    /// # Errors
    /// When the kubeconfig file was tampered with.
    pub async fn client(&self, who: Identity) -> anyhow::Result<Client> {
        self.kubeconfigs.client(who).await
    }

    /// From now on, this is what every container has logged, and what its run before had.
    /// Until then asking for a log fails, as the file is not there.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn write_container_logs(&self, current: &[&str], previous: &[&str]) -> anyhow::Result<()> {
        for (name, lines) in [("current.log", current), ("previous.log", previous)] {
            // As the container runtimes write it: the time, the stream, and F for a full line.
            let lines: String =
                lines.iter().map(|l| format!("2025-11-24T03:00:00.000000001Z stdout F {l}\n")).collect();
            write_private(&self.workdir.join("containers").join(name), &lines)?;
        }
        Ok(())
    }

    /// The API servers, in the order of their start.
    #[must_use]
    pub fn api_servers(&self) -> &[ApiServer] {
        &self.api_servers
    }

    /// Kills a further API server, so that it has no chance to say that it goes.
    ///
    /// # Errors
    /// There is none of that number: the first, on which everything else rests, is not killed.
    pub fn kill_api_server(&self, number: usize) -> anyhow::Result<()> {
        // After etcd, in the order of their start.
        let process = (1..self.api_servers.len()).contains(&number).then(|| &self.processes[1 + number]);
        process.with_context(|| format!("there is no further API server {number}"))?.kill();
        Ok(())
    }

    /// The (first) API server's audit log: JSON lines, complete up to every answered request, writes with their bodies.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// The folder with everything in it; `logs/` has the components' logs.
    pub fn dir(&self) -> &Path {
        self.workdir.path()
    }

    /// A program of the same release, such as `kubectl`.
    ///
    /// # Errors
    /// When there is no program of that name.
    pub fn binary(&self, name: &str) -> anyhow::Result<PathBuf> {
        let known = || self.programs.keys().copied().collect::<Vec<_>>().join(", ");
        self.programs
            .get(name)
            .cloned()
            .with_context(|| format!("there is no program {name}; there are {}", known()))
    }

    /// Gives the real node an image, and returns what pods call it by: its name and digest.
    ///
    /// # Errors
    /// There is no real node, or the image cannot be made.
    pub fn import_image(&self, image: &Image) -> anyhow::Result<String> {
        let (archive, pinned) = image.write(&self.workdir.join("node"))?;
        self.import_archive(&archive)?;
        Ok(pinned)
    }

    /// Gives the real node the images of an archive, by the names that it has for them.
    ///
    /// # Errors
    /// There is no real node, or it does not take the archive.
    pub fn import_archive(&self, archive: &Path) -> anyhow::Result<()> {
        self.real_node()?.import(archive)
    }

    /// The names of the containers of a namespace that have a process on the real node, by its container runtime's word.
    ///
    /// # Errors
    /// There is no real node, or it cannot be asked.
    pub fn running_containers(&self, namespace: &str) -> anyhow::Result<Vec<String>> {
        self.real_node()?.running_containers(namespace)
    }

    /// Has NetworkPolicies enforced on the real node, by the part `kube-router`.
    ///
    /// # Errors
    /// There is no real node, or the program cannot be started.
    pub fn enforce_network_policies(&self, kube_router: &Path) -> anyhow::Result<NetworkPolicies> {
        self.real_node()?.enforce_network_policies(kube_router, &self.workdir)
    }

    fn real_node(&self) -> anyhow::Result<&Node> {
        self.node.as_ref().context("this control plane has no real node")
    }

    /// Whether every component is still running.
    ///
    /// # Errors
    /// When one has ended, with the end of its log.
    pub fn check(&self) -> anyhow::Result<()> {
        self.processes.iter().try_for_each(Process::check)
    }

    /// Kills every component, the last first. The folder stays.
    pub fn kill(&self) {
        self.processes.iter().rev().for_each(Process::kill);
    }

    /// Ends the components in order, and removes a temporary folder.
    ///
    /// # Errors
    /// When a component cannot be signalled; all are killed then.
    pub async fn stop(self) -> anyhow::Result<()> {
        for process in self.processes.iter().rev() {
            process.stop(STOP).await?;
        }
        Ok(())
    }
}

/// Ends the control plane that another process runs in `dir`, and waits until that process is gone. `false` when there
/// was none.
///
/// # Errors
/// When the process cannot be signalled or takes too long to end.
pub async fn end(dir: &Path) -> anyhow::Result<bool> {
    let Some(pid) = workdir::owner(dir)? else {
        return Ok(false);
    };
    let process = Pid::from_raw(pid).with_context(|| format!("{pid} is no process id"))?;
    kill_process(process, Signal::TERM).with_context(|| format!("cannot end process {pid}"))?;
    let until = Instant::now() + END;
    while workdir::owner(dir)? == Some(pid) {
        if Instant::now() >= until {
            bail!("process {pid} has not ended within {} s", END.as_secs());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    Ok(true)
}

/// Where each identity's kubeconfig file is.
#[derive(Debug)]
struct Kubeconfigs([PathBuf; Identity::ALL.len()]);

impl Kubeconfigs {
    fn new(workdir: &Workdir) -> Kubeconfigs {
        Kubeconfigs(Identity::ALL.map(|who| workdir.join("kubeconfigs").join(format!("{}.yaml", who.name()))))
    }

    fn path(&self, who: Identity) -> &Path {
        &self.0[who as usize]
    }

    /// Writes those of the identities that are users.
    fn write_users(&self, server: &Server, authority: &Authority) -> anyhow::Result<()> {
        for who in Identity::ALL {
            if let Account::User(user) = who.account() {
                self.write(who, &server.with_certificate(user, &authority.client(user, None)?)?)?;
            }
        }
        Ok(())
    }

    /// Writes those of the identities that are service accounts.
    async fn write_accounts(&self, server: &Server, registrar: &Client) -> anyhow::Result<()> {
        for who in Identity::ALL {
            if let Account::ServiceAccount { namespace, name } = who.account() {
                let token = bootstrap::token(registrar, namespace, name).await?;
                self.write(who, &server.with_token(who.name(), &token)?)?;
            }
        }
        Ok(())
    }

    fn write(&self, who: Identity, kubeconfig: &Kubeconfig) -> anyhow::Result<()> {
        write_private(self.path(who), &serde_yaml::to_string(kubeconfig)?)
    }

    /// Where the API server is that an identity's kubeconfig names.
    fn server(&self, who: Identity) -> anyhow::Result<String> {
        let path = self.path(who);
        let kubeconfig =
            Kubeconfig::read_from(path).with_context(|| format!("cannot read {}", path.display()))?;
        let cluster = kubeconfig.clusters.into_iter().next().and_then(|named| named.cluster);
        let server = cluster.and_then(|cluster| cluster.server);
        server.with_context(|| format!("{} names no API server", path.display()))
    }

    async fn client(&self, who: Identity) -> anyhow::Result<Client> {
        let path = self.path(who);
        let text = tokio::fs::read_to_string(path).await;
        let text = text.with_context(|| format!("cannot read {}", path.display()))?;
        let kubeconfig = Kubeconfig::from_yaml(&text);
        client::client(kubeconfig.with_context(|| format!("cannot parse {}", path.display()))?).await
    }
}
