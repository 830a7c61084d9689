//! State that does not grow with the text: prompts in pieces of any length, texts that end early and go on, turns that change what was said.

use crate::common::{Golden, gpu_device_with, gpu_or_skip, max_difference};
use moebius::batch::rng::pcg;
use moebius::batch::{CacheShape, Sampling};
use moebius::bench::{Bench, RoofOptions, Subject, SubjectOptions, Test, Work};
use moebius::checkpoint::{ModelFiles, WeightStore};
use moebius::generate::{GenerateOptions, SamplingOptions, StopReason, StopRules, Summary};
use moebius::gpu::{DeviceChoice, DeviceOptions, Pace, Tuning};
use moebius::model::{Decoder, GpuDecoder, LoadParts, ReferenceDecoder};
use moebius::paging::ExpertMemory;
use moebius::quant::{CacheChoice, CacheFormat, QuantChoice};
use moebius::spec::{Decay, LayerSpec, ModelSpec};
use moebius::{Engine, LoadOptions};
use pollster::block_on;
use serde_json::{Value, json};
use std::process::Command;
use std::sync::Arc;

/// A fixture for each kind of block that keeps such a state.
const NAMES: [&str; 7] = ["lfm2_moe", "granitemoehybrid", "nemotron_h", "qwen3_next", "kimi_linear", "jamba", "minimax"];

/// Those, or of them the one that the variable `FIXTURE` names.
fn names() -> impl Iterator<Item = &'static str> {
    let only = std::env::var("FIXTURE").ok();
    NAMES.into_iter().filter(move |name| only.as_deref().is_none_or(|only| only == *name))
}

/// One step at a time in one piece; as many as allowed; more than 32 pieces per step.
const PACES: [Pace; 3] = [
    Pace { seconds: 1e9, steps: 1 },
    Pace { seconds: 1e9, steps: Pace::MOST_STEPS },
    Pace { seconds: 1e-9, steps: Pace::MOST_STEPS },
];
const AHEAD: Pace = PACES[1];

fn with_pace(pace: Pace) -> DeviceOptions {
    DeviceOptions { pace, ..DeviceOptions::from_env(DeviceChoice::Auto) }
}

/// The reference and, where there is an adapter, the device.
fn devices() -> Vec<DeviceOptions> {
    let cpu = DeviceOptions { choice: DeviceChoice::Cpu, ..DeviceOptions::default() };
    if gpu_or_skip() { vec![with_pace(AHEAD), cpu] } else { vec![cpu] }
}

fn load(name: &'static str, device: &DeviceOptions) -> Engine {
    let options = LoadOptions { device: device.clone(), quant: "f32".parse().unwrap(), ..LoadOptions::default() };
    block_on(Engine::load(&Golden::load(name).directory, &options, &mut |_| {})).unwrap()
}

/// Without the engine, which runs a text only from its beginning or from where the last one was left.
fn decoder(name: &'static str, device: &DeviceOptions) -> Decoder {
    let files = block_on(ModelFiles::open(&Golden::load(name).directory)).unwrap();
    let store: Arc<WeightStore> = block_on(files.weights()).unwrap().into();
    let (spec, quant, context) = (files.spec(), "f32".parse::<QuantChoice>().unwrap(), 1024);
    if device.choice == DeviceChoice::Cpu {
        let cache = CacheShape { context, format: CacheFormat::F32 };
        let decoder = block_on(ReferenceDecoder::load(spec, (&store, quant), cache, &mut |_| {})).unwrap();
        return Decoder::Reference(Box::new(decoder));
    }
    let device = gpu_device_with(device).expect("asked before");
    let parts = LoadParts { device, spec, store, quant, cache: CacheChoice::Auto, context, expert_memory: ExpertMemory::All };
    Decoder::Gpu(Box::new(block_on(GpuDecoder::load(parts, &mut |_| {})).unwrap()))
}

/// A text that says nothing.
fn tokens(name: &'static str, seed: u32, len: usize) -> Vec<u32> {
    let vocab_size = Golden::load(name).spec.vocab_size as u32;
    (0..len as u32).map(|index| pcg(pcg(seed) ^ index) % vocab_size).collect()
}

fn options(max_tokens: usize, eos_ids: &[u32], temperature: f32) -> GenerateOptions {
    let sampling = SamplingOptions { temperature, seed: 11, repeat_penalty: 1.1, ..SamplingOptions::default() };
    GenerateOptions {
        sampling,
        stop: StopRules { eos_ids: Some(eos_ids.to_vec()), max_tokens: Some(max_tokens), stop_strings: Vec::new() },
    }
}

/// Generates, and ends early after so many tokens.
fn generate(engine: &mut Engine, prompt: &[u32], options: &GenerateOptions, tokens: usize) -> Summary {
    block_on(async {
        let mut generation = engine.generate(prompt, options).unwrap();
        for _ in 0..tokens {
            if generation.next().await.unwrap().is_none() {
                break;
            }
        }
        generation.finish().await.unwrap()
    })
}

/// The logits of a text that is run in passes of these lengths, and in one of what is left.
fn logits_in_passes(decoder: &mut Decoder, ids: &[u32], passes: &[usize]) -> Vec<f32> {
    let (mut logits, mut position) = (Vec::new(), 0);
    for len in passes.iter().copied().chain([ids.len()]) {
        let pass = &ids[position..ids.len().min(position + len)];
        if !pass.is_empty() {
            logits.extend(block_on(decoder.forward(pass, position)).unwrap().logits);
        }
        position += pass.len();
    }
    logits
}

#[test]
fn a_prompt_in_passes_of_any_length_gives_the_logits_of_one_pass() {
    for device in devices() {
        for name in names() {
            let (mut decoder, ids) = (decoder(name, &device), tokens(name, 3, 330));
            let whole = logits_in_passes(&mut decoder, &ids, &[]);
            let largest = whole.iter().fold(0.0, |largest: f32, logit| largest.max(logit.abs()));
            let ones = [1; 70];
            let random: Vec<usize> = (0..20).map(|index| pcg(index) as usize % 40 + 1).collect();
            for passes in [&[1, 2, 3][..], &[63, 1, 1], &[64, 64], &[65, 2, 130, 1], &[1, 300, 2], &[3, 200], &ones, &random] {
                let logits = logits_in_passes(&mut decoder, &ids, passes);
                let difference = max_difference(&logits, &whole);
                assert!(difference <= 2e-5 * largest, "{name} {:?} {passes:?}: {difference} of {largest}", device.choice);
            }
        }
    }
}

#[test]
fn the_device_keeps_of_a_long_text_what_the_reference_does() {
    if !gpu_or_skip() {
        return;
    }
    for name in names() {
        let ids = tokens(name, 5, 700);
        let [found, expected] = [0, 1].map(|index| logits_in_passes(&mut decoder(name, &devices()[index]), &ids, &[512]));
        let vocab_size = Golden::load(name).spec.vocab_size;
        let last = found.len() - vocab_size;
        let difference = max_difference(&found[last..], &expected[last..]);
        assert!(difference < 1e-3, "{name}: {difference}");
    }
}

#[test]
fn short_prompts_go_on_as_on_the_reference() {
    let devices = devices();
    for name in names() {
        let texts = |device: &DeviceOptions| {
            let mut engine = load(name, device);
            let text = |len: usize| generate(&mut engine, &tokens(name, 7, len), &options(20, &[], 0.0), usize::MAX).ids;
            [1, 2, 3, 4, 63, 64, 65].map(text)
        };
        assert_eq!(texts(&devices[0]), texts(devices.last().unwrap()), "{name}");
    }
}

#[test]
fn a_state_is_there_after_the_newest_position_and_at_the_ends_of_two_blocks_before() {
    for device in devices() {
        for name in names() {
            let (mut decoder, ids) = (decoder(name, &device), tokens(name, 9, 300));
            assert_eq!(decoder.resumable(7), 0);
            block_on(decoder.forward(&ids[..200], 0)).unwrap();
            assert_eq!(
                [300, 200, 199, 192, 191, 128, 127].map(|wanted| decoder.resumable(wanted)),
                [200, 200, 192, 192, 128, 128, 0]
            );
            // Another text from there on: what came after is gone, what came before is not.
            block_on(decoder.forward(&ids[128..130], 128)).unwrap();
            assert_eq!([200, 130, 129, 127].map(|wanted| decoder.resumable(wanted)), [130, 130, 128, 0]);
            block_on(decoder.forward(&ids[..1], 0)).unwrap();
            assert_eq!([200, 1, 0].map(|wanted| decoder.resumable(wanted)), [1, 1, 0]);
        }
    }
    // Keys and values alone can be gone on from anywhere.
    assert_eq!(decoder("mixtral", devices().last().unwrap()).resumable(77), 77);
}

#[test]
fn texts_that_end_early_and_go_on_are_those_of_single_steps() {
    if !gpu_or_skip() {
        return;
    }
    for name in names() {
        let prompt = tokens(name, 1, 50);
        let per_token = Golden::load(name).spec.moe_layers().next().unwrap().1.router.num_experts_per_tok as u64;
        let mut outcomes = Vec::new();
        for pace in PACES {
            let mut engine = load(name, &with_pace(pace));
            let whole = generate(&mut engine, &prompt, &options(60, &[], 0.9), usize::MAX);
            assert_eq!(whole.ids.len(), 60);
            // Ended by a token that comes when later steps have run, by the caller, and by the limit; and each goes on.
            let eos = whole.ids[41];
            let first = whole.ids.iter().position(|&id| id == eos).unwrap();
            let ended = generate(&mut engine, &prompt, &options(60, &[eos], 0.9), usize::MAX);
            assert_eq!((&ended.ids[..], ended.stop.clone()), (&whole.ids[..first + 1], StopReason::Eos));
            let mut texts = vec![whole.ids.clone(), ended.ids];
            for cut in [23, 14, 13] {
                let cancelled = generate(&mut engine, &prompt, &options(60, &[], 0.9), cut);
                assert_eq!((&cancelled.ids[..], cancelled.stop.clone()), (&whole.ids[..cut], StopReason::Cancelled));
                let run = cancelled.prefill_tokens + cut - 1;
                assert!(
                    cancelled.expert_loads.iter().all(|loads| loads.iter().sum::<u64>() == per_token * run as u64),
                    "{pace:?}"
                );
                let longer = [&prompt[..], &cancelled.ids, &tokens(name, 2, 4)].concat();
                let next = generate(&mut engine, &longer, &options(20, &[], 0.9), usize::MAX);
                // The last token of a text is not run, and those of the turn are new.
                assert!((5..=5 + 63).contains(&next.prefill_tokens), "{} tokens run", next.prefill_tokens);
                texts.push(next.ids);
            }
            let mut fresh = load(name, &with_pace(PACES[0]));
            let longer = [&prompt[..], &whole.ids[..13], &tokens(name, 2, 4)].concat();
            assert_eq!(generate(&mut fresh, &longer, &options(20, &[], 0.9), usize::MAX).ids, *texts.last().unwrap(), "{pace:?}");
            outcomes.push(texts);
        }
        assert_eq!(outcomes[0], outcomes[1], "{name}");
        assert_eq!(outcomes[0], outcomes[2], "{name}");
    }
}

#[test]
fn a_prompt_says_nothing_about_the_next_one() {
    for device in devices() {
        for name in names() {
            let mut engine = load(name, &device);
            let prompts = [tokens(name, 21, 100), tokens(name, 22, 5), tokens(name, 23, 130), tokens(name, 21, 100)];
            for prompt in &prompts {
                let text = generate(&mut engine, prompt, &options(12, &[], 0.0), usize::MAX);
                let alone = generate(&mut load(name, &device), prompt, &options(12, &[], 0.0), usize::MAX);
                assert_eq!(text.ids, alone.ids, "{name} {:?} after {} tokens", device.choice, prompt.len());
                assert_eq!(text.prefill_tokens, prompt.len());
            }
            // The same again: a block and what stands behind it at most.
            let again = generate(&mut engine, &prompts[3], &options(12, &[], 0.0), usize::MAX);
            assert!(again.prefill_tokens <= 64, "{} tokens run", again.prefill_tokens);
        }
    }
}

#[test]
fn ten_turns_that_each_change_the_end_of_the_prompt_give_the_text_of_a_fresh_engine() {
    for device in devices() {
        for name in names() {
            let mut engine = load(name, &device);
            let mut text = tokens(name, 31, 90);
            for turn in 0..10 {
                let changed = pcg(turn) as usize % 70 + 1;
                text.truncate(text.len() - changed);
                text.extend(tokens(name, 40 + turn, changed + 9));
                let answer = generate(&mut engine, &text, &options(30, &[], 0.7), 11);
                let alone = generate(&mut load(name, &device), &text, &options(30, &[], 0.7), 11);
                assert_eq!(answer.ids, alone.ids, "{name} {:?}: turn {turn}, {changed} tokens changed", device.choice);
                text.extend(answer.ids);
            }
        }
    }
}

#[test]
fn a_text_whose_kernels_change_on_the_way_goes_on() {
    if !gpu_or_skip() {
        return;
    }
    for name in names().chain(["mixtral"]) {
        let text = |pace: Pace, changes: bool| -> Vec<u32> {
            let mut decoder = decoder(name, &with_pace(pace));
            block_on(async {
                decoder.begin(&Sampling::GREEDY, &[]).await.unwrap();
                let mut ids = vec![decoder.prefill(&tokens(name, 1, 30), 0).await.unwrap()];
                for left in (1..=60).rev() {
                    if let (20 | 41, true, Decoder::Gpu(decoder)) = (left, changes, &mut decoder) {
                        decoder.set_tuning(Tuning::default());
                    }
                    ids.push(decoder.decode(left).await.unwrap());
                }
                ids
            })
        };
        assert_eq!(text(AHEAD, true), text(PACES[0], false), "{name}");
    }
}

#[test]
fn tokens_that_run_again_are_not_counted_again() {
    let devices = devices();
    // The rotary embedding of a long text differs: where the text becomes long, all of it runs again.
    let loads = |device: &DeviceOptions| {
        let golden = Golden::load("phimoe_long");
        let prompt = &golden.prompts[golden.prompts.len() - 1][..60];
        generate(&mut load("phimoe_long", device), prompt, &options(12, &[], 0.0), usize::MAX).expert_loads
    };
    let found = loads(&devices[0]);
    assert!(found.iter().all(|loads| loads.iter().sum::<u64>() == 2 * 71), "{found:?}");
    assert_eq!(found, loads(devices.last().unwrap()));
}

#[test]
fn inspect_says_how_large_a_state_is_and_which_layers_have_one() {
    let fixture = Golden::load("lfm2_moe").directory;
    let inspect = |arguments: &[&str]| {
        let output = Command::new(env!("CARGO_BIN_EXE_moebius")).arg("inspect").arg(&fixture).args(arguments).output().unwrap();
        assert!(output.status.success());
        String::from_utf8(output.stdout).unwrap()
    };
    let text = inspect(&[]);
    // Three positions of 80 channels in two layers, in f32.
    assert!(text.contains("state       1.9 KiB for a text of any length, kept 3 times to go back to: 5.6 KiB"), "{text}");
    assert!(text.contains("none, a gated convolution over 3 tokens, in 2 layers"), "{text}");
    let figures: Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
    assert_eq!(figures["state_bytes"], 3 * 3 * 80 * 4 * 2);
    // Key and value of one head of 20 in two layers: the others keep nothing of each position.
    assert_eq!(figures["kv_bytes_per_token"], 2 * 2 * 20 * 4);
    let f32s = &figures["formats"][0];
    let needed = f32s["weight_bytes"].as_u64().unwrap() + 1024 * 160 * 2 + 5760;
    assert_eq!(f32s["needed_bytes"], needed);
}

#[test]
fn a_mixer_takes_as_many_dispatches_as_it_should() {
    if !gpu_or_skip() {
        return;
    }
    for name in names() {
        let layers = &Golden::load(name).spec.layers;
        let convolves = |layer: &&LayerSpec| {
            layer.short_conv().is_some() || layer.recurrent().is_some_and(|recurrent| recurrent.conv.is_some())
        };
        let layers = layers.iter().filter(convolves).count() as f64;
        let dispatches = |work: Work| {
            let device = gpu_device_with(&DeviceOptions::default()).expect("asked before");
            let (subject, test) = (Subject::Checkpoint(Golden::load(name).directory), Test { work, depth: 0 });
            let options = SubjectOptions { roofs: RoofOptions { bytes: 1 << 20, seconds: 0.001 }, ..SubjectOptions::default() };
            let mut bench = block_on(Bench::load(device, &subject, &[test], &options, &mut |_| {})).unwrap();
            let kernels = block_on(bench.kernels(test, 1)).unwrap();
            let of = |name: &str| kernels.iter().find(|found| found.kernel == name).map_or(0.0, |found| found.dispatches);
            ["short_conv", "scan", "gated_norm"].map(of)
        };
        let engine = block_on(Engine::load(&Golden::load(name).directory, &LoadOptions::default(), &mut |_| {})).unwrap();
        let pipelines = engine.gpu().map_or(0, |device| device.pipelines().len());
        // Latent attention beside a recurrence: next to no product of one has the shape of one of the other.
        let most = if Golden::load(name).spec.layers.iter().any(|layer| layer.latent().is_some()) { 50 } else { 40 };
        assert!(pipelines <= most, "{name}: {pipelines} pipelines for a token and a chunk");
        let spec = Golden::load(name).spec;
        let recurrent: Vec<_> = spec.layers.iter().filter_map(LayerSpec::recurrent).collect();
        let (scans, norms) =
            (recurrent.len() as f64, recurrent.iter().filter(|recurrent| recurrent.norm.is_some()).count() as f64);
        assert_eq!(dispatches(Work::Decode(1)), [layers, scans, norms], "{name}");
        // What a batch keeps of the inputs of a convolution is written after all of them have been read.
        assert_eq!(dispatches(Work::Prefill(24)), [2.0 * layers, scans, norms], "{name}");
    }
}

#[test]
fn a_config_of_granite_means_the_same_in_the_words_of_either_transformers() {
    let text = std::fs::read_to_string(Golden::load("granitemoehybrid").directory.join("config.json")).unwrap();
    let original = ModelSpec::parse(&text, "config.json").unwrap();
    let with = |key: &str, value: Value| {
        let mut config: Value = serde_json::from_str(&text).unwrap();
        config[key] = value;
        ModelSpec::parse(&config.to_string(), "config.json").unwrap()
    };
    assert_eq!(with("layer_types", json!(["linear_attention", "full_attention", "linear_attention"])), original);
    assert_eq!(with("mamba_d_head", json!("auto")), original);
    assert_eq!(with("time_step_limit", json!([0.0, "Infinity"])), original);
    // These are for training.
    for key in ["time_step_min", "time_step_max", "time_step_floor"] {
        assert_eq!(with(key, json!(0.001)), original);
    }
    let kept = with("time_step_limit", json!([0.001, 0.1]));
    assert_eq!(kept.layers[0].recurrent().unwrap().decay, Decay::Head { step_range: [0.001, 0.1] });
    for without in [json!("nope"), Value::Null] {
        assert!(with("position_embedding_type", without).layers[1].attention().unwrap().rope.is_none());
    }
    assert!(original.layers[1].attention().unwrap().rope.is_some());
    // Every layer is a state space where the config does not say.
    assert!(with("layer_types", Value::Null).layers.iter().all(|layer| layer.recurrent().is_some()));
}
