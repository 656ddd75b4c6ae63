//! A hostile tenant and an obstructive platform: by seed, a namespace is sabotaged with everything that its administrator may write, then
//! isolated, released and compared. `mallory`, who holds the built-in ClusterRole `admin` in that namespace only, plants the tricks;
//! quotas, limit ranges and webhooks are the platform administrator's.
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

/// One trick of the saboteur.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// Objects with our names, labels and annotations.
    Names(Names),
    /// Objects that are huge or numerous.
    Size(Size),
    /// Objects that outlive their deletion.
    Finalizers(Finalizers),
    /// Objects with owners that do not exist.
    Owners(Owners),
    /// Policies that allow traffic.
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
    /// Returns whether it prevents anyone from labelling the namespace.
    pub(super) fn keeps_the_label_off(&self) -> bool {
        matches!(self, Self::Webhook(Webhook { target: Target::Namespace, .. }))
    }

    /// Plants it.
    ///
    /// # Errors
    /// The API server denied something, or the planted objects do not become ready.
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

    /// Returns the order of planting: the tenant's tricks first, then quotas, which would prevent those, and webhooks last.
    fn turn(self) -> u8 {
        match self {
            Self::Webhook(_) => 2,
            Self::Quotas(_) => 1,
            _ => 0,
        }
    }

    /// Returns the promise that need not hold while the trick is in place, if the status says so.
    fn exempts(self) -> Option<Promise> {
        if let Self::Webhook(webhook) = self { webhook.target.exempts() } else { None }
    }

    /// Returns texts one of which the status contains if it is not Ready because of this trick. Empty: the trick is no reason.
    fn culprits(self, scene: &Scene<'_>) -> Vec<String> {
        match self {
            Self::Finalizers(trick) => trick.culprits(),
            Self::Policies(trick) => trick.culprits(),
            Self::Quotas(trick) => trick.culprits(),
            Self::Webhook(webhook) => vec![webhook.name(scene.namespace())],
            Self::Names(_) | Self::Size(_) | Self::Owners(_) => Vec::new(),
        }
    }

    /// Returns a text in denials that come from this trick and not from the fence.
    fn refuses_with(self, scene: &Scene<'_>) -> Option<String> {
        match self {
            // The API server asks these before it asks a ValidatingAdmissionPolicy.
            Self::Webhook(webhook) if webhook.mutating => Some(webhook.name(scene.namespace())),
            Self::Quotas(trick) => trick.refuses_first().map(str::to_owned),
            _ => None,
        }
    }
}
