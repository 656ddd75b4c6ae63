//! The real Velero, with its S3 plugin and a real S3 server, as a process beside the control plane.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use control_plane::{ControlPlane, Identity};
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::PostParams;
use kube::config::Kubeconfig;
use kube::{Api, Client};
use rehearsal::{DEADLINE, S3Server, apply, condition, documents, eventually, kind, text};
use serde_json::{Value, json};

/// Namespace of Velero.
pub const NAMESPACE: &str = "velero";
pub const API_VERSION: &str = "velero.io/v1";
const SECRET_KEY: &str = "secret-of-the-backup-store";
const BUCKET: &str = "backups";

/// A server of Velero. Dropped, it is killed, and its store with it.
pub struct Velero {
    child: Child,
    _store: S3Server,
}

impl Drop for Velero {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The ClusterRole that docs/steps.md has for Velero's account instead of `cluster-admin`.
fn documented_role() -> Vec<Value> {
    let page = std::fs::read_to_string(rehearsal::repository("docs/steps.md")).unwrap();
    let block = page.split("```yaml\n").find(|block| block.contains("name: velero-server")).unwrap();
    documents(block.split("```").next().unwrap()).unwrap()
}

/// Installs the kinds of Velero, as its module has them.
async fn install_kinds(admin: &Client) {
    let source = tokio::task::spawn_blocking(|| control_plane::part_source("velero")).await.unwrap().unwrap();
    let mut crds = Vec::new();
    for version in ["v1", "v2alpha1"] {
        for file in std::fs::read_dir(source.join("config/crd").join(version).join("bases")).unwrap() {
            crds.extend(documents(&std::fs::read_to_string(file.unwrap().path()).unwrap()).unwrap());
        }
    }
    apply(admin, "velero", &crds).await.unwrap();
    let all = kind(admin, "apiextensions.k8s.io/v1", "CustomResourceDefinition", None);
    for crd in &crds {
        let name = text(crd, "/metadata/name");
        let served = |crd: &Value| condition(crd, "Established") == "True";
        eventually(&all, name, &format!("{name} to be served"), DEADLINE, served).await.unwrap();
    }
}

impl Velero {
    /// Starts it, and waits until its store is available. `programs`: of Velero, its plugin, and the S3 server.
    pub async fn start(cluster: &ControlPlane, programs: &[std::path::PathBuf; 3]) -> Velero {
        let [server, plugin, s3] = programs;
        let admin = cluster.client(Identity::PlatformAdministrator).await.unwrap();
        install_kinds(&admin).await;
        let folder = cluster.dir().join("velero");
        let plugins = folder.join("plugins");
        std::fs::create_dir_all(&plugins).unwrap();
        std::fs::copy(plugin, plugins.join("velero-plugin-for-aws")).unwrap();
        // A bucket of this server is a folder.
        std::fs::create_dir_all(folder.join("s3/objects").join(BUCKET)).unwrap();
        let store = S3Server::start(s3, &folder.join("s3"), "access", SECRET_KEY).unwrap();
        let mut manifests = documented_role();
        manifests.extend(installed(&store.url()));
        apply(&admin, "platform", &manifests).await.unwrap();

        let kubeconfig = folder.join("kubeconfig");
        write_kubeconfig(cluster, &admin, &kubeconfig).await;
        let log = std::fs::File::create(folder.join("velero.log")).unwrap();
        let mut command = Command::new(server);
        command
            .args(["server", "--namespace", NAMESPACE, "--plugin-dir"])
            .arg(&plugins)
            .args(["--metrics-address=127.0.0.1:0", "--profiler-address=127.0.0.1:0"])
            .args(["--store-validation-frequency=5s", "--backup-sync-period=5s"])
            .arg("--item-operation-sync-frequency=2s")
            .env("KUBECONFIG", kubeconfig)
            .env("HOME", &folder)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let child = control_plane::spawn_bound(command).unwrap();
        let velero = Velero { child, _store: store };
        let locations = kind(&admin, API_VERSION, "BackupStorageLocation", Some(NAMESPACE));
        let available = |location: &Value| text(location, "/status/phase") == "Available";
        eventually(&locations, "default", "the store to be available", DEADLINE, available).await.unwrap();
        velero
    }
}

/// What `velero install` puts there, but for its rights, and with no pod.
fn installed(store: &str) -> Vec<Value> {
    let credentials = format!("[default]\naws_access_key_id=access\naws_secret_access_key={SECRET_KEY}\n");
    let labels = json!({"deploy": "velero"});
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "velero", "namespace": NAMESPACE}}),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "cloud-credentials", "namespace": NAMESPACE},
            "stringData": {"cloud": credentials}}),
        // Velero reads its own Deployment when it restores pods.
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "velero", "namespace": NAMESPACE},
            "spec": {"replicas": 0, "selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels},
                "spec": {"containers": [{"name": "velero", "image": "registry.example/velero"}]}}}}),
        json!({"apiVersion": API_VERSION, "kind": "BackupStorageLocation", "metadata": {"name": "default", "namespace": NAMESPACE},
            "spec": {"provider": "aws", "default": true, "objectStorage": {"bucket": BUCKET},
                "credential": {"name": "cloud-credentials", "key": "cloud"},
                "config": {"region": "us-east-1", "s3ForcePathStyle": "true", "s3Url": store, "checksumAlgorithm": ""}}}),
    ]
}

/// Writes a kubeconfig with a token of Velero's account.
async fn write_kubeconfig(cluster: &ControlPlane, admin: &Client, path: &Path) {
    let accounts: Api<ServiceAccount> = Api::namespaced(admin.clone(), NAMESPACE);
    let request: TokenRequest =
        serde_json::from_value(json!({"spec": {"audiences": [], "expirationSeconds": 86400}})).unwrap();
    let token = accounts.create_token_request("velero", &PostParams::default(), &request).await.unwrap();
    let mut kubeconfig = Kubeconfig::read_from(cluster.kubeconfig(Identity::PlatformAdministrator)).unwrap();
    for user in &mut kubeconfig.auth_infos {
        user.auth_info =
            Some(serde_json::from_value(json!({"token": token.status.as_ref().unwrap().token})).unwrap());
    }
    std::fs::write(path, serde_yaml::to_string(&kubeconfig).unwrap()).unwrap();
}
