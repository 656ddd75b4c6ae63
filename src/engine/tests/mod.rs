//! Every transition of a service's life, as stories in virtual time and as single looks.

mod attempts;
mod gates;
mod groups;
pub(crate) mod kstatus;
mod life;
mod overrides;
mod regressions;
mod story;
mod waiting;
