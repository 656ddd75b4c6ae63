//! Chooses faults by seed: the same requests get the same faults, whatever happens in between.

use std::collections::HashMap;
use std::time::Duration;

use sha2::{Digest, Sha256};

use crate::fault::{Fault, FaultScope};
use crate::request::RequestInfo;

/// Probabilities and limits of faults.
#[derive(Clone, Debug, Default)]
pub struct Profile {
    /// Probability of each fault where it applies, from 0 to 1. At most one fault occurs at a time.
    pub rates: Vec<(Fault, f64)>,
    /// Longest delay of an answer or an event.
    pub delay: Duration,
    /// Delay of a lagging watch.
    pub lag: Duration,
    /// Whether faults apply to Leases too. A leader that cannot renew its Lease exits, by design.
    pub leases: bool,
    /// Prefixes of the keys that faults apply to, such as `PATCH /api/v1/namespaces/`. Empty: all keys.
    pub only: String,
}

impl Profile {
    /// Returns a profile with all faults: about one request in twelve and one event in eight is affected.
    #[must_use]
    pub fn everything() -> Self {
        use Fault::*;
        Self {
            rates: vec![
                (TooManyRequests, 0.01),
                (InternalError, 0.008),
                (Unavailable, 0.01),
                (Conflict, 0.01),
                (Gone, 0.05),
                (Refused, 0.008),
                (Slow, 0.03),
                (CutShort, 0.008),
                (LostAnswer, 0.015),
                (LateAnswer, 0.015),
                (WatchLags, 0.2),
                (WatchBroken, 0.02),
                (WatchGone, 0.01),
                (EventHeld, 0.05),
                (EventTwice, 0.05),
            ],
            delay: Duration::from_millis(400),
            lag: Duration::from_millis(1500),
            leases: false,
            only: String::new(),
        }
    }

    /// Returns a profile with one fault only.
    #[must_use]
    pub fn only(fault: Fault, rate: f64) -> Self {
        Self { rates: vec![(fault, rate)], ..Self::everything() }
    }
}

/// Faults and the seed that chooses them. The default has no faults.
#[derive(Clone, Debug, Default)]
pub struct Schedule {
    /// Seed of the choice.
    pub seed: u64,
    /// Probabilities and limits.
    pub profile: Profile,
}

/// State of the choice: the number of requests per key.
#[derive(Debug, Default)]
pub(crate) struct Choices {
    schedule: Schedule,
    request: HashMap<String, u64>,
}

impl Choices {
    pub(crate) fn new(schedule: Schedule) -> Self {
        Self { schedule, request: HashMap::new() }
    }

    /// Returns the fault of a request, and the delay that it adds.
    pub(crate) fn request(&mut self, request: &RequestInfo) -> Option<(Fault, Duration)> {
        self.choose(FaultScope::Request, &request.key(), request)
    }

    /// Returns the delay of a watch.
    pub(crate) fn watch(&mut self, request: &RequestInfo) -> Option<Duration> {
        let key = format!("lag {}", request.key());
        self.choose(FaultScope::Watch, &key, request).map(|_| self.schedule.profile.lag)
    }

    /// Returns the fault of a watch event about an object.
    pub(crate) fn event(&mut self, request: &RequestInfo, of: &str) -> Option<(Fault, Duration)> {
        self.choose(FaultScope::Event, &format!("{} {of}", request.key()), request)
    }

    fn choose(&mut self, at: FaultScope, key: &str, request: &RequestInfo) -> Option<(Fault, Duration)> {
        let profile = &self.schedule.profile;
        let spared = (request.lease && !profile.leases) || !request.key().starts_with(&profile.only);
        if profile.rates.is_empty() || spared {
            return None;
        }
        let count = self.request.entry(key.to_owned()).or_default();
        *count += 1;
        let (dice, share) = throw(self.schedule.seed, key, *count);
        let mut sum = 0.0;
        let mut possible =
            profile.rates.iter().filter(|(fault, _)| fault.at() == at && fault.applies_to(request));
        let (fault, _) = possible.find(|(_, rate)| {
            sum += rate;
            dice < sum
        })?;
        Some((*fault, profile.delay.mul_f64(share)))
    }
}

/// Returns two numbers in 0..1 for the `count`-th occurrence of a key.
fn throw(seed: u64, key: &str, count: u64) -> (f64, f64) {
    let mut hash = Sha256::new();
    hash.update(seed.to_le_bytes());
    hash.update(count.to_le_bytes());
    hash.update(key.as_bytes());
    let hash = hash.finalize();
    let number = |from: usize| {
        let bytes = hash.iter().skip(from).take(4);
        bytes.fold(0.0, |sum, byte| (sum * 256.0) + f64::from(*byte)) / f64::from(u32::MAX).mul_add(1.0, 1.0)
    };
    (number(0), number(4))
}

#[cfg(test)]
mod tests {
    use http::Method;
    use proptest::prelude::*;

    use super::*;

    fn request(method: Method, path: &str) -> RequestInfo {
        RequestInfo::of(&method, &path.parse().unwrap())
    }

    proptest! {
        #[test]
        fn faults_of_a_request_do_not_depend_on_other_requests(
            seed: u64, order in prop::collection::vec(0..4usize, 0..80),
        ) {
            let paths = ["/a", "/b", "/c", "/d"].map(|path| request(Method::PATCH, path));
            let profile = Profile { rates: vec![(Fault::Conflict, 0.3), (Fault::Slow, 0.3)], ..Profile::everything() };
            let schedule = Schedule { seed, profile };
            let mut together = Choices::new(schedule.clone());
            let mut found = vec![Vec::new(); 4];
            for &path in &order {
                found[path].push(together.request(&paths[path]));
            }
            for (path, found) in paths.iter().zip(found) {
                let mut alone = Choices::new(schedule.clone());
                let expected: Vec<_> = found.iter().map(|_| alone.request(path)).collect();
                prop_assert_eq!(found, expected);
            }
        }
    }

    #[test]
    fn each_fault_strikes_at_its_rate_and_only_where_it_can() {
        let schedule = |seed| Schedule { seed, profile: Profile { leases: true, ..Profile::everything() } };
        for (method, path) in [
            (Method::GET, "/api/v1/pods"),
            (Method::GET, "/api/v1/pods?watch=true"),
            (Method::PATCH, "/api/v1/pods/a"),
            (Method::PUT, "/apis/coordination.k8s.io/v1/leases/a"),
        ] {
            let request = request(method, path);
            let mut choices = Choices::new(schedule(7));
            let mut struck: HashMap<Fault, f64> = HashMap::new();
            for _ in 0..20_000 {
                if let Some((fault, by)) = choices.request(&request) {
                    assert!(by < choices.schedule.profile.delay);
                    *struck.entry(fault).or_default() += 1.0 / 20_000.0;
                }
            }
            for (fault, rate) in Profile::everything().rates {
                let expected =
                    if fault.at() == FaultScope::Request && fault.applies_to(&request) { rate } else { 0.0 };
                let found = struck.get(&fault).copied().unwrap_or_default();
                assert!(
                    (found - expected).abs() < 0.005,
                    "{fault:?} of {request:?}: {found}, not {expected}"
                );
            }
        }
    }

    #[test]
    fn what_is_not_meant_is_spared() {
        let only = "PATCH /api/v1/namespaces/a".to_owned();
        let profile = Profile { only, ..Profile::only(Fault::InternalError, 1.0) };
        let mut choices = Choices::new(Schedule { seed: 1, profile });
        let mut strikes = |method, path| choices.request(&request(method, path)).is_some();
        assert!(strikes(Method::PATCH, "/api/v1/namespaces/a"));
        assert!(!strikes(Method::GET, "/api/v1/namespaces/a"));
        assert!(!strikes(Method::PATCH, "/api/v1/namespaces/b"));
    }

    #[test]
    fn leases_are_spared_by_default_and_seeds_choose_differently() {
        let lease = request(Method::PUT, "/apis/coordination.k8s.io/v1/namespaces/a/leases/b");
        let strikes = |seed, leases| {
            let profile = Profile { leases, ..Profile::only(Fault::Conflict, 0.5) };
            let mut choices = Choices::new(Schedule { seed, profile });
            (0..64).map(|_| choices.request(&lease).is_some()).collect::<Vec<_>>()
        };
        assert!(!strikes(1, false).contains(&true));
        assert_eq!(strikes(1, true), strikes(1, true));
        assert_ne!(strikes(1, true), strikes(2, true));
    }
}
