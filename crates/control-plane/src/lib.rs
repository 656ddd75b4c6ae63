//! A real Kubernetes control plane on loopback for Resurgam's tests and demo: etcd, API server, controller manager, scheduler, and kwok
//! in place of nodes.
//!
//! Everything is built from source on first use, uses free ports and its own certificates, and ends with this process, however it ends.
//! It does not depend on the runtime that started it.

#![cfg(target_os = "linux")]

mod bootstrap;
mod build;
mod client;
mod components;
mod identity;
mod image;
mod modules;
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
pub use crate::modules::Kubernetes;
pub use crate::network::enter_private_network;
pub use crate::node::{NetworkPolicies, build_real_node, real_node_lacks};
pub use crate::process::{spawn_bound, terminate};

use crate::components::Rig;
use crate::identity::{Account, Server};
use crate::node::Node;
use crate::pki::{Authority, write_private};
use crate::process::Process;
use crate::workdir::Workdir;

/// Time limit for a component to exit when asked to.
const STOP: Duration = Duration::from_secs(5);
/// Time limit for a control plane in another process to exit when asked to, one component after another.
const END: Duration = Duration::from_secs(30);

/// Options of a control plane.
#[derive(Debug, Clone)]
pub struct Options {
    /// Folder of all files. `None`: a temporary one. An existing folder must be empty or that of an earlier control plane, whose files
    /// are removed.
    pub dir: Option<PathBuf>,
    /// Release of the API server, the controller manager and the scheduler.
    pub kubernetes: Kubernetes,
    /// Number of fake nodes.
    pub nodes: usize,
    /// Admission policies that the API server loads from files (KEP-5793), in YAML. `None`: none.
    pub static_policies: Option<String>,
    /// Further API servers on the same etcd, each with these additional arguments. With any, all are advertised in the EndpointSlice of
    /// `default/kubernetes`; [`ControlPlane::api_servers`] returns them. All other components and every kubeconfig use the first.
    pub further_api_servers: Vec<Vec<String>>,
    /// Whether to start a real node, `real-1`, too. Its pods are processes on a network with Services. [`real_node_lacks`] returns what
    /// this machine lacks for it. The caller must have built its programs ([`build_real_node`]) and then entered a private network
    /// ([`enter_private_network`]). It cannot be combined with further API servers.
    pub real_node: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            dir: None,
            kubernetes: Kubernetes::Newest,
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
    /// Advertised address in the EndpointSlice of `default/kubernetes`. It is in a documentation network, which nobody has.
    pub advertised: SocketAddr,
    /// Address on loopback.
    pub url: String,
}

/// A running control plane. Dropping it kills its processes; [`ControlPlane::stop`] stops them in order.
#[derive(Debug)]
pub struct ControlPlane {
    /// Processes in the order of their start. They are dropped before their folder.
    processes: Vec<Process>,
    programs: BTreeMap<&'static str, PathBuf>,
    api_servers: Vec<ApiServer>,
    kubeconfigs: Kubeconfigs,
    audit_log: PathBuf,
    node: Option<Node>,
    workdir: Workdir,
}

impl ControlPlane {
    /// Starts a control plane and waits until it can run pods. On first use it is built from source, which takes minutes, with progress
    /// on stderr.
    ///
    /// # Errors
    /// It cannot be built, or a component exits or is not ready in time. With the end of that component's log.
    pub async fn start(options: Options) -> anyhow::Result<ControlPlane> {
        if options.kubernetes == Kubernetes::Oldest {
            ensure!(!options.real_node, "the oldest Kubernetes is built without the programs of a real node");
            ensure!(options.static_policies.is_none(), "the oldest Kubernetes loads no policies from files");
        }
        let (dir, kubernetes) = (options.dir, options.kubernetes);
        // The folder first: whoever has it already is told so before anything is built.
        let prepare = move || {
            anyhow::Ok((Workdir::take(dir.as_deref())?, build::programs(kubernetes, options.real_node)?))
        };
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

    /// Attaches to the control plane that another process runs in `dir`, as `cargo xtask cluster up --dir` does. Dropping it stops
    /// nothing.
    ///
    /// # Errors
    /// None is running there, or it has several API servers or a real node.
    pub async fn attach(dir: &Path) -> anyhow::Result<ControlPlane> {
        let dir = dir.to_owned();
        let prepare = move || {
            anyhow::Ok((Workdir::of_another_process(&dir)?, build::programs(Kubernetes::Newest, false)?))
        };
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

    /// Returns the kubeconfig file of an identity.
    pub fn kubeconfig(&self, who: Identity) -> &Path {
        self.kubeconfigs.path(who)
    }

    /// Returns a client with that identity for the current runtime, with time limits and without retries.
    ///
    /// # Errors
    /// The kubeconfig file was changed.
    pub async fn client(&self, who: Identity) -> anyhow::Result<Client> {
        self.kubeconfigs.client(who).await
    }

    /// Sets the log of every container and of its previous run. Until then, requests for logs fail, as the file does not exist.
    ///
    /// # Errors
    /// The files cannot be written.
    pub fn write_container_logs(&self, current: &[&str], previous: &[&str]) -> anyhow::Result<()> {
        for (name, lines) in [("current.log", current), ("previous.log", previous)] {
            // As the container runtimes write it: the time, the stream, and F for a full line.
            let lines: String =
                lines.iter().map(|l| format!("2025-11-24T03:00:00.000000001Z stdout F {l}\n")).collect();
            write_private(&self.workdir.join("containers").join(name), &lines)?;
        }
        Ok(())
    }

    /// Returns the API servers, in the order of their start.
    #[must_use]
    pub fn api_servers(&self) -> &[ApiServer] {
        &self.api_servers
    }

    /// Kills a further API server, so that it cannot announce its end.
    ///
    /// # Errors
    /// There is none with that number. The first, which everything else uses, cannot be killed.
    pub fn kill_api_server(&self, number: usize) -> anyhow::Result<()> {
        // After etcd, in the order of their start.
        let process = (1..self.api_servers.len()).contains(&number).then(|| &self.processes[1 + number]);
        process.with_context(|| format!("there is no further API server {number}"))?.kill();
        Ok(())
    }

    /// Returns the audit log of the first API server: JSON lines, complete up to every answered request, with the bodies of writes.
    pub fn audit_log(&self) -> &Path {
        &self.audit_log
    }

    /// Returns the folder of all files; `logs/` has the components' logs.
    pub fn dir(&self) -> &Path {
        self.workdir.path()
    }

    /// Returns the path of a program of the same release, such as `kubectl`.
    ///
    /// # Errors
    /// There is no program of that name.
    pub fn binary(&self, name: &str) -> anyhow::Result<PathBuf> {
        let known = || self.programs.keys().copied().collect::<Vec<_>>().join(", ");
        self.programs
            .get(name)
            .cloned()
            .with_context(|| format!("there is no program {name}; there are {}", known()))
    }

    /// Imports an image on the real node, and returns its name with digest for pods.
    ///
    /// # Errors
    /// There is no real node, or the image cannot be made.
    pub fn import_image(&self, image: &Image) -> anyhow::Result<String> {
        let (archive, pinned) = image.write(&self.workdir.join("node"))?;
        self.import_archive(&archive)?;
        Ok(pinned)
    }

    /// Imports the images of an archive on the real node, by their names in it.
    ///
    /// # Errors
    /// There is no real node, or the import fails.
    pub fn import_archive(&self, archive: &Path) -> anyhow::Result<()> {
        self.real_node()?.import(archive)
    }

    /// Returns the names of a namespace's containers with a process on the real node, as its container runtime reports.
    ///
    /// # Errors
    /// There is no real node, or it cannot be queried.
    pub fn running_containers(&self, namespace: &str) -> anyhow::Result<Vec<String>> {
        self.real_node()?.running_containers(namespace)
    }

    /// Starts kube-router on the real node, which enforces NetworkPolicies.
    ///
    /// # Errors
    /// There is no real node, or the program cannot be started.
    pub fn enforce_network_policies(&self, kube_router: &Path) -> anyhow::Result<NetworkPolicies> {
        self.real_node()?.enforce_network_policies(kube_router, &self.workdir)
    }

    fn real_node(&self) -> anyhow::Result<&Node> {
        self.node.as_ref().context("this control plane has no real node")
    }

    /// Checks that every component is still running.
    ///
    /// # Errors
    /// One has exited. With the end of its log.
    pub fn check(&self) -> anyhow::Result<()> {
        self.processes.iter().try_for_each(Process::check)
    }

    /// Kills every component, last first. The folder stays.
    pub fn kill(&self) {
        self.processes.iter().rev().for_each(Process::kill);
    }

    /// Stops the components in order, and removes a temporary folder.
    ///
    /// # Errors
    /// A component cannot be signalled. All are killed then.
    pub async fn stop(self) -> anyhow::Result<()> {
        for process in self.processes.iter().rev() {
            process.stop(STOP).await?;
        }
        Ok(())
    }
}

/// Stops the control plane that another process runs in `dir`, and waits for that process. Returns `false` if there was none.
///
/// # Errors
/// The process cannot be signalled, or does not exit in time.
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

/// Paths of the identities' kubeconfig files.
#[derive(Debug)]
struct Kubeconfigs([PathBuf; Identity::ALL.len()]);

impl Kubeconfigs {
    fn new(workdir: &Workdir) -> Kubeconfigs {
        Kubeconfigs(Identity::ALL.map(|who| workdir.join("kubeconfigs").join(format!("{}.yaml", who.name()))))
    }

    fn path(&self, who: Identity) -> &Path {
        &self.0[who as usize]
    }

    /// Writes the kubeconfig files of users.
    fn write_users(&self, server: &Server, authority: &Authority) -> anyhow::Result<()> {
        for who in Identity::ALL {
            if let Account::User(user) = who.account() {
                self.write(who, &server.with_certificate(user, &authority.client(user, None)?)?)?;
            }
        }
        Ok(())
    }

    /// Writes the kubeconfig files of ServiceAccounts.
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

    /// Returns the API server's URL in an identity's kubeconfig.
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
