//! `moebius run`: continue a text.

use super::coloured::{BestExperts, ShownLayer};
use super::failure::Failure;
use super::interrupt::INTERRUPTED;
use super::model::BUNDLED_NAME;
use super::routing::RoutingArgs;
use super::sampling::SamplingArgs;
use super::stats;
use super::stream::{Printer, ThinkingArgs, print_statistics, stream};
use super::talk::talk;
use super::{Global, auto, files, model, model_name};
use anyhow::Result;
use clap::Args;
use moebius::Engine;
use moebius::bench;
use moebius::generate::{GenerateOptions, StopReason, Summary};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

const EXAMPLES: &str = "\
Examples:
  moebius run                                       the bundled model, its own prompt
  moebius run \"In the beginning\" -n 60 --temp 0     the bundled model, greedy
  moebius run ./Mixtral-8x7B-v0.1 \"Dear Sir,\" --seed 7
  moebius run mistralai/Mixtral-8x7B-v0.1 \"Dear Sir,\" --quant bf16
  moebius run \"def parse(line):\" --show-experts     which expert was each token sent to?
  moebius run --quant q4_0 --stats                  memory, and the kernels that were chosen
  moebius run --ids-file ids.json --json            one JSON object on stdout
  moebius run demo -f letter.txt                    a text out of a file
  head -c 200 letter.txt | moebius run              a text from stdin
  moebius run --experts-per-token 1 --disable-expert 3,7@2 --router-temperature 0.5

With one argument, it is the MODEL if it names something on disk or has a slash and no space;
otherwise it is the PROMPT, for the bundled model. `demo` as MODEL is the bundled model too.";

/// Continue a text; then print the speed and the load of every expert.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct RunArgs {
    /// A directory in Hugging Face layout or a hub id (org/name); the bundled model without it.
    #[arg(value_name = "MODEL")]
    first: Option<String>,
    /// The text to continue; `-` reads it from stdin, as does leaving it out where stdin is a pipe or a file.
    #[arg(value_name = "PROMPT", conflicts_with_all = ["ids_file", "file"])]
    second: Option<String>,
    /// A file with the text to continue, in UTF-8; `-` is stdin.
    #[arg(short, long, value_name = "FILE", conflicts_with = "ids_file")]
    file: Option<PathBuf>,
    #[command(flatten)]
    thinking: ThinkingArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// A JSON array of token ids as the prompt, taken as they are.
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
    /// Print the text again, each token in the colour of its best expert; =LAYER for those of another layer than the last.
    #[arg(long, value_name = "LAYER", num_args = 0..=1, require_equals = true, default_missing_value = "last")]
    show_experts: Option<ShownLayer>,
    /// Say what loading took in memory, and which kernels and variants were chosen.
    #[arg(long)]
    stats: bool,
    /// Print one JSON object on stdout, and the text on stderr.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    routing: RoutingArgs,
}

/// There is a prompt to fall back on after that.
const PATIENCE: Duration = Duration::from_secs(1);

/// What to continue.
enum Prompt {
    Text(String),
    Ids(Vec<u32>),
}

impl RunArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        let (model, prompt) = self.model_and_prompt()?;
        self.sampling.check()?;
        let directory = model::directory(model).await?;
        match &prompt {
            Prompt::Ids(ids) => model::check_ids(&directory, ids).await?,
            Prompt::Text(text) => model::check_prompt(&directory, text, global).await?,
        }
        let global = &auto::resolve(&directory, global).await?;
        let mut engine = model::load_with(&directory, global, self.routing.routing()).await?;
        let options = self.sampling.options(engine.tokenizer());
        let prompt_ids = match &prompt {
            Prompt::Text(text) => engine.tokenizer().encode(text, true)?,
            Prompt::Ids(ids) => ids.clone(),
        };
        let shown = match &prompt {
            Prompt::Text(text) => format!("\n{text}"),
            Prompt::Ids(_) => String::new(),
        };
        let (summary, experts) = self.write(&mut engine, &prompt_ids, &options, shown).await?;
        if let Some(experts) = &experts {
            experts.print(&engine, &[prompt_ids.as_slice(), &summary.ids].concat())?;
        }
        talk!("");
        print_statistics(&summary, &options);
        if self.stats {
            talk!("");
            stats::print(&engine);
        }
        if self.json {
            let mut result = result_json(&engine, &directory, &summary, options.sampling.seed);
            if self.stats {
                result["stats"] = stats::json(&engine);
            }
            writeln!(std::io::stdout(), "{result}")?;
        }
        Ok(if summary.stop == StopReason::Cancelled { ExitCode::from(INTERRUPTED) } else { ExitCode::SUCCESS })
    }

    /// Shows the prompt and what the model writes.
    async fn write(
        &self,
        engine: &mut Engine,
        prompt_ids: &[u32],
        options: &GenerateOptions,
        shown: String,
    ) -> Result<(Summary, Option<BestExperts>)> {
        let experts = self.show_experts.map(|layer| BestExperts::of(engine.spec(), layer)).transpose()?;
        let generation = engine.generate(prompt_ids, options)?;
        if self.json {
            let mut stderr = std::io::stderr();
            let thinking = self.thinking.shown_on(&stderr);
            let mut printer = Printer::new(&mut stderr, thinking).behind(shown).watching(experts);
            return Ok((stream(generation, &mut printer).await?, printer.experts));
        }
        let mut stdout = std::io::stdout().lock();
        let thinking = self.thinking.shown_on(&stdout);
        let mut printer = Printer::new(&mut stdout, thinking).behind(shown).watching(experts);
        let summary = stream(generation, &mut printer).await?;
        let experts = printer.experts;
        writeln!(stdout)?;
        Ok((summary, experts))
    }

    fn model_and_prompt(&self) -> Result<(Option<&str>, Prompt)> {
        let has_prompt = self.ids_file.is_some() || self.file.is_some();
        let (model, text) = match (self.first.as_deref(), self.second.as_deref()) {
            (Some(only), None) if !has_prompt && !model_name::is_model(only) => (None, Some(only)),
            (first, second) => (first, second),
        };
        if let Some(path) = &self.file {
            let text = files::read_text_or_stdin(path)?;
            if text.is_empty() {
                let name = if path.as_os_str() == "-" { "stdin".into() } else { path.display().to_string() };
                return Err(empty_prompt(&format!("{name} is empty")).into());
            }
            return Ok((model, Prompt::Text(text)));
        }
        if let Some(path) = &self.ids_file {
            let ids = files::read_ids(path)?;
            if ids.is_empty() {
                return Err(empty_prompt(&format!("{} has no ids", path.display())).into());
            }
            return Ok((model, Prompt::Ids(ids)));
        }
        match text {
            Some("-") => match files::read_stdin()? {
                text if text.is_empty() => Err(empty_prompt("nothing came on stdin").into()),
                text => Ok((model, Prompt::Text(text))),
            },
            Some("") => Err(empty_prompt("the prompt is empty").into()),
            Some(text) => Ok((model, Prompt::Text(text.to_owned()))),
            None if model.is_none_or(|name| name == BUNDLED_NAME) => {
                let sent = sent_text(Some(PATIENCE))?;
                Ok((None, Prompt::Text(sent.unwrap_or_else(|| model::BUNDLED_PROMPT.to_owned()))))
            }
            None => {
                // What is no model either is said first.
                model.map(model_name::understood).transpose()?;
                Ok((model, Prompt::Text(sent_text(None)?.ok_or_else(|| without_prompt(model))?)))
            }
        }
    }
}

/// What was sent on stdin though nobody wrote `-`; without `patience` it is waited for.
fn sent_text(patience: Option<Duration>) -> Result<Option<String>> {
    if !files::is_stdin_sent() || patience.is_some_and(|patience| !files::comes_on_stdin(patience)) {
        return Ok(None);
    }
    talk!("prompt   from stdin");
    Ok(Some(files::read_stdin()?).filter(|text| !text.is_empty()))
}

/// What was only taken for a model because of its slash may have been the prompt.
fn without_prompt(model: Option<&str>) -> Failure {
    match model.filter(|name| !Path::new(name).exists()) {
        Some(name) => Failure::new(
            format!("{name:?} was taken as the model, so that there is no prompt"),
            format!(
                "write moebius run {name} \"Once upon a time\"; if it is the prompt, name the model too: moebius run demo {name:?}"
            ),
        ),
        None => empty_prompt("there is no prompt"),
    }
}

fn empty_prompt(problem: &str) -> Failure {
    Failure::new(format!("{problem}: expected at least one token to continue"), "moebius run MODEL \"Once upon a time\"")
}

fn result_json(engine: &Engine, directory: &Path, summary: &Summary, seed: u64) -> serde_json::Value {
    serde_json::json!({
        "model": directory,
        "device": bench::device_json(engine.device()),
        "prompt_ids": summary.prompt_ids,
        "ids": summary.ids,
        "text": summary.text,
        "thinking": summary.thinking,
        "answer": summary.answer,
        "stop": summary.stop,
        "seed": seed,
        "prefill_seconds": summary.prefill_seconds,
        "prefill_tokens_per_second": summary.prefill_rate(),
        "decode_seconds": summary.decode_seconds,
        "decode_tokens_per_second": summary.decode_rate(),
        "expert_loads": summary.expert_loads,
        "routing": engine.routing().to_string(),
    })
}
