//! `resurgam test-fence`: does isolation work on this cluster? Tried for real, in a namespace of its own.

use std::process::ExitCode;
use std::time::Duration as StdDuration;

use anyhow::{Context, Result, bail};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::GroupVersionKind;
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::access::Right;
use crate::api::quarantine::{CaptureMode, ControlName, ControlState};
use crate::api::{Duration, Quarantine, QuarantineLevel, QuarantineSpec};
use crate::calls::{IoError, call, call_opt};
use crate::isolation::policies::FENCES;
use crate::reviews::caller_may;

/// The namespace, and so its Quarantine. The chart creates it, with an account that has rights there only.
const NAMESPACE: &str = "resurgam-test";
/// Pause between two reads of the Quarantine.
const PAUSE: StdDuration = StdDuration::from_millis(250);

/// Arguments of `resurgam test-fence`.
#[derive(Debug, clap::Args)]
pub(super) struct Args {
    /// How long the operator may take to isolate the namespace, and to let it out again.
    #[arg(long, value_name = "DURATION", default_value = "2m")]
    timeout: Duration,
}

pub(super) fn run(args: &Args) -> Result<ExitCode> {
    let runtime = tokio::runtime::Runtime::new().context("the async runtime could not be started")?;
    runtime.block_on(async {
        let client = Client::try_from(super::cluster().await?)?;
        if let Some(incident) = incident(&client).await? {
            anstream::println!(
                "{incident} An incident is on: the fence is not tried, so that nothing of this changes what is going on."
            );
            return Ok(ExitCode::SUCCESS);
        }
        may_release(&client).await?;
        let tried = try_fence(&client, args.timeout.0).await;
        let released = release(&client, args.timeout.0).await;
        tried?;
        released?;
        Ok(ExitCode::SUCCESS)
    })
}

/// Returns a sentence about other isolated namespaces, if there are any.
async fn incident(client: &Client) -> Result<Option<String>> {
    let all: Api<Quarantine> = Api::all(client.clone());
    let page = call("list Quarantines", all.list(&ListParams::default().limit(2))).await?;
    let others: Vec<_> = page
        .items
        .iter()
        .filter_map(|q| q.metadata.name.as_deref())
        .filter(|name| *name != NAMESPACE)
        .collect();
    Ok(others.first().map(|first| {
        let more =
            page.metadata.remaining_item_count.unwrap_or(0) + i64::try_from(others.len()).unwrap_or(0) - 1;
        if more > 0 {
            format!("Namespace {first} and {more} more are isolated.")
        } else {
            format!("Namespace {first} is isolated.")
        }
    }))
}

/// Fails if the caller could not release the namespace again, which would turn the test into an incident.
async fn may_release(client: &Client) -> Result<()> {
    let may = |verb: &'static str| {
        let right = Right::on_quarantine(verb, Some(NAMESPACE));
        caller_may(client, right.attributes(), format!("ask whether you may {verb} quarantines/{NAMESPACE}"))
    };
    // `never-granted` is held by wildcards only, which are no grant.
    if may("never-granted").await? || !may("release").await? || !may("delete").await? {
        bail!(
            "you may not release quarantines/{NAMESPACE} by a grant of its own (a wildcard is none), and so could not let it out again: \
             nothing was done. Run `helm test resurgam -n resurgam-system`, whose account may"
        );
    }
    Ok(())
}

/// Verifies the writes before isolation, isolates, and verifies that they are refused.
async fn try_fence(client: &Client, patience: StdDuration) -> Result<()> {
    // A refusal proves something only if the same write passes without the fence, since rights, quotas and webhooks refuse, too.
    for write in writes() {
        write
            .send(client, true)
            .await
            .with_context(|| format!("{} is refused although namespace {NAMESPACE} is open", write.what()))?;
    }
    anstream::println!("open        {} writes pass (as dry-runs)", writes().len());
    let start = Instant::now();
    isolate(client, patience).await?;
    anstream::println!(
        "isolated    the operator says that the fence refuses, {:.1} s after the request",
        start.elapsed().as_secs_f32()
    );
    let mut passed = Vec::new();
    for write in writes() {
        match write.send(client, false).await {
            Err(error) if is_fence(&error) => anstream::println!("refused     {}", write.what()),
            Err(error) => bail!("{} was refused by something else than the fence: {error}", write.what()),
            Ok(()) => passed.push(write.what()),
        }
    }
    if !passed.is_empty() {
        bail!(
            "not refused in isolated namespace {NAMESPACE}: {}. Isolation does not work on this cluster: run `resurgam check`",
            passed.join(", ")
        );
    }
    Ok(())
}

async fn isolate(client: &Client, patience: StdDuration) -> Result<()> {
    let all: Api<Quarantine> = Api::all(client.clone());
    let quarantine = Quarantine::new(
        NAMESPACE,
        QuarantineSpec {
            isolation: QuarantineLevel::Contained,
            reason: "a test of the fence; nothing runs here".to_owned(),
            capture: CaptureMode::BestEffort,
            ..QuarantineSpec::default()
        },
    );
    call("create Quarantine resurgam-test", all.create(&PostParams::default(), &quarantine)).await?;
    let until = Instant::now() + patience;
    loop {
        let found = call("get Quarantine resurgam-test", all.get(NAMESPACE)).await?;
        let controls = found.status.map(|status| status.controls).unwrap_or_default();
        let fence = controls.iter().find(|control| control.name == ControlName::Fence);
        if fence.is_some_and(|fence| fence.state == ControlState::Tested) {
            return Ok(());
        }
        if Instant::now() >= until {
            let said =
                fence.map_or("the operator says nothing: does it run?", |fence| fence.message.as_str());
            bail!(
                "the fence of namespace {NAMESPACE} was not verified within {} s: {said}",
                patience.as_secs()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Deletes the Quarantine and waits until writes pass again.
async fn release(client: &Client, patience: StdDuration) -> Result<()> {
    let all: Api<Quarantine> = Api::all(client.clone());
    call_opt("delete Quarantine resurgam-test", all.delete(NAMESPACE, &DeleteParams::default())).await?;
    let until = Instant::now() + patience;
    loop {
        let gone = call_opt("get Quarantine resurgam-test", all.get(NAMESPACE)).await?.is_none();
        let writes = writes();
        let open = match writes.first() {
            Some(write) if gone => write.send(client, true).await.is_ok(),
            _ => false,
        };
        if open {
            anstream::println!("released    writes pass again");
            return Ok(());
        }
        if Instant::now() >= until {
            bail!(
                "namespace {NAMESPACE} is still isolated {} s after its Quarantine was deleted: kubectl describe quarantine {NAMESPACE}",
                patience.as_secs()
            );
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Returns whether one of the isolating policies refused.
fn is_fence(error: &IoError) -> bool {
    error
        .status()
        .is_some_and(|status| FENCES.iter().any(|policy| status.message.contains(&format!("'{policy}'"))))
}

/// A write that a tenant of the namespace could make.
struct Write {
    resource: ApiResource,
    object: Value,
}

impl Write {
    fn what(&self) -> String {
        format!("create {} {}", self.resource.kind, self.name())
    }

    fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    async fn send(&self, client: &Client, dry_run: bool) -> Result<(), IoError> {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), NAMESPACE, &self.resource);
        // Applied, so that the remains of an interrupted test are no conflict.
        let params = PatchParams { dry_run, ..PatchParams::apply("resurgam-test").force() };
        call(self.what(), api.patch(self.name(), &params, &Patch::Apply(&self.object))).await.map(drop)
    }
}

/// Returns ten writes, one for each way in which a tenant could start, connect or expose something.
fn writes() -> Vec<Write> {
    let container = json!([{"name": "main", "image": "localhost/none", "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}},
        "securityContext": {"allowPrivilegeEscalation": false, "runAsNonRoot": true, "runAsUser": 65532,
            "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"}}}]);
    let template = |policy: &str| {
        json!({"metadata": {"labels": {"app": "try"}},
            "spec": {"restartPolicy": policy, "automountServiceAccountToken": false, "containers": container}})
    };
    let selector = json!({"matchLabels": {"app": "try"}});
    let new = |group: &str, kind: &str, fields: Value| {
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, "v1", kind));
        let mut object = json!({"apiVersion": resource.api_version, "kind": kind,
            "metadata": {"name": "try", "namespace": NAMESPACE}});
        if let (Some(object), Value::Object(fields)) = (object.as_object_mut(), fields) {
            object.extend(fields);
        }
        Write { resource, object }
    };
    vec![
        new("", "Pod", json!({"spec": template("Never")["spec"]})),
        new("apps", "Deployment", json!({"spec": {"selector": selector, "template": template("Always")}})),
        new("batch", "Job", json!({"spec": {"template": template("Never")}})),
        new(
            "batch",
            "CronJob",
            json!({"spec": {"schedule": "0 0 1 1 *", "jobTemplate": {"spec": {"template": template("Never")}}}}),
        ),
        new(
            "networking.k8s.io",
            "NetworkPolicy",
            json!({"spec": {"podSelector": {}, "egress": [{}], "policyTypes": ["Egress"]}}),
        ),
        new("", "Service", json!({"spec": {"selector": {"app": "try"}, "ports": [{"port": 80}]}})),
        new("", "ConfigMap", json!({"data": {"key": "value"}})),
        new("", "ServiceAccount", json!({})),
        new(
            "",
            "PersistentVolumeClaim",
            json!({"spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}),
        ),
        new(
            "networking.k8s.io",
            "Ingress",
            json!({"spec": {"defaultBackend": {"service": {"name": "try", "port": {"number": 80}}}}}),
        ),
    ]
}
