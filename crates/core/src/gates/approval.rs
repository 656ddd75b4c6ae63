//! Gate `approval`: whether everybody has agreed who has to. Which Decisions count, the engine says.

use std::collections::BTreeMap;

use crate::api::gate::ApprovalParty;

/// A Decision `Approve` that counts.
#[derive(Clone, Copy, Debug)]
pub struct Approval<'a> {
    /// Who made it.
    pub by: &'a str,
    /// Group of its author in whose name it was made.
    pub group: Option<&'a str>,
}

/// Returns what each party still lacks; nothing means that it is approved. With `distinct`, people of several parties are counted so that as many places as possible are
/// taken: a maximum matching of people and places.
#[must_use]
pub fn judge(parties: &[ApprovalParty], distinct: bool, approvals: &[Approval<'_>]) -> Vec<String> {
    // Of each person, the parties that they approved for.
    let mut people: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for approval in approvals {
        let of = people.entry(approval.by).or_default();
        for (index, party) in parties.iter().enumerate() {
            if approval.group == Some(party.group.as_str()) && !of.contains(&index) {
                of.push(index);
            }
        }
    }
    let wanted = |party: &ApprovalParty| usize::try_from(party.count).unwrap_or(1).max(1);
    let mut taken: Vec<Vec<&str>> = vec![Vec::new(); parties.len()];
    for (&person, of) in &people {
        if distinct {
            let mut tried = vec![false; parties.len()];
            seat(person, &people, &mut taken, &mut tried, &|party| wanted(&parties[party]));
        } else {
            of.iter().for_each(|&party| taken[party].push(person));
        }
    }
    let lacking = parties.iter().zip(&taken).filter_map(|(party, taken)| {
        let lacks = wanted(party).checked_sub(taken.len()).filter(|lacks| *lacks > 0)?;
        Some(format!("{lacks} of party {} (group {})", party.name, party.group))
    });
    lacking.collect()
}

/// Seats a person with one of their parties, and moves others to make room where that is possible.
fn seat<'a>(
    person: &'a str,
    people: &BTreeMap<&'a str, Vec<usize>>,
    taken: &mut Vec<Vec<&'a str>>,
    tried: &mut [bool],
    places: &dyn Fn(usize) -> usize,
) -> bool {
    let parties = people.get(person).cloned().unwrap_or_default();
    for party in parties {
        if std::mem::replace(&mut tried[party], true) {
            continue;
        }
        if taken[party].len() < places(party) {
            taken[party].push(person);
            return true;
        }
        for place in 0..taken[party].len() {
            let other = taken[party][place];
            if seat(other, people, taken, tried, places) {
                taken[party][place] = person;
                return true;
            }
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str, count: i32) -> ApprovalParty {
        ApprovalParty { name: name.to_owned(), group: format!("{name}-leads"), count }
    }

    #[test]
    fn quorum_counts_people_by_party_and_each_of_them_once() {
        let parties = [party("rbkc", 1), party("wcc", 2)];
        let lacks = |distinct, given: &[(&str, &str)]| {
            let given: Vec<_> = given.iter().map(|(by, group)| (*by, format!("{group}-leads"))).collect();
            let given: Vec<_> = given.iter().map(|(by, group)| Approval { by, group: Some(group) }).collect();
            judge(&parties, distinct, &given)
        };
        let (rbkc, wcc, wcc2) = (
            "1 of party rbkc (group rbkc-leads)",
            "1 of party wcc (group wcc-leads)",
            "2 of party wcc (group wcc-leads)",
        );
        assert_eq!(lacks(true, &[]), [rbkc, wcc2]);
        assert_eq!(lacks(true, &[("ana", "rbkc")]), [wcc2]);
        assert_eq!(lacks(true, &[("ana", "rbkc"), ("ana", "wcc")]), [wcc2], "ana counts once");
        assert_eq!(lacks(false, &[("ana", "rbkc"), ("ana", "wcc")]), [wcc]);
        assert_eq!(lacks(true, &[("ana", "wcc"), ("ana", "wcc"), ("bo", "wcc")]), [rbkc]);
        assert_eq!(lacks(true, &[("ana", "elsewhere"), ("bo", "wcc")]), [rbkc, wcc]);
        // Ana is in both groups: she is counted where nobody else is.
        let all = [("ana", "wcc"), ("ana", "rbkc"), ("bo", "wcc"), ("cy", "wcc")];
        assert!(lacks(true, &all).is_empty());
        assert!(lacks(true, &[("bo", "wcc"), ("cy", "wcc"), ("zoe", "wcc"), ("zoe", "rbkc")]).is_empty());
    }
}
