//! What is wrong with an operator's surroundings is told at start, before it reports ready.

use std::process::Command;

#[test]
fn operator_without_certificate_authorities_ends_at_start() {
    let nowhere = tempfile::tempdir().unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_resurgam"))
        .args(["controller", "--listen", "127.0.0.1:0", "--evidence", "/dev/null"])
        .env("SSL_CERT_FILE", nowhere.path().join("none.crt"))
        .env("SSL_CERT_DIR", nowhere.path())
        // Were a cluster asked first, this would be the error.
        .env("KUBECONFIG", nowhere.path().join("none"))
        .output()
        .unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    let said: Vec<&str> = stderr.lines().filter(|line| line.starts_with("resurgam: ")).collect();
    insta::assert_snapshot!("operator_without_certificate_authorities", said.join("\n"));
}
