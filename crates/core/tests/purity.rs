//! The core cannot do I/O, as nothing that it is built of can.

use std::process::Command;

/// What would open that door: clients, runtimes, TLS, HTTP, storage.
const FORBIDDEN: [&str; 11] = [
    "aws-lc-rs",
    "hyper",
    "kube-client",
    "kube-runtime",
    "mio",
    "object_store",
    "reqwest",
    "ring",
    "rustls",
    "socket2",
    "tokio",
];

#[test]
fn core_is_built_of_nothing_that_does_io() {
    for package in ["resurgam-api", "resurgam-core"] {
        let mut tree = Command::new(env!("CARGO"));
        tree.args(["tree", "--locked", "--offline", "--package", package]);
        tree.args(["--edges", "normal", "--prefix", "none", "--format", "{p}"]);
        let output = tree.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = String::from_utf8(output.stdout).unwrap();
        let names: Vec<&str> = output.lines().filter_map(|line| line.split(' ').next()).collect();
        assert!(names.contains(&"k8s-openapi"), "{package}: {output}");
        for name in FORBIDDEN {
            assert!(
                !names.contains(&name),
                "{package} is built of {name}: cargo tree -p {package} -i {name}"
            );
        }
    }
}
