//! Every transition of a service's life, as stories in virtual time and as single looks.

mod attempts;
mod counts;
mod gates;
mod groups;
mod holds;
pub(crate) mod kstatus;
mod life;
mod overrides;
mod quarantines;
mod ratchet;
mod regressions;
mod resumes;
mod room;
mod slots;
mod spoiled;
mod story;
mod waiting;
