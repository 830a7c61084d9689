//! How the KV cache lies in device memory.

use super::Quant;
use crate::error::{Error, Result};
use half::f16;
use std::fmt;
use std::str::FromStr;

/// The format of keys and values that are kept for later tokens. What a filter before query and key remembers is f32 always.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheFormat {
    #[default]
    F32,
    /// Two to a word. What is larger than the largest f16 becomes that.
    F16,
}

impl CacheFormat {
    pub const ALL: [CacheFormat; 2] = [CacheFormat::F32, CacheFormat::F16];

    /// As given to `--kv-cache`.
    pub fn name(self) -> &'static str {
        match self {
            CacheFormat::F32 => "f32",
            CacheFormat::F16 => "f16",
        }
    }

    /// Bytes of `len` values, an even number.
    pub fn bytes(self, len: usize) -> usize {
        match self {
            CacheFormat::F32 => 4 * len,
            CacheFormat::F16 => 2 * len,
        }
    }

    /// What the cache keeps of a value: the nearest that the format has, and of two that are equally near the one whose last bit is 0.
    pub fn keep(self, value: f32) -> f32 {
        match self {
            CacheFormat::F32 => value,
            CacheFormat::F16 => half(value).to_f32(),
        }
    }

    /// The words that hold an even number of values.
    pub fn pack(self, values: &[f32]) -> Vec<u32> {
        match self {
            CacheFormat::F32 => values.iter().map(|value| value.to_bits()).collect(),
            CacheFormat::F16 => {
                let word = |[low, high]: &[f32; 2]| u32::from(half(*low).to_bits()) | u32::from(half(*high).to_bits()) << 16;
                values.as_chunks::<2>().0.iter().map(word).collect()
            }
        }
    }
}

/// An infinity would spread to every later token; a value that is too large by a little does not.
fn half(value: f32) -> f16 {
    f16::from_f32(value.clamp(f16::MIN.to_f32(), f16::MAX.to_f32()))
}

/// Which format the KV cache takes: `auto`, `f32` or `f16`. The default is f16 where all weights of attention are in formats of six bits or
/// fewer, whose error hides that of the cache, and f32 elsewhere: logits and greedy texts of f32, f16, bf16 and q8_0 stay what they are.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum CacheChoice {
    #[default]
    Auto,
    Is(CacheFormat),
}

impl CacheChoice {
    /// The format for a model whose weights of attention are in these formats.
    pub fn format(self, mut attention: impl Iterator<Item = Quant>) -> CacheFormat {
        match self {
            CacheChoice::Is(format) => format,
            CacheChoice::Auto if attention.all(|quant| quant.value_bits < 8) => CacheFormat::F16,
            CacheChoice::Auto => CacheFormat::F32,
        }
    }
}

/// The word for [`CacheChoice::Auto`].
const AUTO: &str = "auto";

impl FromStr for CacheChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim().to_ascii_lowercase();
        if text == AUTO {
            return Ok(CacheChoice::Auto);
        }
        let format = CacheFormat::ALL.into_iter().find(|format| format.name() == text);
        format.map(CacheChoice::Is).ok_or_else(|| Error::Argument {
            what: "format of the KV cache",
            expected: "one of auto, f32, f16".to_owned(),
            found: format!("`{text}`"),
        })
    }
}

impl fmt::Display for CacheChoice {
    /// What [`from_str`](Self::from_str) reads back.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            CacheChoice::Auto => AUTO,
            CacheChoice::Is(format) => format.name(),
        })
    }
}
