//! `moebius quantize`: a model in the layout of device memory, for loading without quantising.

use super::interrupt::Watch;
use super::model;
use super::number;
use super::progress::{Progress, Unit};
use super::talk::talk;
use anyhow::Result;
use clap::Args;
use moebius::error::human_bytes;
use moebius::model::{QuantizeOptions, Quantized, quantize, quantize_synthetic};
use moebius::platform::{HostPeak, NewDirectory, Stopwatch};
use moebius::quant::QuantChoice;
use serde_json::json;
use std::io::Write;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius quantize examples/models/demo demo-q8_0
  moebius quantize mistralai/Mixtral-8x7B-v0.1 mixtral-q4_0 --quant q4_0,head=q8_0
  moebius quantize --synthetic config.json random-q4_0 --quant q4_0   random weights in its shapes, to try a size out
  moebius run mixtral-q4_0 \"Dear Sir,\"              as run with that --quant, but loads faster
";

/// Write a model with its weights quantised, as they lie in device memory.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct QuantizeArgs {
    /// A directory in Hugging Face layout or a hub id (org/name).
    model: String,
    /// The directory to write: one that is not there yet, or an empty one.
    out: PathBuf,
    /// Format of the weights: one of `moebius list quants`, or auto, which keeps them as stored; also by class, the others as stored:
    /// experts=q4_0,head=q8_0. Classes: experts, shared (with dense layers), attention, embedding, head. Without it: q8_0, and experts that
    /// are stored in eight bits or less stay as they are.
    #[arg(long, value_name = "FORMATS", help_heading = "Device and memory")]
    quant: Option<QuantChoice>,
    /// Mebibytes of weights in one file, at most, but for a single tensor that is larger.
    #[arg(long, value_name = "MIB", default_value = "4096", value_parser = number::positive_u64)]
    file_size: NonZeroU64,
    /// MODEL is a `config.json`: write random weights in its shapes, with which sizes and speeds can be tried out without a download.
    #[arg(long)]
    synthetic: bool,
    /// With --synthetic: only the first so many layers.
    #[arg(long, requires = "synthetic", value_parser = number::whole)]
    layers: Option<usize>,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl QuantizeArgs {
    pub async fn run(&self) -> Result<ExitCode> {
        // Before anything is downloaded; the check is all that is wanted here.
        drop(NewDirectory::prepare(&self.out)?);
        let options = QuantizeOptions { quant: self.quant, max_file_bytes: self.file_size.get().saturating_mul(1 << 20) };

        let directory = if self.synthetic { PathBuf::from(&self.model) } else { model::directory(Some(&self.model)).await? };
        let watch = Watch::start();
        let (clock, host_peak) = (Stopwatch::start(), HostPeak::start());
        let line = Progress::new("quantise", Unit::Bytes, "looking at the weights");
        let mut progress = |done, total| {
            line.set(done, total);
            !watch.requested()
        };
        let written = if self.synthetic {
            quantize_synthetic(&directory, self.layers, &self.out, &options, &mut progress).await
        } else {
            quantize(&directory, &self.out, &options, &mut progress).await
        };
        drop(line);
        let Quantized { quant, formats, num_files, weight_bytes } = written?;
        let files = if num_files == 1 { "one file".to_owned() } else { format!("{num_files} files") };
        let (out, size) = (self.out.display(), human_bytes(weight_bytes));
        talk!("quant    {quant}: matrices in {}", formats.join(", "));
        talk!("wrote    {out}: {size} of weights in {files}, in {:.1} s", clock.seconds());
        let peak = host_peak.bytes();
        if let Some(peak) = peak {
            talk!("memory   {} of the host at most", human_bytes(peak));
        }
        if self.json {
            let result = json!({
                "out": self.out,
                "quant": quant.to_string(),
                "formats": formats,
                "files": num_files,
                "weight_bytes": weight_bytes,
                "seconds": clock.seconds(),
                "peak_host_bytes": peak,
            });
            writeln!(std::io::stdout(), "{result}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}
