//! The operator: whether it leads, has its rights, and can store evidence.

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::jiff::Timestamp;
use kube::{Api, Client, ResourceExt};

use super::read::{account_may, first_few, right, why};
use super::{Check, Fact, Outcome};
use crate::api::conditions::shorten;
use crate::api::{GROUP, OPERATOR_NAMESPACE, RECORDS_NAMESPACE};
use crate::calls::call_opt;
use crate::isolation::evidence::{STORE_ANNOTATION, StoreProof};
use crate::leader::LEASE;
use crate::status::{OperatorView, operator_view};
use crate::version;

const ACCOUNT: Check = Check::fatal("operator-account", "the operator's account is there");
const RIGHTS: Check =
    Check::fatal("operator-rights", "the operator may do what isolating and recovering take");
const LEADS: Check = Check::fatal("operator-leads", "an operator leads");
const VERSION: Check = Check::warning("operator-version", "the operator is of this command's version");
const EVIDENCE: Check = Check::fatal("evidence-store", "the operator can write to its evidence store");

/// The checks, in display order.
pub const CHECKS: [Check; 5] = [ACCOUNT, RIGHTS, LEADS, VERSION, EVIDENCE];

/// Name of the operator's account.
const OPERATOR: &str = "resurgam";
/// A sample of its rights: verb, group, resource, namespace. The last is held by wildcards only.
const NEEDED: [(&str, &str, &str, &str); 12] = [
    ("list", GROUP, "quarantines", ""),
    ("patch", GROUP, "quarantines/status", ""),
    ("release", GROUP, "quarantines", ""),
    ("create", GROUP, "servicerecoveries", ""),
    ("patch", "", "namespaces", ""),
    ("delete", "", "pods", ""),
    ("patch", "apps", "deployments", ""),
    ("create", "networking.k8s.io", "networkpolicies", ""),
    ("create", "admissionregistration.k8s.io", "validatingadmissionpolicies", ""),
    ("create", "authorization.k8s.io", "subjectaccessreviews", ""),
    ("patch", "coordination.k8s.io", "leases", OPERATOR_NAMESPACE),
    ("create", "", "configmaps", RECORDS_NAMESPACE),
];
/// Concurrent requests.
const PARALLEL: usize = 8;
/// Maximum number of rights in a message, and length of a reason.
const LIMITS: (usize, usize) = (5, 300);

/// Facts for these checks.
#[derive(Clone, Debug)]
pub struct Facts {
    /// Whether its account exists.
    pub account: Fact<bool>,
    /// Missing rights, and whether it holds a wildcard.
    pub rights: Fact<(Vec<String>, bool)>,
    /// Its Lease. `None`: there is none.
    pub lease: Fact<Option<Lease>>,
}

pub(super) async fn gather(client: &Client) -> Facts {
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let account = call_opt(
        format!("get ServiceAccount {OPERATOR_NAMESPACE}/{OPERATOR}"),
        accounts.get_metadata(OPERATOR),
    );
    let (account, rights, lease) = futures::join!(account, rights(client), lease(client));
    Facts { account: account.map(|found| found.is_some()).map_err(|error| why(&error)), rights, lease }
}

/// Returns the operator's Lease.
///
/// # Errors
/// Why it could not be read.
pub async fn lease(client: &Client) -> Fact<Option<Lease>> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), OPERATOR_NAMESPACE);
    let what = format!("get Lease {OPERATOR_NAMESPACE}/{LEASE}");
    call_opt(what, leases.get(LEASE)).await.map_err(|error| why(&error))
}

async fn rights(client: &Client) -> Fact<(Vec<String>, bool)> {
    let account = (OPERATOR_NAMESPACE, OPERATOR);
    let asked = NEEDED.iter().map(|(verb, group, resource, namespace)| async move {
        let mut attributes = right(verb, group, resource);
        attributes.namespace = (!namespace.is_empty()).then(|| (*namespace).to_owned());
        let at = if namespace.is_empty() { String::new() } else { format!(" in namespace {namespace}") };
        let group = if group.is_empty() { String::new() } else { format!(".{group}") };
        let may = account_may(client, account, attributes).await?;
        Ok::<_, String>((!may).then(|| format!("{verb} {resource}{group}{at}")))
    });
    let lacking: Vec<Option<String>> = stream::iter(asked).buffered(PARALLEL).try_collect().await?;
    let wildcard = account_may(client, account, right("never-granted", GROUP, "quarantines")).await?;
    Ok((lacking.into_iter().flatten().collect(), wildcard))
}

pub(super) fn judge(facts: &Facts, now: Timestamp) -> Vec<Outcome> {
    let leader = facts.lease.as_ref().map_err(Clone::clone).map(|lease| operator_view(lease.as_ref(), now));
    vec![
        account(&facts.account),
        may(&facts.rights),
        leads(&leader),
        is_of_this_version(&leader, &facts.lease),
        evidence(&leader, &facts.lease, now),
    ]
}

fn account(exists: &Fact<bool>) -> Outcome {
    match exists {
        Err(why) => ACCOUNT.unknown(why),
        Ok(true) => ACCOUNT.passes(format!("{OPERATOR_NAMESPACE}/{OPERATOR}")),
        Ok(false) => ACCOUNT.fails(format!(
            "ServiceAccount {OPERATOR_NAMESPACE}/{OPERATOR} is not there, and the policies let no other do the operator's work. A cluster \
             administrator installs it (README, Install)"
        )),
    }
}

fn may(rights: &Fact<(Vec<String>, bool)>) -> Outcome {
    const WHO: &str =
        "A cluster administrator applies the ClusterRole resurgam-operator of this version and its binding";
    match rights {
        Err(why) => RIGHTS.unknown(why),
        Ok((lacking, _)) if !lacking.is_empty() => RIGHTS.fails(format!(
            "account {OPERATOR_NAMESPACE}/{OPERATOR} may not {}. {WHO}",
            first_few(lacking, LIMITS.0)
        )),
        Ok((_, true)) => RIGHTS.fails(format!(
            "account {OPERATOR_NAMESPACE}/{OPERATOR} holds every verb on quarantines by a wildcard, so that the fence refuses it. A cluster \
             administrator takes that binding away (kubectl get clusterrolebindings -o wide)"
        )),
        Ok(_) => RIGHTS.passes(format!("{} of its rights were asked for", NEEDED.len())),
    }
}

fn leads(leader: &Fact<OperatorView>) -> Outcome {
    const HOLDS: &str = "What is isolated stays isolated, and nothing else moves";
    const WHO: &str =
        "The operator's administrator starts it: kubectl get pods -n resurgam-system, and their logs";
    match leader {
        Err(why) => LEADS.unknown(why),
        Ok(OperatorView::Leading { holder }) => LEADS.passes(holder.as_str()),
        Ok(OperatorView::Silent { since: None }) => {
            LEADS.fails(format!("no operator has ever led here. {HOLDS}. {WHO}"))
        }
        Ok(OperatorView::Silent { since: Some(since) }) => LEADS.fails(format!(
            "Lease {OPERATOR_NAMESPACE}/{LEASE} has not been renewed since {}. {HOLDS}. {WHO}",
            since.strftime("%F %H:%M:%S UTC")
        )),
    }
}

/// Returns an annotation of the leader's Lease. `None`: there is no leader, or it published nothing yet.
fn published<'a>(
    leader: &Fact<OperatorView>,
    lease: &'a Fact<Option<Lease>>,
    annotation: &str,
) -> Fact<Option<&'a str>> {
    let leads = matches!(leader.as_ref().map_err(Clone::clone)?, OperatorView::Leading { .. });
    let lease = lease.as_ref().map_err(Clone::clone)?.as_ref().filter(|_| leads);
    Ok(lease
        .and_then(|lease| lease.annotations().get(annotation))
        .map(String::as_str)
        .filter(|t| !t.is_empty()))
}

fn is_of_this_version(leader: &Fact<OperatorView>, lease: &Fact<Option<Lease>>) -> Outcome {
    let own = version::full();
    match published(leader, lease, version::ANNOTATION) {
        Err(why) => VERSION.unknown(why),
        Ok(None) => VERSION.unknown("no leader says of which version it is"),
        Ok(Some(found)) if version::is_compatible(found) => VERSION.passes(shorten(found, LIMITS.1)),
        Ok(Some(found)) => VERSION.fails(format!(
            "the operator is {}, this command is {own}: what they say may differ. Use the command of the operator's version",
            shorten(found, LIMITS.1)
        )),
    }
}

fn evidence(leader: &Fact<OperatorView>, lease: &Fact<Option<Lease>>, now: Timestamp) -> Outcome {
    const SEALS: &str = "Where capture is Required, no namespace is sealed until it can. The operator's administrator fixes it: --evidence, its \
                         volume or its bucket's credentials";
    let text = match published(leader, lease, STORE_ANNOTATION) {
        Err(why) => return EVIDENCE.unknown(why),
        Ok(None) => {
            return EVIDENCE.unknown("no leader has said yet whether it can write to its evidence store");
        }
        Ok(Some(text)) => text,
    };
    match serde_json::from_str::<StoreProof>(text) {
        Err(error) => EVIDENCE.unknown(format!(
            "what the leader says of its evidence store cannot be read ({error}): {}",
            shorten(text, LIMITS.1)
        )),
        Ok(StoreProof { store, at, failure: None }) => {
            EVIDENCE.passes(format!("{store}, {} ago", ago(at, now)))
        }
        Ok(StoreProof { store, failure: Some(why), .. }) => EVIDENCE
            .fails(format!("the operator cannot write to {store}: {}. {SEALS}", shorten(&why, LIMITS.1))),
    }
}

/// Formats a duration in the largest unit of which there are at least two.
fn ago(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.duration_since(at).as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        _ => format!("{} h", seconds / 3600),
    }
}
