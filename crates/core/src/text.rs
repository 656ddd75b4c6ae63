//! Formatting of messages, for several commands.

/// Formats a count: `1 namespace`, `2 namespaces`.
#[must_use]
pub fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}
