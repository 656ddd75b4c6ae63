//! Gate `baseline`: reads the signed inventory, and everything that is to be compared with it.

use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use resurgam_core::baseline::ignore::IgnoreList;
use resurgam_core::baseline::reach;
use resurgam_core::gates::baseline::{Approved, approved, inapplicable, judge, marks};

use sha2::{Digest, Sha256};

use super::kept_reads::{Judged, Sha};
use super::{Answer, Cached, Context, Gate, Interest, Question, inventory};
use crate::access::Right;
use crate::api::gate::{BaselineSpec, Outside, SecretKeyFrom};
use crate::api::{GateReason, Verdict};
use crate::baseline::gather::{GatherError, Request, fingerprint};
use crate::baseline::{PublicKey, packed};
use crate::isolation::evidence::DigestKey;

mod read;

use read::{Lists, Reading};

/// How long after a Fail everything is read once more.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

impl Gate for BaselineSpec {
    fn interests(&self, question: &Question) -> Vec<Interest> {
        let maps = self.config_maps.iter().map(|map| Interest::ConfigMap {
            namespace: question.plan_namespace.clone(),
            name: map.name.clone(),
        });
        let namespaces =
            question.namespaces.iter().map(|namespace| Interest::Anything { namespace: namespace.clone() });
        // What reaches in, and what the account may read, for a gate that compares nothing outside.
        maps.chain(namespaces).chain([Interest::Outside]).collect()
    }

    fn cached(&self) -> Cached {
        Cached::Kept
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
            let approved = open(self, context.question, &read_packed(self, context).await?)?;
            digest_key(self, context, approved.baseline.secret_key.as_ref()).await?;
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
    let packed = read_packed(spec, context).await?;
    let digest: Sha = Sha256::digest(&packed).into();
    // What was judged last tells what the inventory needs, so that it is parsed only if something has changed.
    let kept = context.kept.filter(|_| context.reads.cache.is_some());
    let last = kept.and_then(|kept| kept.judged(question, &digest));
    let mut approved = None;
    let (versions, made_with) = match &last {
        Some(last) => (last.versions.clone(), last.secret_key.clone()),
        None => {
            let opened = open(spec, question, &packed)?;
            // Nothing is listed for an inventory that proves nothing.
            if let Some(unknown) = inapplicable(spec, question, &opened.baseline) {
                return Ok(unknown);
            }
            let of = (opened.baseline.kinds.clone(), opened.baseline.secret_key.clone());
            approved = Some(opened);
            of
        }
    };
    let key = digest_key(spec, context, made_with.as_ref()).await?;
    let ignore =
        IgnoreList::parse(&spec.ignore).map_err(|why| Answer::unknown(GateReason::Malformed, why))?;
    let lists = Lists {
        account: context.reads.account,
        kept: context.kept,
        uses_kept: kept.is_some(),
        request: Request {
            namespaces: &question.namespaces,
            versions: &versions,
            key: key.as_ref(),
            outside: spec.outside == Outside::Compare,
            ignore: &ignore,
        },
    };
    let fingerprint = || key.as_ref().and_then(fingerprint);
    let mut reading = lists.read(fingerprint()).await?;
    if let Some(last) = last.filter(|last| last.content == reading.digest()) {
        return Ok(last.answer);
    }
    let approved = match approved {
        Some(approved) => approved,
        None => open(spec, question, &packed)?,
    };
    drop(packed);
    let judged = |reading: &Reading| {
        if let Some(kind) = approved.baseline.unserved(&reading.kinds, &ignore) {
            let why = format!("the API server does not serve kind {kind}, of which the baseline has objects");
            return Err(Answer::unknown(GateReason::ApiError, why));
        }
        let observed = reading.observed(&marks(question))?;
        Ok(judge(spec, question, &approved, observed, key.is_some()))
    };
    let mut answer = judged(&reading)?;
    if answer.verdict == Verdict::Fail {
        // Lists are of different moments: a controller may have been between two writes.
        tokio::time::sleep(AGAIN_AFTER).await;
        reading = lists.read(fingerprint()).await?;
        answer = judged(&reading)?;
    }
    if let Some(kept) = context.kept {
        kept.keep_answer(Judged {
            question: question.clone(),
            inventory: digest,
            versions: versions.clone(),
            secret_key: made_with,
            content: reading.digest(),
            answer: answer.clone(),
        });
    }
    Ok(answer)
}

/// Reads the inventory as the ConfigMaps hold it.
async fn read_packed(spec: &BaselineSpec, context: Context<'_>) -> Result<Vec<u8>, Answer> {
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
    Ok(bytes)
}

/// Opens the inventory, and verifies its signatures.
fn open(spec: &BaselineSpec, question: &Question, bytes: &[u8]) -> Result<Approved, Answer> {
    let namespace = &question.plan_namespace;
    let name = spec.config_maps.first().map_or("", |map| map.name.as_str());
    let what = format!("baseline in ConfigMap {namespace}/{name}");
    let envelope = packed::unpacked(bytes.to_vec())
        .map_err(|why| Answer::unknown(GateReason::BaselineMalformed, format!("{what}: {why}")))?;
    let keys: Result<Vec<PublicKey>, _> =
        spec.public_keys.iter().map(|pem| PublicKey::from_pem(pem)).collect();
    let keys =
        keys.map_err(|error| Answer::unknown(GateReason::Malformed, format!("publicKeys: {error}")))?;
    approved(spec, &what, &envelope, &keys, PublicKey::verifies)
}

/// Reads the key of Secrets' digests. `None`: the plan names none, or the inventory has no digests. `made_with`: fingerprint of the key that
/// the inventory was made with.
async fn digest_key(
    spec: &BaselineSpec,
    context: Context<'_>,
    made_with: Option<&String>,
) -> Result<Option<DigestKey>, Answer> {
    let (Some(from), Some(made_with)) = (&spec.secret_key_from, made_with) else {
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
