//! What the user types: one file per subcommand, over nothing but the library's public API.
//!
//! stdout is data and stderr is talk. Exit codes: 0 done, 1 the thing asked is false, 2 error.

mod auto;
mod bench;
mod bench_budgets;
mod bench_figures;
mod bundled;
mod cache_sim;
mod chat;
mod chat_command;
mod chat_input;
mod check;
mod coloured;
mod completions;
mod devices;
mod failure;
mod files;
mod inspect;
mod inspect_budget;
mod inspect_choice;
mod inspect_published;
mod interrupt;
mod list;
mod loads;
mod logits;
mod man;
mod model;
mod model_name;
mod models;
mod number;
mod perplexity;
mod progress;
mod quantize;
mod report;
mod routing;
mod run;
mod run_directory;
mod sampling;
mod shared;
mod stats;
mod stored;
mod stream;
mod style;
mod subject;
mod table;
mod talk;
mod trace;
mod trace_report;
mod train;
mod tune;
mod upcycle;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, Parser, Subcommand};
pub use shared::Global;
use shared::{Benching, DeviceOnly, Loading, Measuring, Shared};
use std::process::ExitCode;
use style::Color;

/// The version, and the commit that it was built from where that is known.
const VERSION: &str = match option_env!("MOEBIUS_VERSION") {
    Some(version) => version,
    None => env!("CARGO_PKG_VERSION"),
};

const EXAMPLES: &str = "\
Examples:
  moebius run                                   the bundled model continues a text
  moebius run mistralai/Mixtral-8x7B-v0.1 \"Once upon a time\"
  moebius check                                 are this device's numbers right?

Exit codes: 0 done, 1 the thing asked is false, 2 error, 130 ended by Ctrl-C.";

/// Run Mixture-of-Experts language models on any GPU that WebGPU reaches.
#[derive(Parser)]
#[command(name = "moebius", version = VERSION, after_help = EXAMPLES, arg_required_else_help = true, args_override_self = true)]
struct Cli {
    /// Whether to use colours: auto, always or never. Auto is where a person reads, unless NO_COLOR is set; CLICOLOR_FORCE=1 is always.
    #[arg(
        long,
        global = true,
        default_value = "auto",
        value_name = "WHEN",
        hide_possible_values = true,
        ignore_case = true,
        display_order = 900
    )]
    color: Color,
    #[command(subcommand)]
    command: Command,
}

// A command with its own options, then those that it shares with others. Its doc comment would be what clap says the command does.
#[derive(Args)]
struct With<A: Args, S: Args> {
    #[command(flatten)]
    own: A,
    #[command(flatten)]
    shared: S,
}

#[derive(Subcommand)]
enum Command {
    Run(Box<With<run::RunArgs, Loading>>),
    Chat(Box<With<chat::ChatArgs, Loading>>),
    Inspect(Box<With<inspect::InspectArgs, Measuring>>),
    Quantize(quantize::QuantizeArgs),
    Logits(With<logits::LogitsArgs, Loading>),
    Perplexity(With<perplexity::PerplexityArgs, Loading>),
    Trace(Box<With<trace::TraceArgs, Loading>>),
    TraceReport(trace_report::TraceReportArgs),
    CacheSim(Box<cache_sim::CacheSimArgs>),
    Train(Box<With<train::TrainArgs, DeviceOnly>>),
    Upcycle(Box<With<upcycle::UpcycleArgs, DeviceOnly>>),
    Check(With<check::CheckArgs, DeviceOnly>),
    Bench(Box<With<bench::BenchArgs, Benching>>),
    Tune(Box<With<tune::TuneArgs, Measuring>>),
    Report(Box<With<report::ReportArgs, Measuring>>),
    Devices(devices::DevicesArgs),
    Models(models::ModelsArgs),
    List(list::ListArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
}

/// Parses the arguments, runs the command and turns its outcome into an exit code.
pub async fn main() -> ExitCode {
    let cli = Cli::try_parse().unwrap_or_else(|error| explained(error).exit());
    cli.color.apply();
    interrupt::listen();
    run(&cli.command).await.unwrap_or_else(|error| failure::report(&error))
}

/// Says what to write to somebody who left the command out.
fn explained(mut error: clap::Error) -> clap::Error {
    let has_suggestion = error.get(ContextKind::SuggestedSubcommand).is_some();
    if error.kind() == ErrorKind::InvalidSubcommand && !has_suggestion {
        let tip = "to continue a text, write moebius run \"Once upon a time\"".into();
        error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip]));
    }
    error
}

async fn run(command: &Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Run(with) => with.own.run(&with.shared.global()).await,
        Command::Chat(with) => with.own.run(&with.shared.global()).await,
        Command::Inspect(with) => with.own.run(&with.shared.global()).await,
        Command::Quantize(args) => args.run().await,
        Command::Logits(with) => with.own.run(&with.shared.global()).await,
        Command::Perplexity(with) => with.own.run(&with.shared.global()).await,
        Command::Trace(with) => with.own.run(&with.shared.global()).await,
        Command::TraceReport(args) => args.run(),
        Command::CacheSim(args) => args.run().await,
        Command::Train(with) => with.own.run(&with.shared.global()).await,
        Command::Upcycle(with) => with.own.run(&with.shared.global()).await,
        Command::Check(with) => with.own.run(&with.shared.global()).await,
        Command::Bench(with) => with.own.run(&with.shared.global()).await,
        Command::Tune(with) => with.own.run(&with.shared.global()).await,
        Command::Report(with) => with.own.run(&with.shared.global()).await,
        Command::Devices(args) => args.run().await,
        Command::Models(args) => args.run().await,
        Command::List(args) => args.run(),
        Command::Completions(args) => args.run(),
        Command::Man(args) => args.run(),
    }
}
