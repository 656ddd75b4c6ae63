//! One pass: as far as it gets towards the target, then the status.

use std::pin::pin;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::status::{self, Known, Pass, Trouble};
use super::{Context, Held, PassError, RESYNC, Seal, act, announce, deliverers, read, wanted, write};
use crate::api::quarantine::{Control, ControlName, ControlState};
use crate::api::{ISOLATION_LABEL, Isolation, Quarantine, conditions};
use crate::clock;
use crate::isolation::evidence::{Subject, capture, snapshot};
use crate::isolation::guard;
use crate::isolation::holes;
use crate::isolation::identity::{self, Mark};
use crate::isolation::label::{self, Writing};
use crate::isolation::network::{self, Before, Room};
use crate::isolation::probe::{self, Probed};
use crate::isolation::target::{self, Next, Target};
use crate::isolation::workloads;

/// How long the fence is tried in quick succession before that counts as failed. Labels take effect within milliseconds.
const PROBING: Duration = Duration::from_secs(30);
/// Then it is tried this often.
const PROBE_SLOWLY: Duration = Duration::from_secs(60);
/// A capture that is not done after this is told of.
const SAY_SO: Duration = Duration::from_secs(3);

/// Goes as far as it gets towards what is wanted, and writes the status, whatever came of it.
pub(super) async fn run(
    context: &Context,
    quarantine: Quarantine,
    namespace: Namespace,
    wanted: Target,
) -> Result<Action, PassError> {
    let name = quarantine.name_any();
    let before = quarantine.status.clone().unwrap_or_default();
    let settled =
        before.isolation == Some(wanted.level) && conditions::is_true(&before.conditions, conditions::READY);
    let mut pass = Pass::new(wanted);
    let marked = namespace.labels().contains_key(ISOLATION_LABEL);
    let drift = Vec::new();
    let mut work =
        Work { context, name: &name, quarantine, namespace, before: before.isolation, marked, drift };
    let outcome = work.go(&mut pass).await;
    match &outcome {
        // Somebody else wrote in between, or wants something else by now: that is no trouble, and no news.
        Err(error) if error.is_conflict() => return outcome,
        // Half let out, and an answer was lost: as with `is_between`, saying so would take back what was granted.
        Err(error)
            if target::loosens(before.isolation, pass.target.level)
                && error.io().is_some_and(|io| io.is_transient()) =>
        {
            return outcome;
        }
        Err(error) => {
            pass.trouble =
                Some(Trouble { reason: error.reason(), message: error.to_string(), stalled: false });
        }
        Ok(_) => {}
    }
    let went_on = || {
        if outcome.is_ok() {
            context.remember(&name, |memory| memory.failures = 0);
        }
    };
    if pass.is_between(before.isolation) {
        went_on();
        return outcome;
    }
    if outcome.is_ok() && pass.found.captured && pass.target.level < Isolation::CleanRoom {
        pass.deliverers =
            Some(deliverers::look(&context.client, &context.deliverers, &work.quarantine).await);
    }
    let status = status::after(&work.quarantine, &pass, &Known::of(&context.options), clock::now());
    let drift = if settled { work.drift } else { Vec::new() };
    write(context, &work.quarantine, status.clone()).await?;
    announce(context, &work.quarantine, &before, &status, drift).await;
    went_on();
    outcome
}

/// What fails besides is told as well, and not instead.
fn also(trouble: &mut Trouble, outcome: Result<(), PassError>) -> Result<(), PassError> {
    match outcome {
        Err(error) if !error.is_conflict() => trouble.message.push_str(&format!("; and {error}")),
        Ok(()) | Err(_) => return outcome,
    }
    Ok(())
}

struct Work<'a> {
    context: &'a Context,
    name: &'a str,
    quarantine: Quarantine,
    namespace: Namespace,
    /// What was enforced before.
    before: Option<Isolation>,
    /// The namespace bore the label when it was read.
    marked: bool,
    /// What had to be written.
    drift: Vec<String>,
}

impl Work<'_> {
    async fn go(&mut self, pass: &mut Pass) -> Result<Action, PassError> {
        let fence = self.context.options.fence.state();
        let level = pass.target.level;
        // Whether the fence lets go is seen on one.
        let servers = if level == Isolation::Open { 0 } else { self.context.servers.epoch() };
        let seal = Seal { namespace: self.namespace.uid(), level, epoch: fence.epoch, servers };
        let held = self.context.remember(self.name, |memory| memory.seen.clone()).filter(|h| h.seal == seal);
        pass.tried = held.as_ref().map(|held| held.at);
        pass.found.labelled =
            guard::is_marked(&self.context.client, &self.namespace, &self.quarantine.spec, level).await?;
        pass.found.fenced = pass.found.labelled
            && fence.amiss.is_none()
            && pass.tried.is_some_and(|at| level == Isolation::Open || !self.is_due(at));
        pass.probed = held.filter(|_| pass.found.fenced).map(|held| held.probed);
        // A namespace without the label is one in which anything may have been started since the last capture.
        pass.found.captured = self.marked && !target::needs_capture(&self.quarantine, level);
        loop {
            let next = pass.next();
            let _turn = if next == Next::Capture { None } else { self.context.turns.take(next).await };
            let again = match next {
                Next::Label => self.label(pass).await?,
                Next::Probe => self.probe(pass, &seal).await?,
                Next::Network => self.network(pass).await?,
                Next::Capture => self.capture(pass).await?,
                Next::Stop => self.stop(pass).await?,
                Next::AwaitPods => self.await_pods(pass).await?,
                Next::Identity => self.identity(pass).await?,
                Next::Done => Some(self.rest(pass)),
            };
            if let Some(again) = again {
                return Ok(again);
            }
        }
    }

    /// When the fence was last tried, by a status that still holds: a start of the operator, which tries everything again, has
    /// nothing new to tell then.
    fn told_lately(&self, level: Isolation) -> Option<Timestamp> {
        let anew =
            self.context.remember(self.name, |memory| memory.seen.is_none() && memory.probing.is_none());
        let status = self.quarantine.status.as_ref().filter(|s| anew && s.isolation == Some(level))?;
        let stood =
            |control: &&Control| matches!(control.state, ControlState::Tested | ControlState::Unverifiable);
        let of = |name| status.controls.iter().find(|control| control.name == name).filter(stood);
        let tried = [ControlName::Lock, ControlName::Fence, ControlName::Guard]
            .map(|name| Some(of(name)?.tried.as_ref()?.0));
        tried.into_iter().min()?.filter(|at| !self.is_due(*at))
    }

    /// Has the interval passed after which controls are tried again?
    fn is_due(&self, tried: Timestamp) -> bool {
        self.left(tried).is_zero()
    }

    fn left(&self, tried: Timestamp) -> Duration {
        let since = Duration::try_from(clock::now().duration_since(tried)).unwrap_or_default();
        self.context.options.probe.interval.saturating_sub(since)
    }

    /// Nothing to do: until something wakes it, or its controls are to be tried again.
    fn rest(&self, pass: &Pass) -> Action {
        let open = pass.target.level == Isolation::Open;
        let left = pass.tried.filter(|_| !open).map(|tried| self.left(tried) + Duration::from_secs(1));
        Action::requeue(left.unwrap_or(RESYNC).min(RESYNC))
    }

    /// Right before anything is let in or out: is it still wanted?
    async fn loosened_in_vain(&self, pass: &Pass) -> Result<bool, PassError> {
        let label = self.namespace.labels().get(ISOLATION_LABEL).map(String::as_str);
        Ok(target::loosens(self.before, pass.target.level)
            && !wanted::still_wanted(self.context, &self.quarantine, &pass.target, label).await?)
    }

    async fn label(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        if self.loosened_in_vain(pass).await? {
            return Ok(Some(Action::requeue(Duration::ZERO)));
        }
        let level = pass.target.level;
        let (guards, spec) = (&self.context.guards, &self.quarantine.spec);
        self.namespace = guards.mark(&self.namespace, spec, level, Writing::default()).await?;
        pass.found.labelled = label::is_labelled(&self.namespace, &self.quarantine.spec, level);
        self.drift.push(format!("label and annotations of namespace {}", self.name));
        Ok((!pass.found.labelled).then(|| Action::requeue(Duration::from_secs(1))))
    }

    /// Tries lock, fence and guard (to open: whether the fence lets go). `None`: seen as wanted; else when to try again.
    async fn probe(&mut self, pass: &mut Pass, seal: &Seal) -> Result<Option<Action>, PassError> {
        let servers = &self.context.servers;
        let probed = if seal.level == Isolation::Open {
            pass.closed = probe::is_open(servers, self.name).await.err();
            pass.found.fenced = pass.closed.is_none();
            Probed::default()
        } else {
            let probed = probe::probe(servers, self.name, seal.level).await;
            pass.found.fenced = probed.holds();
            probed
        };
        pass.probed = Some(probed.clone());
        if pass.found.fenced {
            let at = self.told_lately(seal.level).unwrap_or_else(|| status::seconds(clock::now()));
            pass.tried = Some(at);
            let seen = Some(Held { seal: seal.clone(), at, probed });
            self.context.remember(self.name, |memory| (memory.seen, memory.probing) = (seen, None));
            return Ok(None);
        }
        let (since, tries) = self.context.remember(self.name, |memory| {
            memory.seen = None;
            let (since, tries) = memory.probing.unwrap_or((Instant::now(), 0));
            memory.probing = Some((since, tries.saturating_add(1)));
            (since, tries)
        });
        if since.elapsed() < PROBING {
            return Ok(Some(Action::requeue(Duration::from_millis(5 * 2_u64.pow(tries.min(4))))));
        }
        servers.leaks(self.name, &probed);
        let message = format!("tried for {} s: {}", PROBING.as_secs(), status::unseen(pass));
        let mut trouble = Trouble { reason: "FenceNotSeen", message, stalled: true };
        // One API server that lets through is no reason to leave the network open as well.
        if matches!(seal.level, Isolation::Contained | Isolation::Sealed) && probed.holds_somewhere() {
            let cut_off = self.network(pass).await.map(drop);
            also(&mut trouble, cut_off)?;
        }
        pass.trouble = Some(trouble);
        Ok(Some(Action::requeue(PROBE_SLOWLY)))
    }

    async fn network(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let (client, level) = (&self.context.client, pass.target.level);
        let uid = self.quarantine.uid().unwrap_or_default();
        if let Some(earlier) = label::sealed_alone(&self.namespace) {
            network::adopt(client, self.name, &earlier, &uid).await?;
        }
        // Let out of the sealing before that had come to its end.
        if self.before == Some(Isolation::Sealed) && level != Isolation::Sealed {
            identity::complete(client, self.name, &uid).await?;
        }
        if level == Isolation::Open {
            if self.loosened_in_vain(pass).await? {
                return Ok(Some(Action::requeue(Duration::ZERO)));
            }
            network::release(client, self.name, &uid).await?;
        } else {
            let room = if level == Isolation::CleanRoom {
                pass.holes = holes::find(client, &pass.target.allow_egress).await?;
                let holes = pass.holes.iter().filter_map(|hole| hole.rule.clone()).collect();
                Some(Room { reachable: pass.target.reachable.clone(), holes })
            } else {
                None
            };
            // Fenced since the last pass, and without a break?
            let before = match self.before {
                Some(Isolation::Contained | Isolation::Sealed | Isolation::CleanRoom) if self.marked => {
                    Before::Isolated
                }
                _ => Before::Open,
            };
            if network::isolate(client, self.name, &uid, room.as_ref(), before).await? {
                self.drift.push("network policies".to_owned());
                self.context.options.network.changed();
            }
        }
        pass.on_node_network = act::on_node_network(client, self.name).await?;
        pass.found.network = true;
        Ok(None)
    }

    /// Kept, and on the record, before anything goes.
    async fn capture(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let context = self.context;
        let quarantine = self.quarantine.clone();
        let before = quarantine.status.as_ref().and_then(|s| s.capture.as_ref()).map(|c| c.digest.as_str());
        let subject = Subject {
            namespace: self.name,
            quarantine: quarantine.metadata.uid.as_deref().unwrap_or_default(),
            before,
            mode: quarantine.spec.capture,
        };
        let evidence = &context.options.evidence;
        let mut kept = pin!(async {
            // First, and waited for without a turn: a snapshot that does not come holds up nobody else.
            let turn = context.turns.take(Next::Capture);
            let snapshots = snapshot(&context.client, subject, evidence.snapshot_wait, turn).await?;
            let _turn = context.turns.take(Next::Capture).await;
            capture(&context.client, evidence, subject, snapshots).await
        });
        let kept = match tokio::time::timeout(SAY_SO, &mut kept).await {
            Ok(kept) => kept?,
            // Its turn may take minutes to come, and to end: until then, what holds already is told.
            Err(_) => {
                self.record(pass).await?;
                kept.await?
            }
        };
        pass.capture = Some(kept);
        pass.found.captured = true;
        let recorded = self.record(pass).await?;
        pass.capture = None;
        // Not as it was read at the beginning: what is wanted of it is asked anew, and what is kept is not taken again.
        Ok((!recorded).then(|| Action::requeue(Duration::ZERO)))
    }

    /// Writes the status as far as it is known. If somebody wrote to the Quarantine since it was read, a claimant for instance,
    /// it is read afresh, and the answer is `false`.
    async fn record(&mut self, pass: &Pass) -> Result<bool, PassError> {
        let known = Known::of(&self.context.options);
        let status = status::after(&self.quarantine, pass, &known, clock::now());
        let conflict = match write(self.context, &self.quarantine, status).await {
            Ok(written) => {
                self.quarantine = written;
                return Ok(true);
            }
            Err(error) if error.is_conflict() => error,
            Err(error) => return Err(error.into()),
        };
        let enforced = |quarantine: &Quarantine| quarantine.status.as_ref().and_then(|s| s.isolation);
        let now = read(self.context, self.name).await?.filter(|now| {
            now.metadata.uid == self.quarantine.metadata.uid
                && now.metadata.deletion_timestamp.is_none()
                && enforced(now) == enforced(&self.quarantine)
        });
        let Some(mut now) = now else { return Err(conflict.into()) };
        // What this pass did answers to the spec that it read.
        now.metadata.generation = self.quarantine.metadata.generation;
        let status = status::after(&now, pass, &known, clock::now());
        self.quarantine = write(self.context, &now, status).await?;
        Ok(false)
    }

    /// Once nothing runs that would need its token to end.
    async fn identity(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let capture = self.quarantine.status.as_ref().and_then(|status| status.capture.as_ref());
        let evidence = capture.map_or_else(String::new, |capture| capture.digest.clone());
        let mark = Mark { seal: self.quarantine.uid().unwrap_or_default(), evidence };
        if identity::renew(&self.context.client, self.name, &mark).await? {
            self.drift.push("service accounts".to_owned());
        }
        pass.found.renewed = true;
        Ok(None)
    }

    async fn stop(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let client = &self.context.client;
        let found = workloads::list(client, self.name).await?;
        pass.workloads = found.len();
        if act::stop(client, &found, &self.quarantine.uid().unwrap_or_default()).await? > 0 {
            self.drift.push("workloads".to_owned());
        }
        pass.found.stopped = true;
        Ok(None)
    }

    async fn await_pods(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let client = &self.context.client;
        let pods = act::live_pods(client, self.name).await?;
        let gone = act::delete_bare(client, self.name, &pods).await?;
        if !gone.is_empty() {
            let note =
                format!("captured, then deleted: pods that no workload accounts for: {}", gone.join(", "));
            self.context.tell(&self.quarantine, EventType::Warning, "BarePodsDeleted", note).await;
        }
        pass.found.empty = pods.is_empty();
        pass.alive = pods.iter().map(ResourceExt::name_any).collect();
        let rooted: Vec<_> =
            pods.iter().filter(|pod| workloads::is_static(pod)).map(ResourceExt::name_any).collect();
        if !rooted.is_empty() {
            let message = format!("static pods, which only their nodes can stop: {}", rooted.join(", "));
            pass.trouble = Some(Trouble { reason: "StaticPods", message, stalled: true });
        }
        // The last pod's end wakes us.
        Ok((!pass.found.empty).then(|| self.rest(pass)))
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::calls::IoError;

    #[test]
    fn what_fails_besides_is_told_as_well_and_takes_nothings_place() {
        let failed = |code, reason| {
            let status = kube::core::Status::failure("refused", reason).with_code(code);
            let source = Arc::new(kube::Error::Api(Box::new(status)));
            Err(PassError::Io(IoError::Api { what: "apply".into(), source }))
        };
        let trouble = || Trouble { reason: "FenceNotSeen", message: "tried".into(), stalled: true };
        for (outcome, message) in [(Ok(()), "tried"), (failed(403, "Forbidden"), "tried; and apply: refused")]
        {
            let mut told = trouble();
            also(&mut told, outcome).unwrap();
            assert_eq!(told, Trouble { message: message.into(), ..trouble() });
        }
        assert!(
            also(&mut trouble(), failed(409, "Conflict")).unwrap_err().is_conflict(),
            "that is no trouble"
        );
    }
}
