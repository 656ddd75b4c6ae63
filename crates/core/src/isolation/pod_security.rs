//! What the Pod Security Standard `baseline` forbids in a pod.
//!
//! The checks are those of <https://kubernetes.io/docs/concepts/security/pod-security-standards/#baseline>, with the values that
//! `k8s.io/pod-security-admission` of Kubernetes 1.37 allows. An API server of another version may allow less; it then denies the pod.

use k8s_openapi::api::core::v1::{PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

/// Capabilities that may be added.
const CAPABILITIES: [&str; 13] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Sysctls that may be set.
const SYSCTLS: [&str; 14] = [
    "kernel.shm_rmid_forced",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_syncookies",
    "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout",
    "net.ipv4.tcp_keepalive_intvl",
    "net.ipv4.tcp_keepalive_probes",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.ipv4.tcp_slow_start_after_idle",
    "net.ipv4.tcp_notsent_lowat",
];
/// Types of an SELinux context.
const SELINUX_TYPES: [&str; 4] = ["container_t", "container_init_t", "container_kvm_t", "container_engine_t"];
/// Types of a seccomp or AppArmor profile.
const PROFILES: [&str; 2] = ["RuntimeDefault", "Localhost"];
/// Annotation by which older pods name a container's AppArmor profile.
const APPARMOR_ANNOTATION: &str = "container.apparmor.security.beta.kubernetes.io/";

/// Returns what a template's pods violate, naming each field. Empty: `baseline` admits them.
#[must_use]
pub fn of_template(template: &PodTemplateSpec) -> Vec<String> {
    match &template.spec {
        Some(spec) => violations(template.metadata.as_ref(), spec),
        None => Vec::new(),
    }
}

/// Returns what a pod violates, naming each field. Empty: `baseline` admits it.
#[must_use]
pub fn violations(meta: Option<&ObjectMeta>, spec: &PodSpec) -> Vec<String> {
    let Ok(pod) = serde_json::to_value(spec) else {
        return vec!["its spec cannot be read".to_owned()];
    };
    let mut found = Vec::new();
    for field in ["hostNetwork", "hostPID", "hostIPC"] {
        if pod[field] == true {
            found.push(field.to_owned());
        }
    }
    for volume in list(&pod, "/volumes").filter(|volume| volume.get("hostPath").is_some_and(|v| !v.is_null()))
    {
        let path = volume.pointer("/hostPath/path").and_then(Value::as_str).unwrap_or_default();
        found.push(format!("volume {} is hostPath {path}", name(volume)));
    }
    for sysctl in list(&pod, "/securityContext/sysctls").map(name).filter(|name| !SYSCTLS.contains(name)) {
        found.push(format!("sysctl {sysctl}"));
    }
    contexts(&pod["securityContext"], "the pod", &mut found);
    for kind in ["containers", "initContainers", "ephemeralContainers"] {
        for container in list(&pod, &format!("/{kind}")) {
            of_container(container, &format!("container {}", name(container)), &mut found);
        }
    }
    for (key, profile) in meta.and_then(|meta| meta.annotations.as_ref()).into_iter().flatten() {
        let allowed = profile.is_empty() || profile == "runtime/default" || profile.starts_with("localhost/");
        if let Some(container) = key.strip_prefix(APPARMOR_ANNOTATION).filter(|_| !allowed) {
            found.push(format!("container {container} has the AppArmor profile {profile}"));
        }
    }
    found
}

/// Checks a security context of the pod or of one of its containers.
fn contexts(context: &Value, whose: &str, found: &mut Vec<String>) {
    if context.pointer("/windowsOptions/hostProcess") == Some(&Value::Bool(true)) {
        found.push(format!("{whose} is a Windows hostProcess"));
    }
    let text = |pointer: &str| context.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
    for (field, what) in [("seccompProfile", "seccomp"), ("appArmorProfile", "AppArmor")] {
        let profile = context.get(field).filter(|profile| !profile.is_null());
        let type_ = text(&format!("/{field}/type"));
        if profile.is_some() && !PROFILES.contains(&type_) {
            found.push(format!("{whose} has the {what} profile {type_}"));
        }
    }
    let type_ = text("/seLinuxOptions/type");
    if !type_.is_empty() && !SELINUX_TYPES.contains(&type_) {
        found.push(format!("{whose} has the SELinux type {type_}"));
    }
    for field in ["user", "role"] {
        let value = text(&format!("/seLinuxOptions/{field}"));
        if !value.is_empty() {
            found.push(format!("{whose} has the SELinux {field} {value}"));
        }
    }
}

fn of_container(container: &Value, whose: &str, found: &mut Vec<String>) {
    let context = &container["securityContext"];
    contexts(context, whose, found);
    if context["privileged"] == true {
        found.push(format!("{whose} is privileged"));
    }
    let added = list(context, "/capabilities/add").filter_map(Value::as_str);
    for capability in added.filter(|capability| !CAPABILITIES.contains(capability)) {
        found.push(format!("{whose} adds the capability {capability}"));
    }
    if let Some(mount) = context["procMount"].as_str().filter(|mount| !["", "Default"].contains(mount)) {
        found.push(format!("{whose} has the procMount {mount}"));
    }
    for port in
        list(container, "/ports").filter_map(|port| port["hostPort"].as_i64()).filter(|port| *port != 0)
    {
        found.push(format!("{whose} has the hostPort {port}"));
    }
    for handler in
        ["livenessProbe", "readinessProbe", "startupProbe", "lifecycle/postStart", "lifecycle/preStop"]
    {
        for how in ["httpGet", "tcpSocket"] {
            let host = container.pointer(&format!("/{handler}/{how}/host")).and_then(Value::as_str);
            if let Some(host) = host.filter(|host| !host.is_empty()) {
                found.push(format!("{whose} has a {handler} to host {host}"));
            }
        }
    }
}

fn list<'a>(of: &'a Value, pointer: &str) -> impl Iterator<Item = &'a Value> + use<'a> {
    of.pointer(pointer).and_then(Value::as_array).into_iter().flatten()
}

fn name(of: &Value) -> &str {
    of["name"].as_str().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(pod: Value) -> Vec<String> {
        let template: PodTemplateSpec = serde_json::from_value(pod).unwrap();
        of_template(&template)
    }

    /// One container, with these fields beside its name.
    fn container(fields: Value) -> Value {
        let mut container = json!({"name": "main"});
        container.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        json!({"spec": {"containers": [container]}})
    }

    #[test]
    fn baseline_forbids_what_reaches_the_host() {
        let context = |context: Value| container(json!({"securityContext": context}));
        let pod = |context: Value| json!({"spec": {"containers": [], "securityContext": context}});
        for (template, expected) in [
            (json!({"spec": {"containers": [], "hostNetwork": true}}), "hostNetwork"),
            (json!({"spec": {"containers": [], "hostPID": true}}), "hostPID"),
            (json!({"spec": {"containers": [], "hostIPC": true}}), "hostIPC"),
            (
                json!({"spec": {"containers": [], "volumes": [{"name": "root", "hostPath": {"path": "/"}}]}}),
                "volume root is hostPath /",
            ),
            (pod(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]})), "sysctl kernel.msgmax"),
            (pod(json!({"windowsOptions": {"hostProcess": true}})), "the pod is a Windows hostProcess"),
            (
                pod(json!({"seccompProfile": {"type": "Unconfined"}})),
                "the pod has the seccomp profile Unconfined",
            ),
            (
                pod(json!({"appArmorProfile": {"type": "Unconfined"}})),
                "the pod has the AppArmor profile Unconfined",
            ),
            (pod(json!({"seLinuxOptions": {"type": "spc_t"}})), "the pod has the SELinux type spc_t"),
            (pod(json!({"seLinuxOptions": {"user": "root"}})), "the pod has the SELinux user root"),
            (pod(json!({"seLinuxOptions": {"role": "sysadm_r"}})), "the pod has the SELinux role sysadm_r"),
            (context(json!({"privileged": true})), "container main is privileged"),
            (
                context(json!({"capabilities": {"add": ["CHOWN", "SYS_ADMIN"]}})),
                "container main adds the capability SYS_ADMIN",
            ),
            (context(json!({"capabilities": {"add": ["ALL"]}})), "container main adds the capability ALL"),
            (context(json!({"procMount": "Unmasked"})), "container main has the procMount Unmasked"),
            (
                context(json!({"windowsOptions": {"hostProcess": true}})),
                "container main is a Windows hostProcess",
            ),
            (
                context(json!({"seccompProfile": {"type": "Unconfined"}})),
                "container main has the seccomp profile Unconfined",
            ),
            (
                context(json!({"appArmorProfile": {"type": "Unconfined"}})),
                "container main has the AppArmor profile Unconfined",
            ),
            (
                container(json!({"ports": [{"containerPort": 80, "hostPort": 8080}]})),
                "container main has the hostPort 8080",
            ),
            (
                container(json!({"livenessProbe": {"httpGet": {"host": "10.0.0.1", "port": 80}}})),
                "container main has a livenessProbe to host 10.0.0.1",
            ),
            (
                container(json!({"lifecycle": {"preStop": {"tcpSocket": {"host": "10.0.0.1", "port": 80}}}})),
                "container main has a lifecycle/preStop to host 10.0.0.1",
            ),
            (
                json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "unconfined"}},
                    "spec": {"containers": []}}),
                "container main has the AppArmor profile unconfined",
            ),
        ] {
            assert_eq!(found(template), [expected]);
        }
    }

    #[test]
    fn init_and_ephemeral_containers_count() {
        for kind in ["initContainers", "ephemeralContainers"] {
            let mut template = json!({"spec": {"containers": []}});
            template["spec"][kind] = json!([{"name": "x", "securityContext": {"privileged": true}}]);
            assert_eq!(found(template), ["container x is privileged"], "{kind}");
        }
    }

    #[test]
    fn baseline_admits_what_stays_in_its_container() {
        for template in [
            json!({"spec": {"containers": [{"name": "main"}]}}),
            json!({}),
            json!({"spec": {"containers": [], "hostNetwork": false, "hostPID": false, "volumes": [{"name": "v", "emptyDir": {}}],
                "securityContext": {"sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}],
                    "seccompProfile": {"type": "RuntimeDefault"}, "appArmorProfile": {"type": "Localhost", "localhostProfile": "p"},
                    "seLinuxOptions": {"type": "container_t", "level": "s0"}}}}),
            container(json!({"ports": [{"containerPort": 80, "hostPort": 0}],
                "readinessProbe": {"httpGet": {"port": 80}},
                "securityContext": {"privileged": false, "procMount": "Default", "capabilities": {"add": ["NET_BIND_SERVICE"], "drop": ["ALL"]}}})),
            json!({"metadata": {"annotations": {"container.apparmor.security.beta.kubernetes.io/main": "runtime/default"}},
                "spec": {"containers": []}}),
        ] {
            assert_eq!(found(template.clone()), Vec::<String>::new(), "{template}");
        }
    }
}
