use k8s_openapi::api::core::v1::{Node, Pod};
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
        "a".repeat(64),
        format!("docker://{}", "a".repeat(64)),
    ] {
        assert_eq!(running(&id), Some(a.clone()), "{id}");
    }
    for id in [
        "",
        "nginx",
        "nginx:1.27",
        "docker://nginx",
        "nginx@sha256:abc",
        &"a".repeat(63),
        &"A".repeat(64),
        &format!("nginx@{}", "a".repeat(64)),
    ] {
        assert_eq!(running(id), None, "{id}");
    }
}

#[test]
fn names_are_completed_as_container_runtimes_do() {
    for (image, full) in [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("docker.io/nginx:1.27", "docker.io/library/nginx:1.27"),
        ("index.docker.io/library/nginx:1.27", "docker.io/library/nginx:1.27"),
        ("team/app", "docker.io/team/app:latest"),
        ("registry.example/app:1", "registry.example/app:1"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("localhost/app:1", "localhost/app:1"),
        ("registry.example/a/b_c/d--e:v1.2-rc_3", "registry.example/a/b_c/d--e:v1.2-rc_3"),
    ] {
        assert_eq!(tagged(image).as_deref(), Some(full), "{image}");
        assert_eq!(tagged(full).as_deref(), Some(full), "a full name is complete");
    }
    let (a, long) = (digest('a'), "a".repeat(129));
    for image in [
        "",
        ":1",
        "nginx:",
        "nginx:1:2",
        "nginx:-1",
        "Nginx",
        "registry.example/",
        "registry.example//app",
        "registry.example/app/:1",
        "registry.example/-app",
        "nginx 1",
        "nginx:1 ",
        &format!("nginx@{a}"),
        &format!("nginx:1@{a}"),
        &format!("nginx:{long}"),
        &"a".repeat(64),
        &format!("registry.example/{}", "a".repeat(250)),
    ] {
        assert_eq!(tagged(image), None, "'{image}'");
    }
}

fn approved(digests: &[&String], tags: &[(&str, &[&String])]) -> Approved {
    let set = |digests: &[&String]| digests.iter().map(|digest| (*digest).clone()).collect::<BTreeSet<_>>();
    Approved {
        // What a tag is replaced by is another test's.
        first: BTreeMap::new(),
        digests: set(digests),
        tags: tags.iter().map(|(tag, digests)| ((*tag).to_owned(), set(digests))).collect(),
    }
}

/// A list without what its tags are replaced by.
fn listed(list: Result<Approved, ListError>) -> Result<Approved, ListError> {
    list.map(|list| Approved { first: BTreeMap::new(), ..list })
}

#[test]
fn tag_is_replaced_by_the_first_digest_of_each_entry() {
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    for (text, expected) in [
        (format!("x:1 {b} {a}"), vec![&b]),
        (format!("x:1@{b} {a}\n{b} {c}"), vec![&b]),
        (format!("x:1 {b}\nx:1 {a} {c}"), vec![&a, &b]),
        (format!("y:1 {b}\n{a}"), vec![]),
    ] {
        let list = from_config_map(&config_map(&json!({"web": text}))).unwrap();
        let first: Vec<&String> = list.first_of_tag("docker.io/library/x:1").into_iter().flatten().collect();
        assert_eq!(first, expected, "{text}");
    }
}

#[test]
fn every_value_of_the_list_counts_and_comments_do_not() {
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    let data = json!({"web": format!("# the web\n{a}  # nginx\n\n  {b}\r\n"), "db": c});
    assert_eq!(listed(from_config_map(&config_map(&data))), Ok(approved(&[&a, &b, &c], &[])));
}

#[test]
fn an_entry_names_a_tag_and_the_digests_of_one_image() {
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    const X: &str = "docker.io/library/x:1";
    for (text, expected) in [
        (format!("x:1 {a}"), approved(&[&a], &[(X, &[&a])])),
        (format!("x:1@{a}"), approved(&[&a], &[(X, &[&a])])),
        (format!("docker.io/x:1   {a}\t{b} # both"), approved(&[&a, &b], &[(X, &[&a, &b])])),
        (format!("x:1@{a} {b}"), approved(&[&a, &b], &[(X, &[&a, &b])])),
        (format!("x {a}"), approved(&[&a], &[("docker.io/library/x:latest", &[&a])])),
        // Without a tag, a name by digest is of no tag.
        (format!("x@{a}"), approved(&[&a], &[])),
        (format!("{a} {b}"), approved(&[&a, &b], &[])),
        // A tag may stand for several images.
        (format!("x:1 {a}\nx:1 {b}"), approved(&[&a, &b], &[(X, &[&a, &b])])),
        // Digests that are one image are so under every tag.
        (format!("x:1 {a}\n{b} {a}\n{c}"), approved(&[&a, &b, &c], &[(X, &[&a, &b])])),
        // What two named images share does not make them one.
        (
            format!("x:1 {a} {b}\ny:1 {c} {b}"),
            approved(&[&a, &b, &c], &[(X, &[&a, &b]), ("docker.io/library/y:1", &[&b, &c])]),
        ),
    ] {
        assert_eq!(
            listed(from_config_map(&config_map(&json!({"web": text})))),
            Ok(expected.clone()),
            "{text}"
        );
        let entries: Vec<String> =
            text.lines().map(|line| line.split('#').next().unwrap_or_default().to_owned()).collect();
        assert_eq!(listed(inline(&entries)), Ok(expected), "{text}");
    }
}

#[test]
fn a_malformed_line_spoils_the_list_and_is_named() {
    let (a, b) = (digest('a'), digest('b'));
    for (line, culprit) in [
        ("sha256:abc".to_owned(), "'sha256:abc' is no sha256 digest"),
        ("nginx".to_owned(), "no sha256 digest follows 'nginx'"),
        ("nginx:1.27".to_owned(), "no sha256 digest follows 'nginx:1.27'"),
        (a.to_uppercase(), "is neither a sha256 digest nor an image"),
        ("a".repeat(64), "is neither a sha256 digest nor an image"),
        (format!("sha256:abc {a}"), "'sha256:abc' is no sha256 digest"),
        (format!("{a} nginx"), "'nginx' is no sha256 digest"),
        (format!("{a},{b}"), "is no sha256 digest"),
        (format!("nginx:1 {a} sha256:abc"), "'sha256:abc' is no sha256 digest"),
        (format!("nginx@sha256:abc {a}"), "'sha256:abc' is no sha256 digest"),
        (format!("@{a}"), "'' is neither a sha256 digest nor an image"),
        (format!("Nginx:1 {a}"), "'Nginx:1' is neither a sha256 digest nor an image"),
        (format!("nginx:1 latest {a}"), "'latest' is no sha256 digest"),
    ] {
        let data = json!({"db": digest('a'), "web": format!("{}\n{line}", digest('b'))});
        let Err(ListError::Malformed(message)) = from_config_map(&config_map(&data)) else {
            panic!("{line} was taken for an entry")
        };
        assert!(message.contains("key web, line 2") && message.contains(culprit), "{message}");
    }
    let binary = serde_json::from_value(json!({"binaryData": {"blob": "AAAA"}})).unwrap();
    assert_eq!(from_config_map(&binary), Err(ListError::Malformed("key blob is binary".into())));
    for entry in ["nginx", "", "# nothing"] {
        let Err(ListError::Malformed(message)) = inline(&[digest('a'), entry.into()]) else {
            panic!("taken")
        };
        assert!(message.contains("approved[1]: "), "{message}");
    }
}

#[test]
fn a_list_that_approves_nothing_is_no_list() {
    for data in [json!({}), json!({"web": ""}), json!({"web": "# nothing yet\n"})] {
        assert_eq!(from_config_map(&config_map(&data)), Err(ListError::Empty), "{data}");
    }
    assert_eq!(from_config_map(&ConfigMap::default()), Err(ListError::Empty));
    assert_eq!(inline(&[]), Err(ListError::Empty));
}

fn node(images: &serde_json::Value) -> Node {
    serde_json::from_value(json!({"metadata": {"name": "n1"}, "status": {"images": images}})).unwrap()
}

#[test]
fn a_node_says_which_digests_are_one_image_and_tags_say_nothing() {
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    let mut nodes = NodeImages::default();
    nodes.add(
        "n1",
        &node(&json!([
            {"names": [format!("r.example/x@{a}"), format!("mirror.example/x@{b}"), "r.example/x:1"], "sizeBytes": 1},
            {"names": [format!("r.example/y@{c}"), "r.example/x:1", a, format!("r.example/y@{}", "a".repeat(64))]},
            {"names": []}, {},
        ])),
    );
    nodes.add("n2", &Node::default());
    for (node, one, other, same) in [
        ("n1", &a, &b, true),
        ("n1", &b, &a, true),
        ("n1", &a, &c, false),
        ("n1", &b, &c, false),
        ("n2", &a, &b, false),
        ("", &a, &b, false),
    ] {
        assert_eq!(nodes.are_same(node, one, other), same, "{node} {one} {other}");
    }
}

fn pod(name: &str, node: &str, owner: &serde_json::Value, images: &[(&str, &str, &str)]) -> Pod {
    let containers: Vec<_> = images.iter().map(|(c, image, _)| json!({"name": c, "image": image})).collect();
    let statuses: Vec<_> = images
        .iter()
        .map(|(c, _, id)| json!({"name": c, "image": "x", "imageID": id, "ready": true, "restartCount": 0}))
        .collect();
    serde_json::from_value(json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"pod-template-hash": "5d8f"}, "ownerReferences": owner},
        "spec": {"nodeName": node, "containers": containers}, "status": {"containerStatuses": statuses},
    }))
    .unwrap()
}

#[test]
fn images_in_use_are_entries_of_a_list() {
    let (a, b, c) = (digest('a'), digest('b'), digest('c'));
    let owner = |kind: &str, name: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": "u", "controller": true}]);
    let (set, db) = (owner("ReplicaSet", "web-5d8f"), owner("StatefulSet", "db"));
    let mut nodes = NodeImages::default();
    nodes.add("n1", &node(&json!([{"names": [format!("r.example/db@{b}"), format!("r.example/db@{c}")]}])));
    let pods = [
        pod("web-1", "n1", &set, &[("c", "x:1", &a), ("d", "x:1", &a)]),
        pod("web-2", "n1", &set, &[("c", "x:1", &a), ("d", "x:1", "")]),
        pod("db-0", "n1", &db, &[("db", &format!("r.example/db:16@{b}"), &format!("r.example/db@{c}"))]),
        pod("db-1", "n2", &db, &[("db", &format!("r.example/db:16@{b}"), &format!("r.example/db@{c}"))]),
        pod("bare", "n1", &json!(null), &[("c", "x:1", &b), ("d", &format!("y@{c}"), "")]),
    ];
    assert_eq!(nodes_in_doubt(&pods), ["n1", "n2"].map(str::to_owned).into());
    assert_eq!(nodes_in_doubt(&pods[..2]), BTreeSet::new());
    let found = in_use(&pods, &nodes);
    let entries: Vec<_> = found
        .images
        .iter()
        .map(|image| format!("{} # {}", image.entry(), image.used_by.join("; ")))
        .collect();
    assert_eq!(
        entries,
        [
            format!("{c} # Pod shop/bare, container d"),
            format!(
                "docker.io/library/x:1 {a} # Deployment shop/web, container c; Deployment shop/web, container d"
            ),
            format!("docker.io/library/x:1 {b} # Pod shop/bare, container c"),
            format!("r.example/db:16 {b} # StatefulSet shop/db, container db"),
            format!("r.example/db:16 {b} {c} # StatefulSet shop/db, container db"),
        ]
    );
    let doubts: Vec<&str> =
        found.unresolved.iter().map(|doubt| doubt.split(": ").next().unwrap_or_default()).collect();
    assert_eq!(
        doubts,
        [
            "Deployment shop/web, container d",
            "StatefulSet shop/db, container db",
            "docker.io/library/x:1 stands for more than one digest",
        ]
    );
    let lists: Vec<String> = found.images.iter().map(ImageInUse::entry).collect();
    assert!(inline(&lists).is_ok(), "{lists:?}");
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
