//! Filters and tests that Jinja2 has and `minijinja` lacks, or does otherwise.

use super::source::{PERCENT, PLUS};
use super::{failed, json};
use minijinja::formatting::{FormatStyle, format};
use minijinja::value::{Kwargs, Rest, Value, ValueKind};
use minijinja::{Environment, Error, State};

pub fn add_to(environment: &mut Environment<'_>) {
    minijinja_contrib::add_to_environment(environment);
    environment.add_filter("tojson", |value: &Value, positional: Rest<Value>, options: Kwargs| {
        json::tojson(value, &positional, &options)
    });
    environment.add_filter("string", |value: &Value| text_of(value));
    environment.add_filter(PERCENT, percent);
    environment.add_filter("wordcount", |text: &str| text.split_whitespace().count());
    environment.add_filter("default", default);
    environment.add_filter("d", default);
    environment.add_filter("int", int);
    environment.add_filter("float", float);
    environment.add_filter(PLUS, plus);
    environment.add_filter("truncate", truncate);
    environment.add_function("dict", dict);
    environment.add_function("cycler", |items: Rest<Value>| minijinja_contrib::globals::cycler(items.to_vec()));
    environment.add_filter("center", |text: &str, width: Option<usize>| center(text, width.unwrap_or(80)));
    let escaped =
        |value: &Value| if value.is_safe() { value.clone() } else { Value::from_safe_string(escape(&value.to_string())) };
    environment.add_filter("e", escaped);
    environment.add_filter("escape", escaped);
    environment.add_filter("forceescape", |value: &Value| Value::from_safe_string(escape(&value.to_string())));
    environment.add_test("iterable", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined)
    });
    environment.add_test("sequence", |value: &Value| {
        matches!(value.kind(), ValueKind::String | ValueKind::Seq | ValueKind::Map | ValueKind::Iterable | ValueKind::Undefined)
    });
    environment.add_test("callable", |value: &Value| value.kind() == ValueKind::Plain);
    environment.set_formatter(|out, _, value| match value.kind() {
        ValueKind::Undefined => Ok(()),
        ValueKind::Number if !value.is_integer() => write!(out, "{}", text_of(value)).map_err(Error::from),
        _ => write!(out, "{value}").map_err(Error::from),
    });
}

/// Python's `str`.
fn text_of(value: &Value) -> Value {
    match f64::try_from(value.clone()) {
        Ok(number) if value.kind() == ValueKind::Number && !value.is_integer() => Value::from(json::float_text(number)),
        _ if value.kind() == ValueKind::String => value.clone(),
        _ => Value::from(value.to_string()),
    }
}

/// Python's `%`: of two numbers the remainder with the sign of the right one, of a text and its arguments the formatted text.
fn percent(left: &Value, right: &Value) -> Result<Value, Error> {
    if let Some(text) = left.as_str() {
        let arguments: Vec<Value> = match right.kind() {
            _ if right.is_tuple() => right.try_iter()?.collect(),
            _ => vec![right.clone()],
        };
        let (text, arguments) = with_repr(text, arguments);
        return format(FormatStyle::Printf, &text, &arguments).map(Value::from);
    }
    if left.is_integer() && right.is_integer() {
        let (left, right) = (i128::try_from(left.clone())?, i128::try_from(right.clone())?);
        let remainder = left.checked_rem(right).ok_or_else(|| failed("integer modulo by zero"))?;
        let signs_differ = remainder != 0 && (remainder < 0) != (right < 0);
        return Ok(Value::from(if signs_differ { remainder + right } else { remainder }));
    }
    let number = |value: &Value| {
        f64::try_from(value.clone())
            .map_err(|_| failed(format!("tried to use % operator on unsupported types {} and {}", left.kind(), right.kind())))
    };
    let (left, right) = (number(left)?, number(right)?);
    if right == 0.0 {
        return Err(failed("float modulo by zero"));
    }
    let remainder = left % right;
    Ok(Value::from(if remainder != 0.0 && (remainder < 0.0) != (right < 0.0) { remainder + right } else { remainder }))
}

/// Python's `%r`: `%s` of the argument as Python code.
fn with_repr(text: &str, mut arguments: Vec<Value>) -> (String, Vec<Value>) {
    let (mut out, mut inside, mut in_key, mut index) = (String::with_capacity(text.len()), false, false, 0);
    for letter in text.chars() {
        in_key = (in_key || (inside && letter == '(')) && letter != ')';
        let kept = match (inside && !in_key, letter) {
            (true, 'r' | 'a') => {
                if let Some(argument) = arguments.get_mut(index) {
                    *argument = Value::from(format!("{argument:?}"));
                }
                's'
            }
            _ => letter,
        };
        match (inside, letter) {
            _ if in_key => {}
            (false, '%') => inside = true,
            (true, '%') => inside = false,
            (true, _) if letter.is_alphabetic() => (inside, index) = (false, index + 1),
            _ => {}
        }
        out.push(kept);
    }
    (out, arguments)
}

fn center(text: &str, width: usize) -> String {
    let missing = width.min(1 << 16).saturating_sub(text.chars().count());
    let left = missing / 2 + (missing & width & 1);
    format!("{}{text}{}", " ".repeat(left), " ".repeat(missing - left))
}

fn default(value: &Value, other: Option<Value>, boolean: Option<bool>, named: Kwargs) -> Result<Value, Error> {
    let other = other.or(named.get("default_value")?).unwrap_or_else(|| Value::from(""));
    let boolean = boolean.or(named.get("boolean")?).unwrap_or(false);
    named.assert_all_used()?;
    Ok(if value.is_undefined() || (boolean && !value.is_true()) { other } else { value.clone() })
}

/// Python's way with what is no number: the default, 0 unless another is given.
fn int(state: &State, value: &Value, default: Option<Value>, base: Option<u32>, named: Kwargs) -> Result<Value, Error> {
    let default = default.or(named.get("default")?).unwrap_or_else(|| Value::from(0));
    minijinja::filters::int(state, value, Some(default), base, named)
}

fn float(state: &State, value: &Value, default: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let default = default.or(named.get("default")?).unwrap_or_else(|| Value::from(0.0));
    minijinja::filters::float(state, value, Some(default), named)
}

/// A text of at most `length` characters and `leeway` more, cut at a space unless `killwords` is set, with `end` after the cut.
fn truncate(text: &str, positional: Rest<Value>, named: Kwargs) -> Result<String, Error> {
    let option =
        |index: usize, name: &str| -> Result<Option<Value>, Error> { Ok(positional.get(index).cloned().or(named.get(name)?)) };
    let number = |value: Option<Value>, default: usize| value.map_or(Ok(default), usize::try_from);
    let length = number(option(0, "length")?, 255)?;
    let kill_words = option(1, "killwords")?.is_some_and(|value| value.is_true());
    let end = option(2, "end")?.map_or("...".to_owned(), |value| value.to_string());
    let leeway = number(option(3, "leeway")?, 5)?;
    if text.chars().count() <= length.saturating_add(leeway) {
        return Ok(text.to_owned());
    }
    let kept: String = text.chars().take(length.saturating_sub(end.chars().count())).collect();
    let cut = if kill_words { kept.as_str() } else { kept.rsplit_once(' ').map_or(kept.as_str(), |(words, _)| words) };
    Ok(format!("{cut}{end}"))
}

/// `dict(pairs, name=value)`
fn dict(start: Option<Value>, named: Kwargs) -> Result<Value, Error> {
    let mut pairs = Vec::new();
    if let Some(start) = start {
        for item in start.try_iter()? {
            match start.kind() {
                ValueKind::Map => pairs.push((item.clone(), start.get_item(&item)?)),
                _ => pairs.push((item.get_item(&Value::from(0))?, item.get_item(&Value::from(1))?)),
            }
        }
    }
    for name in named.args() {
        pairs.push((Value::from(name), named.get(name)?));
    }
    Ok(Value::from_pairs(pairs))
}

/// Python's `+` where a text may be marked as safe: then the other one is escaped.
fn plus(left: &Value, right: &Value) -> Result<Value, Error> {
    if let (Some(first), Some(second)) = (left.as_str(), right.as_str()) {
        if !left.is_safe() && !right.is_safe() {
            return Ok(Value::from(format!("{first}{second}")));
        }
        let part = |value: &Value, text: &str| if value.is_safe() { text.to_owned() } else { escape(text) };
        return Ok(Value::from_safe_string(part(left, first) + &part(right, second)));
    }
    if left.is_integer() && right.is_integer() {
        let sum = i128::try_from(left.clone())?.checked_add(i128::try_from(right.clone())?);
        return sum.map(Value::from).ok_or_else(|| failed("the sum of two integers is too large"));
    }
    let mismatch = || failed(format!("tried to use + operator on unsupported types {} and {}", left.kind(), right.kind()));
    match (f64::try_from(left.clone()), f64::try_from(right.clone())) {
        (Ok(first), Ok(second)) => Ok(Value::from(first + second)),
        _ if left.kind() == ValueKind::Seq && right.kind() == ValueKind::Seq => {
            Ok(left.try_iter()?.chain(right.try_iter()?).collect())
        }
        _ => Err(mismatch()),
    }
}

/// As the Python package `markupsafe` escapes.
fn escape(text: &str) -> String {
    let escaped = text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;");
    escaped.replace('\'', "&#39;").replace('"', "&#34;")
}
