//! What the API server itself has on record of an attack: that it was let through for a moment, and mended before anybody looked,
//! would be seen here alone.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};

use serde_json::Value;

use crate::attack::rig::Rig;
use crate::attack::who::Who;

/// A place in the audit log.
#[derive(Clone, Copy, Debug)]
pub struct Mark(u64);

/// Where the audit log ends now.
pub fn mark(rig: &Rig) -> Mark {
    Mark(std::fs::metadata(rig.cluster.audit_log()).unwrap().len())
}

/// What was asked since then.
#[derive(Debug, Default)]
pub struct Record {
    /// Writes and connections by attackers that were refused.
    pub refused: usize,
    /// Those that were not.
    pub through: Vec<String>,
}

/// Reads what these have asked for in earnest since then: it is all there once it is answered.
pub fn since(rig: &Rig, from: Mark, whos: &[Who]) -> Record {
    let mut file = File::open(rig.cluster.audit_log()).unwrap();
    file.seek(SeekFrom::Start(from.0)).unwrap();
    let mut record = Record::default();
    for line in BufReader::new(file).lines() {
        let line = line.unwrap();
        // Most are refusals with long bodies.
        if line.contains("\"verb\":\"list\"") || line.contains("\"verb\":\"watch\"") {
            continue;
        }
        // What is being written at this moment is nobody's answer yet.
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if !is_attack(&event) || !whos.iter().any(|who| is_by(&event, who)) {
            continue;
        }
        if event["responseStatus"]["code"].as_u64().is_some_and(|code| code >= 400) {
            record.refused += 1;
        } else {
            let user = event["impersonatedUser"]["username"].as_str().or(event["user"]["username"].as_str());
            record.through.push(format!("{} {} by {user:?}", event["verb"], event["requestURI"]));
        }
    }
    record
}

/// A write or a connection, in earnest.
fn is_attack(event: &Value) -> bool {
    let sub = event["objectRef"]["subresource"].as_str().unwrap_or_default();
    let writes = ["create", "update", "patch", "delete", "deletecollection"];
    let dry = event["requestURI"].as_str().is_some_and(|uri| uri.contains("dryRun="));
    let write = event["verb"].as_str().is_some_and(|verb| writes.contains(&verb));
    !dry && (write || ["exec", "attach", "portforward", "proxy"].contains(&sub))
}

/// The real controllers have the same names as some attackers, and nobody impersonates those.
fn is_by(event: &Value, who: &Who) -> bool {
    let acted = event["impersonatedUser"]["username"].as_str();
    let user = if who.acted { acted } else { event["user"]["username"].as_str().filter(|_| acted.is_none()) };
    user == Some(who.user.as_str())
}
