//! Addresses that an `http` gate may connect to. The author of a plan must not reach the operator's host, its node's metadata service, or
//! a service that trusts its local network.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Metadata services of clouds, in addition to the link-local address that most use.
const METADATA: [IpAddr; 5] = [
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), // Alibaba
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),   // Azure
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),     // Oracle
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254)), // AWS
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)), // Google
];

/// Returns why gates may not connect to an address. `None`: they may. `allow`: exceptions.
pub fn refusal(address: IpAddr, allow: &[IpNet]) -> Option<&'static str> {
    if allow.iter().any(|net| net.contains(&address)) {
        return None;
    }
    if METADATA.contains(&address) {
        return Some("a cloud's metadata service");
    }
    match address {
        IpAddr::V4(address) => refusal_v4(address),
        IpAddr::V6(address) => match embedded(address) {
            // An exception for an IPv4 address covers every notation of it.
            Some(v4) => refusal(v4.into(), allow),
            None => refusal_v6(address),
        },
    }
}

fn refusal_v4(address: Ipv4Addr) -> Option<&'static str> {
    let [first, ..] = address.octets();
    match first {
        0 => Some("unspecified"),
        _ if address.is_loopback() => Some("loopback"),
        _ if address.is_link_local() => Some("link-local"),
        _ if address.is_multicast() => Some("multicast"),
        // 240.0.0.0/4, including the broadcast address.
        240.. => Some("reserved"),
        _ => None,
    }
}

fn refusal_v6(address: Ipv6Addr) -> Option<&'static str> {
    let [first, second, third, ..] = address.segments();
    match (first, second, third) {
        _ if address.is_unspecified() => Some("unspecified"),
        _ if address.is_loopback() => Some("loopback"),
        _ if address.is_unicast_link_local() => Some("link-local"),
        _ if address.is_multicast() => Some("multicast"),
        // These embed an IPv4 address in a way that only the network's operator knows.
        (0x64, 0xff9b, 1) => Some("a local NAT64 address"),
        (0x2001, 0, _) => Some("a Teredo address"),
        _ => None,
    }
}

/// Returns the IPv4 address embedded in an IPv6 address: mapped, compatible, NAT64 or 6to4.
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let low = |high: u16, low: u16| Ipv4Addr::from_bits((u32::from(high) << 16) | u32::from(low));
    match address.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None, // `::` and `::1` are what they are
        [0, 0, 0, 0, 0, 0 | 0xffff, a, b]
        | [0, 0, 0, 0, 0xffff, 0, a, b]
        | [0x64, 0xff9b, 0, 0, 0, 0, a, b]
        | [0x2002, a, b, ..] => Some(low(a, b)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(address: &str, allow: &[&str]) -> Option<&'static str> {
        let allow: Vec<IpNet> = allow.iter().map(|net| net.parse().unwrap()).collect();
        refusal(address.parse().unwrap(), &allow)
    }

    #[test]
    fn local_addresses_are_refused_in_any_notation() {
        for (address, why) in [
            ("127.0.0.1", "loopback"),
            ("127.9.9.9", "loopback"),
            ("::1", "loopback"),
            ("::ffff:127.0.0.1", "loopback"),
            ("::127.0.0.1", "loopback"),
            ("::ffff:0:127.0.0.1", "loopback"),
            ("64:ff9b::7f00:1", "loopback"),
            ("2002:7f00:1::", "loopback"),
            ("169.254.169.254", "link-local"),
            ("::ffff:169.254.169.254", "link-local"),
            ("64:ff9b::a9fe:a9fe", "link-local"),
            ("fe80::1", "link-local"),
            ("0.0.0.0", "unspecified"),
            ("0.1.2.3", "unspecified"),
            ("::", "unspecified"),
            ("::ffff:0.0.0.0", "unspecified"),
            ("224.0.0.1", "multicast"),
            ("ff02::1", "multicast"),
            ("255.255.255.255", "reserved"),
            ("64:ff9b:1::7f00:1", "a local NAT64 address"),
            ("2001::1", "a Teredo address"),
            ("100.100.100.200", "a cloud's metadata service"),
            ("::ffff:168.63.129.16", "a cloud's metadata service"),
            ("fd00:ec2::254", "a cloud's metadata service"),
        ] {
            assert_eq!(refused(address, &[]), Some(why), "{address}");
        }
    }

    #[test]
    fn everything_else_may_be_asked() {
        for address in
            ["10.0.0.1", "192.168.1.1", "172.16.0.1", "93.184.216.34", "2606:2800:220:1::1", "fd00::1"]
        {
            assert_eq!(refused(address, &[]), None, "{address}");
        }
    }

    #[test]
    fn an_exception_holds_within_its_range_only() {
        assert_eq!(refused("127.0.0.1", &["127.0.0.1/32"]), None);
        assert_eq!(refused("::ffff:127.0.0.1", &["127.0.0.1/32"]), None);
        assert_eq!(refused("127.0.0.2", &["127.0.0.1/32"]), Some("loopback"));
        assert_eq!(refused("::1", &["127.0.0.0/8"]), Some("loopback"));
        assert_eq!(refused("169.254.169.254", &["127.0.0.0/8", "::1/128"]), Some("link-local"));
    }
}
