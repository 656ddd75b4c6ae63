//! Egress exceptions of a clean room: cluster services that its pods may connect to, as the plan allows. A service that is not found gets
//! no exception, and the status says so.

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, SocketAddr};

use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::{
    IPBlock, NetworkPolicyEgressRule, NetworkPolicyPeer, NetworkPolicyPort,
};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::api_servers;
use super::controls::network::pods_of;
use crate::api::ClusterService;
use crate::api::recovery_plan::EgressBlock;

/// Namespace of the cluster's DNS.
pub const DNS_NAMESPACE: &str = "kube-system";
/// Label of the cluster's DNS, on the Service and the pods.
pub const DNS_LABEL: (&str, &str) = ("k8s-app", "kube-dns");
/// Name of the DaemonSet of NodeLocal DNSCache, and its pods' label value.
pub const NODE_LOCAL: &str = "node-local-dns";
/// Maximum number of addresses in a rule.
const ADDRESSES: usize = 32;

/// One egress exception.
#[derive(Clone, Debug, PartialEq)]
pub struct EgressException {
    /// What the plan allows: a cluster service, or addresses outside the cluster.
    pub name: String,
    /// Egress rule. `None`: the service was not found, and is not allowed.
    pub rule: Option<NetworkPolicyEgressRule>,
    /// Destination, or what was not found, as a message.
    pub words: String,
}

impl fmt::Display for EgressException {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        match self.rule {
            Some(_) => write!(f, "Hole, by the plan's cleanRoom: {name}, to {}", self.words),
            None => write!(f, "{name} is not let through, though the plan asks for it: {}", self.words),
        }
    }
}

/// Returns the exception for the cluster's DNS: to its pods and, if deployed, to the cache on the node.
#[must_use]
pub fn dns(services: &[Service], cache: Option<&DaemonSet>) -> EgressException {
    let name = ClusterService::Dns.as_str().to_owned();
    let (key, value) = DNS_LABEL;
    if services.is_empty() {
        let words = format!("namespace {DNS_NAMESPACE} has no Service labelled {key}={value}");
        return EgressException { name, rule: None, words };
    }
    let mut to = vec![pods_of(vec![DNS_NAMESPACE.to_owned()], Some(DNS_LABEL))];
    let mut words = format!("port 53 of pods labelled {key}={value} in {DNS_NAMESPACE}");
    if let Some(cache) = cache {
        to.push(pods_of(vec![DNS_NAMESPACE.to_owned()], Some((key, NODE_LOCAL))));
        // Pods also reach the cache at the address of the DNS Service.
        let own = services.iter().filter_map(|s| s.spec.as_ref()?.cluster_ip.as_deref()?.parse().ok());
        let addresses: BTreeSet<IpAddr> = listening(cache).into_iter().chain(own).collect();
        to.extend(addresses.iter().take(ADDRESSES).map(one));
        words = format!("{words}, and of the cache on its node ({})", joined(&addresses));
    }
    let ports = ["UDP", "TCP"].map(|protocol| port(protocol, 53));
    EgressException {
        name,
        rule: Some(NetworkPolicyEgressRule { to: Some(to), ports: Some(ports.into()) }),
        words,
    }
}

/// Returns the node addresses at which the DNS cache listens. Only link-local ones count, so that the exception allows no other.
fn listening(cache: &DaemonSet) -> Vec<IpAddr> {
    let pods = cache.spec.as_ref().and_then(|spec| spec.template.spec.as_ref());
    let arguments: Vec<&str> = pods
        .iter()
        .flat_map(|pod| &pod.containers)
        .flat_map(|c| c.command.iter().flatten().chain(c.args.iter().flatten()))
        .flat_map(|argument| argument.split('='))
        .collect();
    let given =
        arguments.windows(2).filter(|pair| pair[0].trim_start_matches('-') == "localip").map(|pair| pair[1]);
    let addresses = given.flat_map(|text| text.split(',')).filter_map(|text| text.trim().parse().ok());
    addresses
        .filter(|address| match address {
            IpAddr::V4(four) => four.is_link_local(),
            IpAddr::V6(six) => six.is_unicast_link_local(),
        })
        .collect()
}

/// Returns the exception for the API server: to the addresses in its EndpointSlices.
#[must_use]
pub fn api_server(slices: &[EndpointSlice]) -> EgressException {
    let name = ClusterService::ApiServer.as_str().to_owned();
    // A rule without ports would allow all ports.
    let found = api_servers::addresses(slices);
    let addresses: BTreeSet<IpAddr> = found.iter().map(SocketAddr::ip).collect();
    let ports: BTreeSet<i32> = found.iter().map(|at| at.port().into()).collect();
    if found.is_empty() {
        let words = "no EndpointSlice of default/kubernetes names an address and a port".to_owned();
        return EgressException { name, rule: None, words };
    }
    let numbers = ports.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let words = format!("port {numbers} of {}", joined(&addresses));
    let rule = NetworkPolicyEgressRule {
        to: Some(addresses.iter().take(ADDRESSES).map(one).collect()),
        ports: Some(ports.iter().map(|&number| port("TCP", number)).collect()),
    };
    EgressException { name, rule: Some(rule), words }
}

/// Returns the exception for addresses outside the cluster.
#[must_use]
pub fn block(of: &EgressBlock) -> EgressException {
    let ip_block = Some(IPBlock { cidr: of.cidr.clone(), except: None });
    // A rule without ports would allow all ports.
    let rule = (!of.ports.is_empty()).then(|| NetworkPolicyEgressRule {
        to: Some(vec![NetworkPolicyPeer { ip_block, ..NetworkPolicyPeer::default() }]),
        ports: Some(of.ports.iter().map(|&number| port("TCP", number)).collect()),
    });
    EgressException { name: "an address".to_owned(), rule, words: of.to_string() }
}

/// Returns the egress rules for addresses outside the cluster.
#[must_use]
pub fn rules(of: &[EgressBlock]) -> Vec<NetworkPolicyEgressRule> {
    of.iter().filter_map(|of| block(of).rule).collect()
}

fn one(address: &IpAddr) -> NetworkPolicyPeer {
    let bits = if address.is_ipv4() { 32 } else { 128 };
    let block = IPBlock { cidr: format!("{address}/{bits}"), except: None };
    NetworkPolicyPeer { ip_block: Some(block), ..NetworkPolicyPeer::default() }
}

fn port(protocol: &str, number: i32) -> NetworkPolicyPort {
    NetworkPolicyPort {
        end_port: None,
        port: Some(IntOrString::Int(number)),
        protocol: Some(protocol.to_owned()),
    }
}

fn joined(addresses: &BTreeSet<IpAddr>) -> String {
    let shown = addresses.iter().take(4).map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let more = addresses.len().saturating_sub(4);
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn kube_dns() -> Service {
        read(json!({"metadata": {"name": "kube-dns"}, "spec": {"clusterIP": "10.96.0.10"}}))
    }

    #[test]
    fn dns_is_its_pods_on_port_53_only() {
        let exception = dns(&[kube_dns()], None);
        let rule = serde_json::to_value(exception.rule.as_ref().unwrap()).unwrap();
        assert_eq!(
            rule,
            json!({
                "to": [{
                    "namespaceSelector": {"matchExpressions": [
                        {"key": "kubernetes.io/metadata.name", "operator": "In", "values": ["kube-system"]}]},
                    "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}},
                }],
                "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
            })
        );
        assert!(
            exception.to_string().starts_with("Hole, by the plan's cleanRoom: DNS, to port 53"),
            "{exception}"
        );
    }

    #[test]
    fn node_dns_cache_is_allowed_at_link_local_and_dns_addresses() {
        let cache: DaemonSet = read(json!({"metadata": {"name": "node-local-dns"}, "spec": {
            "selector": {}, "template": {"spec": {"containers": [
                {"name": "node-cache", "args": ["-localip", "169.254.20.10,10.96.0.10,203.0.113.9", "-conf", "/etc/Corefile"]}]}},
        }}));
        let rule = dns(&[kube_dns()], Some(&cache)).rule.unwrap();
        let blocks: Vec<_> =
            rule.to.unwrap().into_iter().filter_map(|peer| Some(peer.ip_block?.cidr)).collect();
        assert_eq!(
            blocks,
            ["10.96.0.10/32", "169.254.20.10/32"],
            "an address of elsewhere is not let through"
        );
    }

    #[test]
    fn the_api_server_is_its_addresses_at_its_ports() {
        let slice = read(json!({"metadata": {"name": "kubernetes"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}, {"addresses": ["192.0.2.2"]}], "ports": [{"port": 6443}]}));
        let exception = api_server(&[slice]);
        let rule = serde_json::to_value(exception.rule.as_ref().unwrap()).unwrap();
        assert_eq!(
            rule,
            json!({
                "to": [{"ipBlock": {"cidr": "192.0.2.1/32"}}, {"ipBlock": {"cidr": "192.0.2.2/32"}}],
                "ports": [{"protocol": "TCP", "port": 6443}],
            })
        );
        assert_eq!(exception.words, "port 6443 of 192.0.2.1, 192.0.2.2");
    }

    #[test]
    fn four_addresses_are_named_and_the_others_counted() {
        let told = |count: u8| joined(&(1..=count).map(|n| IpAddr::from([192, 0, 2, n])).collect());
        assert_eq!(told(4), "192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4");
        assert_eq!(told(6), "192.0.2.1, 192.0.2.2, 192.0.2.3, 192.0.2.4 and 2 more");
    }

    #[test]
    fn missing_service_gets_no_exception_and_is_reported() {
        let portless = read(json!({"metadata": {"name": "kubernetes"}, "addressType": "IPv4",
            "endpoints": [{"addresses": ["192.0.2.1"]}]}));
        for (exception, name) in
            [(dns(&[], None), "DNS"), (api_server(&[]), "APIServer"), (api_server(&[portless]), "APIServer")]
        {
            assert_eq!(exception.rule, None, "a rule without peers would let everything through");
            assert!(exception.to_string().starts_with(&format!("{name} is not let through")), "{exception}");
        }
    }
}
