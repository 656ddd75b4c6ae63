//! What Helm makes of the chart's values.

use std::collections::BTreeSet;
use std::process::Command;

use rehearsal::repository;
use serde_json::Value;

/// Runs Helm, and returns what it says: `Err` what it says instead.
fn helm(arguments: &[&str]) -> Result<String, String> {
    let mut helm = Command::new(control_plane::part("helm").unwrap());
    let output = helm.args(arguments).env_remove("KUBECONFIG").output().unwrap();
    let said = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(said(output.stdout)) } else { Err(said(output.stderr)) }
}

fn template(namespace: &str, more: &[&str]) -> Result<String, String> {
    let chart = repository("charts/resurgam");
    let chart = chart.to_str().unwrap();
    helm(&[&["template", "resurgam", chart, "--namespace", namespace][..], more].concat())
}

fn of<'a>(all: &'a [Value], kind: &str, name: &str) -> &'a Value {
    all.iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .unwrap_or_else(|| panic!("no {kind} {name}"))
}

#[test]
fn another_namespace_is_refused_with_a_sentence() {
    let refused = template("default", &[]).unwrap_err();
    assert!(refused.contains("installed into namespace resurgam-system and no other"), "{refused}");
}

#[test]
fn a_value_that_nobody_knows_is_refused() {
    for (set, said) in [
        ("replica=2", "additional properties 'replica' not allowed"),
        ("image.pullPolicy=Sometimes", "image/pullPolicy"),
        ("evidence.recipients={alice}", "evidence/recipients"),
        ("leaseDuration=soon", "leaseDuration"),
        ("replicas=3", "set evidence.s3.bucket"),
    ] {
        let refused = template("resurgam-system", &["--set", set]).unwrap_err();
        assert!(refused.contains(said), "{set}: {refused}");
    }
}

/// Every value that is not a map of its own, as templates name it.
fn leaves(values: &Value, at: &str, into: &mut BTreeSet<String>) {
    match values.as_object() {
        Some(fields) if !fields.is_empty() => {
            for (key, value) in fields {
                leaves(value, &format!("{at}.{key}"), into);
            }
        }
        _ => _ = into.insert(at.to_owned()),
    }
}

#[test]
fn each_value_is_used_and_each_that_is_used_exists() {
    let values = &rehearsal::read("charts/resurgam/values.yaml").unwrap()[0];
    let mut known = BTreeSet::new();
    leaves(values, ".Values", &mut known);
    let mut text = String::new();
    let mut folders = vec![repository("charts/resurgam/templates")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else {
                text += &std::fs::read_to_string(path).unwrap();
            }
        }
    }
    // One template has a map of them in a variable.
    let text = text.replace("$s3.", ".Values.evidence.s3.").replace("$.Values", ".Values");
    let used: BTreeSet<String> = text
        .split(".Values")
        .skip(1)
        .map(|rest| {
            let end = rest.find(|c: char| !c.is_alphanumeric() && c != '.').unwrap_or(rest.len());
            format!(".Values{}", rest[..end].trim_end_matches('.'))
        })
        .collect();
    let is_used =
        |value: &String| used.iter().any(|used| used == value || value.starts_with(&format!("{used}.")));
    // A whole map that is handed on counts; the one that is only there to be in the variable does not.
    let unused: Vec<_> = known.iter().filter(|value| !is_used(value)).collect();
    assert!(unused.is_empty(), "no template uses {unused:?}");
    let unknown: Vec<_> = used
        .iter()
        .filter(|used| !known.iter().any(|known| known == *used || known.starts_with(&format!("{used}."))))
        .collect();
    assert!(unknown.is_empty(), "templates use what values.yaml does not have: {unknown:?}");
}

#[test]
fn two_operators_share_a_bucket_and_one_has_a_volume() {
    let alone = rehearsal::chart(&[]).unwrap();
    let operator = of(&alone, "Deployment", "resurgam");
    assert_eq!(operator["spec"]["replicas"], 1);
    assert_eq!(operator["spec"]["strategy"]["type"], "Recreate");
    assert_eq!(
        of(&alone, "PersistentVolumeClaim", "resurgam-evidence")["spec"]["accessModes"][0],
        "ReadWriteOnce"
    );
    let shared = rehearsal::chart(&[
        "evidence.s3.bucket=council",
        "evidence.s3.prefix=evidence",
        "evidence.s3.region=eu-west-2",
        "evidence.s3.endpoint=https://minio.example:9000",
        "evidence.s3.credentialsSecret=bucket",
    ])
    .unwrap();
    let operator = of(&shared, "Deployment", "resurgam");
    assert_eq!(operator["spec"]["replicas"], 2);
    assert!(!shared.iter().any(|object| object["kind"] == "PersistentVolumeClaim"));
    let container = &operator["spec"]["template"]["spec"]["containers"][0];
    let arguments = container["args"].as_array().unwrap();
    assert!(arguments.contains(&"--evidence=s3://council/evidence".into()), "{arguments:?}");
    let from = |name: &str| {
        container["env"].as_array().unwrap().iter().find(|env| env["name"] == name).unwrap().clone()
    };
    assert_eq!(from("AWS_SECRET_ACCESS_KEY")["valueFrom"]["secretKeyRef"]["name"], "bucket");
    assert_eq!(from("AWS_ENDPOINT_URL")["value"], "https://minio.example:9000");
}

#[test]
fn secrets_are_read_only_where_a_key_for_digests_is_given() {
    let reads =
        |all: &[Value]| of(all, "ClusterRole", "resurgam-operator").to_string().contains("\"secrets\"");
    assert!(!reads(&rehearsal::chart(&[]).unwrap()));
    assert!(reads(&rehearsal::chart(&["evidence.digestKeySecret=key"]).unwrap()));
}

#[test]
fn the_kinds_stay_unless_a_value_says_what_it_destroys() {
    let kept = |values: &[&str]| {
        let all = rehearsal::chart(values).unwrap();
        let crds: Vec<_> = all.into_iter().filter(|o| o["kind"] == "CustomResourceDefinition").collect();
        assert!(crds.len() == 5 || crds.is_empty());
        crds.iter().filter(|crd| crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep").count()
    };
    assert_eq!(kept(&[]), 5);
    assert_eq!(kept(&["crds.deleteEveryQuarantineOnUninstall=true"]), 0);
    assert_eq!(kept(&["crds.enabled=false"]), 0);
}

#[test]
fn no_admission_policy_is_an_object_of_the_chart() {
    let all = rehearsal::chart(&[]).unwrap();
    assert!(all.iter().all(|o| o["apiVersion"] != "admissionregistration.k8s.io/v1"));
}

#[test]
fn the_operator_takes_every_argument_that_the_chart_gives() {
    let all = rehearsal::chart(&[
        "evidence.recipients={age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p}",
        "evidence.digestKeySecret=key",
        "gates.httpAllow={127.0.0.0/8}",
        "steps.ociAllow={registry.example/team/}",
        "isolation.acceptNetworkPolicies={b8e2/3}",
        "isolation.apiServerRoutes={192.0.2.1:6443=https://master.example}",
    ])
    .unwrap();
    let container = &of(&all, "Deployment", "resurgam")["spec"]["template"]["spec"]["containers"][0];
    let mut resurgam = Command::new(env!("CARGO_BIN_EXE_resurgam"));
    for argument in container["args"].as_array().unwrap() {
        resurgam.arg(argument.as_str().unwrap());
    }
    // Read from left to right: what comes before the help was understood.
    let output = resurgam.arg("--help").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn the_notes_say_what_to_run_next() {
    let chart = repository("charts/resurgam");
    let chart = chart.to_str().unwrap();
    // As an installation would print them: a dry-run of one that asks no cluster.
    let notes = |more: &[&str]| {
        let arguments = ["install", "resurgam", chart, "--namespace", "resurgam-system", "--dry-run=client"];
        let said = helm(&[&arguments[..], more].concat()).unwrap();
        said.split("NOTES:\n").nth(1).unwrap().to_owned()
    };
    insta::assert_snapshot!("notes", notes(&[]));
    let people = [
        "--set",
        "people.responders[0].kind=Group,people.responders[0].name=on-call",
        "--set",
        "people.recoveryLeads[0].kind=User,people.recoveryLeads[0].name=alice",
    ];
    insta::assert_snapshot!("notes_with_people", notes(&people));
}
