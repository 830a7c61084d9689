//! `moebius man`: manual pages.

use super::Cli;
use super::failure::Failure;
use super::files::NewFile;
use super::talk::talk;
use anyhow::Result;
use clap::{Args, CommandFactory};
use clap_mangen::Man;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius man | man -l -                       read the page of the program
  moebius man run | man -l -                   that of one command
  moebius man --out ~/.local/share/man/man1    write all of them";

/// Print a manual page, for `man`.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ManArgs {
    /// The command whose page it is; without it, that of the program.
    command: Option<String>,
    /// Write the pages of the program and of every command into this folder.
    #[arg(long, value_name = "FOLDER", conflicts_with = "command")]
    out: Option<PathBuf>,
}

impl ManArgs {
    pub fn run(&self) -> Result<ExitCode> {
        let mut program = Cli::command();
        program.build();
        if let Some(folder) = &self.out {
            let pages = [&program].into_iter().chain(program.get_subcommands());
            for (count, command) in pages.enumerate() {
                let (name, page) = page(command)?;
                let path = folder.join(format!("{name}.1"));
                NewFile::prepare(&path)?.write(&page)?;
                talk!("{} {}", if count == 0 { "wrote   " } else { "        " }, path.display());
            }
            return Ok(ExitCode::SUCCESS);
        }
        let command = match &self.command {
            None => &program,
            Some(name) => program.find_subcommand(name).ok_or_else(|| {
                let names: Vec<&str> = program.get_subcommands().map(clap::Command::get_name).collect();
                Failure::new(format!("moebius has no command `{name}`"), format!("commands are {}", names.join(", ")))
            })?,
        };
        std::io::stdout().write_all(&page(command)?.1)?;
        Ok(ExitCode::SUCCESS)
    }
}

/// The name of a page, `moebius` or `moebius-run`, and its text.
fn page(command: &clap::Command) -> Result<(String, Vec<u8>)> {
    let name = command.get_display_name().unwrap_or(command.get_name()).to_owned();
    let mut text = Vec::new();
    Man::new(command.clone()).title(name.to_uppercase()).render(&mut text)?;
    Ok((name, text))
}
