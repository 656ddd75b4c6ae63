use super::*;
use crate::isolation::probe::admission::PROBED_POLICIES;

fn config(url: &str) -> Config {
    let mut config = Config::new(url.parse().unwrap());
    config.root_cert =
        Some(vec![rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.der().to_vec()]);
    config
}

fn servers(config: Config, routes: &[(&str, &str)]) -> Servers {
    let routes = routes.iter().map(|(at, url)| (at.parse().unwrap(), url.parse().unwrap())).collect();
    Servers::new(Client::try_from(config.clone()).unwrap(), config, routes)
}

fn list(servers: &Servers, addresses: &[&str]) {
    servers.list(&addresses.iter().map(|address| address.parse().unwrap()).collect());
}

fn names(servers: &Servers) -> (Vec<String>, Vec<(String, String)>) {
    let now = servers.targets();
    let away = now.away.into_iter().map(|(address, why)| (address.to_string(), why)).collect();
    (now.servers.into_iter().map(|server| server.name).collect(), away)
}

#[tokio::test]
async fn listed_servers_are_probed_and_an_unlisted_own_server() {
    let servers = servers(config("https://10.96.0.1"), &[("192.0.2.2:6443", "https://127.0.0.1:1")]);
    assert!(servers.targets().unknown.is_some(), "nobody knows yet");
    list(&servers, &["192.0.2.2:6443", "192.0.2.1:6443"]);
    let own = "10.96.0.1:443 (which answers the operator)";
    assert_eq!(names(&servers).0, ["192.0.2.1:6443", "192.0.2.2:6443", own]);
    assert_eq!(servers.targets().unknown, None);
    assert_eq!(servers.targets().servers[1].at, ("127.0.0.1".to_owned(), 1), "by its route");
    list(&servers, &["192.0.2.1:6443", "10.96.0.1:443"]);
    assert_eq!(names(&servers).0, ["10.96.0.1:443", "192.0.2.1:6443"], "nobody is tried twice");
    list(&servers, &[]);
    assert_eq!(names(&servers).0, [own]);
}

#[tokio::test]
async fn unanswering_server_is_skipped_and_changes_advance_the_epoch() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    list(&servers, &["192.0.2.1:6443", "192.0.2.2:6443"]);
    let first = servers.epoch();
    list(&servers, &["192.0.2.2:6443", "192.0.2.1:6443"]);
    assert_eq!(servers.epoch(), first, "the same again is no news");
    let address = "192.0.2.2:6443".parse().unwrap();
    servers.mark_answering(address);
    assert_eq!(servers.epoch(), first, "it was not away");

    tried(&servers, "192.0.2.2:6443", &silence());
    assert_eq!(names(&servers).1, [("192.0.2.2:6443".to_owned(), "Connection refused".to_owned())]);
    assert_eq!(servers.unanswering().len(), 1);
    list(&servers, &["192.0.2.2:6443"]);
    assert_eq!(names(&servers).1.len(), 1, "listed anew is not back");
    let listed = servers.epoch();
    assert!(listed > first);
    servers.mark_answering(address);
    assert!(servers.epoch() > listed);
    assert_eq!(names(&servers).1, []);
}

/// What trying everything on one of them shows.
fn tried(servers: &Servers, address: &str, seen: &ProbeResult) -> ProbeReport {
    tried_in("library", servers, address, |_| seen.clone())
}

/// As [`tried`], policy by policy.
fn tried_in(
    namespace: &str,
    servers: &Servers,
    address: &str,
    seen: impl Fn(&str) -> ProbeResult,
) -> ProbeReport {
    ProbeReport { probes: servers.remember(namespace, tries(address, seen)), unknown: None }
}

fn tries(address: &str, seen: impl Fn(&str) -> ProbeResult) -> Vec<PolicyProbe> {
    let listed = address.parse().ok();
    let one = |(control, policy)| PolicyProbe {
        server: address.into(),
        listed,
        control,
        policy,
        result: seen(policy),
    };
    PROBED_POLICIES.map(one).into()
}

fn silence() -> ProbeResult {
    ProbeResult::Unreachable("Connection refused".to_owned())
}

#[tokio::test]
async fn leak_lasts_until_a_refusal_or_until_unlisted() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    let address = "192.0.2.2:6443";
    let is_leaking =
        || tried(&servers, address, &silence()).probes.iter().all(|t| t.result == ProbeResult::Admitted);
    list(&servers, &[address]);
    let through = tried(&servers, address, &ProbeResult::Admitted);
    assert!(!is_leaking(), "for a moment anybody may");
    servers.leaks("library", &through);
    assert!(is_leaking());
    list(&servers, &["192.0.2.1:6443", address]);
    tried(&servers, address, &ProbeResult::Inconclusive("RBAC".to_owned()));
    assert!(is_leaking(), "that shows nothing");
    assert_eq!(tried(&servers, "192.0.2.1:6443", &silence()).probes[0].result, silence());
    tried(&servers, address, &ProbeResult::Denied);
    assert!(!is_leaking());
    servers.leaks("library", &through);
    list(&servers, &[]);
    list(&servers, &[address]);
    assert!(!is_leaking(), "somebody else may be there");
}

#[tokio::test]
async fn partly_answering_server_is_present_but_not_verified() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    let address = "192.0.2.2:6443";
    list(&servers, &[address]);
    for answer in [ProbeResult::Denied, ProbeResult::Admitted, ProbeResult::Inconclusive("RBAC".to_owned())] {
        // The one that answers the operator, listed nowhere, is no other.
        for at in [address, "own"] {
            let slow = |policy: &str| if policy == PROBED_POLICIES[1].1 { silence() } else { answer.clone() };
            let mut shown = tried_in("library", &servers, at, slow);
            assert_eq!(shown.probes[1].result, ProbeResult::Inconclusive("Connection refused".to_owned()));
            assert_eq!(shown.probes[0].result, answer);
            assert_eq!(names(&servers).1, [], "it is tried again");
            shown.probes.extend(tries("another", |_| ProbeResult::Denied));
            assert!(!shown.holds(), "{answer:?} at {at}");
        }
    }
}

#[tokio::test]
async fn unprobed_server_is_unreachable_only_until_it_answers() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    let address = "192.0.2.2:6443";
    list(&servers, &[address]);
    tried(&servers, address, &silence());
    let skipped = tries(address, |_| silence());
    servers.mark_answering(address.parse().unwrap());
    let shown = servers.recall("library", skipped.clone());
    assert_eq!(names(&servers).1, [], "it is tried next time");
    assert_eq!(shown, skipped);
    servers
        .leaks("library", &ProbeReport { probes: tries(address, |_| ProbeResult::Admitted), unknown: None });
    let shown = servers.recall("library", skipped);
    assert!(shown.iter().all(|tried| tried.result == ProbeResult::Admitted));
}

#[tokio::test]
async fn refusal_in_one_namespace_does_not_clear_a_leak_elsewhere() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    let address = "192.0.2.2:6443";
    list(&servers, &[address]);
    let is_leaking = |namespace: &str| {
        let shown = tried_in(namespace, &servers, address, |_| silence());
        shown.probes.iter().all(|t| t.result == ProbeResult::Admitted)
    };
    let through = tried_in("new", &servers, address, |_| ProbeResult::Admitted);
    servers.leaks("new", &through);
    tried_in("old", &servers, address, |_| ProbeResult::Denied);
    assert!(is_leaking("new"), "though it refuses elsewhere");
    assert!(!is_leaking("old"), "there it was seen to refuse");
    assert!(is_leaking("newer"), "nobody saw it refuse there");
    tried_in("new", &servers, address, |_| ProbeResult::Denied);
    assert!(!is_leaking("new") && !is_leaking("newer"));
}

#[tokio::test]
async fn which_there_are_stands_for_a_while_when_it_cannot_be_read() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    let start = Instant::now();
    let fails = |why: &str, after: Duration| servers.unreadable(why.to_owned(), start + after);
    fails("forbidden", Duration::ZERO);
    assert_eq!(servers.targets().unknown.as_deref(), Some("forbidden"));
    for first in [Duration::ZERO, Duration::from_secs(3600)] {
        list(&servers, &["192.0.2.1:6443"]);
        assert_eq!(servers.targets().unknown, None);
        let stood = servers.epoch();
        fails("no connection", first);
        fails("no connection", first + Duration::from_secs(59));
        assert_eq!((servers.targets().unknown, servers.epoch()), (None, stood), "{first:?}");
        fails("no connection", first + Duration::from_secs(60));
        assert_eq!(servers.targets().unknown.as_deref(), Some("no connection"));
        assert_eq!(servers.epoch(), stood + 1, "what is said to be tested everywhere is so no more");
        fails("forbidden", first + Duration::from_secs(61));
        assert_eq!(servers.epoch(), stood + 1, "that is no news");
        assert_eq!(names(&servers).0.len(), 2, "those that are known are tried all the same");
    }
}

#[tokio::test]
async fn empty_list_after_a_full_one_is_an_error() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    list(&servers, &[]);
    assert_eq!(servers.targets().unknown, None, "it may be told not to list itself");
    let told = servers.epoch();
    list(&servers, &[]);
    assert_eq!(servers.epoch(), told, "the same again is no news");
    list(&servers, &["192.0.2.1:6443"]);
    assert_eq!(servers.targets().unknown, None);
    list(&servers, &[]);
    assert_eq!(servers.targets().unknown.as_deref(), Some(NONE));
    assert_eq!(servers.epoch(), told + 2);
}

#[tokio::test]
async fn server_is_probed_once_its_client_can_be_created() {
    let folder = tempfile::tempdir().unwrap();
    let authority = folder.path().join("ca.crt");
    std::fs::write(&authority, "").unwrap();
    let mut config = config("https://127.0.0.1:1");
    let own = Client::try_from(config.clone()).unwrap();
    config.root_cert = None;
    config.root_cert_file = Some(authority.clone());
    let servers = Servers::new(own, config, BTreeMap::new());
    std::fs::remove_file(&authority).unwrap();
    list(&servers, &["192.0.2.1:6443"]);
    assert_eq!(names(&servers).1.len(), 1, "its authority cannot be read");
    let told = servers.epoch();
    list(&servers, &["192.0.2.1:6443"]);
    assert_eq!(servers.epoch(), told);
    std::fs::write(&authority, rcgen::generate_simple_self_signed(Vec::new()).unwrap().cert.pem()).unwrap();
    list(&servers, &["192.0.2.1:6443"]);
    assert_eq!(names(&servers).1, []);
    assert_eq!(servers.epoch(), told + 1);
}

#[tokio::test]
async fn credentials_are_sent_to_verified_api_servers_only() {
    let plain = config("http://127.0.0.1:1");
    let mut gullible = config("https://127.0.0.1:1");
    gullible.accept_invalid_certs = true;
    let mut rootless = config("https://127.0.0.1:1");
    rootless.root_cert = None;
    for config in [plain, gullible, rootless] {
        let servers = servers(config, &[]);
        list(&servers, &["192.0.2.1:6443"]);
        let (tried, away) = names(&servers);
        assert_eq!(tried.len(), 1, "the operator's own only");
        assert!(away[0].1.contains("no certificate authority"), "{away:?}");
    }
}

#[tokio::test]
async fn no_more_are_tried_than_can_be_and_the_rest_are_named() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    let all: Vec<String> = (0..=MOST).map(|n| format!("192.0.2.{n}:6443")).collect();
    list(&servers, &all.iter().map(String::as_str).collect::<Vec<_>>());
    let (tried, away) = names(&servers);
    assert_eq!((tried.len(), away.len()), (MOST + 1, 1));
    assert!(away[0].1.contains("more than 16"), "{away:?}");
    let last = all.iter().map(|address| address.parse::<SocketAddr>().unwrap()).max().unwrap().to_string();
    list(&servers, &[&last]);
    assert_eq!(names(&servers).1, [], "there is room for it now");
    list(&servers, &all.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(names(&servers).0.len(), MOST + 1, "never more, in whatever order they come");
}
