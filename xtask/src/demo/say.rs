//! How the demo tells its story.

use anstyle::{AnsiColor, Style};

const SCENE: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// What happens next.
pub(super) fn scene(what: &str) {
    anstream::println!("\n{SCENE}▌ {what}{SCENE:#}");
}

/// A remark.
pub(super) fn note(what: &str) {
    anstream::println!("  {DIM}{what}{DIM:#}");
}

/// What somebody or something said.
pub(super) fn told(who: &str, what: &str) {
    anstream::println!("  {BOLD}{who}{BOLD:#}  {what}");
}
