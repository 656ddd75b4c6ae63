//! Somebody with write on the plan wants its services open: case S5 of the reports, with all its variants.

use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use rehearsal::{Endpoint, condition, kind, object};
use serde_json::{Value, json};

use crate::bad_input::bench::{Bench, KINDS};
use crate::ratchet::{asked, granted, may, people, refused, settled, ungated, user};

/// `base` runs an image that nobody approved, `late` does not answer in its clean room, `front` waits for `base`.
async fn estate(case: &'static str) -> Bench {
    Bench::with(case, &["base", "late", "front"], |manifests| {
        manifests.extend(people(case));
        let base = format!("{case}-base");
        let tampered = format!("registry.example/evil:1@sha256:{}", "f".repeat(64));
        for deployment in
            manifests.iter_mut().filter(|m| m["kind"] == "Deployment" && m["metadata"]["namespace"] == base)
        {
            deployment["spec"]["template"]["spec"]["containers"][0]["image"] = json!(tampered);
        }
    })
    .await
}

fn sound(bench: &Bench, endpoint: &Endpoint) -> Value {
    let mut late = bench.service("late", &[]);
    late["gates"] = json!({"beforeRelease": [{"name": "answers", "http": {"url": endpoint.url()}, "interval": "500ms", "failureLimit": 1, "startupGrace": "0s"}]});
    bench.plan("plan", json!([bench.service("base", &[]), late, bench.service("front", &["base"])]))
}

/// Puts another spec in the place of a plan's.
async fn replace(client: &Client, plan: &Value) -> Result<(), kube::Error> {
    let namespace = plan["metadata"]["namespace"].as_str().unwrap();
    let plans = kind(client, KINDS, "RecoveryPlan", Some(namespace));
    let name = plan["metadata"]["name"].as_str().unwrap();
    settled(async || {
        let mut live = serde_json::to_value(plans.get(name).await?).unwrap();
        live["spec"] = plan["spec"].clone();
        let live = serde_json::from_value(live).unwrap();
        plans.replace(name, &PostParams::default(), &live).await.map(drop)
    })
    .await
}

async fn create(client: &Client, plan: &Value) -> Result<(), kube::Error> {
    let plans = kind(client, KINDS, "RecoveryPlan", plan["metadata"]["namespace"].as_str());
    plans.create(&PostParams::default(), &serde_json::from_value(plan.clone()).unwrap()).await.map(drop)
}

#[tokio::test]
async fn plan_needs_an_author_who_may_use_its_account() {
    let bench = Bench::with("editor", &["web"], |manifests| manifests.extend(people("editor"))).await;
    let sound = bench.plan("plan", json!([bench.service("web", &[])]));
    let (eve, author) = (user("eve").await, user("author").await);
    let words = [
        "resurgam-plan-author",
        "eve may not use serviceaccounts/recovery in namespace editor",
        "resourceNames: [recovery], verbs: [use]",
    ];
    refused(create(&eve, &sound).await, &words);
    create(&author, &sound).await.unwrap();
    let bare = ungated(&bench, "plan", &[("web", &["web"])]);
    refused(replace(&eve, &bare).await, &words);
    // Nor in the name of another account, which the one who changes it would have to hold as well.
    let mut theirs = bare.clone();
    theirs["spec"]["serviceAccountName"] = json!("default");
    refused(replace(&eve, &theirs).await, &["eve may not use serviceaccounts/default"]);
    refused(replace(&author, &theirs).await, &["author may not use serviceaccounts/default"]);
    let other = json!([{"apiGroups": [""], "resources": ["serviceaccounts"], "resourceNames": ["default"], "verbs": ["use"]}]);
    rehearsal::apply(&bench.admin, "platform", &granted("editor", "other-account", "eve", &other))
        .await
        .unwrap();
    let before = ["eve may not use serviceaccounts/recovery", "before the change"];
    may(&eve, "editor", "use", "", "serviceaccounts", "default").await;
    refused(replace(&eve, &theirs).await, &before);
    let plans = kind(&eve, KINDS, "RecoveryPlan", Some("editor"));
    let apply = json!({"apiVersion": KINDS, "kind": "RecoveryPlan", "metadata": {"name": "plan"}, "spec": bare["spec"]});
    let params = PatchParams::apply("eve").force();
    refused(plans.patch("plan", &params, &Patch::Apply(&apply)).await, &words);
    // What says nothing of what has to be proved is not asked about.
    let label = Patch::Merge(json!({"metadata": {"labels": {"team": "web"}}}));
    plans.patch("plan", &PatchParams::default(), &label).await.unwrap();
    // By a wildcard it is granted too: who holds one may ask for the account's tokens.
    bench.apply(&bare).await;
}

#[tokio::test]
async fn loosened_plan_opens_nothing_until_it_is_accepted() {
    let endpoint = Endpoint::start().await.unwrap();
    endpoint.answer(404);
    let bench = estate("author").await;
    let (author, deputy, lead) = (user("author").await, user("deputy").await, bench.lead().await);
    bench.apply(&sound(&bench, &endpoint)).await;
    asked(&bench, "plan", "base", "GateFailed", &["images"]).await;
    asked(&bench, "plan", "late", "GateFailed", &["answers"]).await;
    bench.says("plan", "front", "Dependency", &["base"]).await;

    // A dependency less.
    let mut amended = sound(&bench, &endpoint);
    amended["spec"]["services"][2]["dependsOn"] = json!([]);
    replace(&author, &amended).await.unwrap();
    let lost = "it no longer waits for namespace author-base";
    asked(&bench, "plan", "front", "Loosened", &[lost, "acceptloosening", "AcceptLoosening"]).await;

    // No gate any more, for any of them. What had failed before says so as well, and a Retry leads to the same question.
    let all: [(&str, &[&str]); 3] = [("base", &["base"]), ("late", &["late"]), ("front", &["front"])];
    replace(&author, &ungated(&bench, "plan", &all)).await.unwrap();
    let gone = "beforeRestore gate 'images' is gone";
    asked(&bench, "plan", "front", "Loosened", &[gone, lost, "it is ungated: x"]).await;
    bench.says("plan", "base", "Loosened", &[gone]).await;
    rehearsal::retry(&lead, "author", "plan", "base", "looked into").await.unwrap();
    asked(&bench, "plan", "base", "Loosened", &[gone]).await;
    bench.stays_sealed("base").await;

    // Other names, and other services for the same namespaces.
    let renamed: [(&str, &[&str]); 2] = [("base-again", &["base"]), ("front-again", &["front"])];
    replace(&author, &ungated(&bench, "plan", &renamed)).await.unwrap();
    asked(&bench, "plan", "front-again", "Loosened", &[gone, lost]).await;
    let moved: [(&str, &[&str]); 1] = [("everything", &["front", "base"])];
    replace(&author, &ungated(&bench, "plan", &moved)).await.unwrap();
    bench.says("plan", "everything", "ClaimedByAnother", &["author-base"]).await;

    // Deleted, and made again under another name.
    let plans = kind(&author, KINDS, "RecoveryPlan", Some("author"));
    plans.delete("plan", &DeleteParams::default()).await.unwrap();
    create(&author, &ungated(&bench, "plan-b", &all)).await.unwrap();
    for service in ["base", "late", "front"] {
        asked(&bench, "plan-b", service, "Loosened", &["is gone"]).await;
    }
    // A plan of the same name as before says no more than any other.
    create(&author, &ungated(&bench, "plan", &all)).await.unwrap();
    for service in ["base", "late", "front"] {
        bench.says("plan", service, "Loosened", &["is gone"]).await;
    }
    plans.delete("plan", &DeleteParams::default()).await.unwrap();
    bench.stays_sealed("base").await;
    bench.stays_sealed("front").await;

    // Who may override, or write the plan, may not accept that.
    let decide = async |client: &Client| {
        rehearsal::decide(client, "AcceptLoosening", "author", "plan-b", "front", "it is only the front")
            .await
    };
    let error = decide(&deputy).await.unwrap_err();
    assert!(
        format!("{error:#}").contains("deputy may not acceptloosening recoveryplans/plan-b"),
        "{error:#}"
    );
    decide(&lead).await.unwrap();
    let record = bench.recovers("plan-b", "front").await;
    let conditions = record["status"]["conditions"].as_array().unwrap();
    let recovered = conditions.iter().find(|c| c["type"] == "Recovered").unwrap();
    assert_eq!(recovered["reason"], "WithExceptions");
    let exceptions = record["status"]["exceptions"].to_string();
    for word in
        ["loosened: ", "accepted by recovery-lead (Decision acceptloosening-front-", "it is only the front"]
    {
        assert!(exceptions.contains(word), "{word}: {exceptions}");
    }
    assert_eq!(condition(&record, "NeedsDecision"), "False");
    // What was accepted of one is accepted of no other.
    asked(&bench, "plan-b", "base", "Loosened", &["is gone"]).await;
    bench.stays_sealed("base").await;
    let records = kind(&lead, "v1", "ConfigMap", Some("resurgam-records"));
    let kept = object(&records, "resurgam-accepted.author-front").await.unwrap();
    assert!(kept["data"]["acceptedBy"].as_str().unwrap().starts_with("recovery-lead (Decision "), "{kept}");
    assert_eq!(kept["data"]["plan"], "author/plan-b");
}
