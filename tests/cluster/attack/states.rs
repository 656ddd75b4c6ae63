//! The whole table, in each state that the operator may be in.

use std::sync::atomic::AtomicUsize;

use control_plane::Identity;
use kube::Client;
use kube::api::ListParams;
use rehearsal::{DEADLINE, eventually, field, kind};
use serde_json::Value;

use crate::attack::attempt::{Attack, Tally, all_refused, each_refused};
use crate::attack::rig::{LEVELS, Level, Rig, shared_stage, stage};
use crate::attack::served::{self, differences, get, take_stock};
use crate::attack::who::{Who, acting, machinery, outsiders};
use crate::attack::{audit, comes_back, every_kind, from_elsewhere, gets_in, lets_out};

/// A pod that is there: one that runs, but where nothing runs any more.
async fn a_pod(admin: &Client, level: Level) -> String {
    if level.label != "sealed" {
        return "bare".to_owned();
    }
    let pods = get(admin, &format!("/api/v1/namespaces/{}/pods", level.namespace)).await.unwrap();
    pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
}

/// The state in which it is tried, as a number: the cluster's own accounts begin at another level in each.
#[derive(Clone, Copy, Debug)]
pub enum While {
    Running,
    Doubled,
    Dead,
    Killed,
    Uninstalled,
}

/// At which of the levels that have it an account of the cluster's own makes an attack, in one state. People make each at all of
/// them; there are so many of these that each is made at one, another in the next state.
fn is_in_turn(state: While, who: usize, attack: usize, levels: &[Level], level: Level) -> bool {
    levels[(state as usize + who + attack) % levels.len()] == level
}

/// Waits until the controller of Jobs has recorded the end of the pods that isolation deleted.
async fn has_settled(admin: &Client, namespace: &str) {
    let jobs = kind(admin, "batch/v1", "Job", Some(namespace));
    for job in jobs.list(&ListParams::default()).await.unwrap().items {
        let name = job.metadata.name.unwrap();
        let settled = |job: &Value| field(job, "/status/terminating").as_i64().unwrap_or(0) == 0;
        eventually(&jobs, &name, "the end of the Job's pods", DEADLINE, settled).await.unwrap();
    }
}

/// Makes every attack as everybody, in earnest; then looks whether anything has changed, and what the API server has on
/// record.
pub async fn whole_table(rig: &Rig, state: While) {
    // Is their kind known to the API server?
    let quarantines = !matches!(state, While::Uninstalled);
    let admin = rig.client(Identity::PlatformAdministrator).await;
    let (people, machinery) = (outsiders(rig).await, machinery(rig).await);
    let crowned = |level: Level| acting(&admin, &from_elsewhere::crowned(level.namespace), &[], false);
    let namespaces = LEVELS.map(|level| level.namespace);
    let labels = async || {
        let mut all = Vec::new();
        for namespace in namespaces {
            let found = get(&admin, &format!("/api/v1/namespaces/{namespace}")).await.unwrap();
            all.push((
                found["metadata"]["uid"].clone(),
                found["metadata"]["labels"].clone(),
                found["metadata"]["annotations"].clone(),
            ));
        }
        all
    };
    let served: Vec<_> = rig
        .served
        .iter()
        .filter(|s| quarantines || s.version != crate::attack::rig::KINDS)
        .cloned()
        .collect();
    for namespace in namespaces {
        has_settled(&admin, namespace).await;
    }
    let (marks, before) = (labels().await, take_stock(&admin, &served, &namespaces).await);
    assert!(before.len() > 100, "there is much to attack: {}", before.len());
    let (from, mut made) = (audit::mark(rig), 0);
    let known = |attack: &Attack| quarantines || !attack.path.starts_with("/apis/resurgam.dev/");
    let mut tables = Vec::new();
    for level in LEVELS {
        let pod = a_pod(&admin, level).await;
        let mut earnest = comes_back::attacks(level.namespace, &pod);
        earnest.extend(gets_in::attacks(level.namespace, &pod));
        earnest.extend(lets_out::attacks(level));
        // The guards go by the list of what is quarantined: the room here is one by its label only.
        if level.has_quarantine() {
            earnest.extend(from_elsewhere::attacks(level.namespace));
        }
        earnest.retain(known);
        tables.push((level, earnest));
    }
    let at = |name: &str| -> Vec<Level> {
        let has = |(_, table): &&(Level, Vec<Attack>)| table.iter().any(|attack| attack.name == name);
        tables.iter().filter(has).map(|(level, _)| *level).collect()
    };
    for (level, earnest) in &tables {
        let level = *level;
        if level.has_quarantine() {
            let elsewhere = from_elsewhere::of_its_accounts();
            made += all_refused(level, &[crowned(level)], &elsewhere, false).await.refused;
        }
        let everywhere = people.iter().flat_map(|who| earnest.iter().map(move |attack| (who, attack)));
        let mut pairs: Vec<(&Who, &Attack)> = everywhere.collect();
        for attack in earnest {
            let (levels, number) = (at(&attack.name), attack.name.len());
            let turns = machinery.iter().enumerate();
            let theirs = turns.filter(|(who, _)| is_in_turn(state, *who, number, &levels, level));
            pairs.extend(theirs.map(|(_, who)| (who, attack)));
        }
        let started = std::time::Instant::now();
        let Tally { refused, no_right, exempt } = each_refused(level, pairs.into_iter(), false).await;
        made += refused + no_right;
        eprintln!(
            "{}: {refused} refused by policy, {no_right} by rights, {exempt} exempt, in {:?}",
            level.label,
            started.elapsed()
        );
        assert!(refused > no_right, "it is the policies that refuse, not the lack of rights");
        let mut every = every_kind::attacks(&served, level, &before);
        every.retain(known);
        // Of all kinds, as who may write them all. Others' rights differ; what refuses does not.
        let flux: Vec<_> =
            people.iter().filter(|who| who.user.ends_with(":kustomize-controller")).cloned().collect();
        let started = std::time::Instant::now();
        let tally = all_refused(level, &flux, &every, true).await;
        eprintln!("{}: {} more, of every kind, in {:?}", level.label, tally.refused, started.elapsed());
    }
    let recorded: Vec<_> = people.iter().chain(&machinery).cloned().chain(LEVELS.map(crowned)).collect();
    let record = audit::since(rig, from, &recorded);
    assert!(record.through.is_empty(), "on record as let through:\n{}", record.through.join("\n"));
    // All but what the log leaves out: events, and reads that an attack begins with.
    assert!(record.refused * 10 > made * 9, "on record are {} of {made}", record.refused);
    assert_eq!(labels().await, marks);
    let changed = differences(&before, &take_stock(&admin, &served, &namespaces).await);
    assert!(changed.is_empty(), "{} objects differ:\n{}", changed.len(), changed.join("\n"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kind_that_the_api_server_serves_is_forgotten() {
    let stage = shared_stage(0).await;
    assert_eq!(every_kind::forgotten(&stage.rig.served, LEVELS[0]), Vec::<String>::new());
    assert!(stage.rig.served.iter().any(served::Served::is_pod), "{:?}", stage.rig.served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_gets_through_while_the_operator_runs() {
    let stage = stage(1).await;
    whole_table(stage.rig, While::Running).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_gets_through_while_two_operators_run() {
    let stage = stage(2).await;
    whole_table(stage.rig, While::Doubled).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_gets_through_while_the_operator_is_dead() {
    let stage = stage(0).await;
    whole_table(stage.rig, While::Dead).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_gets_through_while_the_operator_keeps_restarting() {
    let mut stage = stage(1).await;
    let turned = AtomicUsize::new(0);
    let rig = stage.rig;
    tokio::select! {
        () = whole_table(rig, While::Killed) => {}
        () = stage.restart_for_ever(&turned) => {}
    }
    let turned = turned.into_inner();
    eprintln!("killed {turned} times");
    assert!(turned >= 2, "it was killed at its work: {turned}");
}
