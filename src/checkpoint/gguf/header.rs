//! The header of one GGUF file, believed only after it was checked against the file's length.
//!
//! Source: the description of the format in the repository of ggml, `docs/gguf.md`.

use super::GgufTensor;
use super::block::{BlockType, refused};
use super::cursor::{Cursor, Parsed, Stop, shown};
use super::metadata::{Metadata, MetadataValue};
use crate::platform::ByteSource;
use crate::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};

const MAGIC: &[u8; 4] = b"GGUF";
const ALIGNMENT: &str = "general.alignment";
const DEFAULT_ALIGNMENT: u64 = 32;
/// What a header may take at most: several times the largest vocabularies with their merges.
const MAX_HEADER_BYTES: u64 = 100_000_000;
/// How much is read at first, and then twice as much until the header ends.
const FIRST_READ_BYTES: u64 = 1 << 20;
/// More than any model has, so that a table of entries cannot become much larger than its file.
const MAX_TENSORS: u64 = 1 << 17;
const MAX_ENTRIES: u64 = 1 << 16;
/// An entry has at least a length, one byte of a key, a type and one byte.
const MIN_ENTRY_BYTES: u64 = 14;
/// A tensor has at least a length, one byte of a name, a number of dimensions, one of them, a type and an offset.
const MIN_TENSOR_BYTES: u64 = 33;
/// ggml keeps names in 64 bytes with a zero at the end.
const MAX_NAME_BYTES: usize = 63;
const MAX_DIMENSIONS: u32 = 4;

/// What a header says.
#[derive(Debug)]
pub(super) struct Header {
    pub metadata: Metadata,
    /// In the order of their bytes.
    pub tensors: Vec<GgufTensor>,
}

/// A file whose header is being read.
struct File {
    name: String,
    len: u64,
    /// Its number among the parts of a model.
    index: usize,
}

/// Reads and checks the header of `source`, which is the part numbered `index`.
///
/// # Errors
/// [`Error::Gguf`], [`Error::TensorDtype`] for a type of blocks that is not read, [`Error::Io`].
pub(super) async fn read_header(source: &ByteSource, index: usize) -> Result<Header> {
    let file = File { name: source.name(), len: source.len(), index };
    let limit = file.len.min(MAX_HEADER_BYTES);
    let mut bytes = Vec::new();
    let mut wanted = limit.min(FIRST_READ_BYTES);
    loop {
        let have = bytes.len();
        bytes.reserve_exact(wanted as usize - have);
        bytes.extend_from_slice(&source.read(have as u64..wanted).await?);
        match parse(&bytes, limit, &file) {
            Ok(header) => return header,
            Err(Stop::More(needed)) => wanted = limit.min(needed.max(2 * wanted)),
            Err(Stop::Wrong(problem)) => return Err(Error::Gguf { file: file.name, problem }),
        }
    }
}

/// The header in the first `bytes` of a file. The inner error is of a file that is whole, but not read.
fn parse(bytes: &[u8], limit: u64, file: &File) -> Parsed<Result<Header>> {
    let mut cursor = Cursor::new(bytes, limit);
    check_start(&mut cursor, bytes)?;
    let num_tensors = count(&mut cursor, "tensors", MIN_TENSOR_BYTES, MAX_TENSORS)?;
    let num_entries = count(&mut cursor, "entries of metadata", MIN_ENTRY_BYTES, MAX_ENTRIES)?;
    let metadata = Metadata::new(file.name.clone(), read_entries(&mut cursor, num_entries)?);
    let alignment = alignment(&metadata)?;
    let mut stored = Vec::new();
    for number in 0..num_tensors {
        stored.push(Stored::read(&mut cursor, number)?);
    }
    let data_start = cursor.position().next_multiple_of(alignment);
    let mut tensors = Vec::with_capacity(stored.len());
    for tensor in stored {
        if let Some(error) = refused(tensor.block_id, &tensor.name) {
            return Ok(Err(error));
        }
        let name = shown(&tensor.name);
        tensors.push(tensor.place(data_start, alignment, file).map_err(|stop| stop.within(|| format!("tensor {name}")))?);
    }
    tensors.sort_by_key(|tensor| tensor.bytes.start);
    check_apart(&tensors)?;
    Ok(Ok(Header { metadata, tensors }))
}

fn check_start(cursor: &mut Cursor, bytes: &[u8]) -> Parsed<()> {
    if cursor.take(MAGIC.len() as u64, "the word GGUF").ok() != Some(MAGIC) {
        return Err(Stop::wrong(if bytes.is_empty() { "it is empty" } else { "it does not begin with the word GGUF" }));
    }
    match cursor.u32("the version")? {
        2 | 3 => Ok(()),
        1 => Err(Stop::wrong("it is of version 1 of the format, whose counts have 32 bits; versions 2 and 3 are read")),
        version if version != 0 && version & 0xffff == 0 => {
            Err(Stop::wrong("it is a big-endian file, for other processors; little-endian ones are read"))
        }
        version => Err(Stop::Wrong(format!("it is of version {version} of the format; versions 2 and 3 are read"))),
    }
}

/// How many of `what` there are.
fn count(cursor: &mut Cursor, what: &str, least_bytes: u64, most: u64) -> Parsed<u64> {
    let count = cursor.u64("a count")?;
    let possible = (cursor.left() / least_bytes).min(most);
    if count > possible {
        return Err(Stop::Wrong(format!("it claims {count} {what}, at most {possible} are possible")));
    }
    Ok(count)
}

fn read_entries(cursor: &mut Cursor, num_entries: u64) -> Parsed<BTreeMap<String, MetadataValue>> {
    let mut entries = BTreeMap::new();
    for number in 0..num_entries {
        let key = cursor.text("its key").map_err(|stop| stop.within(|| format!("entry {number} of the metadata")))?;
        if key.is_empty() {
            return Err(Stop::Wrong(format!("entry {number} of the metadata: its key is empty")));
        }
        let value = MetadataValue::read(cursor).map_err(|stop| stop.within(|| shown(key)))?;
        if entries.insert(key.to_owned(), value).is_some() {
            return Err(Stop::Wrong(format!("the key {} occurs twice", shown(key))));
        }
    }
    Ok(entries)
}

fn alignment(metadata: &Metadata) -> Parsed<u64> {
    let alignment = metadata.integer(ALIGNMENT).map(|value| value.unwrap_or(DEFAULT_ALIGNMENT));
    match alignment {
        Ok(alignment) if alignment.is_power_of_two() && u32::try_from(alignment).is_ok() => Ok(alignment),
        Ok(alignment) => Err(Stop::Wrong(format!("`{ALIGNMENT}` must be a power of two in 32 bits, found {alignment}"))),
        Err(_) => Err(Stop::Wrong(format!("`{ALIGNMENT}` must be a power of two in 32 bits"))),
    }
}

/// A tensor as its header has it.
struct Stored {
    name: String,
    /// The length of a row first.
    dimensions: Vec<u64>,
    block_id: u32,
    /// From the start of the data.
    offset: u64,
}

impl Stored {
    fn read(cursor: &mut Cursor, number: u64) -> Parsed<Self> {
        let name = cursor.text("its name").map_err(|stop| stop.within(|| format!("tensor {number}")))?;
        let within = |stop: Stop| stop.within(|| format!("tensor {}", shown(name)));
        if name.is_empty() {
            return Err(Stop::Wrong(format!("tensor {number} has no name")));
        }
        if name.len() > MAX_NAME_BYTES {
            let problem = format!("its name has {} bytes, at most {MAX_NAME_BYTES} are possible", name.len());
            return Err(within(Stop::Wrong(problem)));
        }
        let num_dimensions = cursor.u32("the number of its dimensions").map_err(within)?;
        if num_dimensions == 0 || num_dimensions > MAX_DIMENSIONS {
            return Err(within(Stop::Wrong(format!("it has {num_dimensions} dimensions, 1 to {MAX_DIMENSIONS} are possible"))));
        }
        let dimensions = (0..num_dimensions).map(|_| cursor.u64("its shape")).collect::<Parsed<Vec<u64>>>().map_err(within)?;
        let block_id = cursor.u32("its type").map_err(within)?;
        let offset = cursor.u64("its offset").map_err(within)?;
        Ok(Stored { name: name.to_owned(), dimensions, block_id, offset })
    }

    /// The tensor with its place in the file.
    fn place(self, data_start: u64, alignment: u64, file: &File) -> Parsed<GgufTensor> {
        let block = BlockType::find(self.block_id).ok_or_else(|| Stop::Wrong(format!("there is no type {}", self.block_id)))?;
        let too_large = || Stop::Wrong(format!("its shape {:?} has more elements than a file can hold", self.dimensions));
        let elements = self.dimensions.iter().try_fold(1u64, |product, len| product.checked_mul(*len)).ok_or_else(too_large)?;
        let (row, block_len) = (self.dimensions[0], block.len as u64);
        if elements == 0 {
            return Err(Stop::Wrong(format!("its shape {:?} has no elements", self.dimensions)));
        }
        if !row.is_multiple_of(block_len) {
            return Err(Stop::Wrong(format!(
                "its rows of {row} are no whole number of blocks of {block_len}, as {} has them",
                block.name
            )));
        }
        let len_bytes = (elements / block_len).checked_mul(block.bytes as u64).ok_or_else(too_large)?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(Stop::Wrong(format!("its offset {} is no multiple of {alignment}", self.offset)));
        }
        let start = data_start.checked_add(self.offset);
        let end = start.and_then(|start| start.checked_add(len_bytes)).filter(|end| *end <= file.len);
        let (Some(start), Some(end)) = (start, end) else {
            return Err(Stop::Wrong(format!(
                "its {len_bytes} bytes at offset {} of the data, which begins at {data_start}, end beyond the file of {} bytes",
                self.offset, file.len
            )));
        };
        let shape = self.dimensions.iter().rev().map(|&len| usize::try_from(len)).collect::<Result<Vec<usize>, _>>();
        let shape = shape.map_err(|_| too_large())?;
        Ok(GgufTensor { name: self.name, source: file.index, block, shape, bytes: start..end })
    }
}

/// Checks that no name occurs twice, and that no two of the tensors, which are sorted by their place, share bytes.
fn check_apart(tensors: &[GgufTensor]) -> Parsed<()> {
    let mut names = BTreeSet::new();
    if let Some(twice) = tensors.iter().find(|tensor| !names.insert(&tensor.name)) {
        return Err(Stop::Wrong(format!("tensor {} occurs twice", shown(&twice.name))));
    }
    match tensors.windows(2).find(|pair| pair[1].bytes.start < pair[0].bytes.end) {
        Some(pair) => Err(Stop::Wrong(format!("tensors {} and {} share bytes", shown(&pair[0].name), shown(&pair[1].name)))),
        None => Ok(()),
    }
}
