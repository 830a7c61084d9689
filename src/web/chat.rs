//! Conversations: the chat template of the model, as `moebius chat` uses it.

use super::json::{self, parse, thrown, to_js};
use super::{Engine, JsChatPrompt, JsMessages, JsResult};
use crate::ChatPrompt;
use crate::generate::ChatMessage;
use wasm_bindgen::prelude::*;

#[wasm_bindgen]
impl Engine {
    /// The prompt after which the model answers the last message. A model without a template gets lines of `User:` and `Assistant:`.
    #[wasm_bindgen(js_name = chatPrompt)]
    pub fn chat_prompt(&self, messages: JsMessages) -> JsResult<JsChatPrompt> {
        let messages: Vec<ChatMessage> = parse(Some(&messages))?;
        let ChatPrompt { text, ids, is_plain, stop_strings, max_tokens } = self.inner.chat_prompt(&messages).map_err(thrown)?;
        let tokens = json::tokens(self.inner.tokenizer(), &ids).map_err(thrown)?;
        let prompt = serde_json::json!({
            "text": text, "ids": ids, "tokens": tokens, "plain": is_plain, "stop": stop_strings, "maxTokens": max_tokens,
        });
        Ok(to_js(&prompt).unchecked_into())
    }
}
