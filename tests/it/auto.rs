//! What `--device auto` stands for where there is only software, for a model whose weights do not fit in f32.

use crate::common::{golden, gpu_or_skip, spec_of};
use moebius::LoadOptions;
use moebius::bench::{ReferenceChoice, may_be_reference};
use moebius::gpu::{DeviceKind, DeviceOptions, list_adapters};
use moebius::spec::Parameters;
use pollster::block_on;
use serde_json::{Map, json};
use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command, Stdio};

/// The shapes of OLMoE, 6.9 billion weights that nobody has written: a file without blocks on disk, which reads as zeros.
fn olmoe(folder: &Path) -> u64 {
    fs::copy(golden("configs/olmoe-1b-7b.json"), folder.join("config.json")).unwrap();
    fs::copy(golden("tokenizers/bytes.json"), folder.join("tokenizer.json")).unwrap();
    let spec = spec_of(folder);
    let (hidden, inner, vocab) = (spec.hidden_size, 1024, spec.vocab_size);
    let mut header = Map::new();
    let mut end = 0;
    let mut add = |name: String, shape: &[usize]| {
        let begin = end;
        end += shape.iter().product::<usize>() as u64 * 2;
        header.insert(name, json!({ "dtype": "BF16", "shape": shape, "data_offsets": [begin, end] }));
    };
    for name in ["model.embed_tokens", "lm_head"] {
        add(format!("{name}.weight"), &[vocab, hidden]);
    }
    add("model.norm.weight".to_owned(), &[hidden]);
    for (layer, moe) in spec.moe_layers() {
        let mut part = |name: &str, shape: &[usize]| add(format!("model.layers.{layer}.{name}.weight"), shape);
        for name in ["input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"] {
            part(name, &[hidden]);
        }
        for name in ["q", "k", "v", "o"] {
            part(&format!("self_attn.{name}_proj"), &[hidden, hidden]);
        }
        part("mlp.gate", &[moe.router.num_experts, hidden]);
        for expert in 0..moe.router.num_experts {
            for (name, shape) in [("gate", [inner, hidden]), ("up", [inner, hidden]), ("down", [hidden, inner])] {
                part(&format!("mlp.experts.{expert}.{name}_proj"), &shape);
            }
        }
    }
    let header = serde_json::to_vec(&header).unwrap();
    let mut file = File::create(folder.join("model.safetensors")).unwrap();
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(&header).unwrap();
    file.set_len(8 + header.len() as u64 + end).unwrap();
    Parameters::of(&spec).total() * 4
}

/// Whether software is all there is.
fn only_software() -> bool {
    gpu_or_skip() && block_on(list_adapters()).first().is_some_and(|best| best.caps.kind == DeviceKind::Software)
}

#[test]
fn a_model_that_does_not_fit_in_f32_stays_on_the_adapter_and_a_line_says_why() {
    if !only_software() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let f32_bytes = olmoe(folder.path());
    let options = LoadOptions { device: DeviceOptions::default(), ..LoadOptions::default() };
    let ReferenceChoice::TooLarge { needed_bytes, room_bytes } = block_on(may_be_reference(folder.path(), &options)).unwrap()
    else {
        println!("skipped: this machine has memory for OLMoE in f32, twice");
        return;
    };
    // The KV cache of 4096 tokens comes on top.
    assert_eq!(needed_bytes, f32_bytes + 16 * 2 * 2048 * 4 * 4096);
    assert!(room_bytes < needed_bytes);

    let mut child = Command::new(env!("CARGO_BIN_EXE_moebius"))
        .args(["run", folder.path().to_str().unwrap(), "a"])
        .env("MOEBIUS_TUNING", folder.path().join("tuning.json"))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines().map(|line| line.unwrap());
    let device = lines.find(|line| line.starts_with("device")).unwrap_or_default();
    // Nobody waits for weights that are none.
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(device.contains("software") && device.contains("in f32, for the reference, the model takes 26."), "{device}");
    assert!(!folder.path().join("devices.json").exists(), "nothing was measured");
}
