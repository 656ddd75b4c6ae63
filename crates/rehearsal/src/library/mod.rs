//! A library on the real node: its PostgreSQL database with a volume, and its web catalogue that reads it; an attacker, on-call staff, a
//! recovery, and a visitor that connects continuously.

mod images;
mod story;
mod visits;

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use kube::Client;
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::wait::{DEADLINE, condition, eventually, field, is_running, kind, text};
use crate::{apply, documents};
use images::Images;

pub use images::{lacks, postgres_image, programs};
pub use story::{BaselineState, IsolatedSince};
pub use visits::{Visit, Visits, opened_at};

/// Namespace of the database.
pub const DATABASE: &str = "library-db";
/// Namespace of the catalogue.
pub const CATALOGUE: &str = "library-web";
/// Namespace of the plan.
pub const NAMESPACE: &str = "recovery";
/// Name of the plan.
pub const PLAN: &str = "library";
const KINDS: &str = "resurgam.dev/v1alpha1";
/// Address of the catalogue: the Service's address and port in estate.yaml.
const ADDRESS: &str = "10.96.0.80:80";
/// Timeout of a request to the catalogue.
const ANSWER: Duration = Duration::from_secs(10);

/// The library on a real node.
pub struct Library<'a> {
    cluster: &'a ControlPlane,
    images: Images,
}

impl<'a> Library<'a> {
    /// Builds the images, deploys the library, and waits until it runs.
    ///
    /// # Errors
    /// An image cannot be made, the API server refused something, or something did not start.
    pub async fn lay_down(cluster: &'a ControlPlane) -> Result<Self> {
        let images = Images::import(cluster)?;
        let volume = cluster.dir().join("node/library");
        std::fs::create_dir_all(&volume)?;
        let estate = include_str!("estate.yaml")
            .replace("VOLUME", &volume.to_string_lossy())
            .replace("PGBIN", &images.programs.to_string_lossy())
            .replace("image: POSTGRES", &format!("image: {}", images.postgres))
            .replace("image: CATALOGUE", &format!("image: {}", images.catalogue));
        let digest =
            |image: &str| image.rsplit_once('@').map(|(_, digest)| digest.to_owned()).unwrap_or_default();
        let approved = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "approved-images", "namespace": NAMESPACE},
            "data": {"images": format!("{}\n{}\n", digest(&images.postgres), digest(&images.catalogue))},
        });
        let admin = cluster.client(Identity::PlatformAdministrator).await?;
        apply(&admin, "platform", &documents(&estate)?).await?;
        apply(&admin, "platform", &documents(include_str!("access.yaml"))?).await?;
        apply(&admin, "platform", &[approved]).await?;
        let library = Self { cluster, images };
        library.is_up(&admin).await?;
        let visitor = |pod: &Value| is_running("Pod", pod);
        let visitors = kind(&admin, "v1", "Pod", Some("visitors"));
        eventually(&visitors, "visitor", "the visitor to be on the way", DEADLINE, visitor).await?;
        library.sql("CREATE TABLE book (title text)").await?;
        Ok(library)
    }

    async fn is_up(&self, client: &Client) -> Result<()> {
        for (kind_, name, namespace) in
            [("StatefulSet", "postgres", DATABASE), ("Deployment", "catalogue", CATALOGUE)]
        {
            let api = kind(client, "apps/v1", kind_, Some(namespace));
            let what = format!("{kind_} {namespace}/{name} to run");
            eventually(&api, name, &what, DEADLINE, |object| is_running(kind_, object)).await?;
        }
        Ok(())
    }

    /// Runs an SQL command in the database's pod, and returns its output.
    ///
    /// # Errors
    /// The pod does not exist, or the command fails.
    pub async fn sql(&self, command: &str) -> Result<String> {
        let kubeconfig = self.cluster.kubeconfig(Identity::PlatformAdministrator);
        let mut kubectl = tokio::process::Command::new(self.cluster.binary("kubectl")?);
        kubectl.env("KUBECONFIG", kubeconfig).args([
            "exec",
            "--namespace",
            DATABASE,
            "postgres-0",
            "--",
            "psql",
        ]);
        kubectl.args([
            "--host=127.0.0.1",
            "--username=library",
            "--dbname=postgres",
            "--no-psqlrc",
            "--quiet",
        ]);
        kubectl
            .args(["--tuples-only", "--no-align", "--command", command])
            .stdin(Stdio::null())
            .kill_on_drop(true);
        let output = tokio::time::timeout(DEADLINE, kubectl.output()).await.context("psql did not end")??;
        let complaint = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "psql: {}", complaint.trim());
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// Adds a book.
    ///
    /// # Errors
    /// As of [`Library::sql`].
    pub async fn add(&self, title: &str) -> Result<()> {
        self.sql(&format!("INSERT INTO book VALUES ('{}')", title.replace('\'', "''"))).await.map(drop)
    }

    /// Returns the identity of this database cluster, which a new one would not have.
    ///
    /// # Errors
    /// As of [`Library::sql`].
    pub async fn identity(&self) -> Result<String> {
        self.sql("SELECT system_identifier FROM pg_control_system()").await
    }

    /// Returns the catalogue's answer: the status line, and the books.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn books(&self) -> Result<(String, Vec<String>)> {
        let asked = async {
            let mut stream = tokio::net::TcpStream::connect(ADDRESS).await?;
            stream.write_all(b"GET / HTTP/1.1\r\nHost: catalogue\r\nConnection: close\r\n\r\n").await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            anyhow::Ok(answer)
        };
        let answer = tokio::time::timeout(ANSWER, asked).await.context("the catalogue does not answer")?;
        let answer = answer.context("the catalogue does not answer")?;
        let (head, body) = answer.split_once("\r\n\r\n").context("the catalogue answers without a body")?;
        let status = head.lines().next().unwrap_or_default();
        Ok((status.to_owned(), body.lines().map(str::to_owned).collect()))
    }

    /// Replaces the catalogue's image by a tampered one as the attacker, and waits until it runs.
    ///
    /// # Errors
    /// The API server denied it, or the image does not start.
    pub async fn tamper(&self) -> Result<()> {
        let attacker = self.cluster.client(Identity::TenantAdministrator).await?;
        self.run(&attacker, &self.images.tampered).await?;
        let rolled_out = |object: &Value| {
            let all = ["/status/replicas", "/status/updatedReplicas", "/status/readyReplicas"];
            let is_observed =
                field(object, "/status/observedGeneration") == field(object, "/metadata/generation");
            is_observed && all.iter().all(|at| field(object, at) == 1)
        };
        let deployments = kind(&attacker, "apps/v1", "Deployment", Some(CATALOGUE));
        eventually(&deployments, "catalogue", "the implant to run", DEADLINE, rolled_out).await?;
        Ok(())
    }

    /// Restores the approved image as the recovery lead, with the verb `repair`.
    ///
    /// # Errors
    /// The API server refused it.
    pub async fn repair(&self) -> Result<()> {
        let lead = self.cluster.client(Identity::RecoveryLead).await?;
        self.run(&lead, &self.images.catalogue).await
    }

    async fn run(&self, client: &Client, image: &str) -> Result<()> {
        let template = json!({"spec": {"containers": [{"name": "catalogue", "image": image}]}});
        let patch = json!({"spec": {"template": template}});
        let deployments = kind(client, "apps/v1", "Deployment", Some(CATALOGUE));
        deployments.patch("catalogue", &PatchParams::default(), &Patch::Strategic(patch)).await?;
        Ok(())
    }

    /// Isolates both namespaces as on-call staff, and waits until they are isolated. Returns the Quarantines.
    ///
    /// # Errors
    /// The API server denied it, or the namespaces are not isolated in time.
    pub async fn isolate(&self, level: &str) -> Result<Vec<Value>> {
        let responder = self.cluster.client(Identity::Responder).await?;
        let quarantines = kind(&responder, KINDS, "Quarantine", None);
        let of = |name: &str| {
            json!({
                "apiVersion": KINDS, "kind": "Quarantine", "metadata": {"name": name},
                "spec": {"isolation": level, "reason": "unusual activity in the shared network"},
            })
        };
        let mut isolated = Vec::new();
        apply(&responder, "on-call", &[of(DATABASE), of(CATALOGUE)]).await?;
        for namespace in [DATABASE, CATALOGUE] {
            let what = format!("Quarantine {namespace} to be {level}");
            let stands = |q: &Value| condition(q, "Ready") == "True" && text(q, "/status/isolation") == level;
            isolated.push(eventually(&quarantines, namespace, &what, DEADLINE, stands).await?);
        }
        Ok(isolated)
    }

    /// Applies the Incident and the plan as GitOps, which arms the plan. Returns the plan as YAML.
    ///
    /// # Errors
    /// The API server refused something.
    pub async fn arm(&self) -> Result<&'static str> {
        let gitops = self.cluster.client(Identity::GitOps).await?;
        let incident = json!({
            "apiVersion": KINDS, "kind": "Incident", "metadata": {"name": "nov-2025"},
            "spec": {"title": "Unusual activity in the shared network", "compromisedSince": "2025-11-10T00:00:00Z"},
        });
        apply(&gitops, "gitops", &[incident]).await?;
        let plan = include_str!("plan.yaml");
        apply(&gitops, "gitops", &documents(plan)?).await?;
        Ok(plan)
    }

    /// Returns the visitor's log so far.
    ///
    /// # Errors
    /// The visitor's log cannot be read.
    pub async fn visits(&self) -> Result<Visits> {
        Visits::read(&self.cluster.client(Identity::PlatformAdministrator).await?).await
    }

    /// Returns the pods of a namespace that the API server reports, and its running containers that the node reports.
    ///
    /// # Errors
    /// The API server or the node cannot be queried.
    pub async fn running(&self, namespace: &str) -> Result<(Vec<String>, Vec<String>)> {
        let admin = self.cluster.client(Identity::PlatformAdministrator).await?;
        let pods = kind(&admin, "v1", "Pod", Some(namespace)).list(&ListParams::default()).await?;
        let names = pods.items.into_iter().filter_map(|pod| pod.metadata.name).collect();
        Ok((names, self.cluster.running_containers(namespace)?))
    }
}

/// Returns name, state and message of each control of a Quarantine.
#[must_use]
pub fn controls(quarantine: &Value) -> Vec<[&str; 3]> {
    let controls = field(quarantine, "/status/controls").as_array();
    let of = |control| ["/name", "/state", "/message"].map(|at| text(control, at));
    controls.into_iter().flatten().map(of).collect()
}
