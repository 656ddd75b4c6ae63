//! **I8, quiet**: nothing to do means no writes, and no requests beyond watches, the lease and declared intervals.
//!
//! Only whoever ran the operator knows when there was nothing to do: they give the window. What the log proves within it, of
//! all that the operator's account asked for, in its own name or another's:
//! - no write, refused or in vain ones included; renewing its lease and asking for reviews of access are none, and what is
//!   only tried (`dryRun`) counts as a read;
//! - the same read (verb, object, as whom; all pages are one) is made no oftener than its interval allows, and once more, as a window may begin
//!   just before: a service's namespaces by the gates that its stage asks, each at its own interval; what several gates
//!   share (a list of approved images) by all that may ask for it; everything else once in `own_interval`;
//! - a watch ends and begins again no oftener than once in ten seconds (a connection that is dead says nothing), the lease is seen to no oftener than six times while it lasts.
//!
//! Reads as the account of another plan are not judged: their intervals are in that plan. Writes are.
//!
//! A window in which the operator does not renew its lease proves nothing: it may have been dead, which is no merit. What the
//! log does not show is what leaves the API server out: `http` gates, the evidence store, the operator's own processor time.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::change::Change;
use crate::event::Event;
use crate::log::Log;
use crate::plan::{Phase, Plan};
use crate::report::{Findings, QuietWindow, Rule, Violation};
use crate::{CannotJudge, Options, Window};

/// Shortest time between two starts of the same watch.
const WATCHES: Duration = Duration::from_secs(10);
/// Maximum number of renewals and reads of the lease in its duration: a few, by two replicas.
const LEASE: u32 = 6;

/// Judges the window, if there is one.
pub(crate) fn check(
    plan: &Plan,
    log: &Log,
    options: &Options,
    findings: &mut Findings,
) -> Result<(), CannotJudge> {
    let Some(window) = &options.quiet else { return Ok(()) };
    let nothing =
        |reason: &str| CannotJudge::Log(format!("the quiet window {window} proves nothing: {reason}"));
    let lease = log.lease.ok_or_else(|| nothing("the operator renewed no lease in it"))?;
    let mut reads: BTreeMap<(&str, String, &str), Vec<&Event>> = BTreeMap::new();
    for request in &log.requests {
        let (verb, user) = (request.verb.as_str(), request.user.as_str());
        if request.is_write() && !request.is_of_lease() && !is_review(request) {
            let message =
                format!("{verb} {} (answered {}) in the quiet window", shown(request), request.code);
            findings.violations.push(violation(request, message));
        } else if is_judged(plan, options, request) && !request.continues {
            reads.entry((verb, shown(request), user)).or_default().push(request);
        }
    }
    let stages = stages(log, window);
    for ((verb, object, user), all) in &reads {
        let (Some(first), Some(last)) = (all.first(), all.last()) else { continue };
        let allowed = allowed(plan, options, &stages, (window, lease), first);
        if all.len() > allowed {
            let message = format!(
                "{} times {verb} {object} as {user} in a quiet window of {:.0} s, where {allowed} are declared",
                all.len(),
                window.length().as_secs_f64()
            );
            findings.violations.push(violation(last, message));
        }
    }
    findings.quiet =
        Some(QuietWindow { seconds: window.length().as_secs_f64(), requests: log.requests.len() });
    Ok(())
}

/// Stage of each service, by name.
type Stages<'a> = BTreeMap<&'a str, &'a str>;

/// Returns the stage of each service at the end of the window.
fn stages<'a>(log: &'a Log, window: &Window) -> Stages<'a> {
    let within = log.writes.iter().filter(|write| !window.ended(write.received));
    let stage = |write: &'a crate::change::Write| match &write.change {
        Change::Service { name, record: Some(record) } => Some((name.as_str(), record.stage.as_str())),
        _ => None,
    };
    within.filter_map(stage).collect()
}

/// Returns whether the request's interval is known. That of another plan's account is in that plan.
fn is_judged(plan: &Plan, options: &Options, request: &Event) -> bool {
    let home = options.operator.rfind(':').map_or("", |end| &options.operator[..=end]);
    plan.account.as_ref() == Some(&request.user) || (!home.is_empty() && request.user.starts_with(home))
}

/// Returns how often the request is permitted in the window.
fn allowed(
    plan: &Plan,
    options: &Options,
    stages: &Stages<'_>,
    (window, lease): (&Window, Duration),
    request: &Event,
) -> usize {
    let times = |interval: Duration| {
        let whole = window.length().as_nanos() / interval.as_nanos().max(1);
        usize::try_from(whole).unwrap_or(usize::MAX).saturating_add(1)
    };
    if request.is_of_lease() {
        return times(lease / LEASE);
    }
    if request.verb == "watch" {
        return times(WATCHES);
    }
    let own = times(options.own_interval);
    if plan.account.as_ref() != Some(&request.user) {
        return own;
    }
    let of = |name: &str, service: &crate::plan::Service| -> usize {
        let phases = phases(stages.get(name).copied().unwrap_or_default());
        let asked = service.gates.iter().filter(|gate| gate.looks && phases.contains(&gate.phase));
        asked.map(|gate| times(gate.interval)).sum()
    };
    let gates: usize = match plan.service_of(&request.object.namespace) {
        Some((name, service)) => of(name, service),
        None => plan.services.iter().map(|(name, service)| of(name, service)).sum(),
    };
    own.max(gates)
}

/// Returns the phases whose gates are evaluated at a stage.
fn phases(stage: &str) -> &'static [Phase] {
    match stage {
        "PreChecks" | "Restoring" => &[Phase::BeforeRestore],
        "PostChecks" | "Reconnecting" => &[Phase::BeforeRelease, Phase::Continuous],
        "Recovered" => &[Phase::Continuous],
        _ => &[],
    }
}

/// Returns whether the request is an access review, which is created and not stored.
fn is_review(request: &Event) -> bool {
    request.object.group == "authorization.k8s.io"
}

fn shown(request: &Event) -> String {
    let shown = request.object.display(&request.object.name);
    let tried = if request.dry_run { " (dry run)" } else { "" };
    match request.object.subresource.as_str() {
        "" => format!("{shown}{tried}"),
        subresource => format!("{shown}/{subresource}{tried}"),
    }
}

fn violation(request: &Event, message: String) -> Violation {
    Violation {
        time: request.completed.to_string(),
        user: request.user.clone(),
        object: request.object.display(&request.object.name),
        rule: Rule::Quiet,
        message,
        line: request.line,
    }
}
