//! Gate `http`: an endpoint answers with the expected status.

use serde_json::json;

use super::{Answer, evidence};
use crate::api::GateReason;
use crate::api::gate::HttpSpec;

/// Expected status if the plan names none.
const DEFAULT_STATUS: u16 = 200;

/// Why an endpoint's status is unknown.
#[derive(Debug, PartialEq, Eq)]
pub struct EndpointError {
    /// Reason.
    pub reason: GateReason,
    /// Message with the culprit's name. It contains no query, which may hold secrets, and nothing of the body.
    pub message: String,
}

/// Returns the gate's answer for an endpoint's status.
#[must_use]
pub fn judge(spec: &HttpSpec, answer: Result<u16, EndpointError>) -> Answer {
    let wanted = spec.status.unwrap_or(DEFAULT_STATUS);
    let got = match answer {
        Ok(got) => got,
        Err(EndpointError { reason, message }) => return Answer::unknown(reason, message),
    };
    let evidence = evidence::digest(&json!({"gate": "http", "url": spec.url, "wanted": wanted, "got": got}));
    if got == wanted {
        Answer::pass(GateReason::Answers, format!("got {got}"), evidence)
    } else {
        Answer::fail(GateReason::Status, format!("got {got}, wanted {wanted}"), evidence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Verdict;

    #[test]
    fn only_the_status_that_is_wanted_passes() {
        use GateReason::{Answers, NoAnswer, Status};
        let silent = || EndpointError { reason: NoAnswer, message: "example.org: closed".to_owned() };
        for (wanted, got, verdict, reason, message) in [
            (None, Ok(200), Verdict::Pass, Answers, "got 200"),
            (None, Ok(503), Verdict::Fail, Status, "got 503, wanted 200"),
            (Some(503), Ok(503), Verdict::Pass, Answers, "got 503"),
            (None, Ok(302), Verdict::Fail, Status, "got 302, wanted 200"),
            (None, Err(silent()), Verdict::Unknown, NoAnswer, "example.org: closed"),
        ] {
            let spec = HttpSpec { url: "http://example.org".to_owned(), status: wanted };
            let answer = judge(&spec, got);
            assert_eq!((answer.verdict, answer.reason, answer.message.as_str()), (verdict, reason, message));
            assert_eq!(answer.evidence.is_some(), verdict != Verdict::Unknown);
        }
    }

    #[test]
    fn evidence_is_of_what_was_asked_and_answered() {
        let evidence = |url: &str, status| {
            judge(&HttpSpec { url: url.to_owned(), status: Some(status) }, Ok(200)).evidence
        };
        let one = evidence("http://a.example", 200);
        assert_eq!(one, evidence("http://a.example", 200));
        assert_ne!(one, evidence("http://b.example", 200));
        assert_ne!(one, evidence("http://a.example", 201));
    }
}
