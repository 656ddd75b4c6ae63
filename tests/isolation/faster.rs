//! Somebody else does the same at the same time: what they wrote is not overwritten, and nothing is done twice.

use std::time::Duration;

use control_plane::Identity;
use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, Resource, ResourceExt};
use resurgam::api::{
    Isolation, MANAGED_BY_LABEL, OPERATOR_NAMESPACE, QuarantineSpec, SEAL_ANNOTATION, field_manager,
};
use resurgam::isolation::ensure::{self, State};
use resurgam::isolation::guard::{self, Guards};
use resurgam::isolation::identity::{self, IdentityError, Mark};
use resurgam::isolation::label::Writing;
use resurgam::isolation::network::{self, Before, NetworkError, Room};
use resurgam::isolation::policies;
use serde_json::{Value, json};

use crate::api;
use crate::meanwhile::{Happens, bare, meanwhile, namespace, of};
use crate::support::within;

/// Written in between, by who may write everything.
fn patched<K>(all: Api<K>, name: &str, patch: Value) -> BoxFuture<'static, Happens>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + Send + 'static,
{
    let name = name.to_owned();
    async move {
        all.patch(&name, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
        None
    }
    .boxed()
}

fn note() -> Value {
    json!({"metadata": {"annotations": {"note": "of somebody else"}}})
}

fn nothing() -> BoxFuture<'static, Happens> {
    async { None }.boxed()
}

#[tokio::test]
async fn what_somebody_else_made_at_the_same_time_is_looked_at_and_not_made_again() {
    let plane = bare().await;
    let administrator = plane.client(Identity::PlatformAdministrator).await.unwrap();
    let responder = plane.client(Identity::Responder).await.unwrap();
    let guards: Api<ConfigMap> = Api::namespaced(administrator.clone(), OPERATOR_NAMESPACE);

    // Nothing is told to guards that are not there, to forget what they do not know.
    let operator = plane.client(Identity::Operator).await.unwrap();
    Guards::new(operator).set("library", Isolation::Open).await.unwrap();
    assert_eq!(guards.get_opt(guard::CONFIG_MAP).await.unwrap(), None);

    let path = format!("POST /api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps");
    let faster = guards.clone();
    let (client, posts) = meanwhile(responder.clone(), &path, move |_| {
        let faster = faster.clone();
        async move {
            faster.create(&PostParams::default(), &guard::empty()).await.unwrap();
            None
        }
        .boxed()
    });
    assert!(!guard::ensure(&client).await.unwrap(), "somebody else made it");
    assert!(!guard::ensure(&client).await.unwrap(), "it is there");
    assert_eq!(posts.count(), 1);
    guards.delete(guard::CONFIG_MAP, &DeleteParams::default()).await.unwrap();
    let refused = |_| async { Some(422) }.boxed();
    let (client, _) = meanwhile(responder.clone(), &path, refused);
    assert!(guard::ensure(&client).await.unwrap_err().to_string().contains("as the test has it"));
    let (client, _) = meanwhile(responder.clone(), &path, |_| nothing());
    assert!(guard::ensure(&client).await.unwrap(), "made by us");

    // Of the policies, the first is made by somebody as it should be, the second as another version has it.
    let all: Vec<_> = policies::all().unwrap().into_iter().map(|policy| policy.policy).collect();
    let made: Api<ValidatingAdmissionPolicy> = Api::all(administrator.clone());
    let path = "POST /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let (client, _) = meanwhile(responder.clone(), path, |_| async { Some(422) }.boxed());
    let error = ensure::ensure(&client, false).await.unwrap_err().to_string();
    assert!(
        error.contains("create ValidatingAdmissionPolicy") && error.contains("as the test has it"),
        "{error}"
    );
    let (client, _) = meanwhile(responder, path, move |nth| {
        let (made, all) = (made.clone(), all.clone());
        async move {
            let mut policy = all[nth - 1].clone();
            if nth == 2 {
                policy.spec.as_mut().unwrap().variables = None;
                policy.spec.as_mut().unwrap().validations.as_mut().unwrap().truncate(1);
                policy.spec.as_mut().unwrap().validations.as_mut().unwrap()[0].expression = "true".into();
                policy.spec.as_mut().unwrap().audit_annotations = None;
                policy.spec.as_mut().unwrap().match_conditions = None;
                policy.spec.as_mut().unwrap().validations.as_mut().unwrap()[0].message_expression = None;
            }
            if nth <= 2 {
                made.create(&PostParams::default(), &policy).await.unwrap();
            }
            None
        }
        .boxed()
    });
    let found = ensure::ensure(&client, false).await.unwrap();
    let states: Vec<_> = found.iter().map(|found| found.state).take(6).collect();
    use State::{Differs, InPlace, Made};
    assert_eq!(states, [InPlace, Made, Differs, Made, Made, Made], "{found:#?}");
}

#[tokio::test]
async fn the_guards_are_told_once_and_by_whom_is_on_record() {
    let operator = of(Identity::Operator).await;
    let path = format!("PATCH /api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps/{}", guard::CONFIG_MAP);
    let (client, patches) = meanwhile(operator.clone(), &path, |_| nothing());
    let spec = QuarantineSpec {
        reason: "unusual activity".into(),
        ..serde_json::from_value(json!({"isolation": "Contained", "reason": ""})).unwrap()
    };
    let (contained, open) = (Isolation::Contained, Isolation::Open);
    let fresh = namespace("told-once").await;

    assert_eq!(guard::level(&client, "told-once").await.unwrap(), None);
    guard::add(&client, "told-once", contained).await.unwrap();
    guard::add(&client, "told-once", Isolation::Sealed).await.unwrap();
    assert_eq!(
        (patches.count(), guard::level(&client, "told-once").await.unwrap().as_deref()),
        (1, Some("contained"))
    );

    let guards = Guards::new(client.clone());
    assert!(!guard::is_marked(&client, &fresh, &spec, contained).await.unwrap(), "the guards alone know");
    let marked = guards.mark(&fresh, &spec, contained, Writing::default()).await.unwrap();
    assert!(guard::is_marked(&client, &marked, &spec, contained).await.unwrap());
    assert_eq!(patches.count(), 2, "once more by who marks it");
    guards.set("told-once", Isolation::Sealed).await.unwrap();
    assert!(!guard::is_marked(&client, &marked, &spec, contained).await.unwrap(), "the label alone");
    let labels = written_by(&marked.metadata, "f:resurgam.dev/isolation");
    assert_eq!(labels, [field_manager::ISOLATION]);

    let freed = guards.mark(&marked, &spec, open, Writing::default()).await.unwrap();
    assert_eq!((patches.count(), guard::level(&client, "told-once").await.unwrap()), (4, None));
    assert!(guard::is_marked(&client, &freed, &spec, open).await.unwrap());

    // Who holds the verbs is told where it is news.
    let before = patches.count();
    for (holders, told) in [("lead *", 1), ("lead *", 1), ("lead a", 2)] {
        guard::set_holders(&client, holders).await.unwrap();
        assert_eq!(patches.count(), before + told, "{holders}");
    }
    let known: Api<ConfigMap> = api(&operator, OPERATOR_NAMESPACE);
    let known = known.get(guard::CONFIG_MAP).await.unwrap();
    assert_eq!(known.data.as_ref().unwrap()[guard::ROLES_KEY], "lead a");
    assert_eq!(written_by(&known.metadata, "f:_roles"), [field_manager::FENCE]);
}

#[tokio::test]
async fn guards_that_an_operator_told_in_the_meantime_are_not_told_less() {
    let (responder, operator) = (of(Identity::Responder).await, of(Identity::Operator).await);
    let guards = Guards::new(operator.clone());
    let tell = |namespace: &str| json!({"data": {namespace: "contained"}});
    // Who may only isolate may add a namespace, and change none.
    guards.set("told-before", Isolation::Sealed).await.unwrap();
    let all = api::<ConfigMap>(&responder, OPERATOR_NAMESPACE);
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    within("the guards to be guarded", async {
        while all.patch(guard::CONFIG_MAP, &dry, &Patch::Merge(tell("told-before"))).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    let path = format!("PATCH /api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps/{}", guard::CONFIG_MAP);
    let (client, patches) = meanwhile(responder.clone(), &path, move |_| {
        let guards = Guards::new(operator.clone());
        async move {
            guards.set("told-first", Isolation::Sealed).await.unwrap();
            None
        }
        .boxed()
    });
    guard::add(&client, "told-first", Isolation::Contained).await.unwrap();
    assert_eq!(patches.count(), 1);
    assert_eq!(guard::level(&responder, "told-first").await.unwrap().as_deref(), Some("sealed"));

    // Refused, and unknown to them all the same, it is told.
    let (client, _) = meanwhile(responder.clone(), &path, |_| async { Some(422) }.boxed());
    let error = guard::add(&client, "told-never", Isolation::Contained).await.unwrap_err().to_string();
    assert!(error.contains("as the test has it"), "{error}");
}

/// Who wrote a field, as the API server has it.
fn written_by(meta: &kube::core::ObjectMeta, field: &str) -> Vec<String> {
    let entries = meta.managed_fields.iter().flatten();
    let of_it = entries.filter(|entry| serde_json::to_string(&entry.fields_v1).unwrap().contains(field));
    of_it.filter_map(|entry| entry.manager.clone()).collect()
}

async fn allow(client: &Client, name: &str, policy: &str) -> NetworkPolicy {
    let policy = json!({"metadata": {"name": policy}, "spec": {"podSelector": {}, "ingress": [{}]}});
    let policies = api::<NetworkPolicy>(client, name);
    policies.create(&PostParams::default(), &serde_json::from_value(policy).unwrap()).await.unwrap()
}

async fn policies_of(client: &Client, name: &str) -> Vec<String> {
    let list = api::<NetworkPolicy>(client, name).list(&ListParams::default()).await.unwrap();
    list.iter().map(ResourceExt::name_any).collect()
}

#[tokio::test]
async fn a_network_is_written_where_it_differs_and_by_whom_is_on_record() {
    let (operator, name) = (of(Identity::Operator).await, "network-once");
    namespace(name).await;
    allow(&of(Identity::TenantAdministrator).await, name, "allow").await;
    let room = Room { reachable: vec!["other".into()], holes: Vec::new() };
    for (what, room, weakened, changed) in [
        ("cut off", None, false, true),
        ("as it is", None, false, false),
        ("let in", Some(&room), false, true),
        ("as it is", Some(&room), false, false),
        ("weakened", Some(&room), true, true),
        ("taken back", None, false, true),
        ("as it is", None, false, false),
    ] {
        if weakened {
            let deny = api::<NetworkPolicy>(&of(Identity::PlatformAdministrator).await, name);
            let open = Patch::Merge(json!({"spec": {"ingress": [{}]}}));
            deny.patch(network::DEFAULT_DENY, &PatchParams::default(), &open).await.unwrap();
        }
        let wrote = network::isolate(&operator, name, "seal", room, Before::Open).await.unwrap();
        assert_eq!(wrote, changed, "{what}");
        let names: &[&str] = if room.is_some() {
            &[network::CLEAN_ROOM, network::DEFAULT_DENY]
        } else {
            &[network::DEFAULT_DENY]
        };
        assert_eq!(policies_of(&operator, name).await, names, "{what}");
        for live in api::<NetworkPolicy>(&operator, name).list(&ListParams::default()).await.unwrap() {
            let wanted = network::wanted(name, room).into_iter().find(|w| w.name_any() == live.name_any());
            assert_eq!(live.spec, wanted.unwrap().spec, "{what}");
            assert_eq!(written_by(&live.metadata, "f:policyTypes"), [field_manager::ISOLATION], "{what}");
        }
    }
    let record = api::<ConfigMap>(&operator, name).get(network::RECORD).await.unwrap();
    assert_eq!(record.labels()[MANAGED_BY_LABEL], "resurgam");
    assert_eq!(written_by(&record.metadata, "f:allow"), [field_manager::ISOLATION]);
}

#[tokio::test]
async fn a_policy_is_removed_only_once_what_was_recorded_of_it_is_what_is_read() {
    let (operator, name) = (of(Identity::Operator).await, "network-recorded");
    namespace(name).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    let records = api::<ConfigMap>(&administrator, name);
    allow(&administrator, name, "first").await;
    network::isolate(&operator, name, "seal", None, Before::Open).await.unwrap();
    let second = allow(&administrator, name, "second").await;

    // Somebody writes into the record between the reading and the writing of it.
    let record = format!("/api/v1/namespaces/{name}/configmaps/{}", network::RECORD);
    let written = records.clone();
    let put = format!("PUT {record}");
    let (client, _) =
        meanwhile(operator.clone(), &put, move |_| patched(written.clone(), network::RECORD, note()));
    let error = network::isolate(&client, name, "seal", None, Before::Open).await.unwrap_err();
    assert!(matches!(&error, NetworkError::Io(io) if io.is_conflict()), "{error}");
    assert_eq!(policies_of(&operator, name).await, [network::DEFAULT_DENY, "second"]);

    // Or after it: what is read is another policy, or one of another.
    for (uid, ports) in [(second.uid().unwrap(), json!([{"from": []}])), ("another".into(), json!([{}]))] {
        let policy = json!({"metadata": {"name": "second", "namespace": name}, "spec": {"podSelector": {}, "ingress": ports, "policyTypes": ["Ingress"]}});
        let forged = json!({"data": {"second": json!({"uid": uid, "policy": policy}).to_string(), format!("again-{}", second.uid().unwrap()): null}});
        let written = records.clone();
        let get = format!("GET {record}");
        let (client, _) = meanwhile(operator.clone(), &get, move |nth| match nth {
            2 => patched(written.clone(), network::RECORD, forged.clone()),
            _ => nothing(),
        });
        let error = network::isolate(&client, name, "seal", None, Before::Open).await.unwrap_err();
        assert!(matches!(&error, NetworkError::NotRecorded(_, policy) if policy == "second"), "{error}");
        assert_eq!(policies_of(&operator, name).await, [network::DEFAULT_DENY, "second"]);
    }
    network::isolate(&operator, name, "seal", None, Before::Open).await.unwrap();
    assert_eq!(policies_of(&operator, name).await, [network::DEFAULT_DENY]);

    // On release, what is there by now is left as it is, and what was recorded a second time is evidence only.
    let there = allow(&administrator, name, "first").await;
    network::release(&operator, name, "seal").await.unwrap();
    assert_eq!(policies_of(&operator, name).await, ["first", "second"]);
    let first = api::<NetworkPolicy>(&operator, name).get("first").await.unwrap();
    assert_eq!(first.resource_version(), there.resource_version());
    assert_eq!(records.get_opt(network::RECORD).await.unwrap(), None);
}

/// An account as a tenant makes it.
async fn account(client: &Client, name: &str, account: &str) -> ServiceAccount {
    let manifest = json!({"metadata": {"name": account, "labels": {"team": "library"}}, "imagePullSecrets": [{"name": "pull"}]});
    let accounts = api::<ServiceAccount>(client, name);
    accounts.create(&PostParams::default(), &serde_json::from_value(manifest).unwrap()).await.unwrap()
}

fn mark(evidence: &str) -> Mark {
    Mark { seal: "seal".into(), evidence: evidence.into() }
}

async fn get<K>(client: &Client, namespace: &str, name: &str) -> K
where
    K: Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
        + Clone
        + std::fmt::Debug
        + serde::de::DeserializeOwned,
{
    api::<K>(client, namespace).get(name).await.unwrap()
}

/// As tokens see it: another account of that name, with all that the former one had.
async fn is_renewed(client: &Client, name: &str, before: &ServiceAccount) {
    let after: ServiceAccount = get(client, name, &before.name_any()).await;
    assert_ne!(after.uid(), before.uid(), "{}: its tokens are void", before.name_any());
    assert_eq!((after.labels(), &after.image_pull_secrets), (before.labels(), &before.image_pull_secrets));
    assert_eq!(after.annotations()[SEAL_ANNOTATION], "seal");
}

#[tokio::test]
async fn no_account_is_deleted_before_the_record_of_all_is_what_is_read() {
    let (operator, name) = (of(Identity::Operator).await, "accounts-recorded");
    namespace(name).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    let (records, record) = (
        api::<ConfigMap>(&administrator, name),
        format!("/api/v1/namespaces/{name}/configmaps/{}", identity::RECORD),
    );
    let before = account(&administrator, name, "worker").await;
    let delete = format!("DELETE /api/v1/namespaces/{name}/serviceaccounts/worker");

    // The record is another than was written.
    let written = records.clone();
    let (client, _) = meanwhile(operator.clone(), &format!("GET {record}"), move |nth| match nth {
        2 => patched(written.clone(), identity::RECORD, json!({"data": {"worker": null}})),
        _ => nothing(),
    });
    let (client, deletes) = meanwhile(client, &delete, |_| nothing());
    let error = identity::renew(&client, name, &mark("one")).await.unwrap_err();
    assert!(matches!(error, IdentityError::NotRecorded(_)), "{error}");

    // Somebody writes into it between the reading and the writing of it.
    let written = records.clone();
    let put = format!("PUT {record}");
    let (client, _) = meanwhile(client, &put, move |_| patched(written.clone(), identity::RECORD, note()));
    let error = identity::renew(&client, name, &mark("one")).await.unwrap_err();
    assert!(matches!(&error, IdentityError::Io(io) if io.is_conflict()), "{error}");
    assert_eq!(deletes.count(), 0);
    assert_eq!(get::<ServiceAccount>(&administrator, name, "worker").await.uid(), before.uid());

    // Whoever cannot go on says with what.
    let (client, _) = meanwhile(operator.clone(), &delete, |_| async { Some(422) }.boxed());
    let error = identity::renew(&client, name, &mark("one")).await.unwrap_err().to_string();
    assert!(error.starts_with("delete ServiceAccount accounts-recorded/worker: "), "{error}");
    let stored: ConfigMap = get(&administrator, name, identity::RECORD).await;
    assert_eq!(stored.labels()[MANAGED_BY_LABEL], "resurgam");

    // One that came since is recorded, too, before it goes.
    let late = account(&administrator, name, "late").await;
    identity::renew(&operator, name, &mark("one")).await.unwrap();
    is_renewed(&administrator, name, &before).await;
    is_renewed(&administrator, name, &late).await;
    assert_eq!(records.get_opt(identity::RECORD).await.unwrap(), None);
    let made: ServiceAccount = get(&administrator, name, "worker").await;
    assert_eq!(written_by(&made.metadata, "f:imagePullSecrets"), [field_manager::ISOLATION]);
    assert!(!identity::renew(&operator, name, &mark("one")).await.unwrap(), "once for each sealing");
}

#[tokio::test]
async fn an_account_that_came_after_the_record_of_an_earlier_sealing_is_renewed_by_the_next() {
    let (operator, name) = (of(Identity::Operator).await, "accounts-of-two-sealings");
    namespace(name).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    account(&administrator, name, "worker").await;
    let delete = format!("DELETE /api/v1/namespaces/{name}/serviceaccounts/worker");
    let (client, _) = meanwhile(operator.clone(), &delete, |_| async { Some(422) }.boxed());
    identity::renew(&client, name, &mark("one")).await.unwrap_err();

    let accounts = api::<ServiceAccount>(&administrator, name);
    accounts.delete("worker", &DeleteParams::default()).await.unwrap();
    let newcomer = account(&administrator, name, "worker").await;
    identity::renew(&operator, name, &mark("two")).await.unwrap();
    is_renewed(&administrator, name, &newcomer).await;
}

#[tokio::test]
async fn an_account_that_its_own_controller_made_first_is_made_what_it_was() {
    let (operator, name) = (of(Identity::Operator).await, "accounts-made-first");
    namespace(name).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    let before = account(&administrator, name, "worker").await;
    let post = format!("POST /api/v1/namespaces/{name}/serviceaccounts");
    // Of an answer that is none of "there already", nothing is concluded.
    for code in [Some(422), None] {
        let accounts = api::<ServiceAccount>(&administrator, name);
        let (client, _) = meanwhile(operator.clone(), &post, move |_| {
            let accounts = accounts.clone();
            async move {
                // `default` has such a controller, and may be the first that is made. The API server tells who wrote what of
                // objects alone that say something at first.
                let bare = json!({"metadata": {"name": "worker"}, "automountServiceAccountToken": true});
                let made =
                    accounts.create(&PostParams::default(), &serde_json::from_value(bare).unwrap()).await;
                assert!(
                    made.is_ok()
                        || made.is_err_and(|error| matches!(error, kube::Error::Api(s) if s.code == 409))
                );
                code
            }
            .boxed()
        });
        let renewed = identity::renew(&client, name, &mark("one")).await;
        if code.is_some() {
            assert!(renewed.unwrap_err().to_string().contains("as the test has it"));
        } else {
            renewed.unwrap();
        }
    }
    is_renewed(&administrator, name, &before).await;
    let made: ServiceAccount = get(&administrator, name, "worker").await;
    assert_eq!(written_by(&made.metadata, "f:imagePullSecrets"), [field_manager::ISOLATION]);
}

#[tokio::test]
async fn a_namespace_that_somebody_wrote_into_is_not_labelled_as_it_was_read() {
    let (operator, name) = (of(Identity::Operator).await, "written-since");
    let read: Namespace = namespace(name).await;
    let tenant: Api<Namespace> = Api::all(of(Identity::TenantAdministrator).await);
    patched(tenant, name, note()).await;
    let spec =
        serde_json::from_value(json!({"isolation": "Contained", "reason": "unusual activity"})).unwrap();
    let error =
        resurgam::isolation::label::label(&operator, &read, &spec, Isolation::Contained, Writing::default());
    assert!(error.await.unwrap_err().is_conflict());
}
