//! Resurgam brings services back after a cyber attack.
