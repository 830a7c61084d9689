//! What a person types in `moebius chat`: a line editor on a terminal, plain lines from anywhere else.

use super::talk::talk;
use anyhow::{Context, Result};
use moebius::platform;
use rustyline::config::Configurer;
use rustyline::error::ReadlineError;
use rustyline::history::DefaultHistory;
use rustyline::{Behavior, Cmd, Config, Editor, EventHandler, KeyCode, KeyEvent, Modifiers};
use std::io::{BufRead, IsTerminal, StdinLock};
use std::path::PathBuf;

/// What begins and ends a message of several lines.
const QUOTES: &str = "\"\"\"";
const PROMPT: &str = "> ";
const MORE: &str = ". ";
/// Lines that are remembered from one conversation to the next.
const MAX_HISTORY: usize = 1000;

pub enum Input {
    Terminal { editor: Box<Editor<(), DefaultHistory>>, history: Option<PathBuf> },
    Lines(StdinLock<'static>),
}

impl Input {
    pub fn open() -> Result<Self> {
        if !std::io::stdin().is_terminal() {
            return Ok(Input::Lines(std::io::stdin().lock()));
        }
        // On the terminal itself: stdout may be a file, and what the editor draws does not belong there.
        let config = Config::builder().behavior(Behavior::PreferTerm).build();
        let mut editor = Editor::<(), DefaultHistory>::with_config(config).context("cannot read from this terminal")?;
        editor.set_auto_add_history(false);
        editor.set_max_history_size(MAX_HISTORY)?;
        // Some terminals send a line feed for Enter, and so does any that was typed into before the editor had it.
        for key in [KeyEvent(KeyCode::Enter, Modifiers::ALT), KeyEvent(KeyCode::Char('J'), Modifiers::CTRL_ALT)] {
            editor.bind_sequence(key, EventHandler::Simple(Cmd::Newline));
        }
        let history = platform::cache_directory().map(|folder| folder.join("moebius").join("chat-history.txt"));
        if let Some(path) = &history {
            // Not there yet, or not readable: a conversation works without.
            let _ = editor.load_history(path);
        }
        Ok(Input::Terminal { editor: Box::new(editor), history })
    }

    pub fn is_terminal(&self) -> bool {
        matches!(self, Input::Terminal { .. })
    }

    /// The next message or command, without white space around it; `None` at the end.
    pub fn next(&mut self) -> Result<Option<String>> {
        loop {
            let Some(first) = self.line(PROMPT)? else { return Ok(None) };
            let text = match first.trim_start().strip_prefix(QUOTES) {
                Some(rest) => self.quoted(rest)?,
                None => first,
            };
            let text = text.trim();
            if text.is_empty() {
                continue;
            }
            self.remember(text);
            return Ok(Some(text.to_owned()));
        }
    }

    /// Lines up to the closing quotes, or to the end of the input.
    fn quoted(&mut self, first: &str) -> Result<String> {
        let mut text = first.to_owned();
        loop {
            if let Some(end) = text.find(QUOTES) {
                text.truncate(end);
                return Ok(text);
            }
            let Some(line) = self.line(MORE)? else { return Ok(text) };
            text.push('\n');
            text.push_str(&line);
        }
    }

    fn line(&mut self, prompt: &str) -> Result<Option<String>> {
        match self {
            Input::Lines(stdin) => {
                let mut line = String::new();
                let read = stdin.read_line(&mut line).context("cannot read what is to be said")?;
                Ok((read > 0).then(|| line.trim_end_matches(['\n', '\r']).to_owned()))
            }
            Input::Terminal { editor, .. } => loop {
                match editor.readline(prompt) {
                    Ok(line) => return Ok(Some(line)),
                    Err(ReadlineError::Eof) => return Ok(None),
                    Err(ReadlineError::Interrupted) => talk!("Ctrl-D or /exit ends the conversation."),
                    Err(error) => return Err(error).context("cannot read from this terminal"),
                }
            },
        }
    }

    fn remember(&mut self, text: &str) {
        let Input::Terminal { editor, history } = self else { return };
        let _ = editor.add_history_entry(text);
        if let Some(path) = history {
            // What cannot be kept is no reason to stop talking.
            if let Some(folder) = path.parent() {
                let _ = std::fs::create_dir_all(folder);
            }
            let _ = editor.save_history(path);
        }
    }
}
