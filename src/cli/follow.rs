//! Live progress: a page redrawn on a terminal, a line for each change otherwise. For `status --watch` and the demo.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use anstream::{AutoStream, ColorChoice};
use anyhow::{Result, anyhow};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::jiff::Timestamp;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{Config, watcher};
use kube::{Api, Client, ResourceExt};

use super::Output;
use crate::api::{OPERATOR_NAMESPACE, Quarantine, RecoveryPlan, ServiceRecovery};
use crate::calls::{IoError, call, call_opt};
use crate::leader::LEASE;
use crate::status::{View, changes, render};
use frame::frame;

mod frame;

/// Minimum time between two frames.
const FRAME: Duration = Duration::from_millis(150);
/// Maximum time between two frames: durations change, and a silent operator causes no event.
const TICK: Duration = Duration::from_secs(1);

/// What is shown.
#[derive(Clone, Debug)]
pub struct Scope {
    /// Only this plan.
    pub plan: Option<String>,
    /// Only plans of this namespace.
    pub namespace: Option<String>,
    /// Namespace of the operator's Lease.
    pub lease_namespace: String,
}

impl Default for Scope {
    fn default() -> Self {
        Self { plan: None, namespace: None, lease_namespace: OPERATOR_NAMESPACE.to_owned() }
    }
}

/// Reads the view once.
///
/// # Errors
/// The API server cannot be reached, or the caller lacks a right, which the error names.
pub async fn look(client: &Client, scope: &Scope) -> Result<View> {
    let everything = ListParams::default();
    let (plans, records) = apis(client, scope);
    let quarantines: Api<DeserializeGuard<Quarantine>> = Api::all(client.clone());
    let leases: Api<Lease> = Api::namespaced(client.clone(), &scope.lease_namespace);
    let (plans, records, quarantines, lease) = tokio::try_join!(
        call("list RecoveryPlans", plans.list(&everything)),
        call("list ServiceRecoveries", records.list(&everything)),
        async { readable(call("list Quarantines", quarantines.list(&everything)).await) },
        call_opt("read the operator's Lease", leases.get(LEASE)),
    )
    .map_err(explained)?;
    let wanted = |plan: &RecoveryPlan| scope.plan.is_none() || scope.plan == plan.metadata.name;
    let plans: Vec<RecoveryPlan> = plans.items.into_iter().filter(wanted).collect();
    let quarantines = quarantines.map(|list| {
        let all = list.items.into_iter();
        all.filter(|object| is_in_scope(object, scope, &plans)).collect::<Vec<_>>()
    });
    let quarantines = quarantines.as_deref().map_err(String::as_str);
    Ok(View::from_objects(&plans, &records.items, quarantines, lease.as_ref(), Timestamp::now()))
}

/// Returns an error in one sentence. If the caller lacks a right, it names the right and who grants it.
fn explained(error: IoError) -> anyhow::Error {
    let denied = error.status().filter(|status| status.code == 403).map(|status| status.message.clone());
    match (denied, &error) {
        (Some(message), IoError::Api { what, .. }) => {
            // The API server names the object first, then the user and the right.
            let right = message.split_once("is forbidden: ").map_or(message.as_str(), |(_, right)| right);
            anyhow!(
                "{what}: {right}; a cluster administrator grants it, as the ClusterRole resurgam-responder does"
            )
        }
        _ if error.is_not_served() => {
            anyhow!("{error}; a cluster administrator installs the kinds: resurgam crds")
        }
        _ => error.into(),
    }
}

/// Returns why there is nothing to show: a namespace or a plan that does not exist. `None`: there is a plan, or nobody asked for one.
///
/// # Errors
/// The API server cannot be reached.
pub async fn missing(client: &Client, scope: &Scope, view: &View) -> Result<Option<String>> {
    if !view.plans.is_empty() {
        return Ok(None);
    }
    if let Some(namespace) = &scope.namespace {
        let namespaces: Api<Namespace> = Api::all(client.clone());
        match call(format!("read namespace {namespace}"), namespaces.get_metadata(namespace)).await {
            Ok(_) => {}
            Err(error) if error.is_not_found() => {
                return Ok(Some(format!("there is no namespace {namespace} (kubectl get namespaces)")));
            }
            // Who may only see plans is not told whether the namespace exists.
            Err(error) if error.is_denied() => {}
            Err(error) => return Err(explained(error)),
        }
    }
    Ok(scope.plan.as_ref().map(|plan| match &scope.namespace {
        Some(namespace) => {
            format!(
                "there is no RecoveryPlan {plan} in namespace {namespace} (kubectl get rplan -n {namespace})"
            )
        }
        None => format!("there is no RecoveryPlan {plan} in any namespace (kubectl get rplan -A)"),
    }))
}

/// A caller who may not list Quarantines still sees plans, and what is missing.
fn readable<T>(listed: Result<T, IoError>) -> Result<Result<T, String>, IoError> {
    match listed {
        Ok(list) => Ok(Ok(list)),
        Err(error) if error.status().is_some_and(|status| status.code == 403) => Ok(Err(format!(
            "{error}. A cluster administrator grants list on quarantines, as the ClusterRole resurgam-responder does"
        ))),
        Err(error) if error.is_not_served() => {
            Ok(Err(format!("{error}. A cluster administrator installs the kinds: resurgam crds")))
        }
        Err(error) => Err(error),
    }
}

/// Returns whether a Quarantine is in scope: claimed by a shown plan, or of a namespace that one names.
fn is_in_scope(object: &DeserializeGuard<Quarantine>, scope: &Scope, plans: &[RecoveryPlan]) -> bool {
    if scope.plan.is_none() && scope.namespace.is_none() {
        return true;
    }
    let name = object.name_any();
    let status = object.0.as_ref().ok().and_then(|quarantine| quarantine.status.as_ref());
    let claim = status.and_then(|status| status.claimed_by.as_ref());
    plans.iter().any(|plan| {
        let claimed = claim.is_some_and(|claim| {
            plan.metadata.uid.as_ref() == Some(&claim.plan_uid)
                || (plan.namespace().as_ref(), plan.name_any())
                    == (Some(&claim.plan_namespace), claim.plan.clone())
        });
        let named = plan.spec.services.iter().any(|service| match &service.namespaces {
            Some(namespaces) => namespaces.iter().any(|namespace| namespace.0 == name),
            None => service.name == name,
        });
        claimed || named
    })
}

fn apis(client: &Client, scope: &Scope) -> (Api<RecoveryPlan>, Api<ServiceRecovery>) {
    match &scope.namespace {
        Some(namespace) => {
            (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace))
        }
        None => (Api::all(client.clone()), Api::all(client.clone())),
    }
}

/// Writes changes to standard output until `end` returns true. `before`: the view already shown. Returns the last view.
///
/// # Errors
/// The API server cannot be reached, or the output cannot be written.
pub async fn follow(
    client: &Client,
    scope: &Scope,
    output: Output,
    mut before: Option<View>,
    end: impl Fn(&View) -> bool,
) -> Result<View> {
    let (plans, records) = apis(client, scope);
    let quarantines: Api<DeserializeGuard<Quarantine>> = Api::all(client.clone());
    let plans = watcher(plans, Config::default()).default_backoff().map(drop);
    let records = watcher(records, Config::default()).default_backoff().map(drop);
    let quarantines = watcher(quarantines, Config::default()).default_backoff().map(drop);
    let objects = futures::stream::select(plans, records);
    let mut woken = std::pin::pin!(futures::stream::select(objects, quarantines));
    let terminal = std::io::stdout().is_terminal();
    let mut drawn = 0;
    loop {
        let view = look(client, scope).await?;
        match output {
            Output::Text if terminal => drawn = draw(&view, drawn)?,
            Output::Text => {
                changes(before.as_ref(), &view).iter().for_each(|line| anstream::println!("{line}"))
            }
            Output::Json if before.as_ref() == Some(&view) => {}
            Output::Json => anstream::println!("{}", serde_json::to_string(&view)?),
        }
        if end(&view) {
            return Ok(view);
        }
        before = Some(view);
        // Changes within a frame are drawn together.
        tokio::time::sleep(FRAME).await;
        tokio::select! {
            _ = woken.next() => {}
            () = tokio::time::sleep(TICK) => {}
        }
        while woken.next().now_or_never().flatten().is_some() {}
    }
}

/// Draws the page over the previous one of this many rows, cut to the terminal's height. Returns the number of rows.
fn draw(view: &View, before: usize) -> Result<usize> {
    let (width, height) = super::terminal();
    let mut page = render(view, Timestamp::now(), width);
    let mut out = std::io::stdout().lock();
    // The frame itself is made of escape sequences, which must reach the terminal even where colours must not.
    if AutoStream::choice(&out) == ColorChoice::Never {
        page = anstream::adapter::strip_str(&page).to_string();
    }
    let (bytes, rows) = frame(&page, before, width, height);
    out.write_all(bytes.as_bytes())?;
    out.flush()?;
    Ok(rows)
}
