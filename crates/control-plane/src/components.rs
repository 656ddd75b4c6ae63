//! Components of the control plane: how each is started, and when it is ready.

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

/// Time limit for a component to become ready, on a busy machine.
const READY: Duration = Duration::from_secs(120);
/// Polling interval of readiness.
const POLL: Duration = Duration::from_millis(25);
/// Number of attempts to find a port: another process may take a free one before the component listens.
const PORT_ATTEMPTS: usize = 5;

/// State that all components share.
pub(crate) struct Rig<'a> {
    pub(crate) workdir: &'a Workdir,
    pub(crate) programs: &'a BTreeMap<&'static str, PathBuf>,
    /// Certificate authority of the cluster, which the API server and its clients trust.
    pub(crate) authority: &'a Authority,
}

impl Rig<'_> {
    /// Starts etcd with its own certificate authority, and returns what the API server needs to connect.
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

    /// Starts the API servers with these policies as files: one, and one more for each of `further`, with these additional arguments. All
    /// other components use the first.
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

    /// Returns the arguments of every API server.
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

    /// Writes policies to the API server's folder of static manifests, and returns its arguments.
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

    /// Starts the controller manager, with a ServiceAccount per controller.
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

    /// Starts kwok, which simulates the kubelet of every fake node, and serves the logs of every container from two files.
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

    /// Returns the file with every container's log, or with that of its previous run, in the format of a container runtime.
    pub(crate) fn container_log(&self, previous: bool) -> PathBuf {
        self.workdir.join("containers").join(if previous { "previous.log" } else { "current.log" })
    }

    /// Returns the audit log of an API server.
    pub(crate) fn audit_log(&self, number: usize) -> PathBuf {
        audit_log(self.workdir, number)
    }

    fn audit_policy(&self) -> PathBuf {
        self.workdir.join("config/audit-policy.yaml")
    }

    /// Returns the file with the cluster's certificate authority.
    pub(crate) fn ca(&self) -> PathBuf {
        self.workdir.join("certificates/ca.crt")
    }

    fn token_key(&self) -> PathBuf {
        self.workdir.join("certificates/service-accounts.key")
    }

    pub(crate) fn log(&self, name: &str) -> PathBuf {
        self.workdir.join("logs").join(format!("{name}.log"))
    }

    /// Writes a kubeconfig file for a component, by default for the user that the built-in roles name.
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

    /// Returns a command with no environment but PATH.
    pub(crate) fn command(&self, name: &str) -> anyhow::Result<Command> {
        let program = self.programs.get(name).with_context(|| format!("there is no program {name}"))?;
        let mut command = Command::new(program);
        let home = self.workdir.join("home");
        command.env_clear().envs(std::env::var_os("PATH").map(|path| ("PATH", path)));
        command.env("HOME", &home).current_dir(home);
        Ok(command)
    }

    /// Starts a component that serves its health endpoint over TLS on its own port.
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

    /// Starts a component on a given or free port, with a log named after it and this suffix.
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

/// Returns the loopback address of an API server. All have the same port, so that each needs its own address.
fn listens(number: usize) -> Ipv4Addr {
    Ipv4Addr::from_bits(Ipv4Addr::LOCALHOST.to_bits() + u32::try_from(number).unwrap_or_default())
}

/// Returns the cluster IP of the Service `default/kubernetes`: the first of the Service range.
const SERVICE: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// Returns the advertised address of an API server: Kubernetes advertises no loopback address. With a real node it is the node's own;
/// otherwise one in a documentation network (RFC 5737), which nobody has.
pub(crate) fn advertised(number: usize, real_node: bool) -> Ipv4Addr {
    if real_node {
        return network::NODE;
    }
    Ipv4Addr::from_bits(Ipv4Addr::new(198, 51, 100, 1).to_bits() + u32::try_from(number).unwrap_or_default())
}

/// Returns the audit log of the API server with that number.
pub(crate) fn audit_log(workdir: &Workdir, number: usize) -> PathBuf {
    let more = if number == 0 { String::new() } else { format!("-{}", number + 1) };
    workdir.join("audit").join(format!("audit{more}.log"))
}

/// Address of etcd, and its client credentials.
pub(crate) struct Etcd {
    url: String,
    ca: PathBuf,
    client: Files,
}

/// Readiness check of a component.
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

/// Returns a free port that this process has not returned before. Two components with the same port could otherwise be confused: one
/// answers the readiness check of the other, which has exited.
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
