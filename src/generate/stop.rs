//! When generating ends, and what of the last text is kept.

use crate::error::{Error, Result};
use serde::Serialize;

/// Why generating ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StopReason {
    /// The model wrote a token that ends a text.
    Eos,
    /// As many tokens as were asked for.
    MaxTokens,
    /// The text reached this stop string, which is not part of the output.
    StopString(String),
    /// The KV cache has no room for another token.
    ContextFull,
    /// The caller asked to stop.
    Cancelled,
}

/// What ends the generating of one text.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopRules {
    /// Tokens that end a text. `None`: those of the model. Empty: the text goes on after its end.
    pub eos_ids: Option<Vec<u32>>,
    /// The most new tokens, the one that ends the text included. `None`: 128, and in a conversation whatever the context holds.
    pub max_tokens: Option<usize>,
    /// Texts that end the output, which is cut before them.
    pub stop_strings: Vec<String>,
}

/// The most new tokens where nobody says how many.
const DEFAULT_MAX_TOKENS: usize = 128;

impl StopRules {
    /// # Errors
    /// [`Error::Argument`] for an empty stop string, which every text would contain, and for no new token at all.
    pub fn validate(&self) -> Result<()> {
        if self.max_tokens == Some(0) {
            let (expected, found) = ("at least 1".to_owned(), "0".to_owned());
            return Err(Error::Argument { what: "number of new tokens", expected, found });
        }
        if self.stop_strings.iter().any(String::is_empty) {
            let expected = "a text of at least one character".to_owned();
            return Err(Error::Argument { what: "stop string", expected, found: "an empty one".to_owned() });
        }
        Ok(())
    }

    /// The most new tokens.
    pub fn limit(&self) -> usize {
        self.max_tokens.unwrap_or(DEFAULT_MAX_TOKENS)
    }

    /// The same rules with `eos_ids` where they leave that to the model.
    pub fn or_eos_ids(mut self, eos_ids: &[u32]) -> Self {
        self.eos_ids.get_or_insert_with(|| eos_ids.to_vec());
        self
    }

    /// Whether the newest token ends the text, where `num_tokens` counts the new tokens with it.
    pub fn after_token(&self, id: u32, num_tokens: usize) -> Option<StopReason> {
        if self.eos_ids.as_ref().is_some_and(|ids| ids.contains(&id)) {
            Some(StopReason::Eos)
        } else {
            (num_tokens >= self.limit()).then_some(StopReason::MaxTokens)
        }
    }

    /// Watches the text of one output for the stop strings.
    pub fn matcher(&self) -> StopMatcher {
        let stop_strings = self.stop_strings.iter().filter(|text| !text.is_empty()).cloned().collect();
        StopMatcher { stop_strings, held: String::new() }
    }
}

/// Finds stop strings in a text that arrives in pieces, however it is cut. The one that is complete first counts; of those that
/// are complete at the same character, the longest.
#[derive(Debug, Clone)]
pub struct StopMatcher {
    stop_strings: Vec<String>,
    /// Text that may turn out to be the beginning of a stop string.
    held: String,
}

/// What a piece of text came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopOutput {
    /// Text that is now certainly part of the output.
    pub text: String,
    /// The stop string that followed that text.
    pub stopped_by: Option<String>,
}

impl StopMatcher {
    /// Takes the next piece. After a match nothing more should be pushed; what followed the stop string is dropped.
    pub fn push(&mut self, piece: &str) -> StopOutput {
        self.held.push_str(piece);
        let found = self
            .stop_strings
            .iter()
            .filter_map(|stop| self.held.find(stop.as_str()).map(|start| (start + stop.len(), start, stop)));
        if let Some((_, start, stop)) = found.min_by_key(|&(end, start, _)| (end, start)) {
            let stopped_by = Some(stop.clone());
            let mut text = std::mem::take(&mut self.held);
            text.truncate(start);
            return StopOutput { text, stopped_by };
        }
        let keep_from = self.held.len() - self.longest_beginning();
        let rest = self.held.split_off(keep_from);
        StopOutput { text: std::mem::replace(&mut self.held, rest), stopped_by: None }
    }

    /// The text still held back, when nothing more comes.
    pub fn flush(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// Bytes of the longest end of the held text that begins a stop string.
    fn longest_beginning(&self) -> usize {
        let ends = self.held.char_indices().map(|(start, _)| &self.held[start..]);
        ends.filter(|end| self.stop_strings.iter().any(|stop| stop.starts_with(end))).map(str::len).max().unwrap_or(0)
    }
}
