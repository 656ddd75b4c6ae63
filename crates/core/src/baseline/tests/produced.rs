//! What controllers produce, and what only looks like it.

use super::*;

#[test]
fn a_forged_owner_hides_nothing() {
    let image =
        |set: &mut Value| set["spec"]["template"]["spec"]["containers"][0]["image"] = json!("implant");
    // Another template, and pods of it.
    let found = differences(changed("ReplicaSet", image));
    assert!(found.contains(&"ReplicaSet shop/web-1: it is not in the baseline".to_owned()), "{found:?}");
    // The same, and nothing runs: an old revision.
    let old = changed("ReplicaSet", |set| {
        image(set);
        set["spec"]["replicas"] = json!(0);
    });
    let old = old.into_iter().filter(|object| object["kind"] != "Pod").collect();
    assert_eq!(differences(old), Vec::<String>::new());
    for (field, forged) in [
        ("uid", "uid-Deployment-other"),
        ("name", "other"),
        ("kind", "StatefulSet"),
        ("apiVersion", "apps.implant.example/v1"),
    ] {
        let raw = changed("ReplicaSet", |set| set["metadata"]["ownerReferences"][0][field] = json!(forged));
        assert_eq!(differences(raw), ["ReplicaSet shop/web-1: it is not in the baseline"], "{field}");
    }
    let elsewhere = changed("ReplicaSet", |set| set["metadata"]["labels"]["app"] = json!("other"));
    assert_eq!(differences(elsewhere), ["ReplicaSet shop/web-1: it is not in the baseline"]);
}

#[test]
fn jobs_follow_their_cron_job_until_they_have_ended() {
    let job = |image: &str, ended: bool| {
        let mut raw = estate();
        let mut template = find(&mut raw, "CronJob")["spec"]["jobTemplate"]["spec"]["template"].clone();
        template["metadata"]["labels"]["controller-uid"] = json!("u");
        template["metadata"]["labels"]["batch.kubernetes.io/job-name"] = json!("nightly-1");
        template["spec"]["containers"][0]["image"] = json!(image);
        let status =
            if ended { json!({"conditions": [{"type": "Complete", "status": "True"}]}) } else { json!({}) };
        raw.push(json!({
            "apiVersion": "batch/v1", "kind": "Job",
            "metadata": {"name": "nightly-1", "namespace": "shop", "ownerReferences": [
                {"apiVersion": "batch/v1", "kind": "CronJob", "name": "nightly", "uid": "uid-CronJob-nightly", "controller": true}]},
            "spec": {"template": template}, "status": status,
        }));
        differences(raw)
    };
    assert_eq!(job("registry.example/web@sha256:aa", false), Vec::<String>::new());
    assert_eq!(job("implant", false), ["Job shop/nightly-1: it is not in the baseline"]);
    assert_eq!(job("implant", true), Vec::<String>::new());
}

#[test]
fn a_live_pod_of_what_is_said_to_have_ended_is_found() {
    let with = |phase: &str, same: bool| {
        let mut raw = estate();
        let template = if same { "registry.example/web@sha256:aa" } else { "implant" };
        let set = find(&mut raw, "ReplicaSet");
        set["spec"]["replicas"] = json!(0);
        set["spec"]["template"]["spec"]["containers"][0]["image"] = json!(template);
        let spec = set["spec"]["template"]["spec"].clone();
        let pod = find(&mut raw, "Pod");
        pod["spec"] = spec;
        pod["status"]["phase"] = json!(phase);
        differences(raw)
    };
    assert_eq!(with("Running", false), ["Pod shop/web-1-x: it is not in the baseline"]);
    assert_eq!(with("Running", true), Vec::<String>::new());
    assert_eq!(with("Failed", false), Vec::<String>::new());
}
