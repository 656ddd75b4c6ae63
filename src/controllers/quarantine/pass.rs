//! One pass: as far as it gets towards the target, then the status.

use std::pin::pin;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::runtime::controller::Action;
use kube::runtime::events::EventType;

use super::status::{self, Pass, Trouble};
use super::{Context, PassError, RESYNC, Seal, act, announce, still_wanted, write};
use crate::api::{ISOLATION_LABEL, Isolation, Quarantine, conditions};
use crate::isolation::evidence::{Subject, capture};
use crate::isolation::guard;
use crate::isolation::label::{self, Writing};
use crate::isolation::network::{self, Before};
use crate::isolation::probe::{self, Probed, Seen};
use crate::isolation::target::{self, Next, Target};
use crate::isolation::workloads;

/// How long the fence is tried in quick succession before that counts as failed. Labels take effect within milliseconds.
const PROBING: Duration = Duration::from_secs(30);
/// Then it is tried this often.
const PROBE_SLOWLY: Duration = Duration::from_secs(60);
/// A capture that takes longer than this is told of while it is under way.
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
        Err(error) => {
            pass.trouble =
                Some(Trouble { reason: error.reason(), message: error.to_string(), stalled: false });
        }
        Ok(_) => {}
    }
    if pass.is_between(before.isolation) {
        return outcome;
    }
    let fence = context.options.fence.state();
    let status = status::after(&work.quarantine, &pass, &fence, Timestamp::now());
    let drift = if settled { work.drift } else { Vec::new() };
    write(context, &work.quarantine, status.clone()).await?;
    announce(context, &work.quarantine, &before, &status, drift).await;
    if outcome.is_ok() {
        context.remember(&name, |memory| memory.failures = 0);
    }
    outcome
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
        let seal = Seal { namespace: self.namespace.uid(), level, epoch: fence.epoch };
        pass.found.labelled =
            guard::is_marked(&self.context.client, &self.namespace, &self.quarantine.spec, level).await?;
        pass.found.fenced = pass.found.labelled
            && fence.amiss.is_none()
            && self.context.remember(self.name, |memory| memory.seen.as_ref() == Some(&seal));
        // A namespace without the label is one in which anything may have been started since the last capture.
        pass.found.captured = self.marked && !target::needs_capture(&self.quarantine, level);
        loop {
            let next = pass.next();
            let _turn = self.context.turns.take(next).await;
            let again = match next {
                Next::Label => self.label(pass).await?,
                Next::Probe => self.probe(pass, &seal).await,
                Next::Network => self.network(pass).await?,
                Next::Capture => self.capture(pass).await?,
                Next::Stop => self.stop(pass).await?,
                Next::AwaitPods => self.await_pods(pass).await?,
                Next::Done => Some(Action::requeue(RESYNC)),
            };
            if let Some(again) = again {
                return Ok(again);
            }
        }
    }

    /// Right before anything is let in or out: is it still wanted?
    async fn loosened_in_vain(&self, pass: &Pass) -> Result<bool, PassError> {
        Ok(target::loosens(self.before, pass.target.level)
            && !still_wanted(self.context, &self.quarantine, &pass.target).await?)
    }

    async fn label(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        if self.loosened_in_vain(pass).await? {
            return Ok(Some(Action::requeue(Duration::ZERO)));
        }
        let level = pass.target.level;
        let (client, spec) = (&self.context.client, &self.quarantine.spec);
        self.namespace = guard::mark(client, &self.namespace, spec, level, Writing::default()).await?;
        pass.found.labelled = label::is_labelled(&self.namespace, &self.quarantine.spec, level);
        self.drift.push(format!("label and annotations of namespace {}", self.name));
        Ok((!pass.found.labelled).then(|| Action::requeue(Duration::from_secs(1))))
    }

    /// Tries lock and fence (to open: whether they let go). `None`: seen as wanted; else when to try again.
    async fn probe(&mut self, pass: &mut Pass, seal: &Seal) -> Option<Action> {
        let client = &self.context.client;
        pass.found.fenced = if seal.level == Isolation::Open {
            let open = probe::is_open(client, self.name).await;
            pass.fence = open.clone().err().map(Seen::Unclear);
            open.is_ok()
        } else {
            let Probed { lock, fence, guard } = probe::probe(client, self.name, seal.level).await;
            let refused = [&lock, &fence, &guard].into_iter().all(|seen| *seen == Seen::Refused);
            (pass.lock, pass.fence, pass.guard) = (Some(lock), Some(fence), Some(guard));
            refused
        };
        if pass.found.fenced {
            let seen = Some(seal.clone());
            self.context.remember(self.name, |memory| (memory.seen, memory.probing) = (seen, None));
            return None;
        }
        let (since, tries) = self.context.remember(self.name, |memory| {
            memory.seen = None;
            let (since, tries) = memory.probing.unwrap_or((Instant::now(), 0));
            memory.probing = Some((since, tries.saturating_add(1)));
            (since, tries)
        });
        if since.elapsed() < PROBING {
            return Some(Action::requeue(Duration::from_millis(5 * 2_u64.pow(tries.min(4)))));
        }
        let message = format!("tried for {} s: {}", PROBING.as_secs(), status::unseen(pass));
        pass.trouble = Some(Trouble { reason: "FenceNotSeen", message, stalled: true });
        Some(Action::requeue(PROBE_SLOWLY))
    }

    async fn network(&mut self, pass: &mut Pass) -> Result<Option<Action>, PassError> {
        let (client, level) = (&self.context.client, pass.target.level);
        let uid = self.quarantine.uid().unwrap_or_default();
        if let Some(earlier) = label::sealed_alone(&self.namespace) {
            network::adopt(client, self.name, &earlier, &uid).await?;
        }
        if level == Isolation::Open {
            if self.loosened_in_vain(pass).await? {
                return Ok(Some(Action::requeue(Duration::ZERO)));
            }
            network::release(client, self.name, &uid).await?;
        } else {
            let room = (level == Isolation::CleanRoom).then_some(pass.target.reachable.as_slice());
            // Fenced since the last pass, and without a break?
            let before = match self.before {
                Some(Isolation::Contained | Isolation::Sealed | Isolation::CleanRoom) if self.marked => {
                    Before::Isolated
                }
                _ => Before::Open,
            };
            if network::isolate(client, self.name, &uid, room, before).await? {
                self.drift.push("network policies".to_owned());
            }
        }
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
        let mut kept = pin!(capture(&context.client, &context.options.evidence, subject));
        let kept = match tokio::time::timeout(SAY_SO, &mut kept).await {
            Ok(kept) => kept?,
            // It may take minutes: until then, what holds already is told.
            Err(_) => {
                let status =
                    status::after(&self.quarantine, pass, &context.options.fence.state(), Timestamp::now());
                self.quarantine = write(context, &self.quarantine, status).await?;
                kept.await?
            }
        };
        pass.capture = Some(kept);
        pass.found.captured = true;
        let fence = self.context.options.fence.state();
        let status = status::after(&self.quarantine, pass, &fence, Timestamp::now());
        self.quarantine = write(self.context, &self.quarantine, status).await?;
        pass.capture = None;
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
        Ok((!pass.found.empty).then(|| Action::requeue(RESYNC)))
    }
}
