//! Gate `credentialsRotated`: reads Secrets and the digests of their captured values. Of a value only its keyed digest and dates remain;
//! the rest is wiped.

use std::collections::{BTreeMap, BTreeSet};

use futures::FutureExt;
use futures::future::{BoxFuture, try_join_all};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use resurgam_core::gates::credentials_rotated::changes::changed_at;
use resurgam_core::gates::credentials_rotated::dates::issued;
use resurgam_core::gates::credentials_rotated::{
    DigestRecord, SecretFacts, TLS_TYPE, Target, ValueFacts, judge, records, targets,
};
use zeroize::Zeroize;

use super::{Answer, Context, Gate, Interest, Question};
use crate::access::Right;
use crate::api::GateReason;
use crate::api::gate::CredentialsRotatedSpec;
use crate::isolation::evidence::{DigestKey, LAST_APPLIED};

/// Secrets that one evaluation reads at a time.
const PARALLEL: usize = 4;

impl Gate for CredentialsRotatedSpec {
    fn interests(&self, question: &Question) -> Vec<Interest> {
        let (namespace, name) = (&question.plan_namespace, &self.captured_from.config_map.name);
        vec![Interest::ConfigMap { namespace: namespace.clone(), name: name.clone() }]
    }

    fn rights(&self, question: &Question) -> Vec<Right> {
        let list = Right::get::<ConfigMap>(&question.plan_namespace, &self.captured_from.config_map.name);
        // A gate whose Secrets are ambiguous reads none.
        let targets = targets(self, question).unwrap_or_default();
        let secrets: BTreeSet<Right> =
            targets.iter().map(|at| Right::get::<Secret>(at.namespace, &at.secret.name)).collect();
        secrets.into_iter().chain([list]).collect()
    }

    fn check_inputs<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Result<(), Answer>> {
        async move {
            // The record is made on the day; what can be known before is whether the gate can be asked at all.
            targets(self, context.question)?;
            digest_key(context).map(drop)
        }
        .boxed()
    }

    fn ask<'a>(&'a self, context: Context<'a>) -> BoxFuture<'a, Answer> {
        async move { gather(self, context).await.unwrap_or_else(|unknown| unknown) }.boxed()
    }
}

async fn gather(spec: &CredentialsRotatedSpec, context: Context<'_>) -> Result<Answer, Answer> {
    let Context { reads, question, .. } = context;
    let targets = targets(spec, question)?;
    let key = digest_key(context)?;
    let list = reads.config_map(&question.plan_namespace, &spec.captured_from.config_map.name).await?;
    let records: BTreeMap<String, DigestRecord> =
        records(spec, question, list.as_deref(), |record, mac| key.is_mac_of(record, mac))?;
    let mut secrets = Vec::with_capacity(targets.len());
    for some in targets.chunks(PARALLEL) {
        secrets.extend(try_join_all(some.iter().map(|target| read(context, *target, key))).await?);
    }
    Ok(judge(question, &records, &secrets))
}

async fn read<'a>(
    context: Context<'_>,
    target: Target<'a>,
    key: &DigestKey,
) -> Result<(Target<'a>, Option<SecretFacts>), Answer> {
    let secret = context.reads.secret(target.namespace, &target.secret.name).await?;
    Ok((target, secret.map(|secret| facts(secret, key)).transpose()?))
}

fn digest_key<'a>(context: Context<'a>) -> Result<&'a DigestKey, Answer> {
    context.asker.digest_key.as_ref().ok_or_else(|| {
        Answer::unknown(
            GateReason::NoDigestKey,
            "the operator compares values of Secrets only with --evidence-key: its administrator sets evidence.digestKeySecret",
        )
    })
}

/// Returns what is known of a Secret, and wipes its values.
fn facts(mut secret: Secret, key: &DigestKey) -> Result<SecretFacts, Answer> {
    if let Some(applied) = secret.metadata.annotations.as_mut().and_then(|all| all.get_mut(LAST_APPLIED)) {
        applied.zeroize();
    }
    let changes = secret.metadata.managed_fields.unwrap_or_default();
    let mut values = BTreeMap::new();
    let mut is_digested = true;
    for (name, mut value) in secret.data.unwrap_or_default() {
        match key.digest(&value.0) {
            Some(digest) => {
                let (changed_at, issued) = (changed_at(&changes, &name), issued(&value.0));
                let is_empty = value.0.is_empty();
                values.insert(name, ValueFacts { is_empty, digest, changed_at, issued });
            }
            None => is_digested = false,
        }
        value.0.zeroize();
    }
    if !is_digested {
        return Err(Answer::unknown(GateReason::NoDigestKey, "the operator's --evidence-key cannot be used"));
    }
    let uid = secret.metadata.uid.unwrap_or_default();
    Ok(SecretFacts { uid, is_tls: secret.type_.as_deref() == Some(TLS_TYPE), values })
}

#[cfg(test)]
mod tests {
    use k8s_openapi::ByteString;
    use serde_json::json;

    use super::*;

    #[test]
    fn facts_of_a_secret_have_no_value() {
        let secret = serde_json::from_value(json!({
            "type": TLS_TYPE,
            "metadata": {"uid": "uid", "annotations": {LAST_APPLIED: "canary-4711"}},
            "data": {"password": ByteString(b"canary-4711".to_vec()), "empty": ByteString(Vec::new())},
        }));
        let facts = facts(secret.unwrap(), &DigestKey::new(vec![7; 32]).unwrap()).unwrap();
        assert!(facts.is_tls && facts.values["empty"].is_empty && !facts.values["password"].is_empty);
        assert!(facts.values["password"].digest.starts_with("hmac-sha256:"));
        assert!(!format!("{facts:?}").contains("canary"), "{facts:?}");
    }
}
