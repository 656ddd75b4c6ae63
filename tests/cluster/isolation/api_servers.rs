//! Several API servers on one etcd: what isolates is tried on each, as each enforces it by itself.

use std::collections::BTreeMap;

use control_plane::{ControlPlane, Identity, Options};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::api::{DeleteParams, Patch, PatchParams};
use kube::{Api, Client};
use rehearsal::await_condition;
use resurgam::api::quarantine::{ControlName, ControlState};
use resurgam::api::{Isolation, Quarantine, conditions};
use resurgam::isolation::evidence::{Evidence, Store};
use resurgam::isolation::network;

use crate::isolation::support::{Controller, Routes, allowing, apply, start_with, within};

const TRIED: [ControlName; 3] = [ControlName::Lock, ControlName::Fence, ControlName::Guard];

/// A control plane with a second API server, an operator that knows the way to both, and a namespace that is to be contained.
struct Two {
    cluster: ControlPlane,
    administrator: Client,
    /// Where they are listed.
    first: String,
    second: String,
    _evidence: tempfile::TempDir,
    _operator: Controller,
}

impl Two {
    async fn start(arguments: &[&str]) -> Self {
        let further_api_servers = vec![arguments.iter().map(|&a| a.to_owned()).collect()];
        let options = Options { further_api_servers, ..Options::default() };
        let cluster = ControlPlane::start(options).await.unwrap();
        rehearsal::install(&cluster).await.unwrap();
        let administrator = cluster.client(Identity::PlatformAdministrator).await.unwrap();
        let [first, second] = cluster.api_servers() else { panic!("there are two") };
        let listed = [first, second].map(|server| server.advertised.ip().to_string());
        // They say so themselves.
        let slices: Api<EndpointSlice> = Api::namespaced(administrator.clone(), "default");
        let both = |slice: Option<&EndpointSlice>| {
            slice.is_some_and(|slice| {
                let all: Vec<_> = slice.endpoints.iter().flat_map(|e| &e.addresses).collect();
                listed.iter().all(|address| all.contains(&address))
            })
        };
        within("both API servers to be listed", await_condition(slices, "kubernetes", both)).await.unwrap();
        let routes: Routes =
            [first, second].map(|server| (server.advertised, server.url.parse().unwrap())).into();
        let evidence = tempfile::tempdir().unwrap();
        let kubeconfig = cluster.kubeconfig(Identity::Operator).to_owned();
        let operator = start_with(kubeconfig, Evidence::new(Store::folder(evidence.path())), routes);
        let yaml = "
apiVersion: v1
kind: Namespace
metadata: {name: watched}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow-front, namespace: watched}
spec: {podSelector: {}, ingress: [{}]}
---
apiVersion: resurgam.dev/v1alpha1
kind: Quarantine
metadata: {name: watched}
spec: {isolation: Contained, reason: breach}
";
        apply(&administrator, yaml).await;
        let [first, second] = [first, second].map(|server| server.advertised.to_string());
        Self { cluster, administrator, first, second, _evidence: evidence, _operator: operator }
    }

    async fn until(&self, what: &str, is: impl Fn(&Quarantine) -> bool) -> Quarantine {
        let api: Api<Quarantine> = Api::all(self.administrator.clone());
        let condition = async {
            loop {
                let seen =
                    await_condition(api.clone(), "watched", |q: Option<&Quarantine>| q.is_some_and(&is));
                match seen.await {
                    Ok(found) => return found.unwrap(),
                    // An API server that was just started refuses lists until its storage is ready.
                    Err(_) => tokio::time::sleep(std::time::Duration::from_millis(100)).await,
                }
            }
        };
        match tokio::time::timeout(std::time::Duration::from_secs(90), condition).await {
            Ok(found) => found,
            Err(_) => panic!("not {what}: {:#?}", api.get("watched").await.unwrap().status),
        }
    }
}

fn ready(quarantine: &Quarantine) -> (String, String, String) {
    let conditions = quarantine.status.clone().unwrap_or_default().conditions;
    let ready = conditions::find(&conditions, conditions::READY).cloned();
    ready.map(|ready| (ready.status, ready.reason, ready.message)).unwrap_or_default()
}

fn controls(quarantine: &Quarantine) -> BTreeMap<ControlName, (ControlState, String)> {
    let controls = quarantine.status.clone().unwrap_or_default().controls;
    controls.into_iter().map(|control| (control.name, (control.state, control.message))).collect()
}

fn all_are(quarantine: &Quarantine, state: ControlState) -> bool {
    let controls = controls(quarantine);
    TRIED.iter().all(|name| controls.get(name).is_some_and(|control| control.0 == state))
}

#[tokio::test]
async fn dead_api_server_is_reported_until_it_is_listed_no_more() {
    let two = Two::start(&[]).await;
    let tested = |q: &Quarantine| ready(q).0 == "True" && all_are(q, ControlState::Tested);
    let found = two.until("tested on both", tested).await;
    let both = format!("at {}, {}", two.first, two.second);
    for name in TRIED {
        let message = &controls(&found)[&name].1;
        assert!(message.contains(&both), "{name:?}: {message}");
    }
    assert!(controls(&found)[&ControlName::Guard].1.contains("on volumes is not tried"));
    assert_eq!(found.status.as_ref().unwrap().tested.as_deref(), Some("3/4"), "all but the network");

    // Killed, it does not take itself off the list: until its lease ends it is listed, and dead.
    two.cluster.kill_api_server(1).unwrap();
    let again = Patch::Merge(serde_json::json!({"spec": {"isolation": "Sealed"}}));
    let quarantines: Api<Quarantine> = Api::all(two.administrator.clone());
    quarantines.patch("watched", &PatchParams::default(), &again).await.unwrap();
    let sealed = |q: &Quarantine| {
        ready(q).0 == "True"
            && q.status.as_ref().unwrap().isolation == Some(Isolation::Sealed)
            && all_are(q, ControlState::Unverifiable)
    };
    let found = two.until("sealed, and told of the dead one", sealed).await;
    for name in TRIED {
        let message = &controls(&found)[&name].1;
        assert!(message.contains(&format!("at {}", two.first)), "{name:?}: {message}");
        let dead = format!("Listed, and not tried: {}: Connection refused", two.second);
        assert!(message.contains(&dead), "{name:?}: {message}");
    }

    let alone = |q: &Quarantine| tested(q) && !controls(q)[&ControlName::Fence].1.contains(&two.second);
    two.until("tested on the one that is left", alone).await;
}

#[tokio::test]
async fn api_server_that_does_not_enforce_is_named() {
    let two = Two::start(&["--disable-admission-plugins=ValidatingAdmissionPolicy"]).await;
    let told = |q: &Quarantine| ready(q).1 == "FenceNotVerified";
    let found = two.until("told of the one that lets through", told).await;
    let (state, _, message) = ready(&found);
    assert_eq!(state, "False");
    let through = format!("resurgam-write-fence does not refuse at this level yet at {}", two.second);
    assert!(message.contains(&through), "{message}");
    assert!(!message.contains(&format!("yet at {}", two.first)), "{message}");
    for name in TRIED {
        let (state, message) = &controls(&found)[&name];
        assert_eq!(*state, ControlState::NotEnforced, "{name:?}");
        assert!(message.contains(&format!("at {}; refused at {}", two.second, two.first)), "{message}");
    }
    assert_eq!(found.status.as_ref().unwrap().isolation, None, "nothing is said to be enforced");
    assert_ne!(controls(&found)[&ControlName::Network].0, ControlState::NotEnforced);
    let allowing = allowing(&two.administrator, "watched").await;
    assert_eq!(allowing, [network::DEFAULT_DENY], "the network is cut off all the same");

    // Taken away by who runs it, as a load balancer's check would: the rest holds.
    two.cluster.kill_api_server(1).unwrap();
    two.until("ready without it", |q| ready(q).0 == "True" && all_are(q, ControlState::Tested)).await;
    let lead: Api<Quarantine> = Api::all(two.cluster.client(Identity::RecoveryLead).await.unwrap());
    lead.delete("watched", &DeleteParams::default()).await.unwrap();
    let gone = await_condition(lead, "watched", |q: Option<&Quarantine>| q.is_none());
    within("its release", gone).await.unwrap();
}
