//! Reading `config.json`: every getter says which key, what it may be and what it was.

use crate::{Error, Result};
use serde_json::{Map, Value};
use std::ops::RangeInclusive;

/// The object in a `config.json`. A key that is null counts as absent.
#[derive(Debug, Clone)]
pub struct ConfigJson {
    file: String,
    object: Map<String, Value>,
}

impl ConfigJson {
    /// Parses `text`; `file` is what errors call it.
    ///
    /// # Errors
    /// [`Error::Json`] if it is not a JSON object.
    pub fn parse(text: &str, file: &str) -> Result<Self> {
        let json_error = |message: String| Error::Json { file: file.to_owned(), message };
        match serde_json::from_str(text).map_err(|error| json_error(error.to_string()))? {
            Value::Object(object) => Ok(ConfigJson { file: file.to_owned(), object }),
            other => Err(json_error(format!("expected an object, found {}", shown(&other)))),
        }
    }

    /// An integer from 1 to `max`.
    pub fn usize(&self, key: &str, max: usize) -> Result<usize> {
        self.opt_usize(key, max)?.ok_or_else(|| self.invalid(key, integer_range(max)))
    }

    /// An integer from 1 to `max`, or `default` where the key is absent.
    pub fn usize_or(&self, key: &str, default: usize, max: usize) -> Result<usize> {
        Ok(self.opt_usize(key, max)?.unwrap_or(default))
    }

    /// An integer from 1 to `max`, or nothing.
    pub fn opt_usize(&self, key: &str, max: usize) -> Result<Option<usize>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        match value.as_u64().and_then(|number| usize::try_from(number).ok()) {
            Some(number) if (1..=max).contains(&number) => Ok(Some(number)),
            _ => Err(self.invalid(key, integer_range(max))),
        }
    }

    /// A number in `range`, or `default` where the key is absent.
    pub fn f64_or(&self, key: &str, default: f64, range: RangeInclusive<f64>) -> Result<f64> {
        Ok(self.number(key, self.get(key), range)?.unwrap_or(default))
    }

    /// `true` or `false`, or `default` where the key is absent.
    pub fn bool_or(&self, key: &str, default: bool) -> Result<bool> {
        let Some(value) = self.get(key) else { return Ok(default) };
        value.as_bool().ok_or_else(|| self.invalid(key, "true or false"))
    }

    /// A string.
    pub fn str(&self, key: &str) -> Result<&str> {
        self.get(key).and_then(Value::as_str).ok_or_else(|| self.invalid(key, "a string"))
    }

    /// A string, or `default` where the key is absent.
    pub fn str_or<'a>(&'a self, key: &str, default: &'a str) -> Result<&'a str> {
        if self.get(key).is_some() { self.str(key) } else { Ok(default) }
    }

    /// The base of the rotary embedding: `rope_theta`, or the same under `rope_parameters`, or `default`.
    ///
    /// # Errors
    /// [`Error::Config`] if the rotary embedding is scaled or partial.
    pub fn rope_theta(&self, default: f64) -> Result<f64> {
        const RANGE: RangeInclusive<f64> = 1.0..=1e12;
        let mut theta = self.number("rope_theta", self.get("rope_theta"), RANGE)?;
        for key in ["rope_scaling", "rope_parameters"] {
            let Some(value) = self.get(key) else { continue };
            let Value::Object(rope) = value else { return Err(self.invalid(key, "an object or null")) };
            for kind in ["rope_type", "type"] {
                let unscaled = rope.get(kind).is_none_or(|kind| kind.is_null() || kind == "default");
                if !unscaled {
                    return Err(self.invalid_value(&format!("{key}.{kind}"), "`default` or null", shown(&rope[kind])));
                }
            }
            if let Some((name, _)) = rope.iter().find(|(_, value)| value.is_object()) {
                let expected = "one set of values for all layers";
                return Err(self.invalid_value(key, expected, format!("a set of its own for `{name}`")));
            }
            let partial = format!("{key}.partial_rotary_factor");
            self.number(&partial, rope.get("partial_rotary_factor"), 1.0..=1.0)?;
            let nested = self.number(&format!("{key}.rope_theta"), rope.get("rope_theta"), RANGE)?;
            theta = theta.or(nested);
        }
        Ok(theta.unwrap_or(default))
    }

    /// The error that says what `key` must be, and what this file says instead.
    pub fn invalid(&self, key: &str, expected: impl Into<String>) -> Error {
        self.invalid_value(key, expected, self.object.get(key).map_or_else(|| "nothing".to_owned(), shown))
    }

    /// As [`invalid`](Self::invalid), for a value that is derived or nested.
    pub fn invalid_value(&self, key: &str, expected: impl Into<String>, found: impl Into<String>) -> Error {
        Error::Config { file: self.file.clone(), key: key.to_owned(), expected: expected.into(), found: found.into() }
    }

    fn get(&self, key: &str) -> Option<&Value> {
        self.object.get(key).filter(|value| !value.is_null())
    }

    fn number(&self, key: &str, value: Option<&Value>, range: RangeInclusive<f64>) -> Result<Option<f64>> {
        let Some(value) = value.filter(|value| !value.is_null()) else { return Ok(None) };
        match value.as_f64() {
            Some(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let expected = if range.start() == range.end() {
                    format!("{:?}", range.start())
                } else {
                    format!("a number from {:?} to {:?}", range.start(), range.end())
                };
                Err(self.invalid_value(key, expected, shown(value)))
            }
        }
    }
}

fn integer_range(max: usize) -> String {
    format!("an integer from 1 to {max}")
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
