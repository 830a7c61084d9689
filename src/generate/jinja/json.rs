//! Python's `json.dumps` and its way of writing numbers.

use super::failed;
use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, ErrorKind};
use std::fmt::Write;

/// Python gives up at about a thousand; no conversation comes near.
const MAX_DEPTH: usize = 200;
/// What `indent` may come to.
const MAX_INDENT: usize = 64;

/// The filter `tojson` of transformers: nothing is escaped for HTML, and letters stay as they are unless `ensure_ascii` is set.
///
/// # Errors
/// For undefined values, functions and lists nested without end.
pub fn tojson(value: &Value, positional: &[Value], options: &Kwargs) -> Result<Value, Error> {
    let option = |index: usize, name: &str| -> Result<Option<Value>, Error> {
        let named: Option<Value> = options.get(name)?;
        Ok(named.or_else(|| positional.get(index).cloned()).filter(|value| !value.is_none() && !value.is_undefined()))
    };
    let indent = match option(1, "indent")? {
        Some(text) if text.kind() == ValueKind::String => Some(text.to_string()),
        Some(width) => Some(" ".repeat(i64::try_from(width)?.clamp(0, MAX_INDENT as i64) as usize)),
        None => None,
    };
    let (mut comma, mut colon) = (if indent.is_some() { "," } else { ", " }.to_owned(), ": ".to_owned());
    if let Some(pair) = option(2, "separators")? {
        let parts: Vec<Value> = pair.try_iter()?.collect();
        let [first, second] = parts.as_slice() else { return Err(failed("separators must be two texts")) };
        (comma, colon) = (first.to_string(), second.to_string());
    }
    let truth = |value: Option<Value>| value.is_some_and(|value| value.is_true());
    let ensure_ascii = truth(option(0, "ensure_ascii")?);
    let sort_keys = truth(option(3, "sort_keys")?);
    let mut writer = Writer { out: String::new(), ensure_ascii, indent, comma, colon, sort_keys };
    writer.value(value, 0)?;
    options.assert_all_used()?;
    Ok(Value::from(writer.out))
}

struct Writer {
    out: String,
    ensure_ascii: bool,
    indent: Option<String>,
    comma: String,
    colon: String,
    sort_keys: bool,
}

impl Writer {
    fn value(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(failed("cannot serialize to JSON: nested too deeply"));
        }
        match value.kind() {
            ValueKind::None => self.out.push_str("null"),
            ValueKind::Bool => self.out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => self.out.push_str(&json_number(value)),
            ValueKind::String => self.text(value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => self.list(value, depth)?,
            ValueKind::Map => self.map(value, depth)?,
            other => {
                return Err(Error::new(
                    ErrorKind::BadSerialization,
                    format!("a value of the kind {other} cannot be written as JSON"),
                ));
            }
        }
        Ok(())
    }

    fn list(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut empty = true;
        self.out.push('[');
        for item in value.try_iter()? {
            self.between(&mut empty, depth + 1);
            self.value(&item, depth + 1)?;
        }
        self.close(empty, depth, ']');
        Ok(())
    }

    fn map(&mut self, value: &Value, depth: usize) -> Result<(), Error> {
        let mut pairs = Vec::new();
        for key in value.try_iter()? {
            let item = value.get_item(&key)?;
            let name = match key.kind() {
                ValueKind::None => "null".to_owned(),
                ValueKind::Bool => if key.is_true() { "true" } else { "false" }.to_owned(),
                ValueKind::Number => json_number(&key),
                _ => key.to_string(),
            };
            pairs.push((name, item));
        }
        if self.sort_keys {
            pairs.sort_by(|left, right| left.0.cmp(&right.0));
        }
        let mut empty = true;
        self.out.push('{');
        for (name, item) in &pairs {
            self.between(&mut empty, depth + 1);
            self.text(name);
            self.out.push_str(&self.colon);
            self.value(item, depth + 1)?;
        }
        self.close(empty, depth, '}');
        Ok(())
    }

    fn between(&mut self, empty: &mut bool, depth: usize) {
        if !std::mem::take(empty) {
            self.out.push_str(&self.comma);
        }
        self.new_line(depth);
    }

    fn close(&mut self, empty: bool, depth: usize, bracket: char) {
        if !empty {
            self.new_line(depth);
        }
        self.out.push(bracket);
    }

    fn new_line(&mut self, depth: usize) {
        if let Some(indent) = &self.indent {
            self.out.push('\n');
            self.out.extend(std::iter::repeat_n(indent.as_str(), depth));
        }
    }

    fn text(&mut self, text: &str) {
        self.out.push('"');
        for letter in text.chars() {
            match letter {
                '"' => self.out.push_str("\\\""),
                '\\' => self.out.push_str("\\\\"),
                '\n' => self.out.push_str("\\n"),
                '\r' => self.out.push_str("\\r"),
                '\t' => self.out.push_str("\\t"),
                '\u{8}' => self.out.push_str("\\b"),
                '\u{c}' => self.out.push_str("\\f"),
                _ if letter < ' ' || (self.ensure_ascii && !(' '..='~').contains(&letter)) => {
                    for unit in letter.encode_utf16(&mut [0; 2]) {
                        let _ = write!(self.out, "\\u{unit:04x}");
                    }
                }
                _ => self.out.push(letter),
            }
        }
        self.out.push('"');
    }
}

fn json_number(number: &Value) -> String {
    match f64::try_from(number.clone()) {
        Ok(value) if !number.is_integer() && value.is_nan() => "NaN".to_owned(),
        Ok(value) if !number.is_integer() && value.is_infinite() => if value < 0.0 { "-Infinity" } else { "Infinity" }.to_owned(),
        Ok(value) if !number.is_integer() => float_text(value),
        _ => number.to_string(),
    }
}

/// Python's `repr` of a float: the shortest digits that give the same number, with an exponent below 1e-4 and from 1e16 on.
pub fn float_text(value: f64) -> String {
    if value.is_nan() {
        return "nan".to_owned();
    }
    if value.is_infinite() {
        return if value < 0.0 { "-inf" } else { "inf" }.to_owned();
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if value == 0.0 || (-4..16).contains(&exponent) {
        let text = value.to_string();
        return if text.contains('.') { text } else { text + ".0" };
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}
