//! The whole table, in each state that the operator may be in.

use control_plane::Identity;
use kube::Client;

use crate::attack::{Attack, Tally, all_refused};
use crate::rig::{LEVELS, Level, Stage, stage};
use crate::served::{self, differences, get, take_stock};
use crate::who::{Who, acting, machinery, outsiders};
use crate::{comes_back, every_kind, from_elsewhere, gets_in, lets_out};

/// A pod that is there: one that runs, but where nothing runs any more.
async fn a_pod(admin: &Client, level: Level) -> String {
    if level.label != "sealed" {
        return "bare".to_owned();
    }
    let pods = get(admin, &format!("/api/v1/namespaces/{}/pods", level.namespace)).await.unwrap();
    pods["items"][0]["metadata"]["name"].as_str().unwrap().to_owned()
}

/// Makes every attack at every level as everybody given; then looks whether anything has changed. `quarantines`: their kind is
/// known to the API server.
pub async fn whole_table(stage: &Stage, whos: &[Who], quarantines: bool) {
    let admin = stage.client(Identity::PlatformAdministrator).await;
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
    let served: Vec<_> =
        stage.rig.served.iter().filter(|s| quarantines || s.version != crate::rig::KINDS).cloned().collect();
    let (marks, before) = (labels().await, take_stock(&admin, &served, &namespaces).await);
    assert!(before.len() > 100, "there is much to attack: {}", before.len());
    for level in LEVELS {
        let pod = a_pod(&admin, level).await;
        let mut earnest = comes_back::attacks(level.namespace, &pod);
        earnest.extend(gets_in::attacks(level.namespace, &pod));
        earnest.extend(lets_out::attacks(level));
        // The guards go by the list of what is quarantined: the room here is one by its label only.
        if level.has_quarantine() {
            earnest.extend(from_elsewhere::attacks(level.namespace));
            let crowned = acting(&admin, &from_elsewhere::crowned(level.namespace), &[], false);
            all_refused(level, &[crowned], &from_elsewhere::of_its_accounts(), false).await;
        }
        let known = |attack: &Attack| quarantines || !attack.path.starts_with("/apis/resurgam.dev/");
        earnest.retain(known);
        let started = std::time::Instant::now();
        let Tally { refused, no_right, exempt } = all_refused(level, whos, &earnest, false).await;
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
            whos.iter().filter(|who| who.user.ends_with(":kustomize-controller")).cloned().collect();
        let started = std::time::Instant::now();
        let tally = all_refused(level, &flux, &every, true).await;
        eprintln!("{}: {} more, of every kind, in {:?}", level.label, tally.refused, started.elapsed());
    }
    assert_eq!(labels().await, marks);
    let changed = differences(&before, &take_stock(&admin, &served, &namespaces).await);
    assert!(changed.is_empty(), "{} objects differ:\n{}", changed.len(), changed.join("\n"));
}

/// Whoever stands for a kind of outsider: whether the operator runs is the same to all others.
pub async fn a_few(stage: &Stage) -> Vec<Who> {
    let few = [
        "tenant-administrator",
        "system:serviceaccount:flux-system:kustomize-controller",
        "platform-administrator",
        "system:serviceaccount:attack-sealed:default",
    ];
    outsiders(stage).await.into_iter().filter(|who| few.contains(&who.user.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_kind_that_the_api_server_serves_is_forgotten() {
    let stage = stage(0).await;
    assert_eq!(every_kind::forgotten(&stage.rig.served, LEVELS[0]), Vec::<String>::new());
    assert!(stage.rig.served.iter().any(served::Served::is_pod), "{:?}", stage.rig.served);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_gets_through_while_the_operator_runs() {
    let stage = stage(1).await;
    whole_table(&stage, &a_few(&stage).await, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_gets_through_while_two_operators_run() {
    let stage = stage(2).await;
    whole_table(&stage, &a_few(&stage).await, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_gets_through_while_the_operator_is_dead() {
    let stage = stage(0).await;
    whole_table(&stage, &outsiders(&stage).await, true).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn none_of_the_clusters_own_accounts_does_what_is_not_its_work() {
    let stage = stage(0).await;
    let machinery = machinery(&stage).await;
    let admin = stage.client(Identity::PlatformAdministrator).await;
    // At the level at which most is there, and at the widest what it is widest in.
    for level in LEVELS.into_iter().filter(|level| level.label != "sealed") {
        let pod = a_pod(&admin, level).await;
        let mut attacks = comes_back::attacks(level.namespace, &pod);
        if level.label == "contained" {
            attacks.extend(gets_in::attacks(level.namespace, &pod));
            attacks.extend(lets_out::attacks(level));
        }
        all_refused(level, &machinery, &attacks, true).await;
    }
}
