//! Methods of Python's strings, lists and dictionaries that `minijinja-contrib` lacks or does otherwise.

use super::failed;
use minijinja::value::{Kwargs, Tuple, Value, ValueKind, from_args};
use minijinja::{Error, State};
use minijinja_contrib::pycompat;

/// The widest that a text is filled up to.
const MAX_WIDTH: usize = 1 << 16;

/// Calls the method `name` of `value`.
///
/// # Errors
/// For methods that Python's types do not have, or that its sandbox forbids (`append`, `update`), and for wrong arguments.
pub fn call(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => of_text(value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Seq | ValueKind::Iterable => of_list(value, name, args)?,
        ValueKind::Map if name == "copy" && args.is_empty() => Some(value.clone()),
        ValueKind::Number if name == "is_integer" && args.is_empty() => {
            Some(Value::from(f64::try_from(value.clone()).is_ok_and(|number| number.fract() == 0.0)))
        }
        _ => None,
    };
    match found {
        Some(result) => Ok(result),
        None => pycompat::unknown_method_callback(state, value, name, args),
    }
}

/// Arguments by position or by name.
struct Arguments<'a> {
    positional: &'a [Value],
    named: Kwargs,
}

impl<'a> Arguments<'a> {
    fn of(args: &'a [Value]) -> Result<Self, Error> {
        let (positional, named): (&[Value], Kwargs) = from_args(args)?;
        Ok(Arguments { positional, named })
    }

    /// `None` also where Python's `None` was given.
    fn get(&self, index: usize, name: &str) -> Result<Option<Value>, Error> {
        let named: Option<Value> = self.named.get(name)?;
        Ok(self.positional.get(index).cloned().or(named).filter(|value| !value.is_none() && !value.is_undefined()))
    }

    fn text(&self, index: usize, name: &str) -> Result<String, Error> {
        match self.get(index, name)? {
            Some(value) if value.kind() == ValueKind::String => Ok(value.to_string()),
            _ => Err(failed(format!("argument {} must be a string", index + 1))),
        }
    }

    fn number(&self, index: usize, name: &str) -> Result<Option<i64>, Error> {
        self.get(index, name)?.map(i64::try_from).transpose()
    }
}

fn of_text(text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let arguments = Arguments::of(args)?;
    Ok(Some(match name {
        "split" | "rsplit" => {
            let separator = arguments.get(0, "sep")?.map(|value| value.to_string());
            let most = arguments.number(1, "maxsplit")?.and_then(|count| usize::try_from(count).ok());
            split(text, separator.as_deref(), most, name == "rsplit")?
        }
        "partition" | "rpartition" => partition(text, &arguments.text(0, "sep")?, name == "rpartition")?,
        "removeprefix" => Value::from(text.strip_prefix(arguments.text(0, "prefix")?.as_str()).unwrap_or(text)),
        "removesuffix" => Value::from(text.strip_suffix(arguments.text(0, "suffix")?.as_str()).unwrap_or(text)),
        "find" | "rfind" | "index" | "rindex" | "count" => search(text, name, &arguments)?,
        "startswith" | "endswith" if args.len() > 1 => {
            let (window, _) = window(text, &arguments)?;
            let part = arguments.text(0, "prefix")?;
            Value::from(if name == "startswith" { window.starts_with(&part) } else { window.ends_with(&part) })
        }
        "ljust" | "rjust" | "center" | "zfill" => fill(text, name, &arguments)?,
        "splitlines" => lines(text, arguments.get(0, "keepends")?.is_some_and(|keep| keep.is_true())),
        "title" => Value::from(title(text)),
        "swapcase" => {
            let swapped = |letter: char| -> String {
                if letter.is_uppercase() { letter.to_lowercase().collect() } else { letter.to_uppercase().collect() }
            };
            Value::from(text.chars().map(swapped).collect::<String>())
        }
        "casefold" => Value::from(text.to_lowercase()),
        "expandtabs" => {
            let width = arguments.number(0, "tabsize")?.unwrap_or(8);
            Value::from(expand_tabs(text, usize::try_from(width).unwrap_or(0).min(MAX_WIDTH)))
        }
        "isdecimal" => Value::from(!text.is_empty() && text.chars().all(|letter| letter.is_ascii_digit())),
        "isidentifier" => {
            let mut letters = text.chars();
            let begins = letters.next().is_some_and(|first| first.is_alphabetic() || first == '_');
            Value::from(begins && letters.all(|letter| letter.is_alphanumeric() || letter == '_'))
        }
        "istitle" => Value::from(text == title(text) && text.chars().any(char::is_alphabetic)),
        "isprintable" => Value::from(!text.chars().any(char::is_control)),
        _ => return Ok(None),
    }))
}

fn of_list(list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    Ok(Some(match (name, args) {
        ("copy", []) => list.clone(),
        ("count", [wanted]) => Value::from(list.try_iter()?.filter(|item| item == wanted).count()),
        ("index", [wanted]) => match list.try_iter()?.position(|item| item == *wanted) {
            Some(index) => Value::from(index),
            None => return Err(failed("the list has no such item")),
        },
        _ => return Ok(None),
    }))
}

fn split(text: &str, separator: Option<&str>, most: Option<usize>, from_right: bool) -> Result<Value, Error> {
    let most = most.map_or(usize::MAX, |count| count.saturating_add(1));
    let parts: Vec<&str> = match (separator, from_right) {
        (Some(""), _) => return Err(failed("empty separator")),
        (Some(separator), false) => text.splitn(most, separator).collect(),
        (Some(separator), true) => {
            let mut parts: Vec<&str> = text.rsplitn(most, separator).collect();
            parts.reverse();
            parts
        }
        (None, false) => words(text, most),
        (None, true) => words_from_right(text, most),
    };
    Ok(parts.into_iter().map(Value::from).collect())
}

/// At most `most` parts between runs of white space; the last one keeps the white space inside it.
fn words(text: &str, most: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_start());
    while !rest.is_empty() {
        let end = rest.find(char::is_whitespace).filter(|_| parts.len() + 1 < most);
        let Some(end) = end else {
            parts.push(rest);
            break;
        };
        parts.push(&rest[..end]);
        rest = rest[end..].trim_start();
    }
    parts
}

fn words_from_right(text: &str, most: usize) -> Vec<&str> {
    let (mut parts, mut rest) = (Vec::new(), text.trim_end());
    while !rest.is_empty() {
        let space = rest.char_indices().rev().find(|(_, letter)| letter.is_whitespace()).filter(|_| parts.len() + 1 < most);
        let Some((at, letter)) = space else {
            parts.push(rest);
            break;
        };
        parts.push(&rest[at + letter.len_utf8()..]);
        rest = rest[..at].trim_end();
    }
    parts.reverse();
    parts
}

fn partition(text: &str, separator: &str, from_right: bool) -> Result<Value, Error> {
    if separator.is_empty() {
        return Err(failed("empty separator"));
    }
    let cut = if from_right { text.rsplit_once(separator) } else { text.split_once(separator) };
    let parts = match cut {
        Some((before, after)) => [before, separator, after],
        None if from_right => ["", "", text],
        None => [text, "", ""],
    };
    Ok(Value::from(Tuple::from(parts.map(Value::from))))
}

/// What the arguments `start` and `end` (the second and third) leave of the text, and how many characters come before it.
fn window<'a>(text: &'a str, arguments: &Arguments<'_>) -> Result<(&'a str, usize), Error> {
    let length = text.chars().count();
    let bound = |at: i64| if at < 0 { length.saturating_sub(at.unsigned_abs() as usize) } else { (at as usize).min(length) };
    let start = arguments.number(1, "start")?.map_or(0, bound);
    let end = arguments.number(2, "end")?.map_or(length, bound).max(start);
    let byte = |at: usize| text.char_indices().nth(at).map_or(text.len(), |(byte, _)| byte);
    Ok((&text[byte(start)..byte(end)], start))
}

fn search(text: &str, name: &str, arguments: &Arguments<'_>) -> Result<Value, Error> {
    let wanted = arguments.text(0, "sub")?;
    let (window, start) = window(text, arguments)?;
    if name == "count" {
        return Ok(Value::from(window.matches(wanted.as_str()).count()));
    }
    let found = if name.starts_with('r') { window.rfind(&wanted) } else { window.find(&wanted) };
    match found {
        Some(at) => Ok(Value::from(start + window[..at].chars().count())),
        None if name.ends_with("index") => Err(failed("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn fill(text: &str, name: &str, arguments: &Arguments<'_>) -> Result<Value, Error> {
    let width = usize::try_from(arguments.number(0, "width")?.unwrap_or(0)).unwrap_or(0);
    if width > MAX_WIDTH {
        return Err(failed(format!("a text cannot be filled up to {width} characters")));
    }
    let length = text.chars().count();
    let missing = width.saturating_sub(length);
    if name == "zfill" {
        let (sign, digits) = if text.starts_with(['-', '+']) { text.split_at(1) } else { ("", text) };
        return Ok(Value::from(format!("{sign}{}{digits}", "0".repeat(missing))));
    }
    let filler = arguments.get(1, "fillchar")?.map_or(" ".to_owned(), |value| value.to_string());
    let left = match name {
        "ljust" => 0,
        "rjust" => missing,
        // As CPython has it: the odd one goes left where the width is odd.
        _ => missing / 2 + (missing & width & 1),
    };
    Ok(Value::from(format!("{}{text}{}", filler.repeat(left), filler.repeat(missing - left))))
}

fn lines(text: &str, keep_ends: bool) -> Value {
    const ENDS: [char; 10] = ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let (mut lines, mut rest) = (Vec::new(), text);
    while let Some(at) = rest.find(ENDS) {
        let end = rest[at..].chars().next().map_or(0, char::len_utf8);
        let end = at + if rest[at..].starts_with("\r\n") { 2 } else { end };
        lines.push(Value::from(&rest[..if keep_ends { end } else { at }]));
        rest = &rest[end..];
    }
    if !rest.is_empty() {
        lines.push(Value::from(rest));
    }
    Value::from(lines)
}

/// Python's: every run of letters begins with a capital, whatever is before it.
fn title(text: &str) -> String {
    let (mut out, mut inside) = (String::new(), false);
    for letter in text.chars() {
        match letter {
            _ if !letter.is_alphabetic() => out.push(letter),
            _ if inside => out.extend(letter.to_lowercase()),
            _ => out.extend(letter.to_uppercase()),
        }
        inside = letter.is_alphabetic();
    }
    out
}

fn expand_tabs(text: &str, width: usize) -> String {
    let (mut out, mut column) = (String::new(), 0);
    for letter in text.chars() {
        match letter {
            '\t' if width > 0 => {
                let spaces = width - column % width;
                out.extend(std::iter::repeat_n(' ', spaces));
                column += spaces;
            }
            '\t' => {}
            _ => {
                out.push(letter);
                column = if matches!(letter, '\n' | '\r') { 0 } else { column + 1 };
            }
        }
    }
    out
}
