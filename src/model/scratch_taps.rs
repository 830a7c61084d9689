//! Scratch of a pass, kept: which layer of a model is the first to go wrong.

use super::gpu_decoder::GpuDecoder;
use super::plan::{Output, Plan};
use crate::blocks::{Pass, Recorder, TAPS};
use crate::error::{Error, Result, nearest};
use crate::gpu::Buffer;
use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

/// Tokens whose scratch is kept at the same time.
const TAP_TOKENS: usize = 32;

/// Which scratch to keep: a name of [`TAPS`], of one layer or of all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapChoice {
    pub name: &'static str,
    pub layer: Option<usize>,
}

impl FromStr for TapChoice {
    type Err = Error;

    /// `NAME` or `NAME@LAYER`.
    fn from_str(text: &str) -> Result<Self> {
        let (wanted, layer) = match text.split_once('@') {
            None => (text, None),
            Some((name, layer)) => (name, Some(layer)),
        };
        let argument = |what, expected| Error::Argument { what, expected, found: text.to_owned() };
        let names = || TAPS.iter().map(|(name, _)| *name);
        let name = names().find(|name| *name == wanted).ok_or_else(|| {
            let near = nearest(wanted, names()).map_or(String::new(), |near| format!(" (did you mean `{near}`?)"));
            argument("tap", format!("a name of `moebius list taps`{near}"))
        })?;
        let number = |layer: &str| layer.parse().map_err(|_| argument("tap", "NAME or NAME@LAYER, with a number".to_owned()));
        Ok(TapChoice { name, layer: layer.map(number).transpose()? })
    }
}

/// What one block of a layer left in scratch.
#[derive(Debug, Clone, PartialEq)]
pub struct Tap {
    pub layer: usize,
    /// Index of the block in its layer.
    pub block: usize,
    pub name: &'static str,
    /// Values of one row, with the padding of the device.
    pub width: usize,
    /// `[num_tokens, width]`, words of 32 bits.
    pub words: Vec<u32>,
}

/// Where a recording copies scratch to.
pub(super) struct ScratchTaps {
    wanted: Vec<TapChoice>,
    /// Names that the model has, with a row for every token.
    known: BTreeSet<&'static str>,
    kept: Vec<(Tap, Buffer)>,
}

impl ScratchTaps {
    fn new(wanted: &[TapChoice]) -> Self {
        ScratchTaps { wanted: wanted.to_vec(), known: BTreeSet::new(), kept: Vec::new() }
    }

    /// Copies what the block that was just recorded has left.
    pub fn keep(&mut self, recorder: &mut Recorder, block: usize) {
        let (layer, num_tokens) = (recorder.layer, recorder.pass.num_tokens);
        for (name, width) in recorder.arena.asked() {
            self.known.insert(name);
            if !self.wanted.iter().any(|choice| choice.is(name, layer)) {
                continue;
            }
            let bytes = (num_tokens * width * 4) as u64;
            let copy = recorder.device.storage("tap", bytes);
            let scratch = recorder.scratch(name, width);
            recorder.recording.copy(&scratch, &copy, 0, bytes);
            self.kept.push((Tap { layer, block, name, width, words: Vec::new() }, copy));
        }
    }

    /// # Errors
    /// [`Error::Argument`] if nothing was kept for one of the choices.
    fn check(&self) -> Result<()> {
        let is_kept = |choice: &&TapChoice| self.kept.iter().any(|(tap, _)| choice.is(tap.name, tap.layer));
        let Some(missing) = self.wanted.iter().find(|choice| !is_kept(choice)) else { return Ok(()) };
        let known: Vec<&str> = self.known.iter().copied().collect();
        let expected = format!("scratch of a layer of this model: {}", known.join(", "));
        Err(Error::Argument { what: "tap", expected, found: missing.to_string() })
    }
}

impl TapChoice {
    fn is(&self, name: &str, layer: usize) -> bool {
        self.name == name && self.layer.is_none_or(|wanted| wanted == layer)
    }
}

impl fmt::Display for TapChoice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{}@{layer}", self.name),
            None => f.write_str(self.name),
        }
    }
}

impl GpuDecoder {
    /// Runs a text from its beginning and gives what its blocks left in the `wanted` scratch, in the order of the blocks.
    ///
    /// # Errors
    /// [`Error::Argument`] for scratch that the model does not have; what a device can fail with.
    pub async fn taps(&mut self, ids: &[u32], wanted: &[TapChoice]) -> Result<Vec<Tap>> {
        self.ahead.clear();
        self.extend_history(ids, 0).await?;
        let attempted = "keeping scratch";
        let mut all: Vec<Tap> = Vec::new();
        let chunk_len = chunk_len(ids.len(), self.buffers.chunk.max_tokens);
        for (index, chunk) in ids.chunks(chunk_len).enumerate() {
            self.upload_rows(chunk, index * chunk_len).await?;
            self.ledger.ran(index * chunk_len..index * chunk_len + chunk.len());
            let record = || {
                let mut planner = self.planner(Pass { num_tokens: chunk.len(), keeps_routing: false });
                planner.taps = Some(ScratchTaps::new(wanted));
                planner.record(&self.buffers.sampler, Output::Nothing)
            };
            let mut recorded = self.device.catch(attempted, record).await?;
            let taps = recorded.taps.take().expect("they were asked for");
            taps.check()?;
            let plan = Plan::new(recorded, self.paged.is_some());
            self.run(attempted, &plan, chunk, index * chunk_len).await?;
            for (position, (tap, copy)) in taps.kept.into_iter().enumerate() {
                let words: Vec<u32> = self.device.read_as(attempted, &copy, chunk.len() * tap.width).await?;
                match all.get_mut(position) {
                    Some(earlier) => earlier.words.extend(words),
                    None => all.push(Tap { words, ..tap }),
                }
            }
        }
        Ok(all)
    }
}

/// Tokens of each pass: never one alone behind others, because a single token goes through other kernels.
fn chunk_len(num_tokens: usize, most: usize) -> usize {
    (1..=most.min(TAP_TOKENS)).rev().find(|len| num_tokens == 1 || num_tokens % len != 1).unwrap_or(1)
}
