//! Text output of `access`, in YAML comments, so that it can be applied as a whole.

use anstyle::{AnsiColor, Style};

use crate::access::{self, Access, Comparison, Gap, Manifest};
use crate::isolation::OPERATOR;

const GOOD: Style = AnsiColor::Green.on_default();
const WARN: Style = AnsiColor::Yellow.on_default();
const BAD: Style = AnsiColor::Red.on_default().bold();

const EARLY: &str = "# Apply it before its namespaces are isolated, and again when the plan is changed.\n";
const EARLY_WITHOUT_AUTHORS: &str = "\
# Apply it before its namespaces are isolated, and again when the plan is changed. Whoever writes the plan needs `use` on its
# account, which this does not grant: --author USER or --author-group GROUP does.
";
const LATE: &str = "\
# For a recovery lead, while namespaces are isolated. The account, and the operator's right to act as it, have to be there
# already (--check tells): they are an administrator's to apply, in the plan's namespace, which is not isolated.
";
const WILDCARD: &str = "\
# Whoever holds a wildcard lets nothing out: take it away from the account, by its other bindings.
";
const ADMINISTRATORS: &str = "\
# The account, and the operator's right to act as it, are an administrator's to apply: resurgam access PLAN.yaml
";
const NOT_LATE: &str = "\
# Where a namespace is isolated already, no Role can be written: a recovery lead applies what --late prints.
";

/// Renders the comments above the manifests.
pub(super) fn heading(plans: &[Access], late: bool, authors: bool) -> String {
    let needs = |Access { namespace, plan, account, .. }: &Access| {
        format!(
            "# What RecoveryPlan {namespace}/{plan} needs, acting as ServiceAccount {namespace}/{account}.\n"
        )
    };
    let all: String = plans.iter().map(needs).collect();
    all + match (late, authors) {
        (true, _) => LATE,
        (false, true) => EARLY,
        (false, false) => EARLY_WITHOUT_AUTHORS,
    }
}

/// Renders the result of the comparison, and what to apply.
pub(super) fn text(found: &[Comparison], late: bool) -> Result<String, serde_yaml::Error> {
    let mut text: String = found.iter().map(|found| comparison(found, late)).collect();
    let apply: Vec<Manifest> = found.iter().flat_map(|found| found.apply.clone()).collect();
    if !apply.is_empty() {
        text.push_str("# What to apply:\n");
        text.push_str(&access::yaml(&apply)?);
    }
    Ok(text)
}

fn comparison(found: &Comparison, late: bool) -> String {
    let Comparison { plan, account, needed, missing, unknown, wildcards, apply } = found;
    let (style, verdict) = if !missing.is_empty() {
        (BAD, format!("missing {} of {needed} rights", missing.len()))
    } else if !wildcards.is_empty() {
        (BAD, "it holds a wildcard".to_owned())
    } else if !unknown.is_empty() {
        (WARN, format!("unknown {} of {needed} rights", unknown.len()))
    } else {
        (GOOD, format!("all {needed} rights are granted"))
    };
    let mut text =
        format!("# RecoveryPlan {plan}, acting as ServiceAccount {account}: {style}{verdict}{style:#}\n");
    for (style, word, gaps) in
        [(BAD, "missing", missing), (BAD, "wildcard", wildcards), (WARN, "unknown", unknown)]
    {
        text.extend(gaps.iter().map(|gap| line(style, word, account, gap)));
    }
    if !wildcards.is_empty() {
        text.push_str(WILDCARD);
    }
    // Only these two rights belong to no gate or step.
    if late && missing.iter().any(|gap| gap.needed_by.is_empty()) {
        text.push_str(ADMINISTRATORS);
    } else if !late && !apply.is_empty() {
        text.push_str(NOT_LATE);
    }
    text
}

fn line(style: Style, word: &str, account: &str, gap: &Gap) -> String {
    let Gap { what, user, needed_by, why } = gap;
    let own = format!("system:serviceaccount:{}", account.replace('/', ":"));
    let who = match user {
        user if user == OPERATOR => format!("the operator, {user}: "),
        user if *user == own => String::new(),
        user => format!("{user}: "),
    };
    let parts = if needed_by.is_empty() { String::new() } else { format!(", for: {}", needed_by.join(", ")) };
    let why = why.as_ref().map(|why| format!(": {why}")).unwrap_or_default();
    format!("#   {style}{word}{style:#}  {who}{what}{parts}{why}\n")
}
