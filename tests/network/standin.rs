//! A stand-in for a network that enforces NetworkPolicies: of those, it knows default-deny only. It drops packets to and from pods
//! of namespaces with such a policy and no other, on the bridge of the real node. It is no network plugin, and proves
//! nothing about any; it is there so that the operator meets a network on which policies make a difference.

use std::collections::BTreeSet;
use std::io::Write;
use std::process::{Command, Stdio};

use control_plane::{ControlPlane, Identity};
use futures::{StreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::ListParams;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};

/// Stops when dropped.
pub struct StandIn {
    table: String,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.task.abort();
        nft(&format!("table bridge {0}\ndelete table bridge {0}\n", self.table));
    }
}

impl StandIn {
    /// What this machine lacks for it.
    pub fn lacks() -> Vec<String> {
        let found = Command::new("nft").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
        if found.is_ok_and(|status| status.success()) {
            Vec::new()
        } else {
            vec!["the program nft".to_owned()]
        }
    }

    pub async fn start(cluster: &ControlPlane) -> Self {
        let client = cluster.client(Identity::PlatformAdministrator).await.unwrap();
        let table = cluster.bridge().unwrap().to_owned();
        let task = tokio::spawn(enforce(client, table.clone()));
        Self { table, task }
    }
}

async fn enforce(client: Client, table: String) {
    let pods = watcher(Api::<Pod>::all(client.clone()), watcher::Config::default());
    let policies = watcher(Api::<NetworkPolicy>::all(client.clone()), watcher::Config::default());
    let pods = pods.default_backoff().touched_objects().map(drop);
    let policies = policies.default_backoff().touched_objects().map(drop);
    let mut changes = stream::select(pods.boxed(), policies.boxed()).ready_chunks(64);
    let mut before = None;
    while changes.next().await.is_some() {
        let denied = denied(&client).await;
        if before.as_ref() != Some(&denied) {
            write(&table, &denied);
            before = Some(denied);
        }
    }
}

/// Addresses of the pods that are denied everything.
async fn denied(client: &Client) -> BTreeSet<String> {
    let policies =
        Api::<NetworkPolicy>::all(client.clone()).list(&ListParams::default()).await.unwrap().items;
    let is_deny = |p: &NetworkPolicy| {
        let spec = p.spec.clone().unwrap_or_default();
        let all = spec.pod_selector.unwrap_or_default() == Default::default();
        all && spec.ingress.is_none()
            && spec.egress.is_none()
            && spec.policy_types.is_some_and(|t| t.len() == 2)
    };
    let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await.unwrap().items;
    let is_denied = |pod: &&Pod| {
        let mut mine = policies.iter().filter(|p| p.namespace() == pod.namespace()).peekable();
        mine.peek().is_some() && mine.all(is_deny)
    };
    pods.iter().filter(is_denied).filter_map(|pod| pod.status.as_ref()?.pod_ip.clone()).collect()
}

fn write(table: &str, denied: &BTreeSet<String>) {
    let rules: String =
        denied.iter().map(|ip| format!("    ip saddr {ip} drop\n    ip daddr {ip} drop\n")).collect();
    nft(&format!(
        "table bridge {table}\ndelete table bridge {table}\ntable bridge {table} {{\n  chain forward {{\n    \
         type filter hook forward priority 0;\n{rules}  }}\n}}\n"
    ));
}

fn nft(script: &str) {
    let mut child = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(script.as_bytes()).unwrap();
    assert!(child.wait().unwrap().success(), "nft refused:\n{script}");
}
