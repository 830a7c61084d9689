//! Scratch of a device that is kept: `Engine::taps` and `moebius logits --taps`.

use crate::common::{Golden, gpu_or_skip, max_difference};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::model::{TAPS, Tap, TapChoice};
use moebius::{Engine, LoadOptions};
use pollster::block_on;
use std::collections::BTreeSet;

/// As long as several passes of taps, and one token more.
const LONG: usize = 65;

fn load(name: &'static str) -> Engine {
    let options = LoadOptions { device: DeviceOptions::from_env(DeviceChoice::Auto), ..LoadOptions::default() };
    block_on(Engine::load(&Golden::load(name).directory, &options, &mut |_| {})).unwrap()
}

fn choice(text: &str) -> TapChoice {
    text.parse().unwrap()
}

fn floats(tap: &Tap) -> Vec<f32> {
    tap.words.iter().map(|word| f32::from_bits(*word)).collect()
}

#[test]
fn taps_of_a_router_are_the_routing() {
    if !gpu_or_skip() {
        return;
    }
    let mut engine = load("mixtral");
    let prompt: Vec<u32> = (0..LONG as u32).map(|index| 1 + index % 40).collect();
    let forward = block_on(engine.forward(&prompt)).unwrap();
    let taps = block_on(engine.taps(&prompt, &[choice("router_logits"), choice("expert_ids@1")])).unwrap();
    let names: Vec<(usize, &str)> = taps.iter().map(|tap| (tap.layer, tap.name)).collect();
    assert_eq!(names, [(0, "router_logits"), (1, "expert_ids"), (1, "router_logits"), (2, "router_logits")]);
    for tap in &taps {
        let routing = &forward.layers[tap.layer];
        match tap.name {
            "expert_ids" => assert_eq!(tap.words, routing.expert_ids),
            // Other passes take other kernels for what is short.
            _ => assert!(max_difference(&floats(tap), &routing.router_logits) < 1e-4, "layer {}", tap.layer),
        }
    }
}

#[test]
fn the_residual_stream_is_kept_after_every_block() {
    if !gpu_or_skip() {
        return;
    }
    let mut engine = load("mixtral");
    for prompt in [&[5][..], &[5, 9, 3]] {
        let taps = block_on(engine.taps(prompt, &[choice("x")])).unwrap();
        let places: Vec<(usize, usize)> = taps.iter().map(|tap| (tap.layer, tap.block)).collect();
        assert_eq!(places, [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1)]);
        let mut seen: Vec<Vec<f32>> = Vec::new();
        for tap in &taps {
            let values = floats(tap);
            assert_eq!(values.len(), prompt.len() * tap.width);
            assert!(values.iter().all(|value| value.is_finite()) && !seen.contains(&values), "every block adds something");
            seen.push(values);
        }
    }
}

#[test]
fn every_name_of_scratch_is_in_the_list_of_taps() {
    if !gpu_or_skip() {
        return;
    }
    let mut found = BTreeSet::new();
    for name in [
        "mixtral",
        "deepseek_v2",
        "jetmoe",
        "yuan",
        "gemma4_moe",
        "longcat_flash",
        "qwen2_moe",
        "llama_moe",
        "lfm2_moe",
        "granitemoehybrid",
        "kimi_linear",
        "jamba",
    ] {
        let mut engine = load(name);
        for prompt in [&[5][..], &[5, 9, 3]] {
            for (name, _) in TAPS {
                if let Ok(taps) = block_on(engine.taps(prompt, &[choice(name)])) {
                    found.extend(taps.iter().map(|tap| tap.name));
                }
            }
            let problem = block_on(engine.taps(prompt, &[choice("x@1000")])).unwrap_err().to_string();
            let (_, names) = problem.split_once("this model: ").expect("the names that there are");
            let known = |name: &str| TAPS.iter().any(|(known, _)| *known == name);
            let names = names.split([',', ';']).map(str::trim).take_while(|name| !name.contains(' '));
            names.for_each(|name| assert!(known(name), "`{name}` is missing in TAPS"));
        }
    }
    let unseen: Vec<&str> = TAPS.iter().map(|(name, _)| *name).filter(|name| !found.contains(name)).collect();
    assert!(unseen.is_empty(), "no model has {unseen:?}");
}

#[test]
fn what_is_no_tap_is_refused_with_the_names_that_are() {
    let problem = |text: &str| text.parse::<TapChoice>().unwrap_err().to_string();
    assert!(problem("atended").contains("did you mean `attended`?"), "{}", problem("atended"));
    assert!(problem("x@one").contains("with a number"), "{}", problem("x@one"));
    let options = LoadOptions::on(DeviceChoice::Cpu);
    let mut engine = block_on(Engine::load(&Golden::load("mixtral").directory, &options, &mut |_| {})).unwrap();
    let refused = block_on(engine.taps(&[1, 2], &[choice("x")])).unwrap_err().to_string();
    assert!(refused.contains("taps are buffers of a device"), "{refused}");
}
