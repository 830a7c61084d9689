//! Dense models made into models with experts: the constructions against stored values, and whole models against what they were made of.

use crate::common::{Golden, demo_model, golden, gpu_or_skip};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::quant::{CacheChoice, CacheFormat};
use moebius::spec::Parameters;
use moebius::tensor::Dtype;
use moebius::upcycle::{Construction, Draw, Matrix, Mlp, Options, Selection, Shape, upcycle};
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use safetensors::SafeTensors;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn shape(construction: Construction, num_experts: usize, num_experts_per_tok: usize) -> Shape {
    Shape { construction, num_experts, num_experts_per_tok, redrawn: 0.5, seed: 7 }
}

fn written(dense: &Path, shape: Shape, dtype: Option<Dtype>, max_file_bytes: u64) -> moebius::Result<(TempDir, PathBuf)> {
    let parent = tempfile::tempdir().unwrap();
    let out = parent.path().join("out");
    let options = Options { shape, dtype, max_file_bytes };
    block_on(upcycle(dense, &out, &options, &mut |done, total| {
        assert!(done > 0 && done <= total);
        true
    }))?;
    Ok((parent, out))
}

/// The tensors of one stored case.
struct Case(Vec<u8>);

impl Case {
    fn load(name: &str) -> Self {
        Case(std::fs::read(golden("gating/upcycle").join(format!("case_{name}.safetensors"))).unwrap())
    }

    fn f32s(&self, name: &str) -> Vec<f32> {
        let mut values = Vec::new();
        Dtype::F32.widen_into(SafeTensors::deserialize(&self.0).unwrap().tensor(name).unwrap().data(), &mut values);
        values
    }

    fn i32s(&self, name: &str) -> Vec<usize> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        let bytes = tensors.tensor(name).unwrap().data().to_vec();
        bytes.as_chunks::<4>().0.iter().map(|bytes| i32::from_le_bytes(*bytes) as usize).collect()
    }

    fn dense(&self) -> Mlp {
        mlp(&self.f32s("gate_proj"), &self.f32s("up_proj"), self.f32s("down_proj"))
    }

    /// Expert `index` of `count`.
    fn expert(&self, index: usize, count: usize) -> Mlp {
        let part = |name: &str| {
            let values = self.f32s(name);
            let len = values.len() / count;
            values[index * len..][..len].to_vec()
        };
        mlp(&part("out.gate_proj"), &part("out.up_proj"), part("out.down_proj"))
    }
}

const HIDDEN: usize = 8;

fn mlp(gate: &[f32], up: &[f32], down: Vec<f32>) -> Mlp {
    let rows = gate.chunks(HIDDEN).zip(up.chunks(HIDDEN));
    Mlp { hidden_size: HIDDEN, gate_up: rows.flat_map(|(gate, up)| [gate, up].concat()).collect(), down }
}

fn nothing_is_drawn(_: Draw) -> f64 {
    panic!("this construction draws no values")
}

fn assert_near(found: &Mlp, expected: &Mlp, about: &str) {
    let pairs = found.gate_up.iter().zip(&expected.gate_up).chain(found.down.iter().zip(&expected.down));
    let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
    assert!(found.gate_up.len() == expected.gate_up.len() && found.down.len() == expected.down.len(), "{about}");
    assert!(worst < 1e-6, "{about}: {worst}");
}

#[test]
fn copies_are_the_stored_ones() {
    let case = Case::load("copy");
    let selections = shape(Construction::Copy, 4, 2).selections(0, 16);
    for (index, selection) in selections.iter().enumerate() {
        assert_near(&case.dense().expert(selection, &nothing_is_drawn), &case.expert(index, 4), "copy");
    }
}

#[test]
fn split_experts_are_the_stored_ones() {
    let case = Case::load("split");
    let labels = case.i32s("label");
    for index in 0..4 {
        let neurons = (0..16).filter(|neuron| labels[*neuron] == index).collect();
        let selection = Selection { neurons, scale: 1.0, redrawn: Vec::new() };
        assert_near(&case.dense().expert(&selection, &nothing_is_drawn), &case.expert(index, 4), "split");
    }
    // Ours: every neuron once, in an order that follows from seed and layer.
    let neurons_of = |layer: usize, seed: u32| -> Vec<usize> {
        let shape = Shape { seed, ..shape(Construction::Split, 4, 2) };
        let selections = shape.selections(layer, 16);
        assert!(selections.iter().all(|selection| selection.scale == 4.0 && selection.neurons.len() == 4));
        selections.into_iter().flat_map(|selection| selection.neurons).collect()
    };
    let drawn = neurons_of(0, 7);
    let mut sorted = drawn.clone();
    sorted.sort_unstable();
    assert_eq!(sorted, (0..16).collect::<Vec<_>>());
    assert!(drawn == neurons_of(0, 7) && drawn != neurons_of(1, 7) && drawn != neurons_of(0, 8));
}

#[test]
fn virtual_groups_are_the_stored_ones_but_for_where_the_factor_is() {
    // Stored with the cube root of the number of shards on each of three matrices, which is not the dense function.
    let case = Case::load("virtual_groups");
    let third = 4f32.cbrt();
    for (index, selection) in shape(Construction::Virtual, 8, 4).selections(0, 16).iter().enumerate() {
        let mut found = case.dense().expert(selection, &nothing_is_drawn);
        found.gate_up.iter_mut().for_each(|value| *value *= third);
        found.down.iter_mut().for_each(|value| *value *= third / 4.0);
        assert_near(&found, &case.expert(index, 8), "virtual");
    }
    // Of two groups of four, each with one row.
    let router = shape(Construction::Virtual, 8, 4).router(0, HIDDEN);
    let rows: Vec<&[f32]> = router.chunks(HIDDEN).collect();
    assert!(rows[1..4].iter().all(|row| *row == rows[0]) && rows[5..8].iter().all(|row| *row == rows[4]) && rows[0] != rows[4]);
}

#[test]
fn redrawn_neurons_are_the_stored_ones() {
    let case = Case::load("drop");
    let (redrawn, count) = (case.i32s("redrawn"), 8);
    let noises = ["noise_gate", "noise_up", "noise_down"].map(|name| case.f32s(name));
    for index in 0..4 {
        let selection = Selection { neurons: (0..16).collect(), scale: 1.0, redrawn: redrawn[index * count..][..count].to_vec() };
        let draw = |draw: Draw| {
            let of_expert = index * count * HIDDEN;
            f64::from(match draw.matrix {
                Matrix::Gate => noises[0][of_expert + draw.neuron * HIDDEN + draw.channel],
                Matrix::Up => noises[1][of_expert + draw.neuron * HIDDEN + draw.channel],
                Matrix::Down => noises[2][of_expert + draw.neuron * HIDDEN + draw.channel],
            })
        };
        assert_near(&case.dense().expert(&selection, &draw), &case.expert(index, 4), "drop");
    }
    let selections = shape(Construction::Drop, 4, 2).selections(0, 16);
    assert!(selections.iter().all(|selection| selection.redrawn.len() == 8));
    assert_ne!(selections[0].redrawn, selections[1].redrawn, "every expert loses other neurons");
}

/// With keys and values in f32: what is compared here are the weights.
fn logits(directory: &Path, device: DeviceChoice, prompt: &[u32]) -> Vec<f32> {
    let kv_cache = CacheChoice::Is(CacheFormat::F32);
    let options = LoadOptions { device: DeviceOptions::from_env(device), kv_cache, ..LoadOptions::default() };
    let mut engine = block_on(Engine::load(directory, &options, &mut |_| {})).unwrap();
    block_on(engine.forward(prompt)).unwrap().logits
}

fn difference(a: &[f32], b: &[f32]) -> f32 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn what_promises_to_compute_the_same_does() {
    // 112 and 96 neurons of an MLP.
    for name in ["llama", "qwen3"] {
        let dense = Golden::load(name);
        let prompt = &dense.prompts[0];
        let mut devices = vec![DeviceChoice::Cpu];
        if gpu_or_skip() {
            devices.push(DeviceChoice::GpuIndex(0));
        }
        let expected: Vec<Vec<f32>> = devices.iter().map(|device| logits(&dense.directory, device.clone(), prompt)).collect();
        let shapes = [
            (Construction::Copy, 4, 2, true),
            (Construction::Virtual, 8, 4, true),
            (Construction::Split, 4, 4, true),
            (Construction::Split, 4, 2, false),
            (Construction::Drop, 4, 2, false),
        ];
        for (construction, experts, per_token, is_equal) in shapes {
            let shape = shape(construction, experts, per_token);
            assert_eq!(shape.keeps_the_function(Dtype::Bf16), is_equal, "{construction:?}");
            let (_parent, out) = written(&dense.directory, shape, None, u64::MAX).unwrap();
            for (device, expected) in devices.iter().zip(&expected) {
                let found = difference(&logits(&out, device.clone(), prompt), expected);
                assert!((found < 1e-4) == is_equal, "{name} {construction:?} on {device:?}: {found}");
            }
        }
    }
}

#[test]
fn an_upcycled_model_is_an_ordinary_checkpoint_in_any_number_of_files() {
    let dense = golden("fixtures/llama");
    let shape = shape(Construction::Drop, 4, 2);
    let (_parent, one) = written(&dense, shape, None, u64::MAX).unwrap();
    let (_parent, several) = written(&dense, shape, None, 1).unwrap();
    assert!(one.join("model.safetensors").exists() && !several.join("model.safetensors").exists());
    assert!(several.join("model.safetensors.index.json").exists() && several.join("tokenizer.json").exists());
    let config: serde_json::Value = serde_json::from_str(&std::fs::read_to_string(one.join("config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "mixtral");
    assert_eq!(config["torch_dtype"], "bfloat16", "as the dense model's");
    let [a, b] = [&one, &several].map(|directory| logits(directory, DeviceChoice::Cpu, &[1, 2, 3]));
    assert_eq!(a, b);
    let (_parent, again) = written(&dense, shape, None, u64::MAX).unwrap();
    let bytes = |directory: &Path| std::fs::read(directory.join("model.safetensors")).unwrap();
    assert!(bytes(&one) == bytes(&again), "the same seed gives the same file");
    let (_parent, other) = written(&dense, Shape { seed: 8, ..shape }, None, u64::MAX).unwrap();
    assert!(bytes(&one) != bytes(&other));
    // Twice the bytes, and the same values but for rounding.
    let (_parent, wide) = written(&dense, shape, Some(Dtype::F32), u64::MAX).unwrap();
    assert!(bytes(&wide).len() > bytes(&one).len() * 19 / 10);
}

#[test]
fn what_cannot_be_upcycled_is_refused_before_anything_is_written() {
    let refused = |dense: &Path, shape: Shape| {
        let parent = tempfile::tempdir().unwrap();
        let out = parent.path().join("new/out");
        let options = Options { shape, dtype: None, max_file_bytes: u64::MAX };
        let error = block_on(upcycle(dense, &out, &options, &mut |_, _| true)).unwrap_err();
        assert!(!parent.path().join("new").exists(), "{error}");
        error.to_string()
    };
    let llama = golden("fixtures/llama");
    let with_experts = refused(&demo_model(), shape(Construction::Copy, 4, 2));
    assert!(with_experts.contains("model to upcycle") && with_experts.contains("llama, qwen3"), "{with_experts}");
    for (shape, expected) in [
        (shape(Construction::Split, 5, 2), "a divisor of 112"),
        (shape(Construction::Virtual, 8, 3), "a divisor of 112"),
        (shape(Construction::Virtual, 6, 4), "a multiple of 4"),
        (shape(Construction::Copy, 2, 4), "1 to 2"),
        (shape(Construction::Copy, 0, 0), "number of experts"),
        (Shape { redrawn: f64::NAN, ..shape(Construction::Drop, 4, 2) }, "from 0 to 1"),
    ] {
        let found = refused(&llama, shape);
        assert!(found.contains(expected), "{found}");
    }
    let stopped = {
        let parent = tempfile::tempdir().unwrap();
        let options = Options { shape: shape(Construction::Copy, 4, 2), dtype: None, max_file_bytes: 1 };
        let error = block_on(upcycle(&llama, &parent.path().join("out"), &options, &mut |_, _| false)).unwrap_err();
        assert!(std::fs::read_dir(parent.path()).unwrap().next().is_none());
        error
    };
    assert!(matches!(stopped, Error::Stopped { .. }), "{stopped}");
}

#[test]
fn the_command_says_what_it_made_and_whether_it_computes_the_same() {
    let parent = tempfile::tempdir().unwrap();
    let run = |method: &str, options: &[&str]| {
        let out = parent.path().join(method);
        let dense = golden("fixtures/llama");
        let fixed = ["upcycle", dense.to_str().unwrap(), out.to_str().unwrap(), "--method", method, "--device", "cpu", "--json"];
        let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(fixed).args(options).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(0), "{error}");
        (serde_json::from_slice::<serde_json::Value>(&output.stdout).unwrap(), error, out)
    };
    let (result, talk, out) = run("virtual", &["-e", "8", "-k", "4"]);
    assert!(talk.contains("equal, as this method promises"), "{talk}");
    assert_eq!(result["must_be_equal"], true);
    assert_eq!(result["parameters"].as_u64().unwrap(), Parameters::of(&crate::common::spec_of(&out)).total());
    let (result, talk, _) = run("DROP", &["-e", "4"]);
    assert!(talk.contains("does not promise") && result["largest_difference"].as_f64().unwrap() > 0.01, "{talk}");
    let (result, ..) = run("copy", &["--no-compare"]);
    assert!(result["largest_difference"].is_null());
}
