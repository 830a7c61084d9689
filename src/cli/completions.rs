//! `moebius completions`: what a shell needs to complete commands and options.

use super::Cli;
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use std::io::Write;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius completions bash > ~/.local/share/bash-completion/completions/moebius
  moebius completions zsh > ~/.zfunc/_moebius       with ~/.zfunc in $fpath
  moebius completions fish > ~/.config/fish/completions/moebius.fish
  moebius completions powershell >> $PROFILE";

/// Print completions for a shell.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CompletionsArgs {
    #[arg(ignore_case = true)]
    shell: Shell,
}

impl CompletionsArgs {
    pub fn run(&self) -> Result<ExitCode> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Cli::command(), "moebius", &mut script);
        std::io::stdout().write_all(&script)?;
        Ok(ExitCode::SUCCESS)
    }
}
