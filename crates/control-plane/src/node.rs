//! A real node on this machine: kubelet, containerd and runc, kube-proxy for Services, and a bridge network that enforces no
//! NetworkPolicy until kube-router is started.
//!
//! Everything runs in a private network and in its own PID and mount namespaces, which the kernel removes with their last process: no
//! shim, container, mount, bridge or rule outlives it. Only empty cgroups remain on the host.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::process::getuid;
use serde_json::json;

use crate::Kubernetes;
use crate::components::{Rig, flag, free_port_at};
use crate::identity::Server;
use crate::image::Image;
use crate::network;
use crate::pki::write_private;
use crate::process::{Process, run};
use crate::workdir::Workdir;

/// Name of the node.
pub(crate) const NAME: &str = "real-1";
/// Folder of Debian's CNI plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";
/// Image of the process that holds a pod's namespaces.
const PAUSE: &str = "localhost/pause:1";
/// Programs of the host that the node needs in addition to the plugins, and the Debian packages of those that are not always installed.
const PROGRAMS: [(&str, &str); 13] = [
    ("cp", ""),
    ("conntrack", " (Debian: conntrack)"),
    ("ip", " (Debian: iproute2)"),
    ("ipset", " (Debian: ipset)"),
    ("iptables", " (Debian: iptables)"),
    ("ldd", ""),
    ("modprobe", " (Debian: kmod)"),
    ("mount", ""),
    ("nft", " (Debian: nftables)"),
    ("runc", " (Debian: runc)"),
    ("sleep", ""),
    ("tar", ""),
    ("unshare", ""),
];

/// Kernel modules that kube-router and kube-proxy need.
const FILTERS: &str = "ipset create probe hash:ip && nft add table ip probe && \
    iptables -w -A FORWARD -m set --match-set probe src -j REJECT";

/// Returns what this machine lacks for a real node. Empty: nothing.
#[must_use]
pub fn real_node_lacks() -> Vec<String> {
    let mut lacks = Vec::new();
    if !getuid().is_root() {
        lacks.push("root".to_owned());
    }
    let missing = PROGRAMS.iter().filter(|(name, _)| program(name).is_none());
    lacks.extend(missing.map(|(name, package)| format!("the program {name}{package}")));
    for plugin in ["bridge", "host-local", "loopback"] {
        if !Path::new(CNI_PLUGINS).join(plugin).is_file() {
            lacks.push(format!("{CNI_PLUGINS}/{plugin} (Debian: containernetworking-plugins)"));
        }
    }
    if lacks.is_empty() && run(Command::new("unshare").args(["--net", "sh", "-c", FILTERS])).is_err() {
        lacks.push("a kernel that filters by ip sets and nftables in a network namespace".to_owned());
    }
    lacks
}

/// Returns the path of a program of the host.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// Builds the programs of a real node if needed. It needs the network.
///
/// # Errors
/// It cannot be built.
pub fn build_real_node() -> anyhow::Result<()> {
    crate::build::programs(Kubernetes::Newest, true).map(drop)
}

/// A running node.
#[derive(Debug)]
pub(crate) struct Node {
    ctr: PathBuf,
    socket: PathBuf,
    /// Kubeconfig of kube-router.
    router: PathBuf,
}

/// kube-router, which enforces NetworkPolicies. When dropped it is killed, and its last rules stay until the network ends.
#[derive(Debug)]
pub struct NetworkPolicies(Process);

impl NetworkPolicies {
    /// Stops it and removes its rules, so that nothing enforces NetworkPolicies any more.
    ///
    /// # Errors
    /// The rules cannot be removed.
    pub fn stop(self) -> anyhow::Result<()> {
        self.0.kill();
        // What it has for that itself does not do it.
        let rules = "iptables-save | grep -vE 'KUBE-(ROUTER|POD-FW|NWPLCY)|kube-router netpol' | iptables-restore && ipset destroy";
        run(Command::new("sh").args(["-c", rules])).context("take the rules of kube-router away")
    }
}

impl Node {
    /// Returns the command `ctr`, in the namespace of the kubelet's containers.
    fn ctr(&self, arguments: &[&str]) -> Command {
        let mut ctr = Command::new(&self.ctr);
        ctr.arg("--address").arg(&self.socket).args(["--namespace", "k8s.io"]).args(arguments);
        ctr
    }

    /// Imports the images of an archive.
    pub(crate) fn import(&self, archive: &Path) -> anyhow::Result<()> {
        run(self.ctr(&["images", "import"]).arg(archive))
            .with_context(|| format!("import {}", archive.display()))
    }

    pub(crate) fn running_containers(&self, namespace: &str) -> anyhow::Result<Vec<String>> {
        let of_namespace = format!("labels.\"io.kubernetes.pod.namespace\"=={namespace}");
        let containers = said(&mut self.ctr(&["containers", "list", "--quiet", &of_namespace]))?;
        let tasks = said(&mut self.ctr(&["tasks", "list"]))?;
        let is_running = |container: &&str| {
            tasks.lines().any(|task| task.starts_with(*container) && task.ends_with("RUNNING"))
        };
        Ok(containers.lines().filter(is_running).map(str::to_owned).collect())
    }

    pub(crate) fn enforce_network_policies(
        &self,
        kube_router: &Path,
        workdir: &Workdir,
    ) -> anyhow::Result<NetworkPolicies> {
        let mut command = Command::new(kube_router);
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.arg(flag("kubeconfig", &self.router)).arg(format!("--hostname-override={NAME}"));
        command.args(["--run-firewall=true", "--run-router=false", "--run-service-proxy=false"]);
        command.args(["--health-port=0", "--metrics-port=0", "-v=1"]);
        let log = workdir.join("logs/kube-router.log");
        Ok(NetworkPolicies(Process::start("kube-router", command, &log)?))
    }
}

/// Returns the output of a program.
fn said(command: &mut Command) -> anyhow::Result<String> {
    let output = command.output().with_context(|| format!("run {:?}", command.get_program()))?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{:?}: {}", command.get_program(), complaint.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

impl Rig<'_> {
    /// Starts a node. The API shows when it is ready.
    pub(crate) async fn node(&self, server: &Server) -> anyhow::Result<(Node, [Process; 2])> {
        let lacks = real_node_lacks();
        ensure!(lacks.is_empty(), "a real node cannot run here, for want of {}", lacks.join(", "));
        let user = format!("system:node:{NAME}");
        let kubeconfig = self.component(server, "kubelet", Some((&user, "system:nodes")))?;
        let files = Files::new(&self.workdir.join("node"), self.programs)?;
        files.write(&self.ca(), &kubeconfig)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]);
        command.arg(files.folder.join("start.sh")).env_clear().env("HOME", &files.folder);
        command.env("PATH", files.path(self.programs)?);
        let process = Process::start("node", command, &self.log("node"))?;
        let router = self.component(server, "kube-router", None)?;
        let node = Node { ctr: self.program("ctr")?, socket: files.socket(), router };
        // Its own first image. containerd takes a moment to listen.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(files.socket()).is_err() {
            process.check()?;
            ensure!(std::time::Instant::now() < until, "containerd does not listen\n{}", process.tail());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let sleep = program("sleep").context("there is no program sleep")?;
        let (pause, _) = Image::of_program(PAUSE, &sleep, &["infinity"]).write(&files.folder)?;
        node.import(&pause)?;
        Ok((node, [self.kube_proxy(server)?, process]))
    }

    /// Starts kube-proxy, so that pods and the node can connect to Services.
    fn kube_proxy(&self, server: &Server) -> anyhow::Result<Process> {
        let kubeconfig = self.component(server, "kube-proxy", None)?;
        let mut command = self.command("kube-proxy")?;
        command.arg(flag("kubeconfig", &kubeconfig)).arg(format!("--hostname-override={NAME}"));
        command.arg(format!("--cluster-cidr={}", network::PODS)).args(["--proxy-mode=nftables"]);
        // Limits of the whole kernel, not of a network.
        command.args(["--conntrack-max-per-core=0", "--conntrack-tcp-timeout-established=0s"]);
        command.args(["--conntrack-tcp-timeout-close-wait=0s"]);
        command.args(["--metrics-bind-address=", "--healthz-bind-address="]);
        Process::start("kube-proxy", command, &self.log("kube-proxy"))
    }

    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.programs.get(name).cloned().with_context(|| format!("there is no program {name}"))
    }
}

/// Configuration files of a node, in one folder.
struct Files {
    folder: PathBuf,
    kubelet: PathBuf,
    containerd: PathBuf,
}

impl Files {
    fn new(folder: &Path, programs: &BTreeMap<&'static str, PathBuf>) -> anyhow::Result<Files> {
        let program =
            |name: &str| programs.get(name).cloned().with_context(|| format!("there is no program {name}"));
        Ok(Files {
            folder: folder.to_owned(),
            kubelet: program("kubelet")?,
            containerd: program("containerd")?,
        })
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// Creates a folder with the host's programs and the shim, which containerd looks up by name.
    fn path(&self, programs: &BTreeMap<&'static str, PathBuf>) -> anyhow::Result<std::ffi::OsString> {
        let shim = programs.get("containerd-shim-runc-v2").and_then(|shim| shim.parent());
        let shim = shim.context("there is no program containerd-shim-runc-v2")?;
        let host = std::env::var_os("PATH").unwrap_or_default();
        Ok(std::env::join_paths(std::iter::once(shim.to_owned()).chain(std::env::split_paths(&host)))?)
    }

    fn write(&self, ca: &Path, kubeconfig: &Path) -> anyhow::Result<()> {
        let at = |name: &str| self.folder.join(name);
        write_private(&at("containerd.toml"), &self.containerd_config())?;
        std::fs::create_dir_all(at("cni"))?;
        let network = json!({
            "cniVersion": "1.0.0", "name": "resurgam",
            "plugins": [{
                "type": "bridge", "bridge": "pods",
                // Services are found by way of the node, a pod's own as well.
                "isGateway": true, "isDefaultGateway": true, "ipMasq": false, "hairpinMode": true,
                "ipam": {
                    "type": "host-local", "dataDir": at("ipam"), "ranges": [[{"subnet": network::PODS}]],
                },
            }],
        });
        write_private(&at("cni/10-bridge.conflist"), &network.to_string())?;
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": network::NODE, "port": free_port_at(network::NODE)?, "healthzPort": 0, "readOnlyPort": 0,
            "authentication": {
                "anonymous": {"enabled": false}, "webhook": {"enabled": false}, "x509": {"clientCAFile": ca},
            },
            "authorization": {"mode": "AlwaysAllow"},
            "containerRuntimeEndpoint": format!("unix://{}", self.socket().display()),
            "podLogsDir": at("pods"),
            // Containers of this machine's own kind may be all that there is: version 1 of cgroups, swap, no room to spare.
            "failCgroupV1": false, "cgroupDriver": "cgroupfs", "cgroupsPerQOS": false,
            "enforceNodeAllocatable": [], "failSwapOn": false, "evictionHard": {},
        });
        write_private(&at("kubelet.json"), &kubelet.to_string())?;
        write_private(&at("start.sh"), &self.script(kubeconfig))
    }

    fn containerd_config(&self) -> String {
        let folder = self.folder.display();
        format!(
            "version = 3
root = '{folder}/containerd/root'
state = '{folder}/containerd/state'
[grpc]
address = '{}'
[ttrpc]
address = '{folder}/containerd.ttrpc.sock'
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{PAUSE}'
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
disable_apparmor = true
netns_mounts_under_state_dir = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{CNI_PLUGINS}']
conf_dir = '{folder}/cni'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
",
            self.socket().display()
        )
    }

    /// Script that runs in the namespaces: it covers the folders that programs write to regardless of configuration by empty ones.
    fn script(&self, kubeconfig: &Path) -> String {
        let folder = self.folder.display();
        format!(
            "set -e
for folder in /var/log /run/containerd /var/lib/cni; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
'{}' --config '{folder}/containerd.toml' &
while [ ! -S '{}' ]; do kill -0 $!; sleep 0.05; done
exec '{}' --config='{folder}/kubelet.json' --kubeconfig='{}' --root-dir='{folder}/kubelet' \
 --cert-dir='{folder}/kubelet/pki' --hostname-override={NAME} --node-ip={}
",
            self.containerd.display(),
            self.socket().display(),
            self.kubelet.display(),
            kubeconfig.display(),
            network::NODE
        )
    }
}
