//! Whether a Job and its pod are those that were asked for.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};
use serde_json::{Value, json};

use super::wanted::BOUND_ANNOTATION;

/// Returns how a Job differs from the one that the gate asks for. `None`: it is that one.
pub(super) fn other_job(wanted: &Job, found: &Job) -> Option<String> {
    let bound = |job: &Job| job.metadata.annotations.as_ref()?.get(BOUND_ANNOTATION).cloned();
    if bound(wanted) != bound(found) {
        return Some("was created for something else".to_owned());
    }
    let spec = |job: &Job| job.spec.as_ref().and_then(|spec| spec.template.spec.clone());
    match (spec(wanted), spec(found)) {
        (Some(wanted), Some(found)) => difference(&wanted, &found),
        _ => Some("has no pod".to_owned()),
    }
}

/// Returns how a pod differs from the one that the gate asks for. `None`: it is that one.
pub(super) fn other_pod(wanted: &Job, job: &Job, pod: &Pod) -> Option<String> {
    let owners = pod.metadata.owner_references.iter().flatten();
    let is_owned = owners.clone().any(|owner| {
        owner.controller == Some(true) && owner.kind == "Job" && Some(&owner.uid) == job.metadata.uid.as_ref()
    });
    if !is_owned {
        return Some("was not created by it".to_owned());
    }
    let wanted = wanted.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    match (wanted, &pod.spec) {
        (Some(wanted), Some(found)) => difference(wanted, found),
        _ => Some("has no spec".to_owned()),
    }
}

/// Returns the first difference in what runs, and on what. Fields that the API server fills in are left out.
fn difference(wanted: &PodSpec, found: &PodSpec) -> Option<String> {
    fn all(pod: &PodSpec) -> impl Iterator<Item = (&'static str, &Container)> {
        let init = pod.init_containers.iter().flatten().map(|container| ("init container", container));
        init.chain(pod.containers.iter().map(|container| ("container", container)))
    }
    let names = |pod: &PodSpec| all(pod).map(|(kind, c)| format!("{kind} {}", c.name)).collect::<Vec<_>>();
    if names(wanted) != names(found) {
        return Some(format!("has {}, and not {}", names(found).join(", "), names(wanted).join(", ")));
    }
    for ((kind, wanted), (_, found)) in all(wanted).zip(all(found)) {
        if let Some(field) = differing(&runs(wanted), &runs(found)) {
            return Some(format!("has another {field} of {kind} {}", wanted.name));
        }
    }
    if sources(wanted) != sources(found) {
        return Some("has other volumes".to_owned());
    }
    let host = [found.host_network, found.host_pid, found.host_ipc, found.share_process_namespace];
    host.contains(&Some(true)).then(|| "uses what is of its node, or shares processes".to_owned())
}

/// Returns the name of the first field that differs.
fn differing(wanted: &Value, found: &Value) -> Option<String> {
    let fields = wanted.as_object()?;
    fields.iter().find(|(name, value)| found.get(name.as_str()) != Some(value)).map(|(name, _)| name.clone())
}

/// Returns what a container runs.
fn runs(container: &Container) -> Value {
    let mounts: Vec<_> = container
        .volume_mounts
        .iter()
        .flatten()
        .map(|mount| {
            json!([
                mount.name,
                mount.mount_path,
                mount.sub_path,
                mount.sub_path_expr,
                mount.read_only == Some(true)
            ])
        })
        .collect();
    let env: Vec<_> = container
        .env
        .iter()
        .flatten()
        .map(|variable| {
            let from = variable.value_from.as_ref().map(|from| {
                let config = from.config_map_key_ref.as_ref().map(|key| json!([key.name, key.key]));
                let secret = from.secret_key_ref.as_ref().map(|key| json!([key.name, key.key]));
                let field = from.field_ref.as_ref().map(|field| field.field_path.clone());
                json!([config, secret, field])
            });
            json!([variable.name, variable.value.as_deref().unwrap_or_default(), from])
        })
        .collect();
    let lifecycle = container.lifecycle.is_some();
    json!({
        "image": container.image,
        "command": container.command,
        "args": container.args,
        "workingDir": container.working_dir,
        "env": env,
        "envFrom": container.env_from,
        "volumeMounts": mounts,
        "lifecycle": lifecycle,
        "terminationMessagePath": container.termination_message_path,
        "terminationMessagePolicy": container.termination_message_policy,
    })
}

/// Returns each volume with its source, by those fields that say whose data it is.
fn sources(pod: &PodSpec) -> Vec<Value> {
    let of = |volume: &k8s_openapi::api::core::v1::Volume| {
        let config = volume.config_map.as_ref().map(|source| source.name.clone());
        let secret = volume.secret.as_ref().map(|source| source.secret_name.clone());
        let claim = volume
            .persistent_volume_claim
            .as_ref()
            .map(|source| (source.claim_name.clone(), source.read_only));
        let others = {
            let mut value = serde_json::to_value(volume).unwrap_or_default();
            if let Some(fields) = value.as_object_mut() {
                for known in ["name", "configMap", "secret", "persistentVolumeClaim"] {
                    fields.remove(known);
                }
            }
            value.as_object().map(|fields| fields.keys().cloned().collect::<Vec<_>>())
        };
        json!([volume.name, config, secret, claim, others])
    };
    pod.volumes.iter().flatten().map(of).collect()
}

/// Returns what the Job's pods are doing.
pub(super) fn progress(pods: &[Pod]) -> String {
    let [pod] = pods else { return format!("has begun: {} pods", pods.len()) };
    let name = pod.metadata.name.as_deref().unwrap_or("?");
    let status = pod.status.clone().unwrap_or_default();
    let phase = status.phase.unwrap_or_else(|| "Pending".to_owned());
    let statuses = status
        .init_container_statuses
        .into_iter()
        .flatten()
        .chain(status.container_statuses.into_iter().flatten());
    let waits = statuses.filter_map(|status| status.state?.waiting).find_map(|waiting| waiting.reason);
    let waits = waits.map_or_else(String::new, |reason| format!(", {reason}"));
    format!("runs: pod {name} is {phase}{waits}")
}
