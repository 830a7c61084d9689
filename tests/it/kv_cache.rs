//! The KV cache in f16: what it keeps, when it is chosen, and what it does to whole models.

use crate::common::{Golden, demo_model, gpu_or_skip, ids, max_difference};
use moebius::batch::Row;
use moebius::gating::RoutingOverride;
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::quant::{CacheChoice, CacheFormat, Quant, QuantFormat};
use moebius::reference::{KvCache, qkv};
use moebius::spec::AttentionSpec;
use moebius::{Engine, LoadOptions};
use pollster::block_on;
use serde_json::Value;
use std::path::Path;

#[test]
fn f16_keeps_the_nearest_value_and_never_an_infinity() {
    let keep = |value| CacheFormat::F16.keep(value);
    let step = 1.0 / 1024.0;
    assert_eq!([1.0, -0.5, 65504.0].map(keep), [1.0, -0.5, 65504.0]);
    assert_eq!([1.0 + 0.4 * step, 1.0 + 0.6 * step].map(keep), [1.0, 1.0 + step]);
    // In the middle the even one.
    assert_eq!([1.0 + 0.5 * step, 1.0 + 1.5 * step].map(keep), [1.0, 1.0 + 2.0 * step]);
    assert_eq!([65519.0, 65520.0, 1e30, f32::INFINITY, -1e9].map(keep), [65504.0, 65504.0, 65504.0, 65504.0, -65504.0]);
    // The smallest values are multiples of 2^-24.
    let smallest = 2f32.powi(-24);
    assert_eq!([2.4 * smallest, 0.6 * smallest, 0.5 * smallest].map(keep), [2.0 * smallest, smallest, 0.0]);
    assert_eq!(CacheFormat::F32.keep(1e30), 1e30);
}

#[test]
fn a_word_holds_two_f16_the_first_one_low() {
    assert_eq!(CacheFormat::F16.pack(&[1.0, -2.0, 0.0, 1e9]), [0xc000_3c00, 0x7bff_0000]);
    assert_eq!(CacheFormat::F32.pack(&[1.0, -2.0]), [0x3f80_0000, 0xc000_0000]);
    assert_eq!((CacheFormat::F16.bytes(6), CacheFormat::F32.bytes(6)), (12, 24));
}

#[test]
fn a_choice_is_read_and_written_back_and_follows_the_weights_of_attention() {
    for text in ["auto", "f32", "f16"] {
        assert_eq!(text.parse::<CacheChoice>().unwrap().to_string(), text);
    }
    assert_eq!("auto".parse::<CacheChoice>().unwrap(), CacheChoice::default());
    let error = "bf16".parse::<CacheChoice>().unwrap_err().to_string();
    assert!(error.contains("auto, f32, f16") && error.contains("`bf16`"), "{error}");

    let quants = |names: &[&str]| names.iter().map(|name| QuantFormat::find(name).unwrap()).collect::<Vec<Quant>>();
    let auto = |names: &[&str]| CacheChoice::Auto.format(quants(names).into_iter());
    assert_eq!(auto(&["q4_0", "q4_1", "mxfp4"]), CacheFormat::F16);
    for wider in ["f32", "f16", "bf16", "q8_0", "fp8"] {
        assert_eq!(auto(&["q4_0", wider]), CacheFormat::F32);
    }
    assert_eq!(CacheChoice::Is(CacheFormat::F16).format(quants(&["f32"]).into_iter()), CacheFormat::F16);
    assert_eq!(CacheChoice::Is(CacheFormat::F32).format(quants(&["q4_0"]).into_iter()), CacheFormat::F32);
}

#[test]
fn keys_and_values_are_rounded_when_they_are_appended_and_queries_are_not() {
    let spec = AttentionSpec::new(1, 1, 4);
    let identity: Vec<f32> = (0..3 * 16).map(|i| if i % 16 / 4 == i % 4 { 1.0 } else { 0.0 }).collect();
    let rows = [Row::new(0, 1, 0)];
    let x = [1.0001, 1e6, -3.3, 1e-9];
    let inputs = qkv::Inputs {
        spec: &spec,
        context: 2,
        rows: &rows,
        x: &x,
        weight: &identity,
        bias: None,
        query_norm: None,
        key_norm: None,
        rope: &[],
    };
    let before = vec![0.1; 8]; // no f16, and nobody's business
    let mut cache = KvCache { k: before.clone(), v: before.clone(), format: CacheFormat::F16 };
    assert_eq!(qkv::qkv(&inputs, &mut cache), x);
    let kept = x.map(|value| CacheFormat::F16.keep(value));
    assert_eq!(kept[..2], [1.0, 65504.0]);
    assert_eq!(cache.k, [&before[..4], &kept].concat());
    assert_eq!(cache.v, cache.k);
}

fn on(choice: DeviceChoice) -> DeviceOptions {
    DeviceOptions::from_env(choice)
}

fn load(directory: &Path, device: DeviceOptions, quant: &str, kv_cache: &str) -> Engine {
    let (quant, kv_cache) = (quant.parse().unwrap(), kv_cache.parse().unwrap());
    block_on(Engine::load(directory, &LoadOptions { device, quant, kv_cache, ..LoadOptions::default() }, &mut |_| {})).unwrap()
}

fn continued(engine: &mut Engine, prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let options = GenerateOptions {
        sampling: SamplingOptions::default(),
        stop: StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() },
    };
    block_on(async {
        let mut generation = engine.generate(prompt, &options).unwrap();
        while generation.next().await.unwrap().is_some() {}
        generation.finish().await.unwrap().ids
    })
}

fn logits(engine: &mut Engine, prompt: &[u32]) -> Vec<f32> {
    block_on(engine.forward(prompt)).unwrap().logits
}

#[test]
fn a_kernel_and_its_twin_agree_on_models_with_every_kind_of_cache() {
    if !gpu_or_skip() {
        return;
    }
    // Fused projections, heads turned by attention, sinks and windows, latents, chosen projections, filters.
    for golden in ["mixtral", "qwen3_moe", "gpt_oss", "deepseek_v3", "jetmoe", "yuan"].map(Golden::load) {
        let prompt = &golden.prompts[2];
        let run = |device: DeviceChoice, cache: &str| logits(&mut load(&golden.directory, on(device), "f32", cache), prompt);
        let (kernels, twins) = (run(DeviceChoice::Auto, "f16"), run(DeviceChoice::Cpu, "f16"));
        let exact = run(DeviceChoice::Cpu, "f32");
        let (apart, rounded) = (max_difference(&kernels, &twins), max_difference(&twins, &exact));
        println!("{}: kernels and twins {apart:.1e} apart, rounding {rounded:.1e}", golden.name);
        // Values that differ in their last bits, as those of later layers do, may lie on either side of a middle.
        assert!(apart <= rounded / 4.0, "{}: {apart} {rounded}", golden.name);
        // It is rounded, and only rounded.
        assert!(rounded > 0.0 && rounded < 0.05, "{}: {rounded}", golden.name);
    }
}

#[test]
fn the_demo_model_takes_half_the_cache_and_keeps_its_texts() {
    let text = std::fs::read_to_string(demo_model().join("expected.json")).unwrap();
    let cases: Vec<Value> = serde_json::from_str(&text).unwrap();
    let devices = [DeviceChoice::Cpu, DeviceChoice::Auto];
    for device in devices.into_iter().filter(|device| *device == DeviceChoice::Cpu || gpu_or_skip()) {
        let [mut half, mut full] = ["f16", "auto"].map(|cache| load(&demo_model(), on(device.clone()), "auto", cache));
        let formats = [&half, &full].map(|engine| engine.load_stats().kv_cache_format);
        assert_eq!(formats, [CacheFormat::F16, CacheFormat::F32]);
        assert_eq!(2 * half.load_stats().kv_cache_bytes, full.load_stats().kv_cache_bytes);
        let prompt = ids(&cases[0]["ids"]);
        let apart = max_difference(&logits(&mut half, &prompt), &logits(&mut full, &prompt));
        println!("{device:?}: largest difference of a logit {apart}");
        assert!(apart > 0.0 && apart < 0.05, "{apart}");
        for case in &cases {
            let expected = ids(&case["greedy"]);
            for engine in [&mut half, &mut full] {
                let found = continued(engine, &ids(&case["ids"]), expected.len());
                assert_eq!(found, expected, "{}", case["prompt"]);
            }
        }
    }
}

#[test]
fn an_f16_cache_survives_other_routing_and_other_tables() {
    if !gpu_or_skip() {
        return;
    }
    // Other shapes of activations keep the cache as it is; longer texts are run again.
    let golden = Golden::load("phimoe_long");
    let prompt = golden.prompts.iter().max_by_key(|prompt| prompt.len()).unwrap();
    let texts = [DeviceChoice::Auto, DeviceChoice::Cpu].map(|device| {
        let mut engine = load(&golden.directory, on(device), "f32", "f16");
        let text = continued(&mut engine, prompt, 40);
        let one = RoutingOverride { experts_per_token: Some(1), ..RoutingOverride::default() };
        block_on(engine.set_routing(&one)).unwrap();
        let changed = continued(&mut engine, prompt, 12);
        assert_ne!(changed, text[..12]);
        block_on(engine.set_routing(&RoutingOverride::default())).unwrap();
        assert_eq!(continued(&mut engine, prompt, 40), text);
        (text, changed)
    });
    assert_eq!(texts[0], texts[1]);
}
