//! Conversations: the chat template of the model, as `moebius chat` uses it.

use super::json::{self, parse, thrown, to_js};
use super::{Engine, JsChatPrompt, JsMessages, JsResult};
use crate::generate::{ChatMessage, ChatTemplate};
use wasm_bindgen::prelude::*;

/// The longest answer of a model without a chat template, which does not know where an answer ends.
const MAX_PLAIN_TOKENS: usize = 128;

#[wasm_bindgen]
impl Engine {
    /// The prompt after which the model answers the last message. A model without a template gets lines of `User:` and `Assistant:`.
    #[wasm_bindgen(js_name = chatPrompt)]
    pub fn chat_prompt(&self, messages: JsMessages) -> JsResult<JsChatPrompt> {
        let messages: Vec<ChatMessage> = parse(Some(&messages))?;
        let tokenizer = self.inner.tokenizer();
        let template = ChatTemplate::of(tokenizer).map_err(thrown)?;
        let text = template.render(&messages, true).map_err(thrown)?;
        let ids = tokenizer.encode(&text, !template.writes_special_tokens()).map_err(thrown)?;
        let tokens = json::tokens(tokenizer, &ids).map_err(thrown)?;
        let longest = if template.is_plain() { MAX_PLAIN_TOKENS } else { self.inner.context().saturating_sub(ids.len()).max(1) };
        let prompt = serde_json::json!({
            "text": text, "ids": ids, "tokens": tokens, "plain": template.is_plain(), "stop": template.stop_strings(),
            "maxTokens": longest,
        });
        Ok(to_js(&prompt).unchecked_into())
    }
}
