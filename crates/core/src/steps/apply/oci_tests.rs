use serde_json::json;

use super::*;

const DIGEST: &str = "sha256:4bcff63911fcb4448bd4fdacec207030997caf25e9bea4045fa6c8c44de311d1";

fn reference(name: &str) -> Reference {
    format!("{name}@{DIGEST}").parse().unwrap()
}

#[test]
fn reference_names_registry_repository_and_digest() {
    let read = reference("registry.example:5000/team/manifests");
    assert_eq!((&*read.registry, &*read.repository), ("registry.example:5000", "team/manifests"));
    assert_eq!(read.to_string(), format!("registry.example:5000/team/manifests@{DIGEST}"));
    for text in [
        "registry.example/team:1".to_owned(),
        format!("registry.example/team:1@{DIGEST}"),
        format!("team/manifests@{DIGEST}"),
        format!("registry.example@{DIGEST}"),
        format!("registry.example/@{DIGEST}"),
        format!("registry.example//a@{DIGEST}"),
        format!("registry.example/../a@{DIGEST}"),
        format!("registry.example/a%2f@{DIGEST}"),
        format!("registry.example/Team@{DIGEST}"),
        format!("u:p@registry.example/a@{DIGEST}"),
        format!("registry.example:99999/a@{DIGEST}"),
        format!("registry.example/a@{}", DIGEST.to_uppercase()),
        format!("registry.example/a@{}", &DIGEST[..70]),
        format!("https://registry.example/a@{DIGEST}"),
    ] {
        assert!(text.parse::<Reference>().is_err(), "{text}");
    }
}

#[test]
fn only_repositories_that_the_operator_names_are_allowed() {
    for (allowed, name, expected) in [
        ("registry.example/", "registry.example/team/a", true),
        ("registry.example/team/", "registry.example/team/a", true),
        ("registry.example/team/", "registry.example/team/a/b", true),
        ("registry.example/team/", "registry.example/team", false),
        ("registry.example/team/", "registry.example/teams/a", false),
        ("registry.example/team", "registry.example/team", true),
        ("registry.example/team", "registry.example/team/a", false),
        ("registry.example/team", "registry.example/teams", false),
        ("registry.example/", "registry.example:5000/team", false),
        ("registry.example/", "registry.example.attacker.example/team", false),
        ("http://127.0.0.1:5000/", "127.0.0.1:5000/team", true),
    ] {
        let all: AllowedRepositories = allowed.parse().unwrap();
        assert_eq!(all.includes(&reference(name)), expected, "{allowed} {name}");
    }
    let is_plain = |text: &str| text.parse::<AllowedRepositories>().unwrap().is_plain;
    assert!(is_plain("http://registry.example/") && !is_plain("https://registry.example/"));
    assert!(!is_plain("registry.example/"), "TLS, unless it says otherwise");
    for text in ["", "/", "registry.example", "team/", "ftp://registry.example/", "registry.example/../"] {
        assert!(text.parse::<AllowedRepositories>().is_err(), "{text}");
    }
}

fn manifest(layers: &serde_json::Value) -> Vec<u8> {
    let config =
        json!({"mediaType": "application/vnd.cncf.flux.config.v1+json", "digest": DIGEST, "size": 2});
    let manifest =
        json!({"schemaVersion": 2, "mediaType": MANIFEST_TYPES[0], "config": config, "layers": layers});
    manifest.to_string().into_bytes()
}

fn descriptor(media_type: &str, title: Option<&str>, size: usize) -> serde_json::Value {
    let annotations = title.map(|title| json!({TITLE: title}));
    json!({"mediaType": media_type, "digest": DIGEST, "size": size, "annotations": annotations})
}

#[test]
fn what_flux_and_oras_push_is_read() {
    let flux = descriptor("application/vnd.cncf.flux.content.v1.tar+gzip", None, 300);
    let files = json!([
        descriptor("application/yaml", None, 3),
        descriptor("application/vnd.oci.image.layer.v1.tar", Some("b.yaml"), 4),
    ]);
    let read = |layers: &serde_json::Value| super::layers(&manifest(layers));
    let of =
        |file: Option<&str>, size| Layer { digest: DIGEST.to_owned(), size, file: file.map(str::to_owned) };
    assert_eq!(read(&json!([flux])), Ok(vec![of(None, 300)]));
    let folder = descriptor("application/vnd.oci.image.layer.v1.tar+gzip", Some("manifests"), 300);
    assert_eq!(read(&json!([folder])), Ok(vec![of(None, 300)]));
    assert_eq!(read(&files), Ok(vec![of(Some(DIGEST), 3), of(Some("b.yaml"), 4)]));
    let plain = json!({"schemaVersion": 2, "layers": [flux]}).to_string();
    assert_eq!(super::layers(plain.as_bytes()), Ok(vec![of(None, 300)]), "its type is in a header only");

    let image = descriptor("application/vnd.oci.image.layer.v1.tar", None, 300);
    for (layers, words) in [
        (json!([]), "it has 0 layers"),
        (json!([image]), "is neither a tar+gzip nor a YAML file"),
        (json!([descriptor("text/html", Some("x.yaml"), 3)]), "its layer x.yaml of type text/html"),
        (json!([flux, files[0]]), "one is an archive"),
        (json!([flux, flux]), "one is an archive"),
        (
            json!([descriptor("application/yaml", None, LAYERS_LIMIT), files[0]]),
            "and at most 1048576 are read",
        ),
        (json!([{"mediaType": "application/yaml", "digest": "sha256:1", "size": 1}]), "no digest of SHA-256"),
        (json!(vec![files[0].clone(); 65]), "it has 65 layers"),
        (json!([{"mediaType": "application/yaml", "digest": DIGEST, "size": -1}]), "no manifest"),
    ] {
        let error = read(&layers).unwrap_err();
        assert!(error.contains(words), "{layers}: {error}");
    }
    for (manifest, words) in [
        (json!({"schemaVersion": 2, "manifests": []}), "it is an index"),
        (json!({"schemaVersion": 1, "layers": [flux]}), "no manifest"),
        (json!({"schemaVersion": 2, "mediaType": "text/plain", "layers": [flux]}), "no manifest"),
        (json!("no"), "no manifest"),
    ] {
        let error = super::layers(manifest.to_string().as_bytes()).unwrap_err();
        assert!(error.contains(words), "{manifest}: {error}");
    }
}

#[test]
fn bytes_of_another_digest_are_refused_by_both() {
    let digest = digest_of_bytes(b"manifest");
    assert_eq!(mismatch(b"manifest", &digest), None);
    let why = mismatch(b"forged", &digest).unwrap();
    assert!(why.contains(&digest) && why.contains(&digest_of_bytes(b"forged")), "{why}");
}

#[test]
fn login_is_of_the_longest_entry_and_never_in_an_error() {
    let encoded = |both: &str| STANDARD.encode(both);
    let of = |auths: serde_json::Value| {
        login(json!({"auths": auths}).to_string().as_bytes(), &reference("registry.example/team/a"))
    };
    let auth = |both: &str| json!({"auth": encoded(both)});
    for key in [
        "registry.example",
        "https://registry.example",
        "https://registry.example/v1/",
        "https://registry.example/v2/",
        "registry.example/team",
        "registry.example/team/a",
    ] {
        assert_eq!(of(json!({key: auth("u:secret")})), Ok(encoded("u:secret")), "{key}");
    }
    let two = json!({"registry.example": auth("all:x"), "registry.example/team": auth("team:x")});
    assert_eq!(of(two), Ok(encoded("team:x")));
    let plain = json!({"registry.example": {"username": "u", "password": "secret"}});
    assert_eq!(of(plain), Ok(encoded("u:secret")));
    for auths in [
        json!({"other.example": auth("u:secret")}),
        json!({"registry.example.attacker.example": auth("u:secret")}),
        json!({"registry.example/tea": auth("u:secret")}),
        json!({"registry.example": {"auth": "c2VjcmV0"}}),
        json!({"registry.example": {"auth": "secret"}}),
        json!({"registry.example": {"username": "secret"}}),
        json!("secret"),
    ] {
        let error = of(auths.clone()).unwrap_err();
        assert!(!error.contains("secret") && !error.contains("c2Vj"), "{auths}: {error}");
    }
    assert!(login(b"{", &reference("registry.example/a")).is_err());
}

#[test]
fn challenge_names_who_issues_tokens() {
    let bearer = |realm: &str, service: Option<&str>| {
        Some(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    };
    for (header, expected) in [
        ("Basic realm=\"x\"", Some(Challenge::Basic)),
        ("basic", Some(Challenge::Basic)),
        (
            "Bearer realm=\"https://t.example/token\",service=\"r\"",
            bearer("https://t.example/token", Some("r")),
        ),
        ("bearer realm=\"https://t.example\"", bearer("https://t.example", None)),
        ("Bearer service=\"r\"", None),
        ("Negotiate", None),
        ("", None),
    ] {
        assert_eq!(challenge(header), expected, "{header}");
    }
}
