//! The command line.

mod cli;

use std::process::ExitCode;

#[allow(clippy::disallowed_methods, reason = "the binary is where waiting is allowed")]
fn main() -> ExitCode {
    pollster::block_on(cli::main())
}
