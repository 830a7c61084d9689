//! How the next token is drawn: the options, not the drawing.

use super::generation_config::GenerationDefaults;
use crate::batch::Sampling;
use crate::error::{Error, Result};
use std::path::Path;

/// What the sampler is told. The default is greedy: always the most likely token.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SamplingOptions {
    /// Divides the logits; 0 is greedy and ignores the four options below it.
    pub temperature: f32,
    /// Keep only this many most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the most likely tokens until they hold this share of the probability; in (0, 1], 1 keeps all.
    pub top_p: f32,
    /// Keep the tokens at least this fraction as likely as the most likely one; in [0, 1], 0 keeps all.
    pub min_p: f32,
    /// Seed of the random numbers. The same seed on the same logits draws the same tokens on every device.
    pub seed: u64,
    /// Divides positive and multiplies negative logits of tokens that already occurred; 1 is off. Greedy choice heeds it too.
    pub repeat_penalty: f32,
}

impl Default for SamplingOptions {
    fn default() -> Self {
        SamplingOptions { temperature: 0.0, top_k: 0, top_p: 1.0, min_p: 0.0, seed: 0, repeat_penalty: 1.0 }
    }
}

impl SamplingOptions {
    /// What the makers of a checkpoint suggest; greedy unless they ask for sampling.
    pub fn suggested(defaults: &GenerationDefaults) -> Self {
        let off = SamplingOptions::default();
        let samples = defaults.do_sample == Some(true);
        SamplingOptions {
            temperature: if samples { defaults.temperature.unwrap_or(1.0) } else { off.temperature },
            top_k: defaults.top_k.unwrap_or(off.top_k),
            top_p: defaults.top_p.unwrap_or(off.top_p),
            min_p: defaults.min_p.unwrap_or(off.min_p),
            repeat_penalty: defaults.repetition_penalty.unwrap_or(off.repeat_penalty),
            seed: off.seed,
        }
    }

    /// What the makers of the checkpoint in a directory suggest.
    ///
    /// # Errors
    /// [`Error::Json`] for a `generation_config.json` that is no JSON object, [`Error::Io`].
    pub async fn of_checkpoint(directory: &Path) -> Result<Self> {
        Ok(Self::suggested(&GenerationDefaults::read(directory).await?))
    }

    /// The same in the words of the `sample` kernel.
    pub(crate) fn for_kernel(&self) -> Sampling {
        Sampling {
            temperature: self.temperature,
            top_k: u32::try_from(self.top_k).unwrap_or(u32::MAX),
            top_p: self.top_p,
            min_p: self.min_p,
            repeat_penalty: self.repeat_penalty,
            seed: (self.seed ^ self.seed >> 32) as u32,
            padding: [0; 2],
        }
    }

    /// Whether the most likely token is always taken.
    pub fn is_greedy(&self) -> bool {
        self.temperature == 0.0
    }

    /// # Errors
    /// [`Error::Argument`] naming the first option that is out of range. NaN always is.
    pub fn validate(&self) -> Result<()> {
        let checks = [
            ("temperature", self.temperature, self.temperature.is_finite() && self.temperature >= 0.0, "a number of at least 0"),
            ("top_p", self.top_p, self.top_p > 0.0 && self.top_p <= 1.0, "a number above 0 and at most 1"),
            ("min_p", self.min_p, (0.0..=1.0).contains(&self.min_p), "a number from 0 to 1"),
            (
                "repeat_penalty",
                self.repeat_penalty,
                self.repeat_penalty.is_finite() && self.repeat_penalty > 0.0,
                "a number above 0",
            ),
        ];
        match checks.into_iter().find(|(_, _, valid, _)| !valid) {
            Some((what, value, _, expected)) => {
                Err(Error::Argument { what, expected: expected.to_owned(), found: value.to_string() })
            }
            None => Ok(()),
        }
    }
}
