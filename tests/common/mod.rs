//! What several tests need.

mod allocations;
mod gguf_file;
mod golden;
mod gpu;
pub mod hub_server;
mod spoiled;
mod terminal;
mod tiny_checkpoint;
mod trained;

pub use allocations::largest_allocation;
pub use gguf_file::{GgufFile, GgufValue};
pub use golden::{FIXTURES, Golden, LOGITS_WITHIN, ids, max_difference};
pub use gpu::{gpu_device, gpu_device_with, required};
pub use spoiled::spoiled;
pub use terminal::{lines, on_terminal};
pub use tiny_checkpoint::{TinyCheckpoint, TinyTensor};
pub use trained::{TrainedRun, steps_of, tensor, trainer_on};

use moebius::checkpoint::Checkpoint;
use moebius::spec::ModelSpec;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// A path under `tests/golden`.
pub fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

/// The model that comes with the project.
pub fn demo_model() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/models/demo")
}

/// Every model directory in the repository.
pub fn all_models() -> Vec<PathBuf> {
    FIXTURES.iter().map(|name| golden("fixtures").join(name)).chain([demo_model()]).collect()
}

/// A copy of a fixture that a test may change.
pub fn copy_of(fixture: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(golden("fixtures").join(fixture)).unwrap() {
        let path = entry.unwrap().path();
        if !path.file_name().unwrap().to_str().unwrap().starts_with("expected") {
            std::fs::copy(&path, copy.path().join(path.file_name().unwrap())).unwrap();
        }
    }
    copy
}

/// Changes keys of a JSON file; null removes one.
pub fn change_json(path: &Path, changes: &[(&str, Value)]) {
    let mut json: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    for (key, value) in changes {
        json[*key] = value.clone();
    }
    std::fs::write(path, json.to_string()).unwrap();
}

/// The spec of the model in `directory`.
pub fn spec_of(directory: &Path) -> ModelSpec {
    let text = pollster::block_on(moebius::platform::read_model_text(directory, "config.json")).unwrap();
    ModelSpec::parse(&text, "config.json").unwrap()
}

pub fn open(directory: &Path, spec: &ModelSpec) -> moebius::Result<Checkpoint> {
    pollster::block_on(Checkpoint::open(directory, spec))
}

/// A small valid `config.json`, with some keys replaced; null removes one.
pub fn config_with(changes: &[(&str, Value)]) -> String {
    let mut config = serde_json::json!({
        "model_type": "mixtral",
        "hidden_size": 8,
        "intermediate_size": 6,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "head_dim": 4,
        "num_local_experts": 3,
        "num_experts_per_tok": 2,
        "vocab_size": 10,
        "max_position_embeddings": 64,
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e6,
        "sliding_window": null,
        "tie_word_embeddings": false,
    });
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    config.to_string()
}

/// The spec of [`config_with`] and no changes.
pub fn tiny_spec() -> ModelSpec {
    ModelSpec::parse(&config_with(&[]), "config.json").unwrap()
}

/// Whether there is an adapter to test on. A missing one is a failure where `REQUIRE_GPU` is set, as it is in CI.
pub fn gpu_or_skip() -> bool {
    let found = !pollster::block_on(moebius::gpu::list_adapters()).is_empty();
    let required = std::env::var("REQUIRE_GPU").is_ok_and(|value| value == "1");
    assert!(found || !required, "REQUIRE_GPU=1, but no adapter was found");
    if !found {
        eprintln!("skipped: no adapter");
    }
    found
}
