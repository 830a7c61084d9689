//! Text as it is being generated, and what there is to say afterwards.

use super::interrupt::Watch;
use super::loads;
use super::talk;
use super::talk::talk;
use anyhow::Result;
use moebius::Engine;
use moebius::generate::{GenerateOptions, StopReason, Summary};
use std::io::Write;

/// Writes each piece to `out` as it comes. The first Ctrl-C ends the text as if it had come to its end.
pub async fn stream(engine: &mut Engine, prompt_ids: &[u32], options: &GenerateOptions, out: &mut dyn Write) -> Result<Summary> {
    let watch = Watch::start()?;
    let mut generation = engine.generate(prompt_ids, options)?;
    while !watch.requested() {
        let Some(piece) = generation.next().await? else { break };
        out.write_all(piece.text.as_bytes())?;
        out.flush()?;
    }
    Ok(generation.finish().await?)
}

/// Speeds, the end and the load of each expert, on stderr.
pub fn print_statistics(summary: &Summary, options: &GenerateOptions) {
    talk!("prefill  {}", rate(summary.prefill_tokens, summary.prefill_seconds, summary.prefill_rate()));
    talk!("decode   {}", rate(summary.ids.len().saturating_sub(1), summary.decode_seconds, summary.decode_rate()));
    talk!("stopped  {}", reason(&summary.stop));
    if !options.sampling.is_greedy() {
        talk!("seed     {}", options.sampling.seed);
    }
    if summary.expert_loads.iter().any(|layer| !layer.is_empty()) {
        talk!("\nload of each expert, prompt included, as a share of its layer:");
        talk::text(&loads::render(&summary.expert_loads));
    }
}

fn rate(tokens: usize, seconds: f64, tokens_per_second: f64) -> String {
    format!("{tokens} tokens in {seconds:.3} s, {tokens_per_second:.1} tokens/s")
}

/// Why the text ended, in words.
fn reason(stop: &StopReason) -> String {
    match stop {
        StopReason::Eos => "at the model's end of text".to_owned(),
        StopReason::MaxTokens => "after as many tokens as -n allows".to_owned(),
        StopReason::StopString(text) => format!("before the stop string {text:?}"),
        StopReason::ContextFull => "because the context is full".to_owned(),
        StopReason::Cancelled => "by Ctrl-C".to_owned(),
    }
}
