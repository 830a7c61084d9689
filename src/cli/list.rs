//! `moebius list`: what this version knows.

use super::table;
use anyhow::Result;
use clap::{Args, ValueEnum};
use moebius::gating::{GATES, LOSSES, OWN_LOSSES, Setting};
use moebius::kernels::KERNELS;
use moebius::model::TAPS;
use moebius::paging::{POLICIES, PolicyKind};
use moebius::quant::{MaxError, QUANTS};
use moebius::spec::{ARCHS, PUBLISHED};
use std::io::Write;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius list archs
  moebius list quants --json
  moebius list kernels --markdown";

/// List what this version knows: architectures, kernels, formats, gates and more.
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
    /// Gating methods of the literature
    Gates,
    /// Settings of gating methods
    GateSettings,
    /// Losses of routers
    Losses,
    /// Models that were described, but whose weights nobody has
    Published,
}

impl ListArgs {
    pub fn run(&self) -> Result<ExitCode> {
        let (header, rows) = match self.what {
            What::Archs => archs(),
            What::Kernels => kernels(),
            What::Quants => quants(),
            What::Taps => taps(),
            What::Policies => policies(),
            What::Gates => gates(),
            What::GateSettings => gate_settings(),
            What::Losses => losses(),
            What::Published => published(),
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

fn gates() -> Listing {
    let row = |gate: &&moebius::gating::Gate| {
        let runs_as = gate.runs_as.as_ref().map_or("", |runs_as| runs_as.architecture);
        let causal = if gate.causal { "yes" } else { "no" };
        let device = if gate.wgsl.is_some() { "yes" } else { "no" };
        let losses: Vec<String> = gate.losses.iter().map(|(name, coefficient)| format!("{name} {coefficient}")).collect();
        [gate.name, gate.summary, gate.chooses.word(), causal, device, &losses.join(", "), runs_as, gate.source]
            .map(str::to_owned)
            .to_vec()
    };
    (
        vec!["method", "does", "who chooses", "causal", "on devices", "losses", "runs as", "source"],
        GATES.iter().map(row).collect(),
    )
}

/// A row for each setting, with the methods that have it: the same name may mean different things.
fn gate_settings() -> Listing {
    let mut rows: Vec<(&Setting, Vec<&str>)> = Vec::new();
    for gate in GATES {
        for setting in gate.settings.iter().flat_map(|group| group.iter()) {
            match rows.iter_mut().find(|(known, _)| *known == setting) {
                Some((_, gates)) => gates.push(gate.name),
                None => rows.push((setting, vec![gate.name])),
            }
        }
    }
    rows.sort_by_key(|(setting, _)| setting.name);
    let row = |(setting, gates): &(&Setting, Vec<&str>)| {
        let takes = match setting.words {
            [] => format!("{} to {}", setting.range[0], setting.range[1]),
            words => words.join(", "),
        };
        let live = if setting.live { "yes" } else { "no" };
        vec![setting.name.to_owned(), setting.help.to_owned(), setting.default_text(), takes, live.to_owned(), gates.join(", ")]
    };
    (vec!["setting", "means", "default", "takes", "while training", "methods"], rows.iter().map(row).collect())
}

fn losses() -> Listing {
    let general =
        LOSSES.iter().map(|loss| [loss.name, loss.summary, loss.balanced, "any", loss.source].map(str::to_owned).to_vec());
    let own = OWN_LOSSES.iter().map(|(name, gates, summary)| [*name, summary, "", gates, ""].map(str::to_owned).to_vec());
    (vec!["loss", "is", "when balanced", "methods", "source"], general.chain(own).collect())
}

fn published() -> Listing {
    let billions = |parameters: f64| format!("{:.1} B", parameters / 1e9);
    let row = |model: &moebius::spec::Published| {
        let [total, stated] = [model.arithmetic().total(), model.stated.total].map(billions);
        vec![model.name.to_owned(), model.summary.to_owned(), model.gate.to_owned(), total, stated, model.source.to_owned()]
    };
    (vec!["model", "is", "gating", "parameters", "as published", "source"], PUBLISHED.iter().map(row).collect())
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
