//! Recovers three boroughs while every operator dies at its n-th effect: the first operator at one effect, each further one a fixed
//! number of effects later. With every first effect in turn, operators have died at every effect of a recovery. Writes that only report
//! status do not count: every operator starts with those for each service.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use fault_proxy::Moment;
use kube::api::ListParams;
use serde::Serialize;
use serde_json::Value;

use super::KINDS;
use super::crew::Crew;
use crate::estate::look;
use crate::{Endpoint, condition, eventually, kind, text, three_boroughs};

/// Time limit with operators that die repeatedly.
const DEADLINE: Duration = Duration::from_secs(1800);

/// Result of a recovery that ended correctly.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Lives {
    /// Number of operators that died.
    pub deaths: u64,
    /// Number of effects of all operators.
    pub effects: u64,
    /// Seconds from isolation to recovery.
    pub seconds: f64,
}

/// Runs the recovery on `cluster`, which must be new. `first`: effect at which the first operator dies; `life`: number of effects after
/// which each further one dies.
///
/// # Errors
/// The recovery does not end correctly: not in time, with another estate, with other attempts, or with violations.
pub async fn lives(cluster: &ControlPlane, crew: &Crew<'_>, first: u64, life: u64) -> Result<Lives> {
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    three_boroughs::lay_down(cluster, true).await?;
    let endpoint = Endpoint::start().await?;
    let namespaces = three_boroughs::namespaces()?;
    let before = look(&admin, &namespaces).await?;
    let began = Instant::now();
    // Each other life ends before its last effect is done, and each other after that, unheard of.
    let moment = |death: u64| if death.is_multiple_of(2) { Moment::Unanswered } else { Moment::Unsent };
    for replica in 0..crew.size() {
        crew.proxy(replica).count_acts_only(true);
        crew.proxy(replica).stop_at(first, moment(first));
    }
    let mut deaths = 0;
    let mut effects = 0;
    let dying = async {
        loop {
            let replica = crew.stopped().await;
            deaths += 1;
            effects += crew.proxy(replica).effects();
            crew.replace(replica)?;
            crew.free_lease(&admin).await?;
            crew.proxy(replica).stop_at(life, moment(first + deaths));
        }
        #[expect(unreachable_code, reason = "tells what this would give")]
        anyhow::Ok(())
    };
    let play = async {
        three_boroughs::isolate(cluster).await?;
        let plan = three_boroughs::arm(cluster, endpoint.url()).await?;
        three_boroughs::lead(cluster).await?;
        let plans = kind(&admin, KINDS, "RecoveryPlan", Some(three_boroughs::NAMESPACE));
        let done = |plan: &Value| ["Recovered", "Ready"].iter().all(|is| condition(plan, is) == "True");
        eventually(&plans, three_boroughs::PLAN, "everything to be recovered", DEADLINE, done).await?;
        Ok(plan)
    };
    let played = crew.meanwhile(async {
        tokio::select! {
            plan = play => plan,
            died = dying => died.and_then(|()| anyhow::bail!("nobody lives any more")),
        }
    });
    let what = || format!("dying at effect {first}, and each {life} further");
    let plan = played.await.with_context(|| format!("{}, {deaths} times so far: {}", what(), crew.said()))?;
    let seconds = began.elapsed().as_secs_f64();
    for replica in 0..crew.size() {
        effects += crew.proxy(replica).effects();
        crew.proxy(replica).heal();
    }

    let (wanted, found) = (three_boroughs::as_it_should_be(before)?, look(&admin, &namespaces).await?);
    ensure!(wanted == found, "{}: the estate should be {wanted:?}, and is {found:?}", what());
    let records = kind(&admin, KINDS, "ServiceRecovery", Some(three_boroughs::NAMESPACE));
    for record in records.list(&ListParams::default()).await? {
        let record = serde_json::to_value(record)?;
        let service = text(&record, "/spec/service");
        let attempts = if three_boroughs::TAMPERED.contains(&service) { 2 } else { 1 };
        ensure!(record["status"]["attempt"] == attempts, "{}: {service}: {}", what(), record["status"]);
    }
    let log = std::fs::read(cluster.audit_log())?;
    let report = judge::judge(log.as_slice(), &plan, &judge::Options::default())?;
    ensure!(report.is_clean(), "{}: {report}", what());
    // Let into the clean room and out of it, each once, however often somebody died.
    let twice = namespaces.iter().map(|namespace| (namespace.clone(), 2)).collect();
    let odd: Vec<_> = report.loosened.iter().filter(|(_, times)| **times != 2).collect();
    ensure!(report.loosened == twice, "{}: each should be loosened twice, unlike {odd:?}: {report}", what());
    Ok(Lives { deaths, effects, seconds })
}
