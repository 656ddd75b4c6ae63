//! The components of the control plane: how each is started, and when it is ready.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use kube::Client;
use serde_json::json;

use crate::identity::Server;
use crate::network;
use crate::pki::{Authority, Files, token_keys, write_private};
use crate::process::Process;
use crate::workdir::Workdir;

/// How long a component may take to become ready, on a machine that is busy with something else.
const READY: Duration = Duration::from_secs(120);
/// How often a starting component is asked whether it is ready.
const POLL: Duration = Duration::from_millis(25);
/// A port that was free may be taken by the time a component listens on it; then another is tried.
const PORT_ATTEMPTS: usize = 5;

/// Everything the components share.
pub(crate) struct Rig<'a> {
    pub(crate) workdir: &'a Workdir,
    pub(crate) programs: &'a BTreeMap<&'static str, PathBuf>,
    /// The cluster's certificate authority, known to the API server and its clients.
    pub(crate) authority: &'a Authority,
}

impl Rig<'_> {
    /// Starts etcd with an authority of its own, and returns what the API server needs to reach it.
    pub(crate) async fn etcd(&self) -> anyhow::Result<(Process, Etcd)> {
        let authority = Authority::new("etcd")?;
        let certificates = self.workdir.join("certificates");
        let ca = certificates.join("etcd-ca.crt");
        write_private(&ca, &authority.pem())?;
        let server = authority.server("etcd")?.write(&certificates, "etcd")?;
        let certified = authority.client("kube-apiserver", None)?;
        let client = certified.write(&certificates, "etcd-client")?;
        let (process, url) = self
            .start("etcd", |port, command| {
                let url = format!("https://127.0.0.1:{port}");
                command
                    .arg(flag("data-dir", self.workdir.join("etcd")))
                    .args(["--name=resurgam", "--unsafe-no-fsync=true", "--log-level=warn"])
                    // One member has no peers; it listens for them all the same.
                    .arg("--listen-peer-urls=http://127.0.0.1:0")
                    .arg(format!("--listen-client-urls={url}"))
                    .arg(format!("--advertise-client-urls={url}"))
                    .arg("--client-cert-auth=true")
                    .arg(flag("trusted-ca-file", &ca))
                    .arg(flag("cert-file", &server.certificate))
                    .arg(flag("key-file", &server.key));
                let at = Server { url, authority: authority.pem() };
                Ok(Probe { kubeconfig: at.with_certificate("etcd", &certified)?, at, path: "/readyz" })
            })
            .await?;
        Ok((process, Etcd { url: url.url, ca, client }))
    }

    /// Starts the API servers, with these policies as files: one, and one more for each of `further`, with these arguments besides
    /// those that all have. The first is the one that everybody else is told of.
    pub(crate) async fn apiservers(
        &self,
        etcd: &Etcd,
        static_policies: Option<&str>,
        further: &[Vec<String>],
        real_node: bool,
    ) -> anyhow::Result<(Vec<Process>, Vec<Server>)> {
        let certificates = self.workdir.join("certificates");
        let hosts = (0..=further.len()).map(listens).chain([network::NODE, SERVICE]);
        let hosts: Vec<String> = hosts.map(|host| host.to_string()).collect();
        let names = hosts.iter().map(String::as_str).chain(["localhost", "kubernetes.default.svc"]);
        let server = self.authority.server_of("kube-apiserver", &names.collect::<Vec<_>>())?;
        let serving = server.write(&certificates, "kube-apiserver")?;
        let kubelets = self.authority.client("resurgam-rig-kubelet-client", None)?;
        let kubelets = kubelets.write(&certificates, "kubelet-client")?;
        let (private, public) = token_keys()?;
        write_private(&self.token_key(), &private)?;
        write_private(&certificates.join("service-accounts.pub"), &public)?;
        write_private(&self.audit_policy(), include_str!("../manifests/audit-policy.yaml"))?;
        let admission = static_policies.map(|policies| self.admission(policies)).transpose()?;
        let prober = self.authority.client("resurgam-rig-prober", None)?;
        let start = |number: usize, port: Option<u16>, more: Vec<String>| {
            let (serving, kubelets, admission, prober) = (&serving, &kubelets, &admission, &prober);
            let log = if number == 0 { String::new() } else { format!("-{}", number + 1) };
            // One on its own needs nobody to find it, and tells nobody where it is. Pods do.
            let reconciler = if further.is_empty() && !real_node { "none" } else { "lease" };
            // In the private network of a real node there is nobody but its pods.
            let bind = if real_node { Ipv4Addr::UNSPECIFIED } else { listens(number) };
            self.start_at("kube-apiserver", log, port, move |port, command| {
                self.apiserver(etcd, serving, number, port, command);
                command
                    .arg(format!("--bind-address={bind}"))
                    .arg(format!("--advertise-address={}", advertised(number, real_node)))
                    .arg(flag("kubelet-client-certificate", &kubelets.certificate))
                    .arg(flag("kubelet-client-key", &kubelets.key))
                    .arg(format!("--endpoint-reconciler-type={reconciler}"))
                    .args(admission.as_ref().map(|file| flag("admission-control-config-file", file)))
                    .args(&more);
                let url = format!("https://{}:{port}", listens(number));
                let at = Server { url, authority: self.authority.pem() };
                Ok(Probe { kubeconfig: at.with_certificate("prober", prober)?, at, path: "/readyz" })
            })
        };
        let (process, first) = start(0, None, Vec::new()).await?;
        // They are advertised by address alone, so all are at the same port.
        let port = first.port()?;
        let (mut processes, mut servers) = (vec![process], vec![first]);
        for (number, more) in further.iter().enumerate() {
            let (process, server) = start(number + 1, Some(port), more.clone()).await?;
            processes.push(process);
            servers.push(server);
        }
        Ok((processes, servers))
    }

    /// What every API server is started with.
    fn apiserver(&self, etcd: &Etcd, serving: &Files, number: usize, port: u16, command: &mut Command) {
        let issuer = "https://kubernetes.default.svc.cluster.local";
        let public = self.workdir.join("certificates/service-accounts.pub");
        command
            .arg(format!("--secure-port={port}"))
            .arg("--service-cluster-ip-range=10.96.0.0/16")
            .arg(format!("--etcd-servers={}", etcd.url))
            .arg(flag("etcd-cafile", &etcd.ca))
            .arg(flag("etcd-certfile", &etcd.client.certificate))
            .arg(flag("etcd-keyfile", &etcd.client.key))
            .arg(flag("tls-cert-file", &serving.certificate))
            .arg(flag("tls-private-key-file", &serving.key))
            .arg(flag("client-ca-file", self.ca()))
            .args(["--authorization-mode=RBAC", "--anonymous-auth=false", "--allow-privileged=true"])
            // Nobody resolves the names of fake nodes.
            .arg("--kubelet-preferred-address-types=InternalIP")
            .arg(format!("--service-account-issuer={issuer}"))
            .arg(flag("service-account-key-file", public))
            .arg(flag("service-account-signing-key-file", self.token_key()))
            .arg(flag("audit-policy-file", self.audit_policy()))
            .arg(flag("audit-log-path", self.audit_log(number)))
            // In the log before the answer is sent, and all of it in one file.
            .args(["--audit-log-mode=blocking", "--audit-log-maxsize=0"])
            .args(["--profiling=false", "--shutdown-delay-duration=0s"]);
    }

    /// Writes policies where the API server takes them from, and how it is told so.
    fn admission(&self, policies: &str) -> anyhow::Result<PathBuf> {
        let folder = self.workdir.join("config/policies");
        std::fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
        write_private(&folder.join("policies.yaml"), policies)?;
        let file = self.workdir.join("config/admission.yaml");
        let configuration = serde_json::json!({
            "apiVersion": "apiserver.config.k8s.io/v1",
            "kind": "AdmissionConfiguration",
            "plugins": [{
                "name": "ValidatingAdmissionPolicy",
                "configuration": {
                    "apiVersion": "apiserver.config.k8s.io/v1",
                    "kind": "ValidatingAdmissionPolicyConfiguration",
                    "staticManifestsDir": folder,
                },
            }],
        });
        write_private(&file, &serde_yaml::to_string(&configuration)?)?;
        Ok(file)
    }

    /// Starts the controller manager, each controller with a service account of its own.
    pub(crate) async fn controller_manager(&self, server: &Server) -> anyhow::Result<Process> {
        let kubeconfig = self.component(server, "kube-controller-manager", None)?;
        let ca = self.ca();
        let (process, _) = self
            .start_serving("kube-controller-manager", |command| {
                command
                    .arg(flag("kubeconfig", &kubeconfig))
                    .args(["--leader-elect=false", "--use-service-account-credentials=true"])
                    .arg(flag("root-ca-file", &ca))
                    .arg(flag("service-account-private-key-file", self.token_key()))
                    // Fake nodes never fall silent: kwok's heartbeats are rare (stages/node-heartbeat.yaml).
                    .args(["--node-monitor-period=1s", "--node-monitor-grace-period=1h"])
                    .args(["--horizontal-pod-autoscaler-sync-period=2s", "--pvclaimbinder-sync-period=2s"])
                    // As many at work as a busy demo needs, rather than the limits of a small production cluster.
                    .args(["--kube-api-qps=500", "--kube-api-burst=1000"])
                    .args(["--concurrent-deployment-syncs=20", "--concurrent-replicaset-syncs=20"])
                    .args(["--profiling=false"]);
            })
            .await?;
        Ok(process)
    }

    /// Starts the scheduler.
    pub(crate) async fn scheduler(&self, server: &Server) -> anyhow::Result<Process> {
        let kubeconfig = self.component(server, "kube-scheduler", None)?;
        let (process, _) = self
            .start_serving("kube-scheduler", |command| {
                command
                    .arg(flag("kubeconfig", &kubeconfig))
                    .args(["--leader-elect=false", "--kube-api-qps=500", "--kube-api-burst=1000"])
                    .args(["--profiling=false"]);
            })
            .await?;
        Ok(process)
    }

    /// Starts kwok, which plays the kubelet of every fake node, and serves the logs of every container from two files.
    pub(crate) async fn kwok(&self, server: &Server) -> anyhow::Result<Process> {
        let kubeconfig = self.component(server, "kwok", Some(("system:node:kwok", "system:nodes")))?;
        let config = self.workdir.join("config/kwok.yaml");
        let logs = json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": "ClusterLogs",
            "metadata": {"name": "all"},
            "spec": {"logs": [{
                "logsFile": self.container_log(false),
                "previousLogsFile": self.container_log(true),
            }]},
        });
        write_private(
            &config,
            &[
                include_str!("../stages/node-ready.yaml"),
                include_str!("../stages/node-heartbeat.yaml"),
                include_str!("../stages/pod-ready.yaml"),
                include_str!("../stages/pod-image-id.yaml"),
                include_str!("../stages/pod-complete.yaml"),
                include_str!("../stages/pod-terminate.yaml"),
                include_str!("../stages/pod-delete.yaml"),
                &serde_yaml::to_string(&logs)?,
            ]
            .join("---\n"),
        )?;
        let serving = self.authority.server("kwok")?.write(&self.workdir.join("certificates"), "kwok")?;
        let prober = self.authority.client("resurgam-rig-prober", None)?;
        let (process, _) = self
            .start("kwok", |port, command| {
                command
                    .arg(flag("kubeconfig", &kubeconfig))
                    .arg(flag("config", &config))
                    .arg("--manage-nodes-with-annotation-selector=kwok.x-k8s.io/node=fake")
                    .args(["--node-ip=127.0.0.1", "--cidr=10.64.0.0/12"])
                    .arg(format!("--node-port={port}"))
                    .arg(format!("--server-address=127.0.0.1:{port}"))
                    .arg(flag("tls-cert-file", &serving.certificate))
                    .arg(flag("tls-private-key-file", &serving.key));
                let at = Server { url: format!("https://127.0.0.1:{port}"), authority: self.authority.pem() };
                Ok(Probe { kubeconfig: at.with_certificate("prober", &prober)?, at, path: "/healthz" })
            })
            .await?;
        Ok(process)
    }

    /// What every container's log is, or what its run before has logged, as a container runtime writes it.
    pub(crate) fn container_log(&self, previous: bool) -> PathBuf {
        self.workdir.join("containers").join(if previous { "previous.log" } else { "current.log" })
    }

    /// The audit log of an API server.
    pub(crate) fn audit_log(&self, number: usize) -> PathBuf {
        audit_log(self.workdir, number)
    }

    fn audit_policy(&self) -> PathBuf {
        self.workdir.join("config/audit-policy.yaml")
    }

    /// Where the cluster's authority is written.
    pub(crate) fn ca(&self) -> PathBuf {
        self.workdir.join("certificates/ca.crt")
    }

    fn token_key(&self) -> PathBuf {
        self.workdir.join("certificates/service-accounts.key")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.workdir.join("logs").join(format!("{name}.log"))
    }

    /// A kubeconfig file for a component, by default as the user that the built-in roles name.
    pub(crate) fn component(
        &self,
        server: &Server,
        name: &str,
        user: Option<(&str, &str)>,
    ) -> anyhow::Result<PathBuf> {
        let builtin = format!("system:{name}");
        let (user, group) = user.map_or((builtin.as_str(), None), |(user, group)| (user, Some(group)));
        let kubeconfig = server.with_certificate(user, &self.authority.client(user, group)?)?;
        let path = self.workdir.join("config").join(format!("{name}.kubeconfig"));
        write_private(&path, &serde_yaml::to_string(&kubeconfig)?)?;
        Ok(path)
    }

    /// A program with nothing of this process's environment but the path.
    pub(crate) fn command(&self, name: &str) -> anyhow::Result<Command> {
        let program = self.programs.get(name).with_context(|| format!("there is no program {name}"))?;
        let mut command = Command::new(program);
        let home = self.workdir.join("home");
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOME", &home).current_dir(home);
        Ok(command)
    }

    /// Starts a component that tells its health over TLS on a port of its own.
    async fn start_serving(
        &self,
        name: &'static str,
        arguments: impl Fn(&mut Command),
    ) -> anyhow::Result<(Process, Server)> {
        let serving = self.authority.server(name)?.write(&self.workdir.join("certificates"), name)?;
        let prober = self.authority.client("resurgam-rig-prober", None)?;
        self.start(name, |port, command| {
            arguments(command);
            command
                .args(["--bind-address=127.0.0.1"])
                .arg(format!("--secure-port={port}"))
                .arg(flag("tls-cert-file", &serving.certificate))
                .arg(flag("tls-private-key-file", &serving.key));
            let at = Server { url: format!("https://127.0.0.1:{port}"), authority: self.authority.pem() };
            Ok(Probe { kubeconfig: at.with_certificate("prober", &prober)?, at, path: "/healthz" })
        })
        .await
    }

    /// Starts a component on a free port and waits until it is ready.
    async fn start(
        &self,
        name: &'static str,
        arguments: impl Fn(u16, &mut Command) -> anyhow::Result<Probe>,
    ) -> anyhow::Result<(Process, Server)> {
        self.start_at(name, String::new(), None, arguments).await
    }

    /// The same, on a certain port if one is given, with its log under the name and this suffix.
    async fn start_at(
        &self,
        name: &'static str,
        suffix: String,
        port: Option<u16>,
        arguments: impl Fn(u16, &mut Command) -> anyhow::Result<Probe>,
    ) -> anyhow::Result<(Process, Server)> {
        let attempts = if port.is_some() { 1 } else { PORT_ATTEMPTS };
        let mut attempt = 1;
        loop {
            let mut command = self.command(name)?;
            let probe = arguments(port.map_or_else(free_port, Ok)?, &mut command)?;
            let client = crate::client::client(probe.kubeconfig).await?;
            let process = Process::start(name, command, &self.log(&format!("{name}{suffix}")))?;
            match ready(&process, &client, probe.path).await {
                Ok(()) => return Ok((process, probe.at)),
                Err(error) if attempt < attempts && error.to_string().contains("address already in use") => {
                    attempt += 1;
                }
                Err(error) => return Err(error),
            }
        }
    }
}

/// The loopback address at which an API server listens. All of them have the same port, so each needs one of its own.
fn listens(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + u32::try_from(number).unwrap_or_default())
}

/// The Service `default/kubernetes`: the first address of those for Services.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// The address at which it says that it is: Kubernetes advertises no loopback address. With a real node that is the node's own. Else the
/// network is for documentation (RFC 5737), so that nobody is there.
pub(crate) fn advertised(number: usize, real_node: bool) -> Ipv4Addr {
    if real_node {
        return network::NODE;
    }
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 51, 100, 1).to_bits() + u32::try_from(number).unwrap_or_default())
}

/// The audit log of the API server of that number.
pub(crate) fn audit_log(workdir: &Workdir, number: usize) -> PathBuf {
    let more = if number == 0 { String::new() } else { format!("-{}", number + 1) };
    workdir.join("audit").join(format!("audit{more}.log"))
}

/// Where etcd is, and the credentials it takes.
pub(crate) struct Etcd {
    url: String,
    ca: PathBuf,
    client: Files,
}

/// How a component is asked whether it is ready.
struct Probe {
    at: Server,
    kubeconfig: kube::config::Kubeconfig,
    path: &'static str,
}

async fn ready(process: &Process, client: &Client, path: &str) -> anyhow::Result<()> {
    let until = Instant::now() + READY;
    loop {
        process.check()?;
        let request = http::Request::get(path).body(Vec::new())?;
        let left = until.saturating_duration_since(Instant::now());
        let answer = tokio::time::timeout(left, client.request_text(request)).await;
        match answer {
            Ok(Ok(_)) => return Ok(()),
            Ok(Err(error)) if Instant::now() >= until => {
                bail!("{path} was not ok within {} s: {error}\n{}", READY.as_secs(), process.tail())
            }
            Ok(Err(_)) => tokio::time::sleep(POLL).await,
            Err(_) => bail!("{path} did not answer within {} s\n{}", READY.as_secs(), process.tail()),
        }
    }
}

fn free_port() -> anyhow::Result<u16> {
    free_port_at(Ipv4Addr::LOCALHOST)
}

/// A port that nobody listens on, and that this process has given to nobody before: of two components with one port, the answer of one
/// would be taken for that of the other, which has ended.
pub(crate) fn free_port_at(address: Ipv4Addr) -> anyhow::Result<u16> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    loop {
        let listener =
            TcpListener::bind((address, 0)).with_context(|| format!("no free port on {address}"))?;
        let port = listener.local_addr()?.port();
        if GIVEN.lock().unwrap_or_else(PoisonError::into_inner).insert(port) {
            return Ok(port);
        }
    }
}

pub(crate) fn flag(name: &str, path: impl AsRef<Path>) -> std::ffi::OsString {
    let mut flag = std::ffi::OsString::from(format!("--{name}="));
    flag.push(path.as_ref());
    flag
}
