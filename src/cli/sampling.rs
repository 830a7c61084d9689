//! The options that shape a generated text, shared by `run` and `chat`.

use super::number::{self, Seed};
use clap::Args;
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules, Tokenizer};
use std::num::NonZeroUsize;
use std::time::{SystemTime, UNIX_EPOCH};

#[derive(Args)]
pub struct SamplingArgs {
    /// The most tokens to write; -1 is as many as the context holds. Without it 128; in `chat`, where the model has a chat template, as many as the
    /// context holds.
    #[arg(short = 'n', long, value_name = "TOKENS", value_parser = number::token_count, allow_negative_numbers = true)]
    max_tokens: Option<NonZeroUsize>,
    /// Temperature; 0 always takes the most likely token. Without it, the checkpoint's own suggestion.
    #[arg(short = 't', long, visible_alias = "temperature", value_name = "T", value_parser = number::temperature, allow_negative_numbers = true)]
    temp: Option<f32>,
    /// Draw from this many most likely tokens only; 0 or -1 is all.
    #[arg(long, value_name = "K", value_parser = number::top_k, allow_negative_numbers = true)]
    top_k: Option<usize>,
    /// Draw from the most likely tokens that together have this probability; 1 is all.
    #[arg(long, value_name = "P", value_parser = number::top_p, allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Draw from the tokens at least this fraction as likely as the most likely one; 0 is off.
    #[arg(long, value_name = "P", value_parser = number::min_p, allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// Seed of the random numbers: the same seed gives the same text. Without it, or with -1, one from the clock, which is printed.
    #[arg(long, value_name = "N", value_parser = number::seed, allow_negative_numbers = true)]
    seed: Option<Seed>,
    /// Make tokens that already occurred less likely by this factor; 1 is off.
    #[arg(long, value_name = "FACTOR", value_parser = number::repeat_penalty, allow_negative_numbers = true)]
    repeat_penalty: Option<f32>,
    /// End the text before this string; may be given more than once.
    #[arg(long, value_name = "TEXT")]
    stop: Vec<String>,
    /// Go on after a token that ends a text.
    #[arg(long)]
    ignore_eos: bool,
}

impl SamplingArgs {
    /// Refuses what no model can do, before anyone waits for one.
    pub fn check(&self) -> moebius::Result<()> {
        self.over(SamplingOptions::default()).validate()?;
        self.stop_rules().validate()
    }

    /// The checkpoint's suggestions, overridden by what was given.
    pub fn options(&self, tokenizer: &Tokenizer) -> GenerateOptions {
        let sampling = self.over(SamplingOptions::suggested(tokenizer.generation_defaults()));
        GenerateOptions { sampling, stop: self.stop_rules() }
    }

    /// Whether the number of tokens was given.
    pub fn limits_tokens(&self) -> bool {
        self.max_tokens.is_some()
    }

    fn over(&self, suggested: SamplingOptions) -> SamplingOptions {
        SamplingOptions {
            temperature: self.temp.unwrap_or(suggested.temperature),
            top_k: self.top_k.unwrap_or(suggested.top_k),
            top_p: self.top_p.unwrap_or(suggested.top_p),
            min_p: self.min_p.unwrap_or(suggested.min_p),
            repeat_penalty: self.repeat_penalty.unwrap_or(suggested.repeat_penalty),
            seed: self.seed.and_then(|seed| seed.0).unwrap_or_else(seed_from_clock),
        }
    }

    fn stop_rules(&self) -> StopRules {
        let eos_ids = self.ignore_eos.then(Vec::new);
        StopRules { eos_ids, max_tokens: self.max_tokens.map(NonZeroUsize::get), stop_strings: self.stop.clone() }
    }
}

/// A number that is short enough to be typed again.
fn seed_from_clock() -> u64 {
    const DIGITS: u32 = 6;
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::from(now.subsec_nanos()) % 10_u64.pow(DIGITS)
}
