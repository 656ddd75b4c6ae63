//! A real node on this machine: kubelet, containerd and runc, with a bridge for a network that enforces no NetworkPolicy.
//!
//! Everything of it runs in a PID and a mount namespace of its own, which the kernel clears away with its first process: no
//! shim, container or mount outlives it. What it leaves on the host is an empty bridge, removed when it ends in order, else by
//! the next node, and empty cgroups.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, ensure};
use rustix::process::getuid;
use serde_json::json;

use crate::components::Rig;
use crate::identity::Server;
use crate::image::image;
use crate::pki::write_private;
use crate::process::{Process, run};

/// The name of the node.
pub(crate) const NAME: &str = "real-1";
/// Where Debian keeps the plugins.
const CNI_PLUGINS: &str = "/usr/lib/cni";
/// Bridges of ours are called this and the process id.
const BRIDGE: &str = "rsg";
/// The image of the process that holds a pod's namespaces.
const PAUSE: &str = "localhost/pause:1";
/// Programs of the host that it needs, beside the plugins.
const PROGRAMS: [&str; 7] = ["ip", "ldd", "mount", "runc", "sleep", "tar", "unshare"];

/// What this machine lacks to run a real node. Empty: it can.
#[must_use]
pub fn real_node_lacks() -> Vec<String> {
    let mut lacks = Vec::new();
    if !getuid().is_root() {
        lacks.push("root".to_owned());
    }
    lacks.extend(
        PROGRAMS.iter().filter(|name| program(name).is_none()).map(|name| format!("the program {name}")),
    );
    for plugin in ["bridge", "host-local", "loopback"] {
        if !Path::new(CNI_PLUGINS).join(plugin).is_file() {
            lacks.push(format!("{CNI_PLUGINS}/{plugin} (Debian: containernetworking-plugins)"));
        }
    }
    lacks
}

/// Where a program of the host is.
fn program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

/// A node that runs.
#[derive(Debug)]
pub(crate) struct Node {
    ctr: PathBuf,
    socket: PathBuf,
    bridge: Bridge,
}

/// Removed with this.
#[derive(Debug)]
struct Bridge(String);

impl Drop for Bridge {
    fn drop(&mut self) {
        let _ = run(Command::new("ip").args(["link", "delete", &self.0]));
    }
}

impl Node {
    /// The bridge that its pods are on.
    pub(crate) fn bridge(&self) -> &str {
        &self.bridge.0
    }

    /// Makes an image of a program and everything it needs known to the node.
    pub(crate) fn import(
        &self,
        folder: &Path,
        name: &str,
        program: &Path,
        arguments: &[&str],
    ) -> anyhow::Result<()> {
        let archive = image(folder, name, program, arguments)?;
        let mut import = Command::new(&self.ctr);
        import
            .arg("--address")
            .arg(&self.socket)
            .args(["--namespace", "k8s.io", "images", "import"])
            .arg(&archive);
        run(&mut import).with_context(|| format!("import image {name}"))
    }
}

impl Rig<'_> {
    /// Starts a node. Its readiness shows in the API.
    pub(crate) async fn node(&self, server: &Server) -> anyhow::Result<(Process, Node)> {
        let lacks = real_node_lacks();
        ensure!(lacks.is_empty(), "a real node cannot run here, for want of {}", lacks.join(", "));
        remove_stale_bridges();
        let user = format!("system:node:{NAME}");
        let kubeconfig = self.component(server, "kubelet", Some((&user, "system:nodes")))?;
        let files = Files::new(&self.workdir.join("node"), self.programs)?;
        files.write(&self.ca(), &kubeconfig)?;
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "sh"]);
        command.arg(files.folder.join("start.sh")).env_clear().env("HOME", &files.folder);
        command.env("PATH", files.path(self.programs)?);
        let process = Process::start("node", command, &self.log("node"))?;
        let node =
            Node { ctr: self.program("ctr")?, socket: files.socket(), bridge: Bridge(files.bridge.clone()) };
        // Its own first image. containerd takes a moment to listen.
        let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
        while std::os::unix::net::UnixStream::connect(files.socket()).is_err() {
            process.check()?;
            ensure!(std::time::Instant::now() < until, "containerd does not listen\n{}", process.tail());
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        let sleep = program("sleep").context("there is no program sleep")?;
        node.import(&files.folder, PAUSE, &sleep, &["infinity"])?;
        Ok((process, node))
    }

    fn program(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.programs.get(name).cloned().with_context(|| format!("there is no program {name}"))
    }
}

/// What a node reads, all in one folder.
struct Files {
    folder: PathBuf,
    kubelet: PathBuf,
    containerd: PathBuf,
    bridge: String,
}

impl Files {
    fn new(folder: &Path, programs: &BTreeMap<&'static str, PathBuf>) -> anyhow::Result<Files> {
        let program =
            |name: &str| programs.get(name).cloned().with_context(|| format!("there is no program {name}"));
        Ok(Files {
            folder: folder.to_owned(),
            kubelet: program("kubelet")?,
            containerd: program("containerd")?,
            bridge: format!("{BRIDGE}{}", std::process::id()),
        })
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("containerd.sock")
    }

    /// The host's programs, and the shim, which containerd looks for by its name.
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
        let [_, _, high, low] = std::process::id().to_be_bytes();
        let network = json!({
            "cniVersion": "1.0.0", "name": "resurgam",
            "plugins": [{
                "type": "bridge", "bridge": self.bridge,
                "ipam": {
                    "type": "host-local", "dataDir": at("ipam"),
                    "ranges": [[{"subnet": format!("10.{}.{low}.0/24", 128 + high % 64)}]],
                },
            }],
        });
        write_private(&at("cni/10-bridge.conflist"), &network.to_string())?;
        let kubelet = json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration",
            "address": "127.0.0.1", "port": crate::components::free_port()?, "healthzPort": 0, "readOnlyPort": 0,
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

    /// In the namespaces: folders that programs write to wherever they are told to are hidden by empty ones.
    fn script(&self, kubeconfig: &Path) -> String {
        let folder = self.folder.display();
        format!(
            "set -e
for folder in /var/log /run/containerd /var/lib/cni; do mkdir -p $folder; mount -t tmpfs tmpfs $folder; done
'{}' --config '{folder}/containerd.toml' &
while [ ! -S '{}' ]; do kill -0 $!; sleep 0.05; done
exec '{}' --config='{folder}/kubelet.json' --kubeconfig='{}' --root-dir='{folder}/kubelet' \
 --cert-dir='{folder}/kubelet/pki' --hostname-override={NAME}
",
            self.containerd.display(),
            self.socket().display(),
            self.kubelet.display(),
            kubeconfig.display()
        )
    }
}

/// Bridges of processes that ended without a chance to remove them.
fn remove_stale_bridges() {
    let Ok(links) = std::fs::read_dir("/sys/class/net") else { return };
    for name in links.flatten().filter_map(|link| link.file_name().into_string().ok()) {
        let owner = name.strip_prefix(BRIDGE).and_then(|pid| pid.parse::<u32>().ok());
        if owner.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
            drop(Bridge(name));
        }
    }
}
