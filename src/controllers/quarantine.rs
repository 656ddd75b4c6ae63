//! The Quarantine controller: the only writer of isolation. A pass that would change nothing, by the cluster's cache, ends with that
//! ([`confirm`]). Any other reads everything live, asks [`target`] what is to be enforced and what comes next, does it, and writes the
//! status if that changed.

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
use context::{Context, Held, Seal, Turns};
use writes::{announce, write};

mod at_once;
mod confirm;
mod context;
mod ending;
mod gitops;
mod pass;
mod wake;
mod wanted;
mod writes;

/// A Quarantine that may turn out not to be readable: then it alone is left out.
type Guarded = cluster_cache::Guarded<Quarantine>;

/// Quarantines looked after at a time. What each does takes turns, by [`Turns`].
const CONCURRENCY: u16 = 2048;
/// Safety net: everything is looked at again this often, though nothing woke it.
const RESYNC: Duration = Duration::from_secs(3600);
/// A dependency of whoever asks to be let out is looked at again this often: what it needs has been asked for before, and nothing
/// tells of it here.
const DEPENDENCIES: Duration = Duration::from_secs(2);
/// Dependencies of which a new leader has only not heard yet are waited for so long, and looked at so often. Until then what may be half
/// way in or out stays there, as it has since the leader before: taking it back would do it twice.
const ANSWERS: (Duration, Duration) = (Duration::from_secs(15), Duration::from_millis(200));
/// How long the first look at the admission policies is waited for. Then Quarantines are carried out as far as they go.
const FIRST_LOOK: Duration = Duration::from_secs(10);
/// While passes are under way, one ends at least this often: each waits for calls that have deadlines, for its turn, and for snapshots.
const A_PASS_ENDS: Duration = Duration::from_secs(15 * 60);

/// What the controller needs to know.
#[derive(Clone, Debug)]
pub struct QuarantineOptions {
    /// What is kept as evidence, and where.
    pub evidence: Evidence,
    /// What is known of the admission policies.
    pub fence: Fence,
    /// What is known of the cluster's network.
    pub network: Network,
    /// How that, and every other control, is tried.
    pub probe: ProbeOptions,
    /// What is heard of the health of what a claimant depends on. Nothing is loosened on a record's word alone.
    pub health: HealthCache,
    /// Cluster-wide network policies of other APIs that an administrator accepts as they are.
    pub accepted_policies: Vec<AcceptedPolicy>,
    /// What is in the cluster, shared with who judges gates. `None`: the controller begins to watch it by itself.
    pub cache: Option<ClusterCache>,
    /// What is shared with the process: what it counts, signs of life, how it ends.
    pub process: Process,
}

impl QuarantineOptions {
    /// With this evidence.
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

/// What ended a pass early. It is tried again.
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
    /// One word for it, in the status.
    fn reason(&self) -> QuarantineReason {
        match self {
            Self::Io(_) => QuarantineReason::CallFailed,
            Self::Network(_) => QuarantineReason::NetworkFailed,
            Self::Identity(_) => QuarantineReason::IdentityFailed,
            Self::Capture(_) => QuarantineReason::CaptureFailed,
        }
    }

    /// Somebody else wrote in between.
    fn is_conflict(&self) -> bool {
        self.io().is_some_and(IoError::is_conflict)
    }

    /// The call that failed, where one did.
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

/// Installs and keeps the admission policies and carries out Quarantines, for as long as it is polled or until its process is told to
/// stop: passes that are under way end first. `config`: what the client was made from.
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
        turns: Turns::default(),
        lists: Lists::cached_by(client.clone(), cache),
        gitops: Default::default(),
        other_policies: Default::default(),
        under_way: Default::default(),
    });
    let passes = async {
        // A pass before that would find no fence, or not know where to try it, and say so in every status.
        let mut states = context.options.fence.subscribe();
        let mut epochs = context.servers.subscribe();
        // What is waited for is let go of at once: kept, nobody could change it any more.
        let laid = async { states.wait_for(|state| state.drift.is_none()).await.is_ok() };
        let listed = async { epochs.wait_for(|epoch| *epoch > 0).await.is_ok() };
        let first_look = async { futures::join!(timeout(FIRST_LOOK, laid), timeout(FIRST_LOOK, listed)) };
        let (laid, listed) = tokio::select! {
            found = first_look => found,
            () = process.stop.cancelled() => return,
        };
        if laid.is_err() {
            tracing::error!("the admission policies are not in place yet: Quarantines cannot become Ready");
        }
        if listed.is_err() {
            tracing::error!("it is not known which API servers there are: not all can be tried");
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
        let longest = A_PASS_ENDS + 2 * context.options.evidence.snapshot_wait;
        let heart = process.heartbeats.watch("Quarantine controller: passes", longest);
        let mut ticker = heart.ticker();
        loop {
            tokio::select! {
                ended = passes.next() => match ended {
                    Some(Ok(_)) => heart.beat(),
                    Some(Err(error)) => {
                        heart.beat();
                        tracing::debug!(%error, "pass");
                    }
                    None => return,
                },
                // Nobody waits for the end of a pass where none is under way.
                _ = ticker.tick() => if context.under_way.load(Ordering::Relaxed) == 0 { heart.beat() },
            }
        }
    };
    let keepers = async {
        futures::join!(keeper, prober, finder, roles::keep(client.clone()), at_once::keep(&context));
        // None of them ends by itself; the end of one is none of the controller's.
        std::future::pending::<()>().await;
    };
    // All in one task: what blocks it stops the ticker, too.
    let all = async {
        tokio::select! {
            () = keepers => {}
            () = passes => {}
        }
    };
    heart.beat_during(all).await;
}

/// Has the state of all Quarantines exported, as the watch has it.
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
        tracing::warn!(quarantine = name, %error, "isolation not carried out yet");
    }
    Action::requeue(retry::pass_again_after(cause(error.io()), failures))
}

/// Returns why a pass failed, as far as that says when it is tried again.
fn cause(error: Option<&IoError>) -> retry::Cause {
    match error {
        Some(error) if error.is_conflict() => retry::Cause::Conflict,
        Some(error) if error.is_transient() => retry::Cause::Transient,
        Some(_) | None => retry::Cause::Refused,
    }
}

/// One pass in a task of its own: hundreds of them take all processors there are. It ends with whoever waits for it, and a panic is
/// theirs.
async fn spawned(object: Arc<Guarded>, context: Arc<Context>) -> Result<Action, PassError> {
    let task = AbortOnDropHandle::new(tokio::spawn(reconcile(object, context).boxed()));
    match task.await {
        Ok(result) => result,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody else ends it.
            Err(_) => Ok(Action::requeue(Duration::ZERO)),
        },
    }
}

/// One pass, counted, and with the Quarantine's name on each line that it logs.
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
        tracing::error!(%error, "a Quarantine that this version cannot read is left as it is");
        return Ok(Action::requeue(RESYNC));
    }
    if let Ok(quarantine) = &object.0
        && let Some(next) = confirm::by_cache(&context, quarantine).await
    {
        return Ok(next);
    }
    let is_new = object.0.as_ref().is_ok_and(|object| target::at_once(object).is_some());
    let uncut = is_new.then(|| context.turns.uncut());
    let turn = context.turns.read().await;
    let decided_at = Instant::now();
    let Some(quarantine) = read(&context, &name).await? else {
        return Ok(Action::await_change());
    };
    let kept = match ending::of(&context, &quarantine).await {
        DeletionMeaning::None => None,
        DeletionMeaning::Release => {
            // What hangs on the way out keeps nobody from being isolated.
            drop(turn);
            return ending::release(&context, &quarantine).await;
        }
        DeletionMeaning::Keep(why) => Some(ending::tell(&context, &quarantine, why).await),
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
        // A webhook that is down, for instance: what isolates does not wait for it.
        Err(error) => (quarantine, Some(error)),
    };
    let namespace = match confirm::namespace(&context, &name) {
        // Whatever is written to it is written over this version.
        Some(cached) => Some(cached),
        None => {
            let namespaces: Api<Namespace> = Api::all(context.client.clone());
            call_opt(format!("get namespace {name}"), namespaces.get(&name)).await?
        }
    };
    let going = namespace.is_some();
    let Some(namespace) = namespace.filter(|n| n.metadata.deletion_timestamp.is_none()) else {
        let message = if going {
            format!(
                "namespace {name} is being deleted, and nothing can be created in it any more: its label and network are left to who \
                 deleted it. Where its finalizers keep it: resurgam quarantine {name} neutralises its network policies"
            )
        } else {
            format!("namespace {name} is not there: it is isolated as soon as there is one of that name")
        };
        let failure = PassFailure { reason: QuarantineReason::NamespaceMissing, message, stalled: true };
        write(&context, &quarantine, status::impossible(&quarantine, &failure, clock::now())).await?;
        return Ok(Action::requeue(RESYNC));
    };
    let label = namespace.labels().get(ISOLATION_LABEL).map(String::as_str);
    let (wanted, plan) = wanted::decide(&context, &quarantine, label).await?;
    // The network is loosened before the label. Nobody waits with what is half way nowhere, or with a tighter level.
    let may_be_half_way = label::is_labelled(&namespace, &quarantine.spec, wanted.level);
    if context.awaits_answers(&name, plan) && may_be_half_way {
        return Ok(Action::requeue(ANSWERS.1));
    }
    context.remember(&name, |memory| memory.level = Some(wanted.level));
    context.tell_network();
    drop(turn);
    let confirmed = match &unprotected {
        None => confirm::target(&context, &quarantine, &namespace, &wanted).await,
        Some(_) => None,
    };
    let next = match confirmed {
        Some(next) => next,
        None => {
            let begun = Begun { quarantine, namespace, wanted, decided_at };
            pass::run(&context, begun, unprotected, uncut).await?
        }
    };
    let waits = plan == PlanState::Refuses || (plan == PlanState::Unknown && may_be_half_way);
    let waits = waits.then_some(DEPENDENCIES);
    Ok(kept.or(waits).map_or(next, Action::requeue))
}

/// What a pass begins with.
struct Begun {
    quarantine: Quarantine,
    namespace: Namespace,
    wanted: Target,
    /// When it began to be read, live, what decides.
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
    fn cause_of_a_failed_pass_is_what_the_api_server_says() {
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
