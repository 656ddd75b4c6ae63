//! Kinds, rights and operator are upgraded in the midst of a recovery, and taken back: nothing loosens, and the recovery goes on.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests are not recognised as tests")]

use std::path::Path;

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use rehearsal::trial::Trial;
use rehearsal::{Operator, OperatorOptions, Release, kind};
use resurgam::isolation::{list, policies};
use serde_json::{Value, json};

/// The state of this repository that is upgraded from: other kinds, other policies, another leader election.
const EARLIER: &str = "890273d55fd303e3c0718d4b62baf6f3b57f16c2";

/// One of two states of this repository.
#[derive(Clone, Copy)]
enum State<'a> {
    Earlier(&'a Release),
    This,
}

impl State<'_> {
    async fn install(self, cluster: &ControlPlane) {
        match self {
            Self::Earlier(release) => release.install(cluster).await.unwrap(),
            Self::This => rehearsal::install(cluster).await.unwrap(),
        }
    }

    async fn upgrade(self, cluster: &ControlPlane) {
        match self {
            Self::Earlier(release) => release.upgrade(cluster).await.unwrap(),
            Self::This => rehearsal::upgrade(cluster).await.unwrap(),
        }
    }

    fn start(self, cluster: &ControlPlane) -> Operator {
        let binary = match self {
            Self::Earlier(release) => release.operator(),
            Self::This => Path::new(env!("CARGO_BIN_EXE_resurgam")),
        };
        let within = OperatorOptions::within(cluster, binary);
        Operator::start(cluster, &OperatorOptions { lease_seconds: 3, ..within }).unwrap()
    }

    /// Takes the place of an operator of the other state: its kinds and rights first, as long as the other one is still there. To go
    /// back to one that knows no list fence, the operator ends first, an administrator takes that fence away, and a lead the list and the texts
    /// that the earlier one does not write (docs/isolation.md). The label fences all the while.
    async fn replace(self, cluster: &ControlPlane, trial: &Trial<'_>, other: Operator) -> Operator {
        if matches!(self, Self::Earlier(_)) {
            other.kill().unwrap();
            let lead = cluster.client(Identity::RecoveryLead).await.unwrap();
            let lists = kind(&lead, "v1", "ConfigMap", Some("resurgam-system"));
            lists.delete(list::CONFIG_MAPS[1], &DeleteParams::default()).await.unwrap();
            let texts = json!({"data": {"_sealed": null, "_contained": null, "_clean-room": null}});
            lists.patch(list::CONFIG_MAPS[0], &PatchParams::default(), &Patch::Merge(texts)).await.unwrap();
            let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
            let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(admin);
            bindings.delete(policies::LIST_FENCE, &DeleteParams::default()).await.unwrap();
            self.upgrade(cluster).await;
        } else {
            self.upgrade(cluster).await;
            other.kill().unwrap();
        }
        nobody_gets_out(cluster, &trial.namespaces()[1]).await;
        self.start(cluster)
    }
}

/// Between two operators, what is isolated is so all the same.
async fn nobody_gets_out(cluster: &ControlPlane, namespace: &str) {
    let tenant = cluster.client(Identity::TenantAdministrator).await.unwrap();
    let label = json!({"metadata": {"labels": {"resurgam.dev/isolation": null}}});
    let scale = json!({"spec": {"replicas": 9}});
    for (api, name, patch) in [
        (kind(&tenant, "v1", "Namespace", None), namespace, label),
        (kind(&tenant, "apps/v1", "Deployment", Some(namespace)), "catalogue", scale),
    ] {
        let refused = api.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap_err();
        assert!(refused.to_string().contains("denied request"), "{name}: {refused}");
    }
}

/// Has a recovery begun by one state, gone on with by the other once the database is up, and ended by the first.
async fn there_and_back(cluster: &ControlPlane, name: &str, one: State<'_>, other: State<'_>) {
    one.install(cluster).await;
    let operator = one.start(cluster);
    let trial = Trial::lay_down(cluster, name).await.unwrap();
    let [database, web] = trial.namespaces().clone();
    let stage = |stage: &'static str| move |record: &Value| record["status"]["stage"] == stage;
    trial.begin().await.unwrap();
    trial.service(&database, "to be checked", stage("PostChecks")).await.unwrap();
    let operator = other.replace(cluster, &trial, operator).await;
    trial.service(&web, "to be checked", stage("PostChecks")).await.unwrap();
    let operator = one.replace(cluster, &trial, operator).await;
    trial.recovered().await.unwrap();
    let report = trial.end().await.unwrap().report;
    // To the clean room and out of it, each once, by whomever.
    assert_eq!(report.loosened, [(database, 2), (web, 2)].into(), "{report}");
    drop(operator);
}

/// Is each policy as this state has it? But for the bindings that were taken away for the way back.
async fn policies_are_of_this_state(cluster: &ControlPlane, taken: &[&str]) {
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(admin.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(admin);
    for policies::Policy { policy, binding } in policies::all().unwrap() {
        let name = policy.metadata.name.unwrap();
        assert_eq!(policies.get(&name).await.unwrap().spec, policy.spec, "{name}");
        let found = bindings.get_opt(&name).await.unwrap();
        assert_eq!(found.is_none(), taken.contains(&name.as_str()), "{name}");
        assert!(found.is_none_or(|found| found.spec == binding.spec), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_upgrade_in_the_midst_of_a_recovery_and_the_way_back_loosen_nothing() {
    let earlier = tokio::task::spawn_blocking(|| Release::of(EARLIER)).await.unwrap().unwrap();
    let Some(earlier) = earlier else {
        assert!(
            std::env::var_os("RESURGAM_UPGRADE").is_none(),
            "RESURGAM_UPGRADE is set, and {EARLIER} is not here"
        );
        eprintln!("NOT TESTED: {EARLIER} is not in this history; RESURGAM_UPGRADE=1 makes that an error");
        return;
    };
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    let (earlier, this) = (State::Earlier(&earlier), State::This);
    there_and_back(&cluster, "there-and-back", earlier, this).await;
    policies_are_of_this_state(&cluster, &[policies::LIST_FENCE]).await;
    there_and_back(&cluster, "back-and-there", this, earlier).await;
    policies_are_of_this_state(&cluster, &[]).await;
}
