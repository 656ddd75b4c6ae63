//! What the integrity gates of an attempt have shown about each aspect of a service, and what none of them looks at.

use crate::api::{Aspect, AspectState, AspectStatus, ServiceRecoveryStatus, Stage, Verdict};
use crate::plan::{Gate, Service};

/// Returns what was shown. Empty: the attempt has not begun, or the service has no namespace to look into.
pub(super) fn shown(service: &Service, status: &ServiceRecoveryStatus) -> Vec<AspectStatus> {
    if service.namespaces.is_empty() || status.stage == Stage::Isolated {
        return Vec::new();
    }
    Aspect::ALL.into_iter().map(|aspect| of_aspect(service, status, aspect)).collect()
}

fn of_aspect(service: &Service, status: &ServiceRecoveryStatus, aspect: Aspect) -> AspectStatus {
    let looks_at =
        |gate: &&Gate| gate.spec.gate_type().is_some_and(|of| (of.looks_at)(&gate.spec).contains(&aspect));
    let looking: Vec<&Gate> = service.gates.iter().filter(looks_at).collect();
    let mut gates: Vec<String> = looking.iter().map(|gate| gate.spec.name.clone()).collect();
    gates.sort();
    gates.dedup();
    let verdicts: Vec<Verdict> = looking
        .iter()
        .filter_map(|gate| {
            let of = status.gates.iter().find(|of| of.phase == gate.phase && of.name == gate.spec.name)?;
            Some(of.verdict)
        })
        .collect();
    let state = if looking.is_empty() {
        AspectState::NotLookedAt
    } else if !verdicts.is_empty() && verdicts.iter().all(|verdict| *verdict == Verdict::Pass) {
        AspectState::Proved
    } else {
        AspectState::NotProved
    };
    AspectStatus { aspect, state, gates }
}
