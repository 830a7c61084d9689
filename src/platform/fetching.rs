//! What is told while a model is fetched.

use super::ByteSource;

/// What is known of a model before its weights are fetched.
#[derive(Debug)]
pub enum Preview<'a> {
    /// The text of its `config.json`.
    Config(&'a str),
    /// All parts of a GGUF file, of which only what is read is fetched.
    Gguf(Vec<ByteSource>),
}

/// One step on the way of a model's files to this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fetching {
    /// The model is not whole on this machine, so the hub at this address is asked for it.
    Asking { endpoint: String },
    /// A file is arriving. `received_bytes` counts those of earlier attempts, and `total_bytes` is `None` where the server does not say.
    File { file: String, received_bytes: u64, total_bytes: Option<u64> },
    /// No bytes come for now, for this reason.
    Waiting { reason: String },
}
