//! `moebius upcycle`: a dense model made into one with experts.

use super::failure::Failure;
use super::interrupt::Watch;
use super::progress::{Progress, Unit};
use super::talk::talk;
use super::{Global, model, number};
use anyhow::Result;
use clap::{Args, ValueEnum};
use moebius::error::human_bytes;
use moebius::platform::{NewDirectory, Stopwatch};
use moebius::spec::Parameters;
use moebius::tensor::Dtype;
use moebius::upcycle::{Construction, Options, Shape, Upcycled, upcycle};
use serde_json::json;
use std::io::Write;
use std::num::{NonZeroU64, NonZeroUsize};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius upcycle HuggingFaceTB/SmolLM2-135M out --method split --experts 8 -k 2
  moebius upcycle ./dense out --method virtual --experts 8 -k 4      computes at first what the dense model does
  moebius train --set model.from=out --data texts --out run          and then trains on

A dense Llama becomes a Mixtral, a dense Qwen3 a Qwen3-MoE. Methods:
  copy     every expert is a copy of the MLP (sparse upcycling)
  split    every neuron of the MLP belongs to one expert, drawn at random (LLaMA-MoE)
  virtual  the MLP is cut into as many shards as a token has experts, and each shard is there several times (virtual groups)
  drop     copies, in each of which other neurons are drawn anew (drop-upcycling)

copy and virtual compute at first exactly what the dense model does, and so does split if a token has all experts; the command
compares the two.";

/// What both models read.
const TEXT: &str = "Once upon a time there was a king who had three daughters, and the youngest of them was so beautiful that the sun was amazed.";
/// Largest difference of a logit, as a share of the largest logit, where nothing but the order of sums differs.
const EQUAL: f32 = 1e-4;

/// Make a dense model into one with experts.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct UpcycleArgs {
    /// The dense model: a directory in Hugging Face layout or a hub id (org/name).
    dense: String,
    /// The directory to write: one that is not there yet, or an empty one.
    out: PathBuf,
    /// How experts are made of an MLP: copy, split, virtual or drop.
    #[arg(short, long, value_enum, ignore_case = true, hide_possible_values = true)]
    method: Method,
    /// Experts of a layer.
    #[arg(short, long, default_value = "8", value_name = "N", value_parser = number::positive)]
    experts: NonZeroUsize,
    /// Experts of a token.
    #[arg(short = 'k', long, default_value = "2", value_name = "K", value_parser = number::positive)]
    experts_per_token: NonZeroUsize,
    /// Share of the neurons of an expert that the method drop draws anew.
    #[arg(long, default_value = "0.5", value_name = "SHARE")]
    ratio: f64,
    /// Seed of all that is drawn.
    #[arg(long, default_value = "1")]
    seed: u32,
    /// Numbers of the new weights: f32, f16 or bf16; without it, those of the dense model.
    #[arg(long, value_enum, ignore_case = true, hide_possible_values = true)]
    dtype: Option<Number>,
    /// Mebibytes of weights in one file, at most, but for a single layer that is larger.
    #[arg(long, value_name = "MIB", default_value = "4096", value_parser = number::positive_u64)]
    file_size: NonZeroU64,
    /// Do not run the two models to compare their logits.
    #[arg(long)]
    no_compare: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Method {
    Copy,
    Split,
    Virtual,
    Drop,
}

#[derive(Clone, Copy, ValueEnum)]
enum Number {
    F32,
    F16,
    Bf16,
}

impl From<Method> for Construction {
    fn from(method: Method) -> Self {
        match method {
            Method::Copy => Construction::Copy,
            Method::Split => Construction::Split,
            Method::Virtual => Construction::Virtual,
            Method::Drop => Construction::Drop,
        }
    }
}

impl From<Number> for Dtype {
    fn from(number: Number) -> Self {
        match number {
            Number::F32 => Dtype::F32,
            Number::F16 => Dtype::F16,
            Number::Bf16 => Dtype::Bf16,
        }
    }
}

/// How far the logits of the two models are apart.
struct Difference {
    largest: f32,
    largest_logit: f32,
}

impl UpcycleArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        drop(NewDirectory::prepare(&self.out)?);
        let options = self.options();
        let directory = model::directory(Some(&self.dense)).await?;
        let (watch, clock) = (Watch::start(), Stopwatch::start());
        let line = Progress::new("upcycle", Unit::Bytes, "looking at the weights");
        let written = upcycle(&directory, &self.out, &options, &mut |done, total| {
            line.set(done, total);
            !watch.requested()
        })
        .await;
        drop(line);
        let written = written?;
        self.describe(&written, clock.seconds());
        let difference = if self.no_compare { None } else { Some(compare(&directory, &self.out, global).await?) };
        let must_be_equal = options.shape.keeps_the_function(written.dtype);
        let is_equal = difference.as_ref().map(|found| found.largest <= EQUAL * found.largest_logit.max(1.0));
        if let Some(Difference { largest, largest_logit }) = &difference {
            let promise = match (must_be_equal, is_equal) {
                (true, Some(true)) => "equal, as this method promises",
                (true, _) => "NOT equal, although this method promises it",
                (false, _) => "this method does not promise that they are equal",
            };
            talk!(
                "compare  logits of the two models differ by {largest:.1e} at most, the largest is {largest_logit:.1}: {promise}"
            );
        }
        if self.json {
            let result = json!({
                "out": self.out,
                "architecture": written.spec.family,
                "parameters": Parameters::of(&written.spec).total(),
                "active_parameters": Parameters::of(&written.spec).active(),
                "weight_bytes": written.weight_bytes,
                "files": written.num_files,
                "largest_difference": difference.as_ref().map(|found| found.largest),
                "largest_logit": difference.as_ref().map(|found| found.largest_logit),
                "must_be_equal": must_be_equal,
            });
            writeln!(std::io::stdout(), "{result}")?;
        }
        Ok(if must_be_equal && is_equal == Some(false) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    fn options(&self) -> Options {
        let shape = Shape {
            construction: self.method.into(),
            num_experts: self.experts.get(),
            num_experts_per_tok: self.experts_per_token.get(),
            redrawn: self.ratio,
            seed: self.seed,
        };
        let max_file_bytes = self.file_size.get().saturating_mul(1 << 20);
        Options { shape, dtype: self.dtype.map(Dtype::from), max_file_bytes }
    }

    fn describe(&self, written: &Upcycled, seconds: f64) {
        let [before, after] = [&written.dense, &written.spec].map(Parameters::of);
        let (total, active) = (after.total(), after.active());
        talk!(
            "model    {} becomes {}: {} experts, {} of them for a token",
            written.dense.family,
            written.spec.family,
            self.experts,
            self.experts_per_token
        );
        talk!("size     {} parameters become {total}, {active} of them for a token", before.total());
        let files = if written.num_files == 1 { "one file".to_owned() } else { format!("{} files", written.num_files) };
        talk!(
            "wrote    {}: {} in {}, {files}, in {seconds:.1} s",
            self.out.display(),
            human_bytes(written.weight_bytes),
            written.dtype.name()
        );
    }
}

/// Runs both models on a sentence, one after the other.
async fn compare(dense: &Path, upcycled: &Path, global: &Global) -> Result<Difference> {
    let (ids, before) = logits(dense, global).await?;
    let (_, after) = logits(upcycled, global).await?;
    if before.len() != after.len() {
        let problem = format!("the models give {} and {} logits for {} tokens", before.len(), after.len(), ids.len());
        return Err(Failure::new(problem, "this should not happen; please report it").into());
    }
    let largest = before.iter().zip(&after).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    Ok(Difference { largest, largest_logit: before.iter().map(|logit| logit.abs()).fold(0.0, f32::max) })
}

async fn logits(directory: &Path, global: &Global) -> Result<(Vec<u32>, Vec<f32>)> {
    let mut engine = model::load(directory, global).await?;
    let ids = engine.tokenizer().encode(TEXT, true)?;
    let forward = engine.forward(&ids).await?;
    Ok((ids, forward.logits))
}
