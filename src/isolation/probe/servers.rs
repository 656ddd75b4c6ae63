//! The API servers that controls are tried on: each that the cluster lists, and the one that answers the operator's own client.
//! They share their storage, but each has admission plugins, caches and a version of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::Uri;
use kube::{Client, Config};
use tokio::sync::watch;

use super::admission::{PolicyProbe, ProbeReport, ProbeResult, resolve_unreachable};
use crate::calls::DEADLINE;

/// Every API server's certificate bears this name.
const NAME: &str = "kubernetes.default.svc";
/// How long a connection to one that is listed may take, and an answer. Nobody waits long for one that is down.
const CONNECT: Duration = Duration::from_secs(3);
const ANSWER: Duration = Duration::from_secs(5);
/// As many as are tried.
const MOST: usize = 16;
/// How long a list that can no longer be read stands.
const STALE: Duration = Duration::from_secs(60);
/// Each API server lists itself again and again, so somebody is missing.
const NONE: &str = "the EndpointSlices of default/kubernetes list none any more";

/// What is known of the API servers, shared by whoever finds them and whoever tries them.
#[derive(Clone)]
pub struct Servers(Arc<Inner>);

struct Inner {
    own: Server,
    /// What the operator's own client was made from.
    config: Config,
    /// Where a listed address is reached, if not at itself.
    routes: BTreeMap<SocketAddr, Uri>,
    state: Mutex<State>,
    epoch: watch::Sender<u64>,
}

struct State {
    listed: BTreeMap<SocketAddr, Listed>,
    /// Why it is not known which there are.
    unknown: Option<String>,
    /// Since when that cannot be read.
    failing: Option<Instant>,
}

struct Listed {
    /// `Err`: why none can be made.
    server: Result<Server, String>,
    /// Why nobody answered when it was last tried.
    away: Option<String>,
    /// Namespaces that were tried on it: was it seen to let through there, and not to refuse since? Caches lag one by one.
    leaks: BTreeMap<String, bool>,
}

impl Listed {
    /// Who let through somewhere is not believed to refuse where nobody tried.
    fn is_leaking(&self, namespace: &str) -> bool {
        let anywhere = || self.leaks.values().any(|leaks| *leaks);
        self.leaks.get(namespace).copied().unwrap_or_else(anywhere)
    }
}

/// An API server that can be tried.
#[derive(Clone)]
pub struct Server {
    /// Its address, for people.
    pub name: String,
    /// How it is reached.
    pub client: Client,
    /// How long it may take.
    pub deadline: Duration,
    /// As what it is listed. `None`: it is the one that answers the operator.
    pub listed: Option<SocketAddr>,
    /// Host and port that it is reached at.
    at: (String, u16),
}

/// Whom to try.
#[derive(Default)]
pub struct Now {
    /// These.
    pub servers: Vec<Server>,
    /// These are listed, and cannot be tried: why.
    pub away: Vec<(SocketAddr, String)>,
    /// Why it is not known which there are.
    pub unknown: Option<String>,
}

impl fmt::Debug for Servers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Servers").field("own", &self.0.own.name).finish_non_exhaustive()
    }
}

impl Servers {
    /// `config`: what the operator's own client was made from. Nothing is known yet of any other API server.
    #[must_use]
    pub fn new(client: Client, config: Config, routes: BTreeMap<SocketAddr, Uri>) -> Self {
        let at = host_and_port(&config.cluster_url);
        let name = format!("{}:{} (which answers the operator)", at.0, at.1);
        let own = Server { name, client, deadline: DEADLINE, listed: None, at };
        let unknown = Some("the EndpointSlices of default/kubernetes are not read yet".to_owned());
        let state = Mutex::new(State { listed: BTreeMap::new(), unknown, failing: None });
        Self(Arc::new(Inner { own, config, routes, state, epoch: watch::Sender::new(0) }))
    }

    /// Goes up whenever others are listed, or one that was away is back: what was tried before has to be tried again.
    #[must_use]
    pub fn epoch(&self) -> u64 {
        *self.0.epoch.borrow()
    }

    /// Tells of that.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.0.epoch.subscribe()
    }

    /// The one that answers the operator.
    #[must_use]
    pub fn own(&self) -> &Server {
        &self.0.own
    }

    /// Whom to try now.
    #[must_use]
    pub fn now(&self) -> Now {
        let state = self.state();
        let mut now = Now { unknown: state.unknown.clone(), ..Now::default() };
        for (address, listed) in &state.listed {
            match (&listed.server, &listed.away) {
                (Ok(server), None) => now.servers.push(server.clone()),
                (Err(why), _) | (Ok(_), Some(why)) => now.away.push((*address, why.clone())),
            }
        }
        if !now.servers.iter().any(|server| server.at == self.0.own.at) {
            now.servers.push(self.0.own.clone());
        }
        now
    }

    /// These are listed.
    pub(crate) fn list(&self, found: &BTreeSet<SocketAddr>) {
        let has_client = |listed: &Listed| listed.server.is_ok();
        let known: BTreeSet<SocketAddr> =
            self.state().listed.iter().filter(|(_, listed)| has_client(listed)).map(|(at, _)| *at).collect();
        // A client that could not be made may be by now. Making one may read a file, so nobody waits for it.
        let wanted = found.iter().enumerate();
        let made: Vec<_> = wanted
            .filter(|(number, address)| *number >= MOST || !known.contains(address))
            .map(|(number, address)| (*address, self.server(*address, number)))
            .collect();
        let mut state = self.state();
        state.failing = None;
        // Where an API server is told not to list itself, none ever was. Where one was, somebody took it off.
        let gone = !state.listed.is_empty() || state.unknown.as_deref() == Some(NONE);
        let unknown = (found.is_empty() && gone).then(|| NONE.to_owned());
        let same = state.unknown == unknown
            && state.listed.keys().eq(found)
            && made.iter().all(|(_, server)| server.is_err());
        state.unknown = unknown;
        state.listed.retain(|address, _| found.contains(address));
        for (address, server) in made {
            let fresh = Listed { server: Err(String::new()), away: None, leaks: BTreeMap::new() };
            state.listed.entry(address).or_insert(fresh).server = server;
        }
        drop(state);
        if !same {
            self.anew();
        }
    }

    /// It could not be read which are listed. What is known of them stands, and for a while that there are no others.
    pub(crate) fn unreadable(&self, why: String, now: Instant) {
        let mut state = self.state();
        let since = *state.failing.get_or_insert(now);
        let stood = state.unknown.is_none();
        if stood && now.duration_since(since) < STALE {
            return;
        }
        state.unknown = Some(why);
        drop(state);
        if stood {
            self.anew();
        }
    }

    /// Remembers what trying everything on one of them in a namespace showed, and says what it means. Where nobody answers
    /// nobody is asked again before somebody does, so that it holds up nobody else.
    pub(crate) fn remember(&self, namespace: &str, mut tried: Vec<PolicyProbe>) -> Vec<PolicyProbe> {
        let why = resolve_unreachable(&mut tried);
        let mut state = self.state();
        let of = tried.first().and_then(|tried| tried.listed);
        let Some(listed) = of.and_then(|address| state.listed.get_mut(&address)) else { return tried };
        if let (Some(why), None) = (&why, &listed.away) {
            tracing::warn!(address = ?of, why, "an API server that is listed does not answer: isolation is not tried on it");
        }
        // Who answered somebody else meanwhile is back only when all are told so.
        listed.away = listed.away.take().or(why);
        if tried.iter().all(|tried| tried.result == ProbeResult::Denied) {
            listed.leaks.insert(namespace.to_owned(), false);
        }
        drop(state);
        self.recall(namespace, tried)
    }

    /// What lets through does so until it is seen to refuse, silent or not.
    pub(crate) fn recall(&self, namespace: &str, mut tried: Vec<PolicyProbe>) -> Vec<PolicyProbe> {
        let state = self.state();
        for tried in tried.iter_mut().filter(|tried| matches!(tried.result, ProbeResult::Unreachable(_))) {
            let listed = tried.listed.and_then(|address| state.listed.get(&address));
            if listed.is_some_and(|listed| listed.is_leaking(namespace)) {
                tried.result = ProbeResult::Admitted;
            }
        }
        tried
    }

    /// It was tried for long enough: who let through does so.
    pub(crate) fn leaks(&self, namespace: &str, probed: &ProbeReport) {
        let mut state = self.state();
        for tried in probed.probes.iter().filter(|tried| tried.result == ProbeResult::Admitted) {
            if let Some(listed) = tried.listed.and_then(|address| state.listed.get_mut(&address)) {
                listed.leaks.insert(namespace.to_owned(), true);
            }
        }
    }

    /// Those at which nobody answered.
    pub(crate) fn all_away(&self) -> Vec<Server> {
        let state = self.state();
        let away = state.listed.values().filter(|listed| listed.away.is_some());
        away.filter_map(|listed| listed.server.clone().ok()).collect()
    }

    /// Somebody answers again.
    pub(crate) fn back(&self, address: SocketAddr) {
        let was = self.state().listed.get_mut(&address).and_then(|listed| listed.away.take());
        if was.is_some() {
            self.anew();
        }
    }

    fn anew(&self) {
        self.0.epoch.send_modify(|epoch| *epoch = epoch.wrapping_add(1));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// With the operator's own credentials, so only where the certificate says that it is this cluster's: whoever may write
    /// EndpointSlices could list anything.
    fn server(&self, address: SocketAddr, number: usize) -> Result<Server, String> {
        let config = &self.0.config;
        if number >= MOST {
            return Err(format!("more than {MOST} API servers are listed"));
        }
        let tells = config.cluster_url.scheme() == Some(&http::uri::Scheme::HTTPS)
            && !config.accept_invalid_certs
            && (config.root_cert.is_some() || config.root_cert_file.is_some());
        if !tells {
            return Err("the operator's own client knows no certificate authority of this cluster".to_owned());
        }
        let mut config = config.clone();
        config.cluster_url = match self.0.routes.get(&address) {
            Some(url) => url.clone(),
            None => format!("https://{address}").parse().map_err(|error| format!("{error}"))?,
        };
        config.tls_server_name = Some(NAME.to_owned());
        config.connect_timeout = Some(CONNECT);
        let at = host_and_port(&config.cluster_url);
        let client = Client::try_from(config).map_err(|error| error.to_string())?;
        Ok(Server { name: address.to_string(), client, deadline: ANSWER, listed: Some(address), at })
    }
}

fn host_and_port(url: &Uri) -> (String, u16) {
    let usual = if url.scheme() == Some(&http::uri::Scheme::HTTP) { 80 } else { 443 };
    (url.host().unwrap_or_default().to_owned(), url.port_u16().unwrap_or(usual))
}

#[cfg(test)]
#[path = "servers_tests.rs"]
mod tests;
