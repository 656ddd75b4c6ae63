use std::path::PathBuf;

use resurgam_core::baseline::{Baseline, Marks, Source, observe};
use serde_json::json;

use super::*;

fn inventory(image: &str) -> Baseline {
    let raw = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}),
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"template": {"spec": {"containers": [{"name": "main", "image": image}]}}}}),
    ];
    let objects = observe(raw, &Marks::default()).objects;
    capture::baseline(Source::Cluster, vec!["shop".into()], objects, Vec::new(), None, true)
}

#[derive(clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

/// Runs one command line, and returns the exit code as text.
fn resurgam(arguments: &[&str]) -> String {
    use clap::Parser;
    let line = Line::try_parse_from([&["baseline"], arguments].concat()).unwrap();
    match run(&line.args) {
        Ok(code) => format!("{code:?}"),
        Err(error) => format!("{error:#}"),
    }
}

#[test]
fn an_inventory_is_signed_by_two_verified_and_compared() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    std::fs::write(path("a.json"), serde_json::to_string(&inventory("good")).unwrap()).unwrap();
    std::fs::write(path("b.json"), serde_json::to_string(&inventory("implant")).unwrap()).unwrap();
    let (yes, no) = (format!("{:?}", ExitCode::SUCCESS), format!("{:?}", ExitCode::FAILURE));
    for name in ["one", "two"] {
        assert_eq!(resurgam(&["keygen", "-o", &path(name)]), yes);
        let pem = std::fs::read_to_string(path(name)).unwrap();
        let public = crate::baseline::SigningKey::from_pem(&pem).unwrap().public().to_pem();
        std::fs::write(path(&format!("{name}.pub")), public).unwrap();
    }
    assert!(resurgam(&["keygen", "-o", &path("one")]).contains("exists"), "no key is overwritten");
    assert_eq!(resurgam(&["sign", &path("a.json"), "--key", &path("one"), "-o", &path("a.dsse")]), yes);
    let verify = |keys: &[&str]| {
        let keys: Vec<String> =
            keys.iter().flat_map(|key| ["--key".to_owned(), path(&format!("{key}.pub"))]).collect();
        let (verify, file) = ("verify", path("a.dsse"));
        let line: Vec<&str> = [verify, &file].into_iter().chain(keys.iter().map(String::as_str)).collect();
        resurgam(&line)
    };
    assert_eq!(
        (verify(&["one"]), verify(&["two"]), verify(&["one", "two"])),
        (yes.clone(), no.clone(), no.clone())
    );
    assert_eq!(resurgam(&["sign", &path("a.dsse"), "--key", &path("two"), "-o", &path("a.dsse")]), yes);
    assert_eq!(verify(&["one", "two"]), yes);
    let both = ["diff", &path("a.dsse"), &path("b.json"), "--key", &path("one.pub")];
    assert_eq!(resurgam(&both), no);
    assert_eq!(resurgam(&["diff", &path("a.dsse"), &path("a.json")]), yes);
    // What is not signed is not compared where a key is asked for.
    assert!(
        resurgam(&["diff", &path("b.json"), &path("a.json"), "--key", &path("one.pub")])
            .contains("it is not signed")
    );
    let text = std::fs::read_to_string(path("a.dsse")).unwrap();
    std::fs::write(path("a.dsse"), text.replacen("\"sig\":\"", "\"sig\":\"AAAA", 2)).unwrap();
    assert_eq!(verify(&["one"]), no, "a signature was changed");
}

#[test]
fn config_maps_hold_what_the_gate_reads() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    let text = |path: PathBuf| path.display().to_string();
    std::fs::write(path("a.json"), serde_json::to_string(&inventory("good")).unwrap()).unwrap();
    resurgam(&["keygen", "-o", &text(path("one"))]);
    let (file, key, maps) = (text(path("a.json")), text(path("one")), text(path("maps.yaml")));
    let line = ["sign", &file, "--key", &key, "--config-map", "recovery/approved", "-o", &maps];
    assert_eq!(resurgam(&line), format!("{:?}", ExitCode::SUCCESS));
    let yaml = std::fs::read_to_string(path("maps.yaml")).unwrap();
    let map: k8s_openapi::api::core::v1::ConfigMap = serde_yaml::from_str(&yaml).unwrap();
    assert_eq!(map.metadata.name.as_deref(), Some("approved"));
    let part = crate::baseline::packed::part(&map).unwrap().to_vec();
    let envelope = crate::baseline::packed::unpacked(part).unwrap();
    assert!(resurgam_core::baseline::envelope::Envelope::parse(&envelope).is_ok());
    // The command reads them, too.
    let public = crate::baseline::SigningKey::from_pem(&std::fs::read_to_string(path("one")).unwrap());
    std::fs::write(path("one.pub"), public.unwrap().public().to_pem()).unwrap();
    let public = text(path("one.pub"));
    for line in [&["verify", &maps, "--key", &public][..], &["diff", &maps, &file]] {
        assert_eq!(resurgam(line), format!("{:?}", ExitCode::SUCCESS), "{line:?}");
    }
}
