//! `moebius bench`: tokens per second, and how near they come to what the device can do.

use super::bench_figures::Figures;
use super::failure::Failure;
use super::files::NewFile;
use super::number;
use super::progress::{Progress, Unit};
use super::subject::{self, SubjectArgs};
use super::talk::talk;
use super::{Global, bench_budgets, model, stats};
use anyhow::Result;
use clap::{Args, ValueEnum};
use moebius::DeviceDescription;
use moebius::bench::{self, Bench, Roofs, Subject, Test, Work};
use moebius::error::human_bytes;
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius bench                                  the bundled model: pp512 and tg128
  moebius bench org/name -p 512,2048 -n 128 -d 0,4096 -r 3
  moebius bench --synthetic olmoe/config.json --quant f16 --layers 4
  moebius bench --kernels -d 1000 -p 0           where the time of a decode step goes
  moebius bench --expert-memory all,75%,50%      with room for fewer and fewer experts
  moebius bench --sweep growth.svg -n 16 -d 1000
  moebius bench -o csv > figures.csv             also md and json

Names are those of llama-bench: pp512 is a prompt of 512 tokens, tg128 are 128 tokens one by one, @d1024 means after 1024 others.
tg128s are 128 tokens drawn as the checkpoint's generation_config.json asks, where it does; the others are always the most likely.
The device's own limits are measured first; the last columns are shares of them.";

/// Measure tokens per second, beside what the device can do at best.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct BenchArgs {
    /// Lengths of prompts, in tokens; 0 for none.
    #[arg(short = 'p', long = "prompt", value_name = "TOKENS", value_delimiter = ',', default_value = "512", value_parser = number::whole)]
    prompts: Vec<usize>,
    /// Numbers of tokens to generate; 0 for none.
    #[arg(short = 'n', long = "generate", value_name = "TOKENS", value_delimiter = ',', default_value = "128", value_parser = number::whole)]
    generate: Vec<usize>,
    /// Tokens that the KV cache holds before each test.
    #[arg(short, long, value_name = "TOKENS", value_delimiter = ',', default_value = "0", value_parser = number::whole)]
    depth: Vec<usize>,
    /// How often each test runs, after a warm-up.
    #[arg(short, long, value_name = "TIMES", default_value = "5", value_parser = number::positive)]
    repetitions: NonZeroUsize,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Mebibytes over which the device's limits are measured: several times what its last cache holds.
    #[arg(long, value_name = "MIB", default_value = "1024", value_parser = number::positive)]
    roof_size: NonZeroUsize,
    /// Time every kernel instead: of a decode step at each depth, and of each prompt.
    #[arg(long, conflicts_with = "sweep")]
    kernels: bool,
    /// Measure prompts up to -p and depths up to -d in powers of two, and plot them into this SVG file.
    #[arg(long, value_name = "FILE")]
    sweep: Option<PathBuf>,
    /// How to print the figures: table, md (Markdown), csv or json.
    #[arg(short, long, value_name = "FORMAT", default_value = "table", hide_possible_values = true, ignore_case = true)]
    output: Output,
    /// As -o json: one JSON object on stdout.
    #[arg(long, conflicts_with = "output")]
    json: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Table,
    #[value(alias = "markdown")]
    Md,
    Csv,
    Json,
}

impl BenchArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        let subject = self.subject.subject().await?;
        let plot = self.sweep.as_deref().map(NewFile::prepare).transpose()?;
        // As people use it, and as others measure it.
        let samples = !subject.sampling().await?.is_greedy() && !self.kernels;
        let tests = self.tests(samples);
        subject.check(&tests, &subject::options(global)).await?;
        if global.expert_memories.len() > 1 {
            if self.kernels || self.sweep.is_some() {
                let problem = "several budgets for experts cannot be measured with --kernels or --sweep";
                return Err(Failure::new(problem, "name one --expert-memory").into());
            }
            let text = bench_budgets::measure(self, global, &subject, &tests).await?;
            std::io::stdout().lock().write_all(text.as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        let (device, description) = bench::open_device(&model::device_options(global)).await?;
        talk!("device   {}", model::describe(&description));

        let mut bench = subject::load(device, &subject, &tests, global, self.roof_bytes()).await?;
        say_what_runs(&subject, &description, &bench);

        let figures = self.measure(&mut bench, &tests).await?;
        if let Some(plot) = plot {
            plot.write(bench::svg(&bench::sweep_curves(&figures.tests)).as_bytes())?;
        }
        let mut stdout = std::io::stdout().lock();
        match self.output() {
            Output::Json => {
                let json = bench::bench_json(&subject, &bench, &figures.tests, &figures.kernels);
                writeln!(stdout, "{json}")?;
            }
            Output::Table => write!(stdout, "{}", figures.text())?,
            Output::Md => write!(stdout, "{}", figures.markdown())?,
            Output::Csv => write!(stdout, "{}", figures.csv())?,
        }
        if let Some(paging) = bench.paging() {
            talk!("\nexperts  {}", stats::paging(paging));
        }
        if figures.exceed_roofs() {
            talk!(
                "\na share above 100 % is no speed that the device cannot have: the roof was measured too low, because something else ran, or"
            );
            talk!("because the weights stay in a cache that --roof-size has outgrown; measure again when the machine is quiet");
        }
        Ok(ExitCode::SUCCESS)
    }

    pub fn output(&self) -> Output {
        if self.json { Output::Json } else { self.output }
    }

    /// Over which the device's limits are measured.
    pub fn roof_bytes(&self) -> u64 {
        (self.roof_size.get() as u64) << 20
    }

    pub async fn measure(&self, bench: &mut Bench, tests: &[Test]) -> Result<Figures> {
        let mut figures = Figures::default();
        let (line, times) = (Progress::new("bench", Unit::Tests, ""), self.repetitions.get());
        for (index, &test) in tests.iter().enumerate() {
            line.set(index as u64 + 1, tests.len() as u64);
            line.say(format!("{}, warming up", test.name()));
            if self.kernels {
                figures.kernels.push((test, bench.kernels(test, times).await?));
            } else {
                let mut tell = |time| line.say(format!("{}, repetition {time} of {times}", test.name()));
                figures.tests.push(bench.run_and_tell(test, times, &mut tell).await?);
            }
        }
        Ok(figures)
    }

    /// Every prompt and every number of tokens at every depth, the latter also drawn where the checkpoint asks for that.
    fn tests(&self, samples: bool) -> Vec<Test> {
        if self.sweep.is_some() {
            let largest = |list: &[usize]| list.iter().copied().max().unwrap_or(0);
            return bench::sweep_tests(largest(&self.prompts), largest(&self.generate), largest(&self.depth));
        }
        let of_depth = |&depth: &usize| {
            let prefill = self.prompts.iter().map(|&tokens| Work::Prefill(tokens));
            let decode = self.generate.iter().map(|&tokens| Work::Decode(tokens));
            let drawn = self.generate.iter().filter(|_| samples).map(|&tokens| Work::Sample(tokens));
            prefill.chain(decode).chain(drawn).map(move |work| Test { work, depth }).filter(|test| test.tokens() > 0)
        };
        self.depth.iter().flat_map(of_depth).collect()
    }
}

fn say_what_runs(subject: &Subject, description: &DeviceDescription, bench: &Bench) {
    let spec = bench.spec();
    let driver = if description.driver.is_empty() { "unknown" } else { &description.driver };
    talk!("driver   {driver}");
    stats::say_tuning(bench.device());
    let random = if matches!(subject, Subject::Synthetic { .. }) { ", random weights" } else { "" };
    let (path, layers, formats) = (subject.path().display(), spec.layers.len(), bench.formats().join(", "));
    talk!("model    {path}: {}, {layers} layers, weights in {formats}{random}", spec.family);
    talk!("memory   {}", stats::memory(bench.load_stats(), bench.device()));
    let Roofs { bytes, read_gb_s, copy_gb_s, fma_gflop_s, gap_us } = bench.roofs();
    talk!(
        "roofs    read {read_gb_s:.1} GB/s, copy {copy_gb_s:.1} GB/s, multiply-add {fma_gflop_s:.1} GFLOP/s, {gap_us:.1} us between dispatches; over {}\n",
        human_bytes(*bytes)
    );
}
