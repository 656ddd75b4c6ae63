//! What is read of the network policies of other APIs on a real API server, as the operator's account. The kinds are Cilium's, Calico's and
//! others', with nothing of their schemas.

use std::time::Instant;

use std::time::Duration;

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::wait::conditions;
use kube::{Api, Client, ResourceExt};
use rehearsal::await_condition;
use rehearsal::{DEADLINE, Operator, OperatorOptions, condition, eventually, kind};
use resurgam::isolation::other_policies::{AcceptedPolicy, OtherPolicies, PolicyReader, observe};
use serde::Deserialize;
use serde_json::{Value, json};

/// Group, version, kind, whether it is namespaced.
type Kind = (&'static str, &'static str, &'static str, bool);

const CILIUM: Kind = ("cilium.io", "v2", "CiliumNetworkPolicy", true);
const CILIUM_CLUSTERWIDE: Kind = ("cilium.io", "v2", "CiliumClusterwideNetworkPolicy", false);
const CALICO_GLOBAL: Kind = ("crd.projectcalico.org", "v1", "GlobalNetworkPolicy", false);
const ADMIN: Kind = ("policy.networking.k8s.io", "v1alpha1", "AdminNetworkPolicy", false);
/// The operator has no right to list it.
const FQDN: Kind = ("networking.gke.io", "v1alpha1", "FQDNNetworkPolicy", true);

fn plural(kind: Kind) -> String {
    let singular = kind.2.to_lowercase();
    format!("{}ies", singular.strip_suffix('y').unwrap())
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    let outcome = tokio::time::timeout(Duration::from_secs(60), future).await;
    outcome.unwrap_or_else(|_| panic!("{what} took too long"))
}

async fn install(administrator: &Client, kind: Kind) {
    let (group, version, name, namespaced) = kind;
    let crds: Api<CustomResourceDefinition> = Api::all(administrator.clone());
    let crd_name = format!("{}.{group}", plural(kind));
    let crd = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        // Without it nobody may use this group.
        "metadata": {"name": crd_name, "annotations": {"api-approved.kubernetes.io": "unapproved, for a test"}},
        "spec": {
            "group": group, "scope": if namespaced { "Namespaced" } else { "Cluster" },
            "names": {"kind": name, "plural": plural(kind), "singular": name.to_lowercase()},
            "versions": [{
                "name": version, "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}},
            }],
        },
    });
    crds.patch(&crd_name, &PatchParams::apply("test"), &Patch::Apply(crd)).await.unwrap();
    let established = await_condition(crds, &crd_name, conditions::is_crd_established());
    within(&crd_name, established).await.unwrap();
    let objects = objects(administrator, kind, None);
    within("the kind to be listed and discovered", async {
        while objects.list(&Default::default()).await.is_err() || !is_discovered(administrator, kind).await {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
}

async fn is_discovered(client: &Client, (group, _, kind, _): Kind) -> bool {
    let found = client.list_api_groups_aggregated().await.unwrap();
    let mut groups =
        found.items.iter().filter(|g| g.metadata.as_ref().unwrap().name.as_deref() == Some(group));
    groups.any(|group| {
        let mut resources = group.versions.iter().flat_map(|version| &version.resources);
        resources.any(|resource| resource.response_kind.as_ref().unwrap().kind.as_deref() == Some(kind))
    })
}

fn objects(client: &Client, kind: Kind, namespace: Option<&str>) -> Api<DynamicObject> {
    let mut resource = ApiResource::from_gvk(&GroupVersionKind::gvk(kind.0, kind.1, kind.2));
    resource.plural = plural(kind);
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    }
}

async fn create(
    client: &Client,
    kind: Kind,
    namespace: Option<&str>,
    name: &str,
    spec: Value,
) -> DynamicObject {
    let object = json!({
        "apiVersion": format!("{}/{}", kind.0, kind.1), "kind": kind.2,
        "metadata": {"name": name, "namespace": namespace}, "spec": spec,
    });
    let object = DynamicObject::deserialize(object).unwrap();
    objects(client, kind, namespace).create(&PostParams::default(), &object).await.unwrap()
}

async fn apply_rights(administrator: &Client) {
    let rights = tokio::task::spawn_blocking(rehearsal::rights).await.unwrap().unwrap();
    rehearsal::apply(administrator, "test", &rights).await.unwrap();
}

async fn namespace(administrator: &Client, name: &str, labels: Value) -> Namespace {
    let namespace = serde_json::from_value(json!({"metadata": {"name": name, "labels": labels}})).unwrap();
    Api::all(administrator.clone()).create(&PostParams::default(), &namespace).await.unwrap()
}

fn names(policies: &[resurgam::isolation::other_policies::StandingPolicy]) -> Vec<String> {
    policies.iter().map(ToString::to_string).collect()
}

/// With nothing remembered of earlier reads.
async fn afresh(client: &Client, namespace: &Namespace) -> OtherPolicies {
    observe(client, &PolicyReader::default(), namespace, &[], Instant::now()).await
}

#[tokio::test]
async fn policies_of_other_apis_are_read_judged_and_accepted() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let administrator = control_plane.client(Identity::PlatformAdministrator).await.unwrap();
    let operator = control_plane.client(Identity::Operator).await.unwrap();
    apply_rights(&administrator).await;
    let housing = namespace(&administrator, "housing", json!({"tier": "1"})).await;
    let parking = namespace(&administrator, "parking", json!({"tier": "2"})).await;

    // No such kind is served: nothing stands, and what is served is remembered for a while.
    let early = PolicyReader::default();
    assert_eq!(observe(&operator, &early, &housing, &[], Instant::now()).await, OtherPolicies::default());

    for kind in [CILIUM, CILIUM_CLUSTERWIDE, CALICO_GLOBAL, ADMIN] {
        install(&administrator, kind).await;
    }
    // The ClusterRole of the operator is filled by a controller.
    within("the operator's right to list", async {
        while objects(&operator, CILIUM, None).list(&Default::default()).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    assert_eq!(afresh(&operator, &housing).await, OtherPolicies::default());

    let world = json!({"endpointSelector": {}, "ingress": [{"fromEntities": ["world", "cluster"]}], "egress": [{"toEntities": ["world"]}]});
    create(&administrator, CILIUM, Some("housing"), "allow-world", world.clone()).await;
    let deny = json!({"endpointSelector": {}, "ingressDeny": [{"fromEntities": ["all"]}]});
    create(&administrator, CILIUM, Some("housing"), "deny", deny).await;
    let of_parking = json!({"endpointSelector": {"matchLabels": {"k8s:io.kubernetes.pod.namespace": "parking"}}, "egress": [{"toEntities": ["world"]}]});
    create(&administrator, CILIUM_CLUSTERWIDE, None, "parking-out", of_parking).await;
    let tier = json!({"namespaceSelector": "tier == '1'", "ingress": [{"action": "Allow"}]});
    create(&administrator, CALICO_GLOBAL, None, "tier-one", tier).await;
    let monitoring =
        json!({"priority": 1, "subject": {"namespaces": {}}, "ingress": [{"action": "Allow", "from": []}]});
    let admin = create(&administrator, ADMIN, None, "monitoring", monitoring).await;
    let deny =
        json!({"priority": 2, "subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": []}]});
    create(&administrator, ADMIN, None, "deny", deny).await;

    let reader = PolicyReader::default();
    let found = observe(&operator, &reader, &housing, &[], Instant::now()).await;
    assert_eq!(found.unknown, Vec::<String>::new());
    assert_eq!(
        names(&found.standing),
        ["AdminNetworkPolicy monitoring", "GlobalNetworkPolicy tier-one", "CiliumNetworkPolicy allow-world"]
    );
    let message = found.message("housing").unwrap();
    assert!(
        message.contains("kubectl delete ciliumnetworkpolicies.cilium.io -n housing allow-world"),
        "{message}"
    );
    let found = observe(&operator, &reader, &parking, &[], Instant::now()).await;
    assert_eq!(
        names(&found.standing),
        ["AdminNetworkPolicy monitoring", "CiliumClusterwideNetworkPolicy parking-out"]
    );

    // Accepted is what it was, and no other.
    let uid = admin.uid().unwrap();
    let accepted: AcceptedPolicy = format!("{uid}/{}", admin.metadata.generation.unwrap()).parse().unwrap();
    let found = observe(&operator, &reader, &housing, std::slice::from_ref(&accepted), Instant::now()).await;
    assert_eq!(names(&found.accepted), ["AdminNetworkPolicy monitoring"]);
    assert_eq!(found.standing.len(), 2);
    let widened = json!({"spec": {"egress": [{"action": "Allow", "to": []}]}});
    let admins = objects(&administrator, ADMIN, None);
    admins.patch("monitoring", &PatchParams::default(), &Patch::Merge(widened)).await.unwrap();
    let found = observe(&operator, &reader, &housing, &[accepted], Instant::now()).await;
    assert_eq!((found.accepted.len(), found.standing.len()), (0, 3));
    assert_eq!(found.standing[0].why, "allows ingress and egress");

    // A policy that is removed stands no more.
    let cilium = objects(&administrator, CILIUM, Some("housing"));
    cilium.delete("allow-world", &DeleteParams::default()).await.unwrap();
    assert_eq!(observe(&operator, &reader, &housing, &[], Instant::now()).await.standing.len(), 2);

    // What may not be listed is not known, and says what to do. The reader of before still remembers which kinds were served.
    install(&administrator, FQDN).await;
    let found = afresh(&operator, &housing).await;
    assert_eq!(found.standing.len(), 2, "what could be read is judged all the same");
    assert!(!found.is_cut());
    assert_eq!(
        found.unknown,
        [
            "the operator may not list FQDNNetworkPolicy. A cluster administrator gives a ClusterRole that may list \
          fqdnnetworkpolicies.networking.gke.io the label resurgam.dev/aggregate-to-capture=true"
        ]
    );
    assert_eq!(observe(&operator, &early, &housing, &[], Instant::now()).await, OtherPolicies::default());
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": "fqdn-policies", "labels": {"resurgam.dev/aggregate-to-capture": "true"}},
        "rules": [{"apiGroups": [FQDN.0], "resources": [plural(FQDN)], "verbs": ["list"]}],
    });
    let roles: Api<ClusterRole> = Api::all(administrator.clone());
    roles.patch("fqdn-policies", &PatchParams::apply("test"), &Patch::Apply(role)).await.unwrap();
    within("the kind to be read", async {
        while !afresh(&operator, &housing).await.unknown.is_empty() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    create(&administrator, FQDN, Some("housing"), "updates", json!({"egress": []})).await;
    let found = afresh(&operator, &housing).await;
    let fqdn = found.standing.iter().find(|policy| policy.name == "updates").unwrap();
    assert_eq!(fqdn.why, "what it allows is not known here");

    // Whoever asks at the same time shares one read.
    let shared = PolicyReader::default();
    let all = futures::future::join_all(
        (0..50).map(|_| observe(&operator, &shared, &housing, &[], Instant::now())),
    )
    .await;
    assert!(all.iter().all(|each| *each == found));
}

#[tokio::test]
async fn an_api_server_that_does_not_answer_is_unknown() {
    let config = kube::Config::new("http://127.0.0.1:9".parse().unwrap());
    let client = Client::try_from(config).unwrap();
    let housing = serde_json::from_value(json!({"metadata": {"name": "housing"}})).unwrap();
    let found = afresh(&client, &housing).await;
    assert!(!found.is_cut() && found.standing.is_empty());
    assert!(found.unknown[0].starts_with("discover kinds of network policies: "), "{:?}", found.unknown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn later_policies_of_other_apis_are_reported_until_they_go() {
    let cluster = ControlPlane::start(Options::default()).await.unwrap();
    rehearsal::install(&cluster).await.unwrap();
    let binary = std::path::Path::new(env!("CARGO_BIN_EXE_resurgam"));
    let _operator = Operator::start(&cluster, &OperatorOptions::within(&cluster, binary)).unwrap();
    rehearsal::leads(&cluster).await.unwrap();
    let administrator = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    namespace(&administrator, "housing", json!({})).await;
    let quarantine = json!({
        "apiVersion": "resurgam.dev/v1alpha1", "kind": "Quarantine", "metadata": {"name": "housing"},
        "spec": {"reason": "a test of what comes later"},
    });
    let responder = cluster.client(Identity::Responder).await.unwrap();
    rehearsal::apply(&responder, "on-call", &[quarantine]).await.unwrap();
    let quarantines = kind(&responder, "resurgam.dev/v1alpha1", "Quarantine", None);
    let is_ready = |ready: &'static str| move |quarantine: &Value| condition(quarantine, "Ready") == ready;
    eventually(&quarantines, "housing", "it to be isolated", DEADLINE, is_ready("True")).await.unwrap();

    // Neither the kind nor the policy was there.
    install(&administrator, CILIUM_CLUSTERWIDE).await;
    let spec = json!({"endpointSelector": {}, "egress": [{"toEntities": ["all"]}]});
    create(&administrator, CILIUM_CLUSTERWIDE, None, "allow-world", spec).await;
    let told = eventually(&quarantines, "housing", "the policy to be told", DEADLINE, is_ready("False"))
        .await
        .unwrap();
    assert!(told.to_string().contains("allow-world"), "{told}");
    objects(&administrator, CILIUM_CLUSTERWIDE, None)
        .delete("allow-world", &DeleteParams::default())
        .await
        .unwrap();
    eventually(&quarantines, "housing", "its end to be told", DEADLINE, is_ready("True")).await.unwrap();
}
