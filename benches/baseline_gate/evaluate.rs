//! The process that evaluates.

use std::io::{Read, Seek, SeekFrom};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::api::{Api, DynamicObject, ListParams, Patch, PatchParams};
use kube::discovery::{ApiGroup, Discovery, Scope, verbs};
use kube::{Client, Config};
use rehearsal::kind;
use resurgam::api::gate::BaselineSpec;
use resurgam::api::{GateSpec, ObjectName, Phase, Verdict};
use resurgam::cluster_cache::ClusterCache;
use resurgam::gates::{Account, Answer, Asker, Question};
use serde_json::{Value, json};

use crate::PLAN;

/// How long a change is given to arrive by the watch.
const ARRIVES_WITHIN: Duration = Duration::from_secs(30);

/// What one evaluation took.
struct Taken {
    began: Instant,
    log: u64,
    resident: f64,
}

struct Bench<'a> {
    cluster: &'a ControlPlane,
    account: Account,
    question: Question,
}

pub async fn run(folder: &Path, namespaces: &[String]) -> Result<()> {
    let cluster = ControlPlane::attach(folder).await?;
    let admin = cluster.client(Identity::PlatformAdministrator).await?;
    let user = format!("system:serviceaccount:{PLAN}:recovery");
    let bench = Bench {
        account: Account { client: acting_as(&cluster, &user).await?, user },
        cluster: &cluster,
        question: question(namespaces)?,
    };
    println!(
        "{} namespaces: what was read anew: time, requests as the plan's account (without discovery, which the log leaves out: two), memory at \
         its peak (and before)",
        namespaces.len()
    );

    let cache = ClusterCache::start(&admin);
    let asker = Asker::new(Vec::new())?;
    let taken = bench.begin()?;
    let answer = asker.ask(&bench.account, &bench.question).await;
    bench.end("everything, nothing kept", taken, &answer, Verdict::Pass)?;

    let kept = asker.keep_reads(&cache);
    let taken = bench.begin()?;
    let answer = asker.ask(&bench.account, &bench.question).await;
    bench.end("everything, and the watches", taken, &answer, Verdict::Pass)?;
    let cached =
        async || asker.ask_cached(&cache, &bench.account, &bench.question).await.context("nothing is kept");
    for what in ["nothing but the account's rights", "nothing, within a minute of that"] {
        let taken = bench.begin()?;
        let answer = cached().await?;
        bench.end(what, taken, &answer, Verdict::Pass)?;
    }

    let maps = kind(&admin, "v1", "ConfigMap", Some(&namespaces[0]));
    // Nothing that is compared.
    let touched = json!({"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "now"}}});
    for (what, patch, expected) in [
        ("what changed, and was approved", touched, Verdict::Pass),
        (
            "what changed, and was not (0.5 s of it are a pause)",
            json!({"data": {"planted": "x"}}),
            Verdict::Fail,
        ),
    ] {
        let log = bench.end_of_log()?;
        maps.patch("settings", &PatchParams::default(), &Patch::Merge(patch)).await?;
        let deadline = Instant::now() + ARRIVES_WITHIN;
        loop {
            let taken = bench.begin()?;
            let answer = cached().await?;
            if bench.requests(log)?.iter().any(|request| request.starts_with("list")) {
                bench.end(what, taken, &answer, expected)?;
                break;
            }
            ensure!(Instant::now() < deadline, "the change did not arrive");
        }
    }
    drop(kept);
    everywhere(&bench).await
}

/// For comparison: each kind once, over all namespaces.
async fn everywhere(bench: &Bench<'_>) -> Result<()> {
    let client = &bench.account.client;
    let began = Instant::now();
    let discovery = Discovery::new(client.clone()).run_aggregated().await?;
    let (mut requests, mut objects) = (0, 0);
    for (kind, can) in discovery.groups().flat_map(ApiGroup::resources_by_stability) {
        if can.scope != Scope::Namespaced || !can.supports_operation(verbs::LIST) {
            continue;
        }
        let api = Api::<DynamicObject>::all_with(client.clone(), &kind);
        let mut page = ListParams::default().limit(250);
        loop {
            let list = api.list(&page).await?;
            (requests, objects) = (requests + 1, objects + list.items.len());
            match list.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => break,
            }
        }
    }
    let time = began.elapsed().as_secs_f64();
    println!(
        "  for comparison, each kind over all namespaces: {time:.3} s, {requests} lists of {objects} objects"
    );
    Ok(())
}

impl Bench<'_> {
    fn begin(&self) -> Result<Taken> {
        // The peak begins at what is resident now.
        std::fs::write("/proc/self/clear_refs", "5")?;
        Ok(Taken { resident: memory("VmRSS:")?, log: self.end_of_log()?, began: Instant::now() })
    }

    fn end(&self, what: &str, taken: Taken, answer: &Answer, expected: Verdict) -> Result<()> {
        let time = taken.began.elapsed();
        let peak = memory("VmHWM:")?;
        ensure!(answer.verdict == expected, "{what}: {answer:?}");
        let requests = self.requests(taken.log)?;
        let lists = requests.iter().filter(|request| request.starts_with("list")).count();
        println!(
            "  {what}: {:.3} s, {} requests ({lists} lists), {peak:.0} MiB ({:.0})",
            time.as_secs_f64(),
            requests.len(),
            taken.resident
        );
        Ok(())
    }

    fn end_of_log(&self) -> Result<u64> {
        Ok(std::fs::metadata(self.cluster.audit_log())?.len())
    }

    /// Requests as the plan's account since, by verb and path.
    fn requests(&self, since: u64) -> Result<Vec<String>> {
        let mut file = std::fs::File::open(self.cluster.audit_log())?;
        file.seek(SeekFrom::Start(since))?;
        let mut log = String::new();
        file.read_to_string(&mut log)?;
        let mut all = Vec::new();
        for line in log.lines().filter(|line| line.contains(&self.account.user)) {
            // The last line may not be complete.
            let Ok(event) = serde_json::from_str::<Value>(line) else { continue };
            if event["impersonatedUser"]["username"] == self.account.user {
                let text = |field: &str| event[field].as_str().unwrap_or_default().to_owned();
                all.push(format!("{} {}", text("verb"), text("requestURI")));
            }
        }
        Ok(all)
    }
}

/// Returns a line of this process's status in MiB.
fn memory(line: &str) -> Result<f64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let found = status.lines().find_map(|text| text.strip_prefix(line)).context("no such line")?;
    Ok(found.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn question(namespaces: &[String]) -> Result<Question> {
    let key = std::env::var("RESURGAM_BENCH_KEY")?;
    let spec = BaselineSpec {
        config_maps: vec![ObjectName { name: "approved".to_owned() }],
        public_keys: vec![std::fs::read_to_string(key)?],
        ..BaselineSpec::default()
    };
    let gate = GateSpec {
        name: "approved".to_owned(),
        baseline: Some(spec),
        timeout: Some(resurgam::api::Duration(Duration::from_secs(1800))),
        ..GateSpec::default()
    };
    // Later than the capture.
    let compromised_since = Some("2099-01-01T00:00:00Z".parse()?);
    Ok(Question { compromised_since, ..Question::new(PLAN, namespaces.to_vec(), Phase::Continuous, gate) })
}

async fn acting_as(cluster: &ControlPlane, user: &str) -> Result<Client> {
    let path = cluster.kubeconfig(Identity::PlatformAdministrator);
    let mut kubeconfig = kube::config::Kubeconfig::read_from(path)?;
    for named in &mut kubeconfig.auth_infos {
        let info = named.auth_info.as_mut().context("no credentials")?;
        info.impersonate = Some(user.to_owned());
    }
    Ok(Client::try_from(Config::from_custom_kubeconfig(kubeconfig, &Default::default()).await?)?)
}
