//! The operator is killed and started again in the midst of isolating, while attacks go on and on.

use std::collections::HashSet;

use control_plane::Identity;
use rehearsal::{DEADLINE, eventually, kind};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::attack::attempt::{
    Ask, Attack, FENCE, LOCK, Outcome, QUARANTINE, all_refused, attack, implant, make,
};
use crate::attack::exemptions::passes;
use crate::attack::rig::{Level, Stage, isolate, stage};
use crate::attack::who::{Who, everybody};

const NAME: &str = "attack-midway";
const SEALED: Level = Level { label: "sealed", namespace: NAME };

/// What is tried over and over. As dry-runs: whatever comes through
/// before the fence is up is no concern here, and leaves nothing behind.
fn attacks() -> Vec<Attack> {
    let pod =
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "attack-new"}, "spec": implant()});
    let core = format!("/api/v1/namespaces/{NAME}");
    let up = json!({"spec": {"replicas": 3}});
    let apps = format!("/apis/apps/v1/namespaces/{NAME}");
    let net = format!("/apis/networking.k8s.io/v1/namespaces/{NAME}");
    let unlabel = json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}});
    let quarantine = format!("/apis/resurgam.dev/v1alpha1/quarantines/{NAME}");
    vec![
        attack("create a pod", format!("{core}/pods"), Ask::Create(pod), FENCE),
        attack("scale", format!("{apps}/deployments/web/scale"), Ask::Merge(up), FENCE),
        attack("delete every network policy", format!("{net}/networkpolicies"), Ask::DeleteAll, FENCE),
        attack("unlabel the namespace", core, Ask::Merge(unlabel), LOCK),
        attack("delete the Quarantine", quarantine, Ask::Delete, QUARANTINE),
    ]
}

/// Goes on with one attack, as everybody in turn, until told to stop. Tells how often it was refused.
async fn go_on(
    whos: &[Who],
    attack: &Attack,
    refused: &watch::Sender<usize>,
    stop: watch::Receiver<bool>,
) -> Result<(), String> {
    let mut once = HashSet::new();
    for who in whos.iter().cycle().filter(|who| !passes(SEALED.label, &who.user, attack)) {
        if *stop.borrow() {
            break;
        }
        match make(who, attack, true).await {
            Outcome::Refused(_) => {
                once.insert(&who.user);
                refused.send_modify(|all| *all += 1);
            }
            outcome if once.contains(&who.user) => {
                return Err(format!("{}, as {}: {outcome:?}, having been refused", attack.name, who.user));
            }
            _ => {}
        }
    }
    Ok(())
}

async fn lay_down(stage: &Stage) {
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAME}});
    let web = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": NAME}, "spec": {
        "replicas": 2, "selector": {"matchLabels": {"app": "web"}},
        "template": {"metadata": {"labels": {"app": "web"}}, "spec": implant()}}});
    rehearsal::apply(&admin, "platform", &[namespace, web]).await.unwrap();
    let deployments = kind(&admin, "apps/v1", "Deployment", Some(NAME));
    let up = |o: &Value| o["status"]["readyReplicas"] == 2;
    eventually(&deployments, "web", "web to run", DEADLINE, up).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_killed_midway_lets_nothing_through_again() {
    let mut stage = stage(1).await;
    lay_down(&stage).await;
    let attackers = everybody(stage.rig).await;
    let attacks = attacks();
    let (refused, mut seen) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    // Half of them each, so that nobody waits for long.
    let halves = attackers.chunks(attackers.len().div_ceil(2));
    let going = halves.flat_map(|half| attacks.iter().map(move |attack| (half, attack)));
    let going = going.map(|(half, attack)| go_on(half, attack, &refused, stopped.clone()));
    let going = futures::future::try_join_all(going);
    let killing = async {
        isolate(&stage.rig.cluster, NAME, "Sealed").await.unwrap();
        // Killed as soon as the first is refused, and once more a little later.
        for more in [1, 200] {
            let until = *seen.borrow() + more;
            tokio::time::timeout(DEADLINE, seen.wait_for(|all| *all >= until)).await.unwrap().unwrap();
            stage.operators(0);
            stage.operators(1);
        }
        rehearsal::three_boroughs::isolated(&stage.rig.cluster, NAME).await.unwrap();
        stop.send(true).unwrap();
    };
    let (gone, ()) = tokio::join!(going, killing);
    gone.unwrap_or_else(|error| panic!("{error}"));
    all_refused(SEALED, &attackers, &attacks, false).await;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let pods = crate::attack::served::get(&admin, &format!("/api/v1/namespaces/{NAME}/pods")).await.unwrap();
    assert_eq!(pods["items"], json!([]));
}
