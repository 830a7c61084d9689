//! `moebius cache-sim`: what a cache of experts would have done with a trace.

use super::failure::Failure;
use super::files::{self, NewFile};
use super::table::aligned;
use super::talk::talk;
use super::{model, number};
use anyhow::Result;
use clap::{Args, ValueEnum};
use moebius::checkpoint::{ModelFiles, WeightStore};
use moebius::error::human_bytes;
use moebius::model::expert_bytes;
use moebius::paging::{ExpertMemory, PolicyKind};
use moebius::quant::QuantChoice;
use moebius::trace::{self, Order, Simulation, SimulationOptions, Trace, simulate};
use serde_json::{Value, json};
use std::io::Write;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius cache-sim texts.jsonl                                       every eighth of the experts, by three policies
  moebius cache-sim texts.jsonl --policy lfu,static --budget 50%,6GiB
  moebius cache-sim texts.jsonl --order prefill --chunk 512           as a prompt goes through the layers
  moebius cache-sim texts.jsonl --per-text --html cache.html          every text by itself, and a page with curves

A hit is an expert that a token needs in a layer, or a chunk of a prompt, and that has a slot on the device already. Every other
one is loaded. A stop is a wait in one layer, for one expert or more. Nothing is computed: only the choices of the trace count.";

/// Shares that are simulated where no budget is given, in percent.
const EIGHTHS: [f64; 8] = [12.5, 25.0, 37.5, 50.0, 62.5, 75.0, 87.5, 100.0];
/// Tokens of a chunk where none are given: those of a prompt on a device.
const CHUNK: usize = 512;

/// Simulate a cache of experts: hits, loads and stops over a trace.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CacheSimArgs {
    /// What `moebius trace` wrote.
    trace: PathBuf,
    /// Who gives up a slot: names of `moebius list policies`, separated by commas.
    #[arg(long, value_name = "POLICIES", value_delimiter = ',', default_value = "lfu,lru,belady", value_parser = policy)]
    policy: Vec<&'static PolicyKind>,
    /// Memory for experts, separated by commas: shares of all experts (50%), sizes (6GiB) or all. Without it every eighth that one token fits in.
    #[arg(long, value_name = "BUDGETS", value_delimiter = ',', value_parser = budget)]
    budget: Vec<ExpertMemory>,
    /// How the tokens go through the layers.
    #[arg(long, value_name = "ORDER", default_value = "decode", ignore_case = true)]
    order: OrderName,
    /// Tokens of a chunk of a prompt; 512 if left out.
    #[arg(long, value_name = "TOKENS", value_parser = number::positive)]
    chunk: Option<NonZeroUsize>,
    /// Bytes of one expert, instead of what the trace says.
    #[arg(long, value_name = "BYTES", value_parser = number::positive_u64, conflicts_with = "model")]
    expert_bytes: Option<NonZeroU64>,
    /// The model that was traced, for the bytes of its experts: a directory, a GGUF file or a hub id (org/name).
    #[arg(long, value_name = "MODEL")]
    model: Option<String>,
    /// Format of the weights of --model in device memory, as for `moebius run`.
    #[arg(long, value_name = "FORMATS", requires = "model")]
    quant: Option<QuantChoice>,
    /// A trace of other texts, from which `static` learns what to keep; without it, from the trace itself.
    #[arg(long, value_name = "TRACE")]
    profile: Option<PathBuf>,
    /// Simulate every text by itself, each with an empty cache at first.
    #[arg(long)]
    per_text: bool,
    /// Write a page with curves: one file, no script, no request.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum OrderName {
    /// One token after the other
    Decode,
    /// In chunks, as a prompt
    Prefill,
}

fn policy(text: &str) -> moebius::Result<&'static PolicyKind> {
    PolicyKind::named(text)
}

fn budget(text: &str) -> Result<ExpertMemory, String> {
    match text.parse() {
        Ok(ExpertMemory::Auto) => {
            Err("a simulation has no device to ask how much is free: give a share, a size or all".to_owned())
        }
        Ok(memory) => Ok(memory),
        Err(error) => Err(error.to_string()),
    }
}

impl CacheSimArgs {
    pub async fn run(&self) -> Result<ExitCode> {
        let order = self.order()?;
        let page = self.html.as_deref().map(NewFile::prepare).transpose()?;
        if let Some(page) = &page {
            let inputs: Vec<&Path> =
                [Some(&self.trace), self.profile.as_ref()].into_iter().flatten().map(PathBuf::as_path).collect();
            page.keep_apart(&inputs, None)?;
        }
        let trace = self.sized(read(&self.trace)?).await?;
        let profile = self.profile.as_deref().map(read).transpose()?;
        if profile.is_none() && self.policy.iter().any(|policy| policy.name == "static") {
            talk!("note     static knows this trace beforehand; --profile names one of other texts");
        }
        let simulations = self.simulations(&trace, order, profile.as_ref())?;
        if let (Some(page), Some(path)) = (page, &self.html) {
            page.write(trace::cache_html(&trace, order, &simulations).as_bytes())?;
            talk!("page     {}", path.display());
        }
        let mut stdout = std::io::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", in_json(&trace, order, &simulations)?)?;
        } else {
            write!(stdout, "{}\n{}", facts(&trace, order), rows(&simulations))?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn order(&self) -> Result<Order> {
        match (self.order, self.chunk) {
            (OrderName::Decode, None) => Ok(Order::Decode),
            (OrderName::Decode, Some(_)) => {
                Err(Failure::new("--chunk is the length of a part of a prompt", "add --order prefill, or leave it out").into())
            }
            (OrderName::Prefill, chunk) => Ok(Order::Prefill { chunk: chunk.map_or(CHUNK, NonZeroUsize::get) }),
        }
    }

    /// The trace with the bytes of its experts, as far as anyone says.
    async fn sized(&self, mut trace: Trace) -> Result<Trace> {
        if let Some(bytes) = self.expert_bytes {
            trace.layers.iter_mut().for_each(|layer| layer.expert_bytes = Some(bytes.get()));
        }
        if let Some(name) = &self.model {
            let checkpoint = ModelFiles::open(&model::directory(Some(name)).await?).await?.weights().await?;
            let spec = checkpoint.spec().clone();
            let found: Vec<(usize, usize)> = spec.moe_layers().map(|(layer, moe)| (layer, moe.router.num_experts)).collect();
            let expected: Vec<(usize, usize)> = trace.layers.iter().map(|layer| (layer.layer, layer.experts)).collect();
            if found != expected {
                let shown = |layers: &[(usize, usize)]| match layers.first() {
                    Some((layer, experts)) => {
                        format!("{} layers with a router, the first {layer} with {experts} experts", layers.len())
                    }
                    None => "no layer with a router".to_owned(),
                };
                let problem = format!("the trace is of another model: it has {}, {name} has {}", shown(&expected), shown(&found));
                return Err(Failure::new(problem, "name the model that was traced").into());
            }
            let bytes = expert_bytes(&WeightStore::Checkpoint(checkpoint), &spec, self.quant.unwrap_or_default())?;
            trace.layers.iter_mut().zip(bytes).for_each(|(layer, bytes)| layer.expert_bytes = Some(bytes));
        }
        let wants_bytes = self.budget.iter().find(|memory| matches!(memory, ExpertMemory::Bytes(_)));
        match wants_bytes {
            Some(memory) if trace.layers.iter().any(|layer| layer.expert_bytes.is_none()) => {
                let problem = format!("the trace does not say how large an expert is, so {memory} is no number of slots");
                Err(Failure::new(problem, "add --expert-bytes or --model, or give a share such as 50%").into())
            }
            _ => Ok(trace),
        }
    }

    /// By text, then by policy, then by budget.
    fn simulations(&self, trace: &Trace, order: Order, profile: Option<&Trace>) -> Result<Vec<Simulation>> {
        let texts: Vec<Option<usize>> = if self.per_text { (0..trace.domains.len()).map(Some).collect() } else { vec![None] };
        let eighths = EIGHTHS.map(ExpertMemory::Percent);
        let budgets = if self.budget.is_empty() { &eighths[..] } else { &self.budget };
        let mut simulations = Vec::new();
        for text in texts {
            for &policy in &self.policy {
                for &memory in budgets {
                    match simulate(trace, &SimulationOptions { policy, memory, order, profile, text }) {
                        Ok(simulation) => simulations.push(simulation),
                        // Nobody asked for it.
                        Err(moebius::Error::ExpertMemory { .. }) if self.budget.is_empty() => {}
                        Err(error) => return Err(error.into()),
                    }
                }
            }
        }
        Ok(simulations)
    }
}

fn read(path: &Path) -> Result<Trace> {
    let name = path.display().to_string();
    let trace = trace::read(&files::read_text(path)?, &name)?;
    if trace.tokens.is_empty() || trace.layers.is_empty() {
        let what = if trace.layers.is_empty() { "layers with a router" } else { "tokens" };
        return Err(Failure::new(format!("{name} has no {what}"), "`moebius trace MODEL --out FILE` writes such files").into());
    }
    Ok(trace)
}

fn facts(trace: &Trace, order: Order) -> String {
    let trace::Source { model, routing, .. } = &trace.source;
    let (tokens, texts, layers) = (trace.tokens.len(), trace.domains.len(), trace.layers.len());
    let order = match order {
        Order::Decode => "decode, one token after the other".to_owned(),
        Order::Prefill { chunk } => format!("prefill, in chunks of {chunk} tokens"),
    };
    let total: Option<u64> =
        trace.layers.iter().map(|layer| Some(layer.expert_bytes? * (layer.experts - layer.weightless) as u64)).sum();
    let size = total.map_or_else(|| "of unknown size".to_owned(), |bytes| format!("{} in all", human_bytes(bytes)));
    format!(
        "trace    {model}, {tokens} tokens of {texts} texts, routing {routing}\norder    {order}\nexperts  in {layers} layers, {size}\n"
    )
}

/// `4 of 8` where all layers are alike.
fn slots(simulation: &Simulation) -> String {
    let mut each = simulation.layers.iter().map(|layer| (layer.slots, layer.experts));
    let first = each.next().unwrap_or_default();
    if each.clone().all(|layer| layer == first) {
        return format!("{} of {}", first.0, first.1);
    }
    let (slots, experts) = each.fold(first, |sum, layer| (sum.0 + layer.0, sum.1 + layer.1));
    format!("{slots} of {experts} in all")
}

fn rows(simulations: &[Simulation]) -> String {
    let percent = |share: f64| format!("{:.1}%", share * 100.0);
    let has = |field: fn(&Simulation) -> bool| simulations.iter().any(field);
    let (texts, bytes, tokens) =
        (has(|run| run.text.is_some()), has(|run| run.loaded_bytes.is_some()), has(|run| run.tokens_without_stop.is_some()));
    let header = [
        texts.then_some("text"),
        Some("policy"),
        Some("budget"),
        Some("slots"),
        Some("hits"),
        Some("loads/token"),
        bytes.then_some("loaded/token"),
        Some("stops/token"),
        tokens.then_some("tokens without a stop"),
    ];
    let row = |run: &Simulation| -> Vec<String> {
        let cells = [
            run.text.clone(),
            Some(run.policy.to_owned()),
            Some(run.budget.clone()),
            Some(slots(run)),
            Some(percent(run.hit_share())),
            Some(format!("{:.2}", run.loads_per_token())),
            run.bytes_per_token().map(|bytes| human_bytes(bytes.round() as u64)),
            Some(format!("{:.2}", run.stops_per_token())),
            run.share_without_stop().map(percent),
        ];
        cells.into_iter().flatten().collect()
    };
    aligned(&header.into_iter().flatten().collect::<Vec<_>>(), &simulations.iter().map(row).collect::<Vec<_>>())
}

fn in_json(trace: &Trace, order: Order, simulations: &[Simulation]) -> Result<Value> {
    let (order, chunk) = match order {
        Order::Decode => ("decode", None),
        Order::Prefill { chunk } => ("prefill", Some(chunk)),
    };
    let run = |simulation: &Simulation| -> Result<Value> {
        let mut value = serde_json::to_value(simulation)?;
        value["hit_share"] = json!(simulation.hit_share());
        Ok(value)
    };
    let trace::Source { model, device, routing } = &trace.source;
    Ok(json!({
        "model": model,
        "device": device,
        "routing": routing,
        "tokens": trace.tokens.len(),
        "order": order,
        "chunk": chunk,
        "simulations": simulations.iter().map(run).collect::<Result<Vec<_>>>()?,
    }))
}
