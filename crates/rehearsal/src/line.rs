//! What is told of a story, for a terminal or a test.

/// A line of a story.
#[derive(Clone, Debug)]
pub enum Line {
    /// What happens next.
    Scene(String),
    /// What somebody says or sees.
    Quote(String, String),
}
