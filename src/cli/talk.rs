//! Talk on stderr. A reader that has gone away must not end the program, as `eprintln!` would.

use std::borrow::Cow;
use std::io::{IsTerminal, Write};

/// Writes a line, like `eprintln!`.
macro_rules! talk {
    ($($argument:tt)*) => {
        $crate::cli::talk::text(&format!("{}\n", format_args!($($argument)*)))
    };
}
pub(crate) use talk;

/// Writes `text` as it is, without ending the line.
pub fn text(text: &str) {
    let mut stderr = anstream::stderr();
    let _ = stderr.write_all(text.as_bytes()).and_then(|()| stderr.flush());
}

/// `text` of a model or a file, as stderr may have it.
pub fn on_stderr(text: &str) -> Cow<'_, str> {
    if std::io::stderr().is_terminal() { harmless(text) } else { Cow::Borrowed(text) }
}

/// `text` of a model or a file, for a terminal: what would move the cursor, change colours or reach the clipboard is shown as a sign instead.
/// A carriage return is left out: lines end with a line feed.
pub fn harmless(text: &str) -> Cow<'_, str> {
    /// Unicode has a picture for each of the first 32, and for DEL.
    const PICTURES: u32 = 0x2400;
    const DEL: (char, char) = ('\u{7f}', '\u{2421}');
    let is_harmless = |letter: char| matches!(letter, '\n' | '\t') || !letter.is_control();
    if text.chars().all(is_harmless) {
        return Cow::Borrowed(text);
    }
    let shown = |letter: char| match letter {
        '\r' => None,
        letter if is_harmless(letter) => Some(letter),
        letter if letter == DEL.0 => Some(DEL.1),
        letter if letter < ' ' => char::from_u32(PICTURES + u32::from(letter)),
        // The second set of control characters has no pictures.
        _ => Some(char::REPLACEMENT_CHARACTER),
    };
    Cow::Owned(text.chars().filter_map(shown).collect())
}
