//! Is the deletion of a Quarantine a release? Admission asked whoever deletes one; but the deletion of its kind, the
//! CustomResourceDefinition, marks every Quarantine as deleted without asking anybody.

/// What was read of the CustomResourceDefinition of Quarantines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KindState {
    /// It is there, and is not being deleted.
    Served,
    /// It is being deleted.
    Terminating,
    /// It is not there.
    Missing,
    /// It could not be read, and why.
    Unknown(String),
}

/// What the deletion of a Quarantine means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It is not being deleted.
    None,
    /// Somebody who may release it deleted it.
    Release,
    /// It stays isolated: why.
    Keep(String),
}

/// Returns what the deletion of a Quarantine means, by the state of its kind.
#[must_use]
pub fn ending(kind: KindState) -> Ending {
    Ending::Keep(match kind {
        KindState::Served => return Ending::Release,
        KindState::Terminating => {
            "its kind is being deleted, which asked nobody who may release it".to_owned()
        }
        KindState::Missing => "its kind is not there any more".to_owned(),
        KindState::Unknown(why) => format!("whether its kind is being deleted is not known: {why}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deletion_is_a_release_only_where_its_kind_is_known_to_stay() {
        assert_eq!(ending(KindState::Served), Ending::Release);
        for kind in [KindState::Terminating, KindState::Missing, KindState::Unknown("no answer".into())] {
            let text = format!("{kind:?}");
            assert!(matches!(ending(kind), Ending::Keep(_)), "{text}");
        }
    }
}
