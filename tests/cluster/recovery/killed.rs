//! The operator is killed again and again while three boroughs recover.

use std::time::Duration;

use anyhow::{Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::api::ListParams;
use rehearsal::estate::look;
use rehearsal::trial::crew::Crew;
use rehearsal::{Endpoint, SplitMix, text, three_boroughs};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::recovery::judged::judged;
use crate::recovery::progress::Progress;
use crate::recovery::{BINARY, KINDS, stage};

/// How often the operator is killed.
const KILLS: usize = 5;
/// Seconds that pass before another operator leads.
const LEASE: u32 = 2;
/// Longer than anything takes, kills and a busy machine included.
const DEADLINE: Duration = Duration::from_secs(300);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_boroughs_recovers_though_its_operator_is_killed() {
    let cluster = &*stage().await;
    let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
    let endpoint = Endpoint::start().await.unwrap();
    three_boroughs::lay_down(cluster, true).await.unwrap();

    let seed = rehearsal::seed(24_112_025).unwrap();
    eprintln!("RESURGAM_SEED={seed}");
    let mut random = SplitMix::new(seed);
    let mut progress = Progress::start(&admin);
    // Looked after as a kubelet would: on a busy machine one may lose so short a lease, and ends.
    let crew = Crew::start(cluster, BINARY.as_ref(), 1, LEASE).await.unwrap();
    let namespaces = three_boroughs::namespaces().unwrap();
    let before = look(&admin, &namespaces).await.unwrap();

    let killing = async {
        let mut moments = Vec::new();
        for _ in 0..KILLS {
            let moment = progress.so_far() + random.between(40, 120);
            progress.reaches(moment).await;
            crew.replace(0)?;
            moments.push(moment);
        }
        eprintln!("killed after changes {moments:?}");
        Ok(moments)
    };
    let play = async {
        assert_eq!(three_boroughs::isolate(cluster).await?, namespaces);
        let plan = three_boroughs::arm(cluster, endpoint.url()).await?;
        let (moments, ()) = tokio::try_join!(killing, three_boroughs::lead(cluster))?;
        for wanted in ["Recovered", "Ready"] {
            wait(cluster, wanted).await?;
        }
        Ok((plan, moments))
    };
    let (plan, moments) =
        crew.meanwhile(play).await.unwrap_or_else(|error| panic!("{error:#}\n{}", crew.said()));
    eprintln!("{} changes in all", progress.so_far());
    assert!(moments.last() < Some(&progress.so_far()), "the last operator had nothing left to do");

    let wanted = three_boroughs::as_it_should_be(before).unwrap();
    let after = look(&admin, &namespaces).await.unwrap();
    for (what, wanted) in &wanted {
        assert_eq!(after.get(what), Some(wanted), "{what}");
    }
    assert_eq!(after.keys().collect::<Vec<_>>(), wanted.keys().collect::<Vec<_>>());
    let kinds = |kind| rehearsal::kind(&admin, KINDS, kind, None);
    // Those of this plan: the cluster holds what other tests recovered, too.
    let records = rehearsal::kind(&admin, KINDS, "ServiceRecovery", Some(three_boroughs::NAMESPACE));
    for record in records.list(&ListParams::default()).await.unwrap() {
        let record = serde_json::to_value(record).unwrap();
        let service = text(&record, "/spec/service").to_owned();
        let attempts = if three_boroughs::TAMPERED.contains(&service.as_str()) { 2 } else { 1 };
        assert_eq!(record["status"]["attempt"], attempts, "{service}: {}", record["status"]);
        assert_eq!(record["status"]["stage"], "Recovered", "{service}");
    }
    for namespace in &namespaces {
        let object =
            rehearsal::object(&rehearsal::kind(&admin, "v1", "Namespace", None), namespace).await.unwrap();
        assert_eq!(object["metadata"]["labels"]["resurgam.dev/isolation"], Value::Null, "{namespace}");
        let quarantine = rehearsal::object(&kinds("Quarantine"), namespace).await.unwrap();
        evidence_is_kept(cluster, namespace, &quarantine);
    }

    let report = judged(cluster, "three-boroughs", &plan).await;
    drop(crew);
    // To the clean room and out of it, each once, however often the operator died: what it died in the midst of is counted too.
    let twice = namespaces.iter().map(|namespace| (namespace.clone(), 2)).collect();
    assert_eq!(report.loosened, twice, "{report}");
    assert!(report.steps > 0 && report.asks > 0, "{report}");
}

/// As on-call staff would wait.
async fn wait(cluster: &ControlPlane, wanted: &str) -> Result<()> {
    let output = tokio::process::Command::new(cluster.binary("kubectl")?)
        .env("KUBECONFIG", cluster.kubeconfig(Identity::Responder))
        .env("KUBECACHEDIR", cluster.dir().join("kubectl-cache"))
        .args(["wait", &format!("--for=condition={wanted}"), "rplan/three-boroughs", "-n", "recovery"])
        .arg(format!("--timeout={}s", DEADLINE.as_secs()))
        .output()
        .await?;
    ensure!(output.status.success(), "{wanted}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(())
}

/// The evidence that the Quarantine names is there, and is what its digest says.
fn evidence_is_kept(cluster: &ControlPlane, namespace: &str, quarantine: &Value) {
    let capture = &quarantine["status"]["capture"];
    let digest = capture["digest"].as_str().unwrap_or_else(|| panic!("{namespace} was not captured"));
    let stored = |object: &str| {
        let content = std::fs::read(cluster.dir().join("evidence").join(object)).unwrap();
        let found: String = Sha256::digest(&content).iter().map(|byte| format!("{byte:02x}")).collect();
        assert!(object.contains(&found), "{object} holds {found}");
        serde_json::from_slice::<Value>(&content).unwrap()
    };
    // An index by the digest in the status, and the manifests that it names.
    let index = stored(&format!("{namespace}/{}.json", digest.strip_prefix("sha256:").unwrap()));
    let evidence = stored(text(&index, "/manifests/object"));
    assert_eq!((&index["namespace"], &evidence["namespace"]), (&json!(namespace), &json!(namespace)));
    let objects = evidence["objects"].as_array().unwrap();
    assert_eq!(capture["objects"], objects.len());
    assert!(
        objects.iter().any(|object| object["kind"] == "Pod"),
        "{namespace} was captured before its pods went"
    );
}
