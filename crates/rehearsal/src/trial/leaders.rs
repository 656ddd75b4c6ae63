//! The leader is lost during a recovery, and another replica takes over. The audit log shows who was the leader and who wrote: the proxy
//! of each replica has its own user agent.

use std::collections::{HashMap, HashSet};
use std::time::SystemTime;

use anyhow::{Context, Result, bail, ensure};
use control_plane::ControlPlane;
use k8s_openapi::jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use super::Trial;
use super::crash::{ReferenceRun, never_stop};
use super::crew::Crew;
use crate::text;

const OPERATOR: &str = "system:serviceaccount:resurgam-system:resurgam";

/// How the leader is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Lost {
    /// It is killed by SIGKILL.
    Killed,
    /// It is partitioned from the API server.
    CutOff,
}

/// A lost leader and its successor. Times are from the audit log, except `ended_before`.
#[derive(Clone, Debug, Serialize)]
pub struct Succession {
    /// How the leader was lost.
    pub lost: Lost,
    /// Seconds from its last request until another replica held the lease.
    pub taken_after: f64,
    /// Seconds from its last request until the successor's first effect.
    pub acts_after: f64,
    /// Seconds by which the partitioned leader exited before the successor held the lease.
    pub ended_before: Option<f64>,
}

/// Result of a recovery that ended correctly although its leader was lost.
#[derive(Clone, Debug, Serialize)]
pub struct Takeover {
    /// The succession.
    pub succession: Succession,
    /// Number of operator writes that were checked: each was made by the leader.
    pub writes: usize,
}

/// Runs a recovery whose leader is lost after this many effects.
///
/// # Errors
/// It does not end as the reference run did, a replica wrote without being the leader, or a partitioned leader did not exit in time.
pub async fn takeover(
    cluster: &ControlPlane,
    crew: &Crew<'_>,
    name: &str,
    (lost, effect): (Lost, u64),
    model: &ReferenceRun,
) -> Result<Takeover> {
    let trial = Trial::lay_down(cluster, name).await?;
    never_stop(crew);
    let play = async {
        trial.begin().await?;
        let leader = tokio::select! {
            leader = crew.effects_reach(effect) => leader,
            recovered = trial.recovered() => return recovered.and_then(|()| bail!("it took fewer than {effect} effects")),
        };
        let at = SystemTime::now();
        match lost {
            Lost::Killed => crew.kill(leader)?,
            Lost::CutOff => crew.proxy(leader).partition(true),
        }
        trial.recovered().await?;
        Ok((leader, at))
    };
    let what = || format!("{name}: {lost:?} at effect {effect}");
    let (leader, at) = crew.meanwhile(play).await.with_context(|| format!("{}: {}", what(), crew.said()))?;
    let ended = crew.ended_since(leader, at);
    let outcome = trial.end().await.with_context(what)?;
    let differences = model.history.differences(&outcome.history);
    ensure!(differences.is_empty(), "{}: {}", what(), differences.join("; "));
    let story = LeaseHistory::read(&trial.log()?)?;
    crew.replace(leader)?;
    trial.clear().await?;

    let intruders = story.intruders();
    ensure!(intruders.is_empty(), "{}: {}", what(), intruders.join("; "));
    let succession = story.succession(lost, &Crew::agent(leader), at, ended).with_context(what)?;
    Ok(Takeover { succession, writes: story.writes.len() })
}

/// Holder of the lease after a write of it.
struct LeaderTerm {
    revision: u64,
    at: Timestamp,
    /// User agent of the holder. `None`: the lease was released or deleted.
    agent: Option<String>,
}

struct Write {
    /// resourceVersion after the write, if there was an answer and the write caused it.
    revision: Option<u64>,
    at: Timestamp,
    agent: String,
    what: String,
}

/// Terms of the leaders, and all writes.
#[derive(Default)]
pub(super) struct LeaseHistory {
    reigns: Vec<LeaderTerm>,
    writes: Vec<Write>,
    heard: HashMap<String, Vec<Timestamp>>,
}

impl LeaseHistory {
    pub(super) fn read(log: &[u8]) -> Result<Self> {
        let mut story = Self::default();
        // Holders have names of their own, and are known by who first wrote as one.
        let mut known: HashMap<String, String> = HashMap::new();
        let mut left: HashSet<u64> = HashSet::new();
        for line in log.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            let event: Value = serde_json::from_slice(line).context("a line of the audit log")?;
            let revision = text(&event, "/responseObject/metadata/resourceVersion").parse().ok();
            if text(&event, "/user/username") != OPERATOR {
                left.extend(revision);
                continue;
            }
            let agent = text(&event, "/userAgent").to_owned();
            let at: Timestamp = text(&event, "/requestReceivedTimestamp").parse()?;
            story.heard.entry(agent.clone()).or_default().push(at);
            let code = event["responseStatus"]["code"].as_u64().unwrap_or_default();
            let writes =
                ["create", "update", "patch", "delete", "deletecollection"].contains(&text(&event, "/verb"));
            let dry = text(&event, "/requestURI").contains("dryRun=");
            if !writes || dry || !(200..300).contains(&code) {
                continue;
            }
            match text(&event, "/objectRef/resource") {
                "leases" => {
                    let holder = text(&event, "/responseObject/spec/holderIdentity");
                    let holder =
                        (!holder.is_empty()).then(|| known.entry(holder.to_owned()).or_insert(agent).clone());
                    let revision = revision.context("a lease without a version")?;
                    story.reigns.push(LeaderTerm { revision, at, agent: holder });
                }
                "subjectaccessreviews" | "selfsubjectaccessreviews" | "events" => {}
                resource => {
                    let of = |field: &str| text(&event, &format!("/objectRef/{field}")).to_owned();
                    let what =
                        format!("{} {resource} {}/{}", text(&event, "/verb"), of("namespace"), of("name"));
                    story.writes.push(Write { revision, at, agent, what });
                }
            }
        }
        story.reigns.sort_by_key(|reign| reign.revision);
        story.writes.sort_by_key(|write| write.at);
        // A write that changed nothing, or with which a deletion ended, leaves the version of an earlier one, by whomever; and that does not
        // tell when this one was made.
        for write in &mut story.writes {
            write.revision.take_if(|revision| !left.insert(*revision));
        }
        Ok(story)
    }

    /// Returns the number of operator writes.
    pub(super) fn writes(&self) -> usize {
        self.writes.len()
    }

    /// Returns the successor of a leader that was lost at that time and, if it was partitioned, exited then.
    pub(super) fn succession(
        &self,
        lost: Lost,
        leader: &str,
        at: SystemTime,
        ended: Option<SystemTime>,
    ) -> Result<Succession> {
        let lost_at = Timestamp::try_from(at)?;
        let what = || format!("{leader}, {lost:?} at {lost_at}");
        let another = |reign: &&LeaderTerm| reign.agent.as_deref().is_some_and(|agent| agent != leader);
        let taken = self.reigns.iter().filter(another).find(|reign| reign.at > lost_at);
        let taken = taken.with_context(|| format!("{}: nobody took over", what()))?;
        // What it had asked for may be logged after it was lost; but not after another leads.
        let heard = self.heard.get(leader).into_iter().flatten();
        let gone = heard.filter(|heard| **heard < taken.at).max();
        let gone = gone.with_context(|| format!("{} is not in the audit log", what()))?;
        let acts = |write: &&Write| Some(&write.agent) == taken.agent.as_ref() && write.at >= taken.at;
        let acts = self.writes.iter().find(acts);
        let acts = acts.with_context(|| format!("{}: whoever took over did nothing", what()))?;
        let after = |at: Timestamp| at.duration_since(*gone).as_secs_f64();
        let ended_before = match lost {
            Lost::Killed => None,
            Lost::CutOff => {
                let ended =
                    Timestamp::try_from(ended.with_context(|| format!("{}: it did not end", what()))?)?;
                let before = taken.at.duration_since(ended).as_secs_f64();
                ensure!(
                    before > 0.0,
                    "{}: it ended {:.2} s after another had taken the lease",
                    what(),
                    -before
                );
                Some(before)
            }
        };
        Ok(Succession { lost, taken_after: after(taken.at), acts_after: after(acts.at), ended_before })
    }

    /// Returns writes by a replica without the lease. Where resourceVersions cannot order them, as for deletions, times do.
    pub(super) fn intruders(&self) -> Vec<String> {
        let wrong = |write: &&Write| {
            let earlier = |reign: &&LeaderTerm| match write.revision {
                Some(revision) => reign.revision < revision,
                None => reign.at < write.at,
            };
            let reign = self.reigns.iter().rev().find(earlier);
            // Who led before the log begins is not known.
            reign.is_some_and(|reign| reign.agent.as_ref() != Some(&write.agent))
        };
        let told =
            |write: &Write| format!("{} {}: {} did not hold the lease", write.at, write.what, write.agent);
        self.writes.iter().filter(wrong).map(told).collect()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn event(agent: &str, second: u32, resource: &str, object: Value) -> Value {
        json!({
            "verb": "patch", "userAgent": agent, "user": {"username": OPERATOR}, "requestURI": "/",
            "requestReceivedTimestamp": format!("2026-11-24T03:00:{second:02}.000000Z"),
            "objectRef": {"resource": resource, "namespace": "a", "name": "b"},
            "responseStatus": {"code": 200}, "responseObject": object,
        })
    }

    fn lease(agent: &str, second: u32, holder: Option<&str>) -> Value {
        let version = (100 + second).to_string();
        event(
            agent,
            second,
            "leases",
            json!({"metadata": {"resourceVersion": version}, "spec": {"holderIdentity": holder}}),
        )
    }

    fn write(agent: &str, second: u32) -> Value {
        let version = (100 + second).to_string();
        event(agent, second, "namespaces", json!({"metadata": {"resourceVersion": version}}))
    }

    fn intruders(events: &[Value]) -> Vec<String> {
        let log: String = events.iter().map(|event| format!("{event}\n")).collect();
        LeaseHistory::read(log.as_bytes()).unwrap().intruders()
    }

    #[test]
    fn only_writers_without_the_lease_are_reported() {
        let handed_over = [
            lease("one", 1, Some("x")),
            write("one", 2),
            lease("two", 5, None),
            lease("two", 6, Some("y")),
            write("two", 7),
        ];
        assert_eq!(intruders(&handed_over), Vec::<String>::new());
        for late in [write("one", 8), write("two", 4), event("one", 8, "pods", json!({"kind": "Status"}))] {
            let found = intruders(&[&handed_over[..], std::slice::from_ref(&late)].concat());
            assert_eq!(found.len(), 1, "{late}: {found:?}");
        }
        let changes_nothing = event("two", 8, "namespaces", json!({"metadata": {"resourceVersion": "102"}}));
        assert_eq!(intruders(&[&handed_over[..], &[changes_nothing]].concat()), Vec::<String>::new());
        let changes_nothing = event("one", 8, "namespaces", json!({"metadata": {"resourceVersion": "102"}}));
        assert_eq!(intruders(&[&handed_over[..], &[changes_nothing]].concat()).len(), 1);
        let mut deleted = write("lead", 2);
        deleted["user"]["username"] = json!("recovery-lead");
        let ends = event("two", 7, "quarantines", json!({"metadata": {"resourceVersion": "102"}}));
        let reigns = [lease("one", 1, Some("x")), deleted.clone(), lease("two", 6, Some("y")), ends];
        assert_eq!(intruders(&reigns), Vec::<String>::new(), "what somebody else had left");
        let late = event("one", 8, "quarantines", json!({"metadata": {"resourceVersion": "102"}}));
        assert_eq!(intruders(&[&reigns[..], &[late]].concat()).len(), 1);
        let renewed = [lease("one", 1, Some("x")), lease("one", 3, Some("x")), write("one", 4)];
        assert_eq!(intruders(&renewed), Vec::<String>::new());
        assert_eq!(intruders(&[write("one", 1), lease("one", 2, None), write("one", 3)]).len(), 1);
    }
}
