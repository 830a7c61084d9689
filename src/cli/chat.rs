//! `moebius chat`: a conversation.

use super::routing::RoutingArgs;
use super::sampling::SamplingArgs;
use super::stream::{print_statistics, stream};
use super::talk::{self, talk};
use super::{Global, model};
use anyhow::Result;
use clap::Args;
use moebius::generate::{ChatMessage, ChatTemplate, Tokenizer};
use std::io::{BufRead, IsTerminal, Write};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius chat mistralai/Mixtral-8x7B-Instruct-v0.1
  moebius chat ./my-model --system \"Answer in one sentence.\" --temp 0.7
  echo \"Once upon a time\" | moebius chat

/clear forgets the conversation, /exit or Ctrl-D ends it, Ctrl-C ends an answer.
A model without a chat template gets the conversation as lines of `User:` and `Assistant:`.";

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
    sampling: SamplingArgs,
    #[command(flatten)]
    routing: RoutingArgs,
}

impl ChatArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        self.sampling.check()?;
        let directory = model::directory(self.model.as_deref())?;
        let mut engine = model::load_with(&directory, global, &self.routing.routing()).await?;
        let template = ChatTemplate::of(engine.tokenizer())?;
        let mut options = self.sampling.options(engine.tokenizer());
        options.stop.stop_strings.extend(template.stop_strings().iter().map(|&text| text.to_owned()));
        let mut conversation = Conversation::new(&template, self.system.as_deref());
        let interactive = std::io::stdin().is_terminal();
        let mut stdin = std::io::stdin().lock();
        let mut stdout = std::io::stdout().lock();
        loop {
            let mut line = String::new();
            if interactive {
                talk::text("> ");
            }
            if stdin.read_line(&mut line)? == 0 {
                return Ok(ExitCode::SUCCESS);
            }
            match line.trim() {
                "" => continue,
                "/exit" => return Ok(ExitCode::SUCCESS),
                "/clear" => conversation = Conversation::new(&template, self.system.as_deref()),
                text => {
                    conversation.say("user", text);
                    let ids = conversation.ids(engine.tokenizer())?;
                    if interactive && ids.len() > engine.context() {
                        let (found, limit) = (ids.len(), engine.context());
                        talk!("That would make {found} tokens, and the context holds {limit}: say less, or /clear.");
                        conversation.take_back();
                        continue;
                    }
                    let summary = stream(&mut engine, &ids, &options, &mut stdout).await?;
                    writeln!(stdout)?;
                    conversation.say("assistant", summary.text.trim());
                    if global.verbose {
                        print_statistics(&summary, &options);
                    }
                }
            }
        }
    }
}

/// All that was said so far.
struct Conversation<'a> {
    template: &'a ChatTemplate,
    messages: Vec<ChatMessage>,
}

impl<'a> Conversation<'a> {
    fn new(template: &'a ChatTemplate, system: Option<&str>) -> Self {
        let messages = system.map(|text| ChatMessage::new("system", text)).into_iter().collect();
        Conversation { template, messages }
    }

    fn say(&mut self, role: &str, content: &str) {
        self.messages.push(ChatMessage::new(role, content));
    }

    fn take_back(&mut self) {
        self.messages.pop();
    }

    /// The whole conversation, up to where the model is to answer.
    fn ids(&self, tokenizer: &Tokenizer) -> moebius::Result<Vec<u32>> {
        tokenizer.encode(&self.template.render(&self.messages, true)?, !self.template.writes_special_tokens())
    }
}
