//! `moebius chat`: a conversation.

use super::chat_command::{self, HELP, Typed};
use super::chat_input::Input;
use super::failure::{FAILED, Failure};
use super::routing::RoutingArgs;
use super::sampling::SamplingArgs;
use super::stream::{Printer, Thinking, ThinkingArgs, dim, print_statistics, stream};
use super::talk::{self, talk};
use super::{Global, auto, files, loads, model};
use anyhow::{Context, Result};
use clap::Args;
use moebius::Engine;
use moebius::generate::{ChatMessage, ChatTemplate, GenerateOptions, StopReason, Summary, Tokenizer};
use serde::{Deserialize, Serialize};
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius chat mistralai/Mixtral-8x7B-Instruct-v0.1
  moebius chat ./my-model --system \"Answer in one sentence.\" --temp 0.7
  echo \"Once upon a time\" | moebius chat

On a terminal there is a line editor with a history. /help lists the commands inside, Ctrl-C ends an answer, Ctrl-D the conversation.
A model without a chat template gets the conversation as lines of `User:` and `Assistant:`.";

/// The longest answer of a model without a chat template, which does not know where an answer ends.
const MAX_PLAIN_TOKENS: usize = 128;

/// Talk with a model, through its chat template where it has one.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ChatArgs {
    /// A directory in Hugging Face layout or a hub id (org/name); the bundled model without it.
    model: Option<String>,
    /// What the model is told before the conversation.
    #[arg(long, value_name = "TEXT")]
    system: Option<String>,
    #[command(flatten)]
    thinking: ThinkingArgs,
    #[command(flatten)]
    sampling: SamplingArgs,
    #[command(flatten)]
    routing: RoutingArgs,
}

impl ChatArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        self.sampling.check()?;
        let directory = model::directory(self.model.as_deref()).await?;
        let template = self.template(&directory).await?;
        let global = &auto::resolve(&directory, global).await?;
        let mut engine = model::load_with(&directory, global, self.routing.routing()).await?;
        let mut options = self.sampling.options(engine.tokenizer());
        if !self.sampling.limits_tokens() {
            options.stop.max_tokens = Some(if template.is_plain() { MAX_PLAIN_TOKENS } else { engine.context() });
        }
        let mut input = Input::open()?;
        let mut session = Session {
            conversation: Conversation::new(&template, self.system.as_deref()),
            options,
            thinking: self.thinking.shown_on(&std::io::stdout()),
            interactive: input.is_terminal(),
            verbose: global.verbose,
            last: None,
            refused: false,
        };
        session.greet(&engine, &directory);
        while let Some(text) = input.next()? {
            if !session.take(&mut engine, &text).await? {
                break;
            }
        }
        Ok(if session.refused { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }

    /// The template of the model, tried on a short conversation: what it cannot do is said before anyone waits for the weights.
    async fn template(&self, directory: &Path) -> Result<ChatTemplate> {
        let template = ChatTemplate::of(&Tokenizer::open(directory).await?)?;
        let mut trial = Conversation::new(&template, self.system.as_deref());
        trial.messages.push(ChatMessage::new("user", "Hi"));
        template.render(&trial.messages, true)?;
        Ok(template)
    }
}

/// A conversation with what belongs to it.
struct Session<'a> {
    conversation: Conversation<'a>,
    options: GenerateOptions,
    thinking: Thinking,
    interactive: bool,
    verbose: bool,
    /// The last answer.
    last: Option<Summary>,
    /// A script has sent something that did not fit.
    refused: bool,
}

impl Session<'_> {
    fn greet(&self, engine: &Engine, directory: &Path) {
        if self.conversation.template.is_plain() {
            talk!("note     this model has no chat template: it gets the conversation as lines of `User:` and `Assistant:`");
        }
        if self.interactive {
            talk!("{}, {} tokens of context. Say something.", model::title(directory), engine.context());
            talk!(
                "{}",
                dim("/help lists the commands; Alt-Enter begins a new line; Ctrl-C ends an answer, Ctrl-D the conversation.")
            );
        }
    }

    /// Does what was typed; false at the end.
    async fn take(&mut self, engine: &mut Engine, text: &str) -> Result<bool> {
        match chat_command::read(text) {
            Typed::Exit => return Ok(false),
            Typed::Message(text) => self.answer(engine, text).await?,
            Typed::Help => talk!("{HELP}"),
            Typed::Clear => {
                self.conversation.messages.retain(|message| message.role == "system");
                talk!("The conversation is forgotten.");
            }
            Typed::System(text) => self.system(text),
            Typed::Set(None) => talk!("{}", chat_command::settings(&self.options)),
            Typed::Set(Some((name, value))) => match chat_command::set(&mut self.options, name, value) {
                Ok(()) => talk!("{}", chat_command::settings(&self.options)),
                Err(error) => talk!("{error}"),
            },
            Typed::Experts => self.experts(),
            Typed::Save(file) => match self.conversation.save(Path::new(file)) {
                Ok(()) => talk!("{} messages are in {file}.", self.conversation.messages.len()),
                Err(error) => talk!("{error:#}"),
            },
            Typed::Load(file) => match self.conversation.load(Path::new(file)) {
                Ok(()) => talk!("The conversation goes on after {} messages of {file}.", self.conversation.messages.len()),
                Err(error) => talk!("{error:#}"),
            },
            Typed::Wrong(problem) => talk!("{problem}"),
        }
        Ok(true)
    }

    async fn answer(&mut self, engine: &mut Engine, text: &str) -> Result<()> {
        self.conversation.messages.push(ChatMessage::new("user", text));
        let outcome = self.generate(engine).await;
        let summary = match outcome {
            Ok(summary) => summary,
            Err(error) if self.goes_on_after(&error) => {
                self.refused |= !self.interactive;
                self.conversation.messages.pop();
                talk!("error: {error}");
                if let Some(hint) = error.downcast_ref::<moebius::Error>().and_then(moebius::Error::hint) {
                    talk!("hint: {hint}; /clear forgets the conversation");
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if self.verbose {
            print_statistics(&summary, &self.options);
        } else if self.interactive {
            talk!("{}", dim(&speed(&summary, engine.context())));
        }
        if summary.stop == StopReason::Cancelled && summary.answer.trim().is_empty() {
            self.conversation.messages.pop();
            talk!("Nothing was answered, so the question is not kept.");
        } else {
            let mut message = ChatMessage::new("assistant", summary.answer.trim());
            message.thinking = Some(summary.thinking.trim().to_owned()).filter(|thinking| !thinking.is_empty());
            self.conversation.messages.push(message);
        }
        self.last = Some(summary);
        Ok(())
    }

    /// Somebody who sits there can say something else. A script can only forget the conversation, and hears of the rest at the end.
    fn goes_on_after(&self, error: &anyhow::Error) -> bool {
        let error = error.downcast_ref::<moebius::Error>();
        error.is_some_and(|error| self.interactive || matches!(error, moebius::Error::PromptTooLong { .. }))
    }

    async fn generate(&self, engine: &mut Engine) -> Result<Summary> {
        let generation = engine.chat(&self.conversation.messages, &self.options)?;
        let mut stdout = std::io::stdout().lock();
        let mut printer = Printer::new(&mut stdout, self.thinking).trimmed();
        let summary = stream(generation, &mut printer).await?;
        writeln!(stdout)?;
        Ok(summary)
    }

    fn system(&mut self, text: Option<&str>) {
        let messages = &mut self.conversation.messages;
        let Some(text) = text else {
            match messages.iter().find(|message| message.role == "system") {
                Some(message) => talk!("{}", message.content),
                None => talk!("The model is told nothing before the conversation. /system TEXT changes that."),
            }
            return;
        };
        messages.retain(|message| message.role != "system");
        if text.is_empty() {
            talk!("The model is told nothing before the conversation.");
        } else {
            messages.insert(0, ChatMessage::new("system", text));
            talk!("The model is told so from the next message on.");
        }
    }

    fn experts(&self) {
        match &self.last {
            Some(summary) if summary.expert_loads.iter().any(|layer| !layer.is_empty()) => {
                talk!(
                    "load of each expert in the last answer, its prompt included where it had to be run, as a share of its layer:"
                );
                talk::text(&loads::render(&summary.expert_loads));
            }
            Some(_) => talk!("This model has no experts."),
            None => talk!("There is no answer yet."),
        }
    }
}

/// How fast the answer came, in a line.
fn speed(summary: &Summary, context: usize) -> String {
    let used = summary.prompt_ids.len() + summary.ids.len();
    let why = match &summary.stop {
        StopReason::Eos | StopReason::StopString(_) => String::new(),
        StopReason::MaxTokens => "; cut at max-tokens (/set max-tokens)".to_owned(),
        StopReason::ContextFull => "; the context is full (/clear)".to_owned(),
        StopReason::Cancelled => "; stopped".to_owned(),
    };
    let (tokens, rate) = (summary.ids.len(), summary.decode_rate());
    format!("{tokens} tokens, {rate:.1} tokens/s; {used} of {context} tokens of context used{why}")
}

/// All that was said so far.
struct Conversation<'a> {
    template: &'a ChatTemplate,
    messages: Vec<ChatMessage>,
}

/// A conversation in a file.
#[derive(Serialize, Deserialize)]
struct Saved {
    messages: Vec<ChatMessage>,
}

impl<'a> Conversation<'a> {
    fn new(template: &'a ChatTemplate, system: Option<&str>) -> Self {
        let messages = system.map(|text| ChatMessage::new("system", text)).into_iter().collect();
        Conversation { template, messages }
    }

    /// Writes over another conversation, but over nothing else.
    fn save(&self, path: &Path) -> Result<()> {
        if path.exists() && files::read_text(path).is_ok_and(|text| serde_json::from_str::<Saved>(&text).is_err()) {
            let problem = format!("{} is there, and is no conversation", path.display());
            return Err(Failure::new(problem, "save it under another name").into());
        }
        let saved = Saved { messages: self.messages.clone() };
        let text = serde_json::to_string_pretty(&saved).context("cannot write the conversation as JSON")?;
        files::NewFile::prepare(path)?.write((text + "\n").as_bytes())
    }

    /// Takes the messages of a file instead of these; a file that is none changes nothing.
    fn load(&mut self, path: &Path) -> Result<()> {
        let text = files::read_text(path)?;
        let messages = if text.trim_start().starts_with('[') {
            serde_json::from_str(&text)
        } else {
            serde_json::from_str::<Saved>(&text).map(|saved| saved.messages)
        };
        let messages: Vec<ChatMessage> = messages.map_err(|error| {
            let problem = format!("{} is no conversation: {error}", path.display());
            Failure::new(problem, "/save FILE writes one: {\"messages\": [{\"role\": .., \"content\": ..}]}")
        })?;
        self.template.render(&messages, true)?;
        self.messages = messages;
        Ok(())
    }
}
