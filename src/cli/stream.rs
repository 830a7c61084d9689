//! Text as it is being generated, and what there is to say afterwards.

use super::coloured::BestExperts;
use super::interrupt::Watch;
use super::loads;
use super::progress::{self, Waiting};
use super::talk;
use super::talk::talk;
use anyhow::Result;
use clap::Args;
use moebius::generate::{GenerateOptions, Generation, Part, PartText, StopReason, Summary};
use std::borrow::Cow;
use std::io::{IsTerminal, Write};

const DIM: &str = "\x1b[2m";
const PLAIN: &str = "\x1b[0m";

#[derive(Args)]
pub struct ThinkingArgs {
    /// Leave out what the model thinks before its answer. Without this, terminals show it dimmed, and files have it between `<think>` and
    /// `</think>`.
    #[arg(long)]
    hide_thinking: bool,
}

impl ThinkingArgs {
    /// How thinking is shown on `out`, which may be a terminal.
    pub fn shown_on(&self, out: &impl IsTerminal) -> Thinking {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        match (self.hide_thinking, out.is_terminal() && !plain) {
            (true, _) => Thinking::Hidden,
            (false, true) => Thinking::Dimmed,
            (false, false) => Thinking::Marked,
        }
    }
}

/// How what a model thinks is told apart from its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Thinking {
    Hidden,
    Dimmed,
    /// Between `<think>` and `</think>`.
    Marked,
}

/// Writes the parts of one answer.
pub struct Printer<'a> {
    out: &'a mut dyn Write,
    thinking: Thinking,
    /// White space at the start of the text is left out.
    trims: bool,
    inside: bool,
    /// The prompt, shown on stderr when the text begins: no other line may come between the two.
    prompt: Option<String>,
    /// Which experts the tokens were sent to, where that is wanted.
    pub experts: Option<BestExperts>,
    /// A person sees it: control characters are shown and not obeyed.
    on_terminal: bool,
}

impl<'a> Printer<'a> {
    pub fn new<O: Write + IsTerminal>(out: &'a mut O, thinking: Thinking) -> Self {
        let on_terminal = out.is_terminal();
        Printer { out, thinking, trims: false, inside: false, prompt: None, experts: None, on_terminal }
    }

    /// The same without white space at the start.
    pub fn trimmed(self) -> Self {
        Printer { trims: true, ..self }
    }

    /// The same behind a prompt that is shown first.
    pub fn behind(self, prompt: String) -> Self {
        Printer { prompt: Some(prompt), ..self }
    }

    /// The same, counting which experts the tokens are sent to.
    pub fn watching(self, experts: Option<BestExperts>) -> Self {
        Printer { experts, ..self }
    }

    fn write(&mut self, parts: &[PartText]) -> std::io::Result<()> {
        for PartText { part, text } in parts {
            let text = if self.trims { text.trim_start() } else { text };
            if text.is_empty() || (*part == Part::Thinking && self.thinking == Thinking::Hidden) {
                continue;
            }
            self.trims = false;
            match (part, self.inside) {
                (Part::Thinking, false) => self.open()?,
                (Part::Answer, true) => self.close("\n\n")?,
                _ => {}
            }
            let text = if self.on_terminal { talk::harmless(text) } else { Cow::Borrowed(text) };
            self.out.write_all(text.as_bytes())?;
        }
        self.out.flush()
    }

    fn open(&mut self) -> std::io::Result<()> {
        self.inside = true;
        self.out.write_all(if self.thinking == Thinking::Dimmed { DIM.as_bytes() } else { b"<think>\n" })
    }

    fn close(&mut self, after: &str) -> std::io::Result<()> {
        self.inside = false;
        let end = if self.thinking == Thinking::Dimmed { PLAIN } else { "\n</think>" };
        write!(self.out, "{end}{after}")
    }

    fn finish(&mut self) -> std::io::Result<()> {
        if self.inside {
            self.close("")?;
        }
        self.out.flush()
    }
}

/// Writes each piece as it comes. The first Ctrl-C ends the text as if it had come to its end.
pub async fn stream(mut generation: Generation<'_>, printer: &mut Printer<'_>) -> Result<Summary> {
    let watch = Watch::start();
    generation.heed(watch.cancel());
    if printer.experts.is_some() {
        generation.keep_routing();
    }
    let mut compiling = None;
    generation.compile(&mut |done, total| progress::compiling(&mut compiling, done, total)).await?;
    drop(compiling);
    let mut waiting = Some(Waiting::new("read", format!("the prompt of {} tokens", generation.prompt_ids().len())));
    let written = loop {
        let next = generation.next().await;
        drop(waiting.take());
        if let Some(prompt) = printer.prompt.take() {
            talk::text(&talk::on_stderr(&prompt));
        }
        match next {
            Ok(Some(piece)) => {
                printer.write(&piece.parts)?;
                printer.experts.iter_mut().for_each(|experts| experts.add(generation.routing()));
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(error),
        }
    };
    // Also after an error: a terminal must not stay dimmed.
    printer.finish()?;
    written?;
    Ok(generation.finish().await?)
}

/// `text` in the colour of what is said beside the matter.
pub fn dim(text: &str) -> String {
    let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
    if std::io::stderr().is_terminal() && !plain { format!("{DIM}{text}{PLAIN}") } else { text.to_owned() }
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
pub fn reason(stop: &StopReason) -> String {
    match stop {
        StopReason::Eos => "at the model's end of text".to_owned(),
        StopReason::MaxTokens => "after as many tokens as -n allows".to_owned(),
        StopReason::StopString(text) => format!("before the stop string {text:?}"),
        StopReason::ContextFull => "because the context is full".to_owned(),
        StopReason::Cancelled => "by Ctrl-C".to_owned(),
    }
}
