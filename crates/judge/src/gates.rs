//! Gates of a service, parsed independently of the operator.

use std::time::Duration;

use serde_yaml::Value;

/// Phase of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    BeforeRestore,
    BeforeRelease,
    Continuous,
}

impl Phase {
    /// Parses the name in a ServiceRecovery.
    pub(crate) fn of(text: &str) -> Option<Self> {
        Some(match text {
            "BeforeRestore" => Self::BeforeRestore,
            "BeforeRelease" => Self::BeforeRelease,
            "Continuous" => Self::Continuous,
            _ => return None,
        })
    }

    /// Returns the name in a plan.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::BeforeRestore => "beforeRestore",
            Self::BeforeRelease => "beforeRelease",
            Self::Continuous => "continuous",
        }
    }
}

/// A gate.
#[derive(Clone, Debug)]
pub(crate) struct Gate {
    pub phase: Phase,
    pub name: String,
    /// Whether it lists objects in the service's namespaces, which the log shows.
    pub looks: bool,
    /// Whether it may be missing: a default gate of an external system, of a type that the judge does not know.
    pub optional: bool,
    pub interval: Duration,
    timeout: Duration,
}

/// Gate types that the judge knows, and whether they read the service's namespaces. Of other gates only the recorded verdicts are judged,
/// so that this list need not follow the operator's.
const QUESTIONS: [(&str, bool); 3] = [("imageDigests", true), ("workloads", true), ("http", false)];

impl Gate {
    /// Returns how long an answer is fresh: two missed evaluations, and at least 30 seconds.
    pub(crate) fn freshness(&self) -> Duration {
        (self.interval * 3 + self.timeout).max(Duration::from_secs(30))
    }
}

/// Returns the plan's default gates and the service's own. Without continuous gates, those before release are evaluated continuously.
pub(crate) fn gates(
    own: Option<&Value>,
    defaults: Option<&Value>,
    external: bool,
) -> Result<Vec<Gate>, String> {
    let of = |phase: Phase| -> Result<Vec<Gate>, String> {
        let list = |gates: Option<&Value>| {
            let list = gates.and_then(|gates| gates.get(phase.as_str())).and_then(Value::as_sequence);
            list.into_iter().flatten().map(|gate| read(phase, gate)).collect::<Result<Vec<_>, _>>()
        };
        // A default gate that reads namespaces does not apply to an external system.
        let inherited = list(defaults)?.into_iter().filter(|gate| !(external && gate.looks));
        let inherited = inherited.map(|gate| Gate { optional: external && gate.optional, ..gate });
        let own = list(own)?.into_iter().map(|gate| Gate { optional: false, ..gate });
        Ok(inherited.chain(own).collect())
    };
    let (mut all, release, mut continuous) =
        (of(Phase::BeforeRestore)?, of(Phase::BeforeRelease)?, of(Phase::Continuous)?);
    if continuous.is_empty() {
        continuous = release.iter().cloned().map(|gate| Gate { phase: Phase::Continuous, ..gate }).collect();
    }
    all.extend(release);
    all.extend(continuous);
    Ok(all)
}

fn read(phase: Phase, gate: &Value) -> Result<Gate, String> {
    let name = gate
        .get("name")
        .and_then(Value::as_str)
        .ok_or_else(|| format!("a gate of {} has no name", phase.as_str()))?;
    let time = |key: &str| {
        let Some(value) = gate.get(key) else { return Ok(Duration::from_secs(10)) };
        let read = value.as_str().and_then(duration);
        read.map(|d| d.max(Duration::from_millis(100)))
            .ok_or_else(|| format!("gate {name}: {key} is no duration"))
    };
    let looks = QUESTIONS.iter().find(|(question, _)| gate.get(question).is_some()).map(|(_, looks)| *looks);
    Ok(Gate {
        phase,
        name: name.to_owned(),
        looks: looks.unwrap_or(false),
        optional: looks.is_none(),
        interval: time("interval")?,
        timeout: time("timeout")?,
    })
}

/// Parses a duration: `90s`, `1m30s`, `21d`.
fn duration(text: &str) -> Option<Duration> {
    let (mut total, mut rest) = (Duration::ZERO, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit())?;
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let ms = match &rest[..unit] {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return None,
        };
        total += Duration::from_millis(number.checked_mul(ms)?);
        rest = &rest[unit..];
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_read_with_every_unit_and_nothing_else_is() {
        let seconds = |text| duration(text).map(|d| d.as_secs_f64());
        assert_eq!(seconds("1m30s"), Some(90.0));
        assert_eq!(seconds("21d"), Some(21.0 * 86_400.0));
        assert_eq!(seconds("500ms"), Some(0.5));
        for text in ["", "10", "s", "1w", "-1s", "1.5s"] {
            assert_eq!(seconds(text), None, "{text}");
        }
    }

    #[test]
    fn a_default_that_is_not_known_may_be_left_out_of_an_external_system() {
        let yaml = |text: &str| serde_yaml::from_str::<Value>(text).unwrap();
        let gate = yaml("{beforeRelease: [{name: jobs, jobResult: {}}]}");
        let read = |own, defaults, external| {
            let all = gates(own, defaults, external).unwrap();
            all.iter().map(|gate| (gate.looks, gate.optional)).collect::<Vec<_>>()
        };
        assert_eq!(read(None, Some(&gate), true), [(false, true); 2]);
        assert_eq!(read(None, Some(&gate), false), [(false, false); 2]);
        assert_eq!(read(Some(&gate), None, true), [(false, false); 2]);
    }

    #[test]
    fn default_gates_count_and_release_gates_become_continuous() {
        let yaml = |text: &str| serde_yaml::from_str::<Value>(text).unwrap();
        let defaults = yaml(
            "{beforeRestore: [{name: images, imageDigests: {}}], beforeRelease: [{name: up, workloads: {}}]}",
        );
        let own = yaml("{beforeRelease: [{name: login, http: {url: x}, interval: 1s}]}");
        let names = |external| {
            let all = gates(Some(&own), Some(&defaults), external).unwrap();
            all.iter().map(|g| format!("{} {} {}", g.phase.as_str(), g.name, g.looks)).collect::<Vec<_>>()
        };
        let release = [
            "beforeRelease up true",
            "beforeRelease login false",
            "continuous up true",
            "continuous login false",
        ];
        assert_eq!(names(false), [&["beforeRestore images true"][..], &release].concat());
        assert_eq!(names(true), ["beforeRelease login false", "continuous login false"]);
    }
}
