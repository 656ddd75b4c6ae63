//! Classification of a request.

use http::{Method, Uri};

/// A request, with the fields that the choice of faults needs.
#[derive(Clone, Debug)]
pub(crate) struct RequestInfo {
    pub(crate) method: Method,
    /// Path without the query, which contains resource versions.
    pub(crate) path: String,
    pub(crate) watch: bool,
    pub(crate) lease: bool,
    dry_run: bool,
}

/// Paths of reviews, which change nothing.
const REVIEWS: [&str; 2] = ["/apis/authorization.k8s.io/", "/apis/authentication.k8s.io/"];

impl RequestInfo {
    pub(crate) fn of(method: &Method, uri: &Uri) -> Self {
        let query = uri.query().unwrap_or_default();
        let has = |wanted: &[&str]| query.split('&').any(|pair| wanted.contains(&pair));
        Self {
            method: method.clone(),
            path: uri.path().to_owned(),
            watch: has(&["watch=true", "watch=1"]),
            lease: uri.path().starts_with("/apis/coordination.k8s.io/"),
            dry_run: query.split('&').any(|pair| pair.starts_with("dryRun=")),
        }
    }

    /// Returns whether the method is a mutating one.
    pub(crate) fn mutates(&self) -> bool {
        ![Method::GET, Method::HEAD, Method::OPTIONS].contains(&self.method)
    }

    /// Returns whether the request can change an object that other clients read. Dry runs, reviews, Events and Leases cannot.
    pub(crate) fn has_effect(&self) -> bool {
        let event = self.path.starts_with("/apis/events.k8s.io/")
            || (self.path.starts_with("/api/v1/") && self.path.split('/').any(|part| part == "events"));
        self.mutates()
            && !self.dry_run
            && !self.lease
            && !event
            && !REVIEWS.iter().any(|review| self.path.starts_with(review))
    }

    /// Returns whether the request writes only the status of a ServiceRecovery or a RecoveryPlan.
    pub(crate) fn reports(&self) -> bool {
        let of = |kind: &str| self.path.starts_with("/apis/resurgam.dev/") && self.path.contains(kind);
        self.path.ends_with("/status") && (of("/servicerecoveries/") || of("/recoveryplans/"))
    }

    /// Returns the key by which faults are chosen and requests are counted.
    pub(crate) fn key(&self) -> String {
        let what = if self.watch { "WATCH" } else { self.method.as_str() };
        format!("{what} {}", self.path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(method: Method, uri: &str) -> RequestInfo {
        RequestInfo::of(&method, &uri.parse().unwrap())
    }

    #[test]
    fn an_effect_is_a_write_that_others_can_see() {
        for (method, uri, effect) in [
            (Method::GET, "/api/v1/namespaces/a", false),
            (Method::PATCH, "/api/v1/namespaces/a?fieldManager=x&force=true", true),
            (Method::PATCH, "/api/v1/namespaces/a?dryRun=All", false),
            (Method::DELETE, "/api/v1/namespaces/a/pods/b", true),
            (Method::POST, "/api/v1/namespaces/a/events", false),
            (Method::POST, "/apis/events.k8s.io/v1/namespaces/a/events", false),
            (Method::POST, "/apis/apps/v1/namespaces/events-2/deployments", true),
            (Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/a/leases/b", false),
            (Method::POST, "/apis/authorization.k8s.io/v1/subjectaccessreviews", false),
            (Method::POST, "/apis/authentication.k8s.io/v1/tokenreviews", false),
        ] {
            assert_eq!(asked(method.clone(), uri).has_effect(), effect, "{method} {uri}");
        }
    }

    #[test]
    fn request_is_identified_by_method_and_path_without_versions() {
        let at = |version: u32| {
            asked(Method::GET, &format!("/api/v1/pods?watch=true&resourceVersion={version}")).key()
        };
        assert_eq!(at(1), at(2));
        assert_ne!(at(1), asked(Method::GET, "/api/v1/pods?resourceVersion=1").key());
        assert!(!asked(Method::GET, "/api/v1/pods?labelSelector=watch%3Dtrue").watch);
    }
}
