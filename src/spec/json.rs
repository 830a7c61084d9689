//! Reading `config.json`: every getter says which key, what it may be and what it was.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The object in a `config.json`, or one inside it. A key that is null counts as absent.
#[derive(Debug, Clone)]
pub struct ConfigJson {
    file: String,
    /// What errors put before a key: where this object is in the file.
    path: String,
    object: Map<String, Value>,
}

impl ConfigJson {
    /// Parses `text`; `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Json`] if it is not a JSON object.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        match parse_json(text, file)? {
            Value::Object(object) => Ok(ConfigJson { file: file.to_owned(), path: String::new(), object }),
            other => Err(Error::Json { file: file.to_owned(), message: format!("expected an object, found {}", shown(&other)) }),
        }
    }

    /// The first of `keys` that is there, or `keys[0]`.
    pub fn present<'k>(&self, keys: &[&'k str]) -> &'k str {
        keys.iter().copied().find(|key| self.has(key)).unwrap_or(keys[0])
    }

    /// The object under `key`, or nothing.
    pub fn section(&self, key: &str) -> Result<Option<ConfigJson>> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(object)) => {
                let path = format!("{}{key}.", self.path);
                Ok(Some(ConfigJson { file: self.file.clone(), path, object: object.clone() }))
            }
            Some(_) => Err(self.invalid(key, "an object or null")),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.object.is_empty()
    }

    /// Whether the key has this text.
    pub fn is(&self, key: &str, text: &str) -> bool {
        self.get(key).is_some_and(|value| value == text)
    }

    /// Whether the key is there and not null.
    pub fn has(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    /// Whether the key is there with the value null.
    pub fn is_null(&self, key: &str) -> bool {
        self.object.get(key).is_some_and(Value::is_null)
    }

    /// The keys whose values are objects.
    pub fn sections(&self) -> impl Iterator<Item = &str> {
        self.object.iter().filter(|(_, value)| value.is_object()).map(|(key, _)| key.as_str())
    }

    /// An integer from 1 to `max`.
    pub fn usize(&self, key: &str, max: usize) -> Result<usize> {
        self.opt_usize(key, max)?.ok_or_else(|| self.invalid(key, integer_range(1, max)))
    }

    /// An integer from 1 to `max`, or `default` where the key is absent.
    pub fn usize_or(&self, key: &str, default: usize, max: usize) -> Result<usize> {
        Ok(self.opt_usize(key, max)?.unwrap_or(default))
    }

    /// An integer from 1 to `max`, or nothing.
    pub fn opt_usize(&self, key: &str, max: usize) -> Result<Option<usize>> {
        self.integer(key, 1..=max)
    }

    /// An integer from 0 to `max`, or `default` where the key is absent.
    pub fn count_or(&self, key: &str, default: usize, max: usize) -> Result<usize> {
        Ok(self.integer(key, 0..=max)?.unwrap_or(default))
    }

    /// A list of integers from 0 to `max`, or nothing.
    pub fn opt_counts(&self, key: &str, max: usize) -> Result<Option<Vec<usize>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number =
            |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number <= max);
        let numbers = value.as_array().and_then(|values| values.iter().map(number).collect());
        numbers.map(Some).ok_or_else(|| self.invalid(key, format!("a list of integers from 0 to {max}")))
    }

    /// A list of lists of integers from 0 to `max`, or nothing.
    pub fn opt_count_lists(&self, key: &str, max: usize) -> Result<Option<Vec<Vec<usize>>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let number =
            |value: &Value| value.as_u64().and_then(|number| usize::try_from(number).ok()).filter(|number| *number <= max);
        let list = |value: &Value| value.as_array().and_then(|values| values.iter().map(number).collect());
        let lists = value.as_array().and_then(|values| values.iter().map(list).collect());
        lists.map(Some).ok_or_else(|| self.invalid(key, format!("a list of lists of integers from 0 to {max}")))
    }

    /// A list of `len` numbers in `range`.
    pub fn numbers(&self, key: &str, len: usize, range: RangeInclusive<f64>) -> Result<Vec<f64>> {
        let number = |value: &Value| value.as_f64().filter(|number| range.contains(number));
        let numbers: Option<Vec<f64>> =
            self.get(key).and_then(Value::as_array).and_then(|values| values.iter().map(number).collect());
        let expected = || format!("a list of {len} numbers from {:?} to {:?}", range.start(), range.end());
        numbers.filter(|numbers| numbers.len() == len).ok_or_else(|| self.invalid(key, expected()))
    }

    /// Two numbers from 0 on, the lower first, where `Infinity` is one too.
    pub fn bounds_or(&self, key: &str, default: [f64; 2]) -> Result<[f64; 2]> {
        let Some(value) = self.get(key) else { return Ok(default) };
        let number = |value: &Value| value.as_f64().or((value == "Infinity").then_some(f64::INFINITY));
        let bounds: Option<Vec<f64>> = value.as_array().and_then(|values| values.iter().map(number).collect());
        match bounds.as_deref() {
            Some(&[least, most]) if least >= 0.0 && least <= most => Ok([least, most]),
            _ => Err(self.invalid(key, "two numbers from 0.0 on, the lower first")),
        }
    }

    /// A list of strings out of `accepted`, or nothing.
    pub fn opt_choices(&self, key: &str, accepted: &[&'static str]) -> Result<Option<Vec<&'static str>>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        let choice = |value: &Value| accepted.iter().copied().find(|accepted| value == accepted);
        let choices = value.as_array().and_then(|values| values.iter().map(choice).collect());
        choices.map(Some).ok_or_else(|| self.invalid(key, format!("a list of {}", quoted(accepted))))
    }

    /// A number in `range`.
    pub fn f64(&self, key: &str, range: RangeInclusive<f64>) -> Result<f64> {
        let found = self.opt_f64(key, range.clone())?;
        found.ok_or_else(|| self.invalid(key, number_range(&range)))
    }

    /// A number in `range`, or `default` where the key is absent.
    pub fn f64_or(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64> {
        Ok(self.opt_f64(key, range)?.unwrap_or(default))
    }

    /// A number in `range`, or nothing.
    pub fn opt_f64(&self, key: &str, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_f64().filter(|number| range.contains(number)) {
            Some(number) => Ok(Some(number)),
            None => Err(self.invalid(key, number_range(&range))),
        }
    }

    /// `true` or `false`, or `default` where the key is absent.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.invalid(key, "true or false"))
    }

    /// As [`bool_or`](Self::bool_or), and a number counts as true unless it is zero.
    pub fn flag_or(&self, key: &str, default: bool) -> Result<bool> {
        match self.get(key).and_then(Value::as_f64) {
            Some(number) => Ok(number != 0.0),
            None => self.bool_or(key, default),
        }
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.get(key).and_then(Value::as_str).ok_or_else(|| self.invalid(key, "a string"))
    }

    /// One of the strings `accepted`, or the first of them where the key is absent.
    pub fn choice(&self, key: &str, accepted: &[&'static str]) -> Result<&'static str> {
        let Some(value) = self.get(key) else { return Ok(accepted[0]) };
        accepted.iter().copied().find(|accepted| value == accepted).ok_or_else(|| self.invalid(key, quoted(accepted)))
    }

    /// Refuses anything but `only`, or nothing, under a key for what no published model uses.
    pub fn unsupported(&self, key: &str, only: &Value) -> Result<()> {
        match self.get(key) {
            Some(value) if value != only => Err(self.invalid(key, format!("{only} or absent"))),
            _ => Ok(()),
        }
    }

    /// The error that says what `key` must be, and what this file says instead.
    pub fn invalid(&self, key: &str, expected: impl Into<String>) -> Error {
        self.invalid_value(key, expected, self.object.get(key).map_or_else(|| "nothing".to_owned(), shown))
    }

    /// As [`invalid`](Self::invalid), for a value that is derived.
    pub fn invalid_value(&self, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        let key = format!("{}{key}", self.path);
        Error::Config { file: self.file.clone(), key, expected: expected.into(), found: found.into() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn integer(&self, key: &str, range: RangeInclusive<usize>) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => Err(self.invalid(key, integer_range(*range.start(), *range.end()))),
        }
    }
}

/// Parses JSON as other programs write it: with a byte order mark in front, and with the words `Infinity`, `-Infinity` and `NaN` of Python's
/// `json`, which become strings here, so that no number is made up where one is needed.
///
/// # Errors
/// [`Error::Json`], which says so where the file is something else altogether.
pub fn parse_json(text: &str, file: &str) -> Result<Value> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    serde_json::from_str(text).or_else(|error| {
        let words = with_quoted_words(text);
        serde_json::from_str(&words).map_err(|_| {
            let message = foreign_text(text).map_or_else(|| error.to_string(), str::to_owned);
            Error::Json { file: file.to_owned(), message }
        })
    })
}

/// What a file in place of JSON is, where its beginning tells.
pub(crate) fn foreign_text(text: &str) -> Option<&'static str> {
    let start = text.trim_start();
    if start.starts_with("version https://git-lfs") {
        Some("it is a Git LFS pointer, not the file itself: fetch it with `git lfs pull`")
    } else if start.starts_with('<') {
        Some("it is a web page, not the file itself: a download went wrong, fetch it again")
    } else if start.is_empty() {
        Some("it is empty")
    } else {
        None
    }
}

/// Puts quotes around the words for numbers that JSON does not have, outside of strings.
fn with_quoted_words(text: &str) -> String {
    const WORDS: [&str; 3] = ["-Infinity", "Infinity", "NaN"];
    let mut quoted = String::with_capacity(text.len());
    let mut rest = text;
    let mut in_string = false;
    while let Some(character) = rest.chars().next() {
        if let Some(word) = WORDS.into_iter().find(|word| !in_string && rest.starts_with(word)) {
            quoted.extend(["\"", word, "\""]);
            rest = &rest[word.len()..];
            continue;
        }
        let mut len = character.len_utf8();
        match character {
            '"' => in_string = !in_string,
            // With what it escapes.
            '\\' if in_string => len += rest[len..].chars().next().map_or(0, char::len_utf8),
            _ => {}
        }
        quoted.push_str(&rest[..len]);
        rest = &rest[len..];
    }
    quoted
}

fn integer_range(min: usize, max: usize) -> String {
    format!("an integer from {min} to {max}")
}

fn number_range(range: &RangeInclusive<f64>) -> String {
    format!("a number from {:?} to {:?}", range.start(), range.end())
}

/// "`a`, `b` or `c`"
fn quoted(accepted: &[&str]) -> String {
    let names: Vec<String> = accepted.iter().map(|name| format!("`{name}`")).collect();
    match names.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} or {last}", rest.join(", ")),
        _ => names.concat(),
    }
}

/// A JSON value, cut to a length that fits into a message.
fn shown(value: &Value) -> String {
    const MAX_CHARS: usize = 60;
    let text = value.to_string();
    match text.char_indices().nth(MAX_CHARS) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text,
    }
}
