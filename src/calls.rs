//! Calls to the API server: each has a deadline, and an error that names what was tried.

use std::error::Error;
use std::fmt::Debug;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use kube::Api;
use kube::api::ListParams;
use kube::core::Status;
use serde::de::DeserializeOwned;

/// How long any one call may take, retries of the client included.
pub const DEADLINE: Duration = Duration::from_secs(15);

/// Why a call failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum IoError {
    /// The API server refused, or the request failed on the way.
    #[error("{what}: {}", reason(.source))]
    Api {
        /// The attempted operation and its object.
        what: String,
        /// The underlying error.
        source: Arc<kube::Error>,
    },
    /// No answer within the deadline. Whether the call took effect is unknown.
    #[error("{what}: no answer within {} s", .after.as_secs())]
    Timeout {
        /// The attempted operation and its object.
        what: String,
        /// The deadline.
        after: Duration,
    },
}

impl IoError {
    /// Returns the API server's status, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<&Status> {
        let Self::Api { source, .. } = self else { return None };
        if let kube::Error::Api(status) = source.as_ref() { Some(status) } else { None }
    }

    /// Returns whether the API server itself reported the object as missing. A 404 from a proxy, for instance, does not count.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.status().is_some_and(|status| status.reason == "NotFound")
    }

    /// Returns whether the kind is not served. For an unknown group, the API server answers with a plain-text 404. Any 404 counts, so
    /// this must not decide whether something isolated is gone.
    #[must_use]
    pub fn is_not_served(&self) -> bool {
        self.status().is_some_and(|status| status.code == 404)
    }

    /// Returns whether the object changed or exists already. A retry has to read it again.
    #[must_use]
    pub fn is_conflict(&self) -> bool {
        self.status().is_some_and(|s| s.is_conflict() || s.is_already_exists())
    }
}

impl IoError {
    /// Returns the innermost cause if there was no answer. The outer errors only wrap it.
    #[must_use]
    pub fn unanswered(&self) -> Option<String> {
        let source = match self {
            Self::Timeout { after, .. } => return Some(format!("no answer within {} s", after.as_secs())),
            Self::Api { source, .. } => source.as_ref(),
        };
        if !matches!(source, kube::Error::HyperError(_) | kube::Error::Service(_)) {
            return None;
        }
        let mut cause: &dyn Error = source;
        while let Some(inner) = cause.source() {
            cause = inner;
        }
        Some(cause.to_string())
    }

    /// Returns whether the account lacks a right, so that the same call succeeds once a person grants it.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.status().is_some_and(|s| matches!(s.code, 401 | 403))
    }

    /// Returns whether the same call may succeed shortly without anyone's action.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.status().is_none_or(|s| matches!(s.code, 409 | 429 | 500..=599))
    }
}

/// Returns the API server's message, or else what failed on the way.
fn reason(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) if !status.message.is_empty() => status.message.clone(),
        kube::Error::Api(status) => status_line(status),
        other => other.to_string(),
    }
}

/// Formats an error with all its causes on one line, each once, and the API server's answer as `message (code reason)`. Errors of `kube`
/// repeat their causes and print the whole Status in their own format.
#[must_use]
pub fn error_line(error: &(dyn Error + 'static)) -> String {
    let kube_error = error
        .downcast_ref::<kube::Error>()
        .or_else(|| error.downcast_ref::<Arc<kube::Error>>().map(AsRef::as_ref));
    match (kube_error, error.downcast_ref::<IoError>()) {
        (Some(kube::Error::Api(status)), _) => return status_line(status),
        (_, Some(IoError::Api { what, source })) => {
            return format!("{what}: {}", error_line(source.as_ref()));
        }
        _ => {}
    }
    let text = error.to_string();
    let Some(cause) = error.source() else { return text };
    let (repeated, line) = (cause.to_string(), error_line(cause));
    if text.contains(&line) {
        text
    } else if !repeated.is_empty() && text.contains(&repeated) {
        text.replacen(&repeated, &line, 1)
    } else {
        format!("{text}: {line}")
    }
}

/// Formats a status as `message (code reason)`.
fn status_line(status: &Status) -> String {
    let Status { message, reason, code, .. } = status;
    let reason = if reason.is_empty() { String::new() } else { format!(" {reason}") };
    if message.is_empty() {
        format!("the API server answered {code}{reason}")
    } else {
        format!("{message} ({code}{reason})")
    }
}

/// Makes one call with a deadline. `what`: the operation, such as `patch Deployment a/b`.
///
/// # Errors
/// [`IoError`], with `what`.
pub async fn call<T>(
    what: impl Into<String>,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<T, IoError> {
    call_within(DEADLINE, what, future).await
}

/// As [`call`], with another deadline.
///
/// # Errors
/// [`IoError`], with `what`.
pub async fn call_within<T>(
    deadline: Duration,
    what: impl Into<String>,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<T, IoError> {
    match tokio::time::timeout(deadline, future).await {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(IoError::Api { what: what.into(), source: Arc::new(error) }),
        Err(_) => Err(IoError::Timeout { what: what.into(), after: deadline }),
    }
}

/// As [`call`], with `None` for a missing object.
///
/// # Errors
/// [`IoError`], with `what`.
pub async fn call_opt<T>(
    what: impl Into<String>,
    future: impl Future<Output = kube::Result<T>>,
) -> Result<Option<T>, IoError> {
    match call(what, future).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Lists all objects, page by page, as a single answer may be too long.
///
/// # Errors
/// [`IoError`] of the first failed page, with `what`.
pub async fn list_all<K>(
    what: &str,
    api: &Api<K>,
    mut params: ListParams,
    page: u32,
) -> Result<Vec<K>, IoError>
where
    K: Clone + DeserializeOwned + Debug,
{
    params.limit = Some(page);
    let mut all = Vec::new();
    loop {
        let list = call(what, api.list(&params)).await?;
        all.extend(list.items);
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            // The token determines the version of the following pages.
            Some(token) => {
                params = ListParams { continue_token: Some(token), ..params };
                (params.version_match, params.resource_version) = (None, None);
            }
            None => return Ok(all),
        }
    }
}

/// Makes all calls, `parallel` at a time, even if some fail.
///
/// # Errors
/// The first failure, after all calls.
pub async fn each<T, E, F>(parallel: usize, calls: impl IntoIterator<Item = F>) -> Result<Vec<T>, E>
where
    F: Future<Output = Result<T, E>>,
{
    let outcomes: Vec<_> = stream::iter(calls).buffer_unordered(parallel).collect().await;
    outcomes.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    fn api_error(message: &str, reason: &str, code: u16) -> kube::Error {
        let (message, reason) = (message.to_owned(), reason.to_owned());
        kube::Error::Api(Box::new(Status { message, reason, code, ..Status::default() }))
    }

    #[test]
    fn error_line_tells_each_cause_once() {
        let forbidden = || api_error("pods is forbidden", "Forbidden", 403);
        let call = |source| IoError::Api { what: "list pods".to_owned(), source: Arc::new(source) };
        let watch = kube::runtime::watcher::Error::InitialListFailed(forbidden());
        let other = |text: &str| kube::Error::Service(std::io::Error::other(text).into());
        for (error, line) in [
            (anyhow::Error::new(forbidden()), "pods is forbidden (403 Forbidden)"),
            (
                anyhow::Error::new(forbidden()).context("checking"),
                "checking: pods is forbidden (403 Forbidden)",
            ),
            (anyhow::Error::new(call(forbidden())), "list pods: pods is forbidden (403 Forbidden)"),
            (anyhow::Error::new(api_error("no", "", 500)), "no (500)"),
            (anyhow::Error::new(api_error("", "", 502)), "the API server answered 502"),
            (
                anyhow::Error::new(watch),
                "failed to perform initial object list: pods is forbidden (403 Forbidden)",
            ),
            (anyhow::Error::new(other("refused")), "ServiceError: refused"),
            (anyhow::Error::new(call(other("refused"))), "list pods: ServiceError: refused"),
            (anyhow::anyhow!("plain").context("outer"), "outer: plain"),
        ] {
            assert_eq!(error_line(error.as_ref()), line);
        }
        let absent: anyhow::Result<()> = Err(anyhow::anyhow!("x")).context("outer: x");
        assert_eq!(error_line(absent.unwrap_err().as_ref()), "outer: x");
    }

    #[test]
    fn only_the_api_server_can_report_an_object_as_missing() {
        let error = |reason: &str, code| {
            let status = Status { reason: reason.to_owned(), code, ..Status::default() };
            IoError::Api { what: "get".to_owned(), source: Arc::new(kube::Error::Api(Box::new(status))) }
        };
        for (reason, code, not_found, not_served) in [
            ("NotFound", 404, true, true),
            ("", 404, false, true),
            ("Not Found", 404, false, true),
            ("Forbidden", 403, false, false),
            ("", 502, false, false),
        ] {
            let error = error(reason, code);
            assert_eq!(
                (error.is_not_found(), error.is_not_served()),
                (not_found, not_served),
                "{reason} {code}"
            );
        }
    }
}
