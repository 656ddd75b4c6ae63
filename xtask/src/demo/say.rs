//! Output of the demo.

use anstyle::{AnsiColor, Style};
use rehearsal::Line;

const SCENE: Style = AnsiColor::Cyan.on_default().bold();
const DIM: Style = Style::new().dimmed();
const BOLD: Style = Style::new().bold();

/// Prints the title of a scene.
pub(super) fn scene(what: &str) {
    anstream::println!("\n{SCENE}▌ {what}{SCENE:#}");
}

/// Prints a remark.
pub(super) fn note(what: &str) {
    anstream::println!("  {DIM}{what}{DIM:#}");
}

/// Prints a quotation.
pub(super) fn quote(who: &str, what: &str) {
    anstream::println!("  {BOLD}{who}{BOLD:#}  {what}");
}

/// Prints a line of a story.
pub(super) fn tell(line: Line) {
    match line {
        Line::Scene(what) => scene(&what),
        Line::Quote(who, what) => quote(&who, &what),
    }
}
