//! Conversations to prompts: the chat template of a checkpoint, or a plain transcript.

use super::tokenizer::{SpecialTokens, Tokenizer};
use crate::error::{Error, Result};
use crate::platform;
use chrono::DateTime;
use minijinja::value::{Kwargs, Value};
use minijinja::{Environment, ErrorKind, context};
use serde::{Deserialize, Serialize};
use std::fmt::Write;

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChatMessage {
    /// `system`, `user` or `assistant`; templates may know more.
    pub role: String,
    pub content: String,
}

impl ChatMessage {
    pub fn new(role: impl Into<String>, content: impl Into<String>) -> Self {
        ChatMessage { role: role.into(), content: content.into() }
    }
}

/// Writes a conversation the way a model was trained to see it.
#[derive(Debug, Clone)]
pub struct ChatTemplate {
    /// `None` for the plain transcript.
    environment: Option<Environment<'static>>,
    special: SpecialTokens,
}

/// The name of the one template in its environment; also what error messages call it.
const NAME: &str = "chat_template";

/// Instructions that a template may execute. A long conversation takes some hundred thousand; this many take about a second.
const FUEL: u64 = 10_000_000;

impl ChatTemplate {
    /// The template of the checkpoint, or [`Self::plain`] where it has none.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if it does not compile.
    pub fn of(tokenizer: &Tokenizer) -> Result<Self> {
        match tokenizer.chat_template() {
            Some(source) => Self::compile(source, tokenizer.special_tokens()),
            None => Ok(Self::plain()),
        }
    }

    /// Compiles a template in the dialect of Hugging Face: Jinja with Python's string and dictionary methods.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] with the line of the mistake.
    pub fn compile(source: &str, special: &SpecialTokens) -> Result<Self> {
        let mut environment = Environment::new();
        environment.set_trim_blocks(true);
        environment.set_lstrip_blocks(true);
        environment.set_fuel(Some(FUEL));
        environment.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
        environment.add_function("raise_exception", raise_exception);
        environment.add_function("strftime_now", strftime_now);
        environment.add_filter("tojson", tojson);
        environment.add_template_owned(NAME, without_generation_blocks(source)).map_err(template_error)?;
        Ok(ChatTemplate { environment: Some(environment), special: special.clone() })
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
        ChatTemplate { environment: None, special: SpecialTokens::default() }
    }

    /// Texts at which an answer ends although the model may write on as the other side. None for real templates, whose answers end with a
    /// token.
    pub fn stop_strings(&self) -> &'static [&'static str] {
        if self.environment.is_none() { &["\nUser:"] } else { &[] }
    }

    /// Whether the rendered text spells out its special tokens, so that [`Tokenizer::encode`] must not add them again.
    pub fn writes_special_tokens(&self) -> bool {
        self.environment.is_some()
    }

    /// The prompt for `messages`; with `add_generation_prompt` it ends where the model's answer begins.
    ///
    /// # Errors
    /// [`Error::ChatTemplate`] if the template fails, refuses the conversation (`raise_exception`) or runs for too long.
    pub fn render(&self, messages: &[ChatMessage], add_generation_prompt: bool) -> Result<String> {
        let Some(environment) = &self.environment else { return Ok(transcript(messages, add_generation_prompt)) };
        let text = |token: &Option<String>| token.clone().unwrap_or_default();
        let none = Value::from(());
        let variables = context! {
            messages => messages,
            add_generation_prompt => add_generation_prompt,
            bos_token => text(&self.special.bos),
            eos_token => text(&self.special.eos),
            unk_token => text(&self.special.unk),
            pad_token => text(&self.special.pad),
            // Templates ask `tools is not none`, which an undefined variable would satisfy.
            tools => none,
            documents => none,
        };
        environment.get_template(NAME).and_then(|template| template.render(variables)).map_err(template_error)
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

/// `{% generation %}` marks for training what the assistant said, and is no Jinja. An `if` keeps the whitespace control.
fn without_generation_blocks(source: &str) -> String {
    let mut source = source.to_owned();
    for (left, right) in [("{%", "%}"), ("{%-", "%}"), ("{%", "-%}"), ("{%-", "-%}")] {
        source = source.replace(&format!("{left} generation {right}"), &format!("{left} if true {right}"));
        source = source.replace(&format!("{left} endgeneration {right}"), &format!("{left} endif {right}"));
    }
    source
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

fn raise_exception(message: String) -> Result<String, minijinja::Error> {
    Err(minijinja::Error::new(ErrorKind::InvalidOperation, message))
}

/// The date and time in UTC in the notation of Python's `strftime`.
fn strftime_now(format: &str) -> Result<String, minijinja::Error> {
    let now =
        i64::try_from(platform::unix_seconds()).ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0)).unwrap_or_default();
    let mut text = String::new();
    write!(text, "{}", now.format(format))
        .map_err(|_| minijinja::Error::new(ErrorKind::InvalidOperation, format!("`{format}` is not a strftime format")))?;
    Ok(text)
}

/// Python's `json.dumps`: `", "` and `": "` between the parts, nothing escaped for HTML.
fn tojson(value: &Value, options: Kwargs) -> Result<Value, minijinja::Error> {
    let failed = |error: serde_json::Error| {
        minijinja::Error::new(ErrorKind::InvalidOperation, "cannot serialize to JSON").with_source(error)
    };
    let indent: Option<usize> = options.get("indent")?;
    let mut bytes = Vec::new();
    match indent {
        Some(width) => {
            let indent = " ".repeat(width.min(16));
            let formatter = serde_json::ser::PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, formatter)).map_err(failed)?;
        }
        None => value.serialize(&mut serde_json::Serializer::with_formatter(&mut bytes, Spaced)).map_err(failed)?,
    }
    Ok(Value::from_safe_string(String::from_utf8_lossy(&bytes).into_owned()))
}

/// Writes JSON on one line with a space after each comma and colon.
struct Spaced;

impl serde_json::ser::Formatter for Spaced {
    fn begin_array_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(&mut self, writer: &mut W, first: bool) -> std::io::Result<()> {
        if first { Ok(()) } else { writer.write_all(b", ") }
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, writer: &mut W) -> std::io::Result<()> {
        writer.write_all(b": ")
    }
}
