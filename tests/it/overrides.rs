//! Changed routing, on whole models: the device and the reference agree, and the model as trained comes back.

use crate::common::{Golden, demo_model, gpu_or_skip, max_difference};
use moebius::gating::{ExpertAt, RoutingOverride};
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::model::Forward;
use moebius::{Engine, LoadOptions};
use pollster::block_on;
use std::path::Path;

fn load(directory: &Path, choice: DeviceChoice) -> Engine {
    let device = DeviceOptions::from_env(choice);
    let options = LoadOptions { device, quant: "f32".parse().unwrap(), ..LoadOptions::default() };
    block_on(Engine::load(directory, &options, &mut |_| {})).unwrap()
}

fn at(expert: usize, layer: Option<usize>) -> ExpertAt {
    ExpertAt { expert, layer }
}

/// One change of each kind, in as few passes as there can be: every one compiles kernels anew.
fn overrides(golden: &Golden) -> Vec<RoutingOverride> {
    let (last, moe) = golden.spec.moe_layers().last().unwrap();
    // Where groups compete, those that are left must have so many.
    let more = (moe.router.num_experts_per_tok + 1).min(moe.router.num_experts - 2);
    let others = if moe.router.groups.is_some() { 2 } else { more };
    vec![
        RoutingOverride {
            forced: Some(at(2, None)),
            temperature: Some(0.5),
            experts_per_token: Some(1),
            ..RoutingOverride::default()
        },
        RoutingOverride {
            disabled: vec![at(0, None), at(1, Some(last))],
            experts_per_token: Some(others),
            temperature: Some(3.0),
            ..RoutingOverride::default()
        },
    ]
}

fn forward(engine: &mut Engine, routing: &RoutingOverride, prompt: &[u32]) -> Forward {
    block_on(engine.set_routing(routing)).unwrap();
    block_on(engine.forward(prompt)).unwrap()
}

fn generate(engine: &mut Engine, prompt: &[u32], max_tokens: usize) -> Vec<u32> {
    let stop = StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() };
    let options = GenerateOptions { sampling: SamplingOptions::default(), stop };
    block_on(async {
        let mut generation = engine.generate(prompt, &options).unwrap();
        while generation.next().await.unwrap().is_some() {}
        generation.finish().await.unwrap().ids
    })
}

#[test]
fn device_and_reference_agree_on_every_change_of_every_kind_of_router() {
    if !gpu_or_skip() {
        return;
    }
    for name in ["mixtral", "phimoe", "gpt_oss", "llama4_text", "deepseek_v3"] {
        let golden = Golden::load(name);
        let prompt = &golden.prompts[1];
        let [mut gpu, mut cpu] = [DeviceChoice::Auto, DeviceChoice::Cpu].map(|choice| load(&golden.directory, choice));
        for routing in overrides(&golden) {
            let [found, expected] = [&mut gpu, &mut cpu].map(|engine| forward(engine, &routing, prompt));
            assert_eq!(found.layers.len(), expected.layers.len());
            for (found, expected) in found.layers.iter().zip(&expected.layers) {
                assert_eq!(found.expert_ids, expected.expert_ids, "{name}, {routing}, layer {}", found.layer);
            }
            let difference = max_difference(&found.logits, &expected.logits);
            assert!(difference < 1e-3, "{name}, {routing}: {difference}");
        }
        // A decode step takes other kernels.
        assert_eq!(generate(&mut gpu, prompt, 4), generate(&mut cpu, prompt, 4), "{name}");
        // As trained again, on the same engine.
        golden.assert_logits(1, &forward(&mut gpu, &RoutingOverride::default(), prompt).logits);
    }
}

#[test]
fn a_change_is_in_what_the_routers_did_and_needs_no_reload() {
    let golden = Golden::load("mixtral");
    let choices = if gpu_or_skip() { vec![DeviceChoice::Auto, DeviceChoice::Cpu] } else { vec![DeviceChoice::Cpu] };
    for choice in choices {
        let mut engine = load(&golden.directory, choice);
        let prompt = golden.prompts[0].as_slice();
        let allocated = |engine: &Engine| engine.gpu().map(|device| device.allocated_bytes());
        generate(&mut engine, prompt, 2);
        let routing = RoutingOverride { disabled: vec![at(1, None)], forced: Some(at(3, None)), ..RoutingOverride::default() };
        let before = allocated(&engine);
        for layer in forward(&mut engine, &routing, prompt).layers {
            for chosen in layer.expert_ids.chunks_exact(2) {
                assert!(chosen[0] == 3 && chosen[1] != 1, "{chosen:?}");
            }
        }
        // New recordings, and nothing of the size of a weight.
        if let (Some(before), Some(after)) = (before, allocated(&engine)) {
            assert!(after - before < 1 << 20, "{}", after - before);
        }
        let routing = RoutingOverride { experts_per_token: Some(3), ..RoutingOverride::default() };
        let layers = forward(&mut engine, &routing, prompt).layers;
        assert!(layers.iter().all(|layer| layer.expert_ids.len() == 3 * prompt.len()));
    }
}

#[test]
fn other_routing_runs_the_whole_prompt_again() {
    let mut engine = load(&demo_model(), DeviceChoice::Cpu);
    let prompt = engine.tokenizer().encode("The king said", true).unwrap();
    let trained = generate(&mut engine, &prompt, 5);
    block_on(engine.set_routing(&RoutingOverride { forced: Some(at(0, None)), ..RoutingOverride::default() })).unwrap();
    assert_ne!(generate(&mut engine, &prompt, 5), trained);
    block_on(engine.set_routing(&RoutingOverride::default())).unwrap();
    assert_eq!(generate(&mut engine, &prompt, 5), trained);
}

#[test]
fn a_refused_change_leaves_the_engine_as_it_was() {
    let golden = Golden::load("mixtral");
    let mut engine = load(&golden.directory, DeviceChoice::Cpu);
    for (routing, expected) in [
        (RoutingOverride { forced: Some(at(0, Some(77))), ..RoutingOverride::default() }, "layer: expected one with a router"),
        (RoutingOverride { experts_per_token: Some(1000), ..RoutingOverride::default() }, "experts per token"),
    ] {
        let error = block_on(engine.set_routing(&routing)).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
        assert!(engine.routing().is_none());
    }
    golden.assert_logits(0, &block_on(engine.forward(&golden.prompts[0])).unwrap().logits);
}
