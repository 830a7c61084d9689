//! What loading takes: a checkpoint of some hundred megabytes goes through the host in pieces.

use crate::common::{golden, gpu_or_skip};
use serde_json::{Value, json};
use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::Path;
use std::process::Command;

const LAYERS: usize = 6;
const EXPERTS: usize = 8;
const HIDDEN: usize = 1024;
const INNER: usize = 1792;
const KV: usize = 256;

/// Peak memory of the host over the bytes of the weights.
const AT_MOST: f64 = 1.3;

/// Bytes of random values of either sign, with magnitudes from 2^-9 to 2^-5.
fn random_bf16(len: usize) -> Vec<u8> {
    let mut state = 1u32;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        ((state & 0x8000) as u16 | (0x3b00 + (state >> 16) % 0x200) as u16).to_le_bytes()
    };
    (0..len).flat_map(next).collect()
}

/// Writes one shard of bf16 tensors with random values.
fn write_shard(path: &Path, tensors: &[(String, Vec<usize>)]) {
    let mut header = serde_json::Map::new();
    let mut start = 0;
    for (name, shape) in tensors {
        let end = start + 2 * shape.iter().product::<usize>();
        header.insert(name.clone(), json!({ "dtype": "BF16", "shape": shape, "data_offsets": [start, end] }));
        start = end;
    }
    let header = Value::Object(header).to_string();
    let mut file = BufWriter::new(File::create(path).unwrap());
    file.write_all(&(header.len() as u64).to_le_bytes()).unwrap();
    file.write_all(header.as_bytes()).unwrap();
    let values = random_bf16(1 << 20);
    for piece in (0..start).step_by(values.len()) {
        file.write_all(&values[..values.len().min(start - piece)]).unwrap();
    }
    file.flush().unwrap();
}

/// A Mixtral of 280 million parameters, a shard per layer and one for the rest. Returns the bytes of all shards.
fn write_model(directory: &Path) -> u64 {
    let fixture = golden("fixtures/mixtral");
    fs::copy(fixture.join("tokenizer.json"), directory.join("tokenizer.json")).unwrap();
    let mut config: Value = serde_json::from_str(&fs::read_to_string(fixture.join("config.json")).unwrap()).unwrap();
    let sizes = [("hidden_size", HIDDEN), ("intermediate_size", INNER), ("num_hidden_layers", LAYERS), ("head_dim", 64)];
    let counts = [("num_local_experts", EXPERTS), ("num_attention_heads", HIDDEN / 64), ("num_key_value_heads", KV / 64)];
    for (key, value) in sizes.into_iter().chain(counts) {
        assert!(config[key].is_u64() || key == "head_dim", "{key}");
        config[key] = value.into();
    }
    fs::write(directory.join("config.json"), config.to_string()).unwrap();
    let vocab = config["vocab_size"].as_u64().unwrap() as usize;

    let mut weight_map = serde_json::Map::new();
    let mut write = |index: usize, tensors: Vec<(String, Vec<usize>)>| {
        let name = format!("model-{:05}-of-{:05}.safetensors", index + 1, LAYERS + 1);
        write_shard(&directory.join(&name), &tensors);
        weight_map.extend(tensors.into_iter().map(|(tensor, _)| (tensor, name.clone().into())));
        fs::metadata(directory.join(&name)).unwrap().len()
    };
    let mut bytes = 0;
    for layer in 0..LAYERS {
        let of_layer = |name: &str, shape: &[usize]| (format!("model.layers.{layer}.{name}.weight"), shape.to_vec());
        let mut tensors = vec![
            of_layer("input_layernorm", &[HIDDEN]),
            of_layer("self_attn.q_proj", &[HIDDEN, HIDDEN]),
            of_layer("self_attn.k_proj", &[KV, HIDDEN]),
            of_layer("self_attn.v_proj", &[KV, HIDDEN]),
            of_layer("self_attn.o_proj", &[HIDDEN, HIDDEN]),
            of_layer("post_attention_layernorm", &[HIDDEN]),
            of_layer("block_sparse_moe.gate", &[EXPERTS, HIDDEN]),
        ];
        for expert in 0..EXPERTS {
            for (name, shape) in [("w1", [INNER, HIDDEN]), ("w2", [HIDDEN, INNER]), ("w3", [INNER, HIDDEN])] {
                tensors.push(of_layer(&format!("block_sparse_moe.experts.{expert}.{name}"), &shape));
            }
        }
        bytes += write(layer, tensors);
    }
    let rest = [("model.embed_tokens", vec![vocab, HIDDEN]), ("model.norm", vec![HIDDEN]), ("lm_head", vec![vocab, HIDDEN])];
    bytes += write(LAYERS, rest.map(|(name, shape)| (format!("{name}.weight"), shape)).to_vec());
    let index = json!({ "metadata": {}, "weight_map": weight_map });
    fs::write(directory.join("model.safetensors.index.json"), index.to_string()).unwrap();
    bytes
}

/// The JSON that a run of the program prints, in a process of its own: memory is counted from its start.
fn moebius(args: &[&str]) -> Value {
    let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(args).env("MOEBIUS_TUNING", "off").output().unwrap();
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn loading_takes_little_more_of_the_host_than_the_weights_themselves() {
    let folder = tempfile::tempdir().unwrap();
    let (model, out, ids) = (folder.path().join("model"), folder.path().join("out"), folder.path().join("ids.json"));
    fs::create_dir(&model).unwrap();
    fs::write(&ids, "[1, 2, 3]").unwrap();
    let stored_bytes = write_model(&model);
    let [model, out, ids] = [&model, &out, &ids].map(|path| path.to_str().unwrap());

    // Quantising holds some pieces, whatever the size of the model.
    let written = moebius(&["quantize", model, out, "--quant", "q4_0", "--file-size", "32", "--json"]);
    let (weights, files) = (written["weight_bytes"].as_u64().unwrap(), written["files"].as_u64().unwrap());
    assert!(stored_bytes > 500_000_000 && files >= 4, "{stored_bytes} {written}");
    if let Some(peak) = written["peak_host_bytes"].as_u64() {
        println!("quantising {stored_bytes} bytes into {weights}: {peak} bytes of the host");
        assert!(peak < stored_bytes / 5, "{peak}");
    }
    if !gpu_or_skip() {
        return;
    }
    let mut texts = Vec::new();
    for (directory, quant) in [(model, "q4_0"), (out, "auto"), (model, "q8_0"), (model, "auto")] {
        let run = moebius(&[
            "run",
            directory,
            "--ids-file",
            ids,
            "-n",
            "4",
            "--temp",
            "0",
            "--ctx",
            "64",
            "--quant",
            quant,
            "--stats",
            "--json",
        ]);
        let memory = &run["stats"]["memory"];
        let bytes = |name: &str| memory[name].as_u64().unwrap();
        assert!(bytes("kv_cache_bytes") > 0 && bytes("activation_bytes") > 0, "{memory}");
        assert!(run["stats"]["compute"]["pipelines"].as_array().unwrap().len() <= 40);
        assert_eq!(memory["kv_cache_format"], if quant == "q4_0" || directory == out { "f16" } else { "f32" });
        if quant == "q4_0" {
            // Four and a half bits of every matrix, and what little stays wider.
            assert!((1.0..1.01).contains(&(bytes("weight_bytes") as f64 / weights as f64)), "{memory} {weights}");
        }
        if memory["peak_host_bytes"].is_u64() {
            let share = bytes("peak_host_bytes") as f64 / bytes("weight_bytes") as f64;
            println!("{directory} {quant}: {share:.3} of {} bytes", bytes("weight_bytes"));
            assert!(share <= AT_MOST, "{quant}: {memory}");
        }
        texts.push(run["ids"].clone());
    }
    assert_eq!(texts[0], texts[1]);
}
