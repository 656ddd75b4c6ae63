//! The API server: its version, its admission policies, and its controllers' accounts.

use k8s_openapi::api::admissionregistration::v1::ValidatingAdmissionPolicy;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::read::{first_few, why};
use super::{Check, Fact, Outcome};
use crate::calls::call;
use crate::isolation::policies::{NAMESPACE_LOCK, POLICY_GUARD, static_name};

const API_VERSION: Check = Check::fatal("api-version", "the API server is of a version that is supported");
const ADMISSION: Check =
    Check::fatal("admission-policies", "the API server serves ValidatingAdmissionPolicies");
const STATIC: Check = Check::warning("static-policies", "the policies cannot be deleted through the API");
const CONTROLLERS: Check =
    Check::warning("controller-accounts", "controllers of Kubernetes have accounts of their own");

/// The checks, in display order.
pub const CHECKS: [Check; 4] = [API_VERSION, ADMISSION, STATIC, CONTROLLERS];

/// Oldest supported minor version.
const OLDEST: u32 = 33;
/// Minor versions since which static policy manifests exist: with a feature gate, and without.
const STATIC_SINCE: (u32, u32) = (36, 37);
/// Accounts of the controller manager's controllers, which the fence admits by name.
const ACCOUNTS: [&str; 4] =
    ["deployment-controller", "generic-garbage-collector", "namespace-controller", "replicaset-controller"];

/// Version of the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// `v1.37.0`
    pub git: String,
    /// Major and minor version, if they can be parsed.
    pub number: Option<(u32, u32)>,
}

/// Whether the guard of the policies is installed as a static manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StaticGuard {
    /// It refused a dry-run.
    Refuses,
    /// It did not refuse, or the caller holds `release`.
    LetsThrough,
    /// The policies to probe it with are not installed yet.
    NotTried,
    /// Unknown, and why.
    Unknown(String),
}

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Version of the API server.
    pub version: Version,
    /// Whether admission policies are served.
    pub admission: Fact<bool>,
    /// Whether our policies are static.
    pub static_guard: StaticGuard,
    /// Missing accounts of controllers.
    pub missing_accounts: Fact<Vec<String>>,
}

/// Returns the API server's version.
///
/// # Errors
/// The API server cannot be reached.
pub async fn version(client: &Client) -> Fact<Version> {
    let info = call("ask the API server for its version", client.apiserver_version()).await;
    let info = info.map_err(|error| why(&error))?;
    // Some versions are reported as `37+`.
    let number = |text: &str| text.trim_end_matches(|c: char| !c.is_ascii_digit()).parse().ok();
    Ok(Version { number: number(&info.major).zip(number(&info.minor)), git: info.git_version })
}

pub(super) async fn gather(client: &Client, version: Version) -> Facts {
    let (admission, static_guard, missing_accounts) =
        futures::join!(admission(client), static_guard(client), missing_accounts(client));
    Facts { version, admission, static_guard, missing_accounts }
}

async fn admission(client: &Client) -> Fact<bool> {
    let version = "admissionregistration.k8s.io/v1";
    match call(format!("read {version}"), client.list_api_group_resources(version)).await {
        Ok(served) => Ok(["validatingadmissionpolicies", "validatingadmissionpolicybindings"]
            .iter()
            .all(|name| served.resources.iter().any(|resource| resource.name == *name))),
        Err(error) if error.is_not_served() => Ok(false),
        Err(error) => Err(why(&error)),
    }
}

/// Probes the guard by a dry-run without effect, since static manifests cannot be listed.
async fn static_guard(client: &Client) -> StaticGuard {
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
    let params = PatchParams { dry_run: true, ..PatchParams::default() };
    let patch = Patch::Merge(json!({}));
    let what = format!("patch ValidatingAdmissionPolicy {NAMESPACE_LOCK}, by a dry-run");
    match call(what, policies.patch(NAMESPACE_LOCK, &params, &patch)).await {
        Ok(_) => StaticGuard::LetsThrough,
        Err(error) if error.status().is_some_and(|s| s.message.contains(&static_name(POLICY_GUARD))) => {
            StaticGuard::Refuses
        }
        Err(error) if error.is_not_found() => StaticGuard::NotTried,
        Err(error) => StaticGuard::Unknown(why(&error)),
    }
}

async fn missing_accounts(client: &Client) -> Fact<Vec<String>> {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), "kube-system");
    let mut missing = Vec::new();
    for name in ACCOUNTS {
        let found = crate::calls::call_opt(
            format!("get ServiceAccount kube-system/{name}"),
            accounts.get_metadata(name),
        )
        .await
        .map_err(|error| why(&error))?;
        if found.is_none() {
            missing.push(name.to_owned());
        }
    }
    Ok(missing)
}

pub(super) fn judge(facts: &Facts) -> Vec<Outcome> {
    vec![
        version_is_supported(&facts.version),
        serves_admission(&facts.admission),
        policies_are_static(facts),
        controllers_have_accounts(&facts.missing_accounts),
    ]
}

/// Returns whether this version is supported.
#[must_use]
pub fn fits(version: &Version) -> super::Verdict {
    version_is_supported(version).verdict
}

fn version_is_supported(version: &Version) -> Outcome {
    let git = &version.git;
    match version.number {
        None => {
            API_VERSION.unknown(format!("the API server calls its version '{git}', which cannot be read"))
        }
        Some(number) if number < (1, OLDEST) => API_VERSION.fails(format!(
            "the API server is {git}, older than 1.{OLDEST}: the fence cannot do all that it has to. A cluster administrator upgrades it"
        )),
        Some(_) => API_VERSION.passes(git.as_str()),
    }
}

fn serves_admission(served: &Fact<bool>) -> Outcome {
    match served {
        Ok(true) => ADMISSION.passes(""),
        Ok(false) => ADMISSION.fails(
            "admissionregistration.k8s.io/v1 has no ValidatingAdmissionPolicy, by which all writes to an isolated namespace are \
             refused. A cluster administrator puts it into force: --runtime-config and --enable-admission-plugins of kube-apiserver",
        ),
        Err(why) => ADMISSION.unknown(why),
    }
}

fn policies_are_static(facts: &Facts) -> Outcome {
    const RISK: &str = "a cluster administrator's account can delete the policies through the API; the operator puts them back, while it runs";
    const HOW: &str = "The control plane's administrator puts what `resurgam fence --static` prints on their machines (resurgam fence --help)";
    let minor = facts.version.number.map_or(0, |(_, minor)| minor);
    match &facts.static_guard {
        StaticGuard::Refuses => STATIC.passes(format!("{} refuses", static_name(POLICY_GUARD))),
        _ if minor < STATIC_SINCE.0 => STATIC.fails(format!(
            "{RISK}. Static policies, which cannot be deleted, take an API server of 1.{} or later",
            STATIC_SINCE.1
        )),
        StaticGuard::Unknown(why) => STATIC.unknown(format!("whether any policy of ours is static: {why}")),
        StaticGuard::LetsThrough | StaticGuard::NotTried => {
            let gate = if minor < STATIC_SINCE.1 {
                ", with the feature gate ManifestBasedAdmissionControlConfig"
            } else {
                ""
            };
            STATIC.fails(format!("no static policy of Resurgam was detected: {RISK}. {HOW}{gate}"))
        }
    }
}

fn controllers_have_accounts(missing: &Fact<Vec<String>>) -> Outcome {
    match missing {
        Err(why) => CONTROLLERS.unknown(why),
        Ok(missing) if missing.is_empty() => {
            CONTROLLERS.passes("in kube-system; that each acts as its own is likely, and not proved by that")
        }
        Ok(missing) => CONTROLLERS.fails(format!(
            "kube-system has no ServiceAccount {}: the controller manager seems to run without --use-service-account-credentials, so that \
             the fence cannot tell its controllers apart and refuses what a recovery needs of them. The control plane's administrator sets that flag",
            first_few(missing, 4)
        )),
    }
}
