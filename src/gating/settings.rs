//! Settings of a gating method: what they are called, and what they were set to.

use crate::error::{Error, Result, nearest};

/// A number, a switch or a word that a method can be given.
#[derive(Debug, PartialEq)]
pub struct Setting {
    pub name: &'static str,
    /// For a word its place in `words`.
    pub default: f64,
    pub range: [f64; 2],
    /// Empty for a number.
    pub words: &'static [&'static str],
    /// Without a fraction.
    pub whole: bool,
    /// May be changed between two steps; others decide sizes and shaders.
    pub live: bool,
    pub help: &'static str,
}

/// The settings of a method: its own, and those that it shares with others.
pub type Settings = &'static [&'static [Setting]];

impl Setting {
    /// A whole number that decides sizes.
    pub const fn count(name: &'static str, default: usize, most: usize, help: &'static str) -> Setting {
        Setting { name, default: default as f64, range: [1.0, most as f64], words: &[], whole: true, live: false, help }
    }

    /// A number that may be changed between two steps.
    pub const fn live(name: &'static str, default: f64, range: [f64; 2], help: &'static str) -> Setting {
        Setting { name, default, range, words: &[], whole: false, live: true, help }
    }

    /// A number that may not.
    pub const fn fixed(name: &'static str, default: f64, range: [f64; 2], help: &'static str) -> Setting {
        Setting { name, default, range, words: &[], whole: false, live: false, help }
    }

    /// One of several words; the first is the default.
    pub const fn word(name: &'static str, words: &'static [&'static str], help: &'static str) -> Setting {
        Setting { name, default: 0.0, range: [0.0, words.len() as f64 - 1.0], words, whole: true, live: false, help }
    }

    /// Yes or no.
    pub const fn switch(name: &'static str, default: bool, help: &'static str) -> Setting {
        Setting {
            name,
            default: if default { 1.0 } else { 0.0 },
            range: [0.0, 1.0],
            words: &["no", "yes"],
            whole: true,
            live: false,
            help,
        }
    }

    /// The default, as one would write it.
    pub fn default_text(&self) -> String {
        match self.words.get(self.default as usize) {
            Some(word) => (*word).to_owned(),
            None => self.default.to_string(),
        }
    }
}

/// The most experts that any setting may ask for.
pub const MAX_EXPERTS: usize = 1 << 16;

/// What decides how many experts a token gets.
pub const EXPERTS_PER_TOKEN: Setting = Setting::count("num_experts_per_tok", 2, MAX_EXPERTS, "experts of every token");

/// Multiplies the input of the router only, which is why the rule does not see it.
pub static JITTER: &[Setting] = &[Setting::live(
    "jitter",
    0.0,
    [0.0, 1.0],
    "while training, what the router reads is multiplied with random factors between 1 minus and 1 plus this",
)];

/// The settings of one method, with a value each.
#[derive(Debug, Clone, PartialEq)]
pub struct Values {
    settings: Settings,
    numbers: Vec<f64>,
}

impl Values {
    pub fn new(settings: Settings) -> Values {
        Values { settings, numbers: all(settings).map(|setting| setting.default).collect() }
    }

    /// Changes a setting; `text` is a number or one of its words.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name or a value that the method does not know.
    pub fn set(&mut self, name: &str, text: &str) -> Result<()> {
        let Some((index, setting)) = all(self.settings).enumerate().find(|(_, setting)| setting.name == name) else {
            let names: Vec<&str> = all(self.settings).map(|setting| setting.name).collect();
            let expected = match nearest(name, names.iter().copied()) {
                Some(near) => format!("a setting of this method; did you mean `{near}`?"),
                None => format!("one of {}", names.join(", ")),
            };
            return Err(Error::Argument { what: "setting", expected, found: name.to_owned() });
        };
        self.numbers[index] = setting.parse(text)?;
        Ok(())
    }

    /// The value of a setting; `None` where the method has no such setting. A word is its place in the list.
    pub fn number(&self, name: &str) -> Option<f64> {
        all(self.settings).position(|setting| setting.name == name).map(|index| self.numbers[index])
    }

    /// A setting that every rule which asks for it has.
    pub fn get(&self, name: &str) -> f64 {
        self.number(name).unwrap_or_else(|| panic!("no setting is called `{name}`"))
    }

    pub fn count(&self, name: &str) -> usize {
        self.get(name) as usize
    }

    pub fn flag(&self, name: &str) -> bool {
        self.get(name) != 0.0
    }

    /// The word that a setting was set to; empty where the method has no such setting.
    pub fn word(&self, name: &str) -> &'static str {
        let found = all(self.settings).zip(&self.numbers).find(|(setting, _)| setting.name == name);
        found.and_then(|(setting, number)| setting.words.get(*number as usize)).copied().unwrap_or("")
    }

    /// Every setting with its value, in the order of the method.
    pub fn iter(&self) -> impl Iterator<Item = (&'static Setting, f64)> + '_ {
        all(self.settings).zip(self.numbers.iter().copied())
    }
}

impl Setting {
    fn parse(&self, text: &str) -> Result<f64> {
        let (wrong, [least, most]) =
            (|expected| Error::Argument { what: self.name, expected, found: text.to_owned() }, self.range);
        if !self.words.is_empty() {
            let text = match text {
                "true" => "yes",
                "false" => "no",
                other => other,
            };
            let place = self.words.iter().position(|word| *word == text);
            return place.map(|place| place as f64).ok_or_else(|| wrong(self.words.join(", ")));
        }
        let fits = |number: &f64| (least..=most).contains(number) && !(self.whole && number.fract() != 0.0);
        let number = text.parse::<f64>().ok().filter(fits);
        let kind = if self.whole { "whole number" } else { "number" };
        number.ok_or_else(|| wrong(format!("a {kind} from {least} to {most}")))
    }
}

fn all(settings: Settings) -> impl Iterator<Item = &'static Setting> {
    settings.iter().flat_map(|group| group.iter())
}
