//! Whole models through the engine, on the default adapter and on the reference: the numbers of transformers, whatever runs them.

use crate::common::{FIXTURES, Golden, LOGITS_WITHIN, demo_model, gpu_or_skip, ids, max_difference};
use moebius::batch::LayerRouting;
use moebius::generate::{Candidate, GenerateOptions, SamplingOptions, StopReason, StopRules, Summary};
use moebius::gpu::{DeviceChoice, DeviceOptions, Overrides, Profile};
use moebius::quant::WeightClass;
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use serde_json::Value;
use std::path::Path;

fn load(directory: &Path, device: DeviceOptions, quant: &str) -> Engine {
    let options = LoadOptions { device, quant: quant.parse().unwrap(), ..LoadOptions::default() };
    block_on(Engine::load(directory, &options, &mut |_| {})).unwrap()
}

/// The reference and, where there is an adapter, the device as it is, as its plainest self, and in either profile.
fn devices() -> Vec<DeviceOptions> {
    let cpu = DeviceOptions { choice: DeviceChoice::Cpu, ..DeviceOptions::default() };
    if !gpu_or_skip() {
        return vec![cpu];
    }
    let plain = Overrides {
        no_f16: true,
        no_subgroups: true,
        no_timestamps: true,
        default_limits: true,
        checked_shaders: true,
        unchecked_results: false,
        profile: None,
    };
    let with = |overrides| DeviceOptions { overrides, ..DeviceOptions::from_env(DeviceChoice::Auto) };
    vec![
        cpu,
        DeviceOptions::from_env(DeviceChoice::Auto),
        with(plain),
        with(Overrides { profile: Some(Profile::Gpu), ..plain }),
        // Bounds checks keep a software device from unrolling what is meant for real ones, and from compiling for minutes.
        with(Overrides { profile: Some(Profile::Gpu), checked_shaders: true, ..Overrides::default() }),
    ]
}

/// Every fixture on the device as it is; on all others those that between them use most options of every kernel.
fn goldens(device: &DeviceOptions) -> Vec<Golden> {
    if *device == DeviceOptions::from_env(DeviceChoice::Auto) {
        return Golden::all();
    }
    let some = ["mixtral", "mixtral_swa", "gpt_oss", "llama4_text", "glm4_moe", "phimoe"];
    some.into_iter().filter(|name| FIXTURES.contains(name)).map(Golden::load).collect()
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampling: SamplingOptions::default(),
        stop: StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() },
    }
}

fn generate(engine: &mut Engine, prompt: &[u32], options: &GenerateOptions) -> Summary {
    block_on(async {
        let mut generation = engine.generate(prompt, options).unwrap();
        while generation.next().await.unwrap().is_some() {}
        generation.finish().await.unwrap()
    })
}

#[test]
fn fixtures_have_the_logits_and_the_routing_of_transformers_on_every_device() {
    for device in devices() {
        for golden in goldens(&device) {
            let mut engine = load(&golden.directory, device.clone(), "f32");
            for (index, prompt) in golden.prompts.iter().enumerate() {
                let forward = block_on(engine.forward(prompt)).unwrap();
                let worst = golden.assert_logits(index, &forward.logits);
                assert!(worst <= LOGITS_WITHIN, "{} prompt {index}: {worst}", golden.name);
                golden.assert_routing(index, &forward.layers);
                println!("{} {} prompt {index}: {worst:.1e}", engine.device().name, golden.name);
            }
        }
    }
}

#[test]
fn fixtures_continue_token_for_token_on_every_device() {
    for device in devices() {
        for golden in goldens(&device) {
            let mut engine = load(&golden.directory, device.clone(), "f32");
            for (prompt, expected) in &golden.greedy {
                let summary = generate(&mut engine, &golden.prompts[*prompt], &greedy(expected.len()));
                assert_eq!(&summary.ids, expected, "{} prompt {prompt} on {}", golden.name, engine.device().name);
                assert_eq!(summary.stop, StopReason::MaxTokens);
            }
        }
    }
}

#[test]
fn demo_model_continues_token_for_token_on_every_device() {
    let text = std::fs::read_to_string(demo_model().join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    for device in devices() {
        let mut engine = load(&demo_model(), device, "bf16");
        for case in &cases {
            let prompt = engine.tokenizer().encode(case["prompt"].as_str().unwrap(), true).unwrap();
            assert_eq!(prompt, ids(&case["ids"]));
            let expected = ids(&case["greedy"]);
            let summary = generate(&mut engine, &prompt, &greedy(expected.len()));
            assert_eq!(summary.ids, expected, "{} on {}", case["prompt"], engine.device().name);
            assert_eq!(summary.text, case["text"].as_str().unwrap());
            // Two experts per token and layer, for the prompt and all new tokens but the last.
            let tokens = (prompt.len() + expected.len() - 1) as u64;
            for loads in &summary.expert_loads {
                assert_eq!(loads.iter().sum::<u64>(), 2 * tokens - 2 * (prompt.len() - summary.prefill_tokens) as u64);
            }
        }
    }
}

#[test]
fn shaders_with_and_without_bounds_checks_give_the_same_bits() {
    if !gpu_or_skip() {
        return;
    }
    let logits = |checked_shaders: bool, quant: &str| {
        let overrides = Overrides { checked_shaders, ..Overrides::default() };
        let golden = Golden::load("mixtral");
        let mut engine =
            load(&golden.directory, DeviceOptions { overrides, ..DeviceOptions::from_env(DeviceChoice::Auto) }, quant);
        block_on(engine.forward(&golden.prompts[0])).unwrap().logits
    };
    for quant in ["f32", "q4_0"] {
        assert_eq!(logits(true, quant), logits(false, quant), "{quant}");
    }
}

/// Largest difference of a logit of the demo model from f32, and whether the greedy texts stay the same, by format.
const WITHIN: [(&str, f32, bool); 8] = [
    ("f16", 0.02, true),
    ("bf16", 0.002, true),
    // A logit moves by more than the weights do where another expert is chosen.
    ("q8_0", 2.0, true),
    ("fp8", 4.0, false),
    ("q4_1", 3.0, false),
    ("q4_0", 4.0, false),
    ("q4_0,head=q8_0", 3.0, false),
    ("mxfp4", 7.0, false),
];

#[test]
fn every_format_keeps_the_demo_model_near_itself() {
    if !gpu_or_skip() {
        return;
    }
    let text = std::fs::read_to_string(demo_model().join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let on = |quant: &str| load(&demo_model(), DeviceOptions::from_env(DeviceChoice::Auto), quant);
    let prompt = ids(&cases[0]["ids"]);
    let exact = block_on(on("f32").forward(&prompt)).unwrap().logits;
    for (quant, bound, same_text) in WITHIN {
        let mut engine = on(quant);
        let logits = block_on(engine.forward(&prompt)).unwrap().logits;
        let worst = max_difference(&exact, &logits);
        println!("{quant}: largest difference of a logit {worst}");
        assert!(worst <= bound, "{quant}: {worst}");
        for case in cases.iter().filter(|_| same_text) {
            let expected = ids(&case["greedy"]);
            let summary = generate(&mut engine, &ids(&case["ids"]), &greedy(expected.len()));
            assert_eq!(summary.ids, expected, "{quant}: {}", case["prompt"]);
        }
    }
}

#[test]
fn every_class_of_weights_takes_a_format_of_its_own() {
    if !gpu_or_skip() {
        return;
    }
    // A dense layer, shared experts, and a head of its own.
    let golden = Golden::load("deepseek");
    assert!(!golden.spec.tied_embeddings);
    let logits = |quant: &str| {
        let mut engine = load(&golden.directory, DeviceOptions::from_env(DeviceChoice::Auto), quant);
        block_on(engine.forward(&golden.prompts[1])).unwrap().logits
    };
    let stored = logits("auto");
    let all = WeightClass::ALL.map(|class| format!("{}=q4_0", class.name()));
    let mut seen = vec![stored];
    for class in &all {
        let logits = logits(class);
        assert!(!seen.contains(&logits), "{class} changes nothing, or what another does");
        seen.push(logits);
    }
    assert_eq!(logits(&all.join(",")), logits("q4_0"));
}

#[test]
fn a_prompt_that_begins_as_the_last_one_is_not_run_again() {
    for device in devices() {
        let golden = &Golden::load("mixtral_swa");
        let mut engine = load(&golden.directory, device.clone(), "f32");
        let prompt = golden.prompts.last().unwrap();
        let first = generate(&mut engine, &prompt[..60], &greedy(8));
        assert_eq!(first.prefill_tokens, 60);
        let second = generate(&mut engine, prompt, &greedy(8));
        assert_eq!(second.prefill_tokens, prompt.len() - 60);
        let alone = generate(&mut load(&golden.directory, device, "f32"), prompt, &greedy(8));
        assert_eq!(second.ids, alone.ids);
    }
}

#[test]
fn sampled_text_depends_on_the_seed_and_not_on_the_device() {
    let texts: Vec<Vec<Vec<u32>>> = devices()
        .into_iter()
        .map(|device| {
            let mut engine = load(&demo_model(), device, "bf16");
            let prompt = engine.tokenizer().encode("The king said", true).unwrap();
            let text = |seed| {
                let sampling =
                    SamplingOptions { temperature: 0.9, top_k: 50, top_p: 0.95, min_p: 0.01, seed, repeat_penalty: 1.1 };
                generate(&mut engine, &prompt, &GenerateOptions { sampling, ..greedy(24) }).ids
            };
            [1, 2, 1 << 40].map(text).to_vec()
        })
        .collect();
    assert_ne!(texts[0][0], texts[0][1]);
    assert_ne!(texts[0][0], texts[0][2]);
    for other in &texts[1..] {
        assert_eq!(*other, texts[0]);
    }
}

#[test]
fn sixteen_bit_weights_stay_close_to_f32() {
    for device in devices() {
        let golden = &Golden::load("mixtral");
        // The fixtures are stored in bf16, so bf16 is exact; f16 rounds only what is tiny.
        for quant in ["bf16", "f16"] {
            let mut engine = load(&golden.directory, device.clone(), quant);
            let forward = block_on(engine.forward(&golden.prompts[2])).unwrap();
            golden.assert_logits(2, &forward.logits);
        }
    }
}

#[test]
fn small_bindings_shard_every_matrix_and_change_nothing() {
    if !gpu_or_skip() {
        return;
    }
    let golden = &Golden::load("mixtral_swa");
    let prompt = &golden.prompts[2];
    let whole = block_on(load(&golden.directory, DeviceOptions::default(), "f32").forward(prompt)).unwrap();
    // Smaller than the embedding, the projections and any expert's slab.
    let device = DeviceOptions { max_binding_bytes: Some(12 << 10), ..DeviceOptions::default() };
    let options = LoadOptions { device, quant: "f32".parse().unwrap(), context: Some(64), ..LoadOptions::default() };
    let mut engine = match block_on(Engine::load(&golden.directory, &options, &mut |_| {})) {
        Ok(engine) => engine,
        Err(error) => panic!("{error}"),
    };
    let sharded = block_on(engine.forward(prompt)).unwrap();
    assert!(max_difference(&sharded.logits, &whole.logits) < 1e-5);
}

#[test]
fn wrong_prompts_are_refused_with_both_numbers() {
    let cpu = DeviceOptions { choice: DeviceChoice::Cpu, ..DeviceOptions::default() };
    let golden = &Golden::load("mixtral");
    let options = LoadOptions { device: cpu, context: Some(16), ..LoadOptions::default() };
    let mut engine = block_on(Engine::load(&golden.directory, &options, &mut |_| {})).unwrap();
    let error = engine.generate(&[], &greedy(1)).unwrap_err();
    assert!(matches!(error, Error::Argument { what: "prompt", .. }), "{error}");
    let error = engine.generate(&[1; 17], &greedy(1)).unwrap_err();
    assert!(matches!(error, Error::PromptTooLong { found: 17, limit: 16, .. }), "{error}");
    let error = engine.generate(&[1, 430], &greedy(1)).unwrap_err();
    assert_eq!(error.to_string(), "token id: expected below the vocabulary's 430, found 430");
    let error = engine.generate(&[1], &greedy(0)).unwrap_err();
    assert!(matches!(error, Error::Argument { what: "number of new tokens", .. }), "{error}");
    // A full context ends the text: 16 positions, and the last token needs none.
    let summary = generate(&mut engine, &[1; 10], &greedy(100));
    assert_eq!((summary.stop, summary.ids.len()), (StopReason::ContextFull, 7));
}

#[test]
fn a_context_beyond_the_model_is_refused() {
    let golden = &Golden::load("mixtral");
    let limit = golden.spec.max_positions;
    for context in [0, limit + 1] {
        let options = LoadOptions { context: Some(context), ..LoadOptions::default() };
        let error = block_on(Engine::load(&golden.directory, &options, &mut |_| {})).unwrap_err();
        assert!(error.to_string().contains(&limit.to_string()), "{error}");
    }
}

#[test]
fn a_lost_device_is_an_error_and_not_a_hang() {
    if !gpu_or_skip() {
        return;
    }
    let golden = &Golden::load("mixtral");
    let mut engine = load(&golden.directory, DeviceOptions::default(), "f32");
    block_on(async {
        engine.gpu().unwrap().destroy();
        let mut generation = engine.generate(&golden.prompts[1], &greedy(4)).unwrap();
        let error = generation.next().await.unwrap_err();
        assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
    });
    let error = block_on(engine.forward(&golden.prompts[1])).unwrap_err();
    assert!(matches!(error, Error::DeviceLost { .. }), "{error}");
}

#[test]
fn perplexity_of_likely_text_is_lower_than_of_unlikely_text() {
    for device in devices() {
        let mut engine = load(&demo_model(), device, "bf16");
        let mut measure = |text: &str| {
            let ids = engine.tokenizer().encode(text, true).unwrap();
            block_on(engine.perplexity(&ids, &mut |_, _| {})).unwrap().value()
        };
        let (likely, unlikely) = (
            measure("And the LORD said unto Moses, Speak unto the children of Israel."),
            measure("Israel of children the unto Speak, Moses unto said LORD the And."),
        );
        assert!(likely < 60.0 && unlikely > 3.0 * likely, "{likely} {unlikely}");
    }
}

#[test]
fn the_likeliest_next_tokens_are_those_of_the_softmax_at_every_position() {
    for device in devices().into_iter().take(2) {
        let mut engine = load(&demo_model(), device, "bf16");
        // Longer than what is computed at once.
        let text = "Once upon a time there was a king who had three daughters, and the youngest was so fair. ".repeat(8);
        let ids = engine.tokenizer().encode(&text, true).unwrap();
        assert!(ids.len() > 128, "{}", ids.len());
        let found = block_on(engine.likeliest(&ids, 5)).unwrap();
        let logits = block_on(engine.forward(&ids)).unwrap().logits;
        assert_eq!(found.len(), ids.len());
        for (candidates, logits) in found.iter().zip(logits.chunks_exact(engine.spec().vocab_size)) {
            let total: f64 = logits.iter().map(|&logit| f64::from(logit).exp()).sum();
            let mut all: Vec<f64> = logits.iter().map(|&logit| f64::from(logit).exp() / total).collect();
            for candidate in candidates {
                assert!((candidate.probability - all[candidate.id as usize]).abs() < 1e-4, "{candidate:?}");
            }
            all.sort_by(|a, b| b.total_cmp(a));
            let probabilities: Vec<f64> = candidates.iter().map(|candidate| candidate.probability).collect();
            assert!(probabilities.iter().zip(&all).all(|(a, b)| (a - b).abs() < 1e-4), "{probabilities:?} {:?}", &all[..5]);
        }
    }
    let equal = Candidate::likeliest(&[1.0, 3.0, 3.0, 2.0], 3);
    assert_eq!(equal.iter().map(|candidate| candidate.id).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(Candidate::likeliest(&[1.0], 5).len(), 1);
}

#[test]
fn routing_kept_while_generating_is_that_of_a_forward_pass() {
    for device in devices().into_iter().take(2) {
        // A router in every layer, dense layers first, a dense MLP beside the experts, and a rotary table that changes with the length.
        for golden in ["mixtral", "glm4_moe", "arctic", "phimoe_long"].map(Golden::load) {
            let mut engine = load(&golden.directory, device.clone(), "f32");
            let prompt = golden.prompts.last().unwrap();
            // The second generation finds the prompt in the KV cache, and has to tell about it all the same.
            for _ in 0..2 {
                let mut kept: Vec<LayerRouting> = Vec::new();
                let summary = block_on(async {
                    let mut generation = engine.generate(prompt, &greedy(6)).unwrap();
                    generation.keep_routing();
                    while generation.next().await.unwrap().is_some() {
                        match kept.as_mut_slice() {
                            [] => kept = generation.routing().to_vec(),
                            layers => layers.iter_mut().zip(generation.routing()).for_each(|(all, new)| all.append(new)),
                        }
                    }
                    generation.finish().await.unwrap()
                });
                let fed = [prompt, &summary.ids[..summary.ids.len() - 1]].concat();
                let forward = block_on(engine.forward(&fed)).unwrap();
                assert_eq!(kept.len(), forward.layers.len());
                for (kept, expected) in kept.iter().zip(&forward.layers) {
                    assert_eq!(kept.expert_ids, expected.expert_ids, "{} layer {}", engine.device().name, kept.layer);
                    assert!(max_difference(&kept.routing_weights, &expected.routing_weights) < 1e-4);
                }
            }
            let summary = generate(&mut engine, prompt, &greedy(2));
            assert_eq!(summary.prefill_tokens, prompt.len());
        }
    }
}
