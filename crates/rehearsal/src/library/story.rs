//! Checks of the library before the attack, while it is isolated, and after the recovery.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;

use super::{CATALOGUE, DATABASE, Library, opened_at};
use crate::wait::DEADLINE;

/// Book added before the attack.
const BOOK: &str = "Bleak House";
/// Services as the visitor names them, and their namespaces.
const SERVICES: [(&str, &str); 2] = [("postgres", DATABASE), ("catalogue", CATALOGUE)];

/// State of the library before the attack.
#[derive(Clone, Debug)]
pub struct BaselineState {
    database: String,
    containers: Vec<String>,
}

/// Time since when no connection succeeds.
#[derive(Clone, Copy, Debug)]
pub struct IsolatedSince(Timestamp);

impl Library<'_> {
    /// Adds a book, which the catalogue shows then.
    ///
    /// # Errors
    /// It does not.
    pub async fn add_book(&self) -> Result<()> {
        self.add(BOOK).await?;
        self.shows_the_book().await
    }

    /// Records the state before isolation. The visitor can connect to everything.
    ///
    /// # Errors
    /// The visitor cannot, or a read fails.
    pub async fn before(&self) -> Result<BaselineState> {
        // The pod that was replaced takes a moment to be gone: a sandbox and a container for each of both.
        soon("two pods to run", async || Ok(self.containers()?.len() == 4)).await?;
        self.visited_since(Timestamp::now()).await?;
        Ok(BaselineState { database: self.identity().await?, containers: self.containers()? })
    }

    /// Checks the contained library: the same processes run, and no connection succeeds.
    ///
    /// # Errors
    /// A check fails.
    pub async fn is_contained(&self, before: &BaselineState) -> Result<IsolatedSince> {
        let isolated = Timestamp::now();
        let containers = self.containers()?;
        ensure!(
            containers == before.containers,
            "{containers:?} run, and before that {:?} did",
            before.containers
        );
        // Until the visitor has tried all of them.
        for (service, _) in SERVICES {
            let tried = async || Ok(self.visits().await?.tries_since(service, isolated) > 0);
            soon(&format!("the visitor to try {service}"), tried).await?;
            self.visits().await?.none_between(service, isolated, Timestamp::MAX)?;
        }
        Ok(IsolatedSince(isolated))
    }

    /// Checks the sealed library: the API server has no pod, and the node no process.
    ///
    /// # Errors
    /// A check fails.
    pub async fn is_stopped(&self) -> Result<()> {
        for (_, namespace) in SERVICES {
            // A kubelet says that processes have ended before it lets the pod go.
            let stopped = async || {
                let (pods, containers) = self.running(namespace).await?;
                Ok(pods.is_empty() && containers.is_empty())
            };
            soon(&format!("everything of {namespace} to be gone"), stopped).await?;
        }
        Ok(())
    }

    /// Checks the recovered library: it is the same database with its rows; the catalogue reads them; the processes are new; the visitor
    /// connects, and could not until each namespace was opened. Returns the number of failed attempts in between.
    ///
    /// # Errors
    /// A check fails.
    pub async fn is_back(&self, before: &BaselineState, isolated: IsolatedSince) -> Result<usize> {
        let database = self.identity().await?;
        ensure!(database == before.database, "{database} is another database than {}", before.database);
        self.shows_the_book().await?;
        let containers = self.containers()?;
        ensure!(containers.len() == before.containers.len(), "{containers:?} run");
        ensure!(
            containers.iter().all(|new| !before.containers.contains(new)),
            "{containers:?} never stopped"
        );
        self.visited_since(Timestamp::now()).await?;
        let visits = self.visits().await?;
        let mut refused = 0;
        for (service, namespace) in SERVICES {
            let opened = opened_at(self.cluster.audit_log(), namespace)?;
            refused += visits.none_between(service, isolated.0, opened)?;
        }
        Ok(refused)
    }

    async fn shows_the_book(&self) -> Result<()> {
        let shown = async || {
            let answer = self.books().await;
            Ok(answer.is_ok_and(|(status, books)| status == "HTTP/1.1 200 OK" && books == [BOOK]))
        };
        soon("the catalogue to show the book", shown).await
    }

    async fn visited_since(&self, since: Timestamp) -> Result<()> {
        for (service, _) in SERVICES {
            let reached = async || Ok(self.visits().await?.any_since(service, since));
            soon(&format!("the visitor to reach {service}"), reached).await?;
        }
        Ok(())
    }

    fn containers(&self) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for (_, namespace) in SERVICES {
            all.extend(self.cluster.running_containers(namespace)?);
        }
        all.sort();
        Ok(all)
    }
}

/// Polls for a state that no watch reports.
async fn soon(what: &str, is_so: impl AsyncFn() -> Result<bool>) -> Result<()> {
    let waiting = async {
        while !is_so().await? {
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        anyhow::Ok(())
    };
    match tokio::time::timeout(DEADLINE, waiting).await {
        Ok(outcome) => outcome,
        Err(_) => anyhow::bail!("waited {} s in vain for {what}", DEADLINE.as_secs()),
    }
}
