use super::*;
use crate::isolation::probe::shown::TRIES;

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
    let now = servers.now();
    let away = now.away.into_iter().map(|(address, why)| (address.to_string(), why)).collect();
    (now.servers.into_iter().map(|server| server.name).collect(), away)
}

#[tokio::test]
async fn each_that_is_listed_is_tried_and_the_operators_own_if_it_is_none_of_them() {
    let servers = servers(config("https://10.96.0.1"), &[("192.0.2.2:6443", "https://127.0.0.1:1")]);
    assert!(servers.now().unknown.is_some(), "nobody knows yet");
    list(&servers, &["192.0.2.2:6443", "192.0.2.1:6443"]);
    let own = "10.96.0.1:443 (which answers the operator)";
    assert_eq!(names(&servers).0, ["192.0.2.1:6443", "192.0.2.2:6443", own]);
    assert_eq!(servers.now().unknown, None);
    assert_eq!(servers.now().servers[1].at, ("127.0.0.1".to_owned(), 1), "by its route");
    list(&servers, &["192.0.2.1:6443", "10.96.0.1:443"]);
    assert_eq!(names(&servers).0, ["10.96.0.1:443", "192.0.2.1:6443"], "nobody is tried twice");
    list(&servers, &[]);
    assert_eq!(names(&servers).0, [own]);
}

#[tokio::test]
async fn who_did_not_answer_is_not_tried_until_back_and_every_news_is_a_new_epoch() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    list(&servers, &["192.0.2.1:6443", "192.0.2.2:6443"]);
    let first = servers.epoch();
    list(&servers, &["192.0.2.2:6443", "192.0.2.1:6443"]);
    assert_eq!(servers.epoch(), first, "the same again is no news");
    let address = "192.0.2.2:6443".parse().unwrap();
    servers.back(address);
    assert_eq!(servers.epoch(), first, "it was not away");

    tried(&servers, "192.0.2.2:6443", &silence());
    assert_eq!(names(&servers).1, [("192.0.2.2:6443".to_owned(), "Connection refused".to_owned())]);
    assert_eq!(servers.all_away().len(), 1);
    list(&servers, &["192.0.2.2:6443"]);
    assert_eq!(names(&servers).1.len(), 1, "listed anew is not back");
    let listed = servers.epoch();
    assert!(listed > first);
    servers.back(address);
    assert!(servers.epoch() > listed);
    assert_eq!(names(&servers).1, []);
}

/// What trying everything on one of them shows.
fn tried(servers: &Servers, address: &str, seen: &Seen) -> Probed {
    let listed = Some(address.parse().unwrap());
    let one =
        |(control, policy)| Tried { server: address.into(), listed, control, policy, seen: seen.clone() };
    Probed { tries: servers.remember(TRIES.map(one).into()), unknown: None }
}

fn silence() -> Seen {
    Seen::Unanswered("Connection refused".to_owned())
}

#[tokio::test]
async fn what_lets_through_does_so_until_it_is_seen_to_refuse_or_listed_no_more() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    let address = "192.0.2.2:6443";
    let is_leaking = || tried(&servers, address, &silence()).tries.iter().all(|t| t.seen == Seen::LetThrough);
    list(&servers, &[address]);
    let through = tried(&servers, address, &Seen::LetThrough);
    assert!(!is_leaking(), "for a moment anybody may");
    servers.leaks(&through);
    assert!(is_leaking());
    list(&servers, &["192.0.2.1:6443", address]);
    tried(&servers, address, &Seen::Unclear("RBAC".to_owned()));
    assert!(is_leaking(), "that shows nothing");
    assert_eq!(tried(&servers, "192.0.2.1:6443", &silence()).tries[0].seen, silence());
    tried(&servers, address, &Seen::Refused);
    assert!(!is_leaking());
    servers.leaks(&through);
    list(&servers, &[]);
    list(&servers, &[address]);
    assert!(!is_leaking(), "somebody else may be there");
}

#[tokio::test]
async fn which_there_are_stands_while_it_cannot_be_read() {
    let servers = servers(config("https://127.0.0.1:1"), &[]);
    servers.unreadable("forbidden".to_owned());
    assert_eq!(servers.now().unknown.as_deref(), Some("forbidden"));
    list(&servers, &["192.0.2.1:6443"]);
    servers.unreadable("no connection".to_owned());
    assert_eq!(servers.now().unknown, None);
    assert_eq!(names(&servers).0.len(), 2);
}

#[tokio::test]
async fn credentials_go_to_nobody_who_cannot_be_told_from_an_api_server_of_this_cluster() {
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
}
