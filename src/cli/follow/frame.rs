//! One frame of the live view: the bytes that draw a page over the previous one. Pure.

use std::fmt::Write;

/// Minimum width of a row, and number of rows: a terminal that reports less is not believed.
const SMALLEST: (usize, usize) = (10, 5);

/// Returns the bytes that draw `page` over a previous frame of `before` rows, and the number of rows of this one. Lines are wrapped to the
/// terminal's `width`, so that a row of text is a row of the terminal, and each row is cleared before it is drawn.
pub(super) fn frame(page: &str, before: usize, width: usize, height: usize) -> (String, usize) {
    let width = width.max(SMALLEST.0);
    let rows: Vec<String> = page.lines().flat_map(|line| wrap(line, width)).collect();
    let shown = rows.len().min(height.saturating_sub(2).max(SMALLEST.1));
    // The terminal itself must not wrap: characters may be wider than counted, and a row too many would scroll.
    let mut bytes = "\x1b[?7l\r".to_owned();
    if before > 0 {
        let _ = write!(bytes, "\x1b[{before}A");
    }
    for row in rows.iter().take(shown) {
        let _ = writeln!(bytes, "\x1b[2K{row}");
    }
    // Styles may have been cut off, and the previous frame may have been longer.
    bytes.push_str("\x1b[0m\x1b[J\x1b[?7h");
    (bytes, shown)
}

/// Returns a line in rows of at most `width` columns, broken at spaces where there are some, indented as the line is. Escape sequences take
/// no column.
fn wrap(line: &str, width: usize) -> Vec<String> {
    let indent = line.chars().take_while(|c| *c == ' ').count().min(width / 2);
    let (mut rows, mut row, mut columns) = (Vec::new(), String::new(), 0);
    // Bytes and columns of the row up to its last space.
    let mut space = None;
    let mut rest = line.chars();
    while let Some(c) = rest.next() {
        if c == '\x1b' {
            row.push(c);
            for c in rest.by_ref() {
                row.push(c);
                if c.is_ascii_alphabetic() {
                    break;
                }
            }
            continue;
        }
        if columns == width {
            let tail = match space.take().filter(|(_, before)| *before > width / 2) {
                Some((at, before)) => {
                    columns -= before;
                    row.split_off(at)
                }
                None => {
                    columns = 0;
                    String::new()
                }
            };
            rows.push(std::mem::replace(&mut row, " ".repeat(indent) + &tail));
            columns += indent;
            if c == ' ' && tail.is_empty() {
                continue;
            }
        }
        row.push(c);
        columns += 1;
        if c == ' ' {
            space = Some((row.len(), columns));
        }
    }
    rows.push(row);
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A terminal that wraps, understands what a frame consists of, and does not forget what is not cleared.
    struct Terminal {
        width: usize,
        cells: Vec<Vec<char>>,
        row: usize,
        column: usize,
        wraps: bool,
    }

    impl Terminal {
        fn new(width: usize) -> Self {
            Self { width, cells: vec![vec![' '; width]], row: 0, column: 0, wraps: true }
        }

        fn down(&mut self) {
            (self.row, self.column) = (self.row + 1, 0);
            if self.row == self.cells.len() {
                self.cells.push(vec![' '; self.width]);
            }
        }

        fn write(&mut self, bytes: &str) {
            let mut rest = bytes.chars();
            while let Some(c) = rest.next() {
                match c {
                    '\x1b' => {
                        assert_eq!(rest.next(), Some('['));
                        let mut sequence = String::new();
                        for c in rest.by_ref() {
                            sequence.push(c);
                            if c.is_ascii_alphabetic() {
                                break;
                            }
                        }
                        self.obey(&sequence);
                    }
                    '\r' => self.column = 0,
                    '\n' => self.down(),
                    c => {
                        if self.column == self.width && self.wraps {
                            self.down();
                        }
                        let column = self.column.min(self.width - 1);
                        self.cells[self.row][column] = c;
                        self.column = column + 1;
                    }
                }
            }
        }

        fn obey(&mut self, sequence: &str) {
            match sequence {
                "?7l" => self.wraps = false,
                "?7h" => self.wraps = true,
                "2K" => self.cells[self.row].fill(' '),
                "J" => {
                    self.cells.truncate(self.row + 1);
                    self.cells[self.row].fill(' ');
                }
                up if up.ends_with('A') => {
                    self.row = self.row.checked_sub(up.trim_end_matches('A').parse().unwrap()).unwrap();
                }
                style => assert!(style.ends_with('m'), "{style}"),
            }
        }

        fn screen(&self) -> String {
            let rows: Vec<String> = self.cells.iter().map(|row| row.iter().collect::<String>()).collect();
            rows.iter().map(|row| row.trim_end()).collect::<Vec<_>>().join("\n").trim_end().to_owned()
        }
    }

    const LONG: &str = "\x1b[1m\x1b[31mintegration needs a decision\x1b[0m: GateFailed: images: Deployment shared/message-hub: not approved\n  \
                        for 30s · decidedOn sha256:0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a\n\nTIER  SERVICE\n";
    const SHORT: &str = "recovered\n\nTIER  SERVICE\n1     x\n";

    #[test]
    fn each_row_is_cleared_before_it_is_drawn_and_wrapped_lines_are_rows() {
        insta::assert_snapshot!(frame(LONG, 7, 30, 50).0.replace('\x1b', "␛"));
    }

    #[test]
    fn a_frame_leaves_nothing_of_the_one_before_at_any_width() {
        for width in [10, 20, 30, 33, 80, 200] {
            for pages in [[LONG, SHORT, LONG], [SHORT, LONG, SHORT], [LONG, LONG, LONG]] {
                let mut terminal = Terminal::new(width);
                let mut drawn = 0;
                terminal.write("$ resurgam status\r\n");
                for page in pages {
                    let (bytes, rows) = frame(page, drawn, width, 50);
                    terminal.write(&bytes);
                    drawn = rows;
                }
                let mut fresh = Terminal::new(width);
                fresh.write("$ resurgam status\r\n");
                fresh.write(&frame(pages[2], 0, width, 50).0);
                assert_eq!(terminal.screen(), fresh.screen(), "{width}");
            }
        }
    }

    #[test]
    fn characters_wider_than_counted_do_not_make_a_row_more() {
        let (bytes, rows) = frame("事事事事事事事事事事\n", 0, 10, 50);
        assert!(bytes.starts_with("\x1b[?7l") && bytes.ends_with("\x1b[?7h"), "the terminal does not wrap");
        assert_eq!(rows, 1);
    }

    #[test]
    fn a_page_longer_than_the_terminal_is_cut() {
        let (bytes, rows) = frame(&"x\n".repeat(40), 0, 80, 12);
        assert_eq!((rows, bytes.matches("\x1b[2K").count()), (10, 10));
    }

    #[test]
    fn rows_are_broken_at_spaces_and_lose_no_word() {
        assert_eq!(wrap("  one two three four", 10), ["  one two ", "  three ", "  four"]);
        assert_eq!(wrap("abcdefghijklmno", 10), ["abcdefghij", "klmno"]);
        assert_eq!(wrap("\x1b[1mabcdefghij\x1b[0m", 10), ["\x1b[1mabcdefghij\x1b[0m"]);
        assert_eq!(wrap("", 10), [""]);
    }
}
