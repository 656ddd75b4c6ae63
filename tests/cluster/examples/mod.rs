//! What `examples/` promises: it fits together, and a real API server takes it.

mod bad_day;
mod cluster;
mod failures;
mod judged;
mod manifests;
mod restoration;

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::ConfigMap;
use resurgam::access::{Access, Right};
use resurgam::api::{Quarantine, QuarantineLevel, RecoveryPlan, ServiceSpec};
use resurgam::plan::Plan;
use serde_json::Value;
use sha2::{Digest, Sha256};

use manifests::{Manifest, SCALABLE, WORKLOADS, folder, lost, plan, read, smallest, three_boroughs};

/// A service's namespaces: by default the one of its own name.
fn namespaces(service: &ServiceSpec) -> Vec<String> {
    match &service.namespaces {
        Some(named) => named.iter().map(|n| n.0.clone()).collect(),
        None => vec![service.name.clone()],
    }
}

/// The digests in the ConfigMap `approved-images`.
fn approved(manifests: &[Manifest]) -> BTreeSet<String> {
    let list = manifests.iter().find(|m| m.kind() == "ConfigMap" && m.name() == "approved-images").unwrap();
    let values = list.parse::<ConfigMap>().data.unwrap_or_default();
    let lines = values.values().flat_map(|value| value.lines());
    lines.map(|line| line.split('#').next().unwrap_or_default().trim().to_owned()).collect()
}

fn digest(image: &str) -> &str {
    let (_, digest) = image.split_once('@').unwrap_or_else(|| panic!("{image} is not pinned"));
    assert!(digest.len() == 71 && digest.starts_with("sha256:"), "{image}");
    digest
}

/// `repository:tag` of an image of the examples' registry.
fn name_and_version(image: &str) -> &str {
    let (name, _) = image.split_once('@').unwrap();
    name.strip_prefix("registry.shared.example/").unwrap_or_else(|| panic!("{image}: another registry"))
}

#[test]
fn every_manifest_says_only_what_its_type_knows() {
    for manifest in three_boroughs() {
        manifest.check();
    }
    smallest().iter().chain(&read("three-boroughs/tampered")).for_each(Manifest::check);
}

#[test]
fn a_misspelt_field_would_be_found() {
    let plan = read("three-boroughs/plan.yaml").remove(0);
    let mut refused = plan.value.clone();
    refused["spec"]["maxParalel"] = 3.into();
    let error = serde_json::from_value::<RecoveryPlan>(refused).unwrap_err();
    assert!(error.to_string().contains("maxParalel"), "{error}");
    // A kind that takes unknown fields loses them, and that shows.
    let mut written = plan.value.clone();
    written["metadata"]["lables"] = serde_json::json!({"a": "b"});
    let read =
        serde_json::to_value(serde_json::from_value::<RecoveryPlan>(written.clone()).unwrap()).unwrap();
    assert_eq!(lost(&written, &read).as_deref(), Some("/metadata/lables"));
}

#[test]
fn every_planned_namespace_has_one_service_and_a_quarantine() {
    for manifests in [three_boroughs(), smallest()] {
        let names = |kind: &str| -> BTreeSet<String> {
            manifests.iter().filter(|m| m.kind() == kind).map(|m| m.name().to_owned()).collect()
        };
        let (existing, quarantined) = (names("Namespace"), names("Quarantine"));
        let mut planned = BTreeSet::new();
        for service in plan(&manifests).spec.services {
            for namespace in namespaces(&service) {
                assert!(
                    existing.contains(&namespace),
                    "{}: namespace {namespace} is not there",
                    service.name
                );
                assert!(planned.insert(namespace.clone()), "{namespace} belongs to two services");
            }
        }
        assert_eq!(planned, quarantined, "Quarantines are of the plan's namespaces, no more and no fewer");
        for quarantine in manifests.iter().filter(|m| m.kind() == "Quarantine") {
            let spec = quarantine.parse::<Quarantine>().spec;
            assert_eq!(spec.incident_ref.unwrap().name, "nov-2025", "{quarantine}");
        }
    }
}

#[test]
fn some_namespaces_are_contained_and_most_are_sealed() {
    let levels: Vec<QuarantineLevel> = read("three-boroughs/quarantines.yaml")
        .iter()
        .map(|q| q.parse::<Quarantine>().spec.isolation)
        .collect();
    assert_eq!(levels.iter().filter(|l| **l == QuarantineLevel::Contained).count(), 2);
    assert_eq!(levels.len(), 32);
}

#[test]
fn dependencies_exist_and_form_no_cycle() {
    for manifests in [three_boroughs(), smallest()] {
        let services = plan(&manifests).spec.services;
        let node = |service: &ServiceSpec| {
            service.together.as_ref().map_or(service.name.clone(), |group| format!("group {}", group.0))
        };
        let nodes: BTreeMap<String, String> = services.iter().map(|s| (s.name.clone(), node(s))).collect();
        assert_eq!(nodes.len(), services.len(), "names are unique");
        let mut waits: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for service in &services {
            let entry = waits.entry(node(service)).or_default();
            for dependency in &service.depends_on {
                let on = nodes.get(&dependency.0).unwrap_or_else(|| {
                    panic!("{} depends on {}, which is not there", service.name, dependency.0)
                });
                entry.insert(on.clone());
            }
        }
        for (node, on) in &mut waits {
            on.remove(node);
        }
        while !waits.is_empty() {
            let free: BTreeSet<String> =
                waits.iter().filter(|(_, on)| on.is_empty()).map(|(node, _)| node.clone()).collect();
            assert!(!free.is_empty(), "a cycle among {:?}", waits.keys());
            waits.retain(|node, _| !free.contains(node));
            waits.values_mut().for_each(|on| on.retain(|node| !free.contains(node)));
        }
    }
}

#[test]
fn the_operator_finds_nothing_wrong_with_the_plans() {
    for manifests in [three_boroughs(), smallest()] {
        let compiled = Plan::from_object(&plan(&manifests));
        assert_eq!(compiled.problems, []);
        assert!(compiled.incident.is_some(), "{} is armed", compiled.name);
    }
}

#[test]
fn example_has_thirty_services_tiers_a_group_and_cross_edges() {
    let services = plan(&three_boroughs()).spec.services;
    assert_eq!(services.len(), 32);
    let tiers: BTreeSet<i32> = services.iter().filter_map(|s| s.tier).collect();
    assert!((0..=6).all(|tier| tiers.contains(&tier)), "{tiers:?}");
    let core: Vec<&str> = services.iter().filter(|s| s.together.is_some()).map(|s| s.name.as_str()).collect();
    assert_eq!(core, ["directory-db", "identity", "dns"]);
    assert!(services.iter().all(|s| s.title.is_some() && s.owner.is_some()));
    let council = |name: &str| name.split('-').next().unwrap_or_default().to_owned();
    let across = services.iter().filter(|s| s.name.starts_with("lbhf-")).flat_map(|s| &s.depends_on);
    let across: BTreeSet<String> = across.map(|d| council(&d.0)).collect();
    assert!(across.contains("rbkc") && across.contains("wcc"), "{across:?}");
    let external: Vec<&ServiceSpec> = services.iter().filter(|s| namespaces(s).is_empty()).collect();
    assert_eq!(external.len(), 1);
    assert!(external[0].ungated.is_some());
    assert!(services.iter().all(|s| !s.depends_on.iter().any(|d| d.0 == external[0].name)), "it is the last");
}

#[test]
fn estate_has_every_workload_kind_and_scalable_services() {
    let manifests = three_boroughs();
    let workloads: Vec<&Manifest> = manifests.iter().filter(|m| m.pods().is_some()).collect();
    let kinds: BTreeSet<&str> = workloads.iter().map(|m| m.kind()).collect();
    assert_eq!(kinds, WORKLOADS.into_iter().collect());
    let pods: i64 = workloads.iter().filter_map(|m| m.pods()).map(|(_, count)| count).sum();
    assert!(pods <= 70, "{pods} pods are too many for a demo");
    for service in plan(&manifests).spec.services {
        for namespace in namespaces(&service) {
            let scalable =
                workloads.iter().any(|m| m.namespace() == namespace && SCALABLE.contains(&m.kind()));
            assert!(scalable, "{}: nothing in {namespace} can be scaled", service.name);
        }
    }
    let policies: BTreeSet<&str> =
        manifests.iter().filter(|m| m.kind() == "NetworkPolicy").map(Manifest::namespace).collect();
    assert!(policies.len() >= 5, "allow policies that must be recorded and restored: {policies:?}");
}

#[test]
fn every_image_is_pinned_approved_and_matches_its_comment() {
    for manifests in [three_boroughs(), smallest()] {
        let approved = approved(&manifests);
        let mut used = BTreeSet::new();
        for manifest in &manifests {
            for image in manifest.images() {
                let expected = Sha256::digest(name_and_version(&image));
                let expected: String = expected.iter().map(|byte| format!("{byte:02x}")).collect();
                assert_eq!(digest(&image), format!("sha256:{expected}"), "{manifest}");
                assert!(approved.contains(digest(&image)), "{manifest}: {image} is not approved");
                used.insert(digest(&image).to_owned());
            }
        }
        assert_eq!(used, approved, "nothing is approved that nobody uses");
    }
}

#[test]
fn tampering_changes_two_images_and_the_repair_reverts_them() {
    let manifests = three_boroughs();
    let approved = approved(&manifests);
    let find = |wanted: &Manifest| {
        let same = |m: &&Manifest| {
            (m.kind(), m.namespace(), m.name()) == (wanted.kind(), wanted.namespace(), wanted.name())
        };
        manifests.iter().find(same).unwrap_or_else(|| panic!("{wanted} is not in the estate"))
    };
    let (tampered, repairs) = (read("three-boroughs/tampered"), read("three-boroughs/repair"));
    let pointer = "/spec/template/spec/containers/0/image";
    let where_: Vec<&str> = tampered.iter().map(Manifest::namespace).collect();
    assert_eq!(where_, ["rbkc-parking", "shared-integration"]);
    for (bad, repair) in tampered.iter().zip(&repairs) {
        let good = find(bad);
        assert_eq!(
            name_and_version(bad.text(pointer)),
            name_and_version(good.text(pointer)),
            "the tag is the same"
        );
        assert!(!approved.contains(digest(bad.text(pointer))), "{bad}");
        let mut mended = bad.value.clone();
        *mended.pointer_mut(pointer).unwrap() = good.text(pointer).into();
        assert_eq!(mended, good.value, "{bad}: only the image differs");

        // The repair is a part of the good manifest: the image, and never replicas, as the namespace is sealed at zero.
        assert_eq!(repair.text(pointer), good.text(pointer), "{repair}");
        assert_eq!(lost(&repair.value, &good.value), None, "{repair}");
        assert_eq!(repair.value.pointer("/spec/replicas"), None, "{repair}");
    }
    // What was planted beside images: approved images only, or the gate on images would have caught it.
    let planted = read("three-boroughs/planted");
    let [payroll] = &repairs[tampered.len()..] else { panic!("repairs of what was not tampered with") };
    assert_eq!(lost(&payroll.value, &find(payroll).value), None, "{payroll}");
    assert!(planted.iter().all(|of| of.namespace() == payroll.namespace()));
    for manifest in planted.iter().filter(|of| of.pods().is_some()) {
        manifest.check();
        let text = manifest.value.to_string();
        let images: Vec<&str> =
            text.split("\"image\":\"").skip(1).filter_map(|at| at.split('"').next()).collect();
        assert!(
            !images.is_empty() && images.iter().all(|image| approved.contains(digest(image))),
            "{manifest}"
        );
    }
}

/// After `resurgam access examples/smallest.yaml > examples/smallest-access.yaml` it is.
#[test]
fn the_committed_access_is_what_the_command_prints() {
    let file = folder().join("smallest.yaml");
    let out =
        std::process::Command::new(env!("CARGO_BIN_EXE_resurgam")).arg("access").arg(file).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&out.stderr), "");
    let committed = std::fs::read_to_string(folder().join("smallest-access.yaml")).unwrap();
    assert_eq!(String::from_utf8(out.stdout).unwrap(), committed);
}

/// What somebody wrote by hand for the larger plan lacks nothing of what that plan needs.
#[test]
fn the_rights_of_the_three_boroughs_are_what_its_plan_needs() {
    let manifests = three_boroughs();
    assert_eq!(lacking(&manifests, &plan(&manifests)), [""; 0]);
}

/// Returns the rights that a plan needs, of its account and of those that write for its steps, and no manifest grants.
fn lacking(manifests: &[Manifest], plan: &RecoveryPlan) -> Vec<String> {
    let access = Access::from_plan(&Plan::from_object(plan));
    let own = access.rights.keys().map(|right| (&access.namespace, &access.account, right));
    let writers = access.writers.iter();
    let others = writers.flat_map(|(who, all)| all.keys().map(|right| (&who.namespace, &who.name, right)));
    own.chain(others)
        .filter(|(namespace, account, right)| !is_granted(manifests, namespace, account, right))
        .map(|(namespace, account, right)| format!("{namespace}/{account} {right}"))
        .collect()
}

/// Returns whether a manifest grants a right to an account.
fn is_granted(manifests: &[Manifest], namespace: &str, account: &str, right: &Right) -> bool {
    let texts = |of: &Value| -> BTreeSet<String> {
        of.as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let bindings = manifests.iter().filter(|m| {
        m.kind().ends_with("RoleBinding")
            && m.text("/subjects/0/name") == account
            && m.text("/subjects/0/namespace") == namespace
    });
    // A binding of no namespace counts everywhere.
    let here = |place: &str| place.is_empty() || Some(place) == right.namespace.as_deref();
    let bound: BTreeSet<&str> = bindings
        .filter(|binding| here(binding.namespace()))
        .map(|binding| binding.text("/roleRef/name"))
        .collect();
    let roles = manifests.iter().filter(|m| m.kind().ends_with("Role") && bound.contains(m.name()));
    let mut rules =
        roles.filter(|role| here(role.namespace())).flat_map(|role| role.value["rules"].as_array().unwrap());
    rules.any(|rule| {
        let names = texts(&rule["resourceNames"]);
        texts(&rule["apiGroups"]).contains(&right.group)
            && texts(&rule["resources"]).contains(&right.resource)
            && texts(&rule["verbs"]).contains(right.verb)
            && (names.is_empty() || right.name.as_ref().is_some_and(|name| names.contains(name)))
    })
}

#[test]
fn examples_grant_no_wildcard_but_to_list_and_recover_all() {
    for manifests in [three_boroughs(), smallest()] {
        let rules = |m: &Manifest| m.value["rules"].as_array().cloned().unwrap_or_default();
        let mut recover = BTreeSet::new();
        for role in manifests.iter().filter(|m| m.kind().ends_with("Role")) {
            for rule in rules(role) {
                // A baseline has to see whatever kind was planted. Nothing else may be done to everything.
                let only_lists = rule["verbs"] == serde_json::json!(["list"]) && role.kind() == "Role";
                assert!(only_lists || !rule.to_string().contains("\"*\""), "{role}: {rule}");
                if rule["verbs"].to_string().contains("\"recover\"") {
                    let names = rule["resourceNames"].as_array().cloned().unwrap_or_default();
                    recover.extend(names.iter().filter_map(|n| n.as_str().map(str::to_owned)));
                }
            }
        }
        let quarantines: BTreeSet<String> =
            manifests.iter().filter(|m| m.kind() == "Quarantine").map(|m| m.name().to_owned()).collect();
        assert_eq!(recover, quarantines);
    }
}

#[test]
fn what_is_written_into_a_namespace_comes_before_its_quarantine() {
    for manifests in [three_boroughs(), smallest()] {
        for quarantine in manifests.iter().filter(|m| m.kind() == "Quarantine") {
            let at = manifests.iter().position(|m| std::ptr::eq(m, quarantine)).unwrap();
            let last = manifests.iter().rposition(|m| m.namespace() == quarantine.name()).unwrap();
            assert!(last < at, "{} would be refused by the fence", manifests[last]);
        }
    }
}
