//! The metadata of a GGUF file as the `config.json` of its family, so that every check of `spec/arch` stays the only one.

use super::metadata::Metadata;
use super::{Gguf, GgufTensor};
use crate::error::{Error, Result};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;

/// Tensors that belong to the config rather than to the weights: divisors of rotary frequencies, one for each pair.
const FACTORS: [&str; 3] = ["rope_freqs.weight", "rope_factors_short.weight", "rope_factors_long.weight"];

/// A config in the making.
pub(super) struct Config<'a> {
    pub metadata: &'a Metadata,
    /// `general.architecture`, the prefix of the keys.
    pub architecture: &'a str,
    tensors: BTreeMap<&'a str, &'a GgufTensor>,
    /// By the name of the tensor.
    factors: BTreeMap<&'static str, Vec<f32>>,
    json: Map<String, Value>,
}

impl<'a> Config<'a> {
    /// Reads what nearly all families share.
    ///
    /// # Errors
    /// [`Error::Gguf`] for metadata that are missing or have the wrong type, [`Error::Io`].
    pub async fn of(gguf: &'a Gguf, architecture: &'a str) -> Result<Self> {
        let tensors: BTreeMap<&str, &GgufTensor> = gguf.tensors().iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
        let mut factors = BTreeMap::new();
        for name in FACTORS {
            if let Some(tensor) = tensors.get(name) {
                factors.insert(name, gguf.read_floats(tensor).await?);
            }
        }
        let mut config = Config { metadata: gguf.metadata(), architecture, tensors, factors, json: Map::new() };
        config.common()?;
        Ok(config)
    }

    /// The text of the config.
    pub fn into_text(self) -> String {
        Value::Object(self.json).to_string()
    }

    /// Replaces what has been gathered.
    pub fn wrap(&mut self, wrap: impl FnOnce(Map<String, Value>) -> Map<String, Value>) {
        self.json = wrap(std::mem::take(&mut self.json));
    }

    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.json.insert(key.to_owned(), value.into());
    }

    pub fn remove(&mut self, key: &str) {
        self.json.remove(key);
    }

    pub fn get(&self, key: &str) -> Option<&Value> {
        self.json.get(key)
    }

    pub fn has_tensor(&self, name: &str) -> bool {
        self.tensors.contains_key(name)
    }

    /// Divisors of rotary frequencies.
    pub fn factors(&self, name: &str) -> Option<&[f32]> {
        self.factors.get(name).map(Vec::as_slice)
    }

    /// As [`factors`](Self::factors), for an architecture that does something else with them.
    pub fn take_factors(&mut self, name: &str) -> Option<Vec<f32>> {
        self.factors.remove(name)
    }

    /// The whole name of a key of the architecture.
    pub fn key(&self, name: &str) -> String {
        format!("{}.{name}", self.architecture)
    }

    pub fn integer(&self, name: &str) -> Result<Option<u64>> {
        self.metadata.integer(&self.key(name))
    }

    pub fn float(&self, name: &str) -> Result<Option<f64>> {
        self.metadata.float(&self.key(name))
    }

    /// # Errors
    /// Where the key is missing.
    pub fn needed(&self, name: &str) -> Result<u64> {
        self.integer(name)?.ok_or_else(|| self.missing(name))
    }

    /// Copies an integer under the name that the family's config has for it, where it is there.
    pub fn copy_integer(&mut self, from: &str, to: &str) -> Result<()> {
        if let Some(value) = self.integer(from)? {
            self.set(to, value);
        }
        Ok(())
    }

    /// As [`copy_integer`](Self::copy_integer).
    pub fn copy_float(&mut self, from: &str, to: &str) -> Result<()> {
        if let Some(value) = self.float(from)? {
            self.set(to, value);
        }
        Ok(())
    }

    /// As [`copy_integer`](Self::copy_integer).
    pub fn copy_flag(&mut self, from: &str, to: &str) -> Result<()> {
        if let Some(value) = self.metadata.flag(&self.key(from))? {
            self.set(to, value);
        }
        Ok(())
    }

    /// One value for each layer, of a key that has either one for all or one for each.
    pub fn per_layer(&self, name: &str) -> Result<Option<Vec<u64>>> {
        self.metadata.per_layer(&self.key(name), self.num_stored_layers()?)
    }

    /// A value that has to be the same in all layers.
    fn uniform(&self, name: &str) -> Result<Option<u64>> {
        let Some(values) = self.per_layer(name)? else { return Ok(None) };
        match values.iter().find(|value| **value != values[0]) {
            Some(other) => {
                Err(self.invalid(name, &format!("layers differ ({} and {other}), which this family cannot", values[0])))
            }
            None => Ok(values.first().copied()),
        }
    }

    /// Layers with a feed-forward part of experts, in the order of the layers.
    pub fn sparse_layers(&self) -> Result<Vec<bool>> {
        let has_router = |layer: usize| self.has_tensor(&format!("blk.{layer}.ffn_gate_inp.weight"));
        Ok((0..self.num_layers()?).map(has_router).collect())
    }

    /// Layers before the first one with experts.
    pub fn leading_dense(&self) -> Result<usize> {
        Ok(self.sparse_layers()?.iter().take_while(|is_sparse| !**is_sparse).count())
    }

    /// Layers that the model runs: those that predict further tokens stand behind them.
    pub fn num_layers(&self) -> Result<usize> {
        let predicting = self.integer("nextn_predict_layers")?.unwrap_or(0) as usize;
        Ok(self.num_stored_layers()?.saturating_sub(predicting))
    }

    fn num_stored_layers(&self) -> Result<usize> {
        let layers = self.needed("block_count")?;
        // The file has at least one tensor for each.
        match usize::try_from(layers).ok().filter(|layers| (1..=self.tensors.len()).contains(layers)) {
            Some(layers) => Ok(layers),
            None => {
                Err(self.invalid("block_count", &format!("{layers} layers, and the file has {} tensors", self.tensors.len())))
            }
        }
    }

    fn common(&mut self) -> Result<()> {
        let vocabulary = self.tensors.get("token_embd.weight").filter(|tensor| tensor.shape.len() == 2);
        let Some(vocabulary) = vocabulary.map(|tensor| tensor.shape[0]) else {
            return Err(self.metadata.error("the tensor `token_embd.weight` is missing, or no matrix"));
        };
        self.set("vocab_size", vocabulary);
        self.set("tie_word_embeddings", !self.has_tensor("output.weight"));
        self.set("num_hidden_layers", self.num_layers()?);
        self.set("hidden_size", self.needed("embedding_length")?);
        self.copy_integer("context_length", "max_position_embeddings")?;
        self.copy_float("attention.layer_norm_rms_epsilon", "rms_norm_eps")?;
        self.copy_float("attention.layer_norm_epsilon", "rms_norm_eps")?;
        for (from, to) in [
            ("attention.head_count", "num_attention_heads"),
            ("attention.head_count_kv", "num_key_value_heads"),
            ("feed_forward_length", "intermediate_size"),
            ("expert_feed_forward_length", "moe_intermediate_size"),
        ] {
            // Families whose layers differ read the lists themselves.
            if let Ok(Some(value)) = self.uniform(from) {
                self.set(to, value);
            }
        }
        self.copy_integer("attention.key_length", "head_dim")?;
        self.copy_integer("expert_count", "num_experts")?;
        self.copy_integer("expert_used_count", "num_experts_per_tok")?;
        self.copy_flag("expert_weights_norm", "norm_topk_prob")?;
        // Zero stands for no factor.
        if let Some(scale) = self.float("expert_weights_scale")?.filter(|scale| *scale != 0.0) {
            self.set("routed_scaling_factor", scale);
        }
        self.copy_integer("expert_group_count", "n_group")?;
        self.copy_integer("expert_group_used_count", "topk_group")?;
        self.copy_integer("attention.sliding_window", "sliding_window")?;
        self.rope()
    }

    /// Heads of plain attention have to be as wide as their values.
    pub fn check_value_length(&self) -> Result<()> {
        match (self.integer("attention.key_length")?, self.integer("attention.value_length")?) {
            (Some(key), Some(value)) if key != value => {
                Err(self.invalid("attention.value_length", &format!("{value}, and keys have {key}: this family has one width")))
            }
            _ => Ok(()),
        }
    }

    fn rope(&mut self) -> Result<()> {
        self.copy_float("rope.freq_base", "rope_theta")?;
        if let (Some(dims), Some(head_dim)) = (self.integer("rope.dimension_count")?, self.head_dim()) {
            self.set("partial_rotary_factor", dims as f64 / head_dim as f64);
        }
        // Phi's converter writes the factors and no type.
        let without = if self.factors("rope_factors_short.weight").is_some() { "longrope" } else { "none" };
        let kind = self.metadata.text(&self.key("rope.scaling.type"))?.unwrap_or(without).to_owned();
        let original = self.integer("rope.scaling.original_context_length")?;
        let mut scaling = Map::new();
        let factor = self.float("rope.scaling.factor")?;
        match kind.as_str() {
            "none" => {}
            "linear" => {
                scaling.insert("rope_type".to_owned(), "linear".into());
                scaling.insert("factor".to_owned(), factor.unwrap_or(1.0).into());
            }
            "yarn" => {
                let factor = factor.unwrap_or(1.0);
                scaling.insert("rope_type".to_owned(), "yarn".into());
                scaling.insert("factor".to_owned(), factor.into());
                for (from, to) in [("yarn_beta_fast", "beta_fast"), ("yarn_beta_slow", "beta_slow")] {
                    if let Some(value) = self.float(&format!("rope.scaling.{from}"))? {
                        scaling.insert(to.to_owned(), value.into());
                    }
                }
                let given = self.float("rope.scaling.yarn_attn_factor")?.or(self.float("rope.scaling.attn_factor")?);
                if let Some(given) = given.filter(|given| *given != 1.0) {
                    let magnitude = if factor > 1.0 { 0.1 * factor.ln() + 1.0 } else { 1.0 };
                    scaling.insert("attention_factor".to_owned(), (given * magnitude).into());
                }
            }
            "longrope" => self.long_rope(&mut scaling)?,
            other => return Err(self.invalid("rope.scaling.type", &format!("`{other}`: known are none, linear, yarn, longrope"))),
        }
        if !scaling.is_empty() {
            if let Some(original) = original {
                scaling.insert("original_max_position_embeddings".to_owned(), original.into());
            }
            self.set("rope_scaling", scaling);
        }
        Ok(())
    }

    fn long_rope(&self, scaling: &mut Map<String, Value>) -> Result<()> {
        scaling.insert("rope_type".to_owned(), "longrope".into());
        for (tensor, key) in [("rope_factors_short.weight", "short_factor"), ("rope_factors_long.weight", "long_factor")] {
            let factors = self
                .factors(tensor)
                .ok_or_else(|| self.metadata.error(format!("the tensor `{tensor}` is missing, which longrope needs")))?;
            scaling.insert(key.to_owned(), json!(factors));
        }
        if let Some(scale) = self.float("rope.scaling.attn_factor")? {
            scaling.insert("short_mscale".to_owned(), scale.into());
            scaling.insert("long_mscale".to_owned(), scale.into());
        }
        Ok(())
    }

    /// Width of a head, where it is known.
    fn head_dim(&self) -> Option<u64> {
        let number = |key: &str| self.get(key).and_then(Value::as_u64);
        number("head_dim").or_else(|| number("hidden_size")?.checked_div(number("num_attention_heads")?))
    }

    pub fn missing(&self, name: &str) -> Error {
        self.metadata.error(format!("the key `{}` is missing", self.key(name)))
    }

    pub fn invalid(&self, name: &str, problem: &str) -> Error {
        self.metadata.error(format!("`{}`: {problem}", self.key(name)))
    }
}
