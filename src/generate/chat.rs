//! Conversations to prompts: the chat template of a checkpoint, or a plain transcript.

use super::jinja;
use super::tokenizer::{SpecialTokens, Tokenizer};
use crate::error::{Error, Result};
use crate::platform;
use chrono::{DateTime, FixedOffset};
use minijinja::Environment;
use minijinja::value::{Serde, Value};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value as Json};
use std::fmt::Write;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`; templates may know more.
    pub role: String,
    /// What was said; of an answer, without its thinking.
    #[serde(default)]
    pub content: String,
    /// What the model thought before it answered. Templates see it as `thinking` and as `reasoning_content`, and leave it out where the model
    /// was trained so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub thinking: Option<String>,
    /// Whatever else templates know, such as `tool_calls` or `name`.
    #[serde(flatten)]
    pub more: Map<String, Json>,
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        ChatMessage { role: role.into(), content: content.into(), thinking: None, more: Map::new() }
    }

    /// The message as templates see it.
    fn variables(&self) -> Json {
        let mut fields = Map::new();
        fields.insert("role".to_owned(), self.role.clone().into());
        fields.insert("content".to_owned(), self.content.clone().into());
        if let Some(thinking) = &self.thinking {
            fields.insert("thinking".to_owned(), thinking.clone().into());
            fields.insert("reasoning_content".to_owned(), thinking.clone().into());
        }
        fields.extend(self.more.iter().filter(|(_, value)| !value.is_null()).map(|(name, value)| (name.clone(), value.clone())));
        Json::Object(fields)
    }
}

/// What a template is given.
#[derive(Debug, Clone, Copy, Default)]
pub struct ChatRequest<'a> {
    pub messages: &'a [ChatMessage],
    /// End where the answer of the model begins.
    pub add_generation_prompt: bool,
    /// Functions that the model may call, each in the JSON schema of OpenAI's interface (`{"type": "function", "function": {..}}`). A
    /// checkpoint may have a template of its own for them, named `tool_use`.
    pub tools: Option<&'a [Json]>,
    /// Texts that the answer is to be drawn from.
    pub documents: Option<&'a [Json]>,
    /// More variables, which the model's page names, such as `enable_thinking`.
    pub variables: Option<&'a Map<String, Json>>,
}

/// Writes a conversation the way a model was trained to see it.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    /// `None` for the plain transcript.
    environment: Option<Environment<'static>>,
    /// Whether there is a template of its own for tools.
    has_tool_template: bool,
    special: SpecialTokens,
}

/// The name of the template in its environment; also what error messages call it.
const NAME: &str = "chat_template";
/// The name that checkpoints give to the template for conversations with tools.
const TOOL_USE: &str = "tool_use";

impl ChatTemplate {
    /// The template of the checkpoint, or [`Self::plain`] where it has none.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if it does not compile.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        match tokenizer.chat_template() {
            Some(source) => Self::compile_with_tools(source, tokenizer.named_template(TOOL_USE), tokenizer.special_tokens()),
            None => Ok(Self::plain()),
        }
    }

    /// Compiles a template in the dialect of Hugging Face: Jinja as Python runs it.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] with the line of the mistake.
    pub fn compile(source: &str, special: &SpecialTokens) -> Result<Self> {
        Self::compile_with_tools(source, None, special)
    }

    fn compile_with_tools(source: &str, tool_use: Option<&str>, special: &SpecialTokens) -> Result<Self> {
        let mut templates = vec![(NAME, source)];
        templates.extend(tool_use.map(|source| (TOOL_USE, source)));
        let environment = jinja::environment(&templates, local_now).map_err(template_error)?;
        Ok(ChatTemplate { environment: Some(environment), has_tool_template: tool_use.is_some(), special: special.clone() })
    }

    /// A transcript for models without a template, which they continue like any other text:
    ///
    /// ```text
    /// the system message, if there is one
    ///
    /// User: a question
    /// Assistant: an answer
    /// User: another question
    /// Assistant:
    /// ```
    ///
    /// The last line is there with `add_generation_prompt`. Other roles are capitalised in the same way.
    pub fn plain() -> Self {
        ChatTemplate { environment: None, has_tool_template: false, special: SpecialTokens::default() }
    }

    /// Whether there is no template, so that the conversation is a plain transcript.
    pub fn is_plain(&self) -> bool {
        self.environment.is_none()
    }

    /// Texts at which an answer ends although the model may write on as the other side. None for real templates, whose answers end with a
    /// token.
    pub fn stop_strings(&self) -> &'static [&'static str] {
        if self.is_plain() { &["\nUser:"] } else { &[] }
    }

    /// Whether the rendered text spells out its special tokens, so that [`Tokenizer::encode`] must not add them again.
    pub fn writes_special_tokens(&self) -> bool {
        !self.is_plain()
    }

    /// The prompt for `messages`; with `add_generation_prompt` it ends where the model's answer begins.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the template fails, refuses the conversation (`raise_exception`) or runs for too long.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        self.render_with(&ChatRequest { messages, add_generation_prompt, ..ChatRequest::default() })
    }

    /// As [`render`](Self::render), with tools, documents and variables. The plain transcript knows only messages.
    ///
    /// # Errors
    /// As [`render`](Self::render).
    pub fn render_with(&self, request: &ChatRequest<'_>) -> Result<String> {
        let Some(environment) = &self.environment else {
            return Ok(transcript(request.messages, request.add_generation_prompt));
        };
        let list = |items: Option<&[Json]>| items.map_or(Json::Null, |items| Json::Array(items.to_vec()));
        let mut variables = Map::new();
        variables.extend(self.special.named().map(|(name, text)| (name.to_owned(), text.into())));
        variables.insert("messages".to_owned(), request.messages.iter().map(ChatMessage::variables).collect());
        variables.insert("add_generation_prompt".to_owned(), request.add_generation_prompt.into());
        // Templates ask `tools is not none`, which an undefined variable would satisfy.
        variables.insert("tools".to_owned(), list(request.tools));
        variables.insert("documents".to_owned(), list(request.documents));
        variables.extend(request.variables.into_iter().flatten().map(|(name, value)| (name.clone(), value.clone())));
        let name = if request.tools.is_some() && self.has_tool_template { TOOL_USE } else { NAME };
        let template = environment.get_template(name).map_err(template_error)?;
        template.render(Value::from(Serde(&variables))).map_err(template_error)
    }
}

fn transcript(messages: &[ChatMessage], add_generation_prompt: bool) -> String {
    let mut text = String::new();
    for message in messages {
        let content = message.content.trim();
        if message.role == "system" {
            text.push_str(content);
            text.push_str("\n\n");
            continue;
        }
        let mut role = message.role.chars();
        text.extend(role.next().into_iter().flat_map(char::to_uppercase));
        text.push_str(role.as_str());
        text.push_str(": ");
        text.push_str(content);
        text.push('\n');
    }
    if add_generation_prompt {
        text.push_str("Assistant:");
    }
    text
}

/// The message of the engine, with the line, and those of its causes.
fn template_error(error: minijinja::Error) -> Error {
    let mut problem = error.to_string();
    let mut cause = std::error::Error::source(&error);
    while let Some(error) = cause {
        let _ = write!(problem, ": {error}");
        cause = error.source();
    }
    Error::ChatTemplate { problem }
}

/// The time in the zone of this machine.
fn local_now() -> DateTime<FixedOffset> {
    let seconds = i64::try_from(platform::unix_seconds()).unwrap_or_default();
    let zone = FixedOffset::east_opt(platform::local_offset_seconds())
        .unwrap_or(FixedOffset::east_opt(0).expect("no offset is in range"));
    DateTime::from_timestamp(seconds, 0).unwrap_or_default().with_timezone(&zone)
}
