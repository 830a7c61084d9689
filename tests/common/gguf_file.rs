//! GGUF files made for a test.

use std::path::Path;

/// A value as it stands in a file.
#[derive(Debug, Clone)]
pub struct GgufValue {
    type_id: u32,
    bytes: Vec<u8>,
}

impl GgufValue {
    pub fn u8(value: u8) -> Self {
        Self::raw(0, value.to_le_bytes())
    }

    pub fn i8(value: i8) -> Self {
        Self::raw(1, value.to_le_bytes())
    }

    pub fn u16(value: u16) -> Self {
        Self::raw(2, value.to_le_bytes())
    }

    pub fn i16(value: i16) -> Self {
        Self::raw(3, value.to_le_bytes())
    }

    pub fn u32(value: u32) -> Self {
        Self::raw(4, value.to_le_bytes())
    }

    pub fn i32(value: i32) -> Self {
        Self::raw(5, value.to_le_bytes())
    }

    pub fn f32(value: f32) -> Self {
        Self::raw(6, value.to_le_bytes())
    }

    pub fn bool(value: bool) -> Self {
        Self::raw(7, [value.into()])
    }

    pub fn text(value: &str) -> Self {
        Self::raw(8, text(value))
    }

    pub fn u64(value: u64) -> Self {
        Self::raw(10, value.to_le_bytes())
    }

    pub fn i64(value: i64) -> Self {
        Self::raw(11, value.to_le_bytes())
    }

    pub fn f64(value: f64) -> Self {
        Self::raw(12, value.to_le_bytes())
    }

    /// An array of values of one type.
    pub fn array(values: &[GgufValue]) -> Self {
        Self::array_of(values.first().map_or(4, |value| value.type_id), values)
    }

    fn array_of(type_id: u32, values: &[GgufValue]) -> Self {
        let mut bytes = [&type_id.to_le_bytes()[..], &(values.len() as u64).to_le_bytes()].concat();
        bytes.extend(values.iter().flat_map(|value| &value.bytes));
        Self::raw(9, bytes)
    }

    pub fn texts<T: AsRef<str>>(values: &[T]) -> Self {
        // An empty array has a type too, which only here is known.
        let texts = values.iter().map(|value| Self::text(value.as_ref()));
        Self::array_of(Self::text("").type_id, &texts.collect::<Vec<_>>())
    }

    fn raw(type_id: u32, bytes: impl Into<Vec<u8>>) -> Self {
        GgufValue { type_id, bytes: bytes.into() }
    }
}

/// What a file holds. Tensors lie one after the other.
#[derive(Debug, Clone, Default)]
pub struct GgufFile {
    entries: Vec<(String, GgufValue)>,
    tensors: Vec<MadeTensor>,
}

#[derive(Debug, Clone)]
struct MadeTensor {
    name: String,
    dimensions: Vec<u64>,
    type_id: u32,
    bytes: Vec<u8>,
    /// Zeros after the bytes, which take no room on a disk.
    hole: u64,
}

impl MadeTensor {
    fn len(&self) -> u64 {
        self.bytes.len() as u64 + self.hole
    }
}

const ALIGNMENT: u64 = 32;

impl GgufFile {
    /// A file of the architecture `llama`.
    pub fn llama() -> Self {
        Self::default().with("general.architecture", GgufValue::text("llama"))
    }

    pub fn with(mut self, key: &str, value: GgufValue) -> Self {
        self.entries.retain(|(other, _)| other != key);
        self.entries.push((key.to_owned(), value));
        self
    }

    pub fn without(mut self, key: &str) -> Self {
        self.entries.retain(|(other, _)| other != key);
        self
    }

    /// A tensor of `dimensions`, the length of a row first.
    pub fn tensor(mut self, name: &str, dimensions: &[u64], type_id: u32, bytes: Vec<u8>) -> Self {
        self.tensors.push(MadeTensor { name: name.to_owned(), dimensions: dimensions.to_vec(), type_id, bytes, hole: 0 });
        self
    }

    /// A tensor of `len` zeros in a file that [`write_sparse`](Self::write_sparse) writes.
    pub fn hole(mut self, name: &str, dimensions: &[u64], type_id: u32, len: u64) -> Self {
        let (name, dimensions) = (name.to_owned(), dimensions.to_vec());
        self.tensors.push(MadeTensor { name, dimensions, type_id, bytes: Vec::new(), hole: len });
        self
    }

    /// A tensor of `len` values in f32.
    pub fn f32_tensor(self, name: &str, len: usize) -> Self {
        let bytes = (0..len).flat_map(|value| (value as f32).to_le_bytes()).collect();
        self.tensor(name, &[len as u64], 0, bytes)
    }

    pub fn header(&self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0".to_vec();
        file.extend((self.tensors.len() as u64).to_le_bytes());
        file.extend((self.entries.len() as u64).to_le_bytes());
        for (key, value) in &self.entries {
            file.extend(text(key));
            file.extend(value.type_id.to_le_bytes());
            file.extend(&value.bytes);
        }
        let mut offset = 0u64;
        for tensor in &self.tensors {
            file.extend(text(&tensor.name));
            file.extend((tensor.dimensions.len() as u32).to_le_bytes());
            file.extend(tensor.dimensions.iter().flat_map(|len| len.to_le_bytes()));
            file.extend(tensor.type_id.to_le_bytes());
            file.extend(offset.to_le_bytes());
            offset += tensor.len().next_multiple_of(ALIGNMENT);
        }
        file
    }

    pub fn bytes(&self) -> Vec<u8> {
        let mut file = self.header();
        for tensor in &self.tensors {
            file.resize(file.len().next_multiple_of(ALIGNMENT as usize), 0);
            file.extend(&tensor.bytes);
        }
        file
    }

    /// Writes a file whose tensors are all holes: as long as a model, with no more on the disk than its header.
    pub fn write_sparse(&self, path: &Path) {
        assert!(self.tensors.iter().all(|tensor| tensor.bytes.is_empty()));
        let header = self.header();
        let tensors: u64 = self.tensors.iter().map(|tensor| tensor.len().next_multiple_of(ALIGNMENT)).sum();
        let len = (header.len() as u64).next_multiple_of(ALIGNMENT) + tensors;
        std::fs::write(path, header).unwrap();
        std::fs::File::options().write(true).open(path).unwrap().set_len(len).unwrap();
    }
}

fn text(text: &str) -> Vec<u8> {
    [&(text.len() as u64).to_le_bytes(), text.as_bytes()].concat()
}
