//! Selector expressions of Calico, as far as the labels of a namespace decide them.

use std::collections::BTreeMap;

/// Maximum nesting depth.
const DEPTH: usize = 32;

/// A label of the selected object.
pub(super) enum Label<'a> {
    /// Present, with this value.
    Value(&'a str),
    /// Absent.
    Absent,
    /// Unknown.
    Unknown,
}

/// Returns whether the expression selects an object with these labels. `None`: undecidable, or not parseable.
pub(super) fn selects<'a>(text: &str, label: &dyn Fn(&str) -> Label<'a>) -> Option<bool> {
    let tokens = tokens(text)?;
    if tokens.is_empty() {
        return Some(true);
    }
    let mut parser = Parser { tokens: &tokens, at: 0, label };
    let selected = parser.any(0)?;
    (parser.at == tokens.len()).then_some(selected.0).flatten()
}

/// Looks up a label in a map.
pub(super) fn of<'a>(labels: &'a BTreeMap<String, String>, key: &str) -> Label<'a> {
    labels.get(key).map_or(Label::Absent, |value| Label::Value(value))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Symbol(&'static str),
}

const SYMBOLS: [&str; 10] = ["&&", "||", "==", "!=", "!", "(", ")", "{", "}", ","];

fn tokens(text: &str) -> Option<Vec<Token>> {
    let mut tokens = Vec::new();
    let mut rest = text.trim_start();
    while let Some(first) = rest.chars().next() {
        if first == '\'' || first == '"' {
            let end = rest[1..].find(first)?;
            tokens.push(Token::Text(rest[1..=end].to_owned()));
            rest = &rest[end + 2..];
        } else if let Some(symbol) = SYMBOLS.iter().find(|symbol| rest.starts_with(**symbol)) {
            tokens.push(Token::Symbol(symbol));
            rest = &rest[symbol.len()..];
        } else {
            let end =
                rest.find(|c: char| !(c.is_ascii_alphanumeric() || "_./-".contains(c))).unwrap_or(rest.len());
            if end == 0 {
                return None;
            }
            tokens.push(Token::Word(rest[..end].to_owned()));
            rest = &rest[end..];
        }
        rest = rest.trim_start();
    }
    Some(tokens)
}

/// A three-valued truth value.
struct Truth(Option<bool>);

struct Parser<'p, 'a> {
    tokens: &'p [Token],
    at: usize,
    label: &'p dyn Fn(&str) -> Label<'a>,
}

/// Returns `None` if the text is not an expression.
impl Parser<'_, '_> {
    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at).cloned();
        self.at += usize::from(token.is_some());
        token
    }

    fn takes(&mut self, symbol: &str) -> bool {
        let there = matches!(self.tokens.get(self.at), Some(Token::Symbol(s)) if *s == symbol);
        self.at += usize::from(there);
        there
    }

    fn takes_word(&mut self, word: &str) -> bool {
        let there = matches!(self.tokens.get(self.at), Some(Token::Word(w)) if w == word);
        self.at += usize::from(there);
        there
    }

    fn any(&mut self, depth: usize) -> Option<Truth> {
        let mut all = self.all(depth)?.0;
        while self.takes("||") {
            let other = self.all(depth)?.0;
            all = match (all, other) {
                (Some(true), _) | (_, Some(true)) => Some(true),
                (Some(false), Some(false)) => Some(false),
                _ => None,
            };
        }
        Some(Truth(all))
    }

    fn all(&mut self, depth: usize) -> Option<Truth> {
        let mut all = self.one(depth)?.0;
        while self.takes("&&") {
            let other = self.one(depth)?.0;
            all = match (all, other) {
                (Some(false), _) | (_, Some(false)) => Some(false),
                (Some(true), Some(true)) => Some(true),
                _ => None,
            };
        }
        Some(Truth(all))
    }

    fn one(&mut self, depth: usize) -> Option<Truth> {
        if depth > DEPTH {
            return None;
        }
        if self.takes("!") {
            return Some(Truth(self.one(depth + 1)?.0.map(|selected| !selected)));
        }
        if self.takes("(") {
            let inner = self.any(depth + 1)?;
            return self.takes(")").then_some(inner);
        }
        let Token::Word(key) = self.next()? else { return None };
        if self.takes("(") {
            return self.call(&key);
        }
        self.comparison(&key)
    }

    fn call(&mut self, name: &str) -> Option<Truth> {
        let truth = match name {
            "all" => Truth(Some(true)),
            // Selects objects without a namespace.
            "global" => Truth(Some(false)),
            "has" => {
                let Token::Word(key) = self.next()? else { return None };
                Truth(match (self.label)(&key) {
                    Label::Value(_) => Some(true),
                    Label::Absent => Some(false),
                    Label::Unknown => None,
                })
            }
            _ => return None,
        };
        self.takes(")").then_some(truth)
    }

    fn comparison(&mut self, key: &str) -> Option<Truth> {
        let (negated, values) = if self.takes("==") {
            (false, vec![self.text()?])
        } else if self.takes("!=") {
            (true, vec![self.text()?])
        } else if self.takes_word("in") {
            (false, self.set()?)
        } else if self.takes_word("not") && self.takes_word("in") {
            (true, self.set()?)
        } else {
            return None;
        };
        let among = match (self.label)(key) {
            Label::Value(value) => Some(values.iter().any(|v| v == value)),
            Label::Absent => Some(false),
            Label::Unknown => None,
        };
        Some(Truth(among.map(|among| among != negated)))
    }

    fn text(&mut self) -> Option<String> {
        match self.next()? {
            Token::Text(text) => Some(text),
            Token::Word(_) | Token::Symbol(_) => None,
        }
    }

    fn set(&mut self) -> Option<Vec<String>> {
        if !self.takes("{") {
            return None;
        }
        let mut values = vec![self.text()?];
        while self.takes(",") {
            values.push(self.text()?);
        }
        self.takes("}").then_some(values)
    }
}
