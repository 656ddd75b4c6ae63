//! What roles grant, and what an account used of it, by the API server's audit log.

use std::collections::BTreeSet;
use std::fmt;
use std::io::BufRead;
use std::path::Path;

use serde_json::Value;

/// One thing that a role lets its holder do.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Right {
    pub group: String,
    /// With its subresource: `pods/log`.
    pub resource: String,
    pub verb: String,
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { group, resource, verb } = self;
        let dot = if group.is_empty() { "" } else { "." };
        write!(f, "{verb} {resource}{dot}{group}")
    }
}

impl Right {
    /// Does using this one make use of a granted one? A grant may say `*` for the resources of a group.
    fn uses(&self, granted: &Self) -> bool {
        (&self.group, &self.verb) == (&granted.group, &granted.verb)
            && (granted.resource == "*" || granted.resource == self.resource)
    }
}

fn texts<'a>(of: &'a Value, field: &str) -> impl Iterator<Item = &'a str> {
    of[field].as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// What the roles of these names grant, taken together.
pub fn granted(manifests: &[Value], roles: &[&str]) -> BTreeSet<Right> {
    let mut all = BTreeSet::new();
    for name in roles {
        let mut named = manifests
            .iter()
            .filter(|m| {
                m["metadata"]["name"] == *name && m["kind"].as_str().is_some_and(|k| k.ends_with("Role"))
            })
            .peekable();
        assert!(named.peek().is_some(), "there is no role {name}");
        for rule in named.flat_map(|role| role["rules"].as_array().into_iter().flatten()) {
            for group in texts(rule, "apiGroups") {
                for resource in texts(rule, "resources") {
                    all.extend(texts(rule, "verbs").map(|verb| Right {
                        group: group.to_owned(),
                        resource: resource.to_owned(),
                        verb: verb.to_owned(),
                    }));
                }
            }
        }
    }
    all
}

/// What an account did, and what it was refused for want of rights.
#[derive(Default)]
pub struct Used {
    pub rights: BTreeSet<Right>,
    pub lacking: BTreeSet<String>,
}

impl Used {
    /// By the audit log, for the account of this name; acting as somebody else is a right of its own.
    pub fn by(log: &Path, account: &str) -> Self {
        let mut used = Self::default();
        for line in std::io::BufReader::new(std::fs::File::open(log).unwrap()).lines() {
            let event: Value = serde_json::from_str(&line.unwrap()).unwrap();
            let text = |at: &str| event.pointer(at).and_then(Value::as_str).unwrap_or_default();
            let acted_as = text("/impersonatedUser/username");
            if text("/user/username") == account && !acted_as.is_empty() {
                let kind =
                    if acted_as.starts_with("system:serviceaccount:") { "serviceaccounts" } else { "users" };
                // An account is in groups of its own, unless it is given others.
                let groups = texts(&event["impersonatedUser"], "groups");
                let given = groups.filter(|group| !group.starts_with("system:")).map(|_| "groups");
                used.rights.extend(std::iter::once(kind).chain(given).map(|kind| Right {
                    group: String::new(),
                    resource: kind.into(),
                    verb: "impersonate".into(),
                }));
            }
            let actor = if acted_as.is_empty() { text("/user/username") } else { acted_as };
            if actor != account || text("/objectRef/resource").is_empty() {
                continue;
            }
            let subresource = text("/objectRef/subresource");
            let slash = if subresource.is_empty() { "" } else { "/" };
            let right = Right {
                group: text("/objectRef/apiGroup").to_owned(),
                resource: format!("{}{slash}{subresource}", text("/objectRef/resource")),
                verb: text("/verb").to_owned(),
            };
            if text("/annotations/authorization.k8s.io~1decision") == "forbid" {
                used.lacking.insert(format!("{right}: {}", text("/requestURI")));
            } else {
                used.rights.insert(right);
            }
        }
        used
    }

    /// What was granted, and not used.
    pub fn idle<'a>(&self, granted: &'a BTreeSet<Right>) -> Vec<&'a Right> {
        granted.iter().filter(|right| !self.rights.iter().any(|used| used.uses(right))).collect()
    }
}
