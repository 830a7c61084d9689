//! How a command fails.

use super::interrupt::INTERRUPTED;
use super::talk::on_stderr;
use std::fmt;
use std::io::{ErrorKind, Write};
use std::process::ExitCode;

/// The exit code of an error.
pub const FAILED: u8 = 2;

/// An error of the command line itself, with the next step for its reader.
#[derive(Debug)]
pub struct Failure {
    message: String,
    hint: String,
}

impl Failure {
    pub fn new(message: impl Into<String>, hint: impl Into<String>) -> Self {
        Failure { message: message.into(), hint: hint.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

/// Prints the error and its hint. A reader that has gone away (`moebius ... | head`) is no error.
pub fn report(error: &anyhow::Error) -> ExitCode {
    if is_broken_pipe(error) {
        return ExitCode::SUCCESS;
    }
    // stderr may be closed as well; there is nobody left to tell.
    let mut stderr = std::io::stderr().lock();
    let _ = writeln!(stderr, "error: {}", on_stderr(&message(error)));
    if let Some(hint) = hint(error) {
        let _ = writeln!(stderr, "\nhint: {hint}");
    }
    let stopped = error.downcast_ref::<moebius::Error>().is_some_and(|error| matches!(error, moebius::Error::Stopped { .. }));
    ExitCode::from(if stopped { INTERRUPTED } else { FAILED })
}

fn is_broken_pipe(error: &anyhow::Error) -> bool {
    error.downcast_ref::<std::io::Error>().is_some_and(|error| error.kind() == ErrorKind::BrokenPipe)
}

/// The error and its hint in one line.
pub fn in_a_line(error: &anyhow::Error) -> String {
    hint(error).map_or_else(|| message(error), |hint| format!("{}; {hint}", message(error)))
}

/// The contexts and the error below them; errors of the library already contain their causes.
fn message(error: &anyhow::Error) -> String {
    let mut parts = Vec::new();
    for cause in error.chain() {
        parts.push(cause.to_string());
        if cause.is::<moebius::Error>() {
            break;
        }
    }
    parts.join(": ")
}

fn hint(error: &anyhow::Error) -> Option<String> {
    let own = error.downcast_ref::<Failure>().map(|failure| failure.hint.clone());
    own.or_else(|| error.downcast_ref::<moebius::Error>().and_then(moebius::Error::hint))
}
