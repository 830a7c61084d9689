//! Jinja as Python runs it: what the crate `minijinja` does otherwise than Jinja2 and the renderer of transformers.

mod filters;
mod json;
mod methods;
mod source;

use chrono::{DateTime, FixedOffset};
use minijinja::syntax::SyntaxConfig;
use minijinja::{Environment, Error, ErrorKind};
use std::fmt::Write;

/// Instructions that a template may execute. A long conversation takes some hundred thousand; this many take about a second.
const FUEL: u64 = 10_000_000;

/// Compiles templates under their names. `now` is the clock of `strftime_now`, with the offset of local time.
///
/// # Errors
/// The mistakes of the templates, with their lines.
pub fn environment(templates: &[(&str, &str)], now: fn() -> DateTime<FixedOffset>) -> Result<Environment<'static>, Error> {
    let mut environment = Environment::new();
    environment.set_syntax(SyntaxConfig::builder().trim_blocks(true).lstrip_blocks(true).build()?);
    environment.set_fuel(Some(FUEL));
    environment.set_unknown_method_callback(methods::call);
    filters::add_to(&mut environment);
    environment.add_function("raise_exception", raise_exception);
    environment.add_function("strftime_now", move |format: &str| strftime(now(), format));
    for &(name, text) in templates {
        environment.add_template_owned(name.to_owned(), source::rewrite(text))?;
    }
    Ok(environment)
}

fn raise_exception(message: String) -> Result<String, Error> {
    Err(Error::new(ErrorKind::InvalidOperation, message))
}

/// Python's `strftime`.
fn strftime(now: DateTime<FixedOffset>, format: &str) -> Result<String, Error> {
    let mut text = String::new();
    write!(text, "{}", now.format(format)).map_err(|_| failed(format!("`{format}` is not a strftime format")))?;
    Ok(text)
}

fn failed(message: impl Into<String>) -> Error {
    Error::new(ErrorKind::InvalidOperation, message.into())
}
