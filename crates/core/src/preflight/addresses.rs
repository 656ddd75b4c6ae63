//! Addresses, and the namespaces that serve them.

use k8s_openapi::api::core::v1::Service;
use kube::ResourceExt;

/// Returns the external addresses of a Service.
pub(super) fn own_addresses(service: &Service) -> Vec<String> {
    let balanced = service.status.iter().filter_map(|s| s.load_balancer.as_ref()?.ingress.as_ref());
    let balanced = balanced.flatten().flat_map(|i| [i.ip.clone(), i.hostname.clone()]).flatten();
    let external = service.spec.iter().flat_map(|s| s.external_ips.iter().flatten().cloned());
    let named = service.annotations().get("external-dns.alpha.kubernetes.io/hostname");
    let named = named.into_iter().flat_map(|names| names.split(',')).map(|name| name.trim().to_owned());
    balanced.chain(external).chain(named).collect()
}

/// Returns the host of an address, with or without a scheme.
pub(super) fn host(address: &str) -> Option<String> {
    // An argument such as --evidence-endpoint=http://…
    let address = match address.find("://") {
        Some(at) => &address[at + 3..],
        None => address.rsplit('=').next().unwrap_or(address),
    };
    let authority = address.split(['/', '?', '#']).next()?.rsplit('@').next()?;
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split(']').next()?,
        None => authority.split(':').next()?,
    };
    (!host.is_empty()).then(|| host.to_ascii_lowercase())
}

/// Returns the namespace that serves a cluster-internal name: `backup` for `store.backup.svc.cluster.local`.
pub(super) fn service_namespace(host: &str) -> Option<String> {
    let labels: Vec<_> = host.split('.').collect();
    let at = labels.iter().position(|label| *label == "svc")?;
    (at >= 2).then(|| labels[at - 1].to_owned())
}

/// Returns whether a host of an Ingress or HTTPRoute, with or without a wildcard, covers this host.
pub(super) fn serves(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix("*.") {
        Some(rest) => host.strip_suffix(rest).is_some_and(|front| front.ends_with('.')),
        None => pattern == host,
    }
}
