//! The engine against random plans, and what `simulate` tells.

mod judge;
mod properties;
mod random;
mod reports;
mod spoiled;
