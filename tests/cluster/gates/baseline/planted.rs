//! What an attacker plants, and what controllers, autoscalers and people do every day.

use super::*;

/// How something is changed, and changed back.
enum Act {
    /// An object that was not there.
    Create(Value),
    /// A merge patch of an object, and the one that undoes it.
    Patch { version: &'static str, kind: &'static str, name: &'static str, patch: Value, undo: Value },
    /// An object that is gone.
    Delete { version: &'static str, kind: &'static str, name: &'static str },
    /// Another container in a pod that runs, which the API server does not let anybody take out.
    Debug,
}

/// One tampering.
pub struct Tampering {
    /// Which.
    id: &'static str,
    act: Act,
    /// What the message names.
    named: Vec<String>,
}

fn tampering(id: &'static str, act: Act, named: &[&str]) -> Tampering {
    Tampering { id, act, named: named.iter().map(ToString::to_string).collect() }
}

/// A change of the containers of Deployment `web`, with that of the others left as they are.
fn of_web(id: &'static str, change: Value, field: &str) -> Tampering {
    let all = estate::objects();
    let web = all.iter().find(|object| object["kind"] == "Deployment").unwrap();
    let good = web["spec"]["template"]["spec"].clone();
    let mut container = good["containers"][0].clone();
    let mut spec = serde_json::Map::new();
    for (key, value) in change.as_object().unwrap() {
        match key.strip_prefix("main.") {
            Some(field) => container[field] = value.clone(),
            None => drop(spec.insert(key.clone(), value.clone())),
        }
    }
    let sidecar = spec.remove("sidecar");
    spec.insert("containers".to_owned(), Value::Array([container].into_iter().chain(sidecar).collect()));
    // What is not in the approved template is removed again.
    let mut undo = serde_json::Map::new();
    for key in spec.keys() {
        undo.insert(key.clone(), good.get(key).cloned().unwrap_or(Value::Null));
    }
    let wrap = |spec: serde_json::Map<String, Value>| json!({"spec": {"template": {"spec": spec}}});
    let act = Act::Patch {
        version: "apps/v1",
        kind: "Deployment",
        name: "web",
        patch: wrap(spec),
        undo: wrap(undo),
    };
    let field = format!("spec.template.spec.{field}");
    tampering(id, act, &["Deployment baseline-shop/web", &field])
}

fn patch(
    id: &'static str,
    (version, kind, name): (&'static str, &'static str, &'static str),
    patch: Value,
    undo: Value,
    named: &[&str],
) -> Tampering {
    tampering(id, Act::Patch { version, kind, name, patch, undo }, named)
}

fn create(id: &'static str, object: Value) -> Tampering {
    let kind = object["kind"].as_str().unwrap().to_owned();
    let name = object["metadata"]["name"].as_str().unwrap().to_owned();
    let place = object["metadata"]["namespace"].as_str().map_or_else(String::new, |of| format!("{of}/"));
    tampering(id, Act::Create(object), &[&format!("{kind} {place}{name}: it is not in the baseline")])
}

fn object(version: &str, kind: &str, name: &str, body: Value) -> Value {
    let mut object =
        json!({"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": SHOP}});
    object.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
    object
}

/// All of them, with fixed ids.
pub fn tamperings() -> Vec<Tampering> {
    const RBAC: &str = "rbac.authorization.k8s.io/v1";
    let implant = json!({"name": "implant", "image": "registry.example/implant:1"});
    let host = json!([{"name": "config", "configMap": {"name": "web"}}, {"name": "root", "hostPath": {"path": "/"}}]);
    let pod = json!({"containers": [implant], "automountServiceAccountToken": false});
    let outsider = json!([{"kind": "ServiceAccount", "name": "default", "namespace": OTHER}]);
    let role =
        |kind: &str, name: &str| json!({"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name});
    let cluster = |mut object: Value| {
        object["metadata"].as_object_mut().unwrap().remove("namespace");
        object
    };
    let hook = json!({"webhooks": [{
        "name": "implant.example.org", "admissionReviewVersions": ["v1"], "sideEffects": "None", "failurePolicy": "Ignore", "timeoutSeconds": 1,
        "clientConfig": {"url": "https://implant.example.org/"},
        "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": SHOP}},
        "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "resources": ["replicationcontrollers"], "operations": ["CREATE"]}],
    }]});
    let mut set = object(
        "apps/v1",
        "ReplicaSet",
        "miner",
        json!({"spec": {"replicas": 0, "selector": {"matchLabels": {"app": "miner"}},
        "template": {"metadata": {"labels": {"app": "miner"}}, "spec": {"containers": [implant]}}}}),
    );
    // An owner that is not there: its name and kind are, its UID is not.
    set["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps.implant.example/v1", "kind": "Deployment", "name": "web",
        "uid": "00000000-0000-4000-8000-000000000003", "controller": true, "blockOwnerDeletion": false}]);
    let mut token = object("v1", "Secret", "token", json!({"type": "kubernetes.io/service-account-token"}));
    token["metadata"]["annotations"] = json!({"kubernetes.io/service-account.name": "web"});
    let old = |value: &str| json!({"stringData": {"password": value}});
    vec![
        of_web("P01-image", json!({"main.image": "registry.example/implant:1"}), "containers.main.image"),
        of_web("P02-command", json!({"main.command": ["sh", "-c", "implant"]}), "containers.main.command"),
        of_web("P03-args", json!({"main.args": ["--port=81"]}), "containers.main.args"),
        of_web(
            "P04-env",
            json!({"main.env": [{"name": "LD_PRELOAD", "value": "/tmp/x.so"}]}),
            "containers.main.env",
        ),
        of_web("P05-init-container", json!({"initContainers": [implant]}), "initContainers"),
        of_web("P06-sidecar", json!({"sidecar": implant}), "containers.implant"),
        of_web("P07-host-path", json!({"volumes": host}), "volumes.root"),
        of_web("P08-host-network", json!({"hostNetwork": true}), "hostNetwork"),
        of_web("P09-host-pid", json!({"hostPID": true}), "hostPID"),
        of_web(
            "P10-privileged",
            json!({"main.securityContext": {"privileged": true}}),
            "containers.main.securityContext",
        ),
        of_web("P11-service-account", json!({"serviceAccountName": "default"}), "serviceAccount"),
        of_web(
            "P12-hook",
            json!({"main.lifecycle": {"postStart": {"exec": {"command": ["x"]}}}}),
            "containers.main.lifecycle",
        ),
        patch(
            "P13-config-map",
            ("v1", "ConfigMap", "web"),
            json!({"data": {"mode": "debug"}}),
            json!({"data": {"mode": "live"}}),
            &["ConfigMap baseline-shop/web: data.mode has another value"],
        ),
        patch(
            "P14-old-password",
            ("v1", "Secret", "password"),
            old("canary-hunter2-old"),
            old(CANARY),
            &["Secret baseline-shop/password: digests.password has another value"],
        ),
        patch(
            "P15-secret-key",
            ("v1", "Secret", "password"),
            json!({"stringData": {"more": "canary-hunter2-more"}}),
            json!({"data": {"more": null}}),
            &["Secret baseline-shop/password: digests.more was added"],
        ),
        create("P16-service-account", object("v1", "ServiceAccount", "backdoor", json!({}))),
        patch(
            "P17-automount",
            ("v1", "ServiceAccount", "web"),
            json!({"imagePullSecrets": [{"name": "theirs"}]}),
            json!({"imagePullSecrets": null}),
            &["ServiceAccount baseline-shop/web: imagePullSecrets was added"],
        ),
        create(
            "P18-role-binding",
            object(
                RBAC,
                "RoleBinding",
                "backdoor",
                json!({"roleRef": role("ClusterRole", "admin"), "subjects": outsider}),
            ),
        ),
        patch(
            "P19-role",
            (RBAC, "Role", "web"),
            json!({"rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "update"]}]}),
            json!({"rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]}),
            &["Role baseline-shop/web: rules[0].verbs was [\"get\"], is [\"get\",\"update\"]"],
        ),
        create(
            "P20-cluster-binding",
            cluster(object(
                RBAC,
                "ClusterRoleBinding",
                "baseline-backdoor",
                json!({"roleRef": role("ClusterRole", "edit"), "subjects": outsider}),
            )),
        ),
        create(
            "P21-cron-job",
            object(
                "batch/v1",
                "CronJob",
                "implant",
                json!({"spec": {"schedule": "* * * * *", "suspend": true, "jobTemplate": {"spec": {
            "template": {"spec": {"restartPolicy": "Never", "containers": [implant]}}}}}}),
            ),
        ),
        patch(
            "P22-schedule",
            ("batch/v1", "CronJob", "nightly"),
            json!({"spec": {"suspend": true}}),
            json!({"spec": {"suspend": false}}),
            &["CronJob baseline-shop/nightly: spec.suspend was false, is true"],
        ),
        create(
            "P23-mutating-webhook",
            cluster(object(
                "admissionregistration.k8s.io/v1",
                "MutatingWebhookConfiguration",
                "baseline-implant",
                hook.clone(),
            )),
        ),
        create(
            "P24-validating-webhook",
            cluster(object(
                "admissionregistration.k8s.io/v1",
                "ValidatingWebhookConfiguration",
                "baseline-implant",
                hook,
            )),
        ),
        patch(
            "P25-finalizer",
            ("apps/v1", "Deployment", "web"),
            json!({"metadata": {"finalizers": ["implant.example/keep"]}}),
            json!({"metadata": {"finalizers": null}}),
            &["Deployment baseline-shop/web: metadata.finalizers was added: [\"implant.example/keep\"]"],
        ),
        patch(
            "P26-quota",
            ("v1", "ResourceQuota", "all"),
            json!({"spec": {"hard": {"pods": "1000"}}}),
            json!({"spec": {"hard": {"pods": "50"}}}),
            &["ResourceQuota baseline-shop/all: spec.hard.pods was '50', is '1"],
        ),
        tampering(
            "P27-network-policy",
            Act::Delete { version: "networking.k8s.io/v1", kind: "NetworkPolicy", name: "web" },
            &["NetworkPolicy baseline-shop/web: it is in the baseline, and it is gone"],
        ),
        patch(
            "P28-service",
            ("v1", "Service", "web"),
            json!({"spec": {"externalIPs": ["198.51.100.7"]}}),
            json!({"spec": {"externalIPs": null}}),
            &["Service baseline-shop/web: spec.externalIPs was added"],
        ),
        patch(
            "P29-selector",
            ("v1", "Service", "web"),
            json!({"spec": {"selector": {"app": "implant"}}}),
            json!({"spec": {"selector": {"app": "web"}}}),
            &["Service baseline-shop/web: spec.selector.app was 'web', is 'implant'"],
        ),
        patch(
            "P30-ingress",
            ("networking.k8s.io/v1", "Ingress", "web"),
            json!({"metadata": {"annotations": {"nginx.ingress.kubernetes.io/server-snippet": "x"}}}),
            json!({"metadata": {"annotations": null}}),
            &["Ingress baseline-shop/web: metadata.annotations"],
        ),
        create(
            "P31-claim",
            object(
                "v1",
                "PersistentVolumeClaim",
                "loot",
                json!({"spec": {"accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": "1Gi"}}}}),
            ),
        ),
        create("P32-pod", object("v1", "Pod", "implant", json!({"spec": pod}))),
        create("P33-replica-set", set),
        create("P34-token", token),
        tampering(
            "P35-debug-container",
            Act::Debug,
            &["Pod baseline-shop/web-", "spec.ephemeralContainers was added"],
        ),
    ]
}

fn api(bench: &Bench, version: &str, of: &str) -> Api<kube::api::DynamicObject> {
    let is_of_cluster =
        of.starts_with("Cluster") || of.ends_with("WebhookConfiguration") || of == "Namespace";
    kind(&bench.administrator, version, of, (!is_of_cluster).then_some(SHOP))
}

/// Plants it, waits until the gate names it, and takes it back. Returns what the gate said.
pub async fn is_caught(bench: &Bench, tampering: &Tampering) -> String {
    let id = tampering.id;
    let mut undo: Option<Value> = None;
    let manager = PatchParams::default();
    match &tampering.act {
        Act::Create(object) => {
            let of = object["kind"].as_str().unwrap();
            let created = serde_json::from_value(object.clone()).unwrap();
            let api = api(bench, object["apiVersion"].as_str().unwrap(), of);
            api.create(&PostParams::default(), &created)
                .await
                .unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        Act::Patch { version, kind: of, name, patch, .. } => {
            let patched = api(bench, version, of).patch(name, &manager, &Patch::Merge(patch)).await;
            patched.unwrap_or_else(|error| panic!("{id}: {error}"));
        }
        Act::Delete { version, kind: of, name } => {
            let api = api(bench, version, of);
            let mut object = serde_json::to_value(api.get(name).await.unwrap()).unwrap();
            object["metadata"] = json!({"name": name, "namespace": SHOP});
            undo = Some(object);
            api.delete(name, &DeleteParams::default()).await.unwrap();
        }
        Act::Debug => {
            let pods: Api<k8s_openapi::api::core::v1::Pod> =
                Api::namespaced(bench.administrator.clone(), SHOP);
            let listed = pods.list(&kube::api::ListParams::default().labels("app=web")).await.unwrap();
            let name = listed.items[0].metadata.name.clone().unwrap();
            let container = json!({"name": "debug", "image": "registry.example/implant:1"});
            let patch = Patch::Strategic(json!({"spec": {"ephemeralContainers": [container]}}));
            pods.patch_ephemeral_containers(&name, &manager, &patch).await.unwrap();
        }
    }
    let mut last = None;
    let waiting = async {
        loop {
            let answer = bench.ask(Phase::Continuous).await;
            let is_named = tampering.named.iter().all(|part| answer.message.contains(part));
            if answer.verdict == Verdict::Fail && is_named {
                return format!("{id}: {}", answer.message);
            }
            last = Some(answer);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    let said = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    let Ok(said) = said else { panic!("{id} is not named as {:?}: {last:?}", tampering.named) };
    match &tampering.act {
        Act::Create(object) => {
            let of = object["kind"].as_str().unwrap();
            let api = api(bench, object["apiVersion"].as_str().unwrap(), of);
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            api.delete(object["metadata"]["name"].as_str().unwrap(), &now).await.unwrap();
        }
        Act::Patch { version, kind: of, name, undo, .. } => {
            api(bench, version, of).patch(name, &manager, &Patch::Merge(undo)).await.unwrap();
        }
        Act::Delete { .. } => {
            rehearsal::apply(&bench.administrator, "platform", &[undo.unwrap()]).await.unwrap()
        }
        Act::Debug => {
            let pods: Api<k8s_openapi::api::core::v1::Pod> =
                Api::namespaced(bench.administrator.clone(), SHOP);
            let web = kube::api::ListParams::default().labels("app=web");
            pods.delete_collection(&DeleteParams::default(), &web).await.unwrap();
        }
    }
    bench.passes(id).await;
    said
}

/// Makes ordinary changes, and asks the gate again and again. Returns how many changes there were.
pub async fn ordinary_changes(bench: &Bench) -> usize {
    let deployments = api(bench, "apps/v1", "Deployment");
    let sets = api(bench, "apps/v1", "StatefulSet");
    let manager = PatchParams::default();
    let mut changes = 0;
    for round in 0..25 {
        // An autoscaler, four times.
        for replicas in [2 + round % 5, 1 + round % 3, 4, 2] {
            let scale = Patch::Merge(json!({"spec": {"replicas": replicas}}));
            deployments.patch_scale("web", &manager, &scale).await.unwrap();
            changes += 1;
        }
        // More replicas of a database, each with a claim of its own.
        let scale = Patch::Merge(json!({"spec": {"replicas": 1 + round % 3}}));
        sets.patch_scale("db", &manager, &scale).await.unwrap();
        // A node that is drained.
        let pods: Api<k8s_openapi::api::core::v1::Pod> = Api::namespaced(bench.administrator.clone(), SHOP);
        let agents = kube::api::ListParams::default().labels("app=agent").limit(1);
        pods.delete_collection(&DeleteParams::default(), &agents).await.unwrap();
        // Somebody starts the nightly job by hand; its controller would make it alike.
        let cron = api(bench, "batch/v1", "CronJob").get("nightly").await.unwrap();
        let owner = json!([{"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": cron.metadata.uid, "controller": true}]);
        let mut job = object(
            "batch/v1",
            "Job",
            &format!("nightly-{round}"),
            json!({"spec": cron.data["spec"]["jobTemplate"]["spec"]}),
        );
        job["metadata"]["ownerReferences"] = owner;
        // A leader is elected, somebody restarts, and an operator reports.
        let lease = object(
            "coordination.k8s.io/v1",
            "Lease",
            &format!("leader-{round}"),
            json!({"spec": {"holderIdentity": "x"}}),
        );
        rehearsal::apply(&bench.administrator, "controllers", &[job, lease]).await.unwrap();
        let again = Patch::Merge(
            json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": format!("{round}")}}}}}),
        );
        deployments.patch("web", &manager, &again).await.unwrap();
        changes += 5;
        if round % 5 == 0 {
            let answer = bench.ask(Phase::Continuous).await;
            assert_eq!(answer.verdict, Verdict::Pass, "round {round}: {answer:?}");
        }
    }
    bench.passes("ordinary changes").await;
    changes
}
