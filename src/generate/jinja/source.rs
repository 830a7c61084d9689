//! What has to change in the source of a template before `minijinja` reads it: line ends, `{% generation %}`, `%` on texts, and `+` on safe texts.

/// The filter that stands for Python's `%`, which formats where its left side is a text.
pub const PERCENT: &str = "python_percent";

/// The filter that stands for Python's `+` between texts of which one is marked as safe.
pub const PLUS: &str = "python_plus";

/// Deeper nested `%` stays as it is, so that no template can exhaust the stack.
const MAX_DEPTH: usize = 32;

/// Rewrites a template in the dialect of Jinja2 and transformers. What is no template is left for the compiler to complain about.
pub fn rewrite(source: &str) -> String {
    let source = source.replace("\r\n", "\n").replace('\r', "\n");
    let mut out = String::with_capacity(source.len());
    let mut rest = source.as_str();
    while let Some(start) = next_tag(rest) {
        out.push_str(&rest[..start]);
        rest = &rest[start..];
        let tag = match rest.as_bytes()[1] {
            b'#' => rest.find("#}").map(|end| (end + 2, rest[..end + 2].to_owned())),
            b'{' => Tag::read(rest, "}}").map(|tag| (tag.len, tag.rewritten())),
            _ => Tag::read(rest, "%}").map(|tag| (tag.len, tag.statement())),
        };
        let Some((len, text)) = tag else { break };
        let raw = rest.starts_with("{%") && statement_name(&rest[..len]) == "raw";
        out.push_str(&text);
        rest = &rest[len..];
        if raw {
            let end = end_of_raw(rest);
            out.push_str(&rest[..end]);
            rest = &rest[end..];
        }
    }
    out.push_str(rest);
    out
}

fn next_tag(text: &str) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| matches!(pair, b"{{" | b"{%" | b"{#"))
}

/// Where the tag `{% endraw %}` begins.
fn end_of_raw(text: &str) -> usize {
    let starts = text.match_indices("{%").map(|(start, _)| start);
    starts.into_iter().find(|&start| statement_name(&text[start..]) == "endraw").unwrap_or(text.len())
}

/// The first word of a tag.
fn statement_name(tag: &str) -> &str {
    let inner = tag[2..].trim_start_matches(['-', '+']).trim_start();
    let end = inner.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(inner.len());
    &inner[..end]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Name,
    Open,
    Close,
    Operator,
}

#[derive(Debug, Clone, Copy)]
struct Token {
    kind: Kind,
    start: usize,
    end: usize,
}

/// A tag with its tokens.
struct Tag<'a> {
    source: &'a str,
    tokens: Vec<Token>,
    /// With both delimiters.
    len: usize,
}

impl<'a> Tag<'a> {
    /// The tag at the start of `source`; `None` if it never ends.
    fn read(source: &'a str, closing: &str) -> Option<Self> {
        let mut tokens = Vec::new();
        let (mut at, mut depth) = (2, 0_usize);
        if source[at..].starts_with(['-', '+']) {
            at += 1;
        }
        loop {
            let rest = &source[at..];
            let first = rest.chars().next()?;
            let signed = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if depth == 0 && signed.starts_with(closing) {
                return Some(Tag { source, tokens, len: source.len() - signed.len() + closing.len() });
            }
            if first.is_whitespace() {
                at += first.len_utf8();
                continue;
            }
            let (kind, len) = token_at(rest, first)?;
            match kind {
                Kind::Open => depth += 1,
                Kind::Close => depth = depth.saturating_sub(1),
                _ => {}
            }
            tokens.push(Token { kind, start: at, end: at + len });
            at += len;
        }
    }

    fn text(&self, token: Token) -> &'a str {
        &self.source[token.start..token.end]
    }

    /// `{% generation %}` marks for training what the assistant said, and is no Jinja. Like there, a block of its own keeps its variables.
    fn statement(&self) -> String {
        let replaced = match self.tokens.as_slice() {
            [only] => match self.text(*only) {
                "generation" => Some((only, "with")),
                "endgeneration" => Some((only, "endwith")),
                _ => None,
            },
            _ => None,
        };
        match replaced {
            Some((token, word)) => {
                format!("{} {word} {}", &self.source[..token.start], &self.source[token.end..self.len])
            }
            None => self.rewritten(),
        }
    }

    fn rewritten(&self) -> String {
        match (self.tokens.first(), self.tokens.last()) {
            (Some(first), Some(last)) => {
                let inner = self.with_filters(0..self.tokens.len(), 0);
                format!("{}{inner}{}", &self.source[..first.start], &self.source[last.end..self.len])
            }
            _ => self.source[..self.len].to_owned(),
        }
    }

    /// The text of some tokens, with filters in place of `%` where texts may be formatted and of `+` where they may have to be escaped.
    fn with_filters(&self, range: std::ops::Range<usize>, depth: usize) -> String {
        let mut out = String::new();
        let mut at = range.start;
        while at < range.end {
            let token = self.tokens[at];
            if at > range.start {
                out.push_str(&self.source[self.tokens[at - 1].end..token.start]);
            }
            if let Some((filter, end)) = self.replaced(at, range.clone()).filter(|_| depth < MAX_DEPTH) {
                let right = self.with_filters(at + 1..end, depth + 1);
                out.push_str(&format!("|{filter}({right})"));
                at = end;
                continue;
            }
            out.push_str(self.text(token));
            at += 1;
        }
        out
    }

    /// The filter for the operator `at`, and where its right side ends.
    fn replaced(&self, at: usize, range: std::ops::Range<usize>) -> Option<(&'static str, usize)> {
        let filter = match self.text(self.tokens[at]) {
            "%" => PERCENT,
            "+" if self.marks_safe() => PLUS,
            _ => return None,
        };
        if at == range.start || !self.ends_operand(at - 1) || !self.is_single(at, range.start) {
            return None;
        }
        let end = self.operand_end(at + 1, range.end)?;
        let binds_more =
            self.tokens.get(end).is_some_and(|&next| filter == PLUS && matches!(self.text(next), "*" | "/" | "//" | "%" | "~"));
        let right = &self.tokens[at + 1..end];
        let counts = right.len() == 1 && right[0].kind == Kind::Number && self.tokens[at - 1].kind != Kind::Text;
        (!counts && !binds_more).then_some((filter, end))
    }

    fn marks_safe(&self) -> bool {
        self.tokens.windows(2).any(|pair| self.text(pair[0]) == "|" && matches!(self.text(pair[1]), "safe" | "e" | "escape"))
    }

    /// Whether the left side of the operator is a single operand (a filter would bind more tightly than `*` does) and no number.
    fn is_single(&self, at: usize, first: usize) -> bool {
        if self.tokens[at - 1].kind == Kind::Number {
            return false;
        }
        let mut depth = 0_usize;
        for index in (first..at).rev() {
            let (token, text) = (self.tokens[index], self.text(self.tokens[index]));
            match token.kind {
                Kind::Close => depth += 1,
                Kind::Open if depth == 0 => return true,
                Kind::Open => depth -= 1,
                Kind::Operator if depth == 0 => match text {
                    "*" | "/" | "//" | "**" | "~" => return false,
                    "." | "|" | "%" => {}
                    // What is left of it is an operand of its own, or has become a filter.
                    "-" | "+" => return index > first && self.ends_operand(index - 1),
                    _ => return true,
                },
                Kind::Name if depth == 0 && is_keyword(text) => return true,
                _ => {}
            }
        }
        true
    }

    fn ends_operand(&self, index: usize) -> bool {
        match self.tokens[index].kind {
            Kind::Text | Kind::Number | Kind::Close => true,
            Kind::Name => !is_keyword(self.text(self.tokens[index])),
            Kind::Open | Kind::Operator => false,
        }
    }

    /// The end of the operand that begins at `at`: signs, a value, and what follows it without a space between operands.
    fn operand_end(&self, mut at: usize, end: usize) -> Option<usize> {
        while at < end && matches!(self.text(self.tokens[at]), "-" | "+") {
            at += 1;
        }
        match self.tokens.get(at)?.kind {
            Kind::Text => {
                while at < end && self.tokens[at].kind == Kind::Text {
                    at += 1;
                }
            }
            Kind::Open => at = self.group_end(at, end)?,
            Kind::Name | Kind::Number => at += 1,
            Kind::Close | Kind::Operator => return None,
        }
        while at < end {
            match self.text(self.tokens[at]) {
                "." | "|" if at + 1 < end => at += 2,
                "(" | "[" => at = self.group_end(at, end)?,
                "**" => return self.operand_end(at + 1, end),
                _ => break,
            }
        }
        Some(at)
    }

    fn group_end(&self, open: usize, end: usize) -> Option<usize> {
        let mut depth = 0_usize;
        for index in open..end {
            match self.tokens[index].kind {
                Kind::Open => depth += 1,
                Kind::Close if depth <= 1 => return Some(index + 1),
                Kind::Close => depth -= 1,
                _ => {}
            }
        }
        None
    }
}

/// Kind and length of the token at the start of `rest`; `None` for a text without an end.
fn token_at(rest: &str, first: char) -> Option<(Kind, usize)> {
    Some(match first {
        '\'' | '"' => (Kind::Text, text_len(rest, first)?),
        '0'..='9' => (Kind::Number, rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len())),
        '(' | '[' | '{' => (Kind::Open, 1),
        ')' | ']' | '}' => (Kind::Close, 1),
        _ if first.is_alphabetic() || first == '_' => {
            (Kind::Name, rest.find(|letter: char| !letter.is_alphanumeric() && letter != '_').unwrap_or(rest.len()))
        }
        _ if ["//", "**", "==", "!=", "<=", ">="].iter().any(|operator| rest.starts_with(operator)) => (Kind::Operator, 2),
        _ => (Kind::Operator, first.len_utf8()),
    })
}

fn text_len(rest: &str, quote: char) -> Option<usize> {
    let mut escaped = false;
    for (at, letter) in rest.char_indices().skip(1) {
        match letter {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            _ if letter == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

fn is_keyword(word: &str) -> bool {
    matches!(
        word,
        "if" | "elif"
            | "else"
            | "and"
            | "or"
            | "not"
            | "in"
            | "is"
            | "set"
            | "for"
            | "recursive"
            | "macro"
            | "call"
            | "filter"
            | "with"
            | "do"
    )
}
