//! Writes a model in the layout of device memory, so that loading it needs no quantising.

use super::formats::Formats;
use super::upload::piece_rows;
use crate::checkpoint::gguf;
use crate::checkpoint::packed::{metadata, packed_shape};
use crate::checkpoint::{Checkpoint, Declared, INDEX, ModelFiles, Synthetic, WeightStore, file_name, header, index};
use crate::error::{Error, Result};
use crate::platform::{self, NewDirectory};
use crate::quant::{Quant, QuantChoice, QuantFormat, WeightClass};
use crate::spec::{ModelSpec, WeightKey, parse_json};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use std::path::Path;

/// What a model needs beside its weights, as far as it is there.
const COMPANIONS: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "LICENSE",
    "LICENSE.txt",
];
/// What has at most so many bits per value is not made wider by default.
const NARROW_BITS: usize = 8;

/// How to quantise.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QuantizeOptions {
    /// `None`: `q8_0`, but experts that are stored in eight bits or less stay as they are.
    pub quant: Option<QuantChoice>,
    /// Weights of one file, in bytes; at least one tensor.
    pub max_file_bytes: u64,
}

impl Default for QuantizeOptions {
    fn default() -> Self {
        QuantizeOptions { quant: None, max_file_bytes: 4 << 30 }
    }
}

/// What was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Quantized {
    pub quant: QuantChoice,
    /// Names of the formats of the matrices, that of the most bytes first.
    pub formats: Vec<&'static str>,
    pub num_files: usize,
    /// Of all weights.
    pub weight_bytes: u64,
}

/// One tensor to be written.
struct Tensor {
    key: WeightKey,
    quant: Quant,
    rows: usize,
    cols: usize,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        (self.rows * self.quant.row_bytes(self.cols)) as u64
    }
}

/// Writes the model in `directory` to the new directory `out`: the weights packed as [`Checkpoint`] reads them back, and what else a model needs.
///
/// Weights go through in pieces, as they do on their way to a device. `progress` hears the bytes written and the bytes in all; where it returns
/// `false` that is the end. `out` appears when all of it is there, and not before.
///
/// # Errors
/// [`Error::AlreadyPacked`] if the model was written so before, [`Error::Occupied`] if something is at `out`, [`Error::Stopped`]; what
/// reading a checkpoint or writing files can fail with.
pub async fn quantize(
    directory: &Path,
    out: &Path,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Quantized> {
    if gguf::file_of(directory).await?.is_some() {
        return Err(Error::Argument {
            what: "model",
            expected: "a folder in the layout of Hugging Face: a GGUF file is quantised already, and runs as it is".to_owned(),
            found: directory.display().to_string(),
        });
    }
    let checkpoint = ModelFiles::open(directory).await?.weights().await?;
    let spec = checkpoint.spec().clone();
    if let Some(info) = checkpoint.packed_info() {
        return Err(Error::AlreadyPacked { directory: directory.to_owned(), quant: info.quant.clone() });
    }
    let quant = options.quant.unwrap_or_else(|| default_choice(&checkpoint, &spec));
    let store = WeightStore::Checkpoint(checkpoint);
    let new = NewDirectory::prepare(out)?;
    for name in COMPANIONS {
        new.copy(directory, name)?;
    }
    write_weights(new, &store, (quant, options.max_file_bytes), progress).await
}

/// Writes random weights in the shapes that the `config.json` at `config` gives, or of the first `layers` of them, as [`quantize`] writes those
/// of a model. There is no tokenizer: what comes out can be measured, and gives no text.
///
/// # Errors
/// What a config can be wrong about; [`Error::Argument`] for a number of layers that it does not have; as [`quantize`].
pub async fn quantize_synthetic(
    config: &Path,
    layers: Option<usize>,
    out: &Path,
    options: &QuantizeOptions,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Quantized> {
    const NUM_LAYERS: &str = "num_hidden_layers";
    let name = config.display().to_string();
    let mut text = platform::read_text(config).await?;
    if let Some(layers) = layers {
        let mut value = parse_json(&text, &name)?;
        match value.get(NUM_LAYERS).and_then(Value::as_u64) {
            Some(all) if layers > 0 && layers as u64 <= all => value[NUM_LAYERS] = layers.into(),
            Some(all) => {
                let expected = format!("1 to {all}, which the config has");
                return Err(Error::Argument { what: "number of layers", expected, found: layers.to_string() });
            }
            None => {
                let (expected, found) = ("a number, to cut layers off".to_owned(), "nothing".to_owned());
                return Err(Error::Config { file: name, key: NUM_LAYERS.to_owned(), expected, found });
            }
        }
        text = value.to_string();
    }
    let spec = ModelSpec::parse(&text, &name)?;
    let quant = options.quant.unwrap_or_else(|| QuantChoice::all(QuantFormat::find("q8_0").expect("it is one of the formats")));
    let new = NewDirectory::prepare(out)?;
    let mut file = new.create(COMPANIONS[0])?;
    file.write(text.as_bytes())?;
    file.finish()?;
    write_weights(new, &WeightStore::Synthetic(Synthetic::new(&spec)), (quant, options.max_file_bytes), progress).await
}

/// All weights, in as many files as that takes.
async fn write_weights(
    new: NewDirectory,
    store: &WeightStore,
    (quant, max_file_bytes): (QuantChoice, u64),
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Quantized> {
    let spec = store.spec();
    let formats = Formats::of_model(store, spec, quant)?;
    let total_bytes = formats.total_bytes(spec);
    let files = files(&formats, spec, max_file_bytes);
    let mut writer = Writer { store, new: &new, quant, done_bytes: 0, progress: &mut |done| progress(done, total_bytes) };
    let mut weight_map = Map::new();
    for (index, tensors) in files.iter().enumerate() {
        let name = file_name(index, files.len());
        writer.write(&name, tensors).await?;
        weight_map.extend(tensors.iter().map(|tensor| (tensor.key.packed_name(), name.as_str().into())));
    }
    if files.len() > 1 {
        let mut file = new.create(INDEX)?;
        file.write(index(total_bytes, weight_map).as_bytes())?;
        file.finish()?;
    }
    new.commit()?;
    Ok(Quantized { quant, formats: formats.names(spec), num_files: files.len(), weight_bytes: total_bytes })
}

fn default_choice(checkpoint: &Checkpoint, spec: &ModelSpec) -> QuantChoice {
    let q8_0 = QuantChoice::all(QuantFormat::find("q8_0").expect("it is one of the formats"));
    let mut experts = WeightKey::all(spec).filter(|key| key.class() == Some(WeightClass::Experts));
    match experts.next().map(|key| checkpoint.stored_quant(key)) {
        Some(quant) if quant.value_bits <= NARROW_BITS => q8_0.with(WeightClass::Experts, None),
        _ => q8_0,
    }
}

/// The tensors of each file, in the order of use.
fn files(formats: &Formats, spec: &ModelSpec, max_bytes: u64) -> Vec<Vec<Tensor>> {
    let mut files: Vec<Vec<Tensor>> = Vec::new();
    let mut filled = 0;
    for key in WeightKey::all(spec) {
        let (rows, cols) = key.shape(spec);
        let tensor = Tensor { key, quant: formats.of(key), rows, cols };
        if files.is_empty() || filled + tensor.bytes() > max_bytes {
            files.push(Vec::new());
            filled = 0;
        }
        filled += tensor.bytes();
        files.last_mut().expect("the first tensor opens a file").push(tensor);
    }
    files
}

/// Writes one file after the other.
struct Writer<'a> {
    store: &'a WeightStore,
    new: &'a NewDirectory,
    quant: QuantChoice,
    done_bytes: u64,
    progress: &'a mut dyn FnMut(u64) -> bool,
}

impl Writer<'_> {
    async fn write(&mut self, name: &str, tensors: &[Tensor]) -> Result<()> {
        let mut file = self.new.create(name)?;
        file.write(&self.header(tensors))?;
        for Tensor { key, quant, rows, cols } in tensors {
            let rows_per_piece = piece_rows(*cols);
            for first_row in (0..*rows).step_by(rows_per_piece) {
                let end_row = (*rows).min(first_row + rows_per_piece);
                let packed = self.store.packed(*key, first_row..end_row, quant).await?;
                file.write(&packed)?;
                self.done_bytes += packed.len() as u64;
                if !(self.progress)(self.done_bytes) {
                    return Err(Error::Stopped { what: "quantising" });
                }
            }
        }
        file.finish()
    }

    /// What a file begins with.
    fn header(&self, tensors: &[Tensor]) -> Vec<u8> {
        let formats: BTreeMap<String, Quant> = tensors.iter().map(|tensor| (tensor.key.packed_name(), tensor.quant)).collect();
        let declared = tensors.iter().map(|tensor| {
            let (dtype, shape) = packed_shape(tensor.quant, tensor.rows, tensor.cols);
            Declared { name: tensor.key.packed_name(), dtype, shape, bytes: tensor.bytes() }
        });
        header(&metadata(&self.quant.to_string(), &formats), declared)
    }
}
