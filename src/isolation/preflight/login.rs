//! How the caller authenticates to the cluster, according to the kubeconfig.

use k8s_openapi::ByteString;
use kube::config::{AuthInfo, Kubeconfig};
use serde_json::{Value, json};

use super::Login;

/// Commands that authenticate with a cloud identity, which does not depend on this cluster.
const CLOUD: [&str; 6] =
    ["aws", "aws-iam-authenticator", "gke-gcloud-auth-plugin", "gcloud", "kubelogin", "doctl"];

/// Returns the login of a kubeconfig's current context.
#[must_use]
pub(super) fn through(kubeconfig: &Kubeconfig) -> Login {
    let mut login = Login::default();
    let contexts = || kubeconfig.contexts.iter().filter_map(|c| Some((&c.name, c.context.as_ref()?)));
    let current = contexts().find(|(name, _)| Some(*name) == kubeconfig.current_context.as_ref());
    let Some((_, current)) = current else {
        login.unclear = Some("the kubeconfig names no current context".to_owned());
        return login;
    };
    let user = |name: &str| {
        let named = kubeconfig.auth_infos.iter().find(|user| user.name == name);
        named.and_then(|user| user.auth_info.as_ref())
    };
    let cluster = kubeconfig.clusters.iter().find(|cluster| cluster.name == current.cluster);
    if let Some(server) = cluster.and_then(|c| c.cluster.as_ref()?.server.clone()) {
        login.through.push(("the address of the API server".to_owned(), server));
    }
    if let Some(info) = current.user.as_deref().and_then(user) {
        look_at(&mut login, info);
    }
    let others = contexts().filter(|(_, c)| c.cluster == current.cluster && c.user != current.user);
    let others = others.filter_map(|(context, c)| Some((context, user(c.user.as_deref()?)?)));
    login.others = others.filter(|(_, info)| has_certificate(info)).map(|(name, _)| name.clone()).collect();
    login
}

fn look_at(login: &mut Login, info: &AuthInfo) {
    if has_certificate(info) {
        return;
    }
    if let Some(exec) = &info.exec {
        let command = exec.command.clone().unwrap_or_default();
        let values = exec.env.iter().flatten().filter_map(|variable| variable.get("value").cloned());
        let words = exec.args.iter().flatten().cloned().chain(values);
        let urls: Vec<String> = words.filter_map(|word| url_in(&word)).collect();
        let base = command.rsplit('/').next().unwrap_or_default();
        if urls.is_empty() && !CLOUD.contains(&base) {
            login.unclear =
                Some(format!("your login is made by the command {command}, which does not say what it asks"));
        }
        let what = format!("your login, by {command}");
        login.through.extend(urls.into_iter().map(|url| (what.clone(), url)));
    }
    if let Some(provider) = &info.auth_provider {
        match provider.config.get("idp-issuer-url") {
            Some(url) => login.through.push(("the issuer of your login".to_owned(), url.clone())),
            None => {
                login.unclear = Some(format!("your login's provider {} names no issuer", provider.name));
            }
        }
    }
    // The token is only accessible in the serialized kubeconfig.
    let token = serde_json::to_value(info).ok();
    let token = token.as_ref().and_then(|info| info.get("token")).and_then(Value::as_str);
    if let Some(issuer) = token.and_then(issuer) {
        login.through.push(("the issuer of your token".to_owned(), issuer));
    }
}

fn has_certificate(info: &AuthInfo) -> bool {
    info.client_certificate.is_some() || info.client_certificate_data.is_some()
}

/// Returns the URL in an argument such as `--oidc-issuer-url=https://…`.
fn url_in(word: &str) -> Option<String> {
    word.find("https://").or_else(|| word.find("http://")).map(|at| word[at..].to_owned())
}

/// Returns the issuer of a token, if it names one.
fn issuer(token: &str) -> Option<String> {
    let mut payload = token.split('.').nth(1)?.replace('-', "+").replace('_', "/");
    payload.extend(std::iter::repeat_n('=', (4 - payload.len() % 4) % 4));
    let bytes: ByteString = serde_json::from_value(json!(payload)).ok()?;
    let claims: Value = serde_json::from_slice(&bytes.0).ok()?;
    claims.get("iss")?.as_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kubeconfig(user: Value) -> Kubeconfig {
        serde_json::from_value(json!({
            "current-context": "day",
            "clusters": [{"name": "c", "cluster": {"server": "https://api.example:6443"}}],
            "contexts": [
                {"name": "day", "context": {"cluster": "c", "user": "me"}},
                {"name": "break-glass", "context": {"cluster": "c", "user": "certificate"}},
                {"name": "elsewhere", "context": {"cluster": "d", "user": "certificate"}},
            ],
            "users": [
                {"name": "me", "user": user},
                {"name": "certificate", "user": {"client-certificate-data": "YQ=="}},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn login_dependencies_are_found_for_every_method() {
        // {"iss":"https://id.example/realm"}
        let token = "h.eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUvcmVhbG0ifQ.s";
        for user in [
            json!({"token": token}),
            json!({"auth-provider": {"name": "oidc", "config": {"idp-issuer-url": "https://id.example/realm"}}}),
            json!({"exec": {"command": "kubectl", "args": ["oidc-login", "--oidc-issuer-url=https://id.example/realm"]}}),
            json!({"exec": {"command": "login", "env": [{"name": "ISSUER", "value": "https://id.example/realm"}]}}),
        ] {
            let login = through(&kubeconfig(user.clone()));
            assert_eq!(login.through[0].1, "https://api.example:6443");
            assert_eq!(login.through[1].1, "https://id.example/realm", "{user}");
            assert_eq!((login.others, login.unclear), (vec!["break-glass".to_owned()], None), "{user}");
        }
    }

    #[test]
    fn the_issuer_of_a_token_of_any_length_is_read() {
        for (payload, says) in [
            ("eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUvcmVhbG0ifQ", "https://id.example/realm"),
            ("eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUvcmVhbG1zIn0", "https://id.example/realms"),
            ("eyJpc3MiOiJodHRwczovL2lkLmV4YW1wbGUvcmVhbG1zMSJ9", "https://id.example/realms1"),
        ] {
            assert_eq!(issuer(&format!("h.{payload}.s")).as_deref(), Some(says));
        }
    }

    #[test]
    fn login_without_issuer_is_unclear() {
        let unclear = |user| through(&kubeconfig(user)).unclear;
        assert!(unclear(json!({"exec": {"command": "/opt/login"}})).unwrap().contains("/opt/login"));
        assert!(unclear(json!({"auth-provider": {"name": "other", "config": {}}})).is_some());
        assert!(
            unclear(json!({"exec": {"command": "/usr/bin/aws", "args": ["eks", "get-token"]}})).is_none()
        );
        assert!(unclear(json!({"client-certificate": "a.crt"})).is_none());
        assert!(unclear(json!({"token": "opaque"})).is_none());
    }
}
