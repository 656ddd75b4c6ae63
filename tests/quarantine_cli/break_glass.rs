//! Break-glass.
