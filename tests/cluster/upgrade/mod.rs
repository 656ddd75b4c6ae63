//! Kinds, rights and operator are upgraded in the midst of a recovery, and taken back: nothing loosens, and the recovery goes on.

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use kube::Api;
use rehearsal::Release;
use rehearsal::trial::upgrade::{State, there_and_back};
use resurgam::isolation::policies;

/// The state of this repository that is upgraded from: other kinds, other policies, another leader election.
const EARLIER: &str = "890273d55fd303e3c0718d4b62baf6f3b57f16c2";

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
async fn upgrade_and_downgrade_during_recovery_loosen_nothing() {
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
    let (earlier, this) = (State::Earlier(&earlier), State::This(env!("CARGO_BIN_EXE_resurgam").as_ref()));
    there_and_back(&cluster, "there-and-back", earlier, this).await.unwrap();
    policies_are_of_this_state(&cluster, &[policies::LIST_FENCE]).await;
    there_and_back(&cluster, "back-and-there", this, earlier).await.unwrap();
    policies_are_of_this_state(&cluster, &[]).await;
    cluster.stop().await.unwrap();
}
