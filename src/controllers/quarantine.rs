//! The Quarantine controller, the only writer of isolation. A pass first compares the Quarantine with the cluster cache and ends if
//! nothing has to change ([`confirm`]). Otherwise it reads everything live, computes the [`target`] and the next action, carries that
//! out, and writes the status if it changed.

use std::pin::pin;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::Namespace;
use kube::runtime::controller::{Action, Config, applier};
use kube::runtime::events::Recorder;
use kube::runtime::reflector::Store;
use kube::{Api, Client, ResourceExt};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;
use tracing::Instrument;

use super::api_servers;
use super::fence::{self, Fence};
use super::health_cache::HealthCache;
use super::metrics::{Controller, count_controls};
use super::network::{Network, ProbeOptions};
use super::process::Process;
use super::roles;
use crate::api::QuarantineReason;
use crate::api::{ISOLATION_LABEL, Quarantine, protected_namespace};
use crate::calls::{IoError, call_opt};
use crate::clock;
use crate::cluster_cache::{self, ClusterCache};
use crate::heartbeats;
use crate::isolation::ending::DeletionMeaning;
use crate::isolation::evidence::{CaptureError, Evidence};
use crate::isolation::identity::IdentityError;
use crate::isolation::label;
use crate::isolation::list::Lists;
use crate::isolation::network::NetworkError;
use crate::isolation::other_policies::AcceptedPolicy;
use crate::isolation::pass::PassFailure;
use crate::isolation::probe::Servers;
use crate::isolation::records::RecordError;
use crate::isolation::retry;
use crate::isolation::status;
use crate::isolation::target::{self, PlanState, Target};
use context::{ConcurrencyLimits, Context, FenceVerification, VerificationScope};
use writes::{announce, write};

mod confirm;
mod context;
mod ending;
mod gitops;
mod new_on_lists;
mod pass;
mod wake;
mod wanted;
mod writes;

/// A Quarantine that may fail to deserialize. One that fails is skipped without affecting the others.
type Guarded = cluster_cache::Guarded<Quarantine>;

/// Quarantines reconciled at a time. [`ConcurrencyLimits`] bounds what they do concurrently.
const CONCURRENCY: u16 = 2048;
/// Resync interval: each Quarantine is reconciled this often even if no watch reports a change.
const RESYNC: Duration = Duration::from_secs(3600);
/// How often a refused or unknown dependency of a claimant is read again. No watch of this controller covers dependencies.
const DEPENDENCY_RECHECK: Duration = Duration::from_secs(2);
/// How long a new leader waits for the health of dependencies, which it has not received yet. Until then a partial transition stays as
/// the previous leader left it: reverting it would only repeat the work.
const HEALTH_GRACE: Duration = Duration::from_secs(15);
/// How often a pass checks for that health.
const HEALTH_RECHECK: Duration = Duration::from_millis(200);
/// How long startup waits for the first observation of the admission policies and API servers. After that, passes start anyway.
const STARTUP_WAIT: Duration = Duration::from_secs(10);
/// Liveness limit: while passes run, one ends within this time. Passes wait for calls with deadlines, for permits, and for snapshots.
const LONGEST_PASS: Duration = Duration::from_secs(15 * 60);

/// Settings and shared state of the Quarantine controller.
#[derive(Clone, Debug)]
pub struct QuarantineOptions {
    /// What is captured as evidence, and the store for it.
    pub evidence: Evidence,
    /// Observed state of the admission policies.
    pub fence: Fence,
    /// Observed state of the cluster's network isolation.
    pub network: Network,
    /// How the network and every other control is probed.
    pub probe: ProbeOptions,
    /// Gate health of the services that a claimant depends on. A ServiceRecovery's status alone is not enough to loosen isolation.
    pub health: HealthCache,
    /// Cluster-wide network policies of other APIs that an administrator accepts unchanged.
    pub accepted_policies: Vec<AcceptedPolicy>,
    /// The cluster cache, shared with the gates. `None`: the controller starts a cache of its own.
    pub cache: Option<ClusterCache>,
    /// Metrics, heartbeats and shutdown signal of the process.
    pub process: Process,
}

impl QuarantineOptions {
    /// Returns options with the given evidence settings and defaults for the rest.
    #[must_use]
    pub fn new(evidence: Evidence) -> Self {
        Self {
            evidence,
            fence: Fence::default(),
            network: Network::default(),
            probe: ProbeOptions::default(),
            health: HealthCache::default(),
            accepted_policies: Vec::new(),
            cache: None,
            process: Process::default(),
        }
    }
}

/// An error that ends a pass early. The pass is retried.
#[derive(Debug, thiserror::Error)]
enum PassError {
    #[error(transparent)]
    Io(#[from] IoError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error(
        "{0}: nothing is stopped before it is captured. It is tried again; spec.capture: BestEffort goes on without"
    )]
    Capture(#[from] CaptureError),
}

impl PassError {
    /// Returns the reason of the status condition.
    fn reason(&self) -> QuarantineReason {
        match self {
            Self::Io(_) => QuarantineReason::CallFailed,
            Self::Network(_) => QuarantineReason::NetworkFailed,
            Self::Identity(_) => QuarantineReason::IdentityFailed,
            Self::Capture(_) => QuarantineReason::CaptureFailed,
        }
    }

    /// Returns whether another writer changed the object since it was read.
    fn is_conflict(&self) -> bool {
        self.io().is_some_and(IoError::is_conflict)
    }

    /// Returns the API call that failed, if one did.
    fn io(&self) -> Option<&IoError> {
        match self {
            Self::Io(error)
            | Self::Network(NetworkError::Io(error) | NetworkError::Record(RecordError::Io(error)))
            | Self::Identity(IdentityError::Io(error) | IdentityError::Record(RecordError::Io(error))) => {
                Some(error)
            }
            Self::Network(_) | Self::Identity(_) | Self::Capture(_) => None,
        }
    }
}

/// Installs and maintains the admission policies and reconciles Quarantines until the future is dropped or the process stops. Running
/// passes are finished first. `config`: the configuration that `client` was created from.
pub async fn run(client: Client, config: kube::Config, options: QuarantineOptions) {
    let process = options.process.clone();
    let heart = process.heartbeats.watch("Quarantine controller", heartbeats::LIMIT);
    let servers = Servers::new(client.clone(), config, options.probe.routes.clone());
    let finder = api_servers::keep(client.clone(), servers.clone(), options.network.clone());
    let keeper = fence::keep(client.clone(), options.fence.clone());
    let prober = super::network::keep(client.clone(), options.network.clone(), options.probe.clone());
    let recorder = Recorder::new(client.clone(), "resurgam".into());
    let cache = options.cache.clone().unwrap_or_else(|| ClusterCache::start(&client));
    let context = Arc::new(Context {
        client: client.clone(),
        cache: cache.clone(),
        servers,
        options,
        recorder,
        memory: Mutex::default(),
        limits: ConcurrencyLimits::default(),
        lists: Lists::cached_by(client.clone(), cache),
        gitops: Default::default(),
        other_policies: Default::default(),
        under_way: Default::default(),
    });
    let passes = async {
        // An earlier pass would find no fence and no API server to probe, and report that in every status.
        let mut states = context.options.fence.subscribe();
        let mut epochs = context.servers.subscribe();
        // The closures drop each `watch::Ref` at once: holding one blocks the sender.
        let installed = async { states.wait_for(|state| state.drift.is_none()).await.is_ok() };
        let listed = async { epochs.wait_for(|epoch| *epoch > 0).await.is_ok() };
        let startup =
            async { futures::join!(timeout(STARTUP_WAIT, installed), timeout(STARTUP_WAIT, listed)) };
        let (installed, listed) = tokio::select! {
            found = startup => found,
            () = process.stop.cancelled() => return,
        };
        if installed.is_err() {
            tracing::error!(
                "admission policies not in place yet; Quarantines cannot become Ready until they are"
            );
        }
        if listed.is_err() {
            tracing::error!(
                "API servers not listed yet; the fence cannot be verified on all of them until they are"
            );
        }
        let (store, queue) = wake::wakes(&context);
        export(&context, &store);
        let mut passes = pin!(applier(
            |object, context| Box::pin(spawned(object, context)),
            |object: Arc<Guarded>, error, context| failed(&object, error, &context),
            context.clone(),
            store,
            queue.take_until(process.stop.clone().cancelled_owned()),
            Config::default().concurrency(CONCURRENCY),
        ));
        let longest = LONGEST_PASS + 2 * context.options.evidence.snapshot_wait;
        let heart = process.heartbeats.watch("Quarantine controller: passes", longest);
        let mut ticker = heart.ticker();
        loop {
            tokio::select! {
                ended = passes.next() => match ended {
                    Some(Ok(_)) => heart.beat(),
                    Some(Err(error)) => {
                        heart.beat();
                        tracing::debug!(%error, "pass ended with an error");
                    }
                    None => return,
                },
                // Without a running pass there is no progress to wait for.
                _ = ticker.tick() => if context.under_way.load(Ordering::Relaxed) == 0 { heart.beat() },
            }
        }
    };
    let keepers = async {
        futures::join!(keeper, prober, finder, roles::keep(client.clone()), new_on_lists::run(&context));
        // The maintenance loops never end; if one did, the controller would still run.
        std::future::pending::<()>().await;
    };
    // All futures share one task, so that a blocked future stops the heartbeat, too.
    let all = async {
        tokio::select! {
            () = keepers => {}
            () = passes => {}
        }
    };
    heart.beat_during(all).await;
}

/// Exports the state of all Quarantines in the watch's store as metrics.
fn export(context: &Context, store: &Store<Guarded>) {
    let store = store.clone();
    context.options.process.metrics.state.set_controls(move || {
        let all = store.state();
        count_controls(all.iter().map(|object| object.0.as_ref().ok()))
    });
}

fn failed(object: &Guarded, error: &PassError, context: &Context) -> Action {
    let name = object.name_any();
    let reason = if error.is_conflict() { "Conflict" } else { error.reason().as_str() };
    context.options.process.metrics.failed(Controller::Quarantine, reason);
    let failures = context.remember(&name, |memory| {
        memory.failures = memory.failures.saturating_add(1);
        memory.failures
    });
    if !retry::is_conflict(cause(error.io()), failures) {
        tracing::warn!(quarantine = name, %error, "pass failed; will retry");
    }
    Action::requeue(retry::pass_again_after(cause(error.io()), failures))
}

/// Returns the cause of a failed pass, which determines the retry delay.
fn cause(error: Option<&IoError>) -> retry::Cause {
    match error {
        Some(error) if error.is_conflict() => retry::Cause::Conflict,
        Some(error) if error.is_transient() => retry::Cause::Transient,
        Some(_) | None => retry::Cause::Refused,
    }
}

/// Runs a pass in a task of its own, since hundreds of passes would otherwise share one thread. Dropping the future aborts the task; a
/// panic of the task is propagated.
async fn spawned(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let task = AbortOnDropHandle::new(tokio::spawn(reconcile(object, context).boxed()));
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Only the runtime's shutdown cancels the task.
            Err(_) => Ok(Action::requeue(Duration::ZERO)),
        },
    }
}

/// Runs a pass, records its duration, and adds the Quarantine's name to its log lines.
async fn reconcile(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let began = Instant::now();
    let span = tracing::error_span!("quarantine", quarantine = object.name_any());
    let _under_way = context.under_way();
    let result = pass(object, context.clone()).instrument(span).await;
    context.options.process.metrics.reconciled(Controller::Quarantine, began);
    result
}

async fn pass(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let name = object.name_any();
    if let Err(error) = &object.0 {
        context.options.process.metrics.failed(Controller::Quarantine, "Unreadable");
        tracing::error!(%error, "Quarantine skipped: this version cannot read it; its author has to correct or delete it");
        return Ok(Action::requeue(RESYNC));
    }
    if let Ok(quarantine) = &object.0
        && let Some(next) = confirm::by_cache(&context, quarantine).await
    {
        return Ok(next);
    }
    let is_new = object.0.as_ref().is_ok_and(|object| target::at_once(object).is_some());
    let pending_cut = is_new.then(|| context.limits.register_cut());
    let permit = context.limits.acquire_read().await;
    let decided_at = Instant::now();
    let Some(quarantine) = read(&context, &name).await? else {
        return Ok(Action::await_change());
    };
    let kept = match ending::observe(&context, &quarantine).await {
        DeletionMeaning::None => None,
        DeletionMeaning::Release => {
            // A release that hangs must not hold a permit that isolating needs.
            drop(permit);
            return ending::release(&context, &quarantine).await;
        }
        DeletionMeaning::Keep(why) => Some(ending::report_retention(&context, &quarantine, why).await),
    };
    if let Some(why) = protected_namespace(&name) {
        let why = format!("{name} is never quarantined: {why}");
        let failure = PassFailure { reason: QuarantineReason::Protected, message: why, stalled: true };
        write(&context, &quarantine, status::impossible(&quarantine, &failure, clock::now())).await?;
        return Ok(Action::await_change());
    }
    let (quarantine, unprotected) = match writes::with_finalizer(&context, &quarantine).await {
        Ok(quarantine) => (quarantine, None),
        Err(error) if error.is_conflict() || error.is_not_found() => return Err(error.into()),
        // For instance, a webhook is down. Isolating goes on without the finalizer.
        Err(error) => (quarantine, Some(error)),
    };
    let namespace = match confirm::namespace(&context, &name) {
        // A stale version is harmless: writes to the namespace carry its resourceVersion.
        Some(cached) => Some(cached),
        None => {
            let namespaces: Api<Namespace> = Api::all(context.client.clone());
            call_opt(format!("get namespace {name}"), namespaces.get(&name)).await?
        }
    };
    let is_terminating = namespace.is_some();
    let Some(namespace) = namespace.filter(|n| n.metadata.deletion_timestamp.is_none()) else {
        let message = if is_terminating {
            format!(
                "namespace {name} is being deleted, so nothing can be created in it; its label and network are not changed. \
                 If finalizers keep it: resurgam quarantine {name} neutralises its network policies"
            )
        } else {
            format!("namespace {name} does not exist; it is isolated as soon as it is created")
        };
        let failure = PassFailure { reason: QuarantineReason::NamespaceMissing, message, stalled: true };
        write(&context, &quarantine, status::impossible(&quarantine, &failure, clock::now())).await?;
        return Ok(Action::requeue(RESYNC));
    };
    let label = namespace.labels().get(ISOLATION_LABEL).map(String::as_str);
    let (wanted, plan) = wanted::decide(&context, &quarantine, label).await?;
    // Loosening changes the network before the label. Only a loosening waits; a partial transition to a tighter level proceeds at once.
    let may_be_partial = label::is_labelled(&namespace, &quarantine.spec, wanted.level);
    if context.is_waiting_for_health(&name, plan) && may_be_partial {
        return Ok(Action::requeue(HEALTH_RECHECK));
    }
    context.remember(&name, |memory| memory.level = Some(wanted.level));
    context.update_network_demand();
    drop(permit);
    let confirmed = match &unprotected {
        None => confirm::target(&context, &quarantine, &namespace, &wanted).await,
        Some(_) => None,
    };
    let next = match confirmed {
        Some(next) => next,
        None => {
            let input = PassInput { quarantine, namespace, wanted, decided_at };
            pass::run(&context, input, unprotected, pending_cut).await?
        }
    };
    let waits = plan == PlanState::Refuses || (plan == PlanState::Unknown && may_be_partial);
    let waits = waits.then_some(DEPENDENCY_RECHECK);
    Ok(kept.or(waits).map_or(next, Action::requeue))
}

/// Input of a pass.
struct PassInput {
    quarantine: Quarantine,
    namespace: Namespace,
    wanted: Target,
    /// When the live read began on which `wanted` is based.
    decided_at: Instant,
}

async fn read(context: &Context, name: &str) -> Result<Option<Quarantine>, IoError> {
    let api: Api<Quarantine> = Api::all(context.client.clone());
    call_opt(format!("get Quarantine {name}"), api.get(name)).await
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn cause_of_a_failed_pass_follows_the_api_error() {
        let error = |code, reason: &str| {
            let status = Status { code, reason: reason.to_owned(), ..Status::default() };
            IoError::Api { what: "try".to_owned(), source: Arc::new(kube::Error::Api(Box::new(status))) }
        };
        assert_eq!(cause(Some(&error(500, "InternalError"))), retry::Cause::Transient);
        assert_eq!(cause(Some(&error(403, "Forbidden"))), retry::Cause::Refused);
        assert_eq!(cause(Some(&error(409, "Conflict"))), retry::Cause::Conflict);
        assert_eq!(cause(None), retry::Cause::Refused);
    }
}
