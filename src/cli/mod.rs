//! What the user types: one file per subcommand, over nothing but the library's public API.
//!
//! stdout is data and stderr is talk. Exit codes: 0 done, 1 the thing asked is false, 2 error.

mod bench;
mod bench_figures;
mod chat;
mod chat_command;
mod chat_input;
mod check;
mod devices;
mod failure;
mod files;
mod inspect;
mod inspect_choice;
mod interrupt;
mod list;
mod loads;
mod logits;
mod model;
mod perplexity;
mod quantize;
mod routing;
mod run;
mod sampling;
mod stats;
mod stored;
mod stream;
mod subject;
mod table;
mod talk;
mod trace;
mod trace_report;
mod tune;

use clap::{Args, Parser, Subcommand};
use moebius::gpu::DeviceChoice;
use moebius::quant::{CacheChoice, QuantChoice};
use std::num::NonZeroUsize;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius run                                   the bundled model continues a text
  moebius run mistralai/Mixtral-8x7B-v0.1 \"Once upon a time\"
  moebius check                                 are this device's numbers right?

Exit codes: 0 done, 1 the thing asked is false, 2 error.";

/// Run Mixture-of-Experts language models on any GPU that WebGPU reaches.
#[derive(Parser)]
#[command(name = "moebius", version, after_help = EXAMPLES, arg_required_else_help = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

/// Options that every command takes.
#[derive(Args)]
struct Global {
    /// Where to compute: auto, gpu, gpu:N (see `moebius devices`), part of an adapter's name, or cpu for the slow reference.
    #[arg(long, global = true, default_value = "auto", value_name = "DEVICE")]
    device: DeviceChoice,
    /// Format of the weights in device memory: auto (as stored) or one of `moebius list quants`; also by class, the others as stored:
    /// experts=q4_0,head=q8_0. Classes: experts, shared (with dense layers), attention, embedding, head.
    #[arg(long, global = true, default_value = "auto", value_name = "FORMATS")]
    quant: QuantChoice,
    /// Format of the KV cache: f16, f32, or auto, which is f16 where the weights of attention have four bits.
    #[arg(long, global = true, default_value = "auto", value_name = "FORMAT")]
    kv_cache: CacheChoice,
    /// Length of the context in tokens, at most the model's own.
    #[arg(long, global = true, value_name = "TOKENS")]
    ctx: Option<NonZeroUsize>,
    /// Say more on stderr, such as which tensors were ignored.
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<run::RunArgs>),
    Chat(Box<chat::ChatArgs>),
    Inspect(inspect::InspectArgs),
    Quantize(quantize::QuantizeArgs),
    Logits(logits::LogitsArgs),
    Perplexity(perplexity::PerplexityArgs),
    Trace(Box<trace::TraceArgs>),
    TraceReport(trace_report::TraceReportArgs),
    Check(check::CheckArgs),
    Bench(bench::BenchArgs),
    Tune(tune::TuneArgs),
    Devices(devices::DevicesArgs),
    List(list::ListArgs),
}

/// Parses the arguments, runs the command and turns its outcome into an exit code.
pub async fn main() -> ExitCode {
    let cli = Cli::parse();
    let global = &cli.global;
    let outcome = match &cli.command {
        Command::Run(args) => args.run(global).await,
        Command::Chat(args) => args.run(global).await,
        Command::Inspect(args) => args.run(global).await,
        Command::Quantize(args) => args.run(global).await,
        Command::Logits(args) => args.run(global).await,
        Command::Perplexity(args) => args.run(global).await,
        Command::Trace(args) => args.run(global).await,
        Command::TraceReport(args) => args.run(),
        Command::Check(args) => args.run(global).await,
        Command::Bench(args) => args.run(global).await,
        Command::Tune(args) => args.run(global).await,
        Command::Devices(args) => args.run().await,
        Command::List(args) => args.run(),
    };
    outcome.unwrap_or_else(|error| failure::report(&error))
}
