//! What has to run to its end in an isolated namespace does: what a fence that is too tight would hang.

use control_plane::Identity;
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams};
use kube::{Api, Client};
use rehearsal::{DEADLINE, condition, documents, eventually, kind};
use serde_json::{Value, json};

use crate::attack::attempt::{Ask, FENCE, Outcome, attack, implant, make};
use crate::attack::rig::{KINDS, SharedStage, isolate, label, shared_stage};
use crate::attack::served::get;
use crate::attack::who::{Who, acting};

/// What a lead is granted beside the product's own role: to delete claims and namespaces.
const LEAD: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: ends-lead}
rules: [{apiGroups: [''], resources: [namespaces, persistentvolumeclaims], verbs: [delete]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ends-lead}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ends-lead}
subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: recovery-lead}]
";

fn workload(namespace: &str, kind: &str, name: &str, replicas: u8) -> Value {
    json!({"apiVersion": "apps/v1", "kind": kind, "metadata": {"name": name, "namespace": namespace}, "spec": {
        "replicas": replicas, "serviceName": name, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": implant()}}})
}

fn deployment(namespace: &str, name: &str, replicas: u8) -> Value {
    let mut object = workload(namespace, "Deployment", name, replicas);
    object["spec"].as_object_mut().unwrap().remove("serviceName");
    object
}

/// Makes a namespace with these objects in it, and waits until its Deployment `web` runs.
async fn lay_down(stage: &SharedStage, namespace: &str, objects: &[Value]) -> Client {
    let admin = stage.client(Identity::PlatformAdministrator).await;
    let mut all = documents(LEAD).unwrap();
    all.push(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}}));
    all.extend_from_slice(objects);
    rehearsal::apply(&admin, "platform", &all).await.unwrap();
    let up = |o: &Value| o["status"]["readyReplicas"].as_u64() == o["spec"]["replicas"].as_u64();
    of(&admin, "apps/v1", "Deployment", namespace).until("web", "to run", up).await;
    admin
}

/// Objects of a kind in a namespace; an empty one: of the cluster.
struct Of(Api<DynamicObject>);

fn of(client: &Client, version: &str, what: &str, namespace: &str) -> Of {
    Of(kind(client, version, what, (!namespace.is_empty()).then_some(namespace)))
}

impl Of {
    async fn until(&self, name: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        eventually(&self.0, name, &format!("{name} {what}"), DEADLINE, is).await.unwrap()
    }

    async fn until_gone(&self, name: &str) {
        let gone = rehearsal::await_condition(self.0.clone(), name, |o: Option<&DynamicObject>| o.is_none());
        let outcome = tokio::time::timeout(DEADLINE, gone).await;
        outcome.unwrap_or_else(|_| panic!("{name} is still there")).unwrap();
    }

    async fn until_none(&self, which: &str) {
        let params = ListParams::default().labels(which);
        let none = async {
            while !self.0.list(&params).await.unwrap().items.is_empty() {
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(DEADLINE, none)
            .await
            .unwrap_or_else(|_| panic!("{which}: some are still there"));
    }

    async fn delete(&self, name: &str) {
        self.0.delete(name, &DeleteParams::default()).await.unwrap();
    }
}

async fn isolated(stage: &SharedStage, namespace: &str, level: &str) {
    isolate(&stage.rig.cluster, namespace, level).await.unwrap();
    rehearsal::three_boroughs::isolated(&stage.rig.cluster, namespace).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealed_pods_stop_and_leave_every_service() {
    let stage = shared_stage(1).await;
    let name = "ends-sealed";
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": name},
        "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}});
    // Its pod, which never gets a node, bears the finalizer of the Job controller.
    let mut never = implant();
    never["nodeSelector"] = json!({"attack.example/none": "true"});
    never["restartPolicy"] = json!("Never");
    let job = json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "import", "namespace": name},
        "spec": {"template": {"spec": never}}});
    let objects = [
        service,
        job,
        deployment(name, "web", 2),
        workload(name, "StatefulSet", "db", 2),
        deployment(name, "aside", 1),
    ];
    let admin = lay_down(&stage, name, &objects).await;
    let slices = of(&admin, "discovery.k8s.io/v1", "EndpointSlice", name);
    let of_web = ListParams::default().labels("kubernetes.io/service-name=web");
    let ready = async |wanted: bool| loop {
        let all = slices.0.list(&of_web).await.unwrap();
        let endpoints =
            all.iter().any(|slice| slice.data["endpoints"].as_array().is_some_and(|all| !all.is_empty()));
        if endpoints == wanted {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    };
    tokio::time::timeout(DEADLINE, ready(true)).await.unwrap();

    isolated(&stage, name, "Sealed").await;
    let told = |o: &Value| {
        o["status"]["observedGeneration"] == o["metadata"]["generation"]
            && o["status"]["replicas"].as_u64().unwrap_or(0) == 0
    };
    of(&admin, "apps/v1", "Deployment", name).until("web", "to be told as stopped", told).await;
    of(&admin, "apps/v1", "StatefulSet", name).until("db", "to be told as stopped", told).await;
    let suspended =
        |o: &Value| condition(o, "Suspended") == "True" && o["status"]["active"].as_u64().unwrap_or(0) == 0;
    of(&admin, "batch/v1", "Job", name).until("import", "to be suspended", suspended).await;
    of(&admin, "v1", "Pod", name).until_none("").await;
    tokio::time::timeout(DEADLINE, ready(false)).await.expect("the Service still leads to what is gone");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_lead_deletes_is_gone_with_all_that_it_owns() {
    let stage = shared_stage(1).await;
    let name = "ends-deleted-from";
    let admin = lay_down(&stage, name, &[deployment(name, "web", 2)]).await;
    isolated(&stage, name, "Contained").await;
    let lead = stage.client(Identity::RecoveryLead).await;
    of(&lead, "apps/v1", "Deployment", name).delete("web").await;
    of(&admin, "apps/v1", "ReplicaSet", name).until_none("app=web").await;
    of(&admin, "v1", "Pod", name).until_none("app=web").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn volume_claim_deleted_by_a_lead_goes_after_its_pod() {
    let stage = shared_stage(1).await;
    let name = "ends-claimed";
    let volume = json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": "", "hostPath": {"path": "/data"},
        "claimRef": {"namespace": name, "name": "data"}}});
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": name}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": name, "resources": {"requests": {"storage": "1Gi"}}}});
    let mut spec = implant();
    spec["volumes"] = json!([{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]);
    let pod = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "keeper", "namespace": name}, "spec": spec});
    let admin = lay_down(&stage, name, &[volume, claim, pod, deployment(name, "web", 1)]).await;
    let (pods, claims) = (of(&admin, "v1", "Pod", name), of(&admin, "v1", "PersistentVolumeClaim", name));
    pods.until("keeper", "to run", |o| o["status"]["phase"] == "Running").await;
    isolated(&stage, name, "Contained").await;

    let lead = stage.client(Identity::RecoveryLead).await;
    of(&lead, "v1", "PersistentVolumeClaim", name).delete("data").await;
    claims.until("data", "to be marked as deleted", |o| o["metadata"]["deletionTimestamp"].is_string()).await;
    assert_eq!(
        get(&admin, &format!("/api/v1/namespaces/{name}/pods/keeper")).await.unwrap()["status"]["phase"],
        "Running"
    );
    of(&lead, "v1", "Pod", name).delete("keeper").await;
    claims.until_gone("data").await;
}

/// Somebody whose own finalizer is on an object.
fn owner(admin: &Client) -> Who {
    acting(admin, "system:serviceaccount:database-operator:database-operator", &[], false)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn namespace_deleted_by_a_lead_goes_before_its_quarantine() {
    let stage = shared_stage(1).await;
    let name = "ends-altogether";
    let kept = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "kept", "namespace": name, "finalizers": ["db.example/kept"]}});
    let objects = [kept, deployment(name, "web", 2), workload(name, "StatefulSet", "db", 1)];
    let admin = lay_down(&stage, name, &objects).await;
    isolated(&stage, name, "Contained").await;
    let stripped = attack(
        "take one's own finalizer away",
        format!("/api/v1/namespaces/{name}/configmaps/kept"),
        Ask::Merge(json!({"metadata": {"finalizers": null}})),
        FENCE,
    );
    let outcome = make(&owner(&admin), &stripped, false).await;
    assert!(matches!(outcome, Outcome::Refused(_)), "while nobody has deleted the namespace: {outcome:?}");

    let lead = stage.client(Identity::RecoveryLead).await;
    let (namespaces, quarantines) = (of(&lead, "v1", "Namespace", ""), of(&lead, KINDS, "Quarantine", ""));
    namespaces.delete(name).await;
    let pods = of(&admin, "v1", "Pod", name);
    pods.until_none("").await;
    // Its Quarantine ends with it: until then nobody is let in.
    quarantines.delete(name).await;
    let left = |o: &Value| {
        o["status"]["conditions"].to_string().contains("NamespaceFinalizersRemaining")
            && condition(o, "NamespaceFinalizersRemaining") == "True"
    };
    let ending = namespaces.until(name, "to wait for a finalizer", left).await;
    assert_eq!(ending["metadata"]["labels"]["resurgam.dev/isolation"], "contained");
    let there = quarantines.0.get(name).await.unwrap();
    assert!(there.metadata.deletion_timestamp.is_some());
    let outcome = make(&owner(&admin), &stripped, false).await;
    assert!(matches!(outcome, Outcome::Through), "{outcome:?}");
    namespaces.until_gone(name).await;
    quarantines.until_gone(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn quarantine_without_namespace_reports_it_and_can_be_deleted() {
    let stage = shared_stage(1).await;
    let name = "ends-first";
    lay_down(&stage, name, &[deployment(name, "web", 1)]).await;
    isolated(&stage, name, "Sealed").await;
    let lead = stage.client(Identity::RecoveryLead).await;
    let (namespaces, quarantines) = (of(&lead, "v1", "Namespace", ""), of(&lead, KINDS, "Quarantine", ""));
    namespaces.delete(name).await;
    namespaces.until_gone(name).await;
    let said = |o: &Value| o["status"]["conditions"].to_string().contains("NamespaceMissing");
    quarantines.until(name, "to say that its namespace is not there", said).await;
    quarantines.delete(name).await;
    quarantines.until_gone(name).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_released_is_free_again() {
    let stage = shared_stage(1).await;
    let name = "ends-released";
    let admin = lay_down(&stage, name, &[deployment(name, "web", 1)]).await;
    isolated(&stage, name, "Contained").await;
    let lead = stage.client(Identity::RecoveryLead).await;
    let quarantines = of(&lead, KINDS, "Quarantine", "");
    quarantines.delete(name).await;
    quarantines.until_gone(name).await;
    let up = Patch::Merge(json!({"spec": {"replicas": 2}}));
    let deployments = of(&admin, "apps/v1", "Deployment", name);
    deployments.0.patch("web", &PatchParams::default(), &up).await.unwrap();
    deployments.until("web", "to run twice", |o| o["status"]["readyReplicas"] == 2).await;
}

/// In a clean room of its own: quotas are counted, pods come anew; and what is granted by `operate` and `recover` goes this far.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clean_room_runs_under_a_quota_with_granted_operators() {
    let stage = shared_stage(1).await;
    let name = "ends-room";
    let grants = documents(
        "
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: ends-operate}
rules: [{apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [ends-room], verbs: [operate]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ends-operate}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ends-operate}
subjects: [{kind: ServiceAccount, name: database-operator, namespace: database-operator}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: ends-recover}
rules:
- {apiGroups: [resurgam.dev], resources: [quarantines], resourceNames: [ends-room], verbs: [recover]}
- {apiGroups: ['', networking.k8s.io], resources: [configmaps, pods, networkpolicies], verbs: [create]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: ends-recover}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: ends-recover}
subjects: [{kind: User, apiGroup: rbac.authorization.k8s.io, name: 'ends-plan'}]
",
    )
    .unwrap();
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "quota", "namespace": name},
        "spec": {"hard": {"pods": "5"}}});
    let main = json!({"apiVersion": "db.example/v1", "kind": "Database", "metadata": {"name": "main", "namespace": name}});
    let mut objects = grants;
    objects.extend([quota, main, deployment(name, "web", 1)]);
    let admin = lay_down(&stage, name, &objects).await;
    label(&stage.rig.cluster, name, "clean-room").await.unwrap();
    let pods = of(&admin, "v1", "Pod", name);
    let old = pods.0.list(&ListParams::default()).await.unwrap().items.remove(0);
    let old = old.metadata.name.unwrap();
    let core = format!("/api/v1/namespaces/{name}");
    let node = acting(&admin, "system:node:node-1", &["system:nodes", "system:authenticated"], false);
    let gone = attack("delete a pod", format!("{core}/pods/{old}"), Ask::Delete, FENCE);
    assert!(matches!(make(&node, &gone, false).await, Outcome::Through));
    pods.until_gone(&old).await;
    let again = |o: &Value| o["status"]["readyReplicas"] == 1;
    of(&admin, "apps/v1", "Deployment", name).until("web", "to have a pod anew", again).await;

    let operator = owner(&admin);
    let plan = acting(&admin, "ends-plan", &["system:authenticated"], false);
    let pod = || {
        Ask::Create(
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "new"}, "spec": implant()}),
        )
    };
    let up = || Ask::Merge(json!({"spec": {"replicas": 2}}));
    let note = || Ask::Merge(json!({"status": {"note": "well"}}));
    let config =
        |kind: &str| Ask::Create(json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": "new"}}));
    let allow = || {
        Ask::Create(
            json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "new"}, "spec": {"podSelector": {}, "ingress": [{}]}}),
        )
    };
    let apps = format!("/apis/apps/v1/namespaces/{name}/deployments");
    let net = format!("/apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies");
    let database = format!("/apis/db.example/v1/namespaces/{name}/databases/main");
    for (who, what, path, ask, passes) in [
        (&operator, "create a pod", format!("{core}/pods"), pod(), true),
        (&operator, "scale", format!("{apps}/web/scale"), up(), true),
        (&operator, "scale by a patch", format!("{apps}/web"), up(), true),
        (&operator, "tell the status of its own kind", format!("{database}/status"), note(), true),
        (&operator, "tell the status of a Deployment", format!("{apps}/web/status"), note(), false),
        (&operator, "delete a Deployment", format!("{apps}/web"), Ask::Delete, false),
        (&operator, "create a Secret", format!("{core}/secrets"), config("Secret"), false),
        (&operator, "allow traffic", net.clone(), allow(), false),
        (
            &operator,
            "ask for a token",
            format!("{core}/serviceaccounts/default/token"),
            Ask::Create(
                json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}),
            ),
            false,
        ),
        (&plan, "create a pod", format!("{core}/pods"), pod(), true),
        (&plan, "create a ConfigMap", format!("{core}/configmaps"), config("ConfigMap"), true),
        (&plan, "allow traffic", net, allow(), false),
    ] {
        let outcome = make(who, &attack(what, path, ask, FENCE), true).await;
        let as_wanted =
            if passes { matches!(outcome, Outcome::Through) } else { matches!(outcome, Outcome::Refused(_)) };
        assert!(as_wanted, "{what}, as {}: {outcome:?}", who.user);
    }
    // The same grants are none at another level.
    label(&stage.rig.cluster, name, "contained").await.unwrap();
    let until_refused = async {
        while !matches!(
            make(&operator, &attack("create a pod", format!("{core}/pods"), pod(), FENCE), true).await,
            Outcome::Refused(_)
        ) {}
    };
    tokio::time::timeout(DEADLINE, until_refused).await.unwrap();
    let outcome = make(
        &plan,
        &attack("create a ConfigMap", format!("{core}/configmaps"), config("ConfigMap"), FENCE),
        true,
    )
    .await;
    assert!(matches!(outcome, Outcome::Refused(_)), "{outcome:?}");
}

/// A StatefulSet may say that a claim goes with its pod. Stopped for an incident, it keeps it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sealing_deletes_no_volume_claim() {
    let stage = shared_stage(1).await;
    let name = "ends-keeping";
    let mut db = workload(name, "StatefulSet", "db", 1);
    db["spec"]["persistentVolumeClaimRetentionPolicy"] =
        json!({"whenScaled": "Delete", "whenDeleted": "Delete"});
    db["spec"]["volumeClaimTemplates"] = json!([{"metadata": {"name": "data"}, "spec": {
        "accessModes": ["ReadWriteOnce"], "storageClassName": "", "resources": {"requests": {"storage": "1Gi"}}}}]);
    let admin = lay_down(&stage, name, &[db, deployment(name, "web", 1)]).await;
    let claims = of(&admin, "v1", "PersistentVolumeClaim", name);
    claims.until("data-db-0", "to be there", |_| true).await;
    isolate(&stage.rig.cluster, name, "Sealed").await.unwrap();
    let zero = |o: &Value| o["spec"]["replicas"] == 0;
    of(&admin, "apps/v1", "StatefulSet", name).until("db", "to be asked for nothing", zero).await;
    of(&admin, "v1", "Pod", name).until_none("app=web").await;
    let kept = claims.0.get("data-db-0").await.unwrap();
    assert_eq!(kept.metadata.deletion_timestamp, None);
}
