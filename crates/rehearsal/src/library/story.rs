//! What is held against each other: the library before the attack, while it is isolated, and once it is back.

use std::time::Duration;

use anyhow::{Result, ensure};
use k8s_openapi::jiff::Timestamp;

use super::{CATALOGUE, DATABASE, Library, opened_at};
use crate::wait::DEADLINE;

/// The book that was there before the attack.
const BOOK: &str = "Bleak House";
/// The services by the names that the visitor has for them, and their namespaces.
const SERVICES: [(&str, &str); 2] = [("postgres", DATABASE), ("catalogue", CATALOGUE)];

/// The library before the attack.
#[derive(Clone, Debug)]
pub struct Before {
    database: String,
    containers: Vec<String>,
}

/// Since when no connection gets through any more.
#[derive(Clone, Copy, Debug)]
pub struct Isolated(Timestamp);

impl Library<'_> {
    /// Puts a book on the shelf, which the catalogue shows then.
    ///
    /// # Errors
    /// It does not.
    pub async fn add_book(&self) -> Result<()> {
        self.add(BOOK).await?;
        self.shows_the_book().await
    }

    /// What is there before it is isolated. The visitor gets in everywhere.
    ///
    /// # Errors
    /// It does not.
    pub async fn before(&self) -> Result<Before> {
        // The pod that was replaced takes a moment to be gone: a sandbox and a container for each of both.
        soon("two pods to run", async || Ok(self.containers()?.len() == 4)).await?;
        self.visited_since(Timestamp::now()).await?;
        Ok(Before { database: self.identity().await?, containers: self.containers()? })
    }

    /// Once contained: what ran before runs on, and nobody gets in.
    ///
    /// # Errors
    /// It is not so.
    pub async fn is_contained(&self, before: &Before) -> Result<Isolated> {
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
        Ok(Isolated(isolated))
    }

    /// Once sealed: no pod by the API server's word, no process by the node's.
    ///
    /// # Errors
    /// It is not so.
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

    /// Once everything is back: the database is the one from before, with its rows; the catalogue reads them; other processes than
    /// before run; the visitor gets in, and did not until each namespace was opened. Returns how often it tried in vain.
    ///
    /// # Errors
    /// It is not so.
    pub async fn is_back(&self, before: &Before, isolated: Isolated) -> Result<usize> {
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

/// Waits for what no watch tells of.
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
