//! The attack suite: everything that would undo an isolation, as everybody who would try, on a real API server; with the operator
//! at work, dead, restarted, doubled and uninstalled. What cannot be stopped is shown as such; what has to go on, too.

mod attempt;
mod audit;
mod comes_back;
mod ends;
mod every_kind;
mod exemptions;
mod from_elsewhere;
mod gets_in;
mod lets_out;
mod restarted;
mod rig;
mod saboteur;
mod served;
mod states;
mod uninstalled;
mod unstoppable;
mod who;
