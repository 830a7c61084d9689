//! Everything that can be chosen about a run, by name.

use crate::error::{Error, Result, nearest};
use serde_json::{Map, Value, json};

/// What a run is made of. Every field has an entry in [`KEYS`], which says what it means.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    pub model: ModelSettings,
    pub gate: GateSettings,
    pub losses: LossSettings,
    pub train: TrainSettings,
    pub data: DataSettings,
}

/// The shape of the model.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelSettings {
    pub from: String,
    pub num_hidden_layers: usize,
    pub hidden_size: usize,
    pub num_attention_heads: usize,
    pub num_key_value_heads: usize,
    pub head_dim: usize,
    pub num_experts: usize,
    pub moe_intermediate_size: usize,
    pub max_position_embeddings: usize,
    pub rope_theta: f64,
    pub rms_norm_eps: f64,
    pub tie_word_embeddings: bool,
}

/// How tokens choose experts.
#[derive(Debug, Clone, PartialEq)]
pub struct GateSettings {
    pub method: String,
    pub num_experts_per_tok: usize,
    pub renormalize: bool,
}

/// Coefficients of the losses beside the cross-entropy, each summed over the layers.
#[derive(Debug, Clone, PartialEq)]
pub struct LossSettings {
    pub load_balancing_loss: f64,
    pub router_z_loss: f64,
}

/// The optimiser and the length of the run.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSettings {
    pub steps: usize,
    pub windows: usize,
    pub seq_len: usize,
    pub accumulate: usize,
    pub lr: f64,
    pub schedule: String,
    pub warmup_steps: usize,
    pub final_lr: f64,
    pub beta1: f64,
    pub beta2: f64,
    pub eps: f64,
    pub weight_decay: f64,
    pub clip_norm: f64,
    pub init_std: f64,
    pub init_matrix_std: f64,
    pub seed: usize,
    pub save_every: usize,
    pub evaluate_every: usize,
}

/// The text.
#[derive(Debug, Clone, PartialEq)]
pub struct DataSettings {
    pub path: String,
    pub tokenizer: String,
    pub held_out: f64,
}

impl Default for Settings {
    /// Two layers of eight experts over bytes: a step is some tenths of a GFLOP.
    fn default() -> Self {
        Settings {
            model: ModelSettings {
                from: String::new(),
                num_hidden_layers: 2,
                hidden_size: 64,
                num_attention_heads: 2,
                num_key_value_heads: 2,
                head_dim: 32,
                num_experts: 8,
                moe_intermediate_size: 64,
                max_position_embeddings: 512,
                rope_theta: 10_000.0,
                rms_norm_eps: 1e-5,
                tie_word_embeddings: false,
            },
            gate: GateSettings { method: TOP_K_SOFTMAX.to_owned(), num_experts_per_tok: 2, renormalize: true },
            losses: LossSettings { load_balancing_loss: 0.01, router_z_loss: 0.0 },
            train: TrainSettings {
                steps: 400,
                windows: 8,
                seq_len: 64,
                accumulate: 1,
                lr: 3e-3,
                schedule: "cosine".to_owned(),
                warmup_steps: 20,
                final_lr: 0.1,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                clip_norm: 1.0,
                init_std: 0.02,
                init_matrix_std: 0.03,
                seed: 1,
                save_every: 0,
                evaluate_every: 100,
            },
            data: DataSettings { path: String::new(), tokenizer: BYTES.to_owned(), held_out: 0.05 },
        }
    }
}

/// The one gating method so far.
pub const TOP_K_SOFTMAX: &str = "top_k_softmax";
/// The tokenizer whose tokens are the bytes of a text.
pub const BYTES: &str = "bytes";

/// A setting by name.
pub struct Key {
    /// Section and name: `train.lr`.
    pub name: &'static str,
    pub help: &'static str,
    kind: Kind,
}

/// Where a setting lies, and what it may be.
enum Kind {
    Count(fn(&mut Settings) -> &mut usize, [usize; 2]),
    Real(fn(&mut Settings) -> &mut f64, [f64; 2]),
    Switch(fn(&mut Settings) -> &mut bool),
    Text(fn(&mut Settings) -> &mut String),
    Choice(fn(&mut Settings) -> &mut String, &'static [&'static str]),
}

use Kind::{Choice, Count, Real, Switch, Text};

const fn key(name: &'static str, kind: Kind, help: &'static str) -> Key {
    Key { name, help, kind }
}

/// Most tokens of a step, layers, steps: nothing here runs for years.
const MANY: usize = 1 << 24;
const WIDE: usize = 1 << 16;

/// Every setting, in the order in which they are printed.
pub static KEYS: &[Key] = &[
    key("model.from", Text(|s| &mut s.model.from), "a model's directory to begin with; empty: a new model as the other keys say"),
    key("model.num_hidden_layers", Count(|s| &mut s.model.num_hidden_layers, [1, 512]), "layers"),
    key("model.hidden_size", Count(|s| &mut s.model.hidden_size, [2, WIDE]), "width of the residual stream"),
    key("model.num_attention_heads", Count(|s| &mut s.model.num_attention_heads, [1, 512]), "query heads"),
    key(
        "model.num_key_value_heads",
        Count(|s| &mut s.model.num_key_value_heads, [1, 512]),
        "key and value heads, each read by as many query heads",
    ),
    key("model.head_dim", Count(|s| &mut s.model.head_dim, [2, 512]), "width of a head"),
    key("model.num_experts", Count(|s| &mut s.model.num_experts, [1, 256]), "experts of a layer"),
    key("model.moe_intermediate_size", Count(|s| &mut s.model.moe_intermediate_size, [1, WIDE]), "inner width of an expert"),
    key(
        "model.max_position_embeddings",
        Count(|s| &mut s.model.max_position_embeddings, [2, 1 << 20]),
        "longest text that the finished model takes, in tokens",
    ),
    key("model.rope_theta", Real(|s| &mut s.model.rope_theta, [1.0, 1e12]), "base of the rotary frequencies"),
    key("model.rms_norm_eps", Real(|s| &mut s.model.rms_norm_eps, [1e-30, 1.0]), "added under the root of norms"),
    key("model.tie_word_embeddings", Switch(|s| &mut s.model.tie_word_embeddings), "the embedding is the head"),
    key("gate.method", Choice(|s| &mut s.gate.method, &[TOP_K_SOFTMAX]), "gating method"),
    key("gate.num_experts_per_tok", Count(|s| &mut s.gate.num_experts_per_tok, [1, 256]), "experts of a token"),
    key(
        "gate.renormalize",
        Switch(|s| &mut s.gate.renormalize),
        "routing weights are divided by their sum; with one expert per token the router then learns nothing from the text",
    ),
    key(
        "losses.load_balancing_loss",
        Real(|s| &mut s.losses.load_balancing_loss, [0.0, 1e3]),
        "coefficient of E / (k T^2) sum c p, which is 1 where loads are equal",
    ),
    key(
        "losses.router_z_loss",
        Real(|s| &mut s.losses.router_z_loss, [0.0, 1e3]),
        "coefficient of the mean squared log-sum-exp of router logits",
    ),
    key("train.steps", Count(|s| &mut s.train.steps, [1, MANY]), "steps of the run"),
    key("train.windows", Count(|s| &mut s.train.windows, [1, WIDE]), "windows of text in a step, or in each of its parts"),
    key("train.seq_len", Count(|s| &mut s.train.seq_len, [1, WIDE]), "tokens of a window"),
    key("train.accumulate", Count(|s| &mut s.train.accumulate, [1, WIDE]), "parts of a step, whose gradients are added"),
    key("train.lr", Real(|s| &mut s.train.lr, [0.0, 1e3]), "largest learning rate"),
    key(
        "train.schedule",
        Choice(|s| &mut s.train.schedule, &["constant", "linear", "cosine"]),
        "how the learning rate falls after the warm-up",
    ),
    key(
        "train.warmup_steps",
        Count(|s| &mut s.train.warmup_steps, [0, MANY]),
        "steps in which the learning rate grows from nothing",
    ),
    key("train.final_lr", Real(|s| &mut s.train.final_lr, [0.0, 1.0]), "share of the learning rate that is left at the end"),
    key("train.beta1", Real(|s| &mut s.train.beta1, [0.0, 0.999_999]), "decay of the mean of gradients"),
    key("train.beta2", Real(|s| &mut s.train.beta2, [0.0, 0.999_999]), "decay of the mean of their squares"),
    key("train.eps", Real(|s| &mut s.train.eps, [1e-30, 1.0]), "added to the root of that mean"),
    key(
        "train.weight_decay",
        Real(|s| &mut s.train.weight_decay, [0.0, 1e3]),
        "share of a weight that a step of learning rate 1 takes; norms have none",
    ),
    key("train.clip_norm", Real(|s| &mut s.train.clip_norm, [1e-30, 1e30]), "norm that all gradients together have at most"),
    key("train.init_std", Real(|s| &mut s.train.init_std, [0.0, 10.0]), "deviation of embedding, head and router at the start"),
    key(
        "train.init_matrix_std",
        Real(|s| &mut s.train.init_matrix_std, [0.0, 10.0]),
        "deviation of the other matrices; what writes to the residual stream has less",
    ),
    key("train.seed", Count(|s| &mut s.train.seed, [0, u32::MAX as usize]), "of everything that is drawn"),
    key("train.save_every", Count(|s| &mut s.train.save_every, [0, MANY]), "steps between checkpoints; 0: only the last"),
    key(
        "train.evaluate_every",
        Count(|s| &mut s.train.evaluate_every, [0, MANY]),
        "steps between two looks at the held-out text; 0: only at the end",
    ),
    key("data.path", Text(|s| &mut s.data.path), "a text, or a folder whose .txt files are read by name"),
    key("data.tokenizer", Text(|s| &mut s.data.tokenizer), "`bytes`, or the directory of a model whose tokenizer is used"),
    key("data.held_out", Real(|s| &mut s.data.held_out, [0.0, 0.9]), "share of the end of every text that is not trained on"),
];

impl Key {
    /// What it is in `settings`.
    pub fn get(&self, settings: &Settings) -> Value {
        let mut settings = settings.clone();
        match &self.kind {
            Count(field, _) => json!(*field(&mut settings)),
            Real(field, _) => json!(*field(&mut settings)),
            Switch(field) => json!(*field(&mut settings)),
            Text(field) | Choice(field, _) => json!(*field(&mut settings)),
        }
    }

    fn set(&self, settings: &mut Settings, value: &Value) -> Result<()> {
        let refuse = |expected: String| Err(Error::Argument { what: self.name, expected, found: value.to_string() });
        match &self.kind {
            Count(field, [least, most]) => match value.as_u64().and_then(|count| usize::try_from(count).ok()) {
                Some(count) if (*least..=*most).contains(&count) => *field(settings) = count,
                _ => return refuse(format!("a whole number from {least} to {most}")),
            },
            Real(field, [least, most]) => match value.as_f64() {
                Some(number) if (*least..=*most).contains(&number) => *field(settings) = number,
                _ => return refuse(format!("a number from {least} to {most}")),
            },
            Switch(field) => match value.as_bool() {
                Some(on) => *field(settings) = on,
                None => return refuse("true or false".to_owned()),
            },
            Text(field) => match value.as_str() {
                Some(text) => *field(settings) = text.to_owned(),
                None => return refuse("a text".to_owned()),
            },
            Choice(field, known) => match value.as_str().filter(|text| known.contains(text)) {
                Some(text) => *field(settings) = text.to_owned(),
                None => return refuse(known.join(", ")),
            },
        }
        Ok(())
    }
}

impl Settings {
    /// Changes one setting.
    ///
    /// # Errors
    /// [`Error::Argument`] for a name that is none, with the nearest, and for a value that it cannot have.
    pub fn set(&mut self, name: &str, value: &Value) -> Result<()> {
        match KEYS.iter().find(|key| key.name == name) {
            Some(key) => key.set(self, value),
            None => {
                let near =
                    nearest(name, KEYS.iter().map(|key| key.name)).map(|near| format!("; `{near}` is one")).unwrap_or_default();
                let expected = format!("a name that `moebius train --print-settings` has{near}");
                Err(Error::Argument { what: "setting", expected, found: name.to_owned() })
            }
        }
    }

    /// Changes what an object of sections says: `{"train": {"lr": 0.001}}`.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub fn set_all(&mut self, sections: &Map<String, Value>) -> Result<()> {
        for (section, content) in sections {
            match content.as_object() {
                Some(content) => content.iter().try_for_each(|(name, value)| self.set(&format!("{section}.{name}"), value))?,
                None => self.set(section, content)?,
            }
        }
        Ok(())
    }

    /// The same object with everything in it.
    pub fn to_json(&self) -> Value {
        let mut sections = Map::new();
        for key in KEYS {
            let (section, name) = key.section_and_name();
            let section = sections.entry(section).or_insert_with(|| json!({}));
            section[name] = key.get(self);
        }
        Value::Object(sections)
    }

    /// Every key with its value and what it means, as a file of settings.
    pub fn to_toml(&self) -> String {
        let (mut text, mut current) = (String::new(), "");
        for key in KEYS {
            let (section, name) = key.section_and_name();
            if section != current {
                text.push_str(&format!("{}[{section}]\n", if current.is_empty() { "" } else { "\n" }));
                current = section;
            }
            // A number, a truth or a text is written alike in JSON and in TOML, but for numbers that are whole by chance.
            text.push_str(&format!("{name} = {} # {}\n", key.get(self), key.help));
        }
        text
    }

    /// Names of the settings in which two runs differ.
    pub fn differences(&self, other: &Settings) -> Vec<&'static str> {
        KEYS.iter().filter(|key| key.get(self) != key.get(other)).map(|key| key.name).collect()
    }

    /// The learning rate of a step, counted from 0.
    pub fn lr(&self, step: usize) -> f64 {
        let train = &self.train;
        if step < train.warmup_steps {
            return train.lr * (step + 1) as f64 / train.warmup_steps as f64;
        }
        let left = train.steps.saturating_sub(train.warmup_steps).max(1) as f64;
        let done = ((step - train.warmup_steps) as f64 / left).min(1.0);
        let share = match train.schedule.as_str() {
            "linear" => 1.0 - done,
            "cosine" => 0.5 * (1.0 + libm::cos(std::f64::consts::PI * done)),
            _ => return train.lr,
        };
        train.lr * (train.final_lr + (1.0 - train.final_lr) * share)
    }
}

impl Key {
    fn section_and_name(&self) -> (&'static str, &'static str) {
        self.name.split_once('.').unwrap_or(("", self.name))
    }
}
