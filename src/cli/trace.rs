//! `moebius trace`: what the routers do with some texts, as a file.

use super::failure::Failure;
use super::files::{self, NewFile, OpenFile};
use super::model;
use super::progress::{Progress, Unit};
use super::routing::RoutingArgs;
use super::sampling::SamplingArgs;
use super::talk::{self, talk};
use super::{Global, number};
use anyhow::Result;
use clap::{ArgGroup, Args};
use moebius::Engine;
use moebius::batch::LayerRouting;
use moebius::bench;
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules, TextStream};
use moebius::platform::Stopwatch;
use moebius::trace::{self, Source, Trace, TracedToken};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius trace -p \"The king said\" -n 60 --out king.jsonl     the bundled model, prompt and continuation
  moebius trace org/name --file book.txt --out book.jsonl
  moebius trace ./model --dir texts --max-bytes 20000 --out texts.jsonl
  moebius trace-report texts.jsonl --html texts.html

The file has a line about the model, then one line per token and layer:
  {\"domain\":\"law\",\"position\":0,\"token\":17,\"text\":\"The\",\"layer\":0,\"experts\":[3,1],\"weights\":[0.7,0.3]}
A domain is one text; its name is the file's. Experts come best first, with the weights that multiply their outputs.";

/// Runs of the two kinds that the cost is measured by.
const COST_RUNS: usize = 9;

/// Write down which experts every token is sent to, and with which weights.
#[derive(Args)]
#[command(after_help = EXAMPLES, group(ArgGroup::new("what").required(true)))]
pub struct TraceArgs {
    /// A directory in Hugging Face layout or a hub id (org/name); the bundled model without it.
    model: Option<String>,
    /// Trace this prompt and what the model writes after it.
    #[arg(short, long, value_name = "TEXT", group = "what")]
    prompt: Option<String>,
    /// Trace a text file.
    #[arg(long, value_name = "FILE", group = "what")]
    file: Option<PathBuf>,
    /// Trace every .txt file of a folder, each as a domain of its own.
    #[arg(long, value_name = "FOLDER", group = "what")]
    dir: Option<PathBuf>,
    /// The trace, one JSON object per line.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Take this many bytes of the start of every file, less a character that would be cut.
    #[arg(long, value_name = "BYTES", value_parser = number::positive)]
    max_bytes: Option<NonZeroUsize>,
    /// Measure afterwards what tracing costs, by runs of 24 tokens or as many as are given.
    #[arg(long, value_name = "TOKENS", num_args = 0..=1, require_equals = true, default_missing_value = "24", value_parser = number::positive)]
    cost: Option<NonZeroUsize>,
    #[command(flatten)]
    sampling: SamplingArgs,
    /// Print one JSON object about the trace on stdout.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    routing: RoutingArgs,
}

/// A text of a domain.
struct Text {
    domain: String,
    content: String,
}

impl Text {
    fn has_content(&self) -> bool {
        !self.content.is_empty()
    }
}

/// Decode speed with and without tracing, in tokens per second.
struct Cost {
    /// In each run.
    tokens: usize,
    plain: f64,
    traced: f64,
}

impl Cost {
    fn percent(&self) -> f64 {
        (1.0 - self.traced / self.plain) * 100.0
    }
}

impl TraceArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        self.sampling.check()?;
        let texts = self.texts()?;
        let out = NewFile::prepare(&self.out)?;
        let directory = model::directory(self.model.as_deref()).await?;
        let inputs = self.inputs()?;
        out.keep_apart(&inputs.iter().map(PathBuf::as_path).collect::<Vec<_>>(), Some(&directory))?;
        let mut engine = model::load_with(&directory, global, self.routing.routing()).await?;
        let source = Source {
            model: model::title(&directory),
            device: engine.device().name.clone(),
            routing: engine.routing().to_string(),
        };
        let mut file = out.create()?;
        file.write(&trace::header_line(&source, &engine.traced_layers()))?;
        let mut writer = Writer { source, file, tokens: 0 };
        for text in &texts {
            let ids = engine.tokenizer().encode(&text.content, true)?;
            if self.prompt.is_some() {
                let options = self.sampling.options(engine.tokenizer());
                trace_generation(&mut engine, &ids, &options, &mut writer).await?;
            } else {
                trace_text(&mut engine, &ids, &text.domain, &mut writer).await?;
            }
        }
        let Writer { file, tokens, .. } = writer;
        file.commit()?;
        let of_texts = if texts.len() == 1 { "one text".to_owned() } else { format!("{} texts", texts.len()) };
        talk!("traced   {tokens} tokens of {of_texts} to {}", self.out.display());
        let cost = self.cost(&mut engine, &texts).await?;
        if let Some(cost) = &cost {
            let (plain, traced) = (cost.plain, cost.traced);
            let (percent, tokens) = (cost.percent(), cost.tokens);
            talk!("cost     tracing takes {percent:.1} % of decode speed: {traced:.1} tokens/s with it, {plain:.1} without");
            talk!("         (medians of {COST_RUNS} runs of {tokens} tokens each)");
        }
        if self.json {
            let result = serde_json::json!({
                "out": self.out,
                "model": directory,
                "device": bench::device_json(engine.device()),
                "routing": engine.routing().to_string(),
                "texts": texts.len(),
                "tokens": tokens,
                "decode_tokens_per_second": cost.as_ref().map(|cost| cost.plain),
                "traced_tokens_per_second": cost.as_ref().map(|cost| cost.traced),
                "cost_percent": cost.as_ref().map(Cost::percent),
            });
            writeln!(std::io::stdout(), "{result}")?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn texts(&self) -> Result<Vec<Text>> {
        if let Some(prompt) = &self.prompt {
            return Ok(vec![nonempty(Text { domain: "prompt".to_owned(), content: prompt.clone() }, "the prompt")?]);
        }
        if let Some(folder) = &self.dir {
            // A folder may have files that nobody has written yet; a file that was named has to have something.
            let (texts, empty): (Vec<Text>, Vec<Text>) = self
                .inputs()?
                .iter()
                .map(|path| self.text(path))
                .collect::<Result<Vec<_>>>()?
                .into_iter()
                .partition(Text::has_content);
            empty.iter().for_each(|text| talk!("note     {}.txt is empty, and left aside", text.domain));
            if texts.is_empty() {
                let problem = format!("every text of {} is empty", folder.display());
                return Err(Failure::new(problem, "give a folder with a .txt file per domain").into());
            }
            return Ok(texts);
        }
        self.inputs()?.iter().map(|path| nonempty(self.text(path)?, &path.display().to_string())).collect()
    }

    /// The files that are read.
    fn inputs(&self) -> Result<Vec<PathBuf>> {
        match (&self.file, &self.dir) {
            (Some(file), _) => Ok(vec![file.clone()]),
            (_, Some(folder)) => files::texts_in(folder),
            _ => Ok(Vec::new()),
        }
    }

    fn text(&self, path: &Path) -> Result<Text> {
        let mut content = files::read_text(path)?;
        if let Some(bytes) = self.max_bytes {
            let end = (0..=bytes.get().min(content.len())).rev().find(|&end| content.is_char_boundary(end));
            content.truncate(end.unwrap_or(0));
        }
        let domain = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Text { domain, content })
    }

    /// The same greedy continuation of the first text with and without tracing, in turns: what else the machine does hits both.
    async fn cost(&self, engine: &mut Engine, texts: &[Text]) -> Result<Option<Cost>> {
        const PROMPT_TOKENS: usize = 32;
        let Some(wanted) = self.cost else { return Ok(None) };
        let mut ids = engine.tokenizer().encode(&texts[0].content, true)?;
        ids.truncate(PROMPT_TOKENS);
        let tokens = wanted.get().min(engine.context().saturating_sub(ids.len()));
        if tokens == 0 {
            return Ok(None);
        }
        let mut seconds = [Vec::new(), Vec::new()];
        // The first turn of each is not counted: it records and warms up.
        for turn in 0..=COST_RUNS {
            for traced in [false, true] {
                let run = decode_seconds(engine, &ids, tokens + 1, traced).await?;
                if turn > 0 {
                    seconds[usize::from(traced)].push(run / tokens as f64);
                }
            }
        }
        let [plain, traced] = seconds.map(|seconds| 1.0 / bench::median(&seconds));
        Ok(Some(Cost { tokens, plain, traced }))
    }
}

fn nonempty(text: Text, name: &str) -> Result<Text> {
    if !text.has_content() {
        return Err(Failure::new(format!("{name} is empty"), "give a text of at least one token").into());
    }
    Ok(text)
}

/// The file that grows.
struct Writer {
    source: Source,
    file: OpenFile,
    tokens: usize,
}

impl Writer {
    fn add(
        &mut self,
        engine_layers: &[trace::TracedLayer],
        domain: &str,
        tokens: Vec<TracedToken>,
        routing: &[LayerRouting],
    ) -> Result<()> {
        self.tokens += tokens.len();
        let mut part = Trace::new(self.source.clone(), engine_layers.to_vec());
        part.domain(domain);
        part.push(tokens, routing);
        self.file.write(&part.records())
    }
}

async fn trace_text(engine: &mut Engine, ids: &[u32], domain: &str, writer: &mut Writer) -> Result<()> {
    let layers = engine.traced_layers();
    let tokens = traced_tokens(engine, ids)?;
    let line = Progress::new("trace", Unit::Tokens, domain);
    let (mut done, mut outcome) = (0, Ok(()));
    let traced = engine
        .trace(ids, &mut |window, routing| {
            let part = tokens[done..done + window.len()].to_vec();
            done += window.len();
            if outcome.is_ok() {
                outcome = writer.add(&layers, domain, part, routing);
            }
            line.set(done as u64, ids.len() as u64);
            line.say(domain);
        })
        .await;
    drop(line);
    traced?;
    outcome
}

async fn trace_generation(engine: &mut Engine, ids: &[u32], options: &GenerateOptions, writer: &mut Writer) -> Result<()> {
    let layers = engine.traced_layers();
    let mut routings: Vec<LayerRouting> = layers.iter().map(|layer| LayerRouting::empty(layer.layer)).collect();
    let mut generation = engine.generate(ids, options)?;
    generation.keep_routing();
    while let Some(piece) = generation.next().await? {
        routings.iter_mut().zip(generation.routing()).for_each(|(all, step)| all.append(step));
        talk::text(&talk::on_stderr(&piece.text));
    }
    let summary = generation.finish().await?;
    talk!("");
    let mut all = [ids, &summary.ids].concat();
    // The newest token has not been through the model.
    all.pop();
    writer.add(&layers, "prompt", traced_tokens(engine, &all)?, &routings)
}

/// The tokens of a text, their texts put together being the text with its control tokens spelled out.
fn traced_tokens(engine: &Engine, ids: &[u32]) -> Result<Vec<TracedToken>> {
    let mut stream = TextStream::new(engine.tokenizer(), false);
    let token = |(position, &id): (usize, &u32)| Ok(TracedToken { domain: 0, position, id, text: stream.push(id)? });
    ids.iter().enumerate().map(token).collect()
}

/// Seconds of a greedy continuation, the first token left out. Tokens come in batches, so a single one says nothing.
async fn decode_seconds(engine: &mut Engine, ids: &[u32], max_tokens: usize, traced: bool) -> Result<f64> {
    let stop = StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() };
    let mut generation = engine.generate(ids, &GenerateOptions { sampling: SamplingOptions::default(), stop })?;
    if traced {
        generation.keep_routing();
    }
    generation.next().await?;
    let watch = Stopwatch::start();
    while generation.next().await?.is_some() {}
    Ok(watch.seconds())
}
