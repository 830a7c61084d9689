//! A trace as a text file: one JSON object per line.
//!
//! The first line says what was traced:
//!
//! ```json
//! {"format":"moebius-trace 1","model":"demo","device":"..","routing":"as trained","layers":[{"layer":0,"experts":8,"experts_per_token":2}]}
//! ```
//!
//! A layer may also have `expert_bytes`, the bytes of one expert on a device, and `weightless`, how many of its last experts have no weights.
//!
//! Every other line is one token in one layer, all layers of a token one after the other:
//!
//! ```json
//! {"domain":"law","position":0,"token":17,"text":"The","layer":0,"experts":[3,1],"weights":[0.7,0.3]}
//! ```

use super::{Source, Trace, TracedLayer, TracedToken};
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What the first line of every trace of this version says.
pub const FORMAT: &str = "moebius-trace 1";

#[derive(Serialize, Deserialize)]
struct Header<'a> {
    format: Cow<'a, str>,
    #[serde(flatten)]
    source: Source,
    layers: Vec<TracedLayer>,
}

#[derive(Serialize, Deserialize)]
struct Record<'a> {
    #[serde(borrow)]
    domain: Cow<'a, str>,
    position: usize,
    token: u32,
    #[serde(borrow)]
    text: Cow<'a, str>,
    layer: usize,
    experts: Cow<'a, [u32]>,
    weights: Cow<'a, [f32]>,
}

/// The first line, with its end.
pub fn header_line(source: &Source, layers: &[TracedLayer]) -> String {
    line(&Header { format: FORMAT.into(), source: source.clone(), layers: layers.to_vec() })
}

fn line(value: &impl Serialize) -> String {
    let mut text = serde_json::to_string(value).expect("these types have string keys and no state");
    text.push('\n');
    text
}

impl Trace {
    /// All lines but the first, each with its end.
    pub fn records(&self) -> String {
        let mut text = String::new();
        for (index, token) in self.tokens.iter().enumerate() {
            for (place, layer) in self.layers.iter().enumerate() {
                let (experts, weights) = self.chosen(index, place);
                text.push_str(&line(&Record {
                    domain: self.domains[token.domain].as_str().into(),
                    position: token.position,
                    token: token.id,
                    text: token.text.as_str().into(),
                    layer: layer.layer,
                    experts: experts.into(),
                    weights: weights.into(),
                }));
            }
        }
        text
    }
}

/// Reads a trace from the text of `file`, which is named in errors.
///
/// # Errors
/// [`Error::Trace`] with the number of the line that is wrong.
pub fn read(text: &str, file: &str) -> Result<Trace> {
    let wrong = |line: usize, problem: String| Error::Trace { file: file.to_owned(), line: line + 1, problem };
    let mut lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    let (_, first) = lines.next().ok_or_else(|| wrong(0, "the file is empty".to_owned()))?;
    let header: Header = serde_json::from_str(first).map_err(|error| wrong(0, format!("it is no header of a trace: {error}")))?;
    if header.format != FORMAT {
        return Err(wrong(0, format!("expected the format `{FORMAT}`, found `{}`", header.format)));
    }
    let mut trace = Trace::new(header.source, header.layers);
    if let Some(layer) = trace.layers.iter().find(|layer| !(1..=layer.experts).contains(&layer.experts_per_token)) {
        return Err(wrong(
            0,
            format!("layer {} cannot choose {} of {} experts", layer.layer, layer.experts_per_token, layer.experts),
        ));
    }
    if let Some(layer) = trace.layers.iter().find(|layer| layer.weightless >= layer.experts || layer.expert_bytes == Some(0)) {
        return Err(wrong(0, format!("the experts of layer {} have no weights at all", layer.layer)));
    }
    let mut place = 0;
    for (number, text) in lines {
        let record: Record = serde_json::from_str(text).map_err(|error| wrong(number, error.to_string()))?;
        trace.add(&record, place).map_err(|problem| wrong(number, problem))?;
        place = (place + 1) % trace.layers.len();
    }
    if place != 0 {
        return Err(wrong(text.lines().count() - 1, "the last token lacks some of its layers: the file is cut off".to_owned()));
    }
    Ok(trace)
}

impl Trace {
    /// Appends the record of the layer at `place`. The problem in words where it is not the one that has to come.
    fn add(&mut self, record: &Record, place: usize) -> std::result::Result<(), String> {
        let layer = *self.layers.get(place).ok_or("the header names no layers")?;
        if record.layer != layer.layer {
            return Err(format!("expected layer {}, found {}", layer.layer, record.layer));
        }
        if record.experts.len() != layer.experts_per_token || record.weights.len() != layer.experts_per_token {
            let (experts, weights) = (record.experts.len(), record.weights.len());
            return Err(format!("expected {} experts and weights, found {experts} and {weights}", layer.experts_per_token));
        }
        if let Some(expert) = record.experts.iter().find(|&&expert| expert as usize >= layer.experts) {
            return Err(format!("expert {expert} is beyond the {} of layer {}", layer.experts, layer.layer));
        }
        let repeated = record.experts.iter().enumerate().find(|(index, expert)| record.experts[..*index].contains(expert));
        if let Some((_, expert)) = repeated {
            return Err(format!("expert {expert} is chosen twice"));
        }
        let domain = self.domain(&record.domain);
        let (position, id) = (record.position, record.token);
        if place == 0 {
            self.tokens.push(TracedToken { domain, position, id, text: record.text.clone().into_owned() });
        } else if self.tokens.last().is_none_or(|token| (token.domain, token.position, token.id) != (domain, position, id)) {
            return Err("expected the same token in the next layer, found another token".to_owned());
        }
        self.experts.extend_from_slice(&record.experts);
        self.weights.extend_from_slice(&record.weights);
        Ok(())
    }
}
