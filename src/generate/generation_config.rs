//! What `generation_config.json`, and `config.json` behind it, say about beginning, ending and sampling a text.
//!
//! Other programs write values there that mean "off" to them. What cannot be used is left aside with a note: no reason to refuse a model.

use super::tokenizer_config::parse;
use super::tokenizer_files::{CONFIG, GENERATION_CONFIG, TokenizerFiles, optional};
use crate::error::Result;
use serde_json::{Map, Value};
use std::path::Path;

/// How the makers of a checkpoint want it to be sampled, from `generation_config.json`.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct GenerationDefaults {
    pub do_sample: Option<bool>,
    pub temperature: Option<f32>,
    pub top_k: Option<usize>,
    pub top_p: Option<f32>,
    pub min_p: Option<f32>,
    pub repetition_penalty: Option<f32>,
}

impl GenerationDefaults {
    /// Those of the checkpoint in a directory. What cannot be used is left aside.
    ///
    /// # Errors
    /// [`Error::Json`](crate::Error::Json) for a file that is no JSON object, [`Error::Io`](crate::Error::Io).
    pub async fn read(directory: &Path) -> Result<Self> {
        let text = optional(directory, GENERATION_CONFIG).await?;
        Ok(defaults(&parse(GENERATION_CONFIG, text.as_deref())?, &mut Vec::new()))
    }
}

/// What both files say.
#[derive(Debug, Default)]
pub struct TextConfig {
    pub defaults: GenerationDefaults,
    pub bos_id: Option<u32>,
    pub eos_ids: Vec<u32>,
    /// Rows of the embedding table, where `config.json` says.
    pub vocab_size: Option<u32>,
    /// A sentence for each value that is left aside.
    pub notes: Vec<String>,
}

impl TextConfig {
    /// # Errors
    /// [`Error::Json`](crate::Error::Json) for a file that is no JSON object.
    pub fn read(files: &TokenizerFiles<'_>) -> Result<Self> {
        let generation: Map<String, Value> = parse(GENERATION_CONFIG, files.generation_config)?;
        let config: Map<String, Value> = parse(CONFIG, files.config)?;
        // Models for pictures or sound keep here what concerns text.
        let text_config = config.get("text_config").and_then(Value::as_object);
        let mut notes = Vec::new();
        let mut ids = |key: &str| {
            let of_generation = ids(GENERATION_CONFIG, &generation, key, &mut notes);
            let of_config = of_generation.or_else(|| ids(CONFIG, &config, key, &mut notes));
            of_config.or_else(|| ids(CONFIG, text_config?, key, &mut notes)).unwrap_or_default()
        };
        let (bos_ids, eos_ids) = (ids("bos_token_id"), ids("eos_token_id"));
        let rows = |object: &Map<String, Value>| object.get("vocab_size").and_then(whole);
        Ok(TextConfig {
            defaults: defaults(&generation, &mut notes),
            bos_id: bos_ids.first().copied(),
            eos_ids,
            vocab_size: rows(&config).or_else(|| rows(text_config?)),
            notes,
        })
    }
}

fn defaults(generation: &Map<String, Value>, notes: &mut Vec<String>) -> GenerationDefaults {
    let mut number = |key: &str, expected: &str, fits: &dyn Fn(f64) -> bool| {
        let value = generation.get(key).filter(|value| !value.is_null())?;
        let number = value.as_f64().filter(|number| fits(*number));
        if number.is_none() {
            notes.push(left_aside(GENERATION_CONFIG, key, value, expected));
        }
        number
    };
    GenerationDefaults {
        temperature: number("temperature", "0 or more", &|value| value >= 0.0).map(|value| value as f32),
        top_k: number("top_k", "a whole number from 0 on", &|value| value >= 0.0 && value.fract() == 0.0)
            .map(|value| value as usize),
        top_p: number("top_p", "more than 0, at most 1", &|value| value > 0.0 && value <= 1.0).map(|value| value as f32),
        min_p: number("min_p", "from 0 to 1", &|value| (0.0..=1.0).contains(&value)).map(|value| value as f32),
        repetition_penalty: number("repetition_penalty", "more than 0", &|value| value > 0.0).map(|value| value as f32),
        do_sample: generation.get("do_sample").filter(|value| !value.is_null()).and_then(|value| {
            if !value.is_boolean() {
                notes.push(left_aside(GENERATION_CONFIG, "do_sample", value, "true or false"));
            }
            value.as_bool()
        }),
    }
}

/// The token ids under `key`, one or several; `None` where no usable one is there.
fn ids(file: &str, object: &Map<String, Value>, key: &str, notes: &mut Vec<String>) -> Option<Vec<u32>> {
    let value = object.get(key).filter(|value| !value.is_null())?;
    let values = value.as_array().map_or_else(|| std::slice::from_ref(value), Vec::as_slice);
    let ids: Vec<u32> = values.iter().filter_map(whole).collect();
    if ids.len() < values.len() {
        notes.push(left_aside(file, key, value, "a token id or a list of token ids"));
    }
    Some(ids).filter(|ids| !ids.is_empty())
}

/// A whole number, also where it is written as `20.0`.
fn whole(value: &Value) -> Option<u32> {
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=f64::from(u32::MAX)).contains(number))?;
    Some(number as u32)
}

fn left_aside(file: &str, key: &str, value: &Value, expected: &str) -> String {
    format!("{file}: `{key}` is {value}, which is left aside: expected {expected}")
}
