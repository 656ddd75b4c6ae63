//! Three boroughs restore: `examples/three-boroughs/restore`. Two services come back from a backup by Velero, one by a Job that loads, and
//! one is handed back to Flux; Velero and Flux are the real ones.

mod proof;

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use control_plane::{ControlPlane, Identity};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::three_boroughs::{self as boroughs, NAMESPACE, PLAN};
use crate::wait::{DEADLINE, condition, eventually, field, kind, object, of_condition, text};
use crate::{
    Endpoint, GitServer, Line, Operator, OperatorOptions, apply, decisions_needed, documents, flux, read,
    repository, velero,
};

const AT: &str = "examples/three-boroughs/restore";
const KINDS: &str = "resurgam.dev/v1alpha1";
const BACKUP: &str = "weekly-20251116";
/// Name of the GitRepository and of the Kustomization.
const LIBRARIES: &str = "wcc-libraries";
/// File in Git with what Flux delivers.
const LINKS: &str = "links.yaml";
/// Stands for the revision in the plan's file.
const REVISION: &str = "main@sha1:0123456789012345678901234567890123456789";
/// Services that are rebuilt from the backup, each beside the namespace of its own name.
const REBUILT: [&str; 2] = ["wcc-planning", "rbkc-elections"];
/// What the attacker deletes: API version, kind, namespace and name.
const DELETED: [[&str; 4]; 2] = [
    ["apps/v1", "Deployment", "wcc-planning", "applications"],
    ["v1", "ConfigMap", "wcc-planning", "conservation-areas"],
];

/// Third-party programs that restore.
#[derive(Clone, Debug)]
pub struct Programs {
    velero: velero::Programs,
    flux: flux::Programs,
}

impl Programs {
    /// Returns the programs, if they are built already.
    ///
    /// # Errors
    /// As [`control_plane::part_if_built`].
    pub fn if_built() -> Result<Option<Self>> {
        let (velero, flux) = (velero::Programs::if_built()?, flux::Programs::if_built()?);
        Ok(velero.zip(flux).map(|(velero, flux)| Self { velero, flux }))
    }

    /// Returns the programs, built first if they are missing.
    ///
    /// # Errors
    /// One cannot be built.
    pub fn build() -> Result<Self> {
        Ok(Self { velero: velero::Programs::build()?, flux: flux::Programs::build()? })
    }
}

/// One run of the story.
pub struct Restoration<'a> {
    /// The cluster, with the product installed.
    pub cluster: &'a ControlPlane,
    /// The binary under test.
    pub binary: &'a Path,
    /// Velero and Flux.
    pub programs: &'a Programs,
    /// Who listens.
    pub tell: &'a (dyn Fn(Line) + Sync),
}

/// The end of the story, with everything still running.
pub struct Restored {
    /// The operator.
    pub operator: Operator,
    /// The plan as the API server has it, for the judge.
    pub plan: String,
    /// What restores, and what gates ask: it ends when dropped.
    pub tools: Tools,
}

/// What restores, and what gates ask. Dropped, they end.
pub struct Tools {
    git: GitServer,
    endpoint: Endpoint,
    _velero: velero::Velero,
    _flux: [flux::FluxController; 2],
}

impl Restoration<'_> {
    /// Plays it.
    ///
    /// # Errors
    /// Something did not come to pass in time, was refused, or is not what it was before.
    pub async fn play(&self) -> Result<Restored> {
        let admin = self.cluster.client(Identity::PlatformAdministrator).await?;
        self.scene(
            "Three boroughs share a cluster. Flux delivers the libraries from Git, Velero backs two services up",
        );
        boroughs::lay_down(self.cluster, false).await?;
        let tools = self.start_tools(&admin).await?;
        self.deliver(&admin, &tools.git).await?;
        let since = self.back_up(&admin).await?;
        let before = proof::Contents::look(&admin, &REBUILT).await?;

        self.scene("The attacker comes");
        wait_until(since).await;
        self.attack(&admin, &tools.git).await?;
        let attacked = proof::Contents::look(&admin, &REBUILT).await?;
        ensure!(attacked.differs_from(&before), "the attacker changed nothing of {REBUILT:?}");

        self.scene("On-call staff isolate everything");
        // Nobody starts it again: it must not lose its lease on a busy machine.
        let options =
            OperatorOptions { lease_seconds: 15, ..OperatorOptions::within(self.cluster, self.binary) };
        let mut operator = Operator::start(self.cluster, &options)?;
        let namespaces = boroughs::isolate(self.cluster).await?;
        for namespace in &namespaces {
            boroughs::isolated(self.cluster, namespace).await?;
        }
        self.quote("on call", &format!("{} namespaces isolated", namespaces.len()));
        let is_suspended = |delivery: &Value| delivery["spec"]["suspend"] == true;
        let deliveries = kind(&admin, flux::KUSTOMIZE, "Kustomization", Some(flux::NAMESPACE));
        eventually(&deliveries, LIBRARIES, "Flux to be suspended", DEADLINE, is_suspended).await?;
        self.quote("Flux", "suspended where it delivers into an isolated namespace");
        let sealed = proof::Contents::look(&admin, &REBUILT).await?;

        self.scene("Westminster puts its links right in Git; a second person reviews that commit");
        let approved = self.review(&admin, &tools.git).await?;

        self.scene(
            "GitOps applies the plan; what restores is applied over it, as a field manager of its own",
        );
        self.arm(&admin, tools.endpoint.url(), &approved, since).await?;

        self.scene(
            "Three services need a person, as in `cargo xtask demo`; the lead mends them, and decides",
        );
        let lead = self.cluster.client(Identity::RecoveryLead).await?;
        boroughs::lead(self.cluster).await?;
        for service in boroughs::TAMPERED {
            self.quote(service, "what was approved is back, and so it is retried");
        }

        self.scene(
            "Restored, each in its own way, between the gates before restore and those before release",
        );
        self.recovered(&admin, &lead).await?;
        ensure!(operator.ended()?.is_none(), "the operator ended by itself");

        self.scene("Is it what it was before?");
        self.is_what_it_was(&admin, &before, &sealed, &approved).await?;
        let plans = kind(&admin, KINDS, "RecoveryPlan", Some(NAMESPACE));
        let mut plan = object(&plans, PLAN).await?;
        plan["metadata"]["managedFields"] = Value::Null;
        Ok(Restored { operator, plan: plan.to_string(), tools })
    }

    fn scene(&self, what: &str) {
        (self.tell)(Line::Scene(what.to_owned()));
    }

    fn quote(&self, who: &str, what: &str) {
        (self.tell)(Line::Quote(who.to_owned(), what.to_owned()));
    }

    /// Starts Velero, Flux and a Git server; then everything is there that rights are granted in.
    async fn start_tools(&self, admin: &Client) -> Result<Tools> {
        // Velero learns which kinds there are when it starts, and a Backup is partial where it does not know one.
        flux::install_kinds(admin).await?;
        let velero = velero::Velero::start(self.cluster, &self.programs.velero).await?;
        let links = std::fs::read_to_string(repository(&format!("{AT}/git/{LINKS}")))?;
        let git = GitServer::start(&self.cluster.dir().join("git"), &[(LINKS, links)]).await?;
        let source = self.programs.flux.start_source(self.cluster)?;
        let kustomize = self.programs.flux.start_kustomize(self.cluster)?;
        for file in ["namespaces.yaml", "access.yaml"] {
            apply(admin, "platform", &read(&format!("{AT}/{file}"))?).await?;
        }
        Ok(Tools { git, endpoint: Endpoint::start().await?, _velero: velero, _flux: [source, kustomize] })
    }

    /// Lets Flux deliver, and waits until it has.
    async fn deliver(&self, admin: &Client, git: &GitServer) -> Result<()> {
        let mut manifests = read(&format!("{AT}/flux.yaml"))?;
        let source = manifests.iter_mut().find(|manifest| manifest["kind"] == "GitRepository");
        source.context("flux.yaml has no GitRepository")?["spec"]["url"] = json!(git.url());
        apply(admin, "platform", &manifests).await?;
        self.delivered(admin, &git.commit()?).await
    }

    /// Waits until Flux has applied a commit.
    async fn delivered(&self, admin: &Client, commit: &str) -> Result<()> {
        let deliveries = kind(admin, flux::KUSTOMIZE, "Kustomization", Some(flux::NAMESPACE));
        let is_applied = |delivery: &Value| {
            condition(delivery, "Ready") == "True"
                && text(delivery, "/status/lastAppliedRevision").ends_with(commit)
        };
        eventually(&deliveries, LIBRARIES, "Flux to apply the commit", DEADLINE, is_applied).await?;
        let links = kind(admin, "v1", "ConfigMap", Some(LIBRARIES));
        let links = object(&links, "links").await?;
        self.quote(LIBRARIES, &format!("renewals go to {}", text(&links, "/data/renewals")));
        Ok(())
    }

    /// Backs two services up. Returns a moment after which the backup was complete.
    async fn back_up(&self, admin: &Client) -> Result<Timestamp> {
        apply(admin, "platform", &read(&format!("{AT}/backup.yaml"))?).await?;
        let backups = kind(admin, velero::API_VERSION, "Backup", Some(velero::NAMESPACE));
        let is_complete = |backup: &Value| text(backup, "/status/phase") == "Completed";
        let backup = eventually(&backups, BACKUP, "the Backup to be complete", DEADLINE, is_complete).await?;
        let at = text(&backup, "/status/completionTimestamp");
        let items = field(&backup, "/status/progress/itemsBackedUp");
        self.quote("Velero", &format!("Backup {BACKUP} is complete: {items} objects at {at}"));
        // Velero's times are whole seconds.
        Ok(at.parse::<Timestamp>()? + SignedDuration::from_secs(1))
    }

    async fn attack(&self, admin: &Client, git: &GitServer) -> Result<()> {
        for [version, kind_, namespace, name] in DELETED {
            let api = kind(admin, version, kind_, Some(namespace));
            api.delete(name, &DeleteParams::default()).await?;
        }
        self.quote("wcc-planning", "the register and what it is about are deleted");
        apply(admin, "attacker", &read(&format!("{AT}/attack.yaml"))?).await?;
        self.quote("rbkc-elections", "one polling place is another; no image differs");
        let links = std::fs::read_to_string(repository(&format!("{AT}/git/{LINKS}")))?;
        git.push(LINKS, &links.replace("libraries.wcc.example", "libraries-wcc.example"))?;
        self.fetch(admin, &git.commit()?).await?;
        self.delivered(admin, &git.commit()?).await?;
        boroughs::attack(self.cluster).await?;
        self.quote("and three others", "two images and payroll are tampered with, as in `cargo xtask demo`");
        Ok(())
    }

    /// Asks Flux to fetch now, and waits until it has a commit.
    async fn fetch(&self, admin: &Client, commit: &str) -> Result<()> {
        let sources = kind(admin, flux::SOURCES, "GitRepository", Some(flux::NAMESPACE));
        let now = json!({"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": commit}}});
        sources.patch(LIBRARIES, &PatchParams::default(), &Patch::Merge(now)).await?;
        let has = |source: &Value| text(source, "/status/artifact/revision").ends_with(commit);
        eventually(&sources, LIBRARIES, "Flux to fetch the commit", DEADLINE, has).await.map(drop)
    }

    /// Reverts the attacker's commit. Returns the revision that was reviewed.
    async fn review(&self, admin: &Client, git: &GitServer) -> Result<String> {
        let links = std::fs::read_to_string(repository(&format!("{AT}/git/{LINKS}")))?;
        git.push(LINKS, &links)?;
        let commit = git.commit()?;
        self.fetch(admin, &commit).await?;
        let approved = format!("main@sha1:{commit}");
        self.quote("approved", &approved);
        Ok(approved)
    }

    /// Applies the plan, what restores over it, and then the Incident, which arms it.
    async fn arm(&self, admin: &Client, endpoint: &str, approved: &str, since: Timestamp) -> Result<()> {
        let gitops = self.cluster.client(Identity::GitOps).await?;
        apply(&gitops, "gitops", &documents(&boroughs::plan(endpoint)?)?).await?;
        let restoring = std::fs::read_to_string(repository(&format!("{AT}/plan.yaml")))?;
        ensure!(restoring.contains(REVISION), "restore/plan.yaml has no revision to replace");
        let restoring = documents(&restoring.replace(REVISION, approved))?;
        apply(&gitops, "restore", &restoring).await?;
        let plans = kind(admin, KINDS, "RecoveryPlan", Some(NAMESPACE));
        proof::is_merged(&object(&plans, PLAN).await?, &restoring)?;
        self.quote("plan", "32 services, four of which restore; all else of them is as it was");
        // All of the month happens within a minute here.
        let mut incident = read("examples/three-boroughs/incident.yaml")?;
        incident[0]["spec"]["compromisedSince"] = json!(since.to_string());
        apply(&gitops, "gitops", &incident).await?;
        self.quote("Incident", &format!("compromised since {since}: the backup is older"));
        let is_prepared = |plan: &Value| condition(plan, "Prepared") == "True";
        eventually(&plans, PLAN, "the plan to be prepared", DEADLINE, is_prepared).await?;
        self.quote("plan", "Prepared: the account's rights are there, and those of Velero's");
        Ok(())
    }

    /// Waits until everything is recovered, and tells how.
    async fn recovered(&self, admin: &Client, lead: &Client) -> Result<()> {
        let plans = kind(admin, KINDS, "RecoveryPlan", Some(NAMESPACE));
        let records = kind(admin, KINDS, "ServiceRecovery", Some(NAMESPACE));
        let is_back = |o: &Value| condition(o, "Recovered") == "True";
        for service in ["rbkc-elections", "wcc-planning", "rbkc-benefits", LIBRARIES] {
            let (name, what) = (format!("{PLAN}.{service}"), format!("{service} to be recovered"));
            let record = match eventually(&records, &name, &what, DEADLINE, is_back).await {
                Ok(record) => record,
                Err(late) => {
                    let asked = decisions_needed(lead, NAMESPACE).await?;
                    return Err(late.context(format!("needed decisions: {asked:#?}")));
                }
            };
            for step in field(&record, "/status/steps").as_array().into_iter().flatten() {
                let message = text(step, "/message");
                let message = if message.is_empty() { "" } else { &format!(": {message}") };
                let name = text(step, "/name");
                self.quote(service, &format!("step {name} {}{message}", text(step, "/state")));
            }
            for exception in field(&record, "/status/exceptions").as_array().into_iter().flatten() {
                self.quote(service, &format!("exception: {}", exception.as_str().unwrap_or_default()));
            }
        }
        let done = |plan: &Value| condition(plan, "Recovered") == "True";
        let plan = eventually(&plans, PLAN, "everything to be recovered", DEADLINE, done).await?;
        self.quote("plan", of_condition(&plan, "Recovered", "message"));
        Ok(())
    }

    async fn is_what_it_was(
        &self,
        admin: &Client,
        before: &proof::Contents,
        sealed: &proof::Contents,
        approved: &str,
    ) -> Result<()> {
        let new = REBUILT.map(|service| format!("{service}-new"));
        let restored = proof::Contents::look(admin, &[&new[0], &new[1]]).await?;
        restored.is_of(before, "-new")?;
        for service in REBUILT {
            self.quote(
                service,
                &format!("in {service}-new, what the backup had: {}", restored.told(service)),
            );
        }
        let restores = proof::restores(admin).await?;
        ensure!(restores.len() == REBUILT.len(), "not one Restore for each: {restores:?}");
        self.quote("Velero", &restores.join("; "));
        for service in REBUILT {
            proof::is_sealed(admin, service).await?;
        }
        let originals = proof::Contents::look(admin, &REBUILT).await?;
        originals.is_of(sealed, "")?;
        self.quote("originals", "sealed, without a pod, and as they were when they were isolated");
        let job = proof::ran_once(admin, "rbkc-benefits-docs").await?;
        self.quote("rbkc-benefits", &format!("Job {job} ran once, and succeeded"));
        let deliveries = kind(admin, flux::KUSTOMIZE, "Kustomization", Some(flux::NAMESPACE));
        let delivery = object(&deliveries, LIBRARIES).await?;
        let applied = text(&delivery, "/status/lastAppliedRevision");
        ensure!(applied == approved, "Flux applied {applied}, and {approved} was approved");
        let links = object(&kind(admin, "v1", "ConfigMap", Some(LIBRARIES)), "links").await?;
        let wanted = read(&format!("{AT}/git/{LINKS}"))?.remove(0);
        ensure!(links["data"] == wanted["data"], "the libraries' links are {}", links["data"]);
        self.quote(LIBRARIES, &format!("renewals go to {} again", text(&links, "/data/renewals")));
        Ok(())
    }
}

/// Waits for a moment.
async fn wait_until(moment: Timestamp) {
    let left = moment.duration_since(Timestamp::now());
    tokio::time::sleep(Duration::try_from(left).unwrap_or_default()).await;
}
