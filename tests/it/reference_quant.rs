//! The reference computes with the values that a format holds.

use crate::common::{Golden, demo_model, golden};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::model::{QuantizeOptions, quantize};
use moebius::quant::QUANTS;
use moebius::{Engine, LoadOptions};
use pollster::block_on;
use std::path::Path;

fn logits(directory: &Path, quant: &str, prompt: &[u32]) -> Vec<f32> {
    let device = DeviceOptions::from_env(DeviceChoice::Cpu);
    let options = LoadOptions { device, quant: quant.parse().unwrap(), ..LoadOptions::default() };
    let mut engine = block_on(Engine::load(directory, &options, &mut |_| {})).unwrap();
    block_on(engine.forward(prompt)).unwrap().logits
}

#[test]
fn quantising_while_loading_gives_the_reference_the_bits_of_a_quantised_checkpoint() {
    // Plain attention, shared experts, latent attention, biases with MXFP4, and a tied embedding.
    for name in ["mixtral", "qwen2_moe", "deepseek_v2_lite", "gpt_oss", "granitemoe"] {
        let directory = golden("fixtures").join(name);
        let prompt = Golden::load(name).prompts[1].clone();
        let stored = logits(&directory, "auto", &prompt);
        for quant in QUANTS.iter().map(|quant| quant.name).chain(["experts=q4_0,head=q8_0"]) {
            let parent = tempfile::tempdir().unwrap();
            let out = parent.path().join("out");
            let options = QuantizeOptions { quant: Some(quant.parse().unwrap()), ..QuantizeOptions::default() };
            if let Err(error) = block_on(quantize(&directory, &out, &options, &mut |_, _| true)) {
                panic!("{name} in {quant}: {error}");
            }
            let quantised = logits(&out, "auto", &prompt);
            assert_eq!(logits(&directory, quant, &prompt), quantised, "{name} in {quant}");
            if quant.contains("q4") {
                assert_ne!(quantised, stored, "{name} in {quant}");
            }
        }
    }
}

#[test]
fn what_a_format_loses_shows_in_the_perplexity_of_the_reference() {
    let text = "It was the best of times, it was the worst of times, and nobody knew which.";
    let perplexity = |quant: &str| {
        let device = DeviceOptions::from_env(DeviceChoice::Cpu);
        let options = LoadOptions { device, quant: quant.parse().unwrap(), ..LoadOptions::default() };
        let mut engine = block_on(Engine::load(&demo_model(), &options, &mut |_| {})).unwrap();
        let ids = engine.tokenizer().encode(text, true).unwrap();
        block_on(engine.perplexity(&ids, &mut |_, _| {})).unwrap().value()
    };
    let (stored, exact, rough) = (perplexity("auto"), perplexity("f32"), perplexity("q4_0"));
    assert_eq!(stored, exact);
    assert!((rough / stored - 1.0).abs() > 1e-3, "{rough} beside {stored}");
}
