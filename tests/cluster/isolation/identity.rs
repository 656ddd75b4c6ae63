//! Who stole a token of a service account before its namespace was sealed holds nothing after.

use control_plane::Identity;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest};
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt};
use rehearsal::await_condition;
use resurgam::api::quarantine::{ControlName, ControlState};
use resurgam::api::{Isolation, Quarantine, QuarantineLevel, RECORDS_NAMESPACE, SEALED_LABEL};
use serde_json::json;

use crate::isolation::recovery::{ask, claim, plan};
use crate::isolation::support::{
    alone, another, apply, client, controller, isolate, namespace, object, ready, records_of, rig, stopped,
    within,
};
use crate::isolation::{api, control};

const MANIFESTS: &str = r#"
apiVersion: v1
kind: ServiceAccount
metadata: {name: worker, namespace: known, labels: {team: library}, annotations: {note: the worker}}
imagePullSecrets: [{name: pull}]
automountServiceAccountToken: false
---
apiVersion: v1
kind: Secret
metadata: {name: worker-token, namespace: known, annotations: {kubernetes.io/service-account.name: worker}}
type: kubernetes.io/service-account-token
---
apiVersion: v1
kind: Secret
metadata: {name: pull, namespace: known}
stringData: {user: someone}
"#;

/// Somebody who has nothing but a token.
async fn holder(token: &str) -> Client {
    let path = rig().await.control_plane.kubeconfig(Identity::PlatformAdministrator);
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap();
    config.auth_info = serde_json::from_value(json!({"token": token})).unwrap();
    Client::try_from(config).unwrap()
}

/// Whom the API server takes them for; `None`: it does not know them.
async fn known_as(holder: &Client) -> Option<String> {
    let reviews: Api<SelfSubjectReview> = Api::all(holder.clone());
    match reviews.create(&PostParams::default(), &SelfSubjectReview::default()).await {
        Ok(review) => review.status.unwrap().user_info.unwrap().username,
        Err(kube::Error::Api(status)) if status.code == 401 => None,
        Err(error) => panic!("{error}"),
    }
}

#[tokio::test]
async fn token_issued_before_sealing_is_refused_after_it() {
    let _running = controller().await;
    let _tenant = namespace("known").await;
    let administrator = client(Identity::PlatformAdministrator).await;
    apply(&administrator, MANIFESTS).await;
    let (accounts, secrets) =
        (api::<ServiceAccount>(&administrator, "known"), api::<Secret>(&administrator, "known"));
    object(accounts.clone(), "default", "made", |_| true).await;
    let mut holders = Vec::new();
    for name in ["default", "worker"] {
        let (params, request) = (PostParams::default(), TokenRequest::default());
        let token =
            accounts.create_token_request(name, &params, &request).await.unwrap().status.unwrap().token;
        holders.push((name, holder(&token).await));
    }
    let filled = |secret: &Secret| secret.data.as_ref().is_some_and(|data| data.contains_key("token"));
    let legacy = object(secrets.clone(), "worker-token", "filled", filled).await;
    let token = String::from_utf8(legacy.data.as_ref().unwrap()["token"].0.clone()).unwrap();
    holders.push(("worker", holder(&token).await));
    for (name, holder) in &holders {
        assert_eq!(known_as(holder).await, Some(format!("system:serviceaccount:known:{name}")));
    }
    let uids = async || {
        let all = accounts.list(&Default::default()).await.unwrap().items;
        all.iter().map(|account| (account.name_any(), account.uid().unwrap())).collect::<Vec<_>>()
    };
    let (before, worker) = (uids().await, accounts.get("worker").await.unwrap());

    isolate("known", QuarantineLevel::Sealed).await;
    let sealed = ready("known", Isolation::Sealed).await;
    assert_eq!(control(&sealed, ControlName::Identity), ControlState::Enforced);
    let lost = sealed.status.as_ref().unwrap().lost_token_secrets.clone().unwrap();
    assert_eq!((lost.names, lost.unknown.as_str()), (vec!["worker-token".to_owned()], ""));
    for (name, holder) in &holders {
        // An API server remembers for up to 10 s whom it has just taken a token for.
        within("the token of a moment ago to be void", async {
            while known_as(holder).await.is_some() {
                tokio::time::sleep(std::time::Duration::from_millis(200)).await;
            }
        })
        .await;
        eprintln!("{name}: void");
    }
    let again = accounts.get("worker").await.unwrap();
    assert_eq!(
        (
            &again.labels()["team"],
            &again.image_pull_secrets,
            again.automount_service_account_token,
            &again.annotations()["note"]
        ),
        (
            &worker.labels()["team"],
            &worker.image_pull_secrets,
            worker.automount_service_account_token,
            &worker.annotations()["note"]
        )
    );
    assert!(again.labels().contains_key(SEALED_LABEL));
    let after = uids().await;
    assert_eq!(after.len(), before.len());
    assert!(after.iter().zip(&before).all(|(after, before)| after.0 == before.0 && after.1 != before.1));
    // The tokens controller takes away what holds no token any more, and that alone.
    let uid = legacy.uid().unwrap();
    let gone = kube::runtime::conditions::is_deleted(&uid);
    within("the end of the token's Secret", await_condition(secrets.clone(), "worker-token", gone))
        .await
        .unwrap();
    assert!(secrets.get_opt("pull").await.unwrap().is_some());
    assert_eq!(records_of(&client(Identity::Operator).await, "known").await, [""; 0]);

    // What ran in the clean room had tokens too: sealed again, they are as void.
    let plan = plan("known", true).await;
    ask("known", &plan, Some(Isolation::Sealed), 1).await;
    claim("known", &plan).await;
    ready("known", Isolation::Sealed).await;
    assert_eq!(uids().await, after, "once for a sealing");
    ask("known", &plan, Some(Isolation::CleanRoom), 1).await;
    ready("known", Isolation::CleanRoom).await;
    ask("known", &plan, Some(Isolation::Sealed), 1).await;
    ready("known", Isolation::Sealed).await;
    assert!(uids().await.iter().zip(&after).all(|(now, then)| now.0 == then.0 && now.1 != then.1));
}

/// Deleted and not made again yet when the Quarantine was lifted.
#[tokio::test]
async fn a_release_makes_again_what_a_sealing_left_half_way() {
    let _rig = alone().await;
    let running = controller().await;
    let _tenant = namespace("half-known").await;
    isolate("half-known", QuarantineLevel::Sealed).await;
    let sealed = ready("half-known", Isolation::Sealed).await;
    let _alone = stopped(running).await;
    let operator = client(Identity::Operator).await;
    let account = json!({"metadata": {"name": "lost", "labels": {"team": "library"}}});
    let labels = json!({"resurgam.dev/record": "identity", "resurgam.dev/namespace": "half-known", "resurgam.dev/seal": sealed.uid()});
    let record = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "identity.half-known.a-page", "namespace": RECORDS_NAMESPACE, "labels": labels},
        "data": {"lost": json!({"uid": "before", "account": account}).to_string()},
    });
    apply(&client(Identity::PlatformAdministrator).await, &record.to_string()).await;
    let lead: Api<Quarantine> = Api::all(client(Identity::RecoveryLead).await);
    lead.delete("half-known", &DeleteParams::default()).await.unwrap();
    let one = another().await;
    let uid = sealed.uid().unwrap();
    let gone = kube::runtime::conditions::is_deleted(&uid);
    within("release", await_condition(lead, "half-known", gone)).await.unwrap();
    tokio::task::spawn_blocking(move || drop(one)).await.unwrap();
    let back = api::<ServiceAccount>(&operator, "half-known").get("lost").await.unwrap();
    assert_eq!(back.labels()["team"], "library");
    assert_eq!(records_of(&operator, "half-known").await, [""; 0]);
}
