//! Talk on stderr. A reader that has gone away must not end the program, as `eprintln!` would.

use std::io::Write;

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
