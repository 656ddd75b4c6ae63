use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;

use super::*;
use crate::api::quarantine::ControlState;
use crate::isolation::policies;
use crate::isolation::probe::ProbeResult;
use installation::{Kind, State};
use kubernetes::StaticGuard;

const WIDTH: usize = 110;

fn now() -> Timestamp {
    "2026-11-30T03:00:00Z".parse().unwrap()
}

/// The page, without what each release changes.
fn shown(facts: &Facts) -> String {
    let page = anstream::adapter::strip_str(&render::text(&judge(facts, now()), WIDTH)).to_string();
    let own = policies::VERSION;
    page.replace(&format!("version {own}"), "version N")
        .replace(&format!("this is {own}"), "this is N")
        .replace(&format!("version  {}", version()), "version  X.Y.Z")
}

fn strings(all: &[&str]) -> Vec<String> {
    all.iter().map(|text| (*text).to_owned()).collect()
}

fn forbidden<T>(what: &str) -> Fact<T> {
    Err(format!(
        "you may not do this: list {what}. Run this command as a cluster administrator, for instance"
    ))
}

fn unread_rights() -> rights::Facts {
    rights::Facts { holders: forbidden("clusterroles"), releasers: forbidden("clusterroles") }
}

/// StorageClasses, and whether each is the default one.
fn classes(all: &[(&str, bool)]) -> BTreeMap<String, bool> {
    all.iter().map(|(name, default)| ((*name).to_owned(), *default)).collect()
}

fn lease(seconds_ago: i64, annotations: serde_json::Value) -> Fact<Option<Lease>> {
    let renewed = now() - k8s_openapi::jiff::SignedDuration::from_secs(seconds_ago);
    let lease = json!({
        "metadata": {"name": "resurgam", "namespace": "resurgam-system", "annotations": annotations},
        "spec": {"holderIdentity": "resurgam-7c9f-1-a1", "leaseDurationSeconds": 15, "renewTime": renewed.to_string()},
    });
    Ok(Some(serde_json::from_value(lease).unwrap()))
}

fn store(failure: Option<&str>) -> serde_json::Value {
    let mut proof = json!({"store": "s3://council/evidence", "at": "2026-11-30T02:18:00Z"});
    if let Some(why) = failure {
        proof["failure"] = why.into();
    }
    json!({"resurgam.dev/version": version(), "resurgam.dev/evidence-store": proof.to_string()})
}

fn version() -> String {
    crate::version::full()
}

fn states(state: &State) -> BTreeMap<String, State> {
    let all = policies::all().unwrap();
    all.into_iter().filter_map(|p| Some((p.policy.metadata.name?, state.clone()))).collect()
}

fn kinds(kind: &Kind) -> BTreeMap<String, Kind> {
    crate::api::crds().into_iter().filter_map(|crd| Some((crd.metadata.name?, kind.clone()))).collect()
}

fn plan_rights(plan: &str) -> plans::PlanRights {
    plans::PlanRights {
        plan: format!("recovery/{plan}"),
        account: "recovery/restorer".to_owned(),
        exists: Ok(true),
        recover: Ok((Vec::new(), Vec::new())),
        impersonate: Ok(true),
    }
}

fn isolated(namespace: &str, state: ControlState, message: &str) -> isolation::Isolated {
    isolation::Isolated {
        namespace: namespace.to_owned(),
        level: crate::api::Isolation::Contained,
        network: Some((state, message.to_owned())),
    }
}

/// Everything is as it should be.
fn healthy() -> Facts {
    let groups = strings(&["cilium.io", "kustomize.toolkit.fluxcd.io", "velero.io"]);
    Facts {
        kubernetes: kubernetes::Facts {
            version: kubernetes::Version { git: "v1.37.0".to_owned(), number: Some((1, 37)) },
            admission: Ok(true),
            static_guard: StaticGuard::Refuses,
            missing_accounts: Ok(Vec::new()),
        },
        network: network::Facts {
            daemonsets: Ok(strings(&["kube-system/cilium", "kube-system/node-local-dns"])),
            groups: Ok(groups.clone()),
        },
        storage: storage::Facts {
            classes: Ok(classes(&[("fast", true), ("slow", false)])),
            volumes: Ok([("disk.csi.example".to_owned(), 12)].into()),
            snapshot_drivers: Ok(Some(["disk.csi.example".to_owned()].into())),
        },
        rights: rights::Facts {
            holders: Ok(["Group system:masters".to_owned()].into()),
            releasers: Ok(["Group recovery-leads".to_owned()].into()),
        },
        delivery: delivery::Facts { groups: Ok(groups) },
        plans: plans::Facts { asked: None, plans: Ok(Some(vec![plan_rights("three-boroughs")])) },
        installed: Some(Installed {
            installation: installation::Facts {
                missing_namespaces: Ok(Vec::new()),
                kinds: Ok(kinds(&Kind::Served(schema::Difference::default()))),
                policies: Ok(states(&State::InPlace)),
                lists: Ok((Vec::new(), 1)),
            },
            operator: operator::Facts {
                account: Ok(true),
                rights: Ok((Vec::new(), false)),
                lease: lease(3, store(None)),
            },
            isolation: isolation::Facts {
                isolated: Ok(Some(vec![isolated("drill", ControlState::Tested, "")])),
                fence: Some(("drill".to_owned(), ProbeResult::Denied)),
            },
        }),
    }
}

/// A cluster as it comes, with nothing of ours.
fn bare() -> Facts {
    Facts {
        kubernetes: kubernetes::Facts { static_guard: StaticGuard::NotTried, ..healthy().kubernetes },
        network: network::Facts {
            daemonsets: Ok(strings(&["kube-system/kube-proxy"])),
            groups: Ok(strings(&["apps"])),
        },
        storage: storage::Facts {
            classes: Ok(classes(&[])),
            volumes: Ok(BTreeMap::new()),
            snapshot_drivers: Ok(None),
        },
        rights: rights::Facts {
            holders: Ok(["Group system:masters".to_owned()].into()),
            releasers: Ok(BTreeSet::new()),
        },
        delivery: delivery::Facts { groups: Ok(strings(&["apps"])) },
        plans: plans::Facts { asked: None, plans: Ok(None) },
        installed: Some(Installed {
            installation: installation::Facts {
                missing_namespaces: Ok(strings(&["resurgam-system", "resurgam-records"])),
                kinds: Ok(kinds(&Kind::Missing)),
                policies: Ok(states(&State::Missing)),
                lists: Ok((strings(&["resurgam-guard", "resurgam-guard-copy"]), 0)),
            },
            operator: operator::Facts {
                account: Ok(false),
                rights: Ok((strings(&["list quarantines.resurgam.dev", "patch namespaces"]), false)),
                lease: Ok(None),
            },
            isolation: isolation::Facts { isolated: Ok(None), fence: None },
        }),
    }
}

/// During an incident, after somebody broke what could be broken; asked by somebody who may not read everything.
fn broken() -> Facts {
    let mut policies = states(&State::InPlace);
    policies.insert("resurgam-write-fence".to_owned(), State::Changed);
    policies.insert("resurgam-namespace-lock".to_owned(), State::Missing);
    policies.insert("resurgam-decision".to_owned(), State::Older(1));
    let mut kinds = kinds(&Kind::Served(schema::Difference::default()));
    let older = schema::Difference { lacking: strings(&[".spec.hold"]), ..schema::Difference::default() };
    kinds.insert("quarantines.resurgam.dev".to_owned(), Kind::Served(older));
    let plan = plans::PlanRights {
        recover: Ok((strings(&["parking", "housing", "tax", "waste", "parks"]), strings(&["library"]))),
        impersonate: Ok(false),
        ..plan_rights("three-boroughs")
    };
    Facts {
        kubernetes: kubernetes::Facts {
            version: kubernetes::Version { git: "v1.36.2-gke.100".to_owned(), number: Some((1, 36)) },
            static_guard: StaticGuard::LetsThrough,
            missing_accounts: Ok(strings(&["deployment-controller", "replicaset-controller"])),
            ..healthy().kubernetes
        },
        network: network::Facts {
            daemonsets: Ok(strings(&["kube-flannel/kube-flannel-ds"])),
            groups: Ok(Vec::new()),
        },
        storage: storage::Facts {
            classes: Ok(classes(&[("fast", false)])),
            volumes: Ok([("disk.csi.example".to_owned(), 12), (String::new(), 3)].into()),
            snapshot_drivers: Ok(None),
        },
        rights: unread_rights(),
        delivery: healthy().delivery,
        plans: plans::Facts { asked: None, plans: Ok(Some(vec![plan_rights("library"), plan])) },
        installed: Some(Installed {
            installation: installation::Facts {
                missing_namespaces: Ok(strings(&["resurgam-probe-denied"])),
                kinds: Ok(kinds),
                policies: Ok(policies),
                lists: Ok((strings(&["resurgam-guard-copy"]), 32)),
            },
            operator: operator::Facts {
                account: Ok(true),
                rights: Ok((Vec::new(), true)),
                lease: lease(1_800, store(None)),
            },
            isolation: isolation::Facts {
                isolated: Ok(Some(vec![
                    isolated(
                        "parking",
                        ControlState::NotEnforced,
                        "resurgam-probe-1 reached resurgam-probe-2",
                    ),
                    isolated("tax", ControlState::Unverifiable, "no image for probes"),
                ])),
                fence: Some(("parking".to_owned(), ProbeResult::Admitted)),
            },
        }),
    }
}

#[test]
fn text_for_a_healthy_a_bare_and_a_broken_cluster() {
    insta::assert_snapshot!("healthy", shown(&healthy()));
    insta::assert_snapshot!("bare", shown(&bare()));
    insta::assert_snapshot!("broken", shown(&broken()));
    let before = Facts { installed: None, ..bare() };
    insta::assert_snapshot!("before", shown(&before));
}

#[test]
fn exit_follows_from_fatal_checks_alone() {
    let verdict = |facts: &Facts| judge(facts, now()).verdict();
    assert_eq!(verdict(&healthy()), Verdict::Passed);
    assert_eq!(verdict(&Facts { installed: None, ..bare() }), Verdict::Passed, "warnings do no harm");
    assert_eq!(verdict(&bare()), Verdict::Failed);
    let unread = Facts { rights: unread_rights(), ..healthy() };
    assert_eq!(verdict(&unread), Verdict::Passed, "a warning that nobody can say is none that stops");
    let plans = plans::Facts { asked: None, plans: forbidden("recoveryplans") };
    assert_eq!(verdict(&Facts { plans, ..healthy() }), Verdict::Unknown, "what is not known is no pass");
}

/// What came of one check where these facts are changed.
fn of(id: &str, facts: &Facts) -> Verdict {
    let report = judge(facts, now());
    report.outcomes.iter().find(|outcome| outcome.check.id == id).unwrap().verdict
}

#[test]
fn verdicts_before_installation() {
    let kubernetes = |change: &dyn Fn(&mut kubernetes::Facts)| {
        let mut facts = healthy();
        change(&mut facts.kubernetes);
        facts
    };
    for (number, wanted) in [
        (Some((1, 37)), Verdict::Passed),
        (Some((1, 33)), Verdict::Passed),
        (Some((2, 0)), Verdict::Passed),
        (Some((1, 32)), Verdict::Failed),
        (None, Verdict::Unknown),
    ] {
        assert_eq!(of("api-version", &kubernetes(&|k| k.version.number = number)), wanted, "{number:?}");
    }
    for (admission, wanted) in
        [(Ok(true), Verdict::Passed), (Ok(false), Verdict::Failed), (forbidden("a"), Verdict::Unknown)]
    {
        assert_eq!(of("admission-policies", &kubernetes(&|k| k.admission = admission.clone())), wanted);
    }
    for (guard, minor, wanted) in [
        (StaticGuard::Refuses, 36, Verdict::Passed),
        (StaticGuard::LetsThrough, 37, Verdict::Warning),
        (StaticGuard::NotTried, 37, Verdict::Warning),
        (StaticGuard::Unknown("refused".to_owned()), 37, Verdict::Unknown),
        (StaticGuard::Unknown("refused".to_owned()), 35, Verdict::Warning),
    ] {
        let facts = kubernetes(&|k| {
            k.static_guard = guard.clone();
            k.version.number = Some((1, minor));
        });
        assert_eq!(of("static-policies", &facts), wanted, "{guard:?} {minor}");
    }
    for (daemonsets, groups, wanted) in [
        (Ok(&["kube-system/calico-node"][..]), &[][..], Verdict::Passed),
        (Ok(&[]), &["crd.antrea.io"], Verdict::Passed),
        (forbidden("daemonsets"), &["cilium.io"], Verdict::Passed),
        (Ok(&["kube-system/aws-node"]), &[], Verdict::Warning),
        (Ok(&["kube-flannel/kube-flannel-ds"]), &[], Verdict::Warning),
        (Ok(&["kube-system/kube-flannel-ds", "kube-system/kube-router"]), &[], Verdict::Warning),
        (Ok(&["tenant/not-cilium"]), &[], Verdict::Warning),
        (forbidden("daemonsets"), &[], Verdict::Unknown),
    ] {
        let network =
            network::Facts { daemonsets: daemonsets.clone().map(strings), groups: Ok(strings(groups)) };
        assert_eq!(
            of("network-plugin", &Facts { network, ..healthy() }),
            wanted,
            "{daemonsets:?} {groups:?}"
        );
    }
    for (found, wanted) in [
        (Ok(&[("fast", true)][..]), Verdict::Passed),
        (Ok(&[("fast", false)]), Verdict::Warning),
        (Ok(&[]), Verdict::Warning),
        (forbidden("storageclasses"), Verdict::Unknown),
    ] {
        let storage = storage::Facts { classes: found.clone().map(classes), ..healthy().storage };
        assert_eq!(of("storage-class", &Facts { storage, ..healthy() }), wanted, "{found:?}");
    }
    for (found, wanted) in [
        (Ok(["User lead".to_owned()].into()), Verdict::Passed),
        (Ok(BTreeSet::new()), Verdict::Warning),
        (forbidden("clusterroles"), Verdict::Unknown),
    ] {
        let rights = rights::Facts { releasers: found.clone(), ..healthy().rights };
        assert_eq!(of("release-holders", &Facts { rights, ..healthy() }), wanted, "{found:?}");
    }
    let drivers = |all: &[&str]| Ok(Some(all.iter().map(|d| (*d).to_owned()).collect::<BTreeSet<_>>()));
    for (volumes, snapshot_drivers, wanted) in [
        (Ok(vec![("a", 1)]), drivers(&["a"]), Verdict::Passed),
        (Ok(vec![]), Ok(None), Verdict::NotApplicable),
        (Ok(vec![("a", 1), ("b", 1)]), drivers(&["a"]), Verdict::Warning),
        (Ok(vec![("a", 1)]), Ok(None), Verdict::Warning),
        (Ok(vec![("", 1)]), drivers(&[]), Verdict::Warning),
        (forbidden("persistentvolumes"), drivers(&[]), Verdict::Unknown),
    ] {
        let volumes = volumes.map(|v| v.into_iter().map(|(d, count)| (d.to_owned(), count)).collect());
        let storage = storage::Facts { volumes, snapshot_drivers, ..healthy().storage };
        assert_eq!(
            of("snapshot-classes", &Facts { storage: storage.clone(), ..healthy() }),
            wanted,
            "{storage:?}"
        );
    }
}

#[test]
fn verdicts_of_an_installation() {
    let installed = |change: &dyn Fn(&mut Installed)| {
        let mut facts = healthy();
        change(facts.installed.as_mut().unwrap());
        facts
    };
    for (state, wanted) in [
        (State::InPlace, Verdict::Passed),
        (State::Newer(9), Verdict::Warning),
        (State::Older(1), Verdict::Failed),
        (State::Changed, Verdict::Failed),
        (State::Missing, Verdict::Failed),
    ] {
        let mut policies = states(&State::InPlace);
        policies.insert("resurgam-list-fence".to_owned(), state.clone());
        let facts = installed(&|i| i.installation.policies = Ok(policies.clone()));
        assert_eq!(of("policies", &facts), wanted, "{state:?}");
    }
    let newer = schema::Difference { further: strings(&[".spec.new"]), ..schema::Difference::default() };
    let changed = schema::Difference { changed: strings(&[".spec.hold"]), ..schema::Difference::default() };
    for (kind, wanted) in [
        (Kind::Served(newer), Verdict::Warning),
        (Kind::Served(changed), Verdict::Failed),
        (Kind::NotEstablished("NamesAccepted=False".to_owned()), Verdict::Failed),
    ] {
        let facts = installed(&|i| i.installation.kinds = Ok(kinds(&kind)));
        assert_eq!(of("kinds", &facts), wanted, "{kind:?}");
    }
    for (missing, wanted) in [
        (&[][..], Verdict::Passed),
        (&["resurgam-guard"], Verdict::Warning),
        (&["resurgam-guard", "resurgam-guard-copy"], Verdict::Failed),
    ] {
        let facts = installed(&|i| i.installation.lists = Ok((strings(missing), 0)));
        assert_eq!(of("isolation-lists", &facts), wanted, "{missing:?}");
    }
    let other = json!({"resurgam.dev/version": "0.0.1"});
    for (lease, leads, version, evidence) in [
        (lease(3, store(None)), Verdict::Passed, Verdict::Passed, Verdict::Passed),
        (lease(3, store(Some("no route"))), Verdict::Passed, Verdict::Passed, Verdict::Failed),
        (lease(3, other), Verdict::Passed, Verdict::Warning, Verdict::Unknown),
        (
            lease(3, json!({"resurgam.dev/evidence-store": "yes"})),
            Verdict::Passed,
            Verdict::Unknown,
            Verdict::Unknown,
        ),
        (lease(60, store(None)), Verdict::Failed, Verdict::Unknown, Verdict::Unknown),
        (Ok(None), Verdict::Failed, Verdict::Unknown, Verdict::Unknown),
        (forbidden("leases"), Verdict::Unknown, Verdict::Unknown, Verdict::Unknown),
    ] {
        let facts = installed(&|i| i.operator.lease = lease.clone());
        let found = ["operator-leads", "operator-version", "evidence-store"].map(|id| of(id, &facts));
        assert_eq!(found, [leads, version, evidence], "{lease:?}");
    }
    for (seen, wanted) in [
        (Some(ProbeResult::Denied), Verdict::Passed),
        (Some(ProbeResult::Admitted), Verdict::Failed),
        (Some(ProbeResult::Inconclusive("forbidden".to_owned())), Verdict::Unknown),
        (None, Verdict::NotApplicable),
    ] {
        let fence = seen.map(|seen| ("drill".to_owned(), seen));
        let facts = installed(&|i| i.isolation.fence = fence.clone());
        assert_eq!(of("fence", &facts), wanted, "{fence:?}");
    }
    for (state, wanted) in [
        (ControlState::Tested, Verdict::Passed),
        (ControlState::Enforced, Verdict::Warning),
        (ControlState::Unverifiable, Verdict::Warning),
        (ControlState::NotEnforced, Verdict::Failed),
    ] {
        let all = vec![isolated("a", ControlState::Tested, ""), isolated("b", state, "")];
        let facts = installed(&|i| i.isolation.isolated = Ok(Some(all.clone())));
        assert_eq!(of("network-enforced", &facts), wanted, "{state:?}");
    }
}

#[test]
fn plan_that_is_asked_for_has_to_be_there() {
    let of_plans = |asked: Option<&str>, plans: Option<Vec<plans::PlanRights>>| {
        let plans = plans::Facts { asked: asked.map(str::to_owned), plans: Ok(plans) };
        of("plan-recover", &Facts { plans, ..healthy() })
    };
    assert_eq!(of_plans(None, None), Verdict::NotApplicable);
    assert_eq!(of_plans(None, Some(vec![])), Verdict::NotApplicable);
    assert_eq!(of_plans(Some("recovery/gone"), Some(vec![])), Verdict::Failed);
    assert_eq!(of_plans(Some("recovery/gone"), None), Verdict::Failed);
    let wild = plans::PlanRights { recover: Ok((vec![], strings(&["tax"]))), ..plan_rights("one") };
    assert_eq!(of_plans(Some("recovery/one"), Some(vec![wild])), Verdict::Failed);
}

#[test]
fn each_check_is_judged_once_and_has_its_section() {
    let ids: Vec<&str> =
        CATEGORIES.iter().flat_map(|category| category.checks).map(|check| check.id).collect();
    let judged = judge(&healthy(), now());
    let judged: Vec<&str> = judged.outcomes.iter().map(|outcome| outcome.check.id).collect();
    assert_eq!(judged, ids, "in the order in which they are shown");
    let page = include_str!("../../docs/checks.md");
    let sections: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    assert_eq!(sections, ids);
    let headings: Vec<&str> = page.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert_eq!(headings, CATEGORIES.map(|category| category.title));
}
