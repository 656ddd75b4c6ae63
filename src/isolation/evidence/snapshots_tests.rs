//! Which snapshots are asked for, under which names, and what counts as cut.

use std::collections::BTreeMap;

use super::*;

fn class(name: &str, driver: &str, default: bool) -> Class {
    Class { name: name.into(), driver: driver.into(), default }
}

#[test]
fn the_class_is_the_only_one_for_the_driver_or_its_default() {
    let both = [class("a", "ebs", false), class("b", "ebs", true), class("c", "nfs", true)];
    for (driver, classes, expected) in [
        ("ebs", &both[..], Ok("b")),
        ("nfs", &both[..], Ok("c")),
        ("ebs", &both[..1], Ok("a")),
        ("disk", &both[..], Err("no VolumeSnapshotClass for driver disk")),
        ("ebs", &[class("a", "ebs", false), class("b", "ebs", false)], Err("a, b")),
        ("ebs", &[class("a", "ebs", true), class("b", "ebs", true)], Err("a, b")),
    ] {
        match (choose(driver, classes), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected),
            (Err(found), Err(expected)) => assert!(found.contains(expected), "{found}"),
            (found, expected) => panic!("{found:?} for {expected:?}"),
        }
    }
}

#[test]
fn a_name_is_bounded_and_each_claims_and_each_sealings_own() {
    let first = seal("quarantine", None);
    assert_eq!(name(&first, "data", "u"), format!("resurgam-{first}-data"));
    assert_ne!(seal("quarantine", None), seal("quarantine", Some("sha256:0")));
    assert_ne!(seal("quarantine", None), seal("another", None));
    let long = |end: &str| name(&first, &format!("{}{end}", "a".repeat(249)), "u");
    assert_eq!(long("1").len(), NAME);
    assert_ne!(long("1"), long("2"));
    let dotted = name(&first, &format!("{}.{}", "a".repeat(225), "b".repeat(20)), "u");
    assert!(dotted.len() <= NAME && !dotted.contains(".-"), "{dotted}");
}

#[test]
fn snapshot_is_cut_with_a_creation_time_or_when_ready() {
    for (status, cut, ready) in [
        (Value::Null, false, false),
        (json!({"readyToUse": false, "boundVolumeSnapshotContentName": "content"}), false, false),
        (json!({"error": {"message": "no space"}}), false, false),
        (json!({"creationTime": null, "readyToUse": "true"}), false, false),
        (json!({"creationTime": "2025-11-24T03:00:00Z", "readyToUse": false}), true, false),
        (json!({"readyToUse": true}), true, true),
    ] {
        let snapshot = json!({"metadata": {"name": "s"}, "status": status});
        let told = SnapshotStatus::by(&serde_json::from_value(snapshot).unwrap());
        assert_eq!((told.is_cut(), told.ready_to_use), (cut, ready), "{status}");
    }
}

#[test]
fn only_bound_claims_have_a_volume() {
    let claim = |phase: &str, volume: Option<&str>| -> PersistentVolumeClaim {
        let claim = json!({"spec": {"volumeName": volume}, "status": {"phase": phase}});
        serde_json::from_value(claim).unwrap()
    };
    assert_eq!(
        bound(&claim("Bound", Some("pv-1"))).map(|(_, volume)| volume.to_owned()).as_deref(),
        Some("pv-1")
    );
    assert!(bound(&claim("Pending", None)).is_none());
    assert!(bound(&claim("Lost", Some("pv-1"))).is_none());
    assert!(bound(&PersistentVolumeClaim::default()).is_none());
}

#[test]
fn foreign_snapshot_is_not_taken_for_ours() {
    let there = |seal: &str, claim: &str| -> DynamicObject {
        let annotations = BTreeMap::from([(SEAL, seal)]);
        serde_json::from_value(json!({
            "metadata": {"name": "s", "annotations": annotations},
            "spec": {"source": {"persistentVolumeClaimName": claim}},
        }))
        .unwrap()
    };
    assert!(is_ours(&there("uid", "data"), "uid", "data"));
    assert!(!is_ours(&there("other", "data"), "uid", "data"));
    assert!(!is_ours(&there("uid", "empty"), "uid", "data"));
}

#[test]
fn status_names_a_bounded_number_and_counts_the_rest() {
    assert_eq!((unnamed(0), unnamed(MOST)), (None, None));
    let miss = unnamed(MOST + 2).unwrap();
    assert_eq!(miss.what, "2 snapshots are in the index alone: the status names 64");
    assert!(!miss.failure, "they are evidence all the same");
}
