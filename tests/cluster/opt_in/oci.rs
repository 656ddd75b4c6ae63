//! Step `apply` of OCI artifacts, from a real registry that wants a login.

use flate2::Compression;
use flate2::write::GzEncoder;
use rehearsal::{DEADLINE, eventually, kind, object, text};
use serde_json::{Value, json};

use super::apply::{granted, reported, writes};
use crate::bad_input::bench::{Bench, binding, role};
use crate::bad_input::registries::{self, LOGIN, blob, digest_of, push};

const ROUTES: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: routes}\ndata: {upstream: db}\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: api}\nspec: {selector: {app: web}, ports: [{port: 80}]}\n";
const FLUX: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";

/// A folder as Flux packs it.
fn archive(files: &[(&str, &str)]) -> Vec<u8> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::none()));
    for (name, content) in files {
        let mut header = tar::Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, content.as_bytes()).unwrap();
    }
    tar.into_inner().unwrap().finish().unwrap()
}

/// An estate whose account may apply ConfigMaps and Services to these services, and read the login of a registry.
async fn bench(case: &'static str, services: &[&str]) -> Bench {
    Bench::with(case, services, |all| {
        let rules = json!([{"apiGroups": [""], "resources": ["configmaps", "services"], "verbs": ["get", "create", "patch"]}]);
        let account = json!([{"kind": "ServiceAccount", "name": "recovery", "namespace": case}]);
        let [role_of, _] = granted(case, "apply", &rules);
        all.push(role_of);
        let to = |service: &&str| binding("ClusterRole", &format!("{case}-apply"), &format!("{case}-{service}"), &account);
        all.extend(services.iter().map(to));
        let auths = registries::real().map(|address| json!({address: {"auth": LOGIN}}));
        all.push(json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry", "namespace": case},
            "type": "kubernetes.io/dockerconfigjson",
            "stringData": {".dockerconfigjson": json!({"auths": auths.unwrap_or(json!({}))}).to_string()},
        }));
        let rules = json!([{"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["registry"], "verbs": ["get"]}]);
        all.push(role("Role", "registry", case, &rules));
        all.push(binding("Role", "registry", case, &account));
    })
    .await
}

fn step(reference: &str, has_login: bool) -> Value {
    let mut oci = json!({"reference": reference});
    if has_login {
        oci["pullSecret"] = json!({"name": "registry"});
    }
    json!({"name": "configure", "apply": {"oci": oci}})
}

#[tokio::test]
async fn artifact_is_applied_and_its_digest_is_reported() {
    if registries::real().is_none() {
        return;
    }
    let bench = bench("oci", &["db", "web"]).await;
    let layer = archive(&[("shop/b.yaml", ROUTES), ("shop/a.yaml", SERVICE), ("README.md", "# shop")]);
    let reference = push("allowed/shop", FLUX, &layer).await;
    let (mut db, mut web) = (bench.service("db", &[]), bench.service("web", &["db"]));
    db["restore"] = json!([step(&reference, true), {"name": "start", "scale": {}}]);
    // One YAML file, as `oras push` has it.
    let file = push("allowed/team/routes", "application/yaml", ROUTES.as_bytes()).await;
    web["restore"] = json!([step(&file, true), {"name": "start", "scale": {}}]);
    let plan = bench.plan("plan", json!([db, web]));
    bench.apply(&plan).await;
    bench.recovers("plan", "db").await;
    bench.recovers("plan", "web").await;
    for (of, name, service) in
        [("ConfigMap", "routes", "db"), ("Service", "api", "db"), ("ConfigMap", "routes", "web")]
    {
        let found =
            object(&kind(&bench.admin, "v1", of, Some(&bench.namespace(service))), name).await.unwrap();
        let managers = found["metadata"]["managedFields"].as_array().unwrap();
        let ours = |entry: &&Value| text(entry, "/manager").starts_with("resurgam-apply-configure-");
        assert_eq!(managers.iter().filter(ours).count(), 1, "{found}");
    }
    let (_, digest) = reference.split_once('@').unwrap();
    let applied =
        format!("2 objects applied, artifact {digest}: Service oci-db/api, ConfigMap oci-db/routes");
    reported(&bench, &applied).await;
    bench.judged(&plan).await;
}

#[tokio::test]
async fn artifact_that_cannot_be_had_is_named_and_writes_nothing() {
    let Some(address) = registries::real() else { return };
    let services = ["missing", "anonymous", "forbidden", "forged", "silent"];
    let bench = bench("ocibad", &services).await;
    let reference = push("allowed/good", FLUX, &archive(&[("a.yaml", ROUTES)])).await;
    // Somebody changed the registry's disk.
    let layer = archive(&[("a.yaml", &ROUTES.replace("db", "aa"))]);
    let forged = push("allowed/forged", FLUX, &layer).await;
    let other = archive(&[("a.yaml", &ROUTES.replace("db", "bb"))]);
    assert_eq!(layer.len(), other.len());
    std::fs::write(blob(&digest_of(&layer)), &other).unwrap();
    let none = format!("sha256:{}", "0".repeat(64));
    let silent = registries::silent();
    let allow = format!("--oci-allow {address}/elsewhere/shop");
    let cases = [
        ("missing", format!("{address}/allowed/good@{none}"), true, "StepFailed", "it is not there"),
        ("anonymous", reference.clone(), false, "StepFailed", "name a pullSecret"),
        ("forbidden", reference.replace("allowed/good", "elsewhere/shop"), true, "StepFailed", &*allow),
        ("forged", forged, true, "StepFailed", "with content of digest sha256:"),
        ("silent", format!("{silent}/shop@{none}"), false, "StepPending", "not read from"),
    ];
    let restored = cases.iter().map(|(service, reference, has_login, ..)| {
        let mut of = bench.service(service, &[]);
        of["restore"] = json!([step(reference, *has_login), {"name": "start", "scale": {}}]);
        of
    });
    let plan = bench.plan("plan", restored.collect());
    bench.apply(&plan).await;
    for (service, reference, _, reason, words) in &cases {
        let (name, _) = reference.split_once('@').unwrap();
        bench.says("plan", service, reason, &["configure", &format!("artifact {name}: "), words]).await;
        assert_eq!(writes(&bench.namespace(service), "configmaps").await, [], "{service}");
    }
    // What is wrong is put right, and a person has it tried again.
    std::fs::write(blob(&digest_of(&layer)), &layer).unwrap();
    rehearsal::retry(&bench.lead().await, "ocibad", "plan", "forged", "the registry is restored")
        .await
        .unwrap();
    let routes = kind(&bench.admin, "v1", "ConfigMap", Some("ocibad-forged"));
    let applied = |routes: &Value| routes["data"]["upstream"] == "aa";
    eventually(&routes, "routes", "the artifact to be applied", DEADLINE, applied).await.unwrap();
}
