use serde_json::json;

use super::*;

fn digest(letter: char) -> String {
    format!("sha256:{}", letter.to_string().repeat(64))
}

fn config_map(data: &serde_json::Value) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": "approved"}, "data": data})).unwrap()
}

#[test]
fn only_a_sha256_digest_pins_an_image() {
    let a = digest('a');
    for image in [format!("nginx@{a}"), format!("registry:5000/team/nginx:1.27@{a}")] {
        assert_eq!(pinned(&image), Some(a.as_str()), "{image}");
    }
    for image in [
        String::new(),
        "nginx".into(),
        "nginx:1.27".into(),
        a.clone(),
        format!("@{a}"),
        format!("nginx:{a}"),
        format!("nginx@{}", a.to_uppercase()),
        format!("nginx@{}", &a[..70]),
        format!("nginx@{a}0"),
        format!("nginx@{a} "),
        format!("nginx@{a}@{}", digest('z')),
        format!("nginx@sha512:{}", "a".repeat(128)),
    ] {
        assert_eq!(pinned(&image), None, "{image}");
    }
}

#[test]
fn running_digest_is_parsed_as_runtimes_report_it() {
    let a = digest('a');
    for id in [
        a.clone(),
        format!("docker://{a}"),
        format!("nginx@{a}"),
        format!("docker-pullable://registry:5000/nginx@{a}"),
    ] {
        assert_eq!(running(&id), Some(a.as_str()), "{id}");
    }
    for id in ["", "nginx", "nginx:1.27", "docker://nginx", "nginx@sha256:abc"] {
        assert_eq!(running(id), None, "{id}");
    }
}

#[test]
fn every_value_of_the_list_counts_and_comments_do_not() {
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    let data = json!({"web": format!("# the web\n{a}  # nginx\n\n  {b}\r\n"), "db": c});
    assert_eq!(from_config_map(&config_map(&data)), Ok(BTreeSet::from([a, b, c])));
}

#[test]
fn a_malformed_line_spoils_the_list_and_is_named() {
    for line in ["sha256:abc", "nginx", &format!("{} {}", digest('a'), digest('b')), &digest('A')] {
        let data = json!({"db": digest('a'), "web": format!("{}\n{line}", digest('b'))});
        let Err(ListError::Malformed(message)) = from_config_map(&config_map(&data)) else {
            panic!("{line} was taken for a digest")
        };
        assert!(message.contains("key web, line 2") && message.contains(line), "{message}");
    }
    let binary = serde_json::from_value(json!({"binaryData": {"blob": "AAAA"}})).unwrap();
    assert_eq!(from_config_map(&binary), Err(ListError::Malformed("key blob is binary".into())));
    let Err(ListError::Malformed(message)) = inline(&[digest('a'), "nginx".into()]) else { panic!("taken") };
    assert!(message.contains("approved[1]: 'nginx'"), "{message}");
}

#[test]
fn a_list_that_approves_nothing_is_no_list() {
    for data in [json!({}), json!({"web": ""}), json!({"web": "# nothing yet\n"})] {
        assert_eq!(from_config_map(&config_map(&data)), Err(ListError::Empty), "{data}");
    }
    assert_eq!(from_config_map(&ConfigMap::default()), Err(ListError::Empty));
    assert_eq!(inline(&[]), Err(ListError::Empty));
}

#[test]
fn every_place_that_names_an_image_is_found() {
    let spec = serde_json::from_value(json!({
        "initContainers": [{"name": "migrate", "image": "a"}],
        "containers": [{"name": "web", "image": "b"}, {"name": "nameless"}],
        "ephemeralContainers": [{"name": "debug", "image": "c"}],
        "volumes": [{"name": "data", "image": {"reference": "d"}}, {"name": "tmp", "emptyDir": {}}],
    }))
    .unwrap();
    let found: Vec<String> =
        specified(&spec).into_iter().map(|(place, image)| format!("{place}={image}")).collect();
    let all = [
        "container migrate=a",
        "container web=b",
        "container nameless=",
        "container debug=c",
        "volume data=d",
    ];
    assert_eq!(found, all);
}
