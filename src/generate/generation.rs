//! One text in the making: token by token, until a stop rule holds.

use super::parts::{AnswerParts, Part, PartText};
use super::sampling::SamplingOptions;
use super::stop::{StopMatcher, StopReason, StopRules};
use super::text_stream::TextStream;
use super::tokenizer::Tokenizer;
use crate::batch::LayerRouting;
use crate::error::{Error, Result};
use crate::model::{Cancel, Decoder};
use crate::platform::Progress;
use crate::platform::Stopwatch;

/// How to continue a prompt. The default is greedy, and ends where the model ends the text or after 128 tokens.
#[derive(Debug, Clone, Default)]
pub struct GenerateOptions {
    pub sampling: SamplingOptions,
    pub stop: StopRules,
}

/// One new token and the text that is certain because of it, often empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Piece {
    pub id: u32,
    /// As the model writes, without control tokens: prompt and pieces put together are the text of all ids.
    pub text: String,
    /// The same with thinking and answer told apart, without the marks between them.
    pub parts: Vec<PartText>,
}

/// What a generation came to.
#[derive(Debug, Clone)]
pub struct Summary {
    pub prompt_ids: Vec<u32>,
    /// New tokens, the one that ends the text included.
    pub ids: Vec<u32>,
    pub text: String,
    /// What the model thought before its answer; empty for most models.
    pub thinking: String,
    /// The text without the thinking and the marks around it.
    pub answer: String,
    pub stop: StopReason,
    /// Prompt tokens that were run; the others were in the KV cache, or in the state, already.
    pub prefill_tokens: usize,
    /// From the start to the first new token.
    pub prefill_seconds: f64,
    /// From the first new token to the last.
    pub decode_seconds: f64,
    /// Assignments per MoE layer and expert, of all tokens that were run.
    pub expert_loads: Vec<Vec<u64>>,
}

impl Summary {
    /// Prompt tokens per second.
    pub fn prefill_rate(&self) -> f64 {
        rate(self.prefill_tokens, self.prefill_seconds)
    }

    /// New tokens per second, the first one not counted: the prefill made it.
    pub fn decode_rate(&self) -> f64 {
        rate(self.ids.len().saturating_sub(1), self.decode_seconds)
    }
}

fn rate(tokens: usize, seconds: f64) -> f64 {
    if seconds > 0.0 { tokens as f64 / seconds } else { 0.0 }
}

/// A generation in progress. Dropping it is how to stop early without a summary.
#[derive(Debug)]
pub struct Generation<'a> {
    context: GenerationContext<'a>,
    options: GenerateOptions,
    stream: TextStream<'a>,
    matcher: StopMatcher,
    prompt_ids: Vec<u32>,
    /// Leading prompt tokens that the KV cache holds already.
    reused: usize,
    keeps_routing: bool,
    cancel: Cancel,
    ids: Vec<u32>,
    text: String,
    parts: AnswerParts,
    /// Thinking and answer so far.
    told_apart: [String; 2],
    stop: Option<StopReason>,
    prefill_seconds: f64,
    decode_seconds: f64,
}

/// What a generation borrows.
#[derive(Debug)]
pub(crate) struct GenerationContext<'a> {
    pub decoder: &'a mut Decoder,
    pub tokenizer: &'a Tokenizer,
    /// The tokens whose keys and values the cache holds, kept true at every step.
    pub cached: &'a mut Vec<u32>,
    /// Positions of the KV cache.
    pub context: usize,
}

impl<'a> Generation<'a> {
    /// `prompt_ids` must not be empty, nor longer than the context, nor beyond the vocabulary.
    pub(crate) fn new(context: GenerationContext<'a>, prompt_ids: &[u32], options: &GenerateOptions) -> Result<Self> {
        let stop = options.stop.clone().or_eos_ids(context.tokenizer.eos_ids());
        let common = context.cached.iter().zip(prompt_ids).take_while(|(cached, wanted)| cached == wanted).count();
        Ok(Generation {
            stream: TextStream::after(context.tokenizer, prompt_ids, true)?,
            parts: parts_after(context.tokenizer, prompt_ids)?,
            told_apart: [String::new(), String::new()],
            matcher: stop.matcher(),
            options: GenerateOptions { sampling: options.sampling, stop },
            prompt_ids: prompt_ids.to_vec(),
            // The last prompt token has to run in any case: its output is the first choice.
            reused: context.decoder.resumable(common.min(prompt_ids.len() - 1)),
            keeps_routing: false,
            cancel: Cancel::default(),
            ids: Vec::new(),
            text: String::new(),
            stop: None,
            prefill_seconds: 0.0,
            decode_seconds: 0.0,
            context,
        })
    }

    /// The tokens that are continued.
    pub fn prompt_ids(&self) -> &[u32] {
        &self.prompt_ids
    }

    /// From now on [`routing`](Self::routing) reports what the routers do. Call it before the first [`next`](Self::next): then the whole
    /// prompt is run, also what the KV cache holds already, so that nothing is missing.
    pub fn keep_routing(&mut self) {
        self.keep_routing_beyond(0);
    }

    /// As [`keep_routing`](Self::keep_routing), for somebody who knows already what the routers did with the first `known` tokens of the prompt: of
    /// those that the KV cache holds, only the others are run.
    pub fn keep_routing_beyond(&mut self, known: usize) {
        self.keeps_routing = true;
        self.reused = self.context.decoder.resumable(self.reused.min(known));
    }

    /// The last `own` tokens of the prompt are the beginning of this very text, which was broken off there: thinking, stop strings and letters of
    /// several tokens go on as if it had not been. Call it before the first [`next`](Self::next).
    ///
    /// # Errors
    /// As [`Tokenizer::decode`].
    pub fn resume(&mut self, own: usize) -> Result<()> {
        let (prompt, own) = self.prompt_ids.split_at(self.prompt_ids.len().saturating_sub(own));
        let (prompt, own) = (prompt.to_vec(), own.to_vec());
        self.stream = TextStream::after(self.context.tokenizer, &prompt, true)?;
        self.parts = parts_after(self.context.tokenizer, &prompt)?;
        for id in own {
            self.take_text(id, &mut Vec::new())?;
            self.stop = None;
        }
        Ok(())
    }

    /// From now on `cancel` ends the text: before the next token, and between the chunks of a long prompt.
    pub fn heed(&mut self, cancel: Cancel) {
        self.cancel = cancel;
    }

    /// Has the device finish compiling what this text runs; otherwise the first [`next`](Self::next) takes that time too. `progress` hears the
    /// kernels done and in all, and nothing where there is nothing to do.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn compile(&mut self, progress: &mut Progress<'_>) -> Result<()> {
        let num_tokens = self.prompt_ids.len() - self.reused;
        let decoder = &mut self.context.decoder;
        decoder.keep_routing(self.keeps_routing);
        decoder.heed(self.cancel.clone());
        let outcome = decoder.compile_for(num_tokens, progress).await;
        decoder.heed(Cancel::default());
        // The next token is none then.
        if matches!(outcome, Err(Error::Stopped { .. })) { Ok(()) } else { outcome }
    }

    /// What the routers did with the tokens that the last [`next`](Self::next) ran, one entry per MoE layer: the prompt at first, then
    /// the token before the one that it gave. Empty unless [`keep_routing`](Self::keep_routing) was called.
    pub fn routing(&self) -> &[LayerRouting] {
        self.context.decoder.routing()
    }

    /// The next token; `None` once a stop rule held.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) and whatever else a device can fail with.
    pub async fn next(&mut self) -> Result<Option<Piece>> {
        if self.stop.is_some() {
            return Ok(None);
        }
        let watch = Stopwatch::start();
        let outcome = match self.ids.len() {
            _ if self.cancel.is_requested() => Err(Error::Stopped { what: "the text" }),
            0 => self.prefill().await,
            _ => self.decode().await,
        };
        if matches!(outcome, Err(Error::Stopped { .. })) {
            self.stop = Some(StopReason::Cancelled);
            return Ok(None);
        }
        let id = outcome?;
        match self.ids.len() {
            0 => self.prefill_seconds = watch.seconds(),
            _ => self.decode_seconds += watch.seconds(),
        }
        self.ids.push(id);
        let mut parts = Vec::new();
        let text = self.take_text(id, &mut parts)?;
        self.text.push_str(&text);
        parts.iter().for_each(|piece| self.told_apart[piece.part as usize].push_str(&piece.text));
        Ok(Some(Piece { id, text, parts }))
    }

    /// Ends the generation, finished or not.
    ///
    /// # Errors
    /// As [`next`](Self::next).
    pub async fn finish(mut self) -> Result<Summary> {
        let held = self.parts.finish();
        let [mut thinking, mut answer] = self.told_apart;
        for piece in held {
            if piece.part == Part::Thinking { &mut thinking } else { &mut answer }.push_str(&piece.text);
        }
        Ok(Summary {
            expert_loads: self.context.decoder.expert_loads().await?,
            prefill_tokens: if self.ids.is_empty() { 0 } else { self.prompt_ids.len() - self.reused },
            prompt_ids: self.prompt_ids,
            ids: self.ids,
            text: self.text,
            thinking,
            answer,
            stop: self.stop.unwrap_or(StopReason::Cancelled),
            prefill_seconds: self.prefill_seconds,
            decode_seconds: self.decode_seconds,
        })
    }

    async fn prefill(&mut self) -> Result<u32> {
        let GenerationContext { decoder, cached, .. } = &mut self.context;
        // Cleared until the pass is through: a failure must not leave a wrong claim behind.
        cached.clear();
        decoder.keep_routing(self.keeps_routing);
        decoder.heed(self.cancel.clone());
        decoder.begin(&self.options.sampling.for_kernel(), &self.prompt_ids).await?;
        let chosen = decoder.prefill(&self.prompt_ids[self.reused..], self.reused).await;
        decoder.heed(Cancel::default());
        let id = chosen?;
        cached.extend_from_slice(&self.prompt_ids);
        Ok(id)
    }

    async fn decode(&mut self) -> Result<u32> {
        let GenerationContext { decoder, cached, context, .. } = &mut self.context;
        let fed = self.ids[self.ids.len() - 1];
        let positions = *context + 1 - self.prompt_ids.len() - self.ids.len();
        let wanted = positions.min(self.options.stop.limit() - self.ids.len());
        decoder.heed(self.cancel.clone());
        let outcome = decoder.decode(wanted).await;
        decoder.heed(Cancel::default());
        // A failure must not leave a wrong claim behind; that nobody wants more is none.
        if outcome.as_ref().is_err_and(|error| !matches!(error, Error::Stopped { .. })) {
            cached.clear();
        }
        let id = outcome?;
        if cached.is_empty() {
            // What failed before has succeeded: everything is there.
            cached.extend_from_slice(&self.prompt_ids);
            cached.extend_from_slice(&self.ids);
        } else {
            cached.push(fed);
        }
        Ok(id)
    }

    /// The text that `id` makes certain, its parts, and whether it is the last.
    fn take_text(&mut self, id: u32, parts: &mut Vec<PartText>) -> Result<String> {
        let mut text = String::new();
        let tokenizer = self.context.tokenizer;
        let mark = tokenizer.token_text(id).filter(|token| tokenizer.is_special(id) && self.parts.heeds(token));
        let piece = match &mark {
            // What was held back belongs to the part before.
            Some(_) => self.stream.flush()?,
            None => self.stream.push(id)?,
        };
        let mut stopped = self.take_piece(&piece, &mut text, parts);
        if let Some(mark) = mark.filter(|_| stopped.is_none()) {
            let held = self.matcher.flush();
            parts.extend(self.parts.push(&held));
            text.push_str(&held);
            parts.extend(self.parts.control(&mark));
        }
        stopped = stopped.or_else(|| self.options.stop.after_token(id, self.ids.len()));
        // The newest token needs a position to be fed back from.
        if stopped.is_none() && self.prompt_ids.len() + self.ids.len() > self.context.context {
            stopped = Some(StopReason::ContextFull);
        }
        if let Some(reason) = stopped {
            let by_text = matches!(reason, StopReason::StopString(_));
            self.stop = Some(if by_text { reason } else { self.take_rest(reason, &mut text, parts)? });
            parts.extend(self.parts.finish());
        }
        Ok(text)
    }

    /// What is still held back, when `reason` ends the text; it may hold a stop string yet.
    fn take_rest(&mut self, reason: StopReason, text: &mut String, parts: &mut Vec<PartText>) -> Result<StopReason> {
        let rest = self.stream.flush()?;
        if let Some(stopped) = self.take_piece(&rest, text, parts) {
            return Ok(stopped);
        }
        let held = self.matcher.flush();
        parts.extend(self.parts.push(&held));
        text.push_str(&held);
        Ok(reason)
    }

    fn take_piece(&mut self, piece: &str, text: &mut String, parts: &mut Vec<PartText>) -> Option<StopReason> {
        let output = self.matcher.push(piece);
        parts.extend(self.parts.push(&output.text));
        text.push_str(&output.text);
        output.stopped_by.map(StopReason::StopString)
    }
}

/// A template may have opened the thinking at the end of a prompt.
fn parts_after(tokenizer: &Tokenizer, prompt_ids: &[u32]) -> Result<AnswerParts> {
    /// Ids from which that can be told.
    const TAIL: usize = 64;
    let tail = tokenizer.decode(&prompt_ids[prompt_ids.len().saturating_sub(TAIL)..], false)?;
    Ok(AnswerParts::after(&tail))
}
