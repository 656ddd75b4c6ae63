//! Text output of `images`.

use std::collections::BTreeSet;
use std::fmt::Write;

use k8s_openapi::api::core::v1::Pod;
use resurgam_core::gates::images::{ImageInUse, ImagesInUse};

/// Maximum number of users that a line names.
const USERS: usize = 2;

/// Renders the entries, one per line, each with who runs it.
pub(super) fn text(found: &ImagesInUse) -> String {
    let mut text = String::new();
    for image in &found.images {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{} # {}", image.entry(), users(image));
    }
    text
}

fn users(image: &ImageInUse) -> String {
    let named: Vec<&str> = image.used_by.iter().take(USERS).map(String::as_str).collect();
    let others = match image.used_by.len().saturating_sub(USERS) {
        0 => String::new(),
        others => format!(" (and {others} more)"),
    };
    format!("{}{others}", named.join("; "))
}

/// Renders the entries as a ConfigMap. `namespace`: that of the plan, if one is named.
pub(super) fn config_map(found: &ImagesInUse, namespace: Option<&str>, name: &str) -> String {
    let namespace = namespace.map_or_else(String::new, |namespace| format!("\n  namespace: {namespace}"));
    let mut text = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}{namespace}\ndata:\n  images: |\n"
    );
    for line in self::text(found).lines() {
        let _ = writeln!(text, "    {line}");
    }
    text
}

/// Returns the namespaces without any Pod. `live`: they were read from the cluster.
pub(super) fn without_pods(namespaces: &BTreeSet<String>, pods: &[Pod], live: bool) -> Vec<String> {
    let inhabited: BTreeSet<&str> = pods.iter().filter_map(|pod| pod.metadata.namespace.as_deref()).collect();
    let why = if live {
        "no pod. If it is sealed, --from-evidence has what ran"
    } else {
        "the evidence has no pod of it"
    };
    let empty = namespaces.iter().filter(|namespace| !inhabited.contains(namespace.as_str()));
    empty.map(|namespace| format!("namespace {namespace}: {why}")).collect()
}
