//! Resolves the namespaces to isolate. Pure.

use std::collections::BTreeSet;

use k8s_openapi::api::core::v1::Namespace;
use kube::ResourceExt;
use kube::core::{Selector, SelectorExt};

use crate::api::protected_namespace;

/// How the namespaces are selected.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Selection {
    /// By name.
    Named(Vec<String>),
    /// By labels.
    Selected(String),
    /// All but these.
    AllBut(Vec<String>),
}

/// The resolved namespaces.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Targets {
    /// Namespaces to isolate.
    pub(super) names: Vec<String>,
    /// Namespaces left out, and why.
    pub(super) left_out: Vec<(String, String)>,
}

/// Returns the selected namespaces, sorted by name.
pub(super) fn resolve(meant: &Selection, all: &[Namespace]) -> Result<Targets, String> {
    let known: BTreeSet<String> = all.iter().map(ResourceExt::name_any).collect();
    let exist = |names: &[String]| {
        let missing: Vec<_> = names.iter().filter(|name| !known.contains(*name)).cloned().collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("there is no namespace {}", missing.join(", "))) }
    };
    let ending =
        |name: &str| all.iter().any(|n| n.name_any() == name && n.metadata.deletion_timestamp.is_some());
    let chosen: BTreeSet<String> = match meant {
        Selection::Named(names) => {
            exist(names)?;
            // The preflight reports protected namespaces that were named explicitly.
            return Ok(Targets {
                names: BTreeSet::from_iter(names.clone()).into_iter().collect(),
                left_out: Vec::new(),
            });
        }
        Selection::Selected(text) => {
            let selector = parse(text)?;
            all.iter().filter(|n| selector.matches(n.labels())).map(ResourceExt::name_any).collect()
        }
        Selection::AllBut(but) => {
            exist(but)?;
            known.iter().filter(|name| !but.contains(name)).cloned().collect()
        }
    };
    let mut targets = Targets::default();
    for name in chosen {
        if let Some(why) = protected_namespace(&name) {
            targets.left_out.push((name, why.to_owned()));
        } else if ending(&name) {
            targets.left_out.push((name, "it is being deleted".to_owned()));
        } else {
            targets.names.push(name);
        }
    }
    if targets.names.is_empty() {
        return Err("no namespace is meant by that".to_owned());
    }
    Ok(targets)
}

/// Parses a selector in kubectl's syntax, such as `tier=1,team in (a, b),!exempt`.
fn parse(text: &str) -> Result<Selector, String> {
    use kube::core::Expression;
    let mut expressions = Vec::new();
    for part in split(text) {
        let part = part.trim();
        let set = |rest: &str| -> Result<BTreeSet<String>, String> {
            let inner = rest.trim().strip_prefix('(').and_then(|r| r.strip_suffix(')'));
            let inner =
                inner.ok_or_else(|| format!("selector {text:?}: {part:?} wants values in brackets"))?;
            Ok(inner.split(',').map(|value| value.trim().to_owned()).collect())
        };
        let key = |key: &str| -> Result<String, String> {
            let key = key.trim();
            let sound = !key.is_empty() && !key.contains(|c: char| c.is_whitespace() || "()!=,".contains(c));
            if sound {
                Ok(key.to_owned())
            } else {
                Err(format!("selector {text:?}: {part:?} is not understood"))
            }
        };
        let expression = if let Some((k, rest)) = part.split_once(" notin ") {
            Expression::NotIn(key(k)?, set(rest)?)
        } else if let Some((k, rest)) = part.split_once(" in ") {
            Expression::In(key(k)?, set(rest)?)
        } else if let Some((k, v)) = part.split_once("!=") {
            Expression::NotEqual(key(k)?, v.trim().to_owned())
        } else if let Some((k, v)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Expression::Equal(key(k)?, v.trim().to_owned())
        } else if let Some(k) = part.strip_prefix('!') {
            Expression::DoesNotExist(key(k)?)
        } else {
            Expression::Exists(key(part)?)
        };
        expressions.push(expression);
    }
    Ok(expressions.into_iter().collect())
}

/// Splits at commas outside of brackets.
fn split(text: &str) -> Vec<&str> {
    let (mut depth, mut from, mut parts) = (0_usize, 0, Vec::new());
    for (at, c) in text.char_indices() {
        match c {
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            ',' if depth == 0 => {
                parts.push(&text[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&text[from..]);
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all() -> Vec<Namespace> {
        [
            ("kube-system", ""),
            ("default", ""),
            ("web", "tier=2"),
            ("db", "tier=1"),
            ("odd", "team=a"),
            ("calico-system", ""),
        ]
        .into_iter()
        .map(|(name, label)| {
            let mut namespace = Namespace::default();
            namespace.metadata.name = Some(name.to_owned());
            namespace.metadata.labels =
                label.split_once('=').map(|(k, v)| [(k.to_owned(), v.to_owned())].into());
            namespace
        })
        .collect()
    }

    fn names(meant: &Selection) -> Vec<String> {
        resolve(meant, &all()).unwrap().names
    }

    #[test]
    fn selectors_are_kubectls() {
        for (text, expected) in [
            ("tier=1", vec!["db"]),
            ("tier==1", vec!["db"]),
            ("tier in (1, 2)", vec!["db", "web"]),
            ("tier,tier!=1", vec!["web"]),
            ("tier,tier notin (1)", vec!["web"]),
            ("!tier,team", vec!["odd"]),
        ] {
            assert_eq!(names(&Selection::Selected(text.into())), expected, "{text}");
        }
        for bad in ["tier in 1", "", "a b", "=x", "tier>1 2"] {
            assert!(resolve(&Selection::Selected(bad.into()), &all()).is_err(), "{bad}");
        }
    }

    #[test]
    fn all_but_leaves_out_and_reports_protected_namespaces() {
        let targets = resolve(&Selection::AllBut(vec!["calico-system".into(), "db".into()]), &all()).unwrap();
        assert_eq!(targets.names, ["odd", "web"]);
        let left: Vec<_> = targets.left_out.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(left, ["default", "kube-system"]);
    }

    #[test]
    fn unknown_namespace_is_an_error_before_any_change() {
        assert!(
            resolve(&Selection::Named(vec!["web".into(), "wbe".into()]), &all()).unwrap_err().contains("wbe")
        );
        assert!(
            resolve(&Selection::AllBut(vec!["wbe".into()]), &all()).is_err(),
            "a typing error would isolate it"
        );
        assert!(resolve(&Selection::Selected("tier=9".into()), &all()).is_err(), "nothing is not everything");
    }

    #[test]
    fn whatever_a_selector_says_it_is_understood_or_refused() {
        bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<(u8, String)>().for_each(
            |(at, text)| {
                let operators = ["", "=", "!=", " in (", ",", "!", " notin (a,b)", "==", ")"];
                let _ = parse(&format!("{text}{}{text}", operators[usize::from(*at) % operators.len()]));
                let _ = text.parse::<crate::isolation::evidence::Location>();
                let _ = text.parse::<crate::isolation::evidence::Recipient>();
            },
        );
    }
}
