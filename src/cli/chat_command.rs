//! The commands inside `moebius chat`, which begin with a slash.

use anyhow::Result;
use moebius::error::nearest;
use moebius::generate::{GenerateOptions, SamplingOptions};

pub const HELP: &str = "\
/help              this list
/clear             forget the conversation
/system TEXT       tell the model something before the conversation; without TEXT, show it; \"\" takes it away
/set NAME VALUE    temp, top-k, top-p, min-p, repeat-penalty, seed or max-tokens; without them, show all
/experts           the load of each expert in the last answer
/save FILE         write the conversation to a file, as JSON
/load FILE         go on with a conversation from a file
/exit, /quit       end, as Ctrl-D does

Ctrl-C ends an answer. Alt-Enter begins a new line, and \"\"\" before and after a text lets it have several.
A message that begins with a slash is written with two: //tmp is a folder.";

const NAMES: [&str; 10] = ["help", "clear", "system", "set", "experts", "save", "load", "exit", "quit", "bye"];

/// Commands that people write without the slash; nobody means these words for a model.
const BARE: [&str; 4] = ["help", "exit", "quit", "bye"];

/// What was typed.
#[derive(Debug, PartialEq, Eq)]
pub enum Typed<'a> {
    Message(&'a str),
    Help,
    Clear,
    /// With the new text; `None` to show the one there is.
    System(Option<&'a str>),
    Set(Option<(&'a str, &'a str)>),
    Experts,
    Save(&'a str),
    Load(&'a str),
    Exit,
    /// Something that is no command, with what to say about it.
    Wrong(String),
}

/// Tells commands from messages. A path such as `/etc/hosts` is a message.
pub fn read(text: &str) -> Typed<'_> {
    let Some(rest) = text.strip_prefix('/') else {
        return match BARE.iter().find(|name| text.trim().eq_ignore_ascii_case(name)) {
            Some(name) => Typed::Wrong(format!("commands begin with a slash: /{name}. As a message, write more than this word")),
            None => Typed::Message(text),
        };
    };
    if rest.starts_with('/') {
        return Typed::Message(rest);
    }
    let (name, argument) = rest.split_once(char::is_whitespace).map_or((rest, ""), |(name, rest)| (name, rest.trim()));
    if name.contains(|letter: char| !letter.is_alphanumeric() && !matches!(letter, '-' | '_' | '?')) {
        return Typed::Message(text);
    }
    let needs_file = || Typed::Wrong(format!("/{name} needs a file: /{name} FILE"));
    match (name.to_lowercase().as_str(), argument) {
        ("help" | "?", _) => Typed::Help,
        ("clear", "") => Typed::Clear,
        ("system", "") => Typed::System(None),
        ("system", text) => Typed::System(Some(unquoted(text))),
        ("set", "") => Typed::Set(None),
        ("set", setting) => match setting.split_once(|letter: char| letter.is_whitespace() || letter == '=') {
            Some((name, value)) => Typed::Set(Some((name, value.trim()))),
            None => Typed::Wrong(format!("/set {setting} needs a value, as in /set temp 0.7")),
        },
        ("experts", "") => Typed::Experts,
        ("save" | "load", "") => needs_file(),
        ("save", file) => Typed::Save(unquoted(file)),
        ("load", file) => Typed::Load(unquoted(file)),
        ("exit" | "quit" | "bye", "") => Typed::Exit,
        (known, _) if NAMES.contains(&known) => Typed::Wrong(format!("/{known} takes nothing after it")),
        (unknown, _) => Typed::Wrong(match nearest(unknown, NAMES.into_iter()) {
            Some(name) => format!("there is no command /{unknown}; did you mean /{name}? /help lists all"),
            None => format!("there is no command /{unknown}; /help lists all"),
        }),
    }
}

fn unquoted(text: &str) -> &str {
    text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text)
}

/// Changes one setting; `options` stay as they are if the value cannot be.
///
/// # Errors
/// For a name or a value that does not exist.
pub fn set(options: &mut GenerateOptions, name: &str, value: &str) -> Result<()> {
    let mut sampling = options.sampling;
    let number = || value.parse::<f32>().map_err(|_| anyhow::anyhow!("{name}: expected a number, found {value:?}"));
    let whole = |at_least: i64| match value.parse::<i64>() {
        Ok(number) if number >= at_least => Ok(number),
        _ => Err(anyhow::anyhow!("{name}: expected a whole number of at least {at_least}, found {value:?}")),
    };
    match name.trim_start_matches('-').replace('_', "-").as_str() {
        "temp" | "temperature" | "t" => sampling.temperature = number()?,
        // Other programs write -1 for all.
        "top-k" => sampling.top_k = usize::try_from(whole(-1)?).unwrap_or(0),
        "top-p" => sampling.top_p = number()?,
        "min-p" => sampling.min_p = number()?,
        "repeat-penalty" => sampling.repeat_penalty = number()?,
        "seed" => sampling.seed = whole(0)? as u64,
        "max-tokens" | "n" => {
            options.stop.max_tokens = Some(whole(1)? as usize);
            return Ok(());
        }
        _ => anyhow::bail!("there is no setting {name}; known: temp, top-k, top-p, min-p, repeat-penalty, seed, max-tokens"),
    }
    sampling.validate()?;
    options.sampling = sampling;
    Ok(())
}

/// All settings in a line.
pub fn settings(options: &GenerateOptions) -> String {
    let SamplingOptions { temperature, top_k, top_p, min_p, seed, repeat_penalty } = options.sampling;
    let max_tokens = options.stop.limit();
    format!(
        "temp {temperature}, top-k {top_k}, top-p {top_p}, min-p {min_p}, repeat-penalty {repeat_penalty}, seed {seed}, max-tokens {max_tokens}"
    )
}
