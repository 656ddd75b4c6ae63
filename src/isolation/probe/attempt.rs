//! One probe of the network: creates pods, waits for them, reads their results, and deletes them. [`network`] judges the results.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::future::{join_all, try_join_all};
use k8s_openapi::api::core::v1::Pod;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, PostParams};
use kube::runtime::wait::await_condition;
use kube::{Api, Client, ResourceExt};

use super::network::{
    BeforeAfter, Connectivity, DENIED_NAMESPACE, NodeProbe, NodeVerdict, OPEN_NAMESPACE, judge,
};
use super::pods::{self, CONVERGENCE_SECONDS, ProbeRun, ProbeTarget, Side};
use crate::api::field_manager;
use crate::calls::{IoError, call, call_opt};
use crate::isolation::network::{DEFAULT_DENY, wanted};

/// How long pods may take to start, including the image pull.
const START: Duration = Duration::from_secs(90);
/// How long a connector may take to end after its own deadline, including the kubelet's report.
const GRACE: Duration = Duration::from_secs(20);
/// Names of the listener that no policy isolates, and of the targets that connectors report.
const CONTROL: &str = "control";

/// Why a probe failed.
#[derive(Debug, thiserror::Error)]
pub enum AttemptError {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Io(#[from] IoError),
    /// A pod of ours was not in the expected state in time.
    #[error("Pod {0}/{1} is {2}")]
    Pod(&'static str, String, String),
    /// A foreign policy selects our pods, so its effect cannot be separated from ours.
    #[error("NetworkPolicy {0}/{1} is not ours and prevents the network probe. Its author has to delete it")]
    Foreign(&'static str, String),
    /// A built-in pod does not parse: a bug of this build.
    #[error("a pod of this build does not parse")]
    Malformed,
}

/// Probes the network on these nodes, and deletes its pods and those of an earlier probe.
///
/// # Errors
/// [`AttemptError`]: the probe has no result.
pub async fn attempt(
    client: &Client,
    this: &ProbeRun,
    nodes: &[String],
) -> Result<BTreeMap<String, NodeVerdict>, AttemptError> {
    clean(client).await?;
    let shown = Attempt { client, this, nodes }.run().await;
    if let Err(error) = clean(client).await {
        tracing::warn!(%error, "pods of the network probe not deleted; the next probe deletes them");
    }
    shown
}

/// Deletes our pods and the policy.
async fn clean(client: &Client) -> Result<(), AttemptError> {
    for side in [Side::Open, Side::Denied] {
        let namespace = side.namespace();
        let api: Api<Pod> = Api::namespaced(client.clone(), namespace);
        let selected = ListParams::default().labels(&ProbeRun::selector());
        let what = format!("delete our pods in namespace {namespace}");
        call(what, api.delete_collection(&DeleteParams::default(), &selected)).await?;
        let policies: Api<NetworkPolicy> = Api::namespaced(client.clone(), namespace);
        let what = format!("list networkpolicies in namespace {namespace}");
        let found = call(what, policies.list(&ListParams::default())).await?.items;
        let is_ours = |p: &NetworkPolicy| side == Side::Denied && p.name_any() == DEFAULT_DENY;
        if let Some(foreign) = found.iter().find(|p| !is_ours(p)) {
            return Err(AttemptError::Foreign(namespace, foreign.name_any()));
        }
        if !found.is_empty() {
            let what = format!("delete NetworkPolicy {namespace}/{DEFAULT_DENY}");
            call_opt(what, policies.delete(DEFAULT_DENY, &DeleteParams::default())).await?;
        }
    }
    Ok(())
}

struct Attempt<'a> {
    client: &'a Client,
    this: &'a ProbeRun,
    nodes: &'a [String],
}

/// Results of the connectors in one round.
struct Round {
    control: Connectivity,
    ingress: Vec<Connectivity>,
    egress: Vec<Connectivity>,
}

impl Attempt<'_> {
    async fn run(&self) -> Result<BTreeMap<String, NodeVerdict>, AttemptError> {
        let (Some(first), Some(last)) = (self.nodes.first(), self.nodes.last()) else {
            return Ok(BTreeMap::new());
        };
        let control = self.listening(Side::Open, CONTROL.to_owned(), first);
        let denied = self
            .nodes
            .iter()
            .enumerate()
            .map(|(i, n)| self.listening(Side::Denied, format!("denied-{i}"), n));
        let (control, denied) = futures::try_join!(control, try_join_all(denied))?;
        let before = self.round("before", &control, &denied, last, false).await?;
        self.deny().await?;
        let mut after = self.round("after", &control, &denied, last, true).await?;
        // A listener that ended in between was unreachable for that reason.
        for (link, listener) in after.ingress.iter_mut().zip(&denied) {
            if !self.listens(Side::Denied, listener).await? && *link != Connectivity::Connected {
                *link = Connectivity::Unknown(format!(
                    "its listener, Pod {DENIED_NAMESPACE}/{}, has ended",
                    listener.pod
                ));
            }
        }
        if !self.listens(Side::Open, &control).await? {
            after.control = Connectivity::Unknown(format!(
                "its listener, Pod {OPEN_NAMESPACE}/{}, has ended",
                control.pod
            ));
        }
        let control = BeforeAfter { before: before.control, after: after.control };
        let ways = |(before, after)| BeforeAfter { before, after };
        let ingress = before.ingress.into_iter().zip(after.ingress).map(ways);
        let egress = before.egress.into_iter().zip(after.egress).map(ways);
        let tried = ingress.zip(egress).map(|(ingress, egress)| NodeProbe { ingress, egress });
        Ok(self.nodes.iter().cloned().zip(tried.map(|tried| judge(&control, &tried))).collect())
    }

    /// Runs all connectors at once: from the open side to all listeners, and from each node's denied side to the open one.
    async fn round(
        &self,
        when: &str,
        control: &Listener,
        denied: &[Listener],
        node: &str,
        is_denied: bool,
    ) -> Result<Round, AttemptError> {
        let goal =
            |name: String, to: &Listener, denied| ProbeTarget { name, address: to.address.clone(), denied };
        let mut goals = vec![goal(CONTROL.to_owned(), control, false)];
        goals.extend(denied.iter().map(|to| goal(to.name.clone(), to, is_denied)));
        let inward = self.connect(Side::Open, format!("in-{when}"), node, &goals);
        let out = [goal(CONTROL.to_owned(), control, is_denied)];
        let outward = self
            .nodes
            .iter()
            .enumerate()
            .map(|(i, node)| self.connect(Side::Denied, format!("out-{when}-{i}"), node, &out));
        let (inward, outward) = futures::join!(inward, join_all(outward));
        let inward = inward?;
        let outward = outward.into_iter().collect::<Result<Vec<_>, _>>()?;
        let read = |message: &Result<Option<String>, String>, name: &str| match message {
            Ok(message) => Connectivity::read(message.as_deref(), name),
            Err(why) => Connectivity::Unknown(why.clone()),
        };
        Ok(Round {
            control: read(&inward, CONTROL),
            ingress: denied.iter().map(|to| read(&inward, &to.name)).collect(),
            egress: outward.iter().map(|message| read(message, CONTROL)).collect(),
        })
    }

    async fn listening(&self, side: Side, name: String, node: &str) -> Result<Listener, AttemptError> {
        let pod = self.create(side, self.this.listener(side, &name, node)).await?;
        let wanted = |pod: &Pod| pods::address(pod).is_some() || pods::has_ended(pod);
        let found = self.until(side, &pod, START, wanted).await?;
        match pods::address(&found) {
            Some(address) => Ok(Listener { name, pod, address }),
            None => Err(AttemptError::Pod(side.namespace(), pod, pods::describe_state(&found))),
        }
    }

    async fn listens(&self, side: Side, listener: &Listener) -> Result<bool, AttemptError> {
        let api: Api<Pod> = Api::namespaced(self.client.clone(), side.namespace());
        let what = format!("get Pod {}/{}", side.namespace(), listener.pod);
        let found = call_opt(what, api.get(&listener.pod)).await?;
        Ok(found.is_some_and(|pod| pods::address(&pod).as_deref() == Some(&listener.address)))
    }

    /// Returns a connector's result, or why it has none, which affects its links only.
    async fn connect(
        &self,
        side: Side,
        name: String,
        node: &str,
        goals: &[ProbeTarget],
    ) -> Result<Result<Option<String>, String>, AttemptError> {
        let pod = self.create(side, self.this.connector(side, &name, node, goals)).await?;
        let patience = START + Duration::from_secs(CONVERGENCE_SECONDS) + GRACE;
        match self.until(side, &pod, patience, pods::has_ended).await {
            Ok(pod) => Ok(Ok(pods::termination_message(&pod).map(str::to_owned))),
            Err(AttemptError::Io(error)) => Err(error.into()),
            Err(error) => Ok(Err(error.to_string())),
        }
    }

    async fn create(&self, side: Side, pod: Option<Pod>) -> Result<String, AttemptError> {
        let pod = pod.ok_or(AttemptError::Malformed)?;
        let api: Api<Pod> = Api::namespaced(self.client.clone(), side.namespace());
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        let name = pod.name_any();
        let what = format!("create Pod {}/{name}", side.namespace());
        call(what, api.create(&params, &pod)).await?;
        Ok(name)
    }

    /// Writes the same policy that isolated namespaces have.
    async fn deny(&self) -> Result<(), AttemptError> {
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), DENIED_NAMESPACE);
        let params = PostParams { dry_run: false, field_manager: Some(field_manager::ISOLATION.to_owned()) };
        for policy in wanted(DENIED_NAMESPACE, None) {
            let what = format!("create NetworkPolicy {DENIED_NAMESPACE}/{}", policy.name_any());
            call(what, api.create(&params, &policy)).await?;
        }
        Ok(())
    }

    /// Waits until a pod satisfies the condition.
    async fn until(
        &self,
        side: Side,
        name: &str,
        patience: Duration,
        wanted: impl Fn(&Pod) -> bool,
    ) -> Result<Pod, AttemptError> {
        let began = Instant::now();
        let api: Api<Pod> = Api::namespaced(self.client.clone(), side.namespace());
        // Another writer's deletion of the pod also ends the wait.
        let waited = await_condition(api.clone(), name, |pod: Option<&Pod>| pod.is_none_or(&wanted));
        let found = match tokio::time::timeout(patience, waited).await {
            Ok(Ok(found)) => found,
            // After a failed watch or the deadline, one more read decides.
            Ok(Err(_)) | Err(_) => None,
        };
        if let Some(pod) = found {
            return Ok(pod);
        }
        let what = format!("get Pod {}/{name}", side.namespace());
        match call_opt(what, api.get(name)).await? {
            Some(pod) if wanted(&pod) => Ok(pod),
            Some(pod) => {
                let state =
                    format!("still {} after {} s", pods::describe_state(&pod), began.elapsed().as_secs());
                Err(AttemptError::Pod(side.namespace(), name.to_owned(), state))
            }
            None => Err(AttemptError::Pod(
                side.namespace(),
                name.to_owned(),
                "deleted by another writer".to_owned(),
            )),
        }
    }
}

/// A running listener.
struct Listener {
    name: String,
    pod: String,
    address: String,
}
