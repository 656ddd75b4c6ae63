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
    Isolation, MANAGED_BY_LABEL, OPERATOR_NAMESPACE, QuarantineSpec, RECORDS_NAMESPACE, SEALED_LABEL,
    field_manager,
};
use resurgam::isolation::ensure::{self, PolicyState};
use resurgam::isolation::identity::{self, IdentityError, SealMark};
use resurgam::isolation::list::{self, CONFIG_MAPS, Listed, Lists};
use resurgam::isolation::network::{self, Before, CleanRoomAccess, NetworkError, is_neutralised};
use resurgam::isolation::policies;
use resurgam::isolation::records::RecordError;
use serde_json::{Value, json};

use crate::isolation::api;
use crate::isolation::meanwhile::{Happens, alone, bare, meanwhile, namespace, of};
use crate::isolation::support::{allowing, records_of, within};

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

fn note(text: usize) -> Value {
    json!({"metadata": {"annotations": {"note": format!("of somebody else, {text}")}}})
}

fn nothing() -> BoxFuture<'static, Happens> {
    async { None }.boxed()
}

fn answer(code: u16) -> BoxFuture<'static, Happens> {
    async move { Some(code) }.boxed()
}

#[tokio::test]
async fn what_somebody_else_creates_meanwhile_is_not_created_again() {
    let plane = bare().await;
    let administrator = plane.client(Identity::PlatformAdministrator).await.unwrap();
    let responder = plane.client(Identity::Responder).await.unwrap();
    let maps: Api<ConfigMap> = Api::namespaced(administrator.clone(), OPERATOR_NAMESPACE);

    // Lists that are not there have nothing to be taken off.
    let operator = plane.client(Identity::Operator).await.unwrap();
    Lists::new(operator).set("library", Isolation::Open).await.unwrap();
    for name in CONFIG_MAPS {
        assert_eq!(maps.get_opt(name).await.unwrap(), None);
    }

    let path = format!("POST /api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps");
    let faster = maps.clone();
    let (client, posts) = meanwhile(responder.clone(), &path, move |nth| {
        let faster = faster.clone();
        async move {
            faster.create(&PostParams::default(), &list::empty()[nth - 1]).await.unwrap();
            None
        }
        .boxed()
    });
    assert!(list::ensure(&client).await.unwrap(), "they were missing");
    assert!(!list::ensure(&client).await.unwrap(), "they are there");
    assert_eq!(posts.count(), CONFIG_MAPS.len());
    for name in CONFIG_MAPS {
        maps.delete(name, &DeleteParams::default()).await.unwrap();
    }
    let (client, _) = meanwhile(responder.clone(), &path, |_| answer(422));
    assert!(list::ensure(&client).await.unwrap_err().to_string().contains("as the test has it"));
    let (client, _) = meanwhile(responder.clone(), &path, |_| nothing());
    assert!(list::ensure(&client).await.unwrap(), "made by us");

    // Of the policies, the first is made by somebody as it should be, the second as another version has it.
    let all: Vec<_> = policies::all().unwrap().into_iter().map(|policy| policy.policy).collect();
    let made: Api<ValidatingAdmissionPolicy> = Api::all(administrator.clone());
    let path = "POST /apis/admissionregistration.k8s.io/v1/validatingadmissionpolicies";
    let (client, _) = meanwhile(responder.clone(), path, |_| answer(422));
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
    use PolicyState::{Differs, InPlace, Made};
    assert_eq!(states, [InPlace, Made, Differs, Made, Made, Made], "{found:#?}");
}

/// What both lists say of a namespace.
fn both(level: Option<&str>) -> Listed {
    Listed::new([level, level])
}

fn names<const N: usize>(names: [&str; N]) -> Vec<String> {
    names.map(str::to_owned).to_vec()
}

#[tokio::test]
async fn lists_are_written_once_and_their_writer_is_on_record() {
    let _alone = alone().await;
    let operator = of(Identity::Operator).await;
    let path = format!("PATCH /api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps/{}?", CONFIG_MAPS[1]);
    let (client, patches) = meanwhile(operator.clone(), &path, |_| nothing());
    let spec: QuarantineSpec =
        serde_json::from_value(json!({"isolation": "Contained", "reason": "unusual activity"})).unwrap();
    let (contained, open) = (Isolation::Contained, Isolation::Open);
    let fresh = namespace("told-once").await;
    let listed = async || Lists::new(operator.clone()).of("told-once").await.unwrap();

    assert_eq!(listed().await, both(None));
    list::add(&client, &names(["told-once"]), contained).await.unwrap();
    list::add(&client, &names(["told-once"]), Isolation::Sealed).await.unwrap();
    assert_eq!((patches.count(), listed().await), (1, both(Some("contained"))));

    let lists = Lists::new(client.clone());
    let is_marked =
        async |namespace: &Namespace, level| lists.is_marked(namespace, &spec, level).await.unwrap();
    assert!(!is_marked(&fresh, contained).await, "the lists alone know");
    let marked = lists.mark(&fresh, &spec, contained).await.unwrap();
    assert!(is_marked(&marked, contained).await);
    assert_eq!(patches.count(), 1, "the lists say so already");
    lists.set("told-once", Isolation::Sealed).await.unwrap();
    assert!(!is_marked(&marked, contained).await, "the label alone");
    let labels = written_by(&marked.metadata, "f:resurgam.dev/isolation");
    assert_eq!(labels, [field_manager::ISOLATION]);

    let freed = lists.mark(&marked, &spec, open).await.unwrap();
    assert_eq!((patches.count(), listed().await), (3, both(None)));
    assert!(is_marked(&freed, open).await);

    // Who holds the verbs is written where it is news.
    let before = patches.count();
    for (holders, written) in [("lead *", 1), ("lead *", 1), ("lead a", 2)] {
        list::set_holders(&client, holders).await.unwrap();
        assert_eq!(patches.count(), before + written, "{holders}");
    }
    for name in CONFIG_MAPS {
        let map = api::<ConfigMap>(&operator, OPERATOR_NAMESPACE).get(name).await.unwrap();
        assert_eq!(map.data.as_ref().unwrap()[list::ROLES_KEY], "lead a");
        assert_eq!(map.metadata.managed_fields.as_deref().unwrap_or_default(), [], "they cost every write");
    }
}

#[tokio::test]
async fn any_number_of_namespaces_is_listed_by_one_write_of_each_list() {
    let _alone = alone().await;
    let responder = of(Identity::Responder).await;
    let path = format!("PATCH /api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps/");
    let (client, patches) = meanwhile(responder.clone(), &path, |_| nothing());
    let all: Vec<_> = (0..500).map(|number| format!("many-{number}")).collect();
    list::add(&client, &all, Isolation::Contained).await.unwrap();
    assert_eq!(patches.count(), CONFIG_MAPS.len());
    for name in ["many-0", "many-499"] {
        assert_eq!(Lists::new(responder.clone()).of(name).await.unwrap(), both(Some("contained")));
    }
    let lists = Lists::new(of(Identity::Operator).await);
    futures::future::try_join_all(all.iter().map(|name| lists.set(name, Isolation::Open))).await.unwrap();
}

#[tokio::test]
async fn lists_that_an_operator_wrote_meanwhile_keep_their_level() {
    let _alone = alone().await;
    let (responder, operator) = (of(Identity::Responder).await, of(Identity::Operator).await);
    let lists = Lists::new(operator.clone());
    // Who may only isolate may append a namespace, and change none.
    lists.set("told-before", Isolation::Sealed).await.unwrap();
    let emptied = json!({"data": {"_sealed": "# nobody\n"}});
    let all = api::<ConfigMap>(&responder, OPERATOR_NAMESPACE);
    let dry = PatchParams { dry_run: true, ..PatchParams::default() };
    within("the lists to be guarded", async {
        while all.patch(CONFIG_MAPS[0], &dry, &Patch::Merge(&emptied)).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;

    let path = format!("PATCH /api/v1/namespaces/{OPERATOR_NAMESPACE}/configmaps/{}?", CONFIG_MAPS[0]);
    let (client, patches) = meanwhile(responder.clone(), &path, move |_| {
        let lists = Lists::new(operator.clone());
        async move {
            lists.set("told-first", Isolation::Sealed).await.unwrap();
            None
        }
        .boxed()
    });
    list::add(&client, &names(["told-first"]), Isolation::Contained).await.unwrap();
    assert_eq!(patches.count(), 1);
    assert_eq!(Lists::new(responder.clone()).of("told-first").await.unwrap(), both(Some("sealed")));

    // Refused, and on one list only, it is an error.
    let (client, _) = meanwhile(responder.clone(), &path, |_| answer(422));
    let error = list::add(&client, &names(["told-never"]), Isolation::Contained).await.unwrap_err();
    assert!(error.to_string().contains("as the test has it"), "{error}");
    let listed = Lists::new(responder.clone()).of("told-never").await.unwrap();
    assert_eq!(
        listed,
        Listed::new([None, Some("contained")]),
        "one list that fails keeps none of the others"
    );
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

#[tokio::test]
async fn changed_network_policy_is_rewritten_and_its_writer_recorded() {
    let (operator, name) = (of(Identity::Operator).await, "network-once");
    let uid = namespace(name).await.uid().unwrap();
    let before = allow(&of(Identity::TenantAdministrator).await, name, "allow").await;
    let policies = api::<NetworkPolicy>(&operator, name);
    let room = CleanRoomAccess { reachable: vec!["other".into()], egress_exceptions: Vec::new() };
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
        let wrote = network::isolate(&operator, name, &uid, room, Before::Open).await.unwrap();
        assert_eq!(wrote.changed, changed, "{what}");
        let wanted = network::wanted(name, room);
        let mut names: Vec<_> = wanted.iter().map(ResourceExt::name_any).collect();
        names.sort();
        assert_eq!(allowing(&operator, name).await, names, "{what}");
        let there = policies.list(&ListParams::default()).await.unwrap();
        assert_eq!(there.items.len(), names.len() + 1, "the tenant's own is kept: {what}");
        for live in there.iter().filter(|live| live.name_any() != "allow") {
            let wanted = wanted.iter().find(|wanted| wanted.name_any() == live.name_any());
            assert_eq!(live.spec, wanted.unwrap().spec, "{what}");
            assert_eq!(written_by(&live.metadata, "f:policyTypes"), [field_manager::ISOLATION], "{what}");
        }
    }
    let neutralised = policies.get("allow").await.unwrap();
    assert!(is_neutralised(&neutralised));
    assert_eq!(neutralised.uid(), before.uid(), "neutralised in place");
    assert_eq!(written_by(&neutralised.metadata, "f:podSelector"), [field_manager::ISOLATION]);
    assert_eq!(records_of(&operator, name).await, [""; 0], "what stays in place needs no record");

    network::release(&operator, name, &uid).await.unwrap();
    assert_eq!(allowing(&operator, name).await, ["allow"]);
    assert_eq!(policies.get("allow").await.unwrap().spec, before.spec);
}

#[tokio::test]
async fn policy_that_changes_meanwhile_is_reread_and_neutralised() {
    let operator = of(Identity::Operator).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    // Written to before so many tries; so often it is tried; whether it comes about.
    for (name, changes, tries, comes) in
        [("network-written", 1, 2, true), ("network-written-often", usize::MAX, 5, false)]
    {
        let uid = namespace(name).await.uid().unwrap();
        for policy in ["first", "second"] {
            allow(&administrator, name, policy).await;
        }
        let policies = api::<NetworkPolicy>(&administrator, name);
        let patch = format!("PATCH /apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/second?");
        let (client, patches) = meanwhile(operator.clone(), &patch, move |nth| {
            if nth <= changes { patched(policies.clone(), "second", note(nth)) } else { nothing() }
        });
        let outcome = network::isolate(&client, name, &uid, None, Before::Open).await;
        assert_eq!(patches.count(), tries, "{name}: {outcome:?}");
        if comes {
            assert!(outcome.unwrap().changed);
            assert_eq!(allowing(&operator, name).await, [network::DEFAULT_DENY]);
        } else {
            let error = outcome.unwrap_err();
            assert!(matches!(&error, NetworkError::Io(io) if io.is_conflict()), "{error}");
            assert_eq!(
                allowing(&operator, name).await,
                [network::DEFAULT_DENY, "second"],
                "the first is cut"
            );
        }
    }

    // Gone meanwhile, it allows nothing; and one that is refused keeps none of the others.
    let name = "network-gone";
    let uid = namespace(name).await.uid().unwrap();
    for policy in ["first", "gone", "refused"] {
        allow(&administrator, name, policy).await;
    }
    let policies = api::<NetworkPolicy>(&administrator, name);
    let path = format!("PATCH /apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies");
    let (client, _) = meanwhile(operator.clone(), &format!("{path}/gone?"), move |_| {
        let policies = policies.clone();
        async move {
            policies.delete("gone", &DeleteParams::default()).await.unwrap();
            None
        }
        .boxed()
    });
    let (client, _) = meanwhile(client, &format!("{path}/refused?"), |_| answer(422));
    let error = network::isolate(&client, name, &uid, None, Before::Open).await.unwrap_err().to_string();
    assert!(error.starts_with(&format!("neutralise NetworkPolicy {name}/refused: ")), "{error}");
    assert_eq!(allowing(&operator, name).await, ["refused", network::DEFAULT_DENY]);
}

#[tokio::test]
async fn a_policy_without_room_is_recorded_before_it_goes() {
    let (operator, name) = (of(Identity::Operator).await, "network-recorded");
    let uid = namespace(name).await.uid().unwrap();
    let administrator = of(Identity::PlatformAdministrator).await;
    let [large, other] =
        [allow(&administrator, name, "large").await, allow(&administrator, name, "other").await];
    let patch = format!("PATCH /apis/networking.k8s.io/v1/namespaces/{name}/networkpolicies/large?");
    let (too_large, _) = meanwhile(operator.clone(), &patch, |_| answer(413));

    // Not recorded, it is left.
    let record = format!("POST /api/v1/namespaces/{RECORDS_NAMESPACE}/configmaps");
    let (client, _) = meanwhile(too_large.clone(), &record, |_| answer(422));
    let error = network::isolate(&client, name, &uid, None, Before::Open).await.unwrap_err();
    assert!(matches!(&error, NetworkError::Record(RecordError::Io(_))), "{error}");
    assert_eq!(allowing(&operator, name).await, ["large", network::DEFAULT_DENY]);

    network::isolate(&too_large, name, &uid, None, Before::Open).await.unwrap();
    assert_eq!(allowing(&operator, name).await, [network::DEFAULT_DENY]);
    assert_eq!(records_of(&operator, name).await.len(), 1);

    network::release(&operator, name, &uid).await.unwrap();
    assert_eq!(allowing(&operator, name).await, ["large", "other"]);
    let policies = api::<NetworkPolicy>(&operator, name);
    let back = policies.get("large").await.unwrap();
    assert_eq!((back.spec, policies.get("other").await.unwrap().spec), (large.spec, other.spec));
    assert_ne!(back.metadata.uid, large.metadata.uid, "it is created again");
    assert_eq!(records_of(&operator, name).await, [""; 0]);

    // What is there by the time of the release is left as it is.
    network::isolate(&too_large, name, &uid, None, Before::Open).await.unwrap();
    let there = allow(&administrator, name, "large").await;
    network::release(&operator, name, &uid).await.unwrap();
    let large = policies.get("large").await.unwrap();
    assert_eq!(large.resource_version(), there.resource_version());
    assert_eq!(records_of(&operator, name).await, [""; 0]);
}

/// An account as a tenant makes it.
async fn account(client: &Client, name: &str, account: &str) -> ServiceAccount {
    let manifest = json!({"metadata": {"name": account, "labels": {"team": "library"}}, "imagePullSecrets": [{"name": "pull"}]});
    let accounts = api::<ServiceAccount>(client, name);
    accounts.create(&PostParams::default(), &serde_json::from_value(manifest).unwrap()).await.unwrap()
}

fn mark(evidence: &str) -> SealMark {
    SealMark { seal: "seal".into(), evidence: evidence.into() }
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
async fn is_recreated(client: &Client, name: &str, before: &ServiceAccount, by: &SealMark) {
    let after: ServiceAccount = get(client, name, &before.name_any()).await;
    assert_ne!(after.uid(), before.uid(), "{}: its tokens are void", before.name_any());
    assert_eq!(after.image_pull_secrets, before.image_pull_secrets);
    assert_eq!(after.labels()["team"], before.labels()["team"]);
    assert_eq!(after.labels()[SEALED_LABEL], by.label());
}

#[tokio::test]
async fn no_account_is_deleted_before_the_record_of_all_is_read_back() {
    let (operator, name) = (of(Identity::Operator).await, "accounts-recorded");
    namespace(name).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    let [before, other] =
        [account(&administrator, name, "worker").await, account(&administrator, name, "other").await];
    let delete = format!("DELETE /api/v1/namespaces/{name}/serviceaccounts/");
    let records = format!("/api/v1/namespaces/{RECORDS_NAMESPACE}/configmaps");

    // The record is gone when it is read back, or cannot be written.
    let (writer, selector) = (operator.clone(), format!("resurgam.dev/namespace={name}"));
    let (client, _) = meanwhile(operator.clone(), &format!("GET {records}"), move |nth| {
        let (pages, selector) = (api::<ConfigMap>(&writer, RECORDS_NAMESPACE), selector.clone());
        async move {
            if nth == 2 {
                for page in pages.list(&ListParams::default().labels(&selector)).await.unwrap() {
                    pages.delete(&page.name_any(), &DeleteParams::default()).await.unwrap();
                }
            }
            None
        }
        .boxed()
    });
    let (client, deletes) = meanwhile(client, &delete, |_| nothing());
    let error = identity::renew(&client, name, &mark("one")).await.unwrap_err();
    assert!(matches!(error, IdentityError::Record(RecordError::NotRecorded { .. })), "{error}");
    let (client, _) = meanwhile(client, &format!("POST {records}"), |_| answer(422));
    let error = identity::renew(&client, name, &mark("one")).await.unwrap_err();
    assert!(matches!(&error, IdentityError::Record(RecordError::Io(_))), "{error}");
    assert_eq!(deletes.count(), 0);
    assert_eq!(get::<ServiceAccount>(&administrator, name, "worker").await.uid(), before.uid());

    // One that cannot be deleted is named, and keeps none of the others.
    let (client, _) = meanwhile(operator.clone(), &format!("{delete}worker"), |_| answer(422));
    let error = identity::renew(&client, name, &mark("one")).await.unwrap_err().to_string();
    assert!(error.starts_with("delete ServiceAccount accounts-recorded/worker: "), "{error}");
    is_recreated(&administrator, name, &other, &mark("one")).await;
    let pages = records_of(&operator, name).await;
    assert_eq!(pages.len(), 1, "{pages:?}");
    let page: ConfigMap = get(&operator, RECORDS_NAMESPACE, &pages[0]).await;
    assert_eq!(page.labels()[MANAGED_BY_LABEL], "resurgam");

    // One that came since is recorded, too, before it goes.
    let late = account(&administrator, name, "late").await;
    let other: ServiceAccount = get(&administrator, name, "other").await;
    identity::renew(&operator, name, &mark("one")).await.unwrap();
    is_recreated(&administrator, name, &before, &mark("one")).await;
    is_recreated(&administrator, name, &late, &mark("one")).await;
    let again: ServiceAccount = get(&administrator, name, "other").await;
    assert_eq!(again.uid(), other.uid(), "once");
    assert_eq!(records_of(&operator, name).await, [""; 0]);
    let made: ServiceAccount = get(&administrator, name, "worker").await;
    assert_eq!(written_by(&made.metadata, "f:imagePullSecrets"), [field_manager::ISOLATION]);
    assert!(!identity::renew(&operator, name, &mark("one")).await.unwrap(), "once for each sealing");
}

#[tokio::test]
async fn account_newer_than_the_last_sealing_is_recreated() {
    let (operator, name) = (of(Identity::Operator).await, "accounts-of-two-sealings");
    namespace(name).await;
    let administrator = of(Identity::PlatformAdministrator).await;
    account(&administrator, name, "worker").await;
    let delete = format!("DELETE /api/v1/namespaces/{name}/serviceaccounts/worker");
    let (client, _) = meanwhile(operator.clone(), &delete, |_| answer(422));
    identity::renew(&client, name, &mark("one")).await.unwrap_err();

    let accounts = api::<ServiceAccount>(&administrator, name);
    accounts.delete("worker", &DeleteParams::default()).await.unwrap();
    let newcomer = account(&administrator, name, "worker").await;
    identity::renew(&operator, name, &mark("two")).await.unwrap();
    is_recreated(&administrator, name, &newcomer, &mark("two")).await;
}

#[tokio::test]
async fn account_recreated_by_its_controller_gets_its_content_back() {
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
    is_recreated(&administrator, name, &before, &mark("one")).await;
    let made: ServiceAccount = get(&administrator, name, "worker").await;
    assert_eq!(written_by(&made.metadata, "f:imagePullSecrets"), [field_manager::ISOLATION]);
}

#[tokio::test]
async fn namespace_written_since_its_read_is_not_overwritten() {
    let (operator, name) = (of(Identity::Operator).await, "written-since");
    let read: Namespace = namespace(name).await;
    let tenant: Api<Namespace> = Api::all(of(Identity::TenantAdministrator).await);
    patched(tenant, name, note(1)).await;
    let spec =
        serde_json::from_value(json!({"isolation": "Contained", "reason": "unusual activity"})).unwrap();
    let error = resurgam::isolation::label::label(&operator, &read, &spec, Isolation::Contained, false);
    assert!(error.await.unwrap_err().is_conflict());
}
