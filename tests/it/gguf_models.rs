//! Models in GGUF files as llama.cpp's converter and quantiser make them: the numbers of their weights exactly, on every device.
//!
//! `GGUF_FILES=DIR` tests the files of another folder with the same layout (`scripts/check-gguf.sh`).

use crate::common::{Golden, LOGITS_WITHIN, golden, gpu_or_skip, ids};
use moebius::batch::LayerRouting;
use moebius::bench::Subject;
use moebius::checkpoint::gguf::Gguf;
use moebius::checkpoint::{ModelFiles, RowRun};
use moebius::generate::{GenerateOptions, StopRules};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::quant::QuantFormat;
use moebius::spec::WeightKey;
use moebius::tensor::Dtype;
use moebius::{Engine, LoadOptions};
use pollster::block_on;
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Differences of logits and of log-probabilities that rounding explains, as the files' README says.
const WITHIN: f64 = 2e-3;
const SUM_WITHIN: f64 = 0.05;

fn folder() -> PathBuf {
    std::env::var_os("GGUF_FILES").map_or_else(|| golden("gguf"), PathBuf::from)
}

/// Files of a folder that are whole models or the first part of one, sorted.
fn files(of: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder().join(of)).unwrap().map(|entry| entry.unwrap().path());
    let is_later = |name: &str| name.contains("-of-") && !name.contains("-00001-of-");
    let mut files: Vec<PathBuf> = entries.filter(|path| !is_later(stem(path))).collect();
    files.sort();
    files
}

fn stem(path: &Path) -> &str {
    path.file_stem().unwrap().to_str().unwrap()
}

fn devices() -> Vec<DeviceOptions> {
    let cpu = DeviceOptions { choice: DeviceChoice::Cpu, ..DeviceOptions::default() };
    if gpu_or_skip() { vec![cpu, DeviceOptions::from_env(DeviceChoice::Auto)] } else { vec![cpu] }
}

fn load(path: &Path, device: &DeviceOptions) -> Engine {
    let options = LoadOptions { device: device.clone(), kv_cache: "f32".parse().unwrap(), ..LoadOptions::default() };
    block_on(Engine::load(path, &options, &mut |_| {})).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn greedy(engine: &mut Engine, prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let stop = StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() };
    let options = GenerateOptions { stop, ..GenerateOptions::default() };
    block_on(async {
        let mut generation = engine.generate(prompt, &options).unwrap();
        while generation.next().await.unwrap().is_some() {}
        generation.finish().await.unwrap().ids
    })
}

/// The position from which on a token goes to other experts than expected; `len` where none does.
fn first_other_choice(layers: &[LayerRouting], expected: &Value, len: usize) -> usize {
    let expected = expected.as_object().unwrap();
    assert_eq!(layers.len(), expected.len(), "layers with a router");
    let of_layer = |routing: &LayerRouting| {
        let tokens = expected[&routing.layer.to_string()].as_array().unwrap();
        let per_token = routing.expert_ids.len() / len;
        (0..len).position(|token| {
            let mut found = routing.expert_ids[token * per_token..][..per_token].to_vec();
            let mut wanted = ids(&tokens[token]);
            found.sort_unstable();
            wanted.sort_unstable();
            found != wanted
        })
    };
    layers.iter().filter_map(of_layer).min().unwrap_or(len)
}

fn log_probability(logits: &[f32], token: usize) -> f64 {
    let highest = logits.iter().copied().fold(f32::MIN, f32::max);
    let sum: f64 = logits.iter().map(|logit| f64::from(logit - highest).exp()).sum();
    f64::from(logits[token] - highest) - sum.ln()
}

/// Compares the first `len` positions of a prompt; says the largest difference of a log-probability.
fn compare(name: &str, logits: &[f32], exact: &Value, len: usize, positions: usize) -> f64 {
    let vocabulary = logits.len() / positions;
    let at = |position: usize| &logits[position * vocabulary..][..vocabulary];
    let argmax = ids(&exact["argmax"]);
    for position in 0..len {
        let highest = at(position).iter().copied().fold(f32::MIN, f32::max);
        let found = at(position)[argmax[position] as usize];
        assert!(f64::from(highest - found) <= 2.0 * WITHIN, "{name}: position {position}, another token is best");
        let sum: f64 = at(position).iter().map(|logit| f64::from(*logit)).sum();
        let expected = exact["logit_sum"][position].as_f64().unwrap();
        assert!((sum - expected).abs() <= SUM_WITHIN, "{name}: position {position}, logits add up to {sum}, not {expected}");
    }
    let mut worst: f64 = 0.0;
    for last in exact["last"].as_array().unwrap() {
        let position = last["position"].as_u64().unwrap() as usize;
        if position >= len {
            continue;
        }
        for pair in last["top10"].as_array().unwrap() {
            let (token, expected) = (pair[0].as_u64().unwrap() as usize, pair[1].as_f64().unwrap());
            worst = worst.max((log_probability(at(position), token) - expected).abs());
        }
    }
    assert!(worst <= WITHIN, "{name}: log-probabilities differ by {worst}");
    worst
}

/// Prompts whose experts are never close to another choice.
fn sure_prompts(name: &str) -> usize {
    if ["deepseek_v2_lite", "gpt_oss"].iter().any(|close| name.starts_with(close)) { 1 } else { 2 }
}

#[test]
fn quantised_files_compute_what_their_weights_say() {
    for path in files("quants") {
        let name = stem(&path);
        let text = std::fs::read_to_string(folder().join("expected").join(format!("{name}.json"))).unwrap();
        let expected: Value = serde_json::from_str(&text).unwrap();
        for device in devices() {
            let mut engine = load(&path, &device);
            let mut worst: f64 = 0.0;
            for (index, case) in expected["cases"].as_array().unwrap().iter().enumerate() {
                let (prompt, exact) = (ids(&case["ids"]), &case["exact"]);
                let subject = format!("{name} prompt {index} on {}", engine.device().name);
                let forward = block_on(engine.forward(&prompt)).unwrap();
                let same = first_other_choice(&forward.layers, &exact["experts"], prompt.len());
                if index < sure_prompts(name) {
                    assert_eq!(same, prompt.len(), "{subject}: other experts");
                }
                worst = worst.max(compare(&subject, &forward.logits, exact, same, prompt.len()));
                if same == prompt.len() {
                    let expected = ids(&exact["greedy"]);
                    assert_eq!(greedy(&mut engine, &prompt, expected.len()), expected, "{subject}");
                }
            }
            println!("{name} on {}: {worst:.1e}", engine.device().name);
        }
    }
}

#[test]
fn families_through_gguf_are_those_of_their_checkpoints() {
    for path in files("families") {
        let name: &'static str = stem(&path).trim_end_matches("-bf16").to_owned().leak();
        let golden = Golden::load(name);
        for device in devices() {
            let mut engine = load(&path, &device);
            for (index, prompt) in golden.prompts.iter().enumerate() {
                let forward = block_on(engine.forward(prompt)).unwrap();
                let worst = golden.assert_logits(index, &forward.logits);
                assert!(worst <= LOGITS_WITHIN, "{name} prompt {index}: {worst}");
                golden.assert_routing(index, &forward.layers);
            }
            for (prompt, expected) in &golden.greedy {
                assert_eq!(greedy(&mut engine, &golden.prompts[*prompt], expected.len()), *expected, "{name}");
            }
        }
    }
}

/// What is wrong with a type shows in the numbers that [`quantised_files_compute_what_their_weights_say`] compares.
#[test]
fn one_of_the_files_has_seventeen_types() {
    let gguf = block_on(Gguf::open(&golden("gguf/quants/mixtral2-zoo.gguf"))).unwrap();
    let types: BTreeSet<&str> = gguf.tensors().iter().map(|tensor| tensor.block.name).collect();
    assert_eq!(types.len(), 17, "{types:?}");
    for name in ["IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS"] {
        assert!(types.contains(name), "{name}");
    }
}

/// Whoever names the file of a model in a type that is not read hears which tensor it is.
#[test]
fn types_of_blocks_that_are_not_read_are_refused_by_tensor_before_a_device_is_opened() {
    let mut bytes = std::fs::read(golden("gguf/quants/mixtral-q4_0.gguf")).unwrap();
    let name = b"blk.0.ffn_down_exps.weight";
    let at = bytes.windows(name.len()).position(|window| window == name).unwrap() + name.len();
    // The number of dimensions, three of them, and the type.
    assert_eq!(bytes[at..at + 4], 3u32.to_le_bytes());
    bytes[at + 28..at + 32].copy_from_slice(&36u32.to_le_bytes());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, bytes).unwrap();
    let error = block_on(Engine::load(&path, &LoadOptions::default(), &mut |_| panic!("no device yet")));
    let error = error.unwrap_err().to_string();
    assert!(error.contains("`blk.0.ffn_down_exps.weight`") && error.contains("IQ4_NL_4_4"), "{error}");
}

#[test]
fn a_folder_with_one_model_is_that_model_and_one_with_several_asks_which() {
    let folder = tempfile::tempdir().unwrap();
    let copy = |name: &str| {
        std::fs::copy(golden("gguf/quants").join(name), folder.path().join(name)).unwrap();
    };
    for part in 1..=3 {
        copy(&format!("mixtral-split-q4_0-{part:05}-of-00003.gguf"));
    }
    let spec = |path: &Path| block_on(ModelFiles::open(path)).map(|files| files.spec().clone());
    let of_folder = spec(folder.path()).unwrap();
    assert_eq!(of_folder.family, "mixtral");
    for part in 1..=3 {
        assert_eq!(spec(&folder.path().join(format!("mixtral-split-q4_0-{part:05}-of-00003.gguf"))).unwrap(), of_folder);
    }
    copy("mixtral-q2_k.gguf");
    let error = spec(folder.path()).unwrap_err().to_string();
    assert!(error.contains("one of the 2 GGUF files") && error.contains("mixtral-q2_k.gguf"), "{error}");
    std::fs::remove_file(folder.path().join("mixtral-split-q4_0-00002-of-00003.gguf")).unwrap();
    let error = spec(&folder.path().join("mixtral-split-q4_0-00001-of-00003.gguf")).unwrap_err().to_string();
    assert!(error.contains("mixtral-split-q4_0-00002-of-00003.gguf"), "{error}");
}

/// What `inspect` says before anything is loaded is what is allocated.
#[test]
fn weights_take_as_many_bytes_as_their_types_say() {
    if !gpu_or_skip() {
        return;
    }
    for name in ["mixtral-q8_0", "mixtral-q4_k_m"] {
        let path = golden("gguf/quants").join(format!("{name}.gguf"));
        let engine = load(&path, &DeviceOptions::from_env(DeviceChoice::Auto));
        let store = engine.weights();
        let bytes: u64 = WeightKey::all(engine.spec())
            .map(|key| {
                let (rows, cols) = key.shape(engine.spec());
                let f32 = || vec![RowRun { rows: 0..rows, quant: QuantFormat::exact_for(Dtype::F32) }];
                let runs = key.class().map_or_else(f32, |_| store.stored_runs(key));
                runs.iter().map(|run| (run.rows.len() * run.quant.row_bytes(cols)) as u64).sum::<u64>()
            })
            .sum();
        // The slot of each expert of each router is a number in four bytes.
        let slots: u64 = engine.spec().moe_layers().map(|(_, moe)| 4 * moe.router.num_experts as u64).sum();
        assert_eq!(engine.load_stats().weight_bytes, bytes + slots, "{name}");
        // Rows of 256 columns pad what is narrow; a whole file is hardly larger on the device.
        let file = std::fs::metadata(&path).unwrap().len();
        assert!(bytes < file + file / 4, "{name}: {bytes} of {file}");
    }
}

#[test]
fn a_file_is_measured_and_has_room_for_some_of_its_experts_like_any_model() {
    if !gpu_or_skip() {
        return;
    }
    let path = golden("gguf/quants/mixtral-q4_k_m.gguf");
    let subject = Subject::Checkpoint(path.clone());
    assert!(block_on(subject.sampling()).unwrap().is_greedy());
    let texts = ["all", "50%"].map(|memory| {
        let device = DeviceOptions::from_env(DeviceChoice::Auto);
        let options = LoadOptions { device, expert_memory: memory.parse().unwrap(), ..LoadOptions::default() };
        let mut engine = block_on(Engine::load(&path, &options, &mut |_| {})).unwrap();
        let ids = greedy(&mut engine, &[5, 9, 70], 12);
        (ids, engine.paging().map(|paging| paging.slots.clone()))
    });
    assert_eq!(texts[0].0, texts[1].0);
    assert_eq!(texts.map(|(_, slots)| slots), [None, Some(vec![2])]);
}
