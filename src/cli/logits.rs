//! `moebius logits`: what the model computes at every position, as a file.

use super::failure::Failure;
use super::files::{self, NewFile};
use super::progress::Waiting;
use super::talk::talk;
use super::{Global, model, number};
use anyhow::Result;
use clap::Args;
use moebius::bench;
use moebius::model::{Forward, Tap, TapChoice};
use safetensors::tensor::{Dtype, TensorView};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius logits --text \"Once upon a time\" --out logits.safetensors
  moebius logits ./my-model --ids 1,2,3 --out logits.safetensors --device cpu
  moebius logits org/name --ids-file ids.json --out logits.safetensors --json
  moebius logits ./my-model --ids 1,2,3 --out taps.safetensors --taps x,attended@3

The file holds `logits [n, vocab] f32` and, for every MoE layer l, `layers.{l}.router_logits [n, experts] f32`,
`layers.{l}.expert_ids [n, k] i32` (best first) and `layers.{l}.routing_weights [n, k] f32`.
A tap is `L{l}.{name} [n, width]`, where the width is that of the device's rows; where several blocks
of a layer leave something of that name, the number of the block follows: `L{l}.{name}.{block}`.";

/// Write logits and routing of every position to a safetensors file.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct LogitsArgs {
    /// A directory in Hugging Face layout or a hub id (org/name); the bundled model without it.
    model: Option<String>,
    #[command(flatten)]
    input: Input,
    /// The file to write; it appears when all of it is there.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Keep what blocks leave in these buffers too (see `moebius list taps`), of one layer or of all.
    #[arg(long, value_name = "NAME[@LAYER]", value_delimiter = ',')]
    taps: Vec<TapChoice>,
    /// Print a JSON object about the result on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct Input {
    /// Token ids, separated by commas.
    #[arg(long, value_delimiter = ',', value_name = "IDS", value_parser = number::token_id)]
    ids: Vec<u32>,
    /// A JSON array of token ids.
    #[arg(long, value_name = "FILE")]
    ids_file: Option<PathBuf>,
    /// A text, with the special tokens that the checkpoint wants around it.
    #[arg(long, value_name = "TEXT")]
    text: Option<String>,
}

impl LogitsArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        let out = NewFile::prepare(&self.out)?;
        let given = match &self.input.ids_file {
            Some(path) => files::read_ids(path)?,
            None => self.input.ids.clone(),
        };
        if given.is_empty() && self.input.text.as_deref().unwrap_or_default().is_empty() {
            return Err(
                Failure::new("the input is empty: expected at least one token", "moebius logits --ids 1,2,3 --out F").into()
            );
        }
        let directory = model::directory(self.model.as_deref()).await?;
        out.keep_apart(&self.input.ids_file.iter().map(PathBuf::as_path).collect::<Vec<_>>(), Some(&directory))?;
        model::check_ids(&directory, &given).await?;
        let mut engine = model::load(&directory, global).await?;
        let ids = match &self.input.text {
            Some(text) => engine.tokenizer().encode(text, true)?,
            None => given,
        };
        let line = Waiting::new("compute", format!("{} tokens", ids.len()));
        let forward = engine.forward(&ids).await?;
        let taps = if self.taps.is_empty() { Vec::new() } else { engine.taps(&ids, &self.taps).await? };
        drop(line);
        out.write(&serialize(&forward, &taps, ids.len())?)?;
        talk!("wrote {}: {} positions, {} MoE layers", self.out.display(), ids.len(), forward.layers.len());
        if self.json {
            let result = serde_json::json!({
                "model": directory,
                "device": bench::device_json(engine.device()),
                "ids": ids,
                "out": self.out,
                "vocab_size": engine.spec().vocab_size,
                "layers": forward.layers.iter().map(|layer| layer.layer).collect::<Vec<_>>(),
            });
            writeln!(std::io::stdout(), "{result}")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// The safetensors file, as bytes.
fn serialize(forward: &Forward, taps: &[Tap], num_tokens: usize) -> Result<Vec<u8>> {
    let mut tensors = vec![("logits".to_owned(), view(Dtype::F32, num_tokens, bytemuck::cast_slice(&forward.logits))?)];
    for routing in &forward.layers {
        let named = |name: &str| format!("layers.{}.{name}", routing.layer);
        tensors.push((named("router_logits"), view(Dtype::F32, num_tokens, bytemuck::cast_slice(&routing.router_logits))?));
        // Expert ids are far below 2^31, so the bits of u32 and i32 are the same.
        tensors.push((named("expert_ids"), view(Dtype::I32, num_tokens, bytemuck::cast_slice(&routing.expert_ids))?));
        tensors.push((named("routing_weights"), view(Dtype::F32, num_tokens, bytemuck::cast_slice(&routing.routing_weights))?));
    }
    for tap in taps {
        let is_integer = matches!(tap.name, "expert_ids" | "slots" | "order");
        let dtype = if is_integer { Dtype::I32 } else { Dtype::F32 };
        tensors.push((tap_name(tap, taps), view(dtype, num_tokens, bytemuck::cast_slice(&tap.words))?));
    }
    // No metadata: the crate takes it as a hash map, and the same input has to give the same bytes.
    Ok(safetensors::serialize(tensors, None)?)
}

/// `L{layer}.{name}`, with the number of the block where several blocks of the layer have left something of this name.
fn tap_name(tap: &Tap, all: &[Tap]) -> String {
    let Tap { layer, block, name, .. } = tap;
    let is_shared = all.iter().any(|other| other.layer == *layer && other.name == *name && other.block != *block);
    if is_shared { format!("L{layer}.{name}.{block}") } else { format!("L{layer}.{name}") }
}

/// `bytes` of four-byte values as `[num_tokens, ...]`.
fn view(dtype: Dtype, num_tokens: usize, bytes: &[u8]) -> Result<TensorView<'_>> {
    let width = bytes.len() / 4 / num_tokens;
    Ok(TensorView::new(dtype, vec![num_tokens, width], bytes)?)
}
