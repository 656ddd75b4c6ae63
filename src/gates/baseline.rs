//! Gate `baseline`: reads the signed inventory, and everything that is to be compared with it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use resurgam_core::baseline::ignore::IgnoreList;
use resurgam_core::baseline::{observe, reach};
use resurgam_core::gates::baseline::{Approved, approved, inapplicable, judge, marks};

use super::{Answer, Context, Gate, Interest, Question, inventory};
use crate::access::Right;
use crate::api::gate::{BaselineSpec, Outside, SecretKeyFrom};
use crate::api::{GateReason, Verdict};
use crate::baseline::gather::{GatherError, Request, fingerprint, gather};
use crate::baseline::{PublicKey, packed};
use crate::isolation::evidence::DigestKey;

/// How long after a Fail everything is read once more.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Gate for BaselineSpec {
    fn interests(&self, question: &Question) -> Vec<Interest> {
        let maps = self.config_maps.iter().map(|map| Interest::ConfigMap {
            namespace: question.plan_namespace.clone(),
            name: map.name.clone(),
        });
        let namespaces = question.namespaces.iter().flat_map(|namespace| {
            let namespace = namespace.clone();
            [Interest::Workloads { namespace: namespace.clone() }, Interest::Namespace { name: namespace }]
        });
        maps.chain(namespaces).collect()
    }

    fn rights(&self, question: &Question) -> Vec<Right> {
        let own = &question.plan_namespace;
        let maps = self.config_maps.iter().map(|map| Right::get::<ConfigMap>(own, &map.name));
        let key = self.secret_key_from.iter().map(|from| Right::get::<Secret>(own, &from.secret.name));
        let namespaces = question.namespaces.iter().flat_map(|namespace| {
            // Whatever kind an attacker plants something of.
            let everything = Right {
                namespace: Some(namespace.clone()),
                group: "*".to_owned(),
                resource: "*".to_owned(),
                verb: "list",
                name: None,
            };
            let itself = Right {
                namespace: None,
                group: String::new(),
                resource: "namespaces".to_owned(),
                verb: "get",
                name: Some(namespace.clone()),
            };
            [everything, itself]
        });
        let kinds = if self.outside == Outside::Compare { &reach::KINDS[..] } else { &[] };
        let outside = kinds.iter().map(|(group, resource)| Right {
            namespace: None,
            group: (*group).to_owned(),
            resource: (*resource).to_owned(),
            verb: "list",
            name: None,
        });
        maps.chain(key).chain(namespaces).chain(outside).collect()
    }

    fn check_inputs<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), Answer>> {
        async move {
            let approved = read_approved(self, context).await?;
            digest_key(self, context, &approved).await?;
            inapplicable(self, context.question, &approved.baseline).map_or(Ok(()), Err)
        }
        .boxed()
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move { answer(self, context).await.unwrap_or_else(|unknown| unknown) }.boxed()
    }
}

async fn answer(spec: &BaselineSpec, context: Context<'_>) -> Result<Answer, Answer> {
    let question = context.question;
    let approved = read_approved(spec, context).await?;
    // Nothing is listed for an inventory that proves nothing.
    if let Some(unknown) = inapplicable(spec, question, &approved.baseline) {
        return Ok(unknown);
    }
    let key = digest_key(spec, context, &approved).await?;
    let ignore =
        IgnoreList::parse(&spec.ignore).map_err(|why| Answer::unknown(GateReason::Malformed, why))?;
    let request = Request {
        namespaces: &question.namespaces,
        versions: &approved.baseline.kinds,
        key: key.as_ref(),
        outside: spec.outside == Outside::Compare,
        ignore: &ignore,
    };
    let judged = || async {
        let found = gather(&context.reads.account.client, &request).await.map_err(|error| unread(&error))?;
        if let Some(kind) = approved.baseline.unserved(&found.kinds, &ignore) {
            let why = format!("the API server does not serve kind {kind}, of which the baseline has objects");
            return Err(Answer::unknown(GateReason::ApiError, why));
        }
        let observed = observe(found.objects, &marks(question));
        Ok(judge(spec, question, &approved, observed, key.is_some()))
    };
    let answer = judged().await?;
    if answer.verdict != Verdict::Fail {
        return Ok(answer);
    }
    // Lists are of different moments: a controller may have been between two writes.
    tokio::time::sleep(AGAIN_AFTER).await;
    judged().await
}

/// Reads the inventory, and verifies its signatures.
async fn read_approved(spec: &BaselineSpec, context: Context<'_>) -> Result<Approved, Answer> {
    let namespace = &context.question.plan_namespace;
    let mut bytes = Vec::new();
    for map in &spec.config_maps {
        let missing = |why: &str| {
            let what = format!("ConfigMap {namespace}/{}, which holds the baseline, {why}", map.name);
            Answer::unknown(GateReason::BaselineMissing, what)
        };
        let read = context.reads.config_map(namespace, &map.name).await?;
        let read = read.ok_or_else(|| missing("does not exist"))?;
        let part = packed::part(&read).ok_or_else(|| missing("has no value 'baseline'"))?;
        bytes.extend_from_slice(part);
    }
    let name = spec.config_maps.first().map_or("", |map| map.name.as_str());
    let what = format!("baseline in ConfigMap {namespace}/{name}");
    let envelope = packed::unpacked(bytes)
        .map_err(|why| Answer::unknown(GateReason::BaselineMalformed, format!("{what}: {why}")))?;
    let keys: Result<Vec<PublicKey>, _> =
        spec.public_keys.iter().map(|pem| PublicKey::from_pem(pem)).collect();
    let keys =
        keys.map_err(|error| Answer::unknown(GateReason::Malformed, format!("publicKeys: {error}")))?;
    approved(spec, &what, &envelope, &keys, PublicKey::verifies)
}

/// Reads the key of Secrets' digests. `None`: the plan names none, or the inventory has no digests.
async fn digest_key(
    spec: &BaselineSpec,
    context: Context<'_>,
    approved: &Approved,
) -> Result<Option<DigestKey>, Answer> {
    let (Some(from), Some(made_with)) = (&spec.secret_key_from, &approved.baseline.secret_key) else {
        return Ok(None);
    };
    let SecretKeyFrom { secret, key: name } = from;
    let namespace = &context.question.plan_namespace;
    let what = format!("Secret {namespace}/{}", secret.name);
    let api: Api<Secret> = Api::namespaced(context.reads.account.client.clone(), namespace);
    let read = api.get_opt(&secret.name).await;
    let read = read.map_err(|error| inventory::unreadable(&format!("cannot read {what}"), &error))?;
    let invalid =
        |why: String| Answer::unknown(GateReason::SecretKeyInvalid, format!("{what}, value '{name}': {why}"));
    let value = read.and_then(|secret| secret.data).and_then(|mut data| data.remove(name));
    let value = value.ok_or_else(|| invalid("it does not exist".to_owned()))?;
    let key = DigestKey::new(value.0).map_err(|error| invalid(error.to_string()))?;
    if fingerprint(&key).as_ref() != Some(made_with) {
        return Err(invalid("it is not the key that the baseline was made with".to_owned()));
    }
    Ok(Some(key))
}

/// Returns the Unknown for what could not be read. The message names the kind, and what the account may not do.
fn unread(error: &GatherError) -> Answer {
    let reason = match error {
        GatherError::TooMany(_) => GateReason::TooManyObjects,
        GatherError::Malformed(..) => GateReason::Unreadable,
        GatherError::Io(error) => match error.status() {
            Some(status) => match status.code {
                401 => GateReason::Unauthorized,
                403 => GateReason::Forbidden,
                _ => GateReason::ApiError,
            },
            None => GateReason::ApiUnreachable,
        },
    };
    Answer::unknown(reason, format!("cannot {error}"))
}
