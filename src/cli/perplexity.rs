//! `moebius perplexity`: how well a model predicts a text.

use super::failure::Failure;
use super::model;
use super::progress::{Progress, Unit};
use super::talk::talk;
use super::{Global, files};
use anyhow::Result;
use clap::Args;
use moebius::bench;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius perplexity examples/models/demo README.md
  moebius perplexity org/name book.txt --ctx 512 --json

The text is cut into windows of the context's length; every token is predicted from those before it in its window.";

/// Measure how well a model predicts a text.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct PerplexityArgs {
    /// A directory in Hugging Face layout or a hub id (org/name).
    model: String,
    /// A text file in UTF-8; `-` is stdin.
    file: PathBuf,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl PerplexityArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        let text = files::read_text_or_stdin(&self.file)?;
        if text.is_empty() {
            return Err(Failure::new(format!("{} is empty", self.file.display()), "give a text of at least two tokens").into());
        }
        let directory = model::directory(Some(&self.model)).await?;
        let mut engine = model::load(&directory, global).await?;
        let ids = engine.tokenizer().encode(&text, true)?;
        let begins_with_bos = engine.tokenizer().adds_bos();
        if engine.tokenizer().bos_id().is_some() {
            let how = if begins_with_bos { "with a" } else { "without a" };
            talk!("windows  begin {how} beginning-of-text token, as the tokenizer says");
        }
        let progress = Progress::new("predict", Unit::Tokens, "the first tokens");
        let result = engine.perplexity(&ids, &mut |done, total| progress.set(done as u64, total as u64)).await;
        drop(progress);
        let result = result?;
        let mut stdout = std::io::stdout().lock();
        if self.json {
            let result = serde_json::json!({
                "model": directory,
                "device": bench::device_json(engine.device()),
                "file": self.file,
                "context": engine.context(),
                "begins_with_bos": begins_with_bos,
                "tokens": result.tokens,
                "mean_nll": result.mean_nll,
                "perplexity": result.value(),
            });
            writeln!(stdout, "{result}")?;
        } else {
            writeln!(
                stdout,
                "perplexity {:.4} over {} tokens ({:.5} nats each)",
                result.value(),
                result.tokens,
                result.mean_nll
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
