//! A tenant who was there first, and what a platform leaves behind: by seed, a namespace is sabotaged with all that its administrator may write,
//! then isolated, released and compared. What is planted is planted as `mallory`, who holds the built-in ClusterRole `admin` in that namespace
//! and nothing else; quotas, limit ranges and webhooks are the platform administrator's.
//!
//! [`trial::with_operator`] and [`trial::by_command`] are the two trials. They share no code with the operator.

mod check;
mod finalizers;
mod inventory;
mod names;
mod owners;
mod plan;
mod policies;
mod quotas;
mod scene;
mod size;
pub mod trial;
mod webhooks;

use std::fmt;

use anyhow::{Context, Result};

pub use check::Promise;
pub use finalizers::Finalizers;
pub use names::Names;
pub use owners::Owners;
pub use plan::{Sabotage, every_trick};
pub use policies::Policies;
pub use quotas::Quotas;
pub use scene::{Scene, prepare};
pub use size::Size;
pub use webhooks::{Target, Webhook};

/// One act of sabotage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// Objects with names, labels and annotations of ours.
    Names(Names),
    /// Objects that are huge or many.
    Size(Size),
    /// What does not go when it is deleted.
    Finalizers(Finalizers),
    /// What is said to be owned by somebody who is not there.
    Owners(Owners),
    /// Policies that add up.
    Policies(Policies),
    /// Quotas and limits of the platform.
    Quotas(Quotas),
    /// A webhook of the platform that is down.
    Webhook(Webhook),
}

impl fmt::Display for Trick {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Names(trick) => write!(f, "names/{trick:?}"),
            Self::Size(trick) => write!(f, "size/{trick:?}"),
            Self::Finalizers(trick) => write!(f, "finalizers/{trick:?}"),
            Self::Owners(trick) => write!(f, "owners/{trick:?}"),
            Self::Policies(trick) => write!(f, "policies/{trick:?}"),
            Self::Quotas(trick) => write!(f, "quotas/{trick:?}"),
            Self::Webhook(webhook) => write!(f, "webhook/{webhook}"),
        }
    }
}

impl fmt::Display for Sabotage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tricks: Vec<String> = self.tricks.iter().map(Trick::to_string).collect();
        write!(f, "{}: {}", self.name, tricks.join(", "))
    }
}

impl Trick {
    /// Does it keep everybody from labelling the namespace?
    pub(super) fn keeps_the_label_off(&self) -> bool {
        matches!(self, Self::Webhook(Webhook { target: Target::Namespace, .. }))
    }

    /// Plants it.
    ///
    /// # Errors
    /// The API server refused something, or what was planted does not come to stand.
    pub async fn plant(self, scene: &mut Scene<'_>) -> Result<()> {
        match self {
            Self::Names(trick) => trick.plant(scene).await,
            Self::Size(trick) => trick.plant(scene).await,
            Self::Finalizers(trick) => trick.plant(scene).await,
            Self::Owners(trick) => trick.plant(scene).await,
            Self::Policies(trick) => trick.plant(scene).await,
            Self::Quotas(trick) => trick.plant(scene).await,
            Self::Webhook(trick) => trick.plant(scene).await,
        }
        .with_context(|| format!("plant {self}"))
    }

    /// When it is planted: the tenant's first, then quotas, which would keep those away, and webhooks last.
    fn turn(self) -> u8 {
        match self {
            Self::Webhook(_) => 2,
            Self::Quotas(_) => 1,
            _ => 0,
        }
    }

    /// The promise that it may keep from being held for as long as it stands, if the status says so.
    fn exempts(self) -> Option<Promise> {
        if let Self::Webhook(webhook) = self { webhook.target.exempts() } else { None }
    }

    /// Texts one of which the status names where it is not Ready because of this. Empty: this is no reason not to be Ready.
    fn culprits(self, scene: &Scene<'_>) -> Vec<String> {
        match self {
            Self::Finalizers(trick) => trick.culprits(),
            Self::Policies(trick) => trick.culprits(),
            Self::Quotas(trick) => trick.culprits(),
            Self::Webhook(webhook) => vec![webhook.name(scene.namespace())],
            Self::Names(_) | Self::Size(_) | Self::Owners(_) => Vec::new(),
        }
    }

    /// A text in refusals that are not the fence's, but this trick's.
    fn refuses_with(self, scene: &Scene<'_>) -> Option<String> {
        match self {
            // The API server asks these before it asks a ValidatingAdmissionPolicy.
            Self::Webhook(webhook) if webhook.mutating => Some(webhook.name(scene.namespace())),
            Self::Quotas(trick) => trick.refuses_first().map(str::to_owned),
            _ => None,
        }
    }
}
