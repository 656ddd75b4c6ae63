//! Whether the deletion of a Quarantine is a release. Admission checks the right of a person who deletes one. Deleting the
//! CustomResourceDefinition marks every Quarantine as deleted without any such check.

/// Observed state of the CustomResourceDefinition of Quarantines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CrdState {
    /// It exists, and is not being deleted.
    Served,
    /// It is being deleted.
    Terminating,
    /// It does not exist.
    Missing,
    /// It could not be read, with the reason.
    Unknown(String),
}

/// Meaning of the deletion of a Quarantine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeletionMeaning {
    /// The Quarantine is not being deleted.
    None,
    /// A person with the right to release deleted it.
    Release,
    /// The namespace stays isolated, with the reason.
    Keep(String),
}

/// Returns the meaning of the deletion of a Quarantine, given the state of its CustomResourceDefinition.
#[must_use]
pub fn deletion_meaning(kind: CrdState) -> DeletionMeaning {
    DeletionMeaning::Keep(match kind {
        CrdState::Served => return DeletionMeaning::Release,
        CrdState::Terminating => {
            "its CustomResourceDefinition is being deleted, which checks no right to release".to_owned()
        }
        CrdState::Missing => "its kind is not there any more".to_owned(),
        CrdState::Unknown(why) => format!("whether its kind is being deleted is not known: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletion_is_a_release_only_where_its_kind_is_known_to_stay() {
        assert_eq!(deletion_meaning(CrdState::Served), DeletionMeaning::Release);
        for kind in [CrdState::Terminating, CrdState::Missing, CrdState::Unknown("no answer".into())] {
            let text = format!("{kind:?}");
            assert!(matches!(deletion_meaning(kind), DeletionMeaning::Keep(_)), "{text}");
        }
    }
}
