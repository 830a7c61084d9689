//! The program on a terminal.

use super::required;
use std::process::{Command, Stdio};

/// What a terminal of so many columns receives from the program with `args`, each without a quote; `None` with a word about it where `script`
/// of util-linux is missing.
///
/// # Panics
/// If it is missing and `REQUIRE_GPU=1`.
pub fn on_terminal(columns: usize, args: &[&str]) -> Option<String> {
    let quoted: Vec<String> = [env!("CARGO_BIN_EXE_moebius")].iter().chain(args).map(|arg| format!("'{arg}'")).collect();
    let command = format!("stty rows 40 cols {columns}; exec {}", quoted.join(" "));
    let output = Command::new("script")
        .args(["-qec", &command, "/dev/null"])
        .env_remove("COLUMNS")
        .env("TERM", "xterm-256color")
        .env("MOEBIUS_TUNING", "off")
        .stdin(Stdio::null())
        .output();
    match output {
        Ok(output) if !output.stdout.is_empty() => Some(String::from_utf8(output.stdout).unwrap()),
        _ if required() => panic!("`script` of util-linux does not work here"),
        _ => {
            println!("skipped: no `script` of util-linux");
            None
        }
    }
}

/// Lines as they were at some time, without colours and without movements of the cursor.
pub fn lines(received: &str) -> Vec<String> {
    let pieces = received.split(['\r', '\n']).map(|piece| console::strip_ansi_codes(piece).trim_end().to_owned());
    pieces.filter(|piece| !piece.is_empty()).collect()
}
