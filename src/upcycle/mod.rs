//! A dense model made into one with experts, from file to file: *upcycling*.
//!
//! What is not an MLP is copied. Of the MLP of each layer experts are made, as a [`Construction`] says, and a router is drawn. Some constructions
//! compute at first exactly what the dense model computes; training tells the experts apart.

mod config;
mod construct;

pub use construct::{Construction, Draw, Matrix, Mlp, Selection, Shape};

use crate::checkpoint::{Checkpoint, Declared, INDEX, ModelFiles, file_name, gguf, header, index, scatter};
use crate::error::{Error, Result};
use crate::platform::{NewDirectory, NewFile, read_model_text};
use crate::quant::QuantFormat;
use crate::spec::{MlpSpec, ModelSpec, Role, Scope, WeightKey, parse_json};
use crate::tensor::Dtype;
use serde_json::Map;
use std::collections::BTreeMap;
use std::path::Path;

/// What a model has beside config and weights, as far as it is there.
const COMPANIONS: &[&str] = &[
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
    "special_tokens_map.json",
    "added_tokens.json",
    "LICENSE",
    "LICENSE.txt",
];

/// What was written.
#[derive(Debug, Clone, PartialEq)]
pub struct Upcycled {
    pub dense: ModelSpec,
    pub spec: ModelSpec,
    pub dtype: Dtype,
    pub num_files: usize,
    pub weight_bytes: u64,
}

/// Makes the model in `directory` into one with experts, in the new directory `out`, a layer in memory at a time.
///
/// `dtype` is that of the new weights; without it that of the dense model's, or f32 where those are quantised. `progress` hears the bytes written and
/// the bytes in all; where it returns `false` that is the end. `out` appears when all of it is there, and not before.
///
/// # Errors
/// [`Error::Argument`] for a model or a shape that cannot be upcycled, [`Error::Occupied`] if something is at `out`, [`Error::Stopped`]; what reading
/// a checkpoint or writing files can fail with.
pub async fn upcycle(
    directory: &Path,
    out: &Path,
    options: &Options,
    progress: &mut dyn FnMut(u64, u64) -> bool,
) -> Result<Upcycled> {
    let shape = &options.shape;
    if gguf::file_of(directory).await?.is_some() {
        let expected =
            "a folder in the layout of Hugging Face, since the new model's config is made of its config.json".to_owned();
        return Err(Error::Argument { what: "model to upcycle", expected, found: directory.display().to_string() });
    }
    let files = ModelFiles::open(directory).await?;
    let mlp = config::mlp_of(files.spec())?;
    shape.check(mlp.intermediate_size)?;
    let checkpoint = files.weights().await?;
    let dense = checkpoint.spec().clone();
    let dtype = options.dtype.unwrap_or_else(|| dtype_of(&checkpoint));
    let text = read_model_text(directory, CONFIG).await?;
    let (config, spec) = config::upcycled(&parse_json(&text, CONFIG)?, &dense, shape, dtype)?;

    let new = NewDirectory::prepare(out)?;
    for name in COMPANIONS {
        new.copy(directory, name)?;
    }
    write_text(&new, CONFIG, &format!("{config:#}\n"))?;
    let source = Source { checkpoint: &checkpoint, spec: &spec, mlp, shape };
    let plan = Plan::new(&spec, dtype, options.max_file_bytes);
    let weight_bytes = plan.bytes();
    plan.write(&new, &source, &mut |done| progress(done, weight_bytes)).await?;
    let num_files = plan.files.len();
    new.commit()?;
    Ok(Upcycled { dense, spec, dtype, num_files, weight_bytes })
}

const CONFIG: &str = "config.json";

/// What to make, and how to write it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    pub shape: Shape,
    /// `None`: that of the dense model.
    pub dtype: Option<Dtype>,
    /// Weights of one file, in bytes; at least those of a layer.
    pub max_file_bytes: u64,
}

/// That of the first matrix.
fn dtype_of(checkpoint: &Checkpoint) -> Dtype {
    let key = WeightKey::all(checkpoint.spec()).find(|key| key.role == Role::DenseGateUp);
    let stored = key.map(|key| checkpoint.stored_quant(key));
    Dtype::ALL.into_iter().find(|dtype| stored == Some(QuantFormat::exact_for(*dtype))).unwrap_or(Dtype::F32)
}

fn write_text(new: &NewDirectory, name: &str, text: &str) -> Result<()> {
    let mut file = new.create(name)?;
    file.write(text.as_bytes())?;
    file.finish()
}

/// Tensors that are made together: those of a layer, or those that the model has once.
struct Group {
    keys: Vec<WeightKey>,
    /// Shapes by name, in the order of the file.
    tensors: BTreeMap<String, Vec<usize>>,
}

/// Which groups go to which file.
struct Plan {
    files: Vec<Vec<Group>>,
    dtype: Dtype,
}

impl Plan {
    fn new(spec: &ModelSpec, dtype: Dtype, max_file_bytes: u64) -> Self {
        let mut groups: BTreeMap<Option<usize>, Vec<WeightKey>> = BTreeMap::new();
        for key in WeightKey::all(spec) {
            let layer = (key.role.facts().scope != Scope::Model).then_some(key.layer);
            groups.entry(layer).or_default().push(key);
        }
        let (mut files, mut filled): (Vec<Vec<Group>>, u64) = (Vec::new(), 0);
        for keys in groups.into_values() {
            let tensors = Checkpoint::required_for(spec, keys.iter().copied());
            let bytes: u64 = tensors.values().map(|shape| bytes_of(shape, dtype)).sum();
            if files.is_empty() || filled + bytes > max_file_bytes {
                files.push(Vec::new());
                filled = 0;
            }
            filled += bytes;
            files.last_mut().expect("the first group opens a file").push(Group { keys, tensors });
        }
        Plan { files, dtype }
    }

    fn bytes(&self) -> u64 {
        let tensors = self.files.iter().flatten().flat_map(|group| group.tensors.values());
        tensors.map(|shape| bytes_of(shape, self.dtype)).sum()
    }

    async fn write(&self, new: &NewDirectory, source: &Source<'_>, progress: &mut dyn FnMut(u64) -> bool) -> Result<()> {
        let (mut file_of, mut done) = (Map::new(), 0);
        for (number, groups) in self.files.iter().enumerate() {
            let name = file_name(number, self.files.len());
            let mut file = new.create(&name)?;
            file.write(&self.header(groups))?;
            for group in groups {
                file_of.extend(group.tensors.keys().map(|tensor| (tensor.clone(), name.as_str().into())));
                done += self.write_group(&mut file, source, group).await?;
                if !progress(done) {
                    return Err(Error::Stopped { what: "upcycling" });
                }
            }
            file.finish()?;
        }
        if self.files.len() > 1 {
            write_text(new, INDEX, &index(self.bytes(), file_of))?;
        }
        Ok(())
    }

    fn header(&self, groups: &[Group]) -> Vec<u8> {
        let dtype = match self.dtype {
            Dtype::F32 => safetensors::Dtype::F32,
            Dtype::F16 => safetensors::Dtype::F16,
            Dtype::Bf16 => safetensors::Dtype::BF16,
        };
        let declared = groups.iter().flat_map(|group| &group.tensors).map(|(name, shape)| Declared {
            name: name.clone(),
            dtype,
            shape: shape.clone(),
            bytes: bytes_of(shape, self.dtype),
        });
        // As the library transformers wants it.
        header(&BTreeMap::from([("format".to_owned(), "pt".to_owned())]), declared)
    }

    /// Bytes written.
    async fn write_group(&self, file: &mut NewFile, source: &Source<'_>, group: &Group) -> Result<u64> {
        let mut weights = source.weights(&group.keys).await?;
        let tensors = scatter(source.spec, group.keys.iter().copied(), &mut |key| weights.remove(&key).unwrap_or_default())?;
        let mut written = 0;
        for tensor in tensors.values() {
            let bytes = self.dtype.narrow(&tensor.values);
            file.write(&bytes)?;
            written += bytes.len() as u64;
        }
        Ok(written)
    }
}

fn bytes_of(shape: &[usize], dtype: Dtype) -> u64 {
    (shape.iter().product::<usize>() * dtype.size_bytes()) as u64
}

/// Where the weights of the new model come from.
struct Source<'a> {
    checkpoint: &'a Checkpoint,
    /// Of the new model.
    spec: &'a ModelSpec,
    mlp: MlpSpec,
    shape: &'a Shape,
}

impl Source<'_> {
    /// Weights of the new model, which are those of one layer or of none.
    async fn weights(&self, keys: &[WeightKey]) -> Result<BTreeMap<WeightKey, Vec<f32>>> {
        let mut weights = BTreeMap::new();
        for key in keys {
            match key.role {
                Role::Router => {
                    weights.insert(*key, self.shape.router(key.layer, self.spec.hidden_size));
                }
                // Made of the dense MLP, all experts at once.
                Role::ExpertGateUp | Role::ExpertDown => {}
                _ => {
                    weights.insert(*key, self.read(*key).await?);
                }
            }
        }
        if let Some(key) = keys.iter().find(|key| key.role == Role::ExpertGateUp) {
            for (expert, made) in self.experts(key.layer).await?.into_iter().enumerate() {
                weights.insert(WeightKey { expert, ..*key }, made.gate_up);
                weights.insert(WeightKey { expert, role: Role::ExpertDown, ..*key }, made.down);
            }
        }
        Ok(weights)
    }

    async fn experts(&self, layer: usize) -> Result<Vec<Mlp>> {
        let of_dense = |role| WeightKey { role, layer, expert: 0 };
        let dense = Mlp {
            hidden_size: self.spec.hidden_size,
            gate_up: self.read(of_dense(Role::DenseGateUp)).await?,
            down: self.read(of_dense(Role::DenseDown)).await?,
        };
        let selections = self.shape.selections(layer, self.mlp.intermediate_size);
        let made = selections
            .iter()
            .enumerate()
            .map(|(expert, selection)| dense.expert(selection, &|draw| self.shape.draw(layer, expert, draw)));
        Ok(made.collect())
    }

    async fn read(&self, key: WeightKey) -> Result<Vec<f32>> {
        let (rows, _) = key.shape(self.checkpoint.spec());
        Ok(self.checkpoint.read(key, 0..rows).await?.values)
    }
}
