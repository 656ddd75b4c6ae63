//! The Quarantine controller: the only writer of isolation. Each pass reads everything live, asks [`target`] what is to be
//! enforced and what comes next, does it, and writes the status if that changed.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::core::DeserializeGuard;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::json;

use super::fence::{self, Fence};
use crate::api::{
    Isolation, Quarantine, QuarantineStatus, RecoveryPlan, ServiceRecovery, conditions, field_manager,
};
use crate::isolation::capture::{CaptureError, capture};
use crate::isolation::io::{IoError, call, call_opt};
use crate::isolation::network::{self, NetworkError};
use crate::isolation::probe::{self, Probed, Seen};
use crate::isolation::target::{self, Next, PlanState, Target, target};
use crate::isolation::{RELEASE_FINALIZER, protected, workloads};
use status::{Pass, Trouble};

mod act;
mod status;
mod wake;

/// A Quarantine that may turn out not to be readable: then it alone is left out.
type Guarded = DeserializeGuard<Quarantine>;

/// Quarantines looked after at a time.
const CONCURRENCY: u16 = 16;
/// Safety net: everything is looked at again this often, though nothing woke it.
const RESYNC: Duration = Duration::from_secs(3600);
/// How long the fence is tried in quick succession before that counts as failed. Labels take effect within milliseconds.
const PROBING: Duration = Duration::from_secs(30);
/// Then it is tried this often.
const PROBE_SLOWLY: Duration = Duration::from_secs(60);

/// What the controller needs to know.
#[derive(Clone, Debug)]
pub struct QuarantineOptions {
    /// Folder for evidence.
    pub evidence: PathBuf,
    /// What is known of the admission policies.
    pub fence: Fence,
}

impl QuarantineOptions {
    /// Evidence into this folder.
    #[must_use]
    pub fn new(evidence: impl Into<PathBuf>) -> Self {
        Self { evidence: evidence.into(), fence: Fence::default() }
    }
}

/// What is remembered of a namespace between passes. All of it can be lost: then it is found out again.
#[derive(Clone, Debug, Default)]
struct Memory {
    /// What is to be enforced: decides which events matter.
    level: Option<Isolation>,
    /// For which namespace, level and policies the fence was seen to refuse.
    seen: Option<Seal>,
    /// Since when, and how often, it has been tried in vain.
    probing: Option<(Instant, u32)>,
    /// Passes that failed in a row.
    failures: u32,
}

/// What a try of the fence is good for: another namespace, level or set of policies has to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seal {
    namespace: Option<String>,
    level: Isolation,
    epoch: u64,
}

struct Context {
    client: Client,
    options: QuarantineOptions,
    recorder: Recorder,
    memory: Mutex<HashMap<String, Memory>>,
}

impl Context {
    fn remember<T>(&self, name: &str, change: impl FnOnce(&mut Memory) -> T) -> T {
        let mut memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        change(memory.entry(name.to_owned()).or_default())
    }

    fn level(&self, name: &str) -> Option<Isolation> {
        let memory = self.memory.lock().unwrap_or_else(PoisonError::into_inner);
        memory.get(name).and_then(|memory| memory.level)
    }

    async fn tell(&self, quarantine: &Quarantine, type_: EventType, reason: &str, note: String) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(conditions::shorten(&note, 1000)),
            action: "Isolate".to_owned(),
            secondary: None,
        };
        let what = format!("tell about Quarantine {}", quarantine.name_any());
        if let Err(error) = call(what, self.recorder.publish(&event, &quarantine.object_ref(&()))).await {
            tracing::warn!(%error, "event lost");
        }
    }
}

/// What ended a pass early. It is tried again.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Network(#[from] NetworkError),
}

impl PassError {
    /// Somebody wrote in between: read afresh, at once.
    fn is_conflict(&self) -> bool {
        match self {
            Self::Io(error) | Self::Network(NetworkError::Io(error)) => error.is_conflict(),
            Self::Network(_) => false,
        }
    }
}

/// Installs and keeps the admission policies and carries out Quarantines, for as long as it is polled.
pub async fn run(client: Client, options: QuarantineOptions) {
    let keeper = fence::keep(client.clone(), options.fence.clone());
    let recorder = Recorder::new(client.clone(), "resurgam".into());
    let context = Arc::new(Context { client: client.clone(), options, recorder, memory: Mutex::default() });
    let (store, queue) = wake::wakes(&client, &context);
    let config = Config::default().concurrency(CONCURRENCY);
    let passes = applier(
        |object, context| Box::pin(reconcile(object, context)),
        |object: Arc<Guarded>, error, context| failed(&object, error, &context),
        context,
        store,
        queue,
        config,
    )
    .for_each(|result| async {
        if let Err(error) = result {
            tracing::debug!(%error, "pass");
        }
    });
    futures::join!(keeper, passes);
}

fn failed(object: &Guarded, error: &PassError, context: &Context) -> Action {
    let name = object.name_any();
    let failures = context.remember(&name, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    if error.is_conflict() && failures < 10 {
        return Action::requeue(Duration::from_millis(20));
    }
    tracing::warn!(quarantine = name, %error, "isolation not carried out yet");
    Action::requeue(Duration::from_millis(250 * 2_u64.pow(failures.min(8))))
}

async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let name = object.name_any();
    if let Err(error) = &object.0 {
        tracing::error!(quarantine = name, %error, "a Quarantine that this version cannot read is left as it is");
        return Ok(Action::requeue(RESYNC));
    }
    let Some(quarantine) = read(&context, &name).await? else {
        return Ok(Action::await_change());
    };
    if quarantine.metadata.deletion_timestamp.is_some() {
        return release(&context, &quarantine).await;
    }
    if let Some(why) = protected(&name) {
        let trouble = Trouble { reason: "Protected", message: why, stalled: true };
        write(&context, &quarantine, status::impossible(&quarantine, &trouble, Timestamp::now())).await?;
        return Ok(Action::await_change());
    }
    let quarantine = with_finalizer(&context, quarantine).await?;
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    let namespace = call_opt(format!("get namespace {name}"), namespaces.get(&name)).await?;
    let Some(namespace) = namespace.filter(|n| n.metadata.deletion_timestamp.is_none()) else {
        let message = format!("there is no namespace {name}: it is isolated as soon as there is");
        let trouble = Trouble { reason: "NamespaceMissing", message, stalled: true };
        write(&context, &quarantine, status::impossible(&quarantine, &trouble, Timestamp::now())).await?;
        return Ok(Action::requeue(RESYNC));
    };
    let wanted = decide(&context, &quarantine).await?;
    context.remember(&name, |memory| memory.level = Some(wanted.level));
    advance(&context, quarantine, namespace, wanted).await
}

async fn read(context: &Context, name: &str) -> Result<Option<Quarantine>, IoError> {
    let api: Api<Quarantine> = Api::all(context.client.clone());
    call_opt(format!("get Quarantine {name}"), api.get(name)).await
}

async fn with_finalizer(context: &Context, quarantine: Quarantine) -> Result<Quarantine, IoError> {
    if quarantine.finalizers().iter().any(|f| f == RELEASE_FINALIZER) {
        return Ok(quarantine);
    }
    let mut finalizers = quarantine.finalizers().to_vec();
    finalizers.push(RELEASE_FINALIZER.to_owned());
    set_finalizers(context, &quarantine, &finalizers).await
}

async fn set_finalizers(
    context: &Context,
    quarantine: &Quarantine,
    finalizers: &[String],
) -> Result<Quarantine, IoError> {
    let name = quarantine.name_any();
    let api: Api<Quarantine> = Api::all(context.client.clone());
    let patch = json!({"metadata": {
        "finalizers": finalizers,
        "resourceVersion": quarantine.metadata.resource_version,
    }});
    let params =
        PatchParams { field_manager: Some(field_manager::ISOLATION.to_owned()), ..PatchParams::default() };
    let what = format!("write finalizers of Quarantine {name}");
    call(what, api.patch(&name, &params, &Patch::Merge(patch))).await
}

/// Asks what is to be enforced, reading the claimant, and its plan if that would loosen anything, live.
async fn decide(context: &Context, quarantine: &Quarantine) -> Result<Target, IoError> {
    let claim = quarantine.status.as_ref().and_then(|s| s.claimed_by.as_ref());
    let Some(claim) = claim else {
        return Ok(target(quarantine, None, PlanState::Gone));
    };
    let (namespace, name) = (&claim.plan_namespace, claim.service_recovery());
    let api: Api<ServiceRecovery> = Api::namespaced(context.client.clone(), namespace);
    let recovery = call_opt(format!("get ServiceRecovery {namespace}/{name}"), api.get(&name)).await?;
    let granted = target(quarantine, recovery.as_ref(), PlanState::Alive);
    let careful = target(quarantine, recovery.as_ref(), PlanState::Gone);
    if granted == careful {
        return Ok(granted);
    }
    let plans: Api<RecoveryPlan> = Api::namespaced(context.client.clone(), namespace);
    let what = format!("get RecoveryPlan {namespace}/{}", claim.plan);
    let plan = call_opt(what, plans.get_metadata(&claim.plan)).await?;
    let alive = plan.is_some_and(|p| {
        p.metadata.uid.as_deref() == Some(&claim.plan_uid) && p.metadata.deletion_timestamp.is_none()
    });
    Ok(if alive { granted } else { careful })
}

/// Right before anything is let in or out: is it still what is wanted, and the Quarantine still as it was read?
async fn still_wanted(context: &Context, quarantine: &Quarantine, wanted: &Target) -> Result<bool, IoError> {
    let Some(now) = read(context, &quarantine.name_any()).await? else {
        return Ok(false);
    };
    if now.metadata.deletion_timestamp.is_some() || now.metadata.uid != quarantine.metadata.uid {
        return Ok(false);
    }
    Ok(decide(context, &now).await? == *wanted)
}

/// Goes as far as it gets towards the target, and writes the status.
async fn advance(
    context: &Context,
    mut quarantine: Quarantine,
    mut namespace: Namespace,
    wanted: Target,
) -> Result<Action, PassError> {
    let name = quarantine.name_any();
    let client = &context.client;
    let uid = quarantine.uid().unwrap_or_default();
    let level = wanted.level;
    let before = quarantine.status.clone().unwrap_or_default();
    let loosens = target::loosens(before.isolation, level);
    let settled =
        before.isolation == Some(level) && conditions::is_true(&before.conditions, conditions::READY);
    let seal = Seal { namespace: namespace.uid(), level, epoch: context.options.fence.state().epoch };
    let mut drift = Vec::new();
    let mut pass = Pass::new(wanted.clone());
    pass.found.labelled = act::is_labelled(&namespace, &quarantine, level);
    pass.found.fenced =
        pass.found.labelled && context.remember(&name, |memory| memory.seen.as_ref() == Some(&seal));
    pass.found.captured = !target::needs_capture(&quarantine, level);
    let mut again = Action::requeue(RESYNC);
    loop {
        match pass.next() {
            Next::Label => {
                if loosens && !still_wanted(context, &quarantine, &wanted).await? {
                    return Ok(Action::requeue(Duration::ZERO));
                }
                namespace = act::label(client, &namespace, &quarantine, level).await?;
                pass.found.labelled = act::is_labelled(&namespace, &quarantine, level);
                drift.push(format!("label and annotations of namespace {name}"));
                if !pass.found.labelled {
                    break;
                }
            }
            Next::Probe => match try_fence(context, &name, &seal, &mut pass).await {
                None => {}
                Some(wait) => {
                    again = wait;
                    break;
                }
            },
            Next::Network => {
                if level == Isolation::Open {
                    if loosens && !still_wanted(context, &quarantine, &wanted).await? {
                        return Ok(Action::requeue(Duration::ZERO));
                    }
                    network::release(client, &name, &uid).await?;
                } else {
                    let room = (level == Isolation::CleanRoom).then_some(wanted.reachable.as_slice());
                    if network::isolate(client, &name, &uid, room).await? {
                        drift.push("network policies".to_owned());
                    }
                }
                pass.found.network = true;
            }
            Next::Capture => match capture(client, &name, &context.options.evidence).await {
                Ok(kept) => {
                    pass.found.captured = true;
                    pass.capture = Some(kept);
                    // Kept, and on the record, before anything goes.
                    let status =
                        status::after(&quarantine, &pass, &context.options.fence.state(), Timestamp::now());
                    quarantine = write(context, &quarantine, status).await?;
                    pass.capture = None;
                }
                Err(CaptureError::Io(error)) => return Err(error.into()),
                Err(error) => {
                    let message = format!("{error}: nothing is stopped before it is captured");
                    pass.trouble = Some(Trouble { reason: "CaptureFailed", message, stalled: true });
                    again = Action::requeue(PROBE_SLOWLY);
                    break;
                }
            },
            Next::Stop => {
                let found = workloads::list(client, &name).await?;
                pass.workloads = found.len();
                if act::stop(client, &found, &uid).await? > 0 {
                    drift.push("workloads".to_owned());
                }
                pass.found.stopped = true;
            }
            Next::AwaitPods => {
                let pods = act::live_pods(client, &name).await?;
                let gone = act::delete_bare(client, &name, &pods).await?;
                if !gone.is_empty() {
                    let note = format!(
                        "captured, then deleted: pods that no workload accounts for: {}",
                        gone.join(", ")
                    );
                    context.tell(&quarantine, EventType::Warning, "BarePodsDeleted", note).await;
                }
                pass.found.empty = pods.is_empty();
                pass.alive = pods.iter().map(ResourceExt::name_any).collect();
                let rooted: Vec<_> =
                    pods.iter().filter(|p| workloads::is_static(p)).map(ResourceExt::name_any).collect();
                if !rooted.is_empty() {
                    let message =
                        format!("static pods, which only their nodes can stop: {}", rooted.join(", "));
                    pass.trouble = Some(Trouble { reason: "StaticPods", message, stalled: true });
                }
                if !pass.found.empty {
                    break;
                }
            }
            Next::Done => break,
        }
    }
    let status = status::after(&quarantine, &pass, &context.options.fence.state(), Timestamp::now());
    announce(context, &quarantine, &before, &status, if settled { drift } else { Vec::new() }).await;
    write(context, &quarantine, status).await?;
    context.remember(&name, |memory| memory.failures = 0);
    Ok(again)
}

/// Tries lock and fence (to open: whether they let go). `None`: seen as wanted; else when to try again.
async fn try_fence(context: &Context, name: &str, seal: &Seal, pass: &mut Pass) -> Option<Action> {
    let seen = if seal.level == Isolation::Open {
        // Anything but our own refusal will do: quotas and the like are not ours to judge.
        probe::is_open(&context.client, name).await != Seen::Refused
    } else {
        let Probed { lock, fence } = probe::probe(&context.client, name, seal.level).await;
        let refused = lock == Seen::Refused && fence == Seen::Refused;
        (pass.lock, pass.fence) = (Some(lock), Some(fence));
        refused
    };
    pass.found.fenced = seen;
    if seen {
        context.remember(name, |memory| (memory.seen, memory.probing) = (Some(seal.clone()), None));
        return None;
    }
    let (since, tries) = context.remember(name, |memory| {
        memory.seen = None;
        let (since, tries) = memory.probing.unwrap_or((Instant::now(), 0));
        memory.probing = Some((since, tries.saturating_add(1)));
        (since, tries)
    });
    if since.elapsed() < PROBING {
        return Some(Action::requeue(Duration::from_millis(5 * 2_u64.pow(tries.min(8)))));
    }
    let message = format!("the fence was tried for {} s and not seen to hold", PROBING.as_secs());
    pass.trouble = Some(Trouble { reason: "FenceNotSeen", message, stalled: true });
    Some(Action::requeue(PROBE_SLOWLY))
}

/// Tells of what changed for people.
async fn announce(
    context: &Context,
    quarantine: &Quarantine,
    before: &QuarantineStatus,
    after: &QuarantineStatus,
    drift: Vec<String>,
) {
    if !drift.is_empty() {
        let note = format!("changed by somebody, put back: {}", drift.join(", "));
        context.tell(quarantine, EventType::Warning, "DriftPutBack", note).await;
    }
    let ready = conditions::find(&after.conditions, conditions::READY);
    let old = conditions::find(&before.conditions, conditions::READY);
    if let Some(ready) =
        ready.filter(|new| old.is_none_or(|old| (&old.status, &old.reason) != (&new.status, &new.reason)))
    {
        let type_ = match ready.status.as_str() {
            "True" => EventType::Normal,
            "False" => EventType::Warning,
            // On the way: what matters is told once it is there.
            _ => return,
        };
        context.tell(quarantine, type_, &ready.reason, ready.message.clone()).await;
    }
}

/// Writes the status, all of it but the claim, if it differs from what is stored.
async fn write(
    context: &Context,
    quarantine: &Quarantine,
    status: QuarantineStatus,
) -> Result<Quarantine, IoError> {
    if quarantine.status.as_ref() == Some(&status) {
        return Ok(quarantine.clone());
    }
    let name = quarantine.name_any();
    let status = QuarantineStatus { claimed_by: None, ..status };
    let patch = json!({
        "apiVersion": Quarantine::api_version(&()),
        "kind": Quarantine::kind(&()),
        "metadata": {"name": name, "uid": quarantine.metadata.uid},
        "status": status,
    });
    let params = PatchParams::apply(field_manager::ISOLATION).force();
    let api: Api<Quarantine> = Api::all(context.client.clone());
    let what = format!("write status of Quarantine {name}");
    call(what, api.patch_status(&name, &params, &Patch::Apply(patch))).await
}

/// Deleting a Quarantine lets its namespace out. Workloads stay at zero with their record: starting them is for people.
async fn release(context: &Context, quarantine: &Quarantine) -> Result<Action, PassError> {
    let name = quarantine.name_any();
    let finalizers: Vec<_> =
        quarantine.finalizers().iter().filter(|f| *f != RELEASE_FINALIZER).cloned().collect();
    if finalizers.len() == quarantine.finalizers().len() {
        return Ok(Action::await_change());
    }
    let namespaces: Api<Namespace> = Api::all(context.client.clone());
    if let Some(namespace) = call_opt(format!("get namespace {name}"), namespaces.get(&name)).await? {
        let uid = quarantine.uid().unwrap_or_default();
        network::release(&context.client, &name, &uid).await?;
        if !act::is_labelled(&namespace, quarantine, Isolation::Open) {
            act::label(&context.client, &namespace, quarantine, Isolation::Open).await?;
        }
    }
    let note = "network policies are restored and the namespace is open; workloads stay at zero, with a record of what they were";
    context.tell(quarantine, EventType::Normal, "Released", note.to_owned()).await;
    set_finalizers(context, quarantine, &finalizers).await?;
    context.memory.lock().unwrap_or_else(PoisonError::into_inner).remove(&name);
    Ok(Action::await_change())
}
