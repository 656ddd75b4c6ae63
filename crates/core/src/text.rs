//! Words for people that many commands use.

/// A number of things: `1 namespace`, `2 namespaces`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
