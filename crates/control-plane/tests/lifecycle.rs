//! How a control plane ends: with the process that started it, whatever happens to that.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "helpers of tests are not recognised as tests")]

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use control_plane::{ControlPlane, Identity, Options, end};

/// Names the folder to the process that plays the parent.
const DIR: &str = "CONTROL_PLANE_TEST_DIR";

/// No test, but the process that the tests below start and end: this same program, told by the environment.
#[tokio::test]
async fn the_parent_that_is_to_be_killed() {
    if let Some(dir) = std::env::var_os(DIR) {
        let options = Options { dir: Some(dir.into()), nodes: 1, ..Options::default() };
        let _control_plane = ControlPlane::start(options).await.unwrap();
        println!("READY");
        std::future::pending::<()>().await;
    }
}

/// Starts that process, and returns it once its control plane is ready.
fn parent(dir: &Path) -> Child {
    let mut parent = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "the_parent_that_is_to_be_killed", "--nocapture"])
        .env(DIR, dir)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let output = BufReader::new(parent.stdout.take().unwrap());
    let ready = output.lines().map_while(Result::ok).any(|line| line.contains("READY"));
    assert!(ready, "the parent ended before it was ready");
    parent
}

/// The programs that run with `dir` in their command line.
fn components(dir: &Path) -> Vec<String> {
    let dir = dir.canonicalize().unwrap();
    let dir = dir.to_str().unwrap();
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = processes.filter_map(|process| std::fs::read(process.path().join("cmdline")).ok());
    let lines =
        lines.map(|line| String::from_utf8_lossy(&line).into_owned()).filter(|line| line.contains(dir));
    let program =
        |line: String| line.split('\0').next().and_then(|path| path.rsplit('/').next()).map(str::to_owned);
    let mut programs: Vec<String> = lines.filter_map(program).collect();
    programs.sort();
    programs
}

const ALL: [&str; 5] = ["etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok"];

fn gone_soon(dir: &Path) {
    let until = Instant::now() + Duration::from_secs(10);
    while !components(dir).is_empty() {
        assert!(Instant::now() < until, "still running: {:?}", components(dir));
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[tokio::test]
async fn every_component_is_gone_when_its_parent_was_killed() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = parent(dir.path());
    assert_eq!(components(dir.path()), ALL);
    // SIGKILL: no handler, no destructor, nothing of ours runs.
    parent.kill().unwrap();
    parent.wait().unwrap();
    gone_soon(dir.path());
    assert!(!end(dir.path()).await.unwrap(), "nobody is left to be ended");

    // The folder of the killed one can be used again; stopped in order, it leaves no process either.
    let options = Options { dir: Some(dir.path().to_owned()), nodes: 1, ..Options::default() };
    let control_plane = ControlPlane::start(options).await.unwrap();
    control_plane.check().unwrap();
    assert_eq!(components(dir.path()), ALL);
    control_plane.stop().await.unwrap();
    assert_eq!(components(dir.path()), [""; 0]);
    assert!(dir.path().join("audit/audit.log").exists(), "a folder that was given is kept");
}

#[tokio::test]
async fn a_control_plane_is_ended_by_its_folder() {
    let dir = tempfile::tempdir().unwrap();
    let mut parent = parent(dir.path());
    let reaper = std::thread::spawn(move || parent.wait());
    assert!(end(dir.path()).await.unwrap());
    reaper.join().unwrap().unwrap();
    gone_soon(dir.path());
}

#[tokio::test]
async fn a_temporary_folder_goes_with_its_control_plane() {
    let control_plane = ControlPlane::start(Options::default()).await.unwrap();
    let dir = control_plane.dir().to_owned();
    assert!(dir.exists());
    control_plane.stop().await.unwrap();
    assert!(!dir.exists());
}

#[tokio::test]
async fn a_running_control_plane_is_attached_to_and_not_ended() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = ControlPlane::attach(dir.path()).await.unwrap_err().to_string();
    assert!(
        nobody.contains("no cluster is running") && nobody.contains("cargo xtask cluster up"),
        "{nobody}"
    );

    let options = Options { dir: Some(dir.path().to_owned()), nodes: 1, ..Options::default() };
    let own = ControlPlane::start(options).await.unwrap();
    let attached = ControlPlane::attach(dir.path()).await.unwrap();
    assert_eq!(attached.api_servers(), own.api_servers());
    assert_eq!(attached.audit_log(), own.audit_log());
    assert_eq!(attached.binary("kubectl").unwrap(), own.binary("kubectl").unwrap());
    for who in Identity::ALL {
        attached.client(who).await.unwrap().apiserver_version().await.unwrap();
    }
    attached.kill();
    attached.stop().await.unwrap();
    own.check().unwrap();
    assert_eq!(components(dir.path()), ALL);
}
