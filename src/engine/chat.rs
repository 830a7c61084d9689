//! Conversations.

use super::Engine;
use crate::error::Result;
use crate::generate::{ChatMessage, ChatTemplate, GenerateOptions, Generation};

/// The longest answer of a model without a chat template, which does not know where an answer ends.
const MAX_PLAIN_TOKENS: usize = 128;

/// A conversation as a model is given it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChatPrompt {
    pub text: String,
    pub ids: Vec<u32>,
    /// Whether the model has no chat template, so that the conversation is lines of `User:` and `Assistant:`.
    pub is_plain: bool,
    /// Texts at which the answer ends, beside the tokens that end a text.
    pub stop_strings: Vec<String>,
    /// The longest answer that makes sense: what the context still holds, or 128 tokens where `is_plain`.
    pub max_tokens: usize,
}

impl Engine {
    /// Answers the last of `messages`, through the model's chat template or, where it has none, as lines of `User:` and `Assistant:`. The answer
    /// ends where the model ends it, or after `options.stop.max_tokens` tokens, which is the longest answer that makes sense where it is `None`.
    ///
    /// # Errors
    /// As [`chat_prompt`](Self::chat_prompt) and [`generate`](Self::generate).
    pub fn chat(&mut self, messages: &[ChatMessage], options: &GenerateOptions) -> Result<Generation<'_>> {
        let prompt = self.chat_prompt(messages)?;
        let mut options = options.clone();
        options.stop.stop_strings.extend(prompt.stop_strings);
        options.stop.max_tokens.get_or_insert(prompt.max_tokens);
        self.generate(&prompt.ids, &options)
    }

    /// The prompt after which the model answers the last of `messages`.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`](crate::Error::ChatTemplate) if the template of the model does not compile, or refuses the conversation.
    pub fn chat_prompt(&self, messages: &[ChatMessage]) -> Result<ChatPrompt> {
        let template = ChatTemplate::of(&self.tokenizer)?;
        let text = template.render(messages, true)?;
        let ids = self.tokenizer.encode(&text, !template.writes_special_tokens())?;
        let is_plain = template.is_plain();
        let max_tokens = if is_plain { MAX_PLAIN_TOKENS } else { self.context.saturating_sub(ids.len()).max(1) };
        let stop_strings = template.stop_strings().iter().map(|&text| text.to_owned()).collect();
        Ok(ChatPrompt { text, ids, is_plain, stop_strings, max_tokens })
    }
}
