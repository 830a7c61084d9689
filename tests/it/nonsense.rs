//! Numbers that are no numbers: said at once, with the part of the model where they begin, whatever runs it and whatever is asked of it.

use crate::common::{Golden, gpu_or_skip, spoiled};
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules};
use moebius::gpu::{DeviceChoice, DeviceOptions, Overrides, Pace};
use moebius::model::{QuantizeOptions, quantize};
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use std::path::Path;

/// A weight, what it becomes, and where that shows first.
struct Fault {
    fixture: &'static str,
    tensor: &'static str,
    value: f32,
    place: &'static str,
}

const NAN: f32 = f32::NAN;
/// Finite, but not squared, and not as a sum of many.
const LARGE: f32 = 3e38;

const fn fault(fixture: &'static str, tensor: &'static str, value: f32, place: &'static str) -> Fault {
    Fault { fixture, tensor, value, place }
}

/// Routers by softmax, by softmax of the chosen, by sigmoid with groups and biases, by a sparse mixer, and one that chooses attention.
const FAULTS: [Fault; 13] = [
    fault("mixtral", "model.embed_tokens.weight", NAN, "the embedding"),
    fault("mixtral", "model.layers.1.self_attn.v_proj.weight", NAN, "the attention of layer 1"),
    fault("mixtral", "model.layers.1.block_sparse_moe.gate.weight", NAN, "the router of layer 1"),
    fault("mixtral", "model.layers.0.block_sparse_moe.gate.weight", f32::INFINITY, "the router of layer 0"),
    fault("mixtral", "model.norm.weight", NAN, "the final norm or the head"),
    fault("mixtral", "lm_head.weight", LARGE, "the final norm or the head"),
    fault("qwen3_moe", "model.layers.2.mlp.gate.weight", NAN, "the router of layer 2"),
    fault("deepseek_v3", "model.layers.2.mlp.gate.weight", NAN, "the router of layer 2"),
    fault("deepseek_v3", "model.layers.2.mlp.gate.e_score_correction_bias", NAN, "the router of layer 2"),
    fault("deepseek_v3", "model.layers.2.mlp.shared_experts.down_proj.weight", f32::INFINITY, "the experts or MLP of layer 2"),
    fault("gpt_oss", "model.layers.1.mlp.router.bias", NAN, "the router of layer 1"),
    fault("gpt_oss", "model.layers.1.mlp.experts.down_proj_bias", NAN, "the experts or MLP of layer 1"),
    fault("phimoe", "model.layers.1.block_sparse_moe.gate.weight", NAN, "the router of layer 1"),
];

/// The reference and, where there is an adapter, the device.
fn devices() -> Vec<DeviceOptions> {
    let all = [DeviceChoice::Cpu, DeviceChoice::Auto].map(DeviceOptions::from_env);
    let found = if gpu_or_skip() { 2 } else { 1 };
    all[..found].to_vec()
}

fn load(directory: &Path, device: DeviceOptions) -> Engine {
    let options = LoadOptions { device, ..LoadOptions::default() };
    block_on(Engine::load(directory, &options, &mut |_| {})).unwrap()
}

fn options(temperature: f32, max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampling: SamplingOptions { temperature, ..SamplingOptions::default() },
        stop: StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() },
    }
}

/// The tokens of a generation, and what ended it.
fn generate(engine: &mut Engine, prompt: &[u32], options: &GenerateOptions, traced: bool) -> (Vec<u32>, Result<(), Error>) {
    block_on(async {
        let mut generation = engine.generate(prompt, options).unwrap();
        if traced {
            generation.keep_routing();
        }
        let mut ids = Vec::new();
        loop {
            match generation.next().await {
                Ok(Some(piece)) => ids.push(piece.id),
                Ok(None) => return (ids, Ok(())),
                Err(error) => return (ids, Err(error)),
            }
        }
    })
}

/// It is the error of a fault, and says where.
fn assert_says(result: Result<(), Error>, place: &str, what: &str) {
    let error = result.expect_err(what);
    assert!(matches!(error, Error::Nonsense { .. }), "{what}: {error}");
    assert!(error.to_string().ends_with(&format!("it begins in {place}")), "{what}: expected {place}: {error}");
    assert!(error.hint().unwrap().contains("MOEBIUS_UNCHECKED_RESULTS"), "{what}");
}

#[test]
fn a_weight_that_is_no_number_is_said_with_its_layer() {
    for device in devices() {
        for Fault { fixture, tensor, value, place } in FAULTS {
            let what = format!("{:?} {fixture} {tensor}", device.choice);
            let model = spoiled(fixture, tensor, |_| true, value);
            let mut engine = load(model.path(), device.clone());
            let prompt = &Golden::load(fixture).prompts[0];
            let (ids, result) = generate(&mut engine, prompt, &options(0.0, 3), false);
            assert!(ids.is_empty(), "{what}");
            assert_says(result, place, &what);
        }
    }
}

#[test]
fn one_element_of_one_expert_is_enough_whatever_is_asked() {
    for device in devices() {
        let what = format!("{:?}", device.choice);
        let tensor = "model.layers.1.block_sparse_moe.experts.2.w2.weight";
        let model = spoiled("mixtral", tensor, |element| element == 0, NAN);
        let mut engine = load(model.path(), device);
        let prompt = Golden::load("mixtral").prompts.last().unwrap().clone();
        let place = "the experts or MLP of layer 1";
        for (temperature, traced) in [(0.0, false), (0.9, false), (0.9, true)] {
            let (_, result) = generate(&mut engine, &prompt, &options(temperature, 6), traced);
            assert_says(result, place, &what);
        }
        assert_says(block_on(engine.forward(&prompt)).map(drop), place, &what);
        assert_says(block_on(engine.perplexity(&prompt, &mut |_, _| {})).map(drop), place, &what);
        assert_says(block_on(engine.trace(&prompt, &mut |_, _| {})), place, &what);
    }
}

#[test]
fn an_expert_that_overflows_is_said_as_well() {
    for device in devices() {
        let tensor = "model.layers.1.block_sparse_moe.experts.2.w2.weight";
        let model = spoiled("mixtral", tensor, |_| true, LARGE);
        let mut engine = load(model.path(), device);
        let prompt = Golden::load("mixtral").prompts.last().unwrap().clone();
        assert_says(block_on(engine.forward(&prompt)).map(drop), "the experts or MLP of layer 1", "overflow");
    }
}

#[test]
fn a_fault_that_comes_while_decoding_ends_the_text_there() {
    let golden = Golden::load("mixtral");
    let (prompt, expected) = &golden.greedy[0];
    let prompt = &golden.prompts[*prompt];
    // The first token that is neither in the prompt nor among the first three.
    let place =
        (3..expected.len()).find(|&place| !prompt.contains(&expected[place]) && !expected[..place].contains(&expected[place]));
    let place = place.unwrap();
    let hidden = golden.spec.hidden_size;
    let row = expected[place] as usize * hidden;
    let model = spoiled("mixtral", "model.embed_tokens.weight", |element| element == row + 5, NAN);
    for device in devices() {
        for (steps, traced) in [(1, false), (Pace::MOST_STEPS, true)] {
            let pace = Pace { seconds: 1e9, steps };
            let mut engine = load(model.path(), DeviceOptions { pace, ..device.clone() });
            let (ids, result) = generate(&mut engine, prompt, &options(0.0, expected.len()), traced);
            assert_eq!(ids, expected[..=place], "what was computed well is handed out");
            assert_says(result, "the embedding", "decode");
            // The engine is as good as before.
            let (ids, result) = generate(&mut engine, prompt, &options(0.0, place), traced);
            assert_eq!(ids, expected[..place]);
            result.unwrap();
        }
    }
}

#[test]
fn unchecked_results_are_handed_out_with_ids_in_range() {
    let model = spoiled("mixtral", "model.layers.1.block_sparse_moe.gate.weight", |_| true, NAN);
    for device in devices() {
        let overrides = Overrides { unchecked_results: true, ..device.overrides };
        let mut engine = load(model.path(), DeviceOptions { overrides, ..device });
        let (ids, result) = generate(&mut engine, &[1, 2, 3], &options(0.0, 12), true);
        result.unwrap();
        assert!(ids.len() == 12 && ids.iter().all(|&id| (id as usize) < engine.spec().vocab_size), "{ids:?}");
        assert!(block_on(engine.forward(&[1, 2, 3])).is_ok());
    }
}

#[test]
fn what_is_not_finite_is_not_quantised_away() {
    let model = spoiled("mixtral", "model.layers.1.block_sparse_moe.experts.2.w2.weight", |element| element == 7, NAN);
    let out = tempfile::tempdir().unwrap();
    for quant in ["q8_0", "q4_0", "q4_1", "mxfp4", "fp8"] {
        let options = QuantizeOptions { quant: Some(quant.parse().unwrap()), max_file_bytes: 1 << 30 };
        let error = block_on(quantize(model.path(), &out.path().join(quant), &options, &mut |_, _| true)).unwrap_err();
        assert!(matches!(&error, Error::NotANumber { index: 7, .. }), "{quant}: {error}");
    }
    assert_eq!(std::fs::read_dir(out.path()).unwrap().count(), 0, "nothing is left behind");
}
