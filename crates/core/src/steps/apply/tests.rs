use serde_json::json;

use super::*;

fn context() -> StepContext {
    StepContext {
        plan_namespace: "recovery".to_owned(),
        plan: "plan".to_owned(),
        service: "shop".to_owned(),
        step: "config".to_owned(),
        namespaces: vec!["shop".to_owned()],
        ..StepContext::default()
    }
}

fn spec() -> ApplySpec {
    serde_json::from_value(json!({"configMaps": [{"name": "manifests"}]})).unwrap()
}

fn map(values: &[(&str, &str)]) -> Option<ConfigMap> {
    let data = values.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Some(ConfigMap { data: Some(data), ..ConfigMap::default() })
}

fn read(text: &str) -> Result<Manifests, String> {
    manifests(&spec(), &context(), &[map(&[("all", text)])]).map_err(|error| error.to_string())
}

const ROUTE: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: routes}\ndata: {a: b}\n";
const SERVICE: &str = "apiVersion: v1\nkind: Service\nmetadata: {name: api, namespace: shop}\n";

#[test]
fn all_documents_are_read_in_the_order_of_their_keys() {
    let both = format!("---\n{SERVICE}---\n# nothing\n---\n{ROUTE}");
    let of = |values: &[(&str, &str)]| manifests(&spec(), &context(), &[map(values)]).unwrap();
    let read = of(&[("b.yaml", "apiVersion: v1\nkind: Service\nmetadata: {name: last}"), ("a.yaml", &both)]);
    let titles: Vec<String> = read.objects.iter().map(Manifest::title).collect();
    assert_eq!(titles, ["Service shop/api", "ConfigMap shop/routes", "Service shop/last"]);
    assert_eq!(read.objects[1].body["metadata"]["namespace"], "shop", "the service's only one");
    let message = applied(&read);
    let start = format!("3 objects applied, manifests {}: Service shop/api, ConfigMap", read.digest);
    assert!(message.starts_with(&start), "{message}");
}

/// As `{{range $k, $v := .data}}{{$k}} {{len $v}}…` writes it: docs/steps.md.
#[test]
fn digest_is_of_keys_lengths_and_values() {
    let read = read(ROUTE).unwrap();
    let text = format!("all {}\n{ROUTE}\n", ROUTE.len());
    assert_eq!(read.digest, digest_of_bytes(text.as_bytes()));
    let approved = ApplySpec { digest: Some(read.digest), ..spec() };
    assert!(manifests(&approved, &context(), &[map(&[("all", ROUTE)])]).is_ok());
    let error = manifests(&approved, &context(), &[map(&[("all", SERVICE)])]).unwrap_err().to_string();
    assert!(error.contains("have digest sha256:") && error.contains("the plan approves sha256:"), "{error}");
}

#[test]
fn what_is_not_the_steps_to_apply_is_refused_by_name() {
    let of = |kind: &str, metadata: &str| format!("apiVersion: v1\nkind: {kind}\nmetadata: {metadata}\n");
    let ours = "apiVersion: resurgam.dev/v1alpha1\nkind: Decision\nmetadata: {name: x}\n";
    for (text, words) in [
        (of("Namespace", "{name: shop}"), "Namespace shop: a step changes no Namespace"),
        (ours.to_owned(), "Decision x: a step changes no Decision"),
        (ours.replace("Decision", "Quarantine"), "Quarantine x: a step changes no Quarantine"),
        (of("Secret", "{name: s}"), "Secret s: who may read the manifests would read this Secret"),
        (
            of("Service", "{name: s, namespace: bank}"),
            "is for namespace bank, which is none of the service's",
        ),
        (of("Service", "{generateName: s-}"), "Service has no metadata.name"),
        (of("Service", "{name: s, uid: u}"), "it is an object of a cluster"),
        (of("Service", "{name: ../s}"), "is no name of a Service"),
        ("kind: Service\nmetadata: {name: s}".to_owned(), "it has no apiVersion"),
        ("[]".to_owned(), "it has no apiVersion"),
        ("a: [".to_owned(), "is no YAML"),
        (
            "apiVersion: v1\nkind: ServiceList\nmetadata: {name: s}\nitems: []".to_owned(),
            "each object of the list",
        ),
        (format!("{ROUTE}---\n{ROUTE}"), "ConfigMap shop/routes is there twice"),
        ("# nothing".to_owned(), "hold no manifest"),
        (
            "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nmetadata: {name: k}"
                .to_owned(),
            "Kustomization k is for kustomize",
        ),
    ] {
        let error = read(&text).unwrap_err();
        assert!(error.contains(words), "{text}: {error}");
    }
    let error = read(&format!("{SERVICE}---\n{}", of("Namespace", "{name: x}"))).unwrap_err();
    assert!(error.starts_with("ConfigMap recovery/manifests, key all, object 2: "), "{error}");
    let two = StepContext { namespaces: vec!["a".to_owned(), "b".to_owned()], ..context() };
    let error = manifests(&spec(), &two, &[map(&[("all", ROUTE)])]).unwrap_err().to_string();
    assert!(error.contains("ConfigMap routes must name its namespace: one of a, b"), "{error}");
}

#[test]
fn missing_and_too_large_inputs_are_refused() {
    let of = |map: Option<ConfigMap>| manifests(&spec(), &context(), &[map]).unwrap_err().to_string();
    assert_eq!(of(None), "ConfigMap recovery/manifests does not exist");
    let large = format!("{ROUTE}# {}", "x".repeat(BYTES_LIMIT));
    assert!(of(map(&[("all", &large)])).contains("have more than 1048576 bytes"));
    let many: Vec<String> = (0..=OBJECTS_LIMIT).map(|n| ROUTE.replace("routes", &format!("r{n}"))).collect();
    assert!(of(map(&[("all", &many.join("---\n"))])).contains("there are more than 200 objects"));
    let binary = ConfigMap {
        binary_data: Some([("all".to_owned(), k8s_openapi::ByteString(Vec::new()))].into()),
        ..ConfigMap::default()
    };
    assert!(of(Some(binary)).contains("key all is binary"));
}

#[test]
fn artifact_is_read_as_config_maps_are_and_names_its_digest() {
    let digest = format!("sha256:{}", "0".repeat(64));
    let reference: Reference = format!("registry.example/team/shop@{digest}").parse().unwrap();
    let of = |files: &[(&str, &str)]| {
        let files = files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect();
        artifact_manifests(&reference, &context(), &files).map_err(|error| error.to_string())
    };
    let read = of(&[("b.yaml", ROUTE), ("a.yaml", SERVICE)]).unwrap();
    let start = format!("2 objects applied, artifact {digest}: Service shop/api, ConfigMap shop/routes");
    assert_eq!(applied(&read), start);
    let secret = ROUTE.replace("ConfigMap", "Secret");
    let error = of(&[("a.yaml", SERVICE), ("b.yaml", &secret)]).unwrap_err();
    let start = "artifact registry.example/team/shop, file b.yaml, object 2: Secret routes: who may read";
    assert!(error.starts_with(start), "{error}");
    assert!(of(&[]).unwrap_err().contains("holds no manifest"));
    let large = format!("{ROUTE}# {}", "x".repeat(BYTES_LIMIT));
    assert!(of(&[("a.yaml", &large)]).unwrap_err().contains("have more than 1048576 bytes"));
}

#[test]
fn step_that_can_never_apply_anything_is_a_plan_problem() {
    let shop = ["shop".to_owned()];
    assert!(super::problem(&spec(), &[]).is_some() && super::problem(&spec(), &shop).is_none());
    let oci = |name: &str| {
        let reference = format!("{name}@sha256:{}", "0".repeat(64));
        let spec = serde_json::from_value(json!({"oci": {"reference": reference}})).unwrap();
        super::problem(&spec, &shop)
    };
    assert_eq!(oci("registry.example/team/shop"), None);
    assert!(oci("team/shop").unwrap().contains("is no REGISTRY/REPOSITORY@sha256:…"), "no registry is named");
}

#[test]
fn conflict_names_the_field_and_its_manager() {
    let status = |causes: &[(&str, &str)]| -> Status {
        let cause = |(manager, field): &(&str, &str)| {
            let message = format!("conflict with \"{manager}\" using apps/v1");
            json!({"reason": "FieldManagerConflict", "message": message, "field": field})
        };
        let causes: Vec<Value> = causes.iter().map(cause).collect();
        serde_json::from_value(json!({"code": 409, "details": {"causes": causes}})).unwrap()
    };
    let of = |causes: &[(&str, &str)]| conflict("Deployment shop/api", &status(causes));
    let own = [("resurgam-isolation", ".spec.replicas"), ("resurgam-step", ".spec.template")];
    assert_eq!(of(&own), Some(Conflict::Own));
    assert_eq!(of(&[]), None, "another write came between");
    let Some(Conflict::Others(message)) = of(&[own[0], ("kubectl", ".spec.paused")]) else { panic!() };
    let start = "Deployment shop/api: .spec.paused belongs to 'kubectl': take the field out of the manifest";
    assert!(message.starts_with(start), "{message}");
    let mut unnamed = status(&own);
    unnamed.details.as_mut().unwrap().causes[0].message = String::new();
    let Some(Conflict::Others(message)) = conflict("x", &unnamed) else { panic!() };
    assert!(message.contains("belongs to 'a manager unknown'"), "{message}");
}

#[test]
fn manager_is_the_steps_own_in_every_attempt() {
    let own = manager(&context());
    assert!(own.starts_with("resurgam-apply-config-"), "{own}");
    let others = [
        StepContext { plan: "other".to_owned(), ..context() },
        StepContext { service: "other".to_owned(), ..context() },
        StepContext { plan_namespace: "other".to_owned(), ..context() },
    ];
    assert!(others.iter().all(|other| manager(other) != own));
    assert_eq!(manager(&StepContext { attempt: 7, plan_uid: "u".to_owned(), ..context() }), own);
    assert!(
        manager(&StepContext { step: "x".repeat(63), ..context() }).len() <= 128,
        "the API server's limit"
    );
}

#[test]
fn object_that_is_gone_or_overwritten_fails_the_step() {
    let manifests = read(ROUTE).unwrap();
    let object = |operation: &str| -> DynamicObject {
        serde_json::from_value(json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": "routes", "managedFields": [{"manager": manager(&context()), "operation": operation}]},
        }))
        .unwrap()
    };
    assert_eq!(judge(&manifests, &[Some(object("Apply"))], &context()), StepProgress::Succeeded);
    for found in [vec![], vec![None], vec![Some(object("Update"))]] {
        let StepProgress::Failed(message) = judge(&manifests, &found, &context()) else { panic!() };
        assert!(message.contains("ConfigMap shop/routes"), "{message}");
    }
}

#[test]
fn manifest_that_does_not_fit_its_kind_is_no_transient_error() {
    let of = |code: u16, message: &str| {
        is_malformed(&Status { code, message: message.to_owned(), ..Status::default() })
    };
    assert!(of(
        500,
        "failed to create typed patch object (a/b; v1, Kind=Service): .spec.x: field not declared in schema"
    ));
    assert!(!of(500, "etcdserver: request timed out") && !of(409, "failed to create typed patch object"));
}
