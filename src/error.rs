//! The one error type of the library.
//!
//! Every message says what was attempted, what was expected and what was found; [`Error::hint`] says what to do next.

mod page;

use std::io::ErrorKind;
use std::path::PathBuf;

/// The result type of every fallible function in this library.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Everything that can go wrong between a checkpoint on disk and a token on screen.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io { action: &'static str, path: PathBuf, source: std::io::Error },

    /// A file that weights are still read from is not what it was when it was opened.
    #[error("{file} has changed since the model was opened: {found}")]
    SourceChanged { file: String, found: String },

    /// A file that a model needs is not in its directory.
    #[error("{} has no {file}", directory.display())]
    MissingFile { directory: PathBuf, file: &'static str },

    /// An index names a file that is not there.
    #[error("{} has no {shard}, which {index} names", directory.display())]
    MissingShard { directory: PathBuf, index: &'static str, shard: String },

    /// A JSON file is not JSON, or not the kind of JSON it has to be.
    #[error("{file} cannot be parsed: {message}")]
    Json { file: String, message: String },

    /// A key of `config.json` has a value that no model can have.
    #[error("{file}: `{key}` must be {expected}, found {found}")]
    Config { file: String, key: String, expected: String, found: String },

    /// `model_type` names an architecture that this version does not know.
    #[error("unknown model_type `{model_type}`; known: {}", known.join(", "))]
    UnknownArchitecture { model_type: String, known: Vec<&'static str> },

    /// `model_type` names a model without experts.
    #[error("`{model_type}` is a dense model: Moebius runs Mixture-of-Experts models, and this one has no experts")]
    Dense { model_type: String },

    /// `model_type` names a model with experts that this version cannot run.
    #[error("`{model_type}` cannot be run yet: {reason}")]
    NotYet { model_type: String, reason: &'static str },

    /// The config says that the weights are in a format that is not read.
    #[error("config.json: the weights are quantised with {method}, as `{key}` says, and this format is not read")]
    ForeignQuantization { key: &'static str, method: String },

    /// A directory holds a model in another layout than that of transformers.
    #[error("{} has no {missing}; it has `{found}`: {what}", directory.display())]
    ForeignLayout { directory: PathBuf, missing: &'static str, found: String, what: &'static str },

    /// The checkpoint holds more than the config uses: whole layers or experts.
    #[error("config.json cuts the model: {found}, but {expected}")]
    CutModel { expected: String, found: String, key: &'static str },

    /// A model can be run, but a part of it has no gradient here.
    #[error("{family} cannot be trained: it has {part}, and there are no gradients for that")]
    NotTrained { family: &'static str, part: &'static str },

    /// A safetensors file contradicts itself.
    #[error("{file} is not a valid safetensors file: {problem}")]
    Safetensors { file: String, problem: String },

    /// A GGUF file contradicts itself, or says what no model can be.
    #[error("{file} cannot be read as GGUF: {problem}")]
    Gguf { file: String, problem: String },

    /// A checkpoint of `moebius quantize` in a layout that this version does not know.
    #[error("{file} is in version {found} of the layout of `moebius quantize`; known: {known}")]
    PackedVersion { file: String, found: String, known: u32 },

    /// Weights that were quantised before are to be quantised again.
    #[error("{} is already quantised ({quant})", directory.display())]
    AlreadyPacked { directory: PathBuf, quant: String },

    /// Something is where a new directory is to be.
    #[error("cannot write {}: expected nothing or an empty directory, found {found}", path.display())]
    Occupied { path: PathBuf, found: &'static str },

    /// The caller wanted no more.
    #[error("{what} was stopped")]
    Stopped { what: &'static str },

    /// Tensors that the architecture needs are not in the checkpoint.
    #[error("the checkpoint lacks {} of {expected} tensors: {}", missing.len(), list_some(missing))]
    MissingTensors { missing: Vec<String>, expected: usize },

    /// A tensor is there, but not in the shape that `config.json` implies.
    #[error("tensor `{name}`: expected shape {expected:?}, found {found:?}")]
    TensorShape { name: String, expected: Vec<usize>, found: Vec<usize> },

    /// A tensor is stored in a number format that this version does not read.
    #[error("tensor `{name}`: expected one of {expected}, found {found}")]
    TensorDtype { name: String, expected: &'static str, found: String },

    /// A tensor holds what no weight can be.
    #[error("tensor `{name}`: element {index} is not a number")]
    NotANumber { name: String, index: u64 },

    /// The tokenizer is missing, damaged, or of an unsupported kind.
    #[error("tokenizer: {problem}")]
    Tokenizer { problem: String, hint: Option<String> },

    /// The chat template of the checkpoint does not compile or does not run.
    #[error("chat template: {problem}")]
    ChatTemplate { problem: String },

    /// The model, or the device, computes what is no number, or what no router does.
    #[error("{what}: it begins in {place}")]
    Nonsense { what: &'static str, place: String },

    /// An argument of the caller is out of range.
    #[error("{what}: expected {expected}, found {found}")]
    Argument { what: &'static str, expected: String, found: String },

    /// What `moebius tune` found cannot be used.
    #[error("{file} is not what `moebius tune` writes: {problem}")]
    Tuning { file: String, problem: String },

    /// A line of a trace is not what it has to be.
    #[error("{file}, line {line}: {problem}")]
    Trace { file: String, line: usize, problem: String },

    /// The prompt and the tokens to come do not fit in the context.
    #[error("the prompt has {found} tokens, but the context holds {limit}")]
    PromptTooLong {
        found: usize,
        limit: usize,
        /// What the model was made for.
        longest: usize,
    },

    /// A model could not be fetched from the hub.
    #[error("cannot download {what}: {message}")]
    Download { what: String, message: String, hint: Option<&'static str> },

    /// No adapter answered, or none of the asked-for kind.
    #[error("{}", no_adapter(wanted, found))]
    NoAdapter { wanted: String, found: Vec<String> },

    /// The model does not fit on the device.
    #[error(
        "{what} needs {} on {device}, which offers {}",
        human_bytes(*needed_bytes),
        available_bytes.map_or_else(|| "less".to_owned(), human_bytes)
    )]
    OutOfMemory { what: String, device: String, needed_bytes: u64, available_bytes: Option<u64> },

    /// Experts would have fewer slots than one token needs.
    #[error(
        "an expert memory of {given} holds {slots} of the {experts} experts of layer {layer}, but a token uses {least_slots}: at least {enough} is needed"
    )]
    ExpertMemory { given: String, layer: usize, slots: usize, experts: usize, least_slots: usize, enough: String },

    /// The device offers less than the smallest variant of a kernel needs.
    #[error("{what} needs {expected}, but {device} offers {found}")]
    DeviceLimit { what: String, device: String, expected: String, found: String },

    /// The GPU, its driver or its shader compiler reported an error.
    #[error("{attempted} failed on the GPU: {message}")]
    Gpu { attempted: String, message: String },

    /// The device went away: unplugged, reset by the driver, or out of patience.
    #[error("the GPU device was lost while {attempted}: {reason}")]
    DeviceLost { attempted: String, reason: String },
}

impl Error {
    /// The next step for the person who sees this error, where there is one.
    pub fn hint(&self) -> Option<String> {
        match self {
            Error::Tokenizer { hint, .. } => hint.clone(),
            Error::ChatTemplate { .. } => {
                Some(
                    "mend the model's template (chat_template.jinja, or chat_template in tokenizer_config.json), or continue a text of your own \
                     with `moebius run`; where the template refuses something, leave that out"
                        .to_owned(),
                )
            }
            Error::Io { source, .. } if source.kind() == ErrorKind::InvalidData => {
                Some("the file has to be a text in UTF-8: save it as that, for example with `iconv -f UTF-16 -t UTF-8`".to_owned())
            }
            Error::SourceChanged { .. } => Some("load the model again, and leave its files alone as long as it runs".to_owned()),
            Error::Io { action, .. } if action.contains("an expert") => {
                Some("the text so far is right, and the next token tries again; is the disk still there?".to_owned())
            }
            Error::Io { action, source, .. } if action.contains("cache") && is_refused(source.kind()) => {
                Some("HF_HOME names another folder for models, XDG_CACHE_HOME one for all caches".to_owned())
            }
            Error::Config { key, found, .. } if key == "model_type" && found == "nothing" => Some(
                "a config.json names the architecture there; is this the whole file, of a model in the layout of Hugging Face?".to_owned(),
            ),
            Error::Json { file, .. } if file.ends_with("generation_config.json") => {
                Some("the file is cut or damaged: fetch it again, or delete it and go without its defaults for sampling".to_owned())
            }
            Error::Json { .. } => Some("the file is cut or damaged: fetch it again".to_owned()),
            Error::MissingFile { file, .. } if *file == "config.json" => {
                Some("a model is a directory in Hugging Face layout, or a hub id such as org/name".to_owned())
            }
            Error::MissingShard { .. } => Some("fetch the whole checkpoint: some of its files are missing".to_owned()),
            Error::Safetensors { .. } | Error::Gguf { .. } => {
                Some("the file is damaged or was downloaded only in part: fetch it again and compare its size".to_owned())
            }
            Error::PackedVersion { .. } => Some("use a newer moebius, or quantise the original again with this one".to_owned()),
            Error::Occupied { .. } => Some("name a directory that is not there yet".to_owned()),
            Error::AlreadyPacked { .. } => Some("quantise the original checkpoint: what is lost once does not come back".to_owned()),
            Error::MissingTensors { missing, .. } if missing.iter().all(|name| name.ends_with("lm_head.weight")) => Some(
                "where the embedding serves as the head, config.json says `\"tie_word_embeddings\": true`; is that key missing or wrong?"
                    .to_owned(),
            ),
            Error::MissingTensors { .. } => {
                Some("compare num_hidden_layers and the expert count in config.json with the files; is a shard missing?".to_owned())
            }
            Error::TensorShape { .. } => Some("config.json and the weights belong to different models".to_owned()),
            Error::NotANumber { .. } => Some("the file is damaged: fetch it again, or ask whoever quantised it".to_owned()),
            Error::CutModel { key, .. } => {
                Some(format!("correct config.json, or add `\"{key}\": true` to it to run the model without the rest"))
            }
            Error::ForeignQuantization { .. } => Some(
                "take the repository without quantised weights and quantise while loading (--quant q4_0); of quantised ones MXFP4 \
                 (gpt-oss) and FP8 in blocks (DeepSeek-V3, Qwen3-FP8) are read as they are"
                    .to_owned(),
            ),
            Error::Dense { .. } | Error::NotYet { .. } => Some("`moebius list archs` prints what can be run".to_owned()),
            Error::Nonsense { .. } => Some(
                "a weight there is not a number, or so large that the result overflows; if `--device cpu` computes well, it is the device: `moebius check` \
                 compares its kernels with their references. MOEBIUS_UNCHECKED_RESULTS=1 goes on all the same"
                    .to_owned(),
            ),
            Error::UnknownArchitecture { .. } => Some("`moebius list archs` prints what each one covers".to_owned()),
            Error::PromptTooLong { limit, longest, .. } if limit < longest => {
                Some(format!("shorten the prompt, or raise --ctx: this model takes up to {longest}"))
            }
            Error::PromptTooLong { longest, .. } => Some(format!("shorten the prompt: this model takes no more than {longest}")),
            Error::Tuning { .. } => Some("delete it and tune again, or set MOEBIUS_TUNING=off to leave it aside".to_owned()),
            Error::Trace { .. } => Some("`moebius trace MODEL --out FILE` writes such files".to_owned()),
            Error::NoAdapter { wanted, found } if wanted == "gpu" && !found.is_empty() => Some(
                "leave --device out, or name one of `moebius devices`, to compute on that; a GPU shows once the driver of its maker is installed".to_owned(),
            ),
            Error::NoAdapter { found, .. } if !found.is_empty() => {
                Some("name one of `moebius devices`, or use --device cpu for the reference".to_owned())
            }
            Error::NoAdapter { .. } => Some(
                "install a Vulkan driver (Debian/Ubuntu: apt install mesa-vulkan-drivers), see `moebius devices`, or use --device cpu"
                    .to_owned(),
            ),
            Error::OutOfMemory { .. } => {
                Some("use a smaller --quant or --ctx, another --device, or --device cpu for the reference".to_owned())
            }
            Error::ExpertMemory { .. } => {
                Some("give twice that or more: with less, hardly an expert stays until it is used again".to_owned())
            }
            Error::DeviceLimit { .. } => Some("choose another --device, or --device cpu for the reference".to_owned()),
            Error::DeviceLost { .. } => Some("load the model again; the tokens so far are a prompt to continue from".to_owned()),
            Error::Download { hint, .. } => hint.map(str::to_owned),
            _ => None,
        }
    }

    /// Wraps an I/O error with what was being done to which file.
    pub fn io(action: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Error::Io { action, path, source }
    }
}

/// The name that was probably meant by `word`: two letters may be other ones, or it may be cut short. Case does not matter.
pub fn nearest<'n>(word: &str, names: impl Iterator<Item = &'n str>) -> Option<&'n str> {
    const MOST: usize = 2;
    let word = word.to_lowercase();
    let distance = |name: &str| {
        let name = name.to_lowercase();
        if !word.is_empty() && name.starts_with(&word) { 0 } else { strsim::osa_distance(&name, &word) }
    };
    let nearest = names.min_by_key(|name| distance(name))?;
    (distance(nearest) <= MOST.min(word.chars().count() / 2)).then_some(nearest)
}

/// Whether somebody may not write there.
fn is_refused(kind: ErrorKind) -> bool {
    matches!(kind, ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotADirectory)
}

fn no_adapter(wanted: &str, found: &[String]) -> String {
    match (wanted, found) {
        (_, []) => format!("no GPU adapter matches `{wanted}`; found: none"),
        ("gpu", found) => format!("there is no GPU here, only software: {}", found.join(", ")),
        (_, found) => format!("no GPU adapter matches `{wanted}`; found: {}", found.join(", ")),
    }
}

/// Up to four names, then how many more there are.
fn list_some(names: &[String]) -> String {
    const SHOWN: usize = 4;
    let mut text = names.iter().take(SHOWN).map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" and {} more", names.len() - SHOWN));
    }
    text
}

/// A byte count in the unit that leaves one to four digits before the point: `12.3 GiB`.
pub fn human_bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}
