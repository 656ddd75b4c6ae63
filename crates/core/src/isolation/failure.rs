//! Why a control could not be enforced: the culprit, who can clear it, and the command.

use kube::core::Status;

/// Component that denied or prevented a write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Culprit {
    /// An admission webhook of this name denied the request, or could not be called.
    Webhook(String),
    /// A ResourceQuota of this name.
    Quota(String),
    /// A ValidatingAdmissionPolicy of this name.
    Policy(String),
    /// RBAC: the operator's account lacks a permission.
    Rights,
    /// The API server, or the network to it.
    ApiServer,
}

/// Returns the part of a text between two others.
fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let (_, rest) = text.split_once(before)?;
    let (found, _) = rest.split_once(after)?;
    (!found.is_empty()).then_some(found)
}

/// Returns the admission webhook that denied a request or could not be called, from the API server's message.
fn webhook(message: &str) -> Option<&str> {
    between(message, "failed calling webhook \"", "\"")
        .or_else(|| between(message, "admission webhook \"", "\" denied the request"))
}

/// Returns who denied another client's request, such as that of a pod's controller, from a message that repeats the API server's. `None`:
/// the message names nobody, or names the culprit clearly already.
#[must_use]
pub fn repeated_culprit(message: &str) -> Option<Culprit> {
    let quota = || between(message, "exceeded quota: ", ",");
    let policy = || between(message, "ValidatingAdmissionPolicy '", "'");
    webhook(message)
        .map(|name| Culprit::Webhook(name.to_owned()))
        .or_else(|| quota().map(|name| Culprit::Quota(name.to_owned())))
        .or_else(|| policy().map(|name| Culprit::Policy(name.to_owned())))
}

/// Returns who denied a call, from the API server's answer. `None`: there was no answer.
#[must_use]
pub fn culprit(status: Option<&Status>) -> Culprit {
    let Some(status) = status else { return Culprit::ApiServer };
    let message = status.message.as_str();
    if let Some(name) = webhook(message) {
        return Culprit::Webhook(name.to_owned());
    }
    let quota = between(message, "exceeded quota: ", ",")
        .or_else(|| between(message, "status unknown for quota: ", ","));
    if let Some(name) = quota.filter(|_| status.code == 403) {
        return Culprit::Quota(name.to_owned());
    }
    if let Some(name) = between(message, "ValidatingAdmissionPolicy '", "'") {
        return Culprit::Policy(name.to_owned());
    }
    if status.code == 403 && message.contains("User \"") && message.contains(" cannot ") {
        return Culprit::Rights;
    }
    Culprit::ApiServer
}

/// Returns whether a quota of the namespace denied the write.
#[must_use]
pub fn is_quota_exceeded(status: &Status) -> bool {
    status.code == 403
        && (status.message.contains("exceeded quota") || status.message.contains("status unknown for quota"))
}

/// Returns whether the API server found the network policy too large for two more requirements.
#[must_use]
pub fn is_too_large(status: &Status) -> bool {
    status.code == 413 || status.message.contains("too large") || status.message.contains("Too long")
}

/// Returns whether the API server found no space for the record on the workload.
#[must_use]
pub const fn has_no_room(status: &Status) -> bool {
    matches!(status.code, 413 | 422)
}

/// Returns the message of a failure: the culprit, who clears it and how, then the API server's own message. `configuration`: kind and
/// name of the webhook's configuration, if known.
#[must_use]
pub fn explain(error: &dyn std::fmt::Display, culprit: &Culprit, configuration: Option<&str>) -> String {
    let who = match culprit {
        Culprit::Webhook(name) => {
            let (of, command) = match configuration {
                Some(configuration) => (
                    format!(" of {configuration}"),
                    format!("kubectl delete {}", configuration.replacen(' ', "/", 1).to_lowercase()),
                ),
                None => (
                    String::new(),
                    "kubectl get validatingwebhookconfigurations,mutatingwebhookconfigurations".to_owned(),
                ),
            };
            format!(
                "webhook {name}{of} refuses it, or does not answer. Whoever runs it repairs it, or a recovery lead removes \
                 it ({command}); it is tried again until then"
            )
        }
        Culprit::Quota(name) => {
            format!("ResourceQuota {name} leaves no room for it. It is raised, and tried again")
        }
        Culprit::Policy(name) => format!(
            "ValidatingAdmissionPolicy {name} refuses it. Whoever wrote that policy exempts the operator \
             (kubectl get validatingadmissionpolicy {name})"
        ),
        Culprit::Rights => {
            "the operator lacks a right. A cluster administrator installs the chart of this version"
                .to_owned()
        }
        Culprit::ApiServer => return format!("{error}. It is tried again"),
    };
    format!("{who}: {error}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, message: &str) -> Option<Status> {
        Some(Status { code, message: message.to_owned(), ..Status::default() })
    }

    #[test]
    fn the_culprit_is_named_by_what_the_api_server_says() {
        let webhook = || Culprit::Webhook("validate.policy.example".to_owned());
        for (status, expected) in [
            (
                answer(
                    500,
                    "Internal error occurred: failed calling webhook \"validate.policy.example\": failed to call webhook: Post",
                ),
                webhook(),
            ),
            (answer(403, "admission webhook \"validate.policy.example\" denied the request: no"), webhook()),
            (
                answer(
                    403,
                    "networkpolicies \"x\" is forbidden: exceeded quota: q, requested: count/networkpolicies=1",
                ),
                Culprit::Quota("q".to_owned()),
            ),
            (
                answer(403, "forbidden: status unknown for quota: q2, resources: pods"),
                Culprit::Quota("q2".to_owned()),
            ),
            (
                answer(403, "ValidatingAdmissionPolicy 'images' with binding 'b' denied request: no"),
                Culprit::Policy("images".to_owned()),
            ),
            (
                answer(403, "networkpolicies is forbidden: User \"system:x\" cannot create resource"),
                Culprit::Rights,
            ),
            (answer(500, "etcdserver: request timed out"), Culprit::ApiServer),
            (answer(503, "failed calling webhook \"\""), Culprit::ApiServer),
            (None, Culprit::ApiServer),
        ] {
            assert_eq!(culprit(status.as_ref()), expected, "{status:?}");
        }
    }

    #[test]
    fn a_message_says_who_clears_it_and_how() {
        let webhook = Culprit::Webhook("v.example".to_owned());
        let text = explain(&"patch: no answer", &webhook, Some("ValidatingWebhookConfiguration policy"));
        assert_eq!(
            text,
            "webhook v.example of ValidatingWebhookConfiguration policy refuses it, or does not answer. Whoever runs it repairs it, \
             or a recovery lead removes it (kubectl delete validatingwebhookconfiguration/policy); it is tried again until \
             then: patch: no answer"
        );
        assert!(explain(&"e", &webhook, None).contains("kubectl get validatingwebhookconfigurations"));
        for culprit in
            [Culprit::Quota("q".into()), Culprit::Policy("p".into()), Culprit::Rights, Culprit::ApiServer]
        {
            assert!(explain(&"the call", &culprit, None).contains("the call"), "{culprit:?}");
        }
    }
}
