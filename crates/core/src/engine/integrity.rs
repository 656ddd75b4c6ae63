//! What the integrity gates of an attempt have shown about each aspect of a service, and what none of them looks at.

use crate::api::{Aspect, AspectState, AspectStatus, Proof, ServiceRecoveryStatus, Stage, Verdict};
use crate::plan::{Gate, Service};

/// Returns what was shown. Empty: the attempt has not begun, or the service has no namespace to look into.
pub(in crate::engine) fn shown(service: &Service, status: &ServiceRecoveryStatus) -> Vec<AspectStatus> {
    if service.namespaces.is_empty() || status.stage == Stage::Isolated {
        return Vec::new();
    }
    Aspect::ALL.into_iter().map(|aspect| of_aspect(service, status, aspect)).collect()
}

fn of_aspect(service: &Service, status: &ServiceRecoveryStatus, aspect: Aspect) -> AspectStatus {
    let looking: Vec<&Gate> = service.gates.iter().filter(|gate| gate.looks_at.contains(&aspect)).collect();
    let mut gates: Vec<String> = looking.iter().map(|gate| gate.spec.name.clone()).collect();
    gates.sort();
    gates.dedup();
    let shown: Vec<(Verdict, Proof)> = looking
        .iter()
        .filter_map(|gate| {
            let of = status.gates.iter().find(|of| of.phase == gate.phase && of.name == gate.spec.name)?;
            Some((of.verdict, of.proof))
        })
        .collect();
    let has_passed = !shown.is_empty() && shown.iter().all(|(verdict, _)| *verdict == Verdict::Pass);
    let state = match has_passed {
        _ if looking.is_empty() => AspectState::NotLookedAt,
        false => AspectState::NotProved,
        true if shown.iter().all(|(_, proof)| proof.is_full()) => AspectState::Proved,
        true => AspectState::ProvedWithExceptions,
    };
    AspectStatus { aspect, state, gates }
}
