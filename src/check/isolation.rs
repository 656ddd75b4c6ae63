//! Isolated namespaces: whether the caller is refused, and whether the network is cut.

use kube::core::DeserializeGuard;
use kube::{Api, Client, ResourceExt};

use super::read::{first_few, list};
use super::{Check, Fact, Outcome};
use crate::api::conditions::shorten;
use crate::api::quarantine::{ControlName, ControlState};
use crate::api::{Isolation, Quarantine};
use crate::isolation::probe::ProbeResult;
use crate::isolation::verify_as_caller;
use crate::text::count;

const FENCE: Check = Check::fatal("fence", "you are refused in a namespace that is isolated");
const NETWORK: Check =
    Check::fatal("network-enforced", "the network was tried, and cuts off what is isolated");

/// The checks, in display order.
pub const CHECKS: [Check; 2] = [FENCE, NETWORK];

/// Maximum number of namespaces named in a message.
const NAMED: usize = 4;
/// Maximum length of a control's message.
const MESSAGE: usize = 200;

/// One isolated namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Isolated {
    /// The namespace.
    pub namespace: String,
    /// Its level.
    pub level: Isolation,
    /// State and message of its control `Network`.
    pub network: Option<(ControlState, String)>,
}

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Isolated namespaces. `None`: the kind is not installed.
    pub isolated: Fact<Option<Vec<Isolated>>>,
    /// The first of them, and how the fence answered the caller there.
    pub fence: Option<(String, ProbeResult)>,
}

pub(super) async fn gather(client: &Client) -> Facts {
    let api: Api<DeserializeGuard<Quarantine>> = Api::all(client.clone());
    let isolated = match list(&api, "Quarantines").await {
        // `resurgam status` reports Quarantines that this version cannot read.
        Ok(all) => Ok(Some(all.into_iter().filter_map(|q| isolated(&q.0.ok()?)).collect::<Vec<_>>())),
        Err(error) if error.is_not_served() => Ok(None),
        Err(error) => Err(error.into()),
    };
    let first = isolated.iter().flatten().flatten().min_by_key(|one| one.level);
    let fence = match first {
        Some(one) => {
            let seen = verify_as_caller::fence(client, &one.namespace, one.level).await;
            Some((one.namespace.clone(), seen))
        }
        None => None,
    };
    Facts { isolated, fence }
}

fn isolated(quarantine: &Quarantine) -> Option<Isolated> {
    let status = quarantine.status.as_ref()?;
    let level = status.isolation.filter(|level| *level != Isolation::Open)?;
    let network = status.controls.iter().find(|control| control.name == ControlName::Network);
    Some(Isolated {
        namespace: quarantine.name_any(),
        level,
        network: network.map(|control| (control.state, control.message.clone())),
    })
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    let isolated = match &facts.isolated {
        Ok(Some(isolated)) => isolated.as_slice(),
        Ok(None) => &[],
        Err(why) => return CHECKS.iter().map(|check| check.unknown(why)).collect(),
    };
    vec![fence(facts.fence.as_ref()), network(isolated)]
}

fn fence(tried: Option<&(String, ProbeResult)>) -> Outcome {
    let Some((namespace, seen)) = tried else {
        return FENCE.does_not_apply("nothing is isolated, so nothing was tried");
    };
    match seen {
        ProbeResult::Denied => FENCE.passes(format!("tried by a dry-run in namespace {namespace}")),
        ProbeResult::Admitted => FENCE.fails(format!(
            "namespace {namespace} is isolated, and the API server would let you create a pod there: the policies are not in force. \
             The operator puts them back, while it runs; resurgam quarantine {namespace} does so by hand (docs/isolation.md)"
        )),
        ProbeResult::Inconclusive(why) | ProbeResult::Unreachable(why) => {
            FENCE.unknown(format!("whether you are refused in namespace {namespace}: {why}"))
        }
    }
}

fn network(isolated: &[Isolated]) -> Outcome {
    const TRY: &str = "The operator's administrator sets --probe-image, by which it tries";
    if isolated.is_empty() {
        return NETWORK.warns(format!(
            "nothing is isolated yet, and only then is the network tried. {TRY}; a Quarantine of a throw-away namespace shows it"
        ));
    }
    let of = |wanted: ControlState| -> Vec<&Isolated> {
        isolated
            .iter()
            .filter(|one| one.network.as_ref().is_some_and(|(state, _)| *state == wanted))
            .collect()
    };
    let names = |all: &[&Isolated]| {
        let names: Vec<&str> = all.iter().map(|one| one.namespace.as_str()).collect();
        first_few(&names, NAMED)
    };
    let message = |all: &[&Isolated]| {
        let first = all.first().and_then(|one| one.network.as_ref());
        first.map(|(_, message)| shorten(message, MESSAGE)).unwrap_or_default()
    };
    let failing = of(ControlState::NotEnforced);
    if !failing.is_empty() {
        return NETWORK.fails(format!(
            "not cut off: {} ({}). The network administrator fixes it (docs/conditions.md)",
            names(&failing),
            message(&failing)
        ));
    }
    let tested = of(ControlState::Tested);
    if tested.len() == isolated.len() {
        return NETWORK.passes(count(tested.len(), "namespace"));
    }
    let unprobed: Vec<&Isolated> =
        isolated.iter().filter(|one| !tested.iter().any(|t| t.namespace == one.namespace)).collect();
    NETWORK.warns(format!("not tried: {} ({}). {TRY}", names(&unprobed), message(&unprobed)))
}
