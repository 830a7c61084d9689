//! `moebius list`: what this version knows.

use super::table;
use anyhow::Result;
use clap::{Args, ValueEnum};
use moebius::kernels::KERNELS;
use moebius::model::TAPS;
use moebius::paging::{POLICIES, PolicyKind};
use moebius::quant::{MaxError, QUANTS};
use moebius::spec::ARCHS;
use std::io::Write;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius list archs
  moebius list quants --json
  moebius list kernels --markdown";

/// List architectures, kernels, quant formats, taps or policies.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ListArgs {
    #[arg(ignore_case = true)]
    what: What,
    /// Print a JSON array.
    #[arg(long, conflicts_with = "markdown")]
    json: bool,
    /// Print a Markdown table, as in the README.
    #[arg(long)]
    markdown: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum What {
    /// Architectures, by the model_type of config.json
    Archs,
    /// GPU kernels
    Kernels,
    /// Formats of weights
    Quants,
    /// Buffers of a device that `moebius logits --taps` keeps
    Taps,
    /// Ways to choose which expert gives up its slot
    Policies,
}

impl ListArgs {
    pub fn run(&self) -> Result<ExitCode> {
        let (header, rows) = match self.what {
            What::Archs => archs(),
            What::Kernels => kernels(),
            What::Quants => quants(),
            What::Taps => taps(),
            What::Policies => policies(),
        };
        let mut stdout = std::io::stdout().lock();
        if self.json {
            let object = |row: &Vec<String>| -> serde_json::Map<_, _> {
                header.iter().zip(row).map(|(key, cell)| (key.replace(' ', "_"), cell.as_str().into())).collect()
            };
            writeln!(stdout, "{}", serde_json::Value::from(rows.iter().map(object).collect::<Vec<_>>()))?;
        } else if self.markdown {
            write!(stdout, "{}", table::markdown(&header, &rows))?;
        } else {
            write!(stdout, "{}", table::aligned(&header, &rows))?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

type Listing = (Vec<&'static str>, Vec<Vec<String>>);

fn archs() -> Listing {
    let row = |arch: &&moebius::spec::Arch| vec![arch.name.to_owned(), arch.model_types.join(", "), arch.covers.to_owned()];
    (vec!["architecture", "model_type", "models"], ARCHS.iter().map(row).collect())
}

fn kernels() -> Listing {
    let row = |kernel: &&moebius::gpu::Kernel| vec![kernel.name.to_owned(), kernel.summary.to_owned()];
    (vec!["kernel", "does"], KERNELS.iter().map(row).collect())
}

fn taps() -> Listing {
    (vec!["tap", "holds"], TAPS.iter().map(|(name, holds)| vec![(*name).to_owned(), (*holds).to_owned()]).collect())
}

fn policies() -> Listing {
    let row = |policy: &PolicyKind| vec![policy.name.to_owned(), policy.summary.to_owned()];
    (vec!["policy", "does"], POLICIES.iter().map(row).collect())
}

fn quants() -> Listing {
    let row = |quant: &moebius::quant::Quant| {
        let error = match quant.max_error {
            MaxError::OfValue(0.0) => "none".to_owned(),
            MaxError::OfValue(error) => format!("{error:.1e} of the value"),
            MaxError::OfBlock(error) => format!("{error:.1e} of the largest in its block of {}", quant.block_len),
        };
        vec![quant.name.to_owned(), quant.bits_per_weight().to_string(), error]
    };
    (vec!["format", "bits per weight", "largest error"], QUANTS.iter().map(row).collect())
}
