//! The metadata of a GGUF file: keys with numbers, texts, or arrays of either.

use super::cursor::{Cursor, Parsed, Stop, shown};
use crate::{Error, Result};
use std::collections::BTreeMap;

/// How a number is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NumberKind {
    U8,
    I8,
    U16,
    I16,
    U32,
    I32,
    F32,
    Bool,
    U64,
    I64,
    F64,
}

const TEXT: u32 = 8;
const ARRAY: u32 = 9;
/// What the length of a text takes.
const LENGTH_BYTES: u64 = 8;

impl NumberKind {
    fn find(id: u32) -> Option<Self> {
        Some(match id {
            0 => NumberKind::U8,
            1 => NumberKind::I8,
            2 => NumberKind::U16,
            3 => NumberKind::I16,
            4 => NumberKind::U32,
            5 => NumberKind::I32,
            6 => NumberKind::F32,
            7 => NumberKind::Bool,
            10 => NumberKind::U64,
            11 => NumberKind::I64,
            12 => NumberKind::F64,
            _ => return None,
        })
    }

    fn size_bytes(self) -> usize {
        match self {
            NumberKind::U8 | NumberKind::I8 | NumberKind::Bool => 1,
            NumberKind::U16 | NumberKind::I16 => 2,
            NumberKind::U32 | NumberKind::I32 | NumberKind::F32 => 4,
            NumberKind::U64 | NumberKind::I64 | NumberKind::F64 => 8,
        }
    }

    /// The number in `bytes`, of which there are [`size_bytes`](Self::size_bytes).
    fn read(self, bytes: &[u8]) -> Number {
        let mut word = [0; 8];
        word[..bytes.len()].copy_from_slice(bytes);
        let bits = u64::from_le_bytes(word);
        // Shifted up and down again, so that the sign fills what lies above it.
        let unused_bits = 64 - 8 * bytes.len() as u32;
        match self {
            NumberKind::U8 | NumberKind::U16 | NumberKind::U32 | NumberKind::U64 => Number::Unsigned(bits),
            NumberKind::I8 | NumberKind::I16 | NumberKind::I32 | NumberKind::I64 => {
                Number::Signed((bits << unused_bits) as i64 >> unused_bits)
            }
            NumberKind::F32 => Number::Float(f32::from_bits(bits as u32).into()),
            NumberKind::F64 => Number::Float(f64::from_bits(bits)),
            NumberKind::Bool => Number::Bool(bits != 0),
        }
    }
}

/// A number in the metadata.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Number {
    Unsigned(u64),
    Signed(i64),
    Float(f64),
    Bool(bool),
}

impl Number {
    /// The value, if it is whole and not negative. Writers disagree about signs and widths, so those do not matter.
    fn integer(self) -> Option<u64> {
        match self {
            Number::Unsigned(value) => Some(value),
            Number::Signed(value) => u64::try_from(value).ok(),
            Number::Bool(value) => Some(value.into()),
            Number::Float(_) => None,
        }
    }

    fn float(self) -> Option<f64> {
        match self {
            Number::Float(value) => Some(value),
            _ => None,
        }
    }

    fn flag(self) -> Option<bool> {
        match self.integer()? {
            0 => Some(false),
            1 => Some(true),
            _ => None,
        }
    }
}

/// An array of numbers, as it is stored.
#[derive(Debug, Clone, PartialEq)]
pub struct Numbers {
    kind: NumberKind,
    bytes: Vec<u8>,
}

impl Numbers {
    pub fn len(&self) -> usize {
        self.bytes.len() / self.kind.size_bytes()
    }

    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = Number> {
        self.bytes.chunks_exact(self.kind.size_bytes()).map(|bytes| self.kind.read(bytes))
    }
}

/// An array of texts, which takes no more memory than in its file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    text: String,
    /// Where each ends. Headers are shorter than 4 GiB.
    ends: Vec<u32>,
}

impl Texts {
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    pub fn get(&self, index: usize) -> Option<&str> {
        let end = *self.ends.get(index)? as usize;
        let start = if index == 0 { 0 } else { self.ends[index - 1] as usize };
        Some(&self.text[start..end])
    }

    pub fn iter(&self) -> impl ExactSizeIterator<Item = &str> {
        (0..self.len()).map(|index| self.get(index).expect("below the length"))
    }

    /// `len` texts.
    fn read(cursor: &mut Cursor, len: u64) -> Parsed<Self> {
        // Their bytes are counted first, so that what is allocated is what there is.
        let mut ahead = cursor.clone();
        let mut total = 0;
        for _ in 0..len {
            total += ahead.text_bytes("a text of the array")?.len();
        }
        let mut texts = Texts { text: String::with_capacity(total), ends: Vec::with_capacity(len as usize) };
        for _ in 0..len {
            texts.text.push_str(cursor.text("a text of the array")?);
            texts.ends.push(texts.text.len() as u32);
        }
        Ok(texts)
    }
}

/// What stands under a key.
#[derive(Debug, Clone, PartialEq)]
pub enum MetadataValue {
    Number(Number),
    Text(String),
    Numbers(Numbers),
    Texts(Texts),
}

impl MetadataValue {
    /// The value that follows at `cursor`: its type, then itself.
    pub(super) fn read(cursor: &mut Cursor) -> Parsed<Self> {
        match cursor.u32("the type of the value")? {
            TEXT => Ok(MetadataValue::Text(cursor.text("the text")?.to_owned())),
            ARRAY => {
                let id = cursor.u32("the type of the array")?;
                let len = cursor.u64("the length of the array")?;
                Self::read_array(cursor, id, len)
            }
            id => {
                let kind = NumberKind::find(id).ok_or_else(|| unknown_type(id))?;
                let bytes = cursor.take(kind.size_bytes() as u64, "the number")?;
                check_bools(kind, bytes)?;
                Ok(MetadataValue::Number(kind.read(bytes)))
            }
        }
    }

    fn read_array(cursor: &mut Cursor, id: u32, len: u64) -> Parsed<Self> {
        let kind = NumberKind::find(id);
        let least_bytes = match (id, kind) {
            (TEXT, _) => LENGTH_BYTES,
            (ARRAY, _) => return Err(Stop::wrong("an array of arrays, which GGUF does not have")),
            (_, Some(kind)) => kind.size_bytes() as u64,
            (_, None) => return Err(unknown_type(id)),
        };
        let bytes = len.checked_mul(least_bytes).filter(|bytes| *bytes <= cursor.left()).ok_or_else(|| {
            Stop::Wrong(format!("an array of {len} elements, but {} bytes are left for the header", cursor.left()))
        })?;
        let Some(kind) = kind else { return Texts::read(cursor, len).map(MetadataValue::Texts) };
        let bytes = cursor.take(bytes, "the array")?;
        check_bools(kind, bytes)?;
        Ok(MetadataValue::Numbers(Numbers { kind, bytes: bytes.to_vec() }))
    }

    /// What it is, for messages.
    fn described(&self) -> String {
        match self {
            MetadataValue::Number(Number::Unsigned(value)) => value.to_string(),
            MetadataValue::Number(Number::Signed(value)) => value.to_string(),
            MetadataValue::Number(Number::Float(value)) => format!("{value:?}"),
            MetadataValue::Number(Number::Bool(value)) => value.to_string(),
            MetadataValue::Text(text) => format!("the text {}", shown(text)),
            MetadataValue::Numbers(numbers) => format!("an array of {} numbers", numbers.len()),
            MetadataValue::Texts(texts) => format!("an array of {} texts", texts.len()),
        }
    }
}

fn unknown_type(id: u32) -> Stop {
    Stop::Wrong(format!("a value of type {id}, which GGUF does not have"))
}

fn check_bools(kind: NumberKind, bytes: &[u8]) -> Parsed<()> {
    match bytes.iter().find(|byte| kind == NumberKind::Bool && **byte > 1) {
        Some(byte) => Err(Stop::Wrong(format!("a bool is 0 or 1, found {byte}"))),
        None => Ok(()),
    }
}

/// Layers that a value can be given to, more than any model has.
const MAX_LAYERS: usize = 1 << 16;

/// The keys and values of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct Metadata {
    file: String,
    entries: BTreeMap<String, MetadataValue>,
}

impl Metadata {
    pub(super) fn new(file: String, entries: BTreeMap<String, MetadataValue>) -> Self {
        Metadata { file, entries }
    }

    /// The path of the file, for messages.
    pub fn file(&self) -> &str {
        &self.file
    }

    /// All keys, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    pub fn get(&self, key: &str) -> Option<&MetadataValue> {
        self.entries.get(key)
    }

    /// `general.architecture`: the name that begins the keys of the model.
    ///
    /// # Errors
    /// [`Error::Gguf`] if it is missing or no text.
    pub fn architecture(&self) -> Result<&str> {
        const KEY: &str = "general.architecture";
        self.text(KEY)?.ok_or_else(|| self.missing(KEY))
    }

    /// The error of a key that has to be there.
    pub fn missing(&self, key: &str) -> Error {
        self.error(format!("`{key}` is missing"))
    }

    /// The error of a key whose value has to be something else.
    pub fn unexpected(&self, key: &str, expected: &str) -> Error {
        let found = self.get(key).map_or_else(|| "nothing".to_owned(), MetadataValue::described);
        self.error(format!("`{key}` must be {expected}, found {found}"))
    }

    /// An error about this file.
    pub fn error(&self, problem: impl Into<String>) -> Error {
        Error::Gguf { file: self.file.clone(), problem: problem.into() }
    }

    /// The value of `key` as `convert` sees it.
    fn typed<'a, T>(&'a self, key: &str, expected: &str, convert: impl Fn(&'a MetadataValue) -> Option<T>) -> Result<Option<T>> {
        let Some(value) = self.get(key) else { return Ok(None) };
        convert(value).map(Some).ok_or_else(|| self.unexpected(key, expected))
    }

    fn number<T>(&self, key: &str, expected: &str, convert: impl Fn(Number) -> Option<T>) -> Result<Option<T>> {
        self.typed(key, expected, |value| if let MetadataValue::Number(number) = value { convert(*number) } else { None })
    }

    fn numbers<T>(&self, key: &str, expected: &str, convert: impl Fn(Number) -> Option<T>) -> Result<Option<Vec<T>>> {
        self.typed(key, expected, |value| {
            if let MetadataValue::Numbers(numbers) = value { numbers.iter().map(&convert).collect() } else { None }
        })
    }

    /// A whole number from 0 on, of any integer type, or a bool as 0 or 1.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key, for any other value. So it is for all of these.
    pub fn integer(&self, key: &str) -> Result<Option<u64>> {
        self.number(key, "an integer from 0 on", Number::integer)
    }

    /// A finite number in 32 or 64 bits.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn float(&self, key: &str) -> Result<Option<f64>> {
        self.number(key, "a floating-point number", |number| number.float().filter(|value| value.is_finite()))
    }

    /// A bool, or an integer that is 0 or 1.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn flag(&self, key: &str) -> Result<Option<bool>> {
        self.number(key, "true or false", Number::flag)
    }

    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn text(&self, key: &str) -> Result<Option<&str>> {
        self.typed(key, "a text", |value| if let MetadataValue::Text(text) = value { Some(text.as_str()) } else { None })
    }

    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn texts(&self, key: &str) -> Result<Option<&Texts>> {
        self.typed(key, "an array of texts", |value| if let MetadataValue::Texts(texts) = value { Some(texts) } else { None })
    }

    /// An array of what [`integer`](Self::integer) accepts.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn integers(&self, key: &str) -> Result<Option<Vec<u64>>> {
        self.numbers(key, "an array of integers from 0 on", Number::integer)
    }

    /// An array of numbers in 32 or 64 bits, finite or not.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn floats(&self, key: &str) -> Result<Option<Vec<f64>>> {
        self.numbers(key, "an array of floating-point numbers", Number::float)
    }

    /// An integer for each of `num_layers` layers: stored as one for all of them, or as an array of that length.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn per_layer(&self, key: &str, num_layers: usize) -> Result<Option<Vec<u64>>> {
        self.each_layer(key, num_layers, Number::integer)
    }

    /// The same for floating-point numbers.
    ///
    /// # Errors
    /// [`Error::Gguf`] naming the key.
    pub fn per_layer_float(&self, key: &str, num_layers: usize) -> Result<Option<Vec<f64>>> {
        self.each_layer(key, num_layers, |number| number.float().filter(|value| value.is_finite()))
    }

    fn each_layer<T: Clone>(
        &self,
        key: &str,
        num_layers: usize,
        convert: impl Fn(Number) -> Option<T>,
    ) -> Result<Option<Vec<T>>> {
        if num_layers > MAX_LAYERS {
            return Err(self.error(format!("`{key}`: a model has at most {MAX_LAYERS} layers, found {num_layers}")));
        }
        let expected = format!("one number, or {num_layers} of them");
        self.typed(key, &expected, |value| match value {
            MetadataValue::Number(number) => Some(vec![convert(*number)?; num_layers]),
            MetadataValue::Numbers(numbers) if numbers.len() == num_layers => numbers.iter().map(&convert).collect(),
            _ => None,
        })
    }
}
