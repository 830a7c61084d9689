//! Models whose experts do not all have room on the device: the same numbers, bit for bit, and what has to be loaded for them.

use crate::common::{all_models, demo_model, gpu_or_skip, spec_of};
use moebius::batch::LayerRouting;
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules, Summary};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::model::Forward;
use moebius::paging::{ExpertMemory, PagingStats, PolicyKind};
use moebius::trace::{Order, SimulationOptions, Source, Trace, TracedToken, simulate};
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use std::path::Path;

fn try_load(model: &Path, quant: &str, memory: &str) -> moebius::Result<Engine> {
    try_load_with(model, quant, memory, None)
}

/// `submit_layers`: how far the device runs before the host looks.
fn try_load_with(model: &Path, quant: &str, memory: &str, submit_layers: Option<usize>) -> moebius::Result<Engine> {
    let device = DeviceOptions { submit_layers, ..DeviceOptions::from_env(DeviceChoice::Auto) };
    let (quant, expert_memory) = (quant.parse().unwrap(), memory.parse().unwrap());
    let options = LoadOptions { device, quant, expert_memory, ..LoadOptions::default() };
    block_on(Engine::load(model, &options, &mut |_| {}))
}

fn load(model: &Path, quant: &str, memory: &str) -> Engine {
    try_load(model, quant, memory).unwrap_or_else(|error| panic!("{} with {memory}: {error}", model.display()))
}

fn options(temperature: f32, max_tokens: usize) -> GenerateOptions {
    let sampling = SamplingOptions { temperature, seed: 11, repeat_penalty: 1.1, ..SamplingOptions::default() };
    GenerateOptions {
        sampling,
        stop: StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() },
    }
}

/// A text, with the routing of every token that was run for it.
fn write(engine: &mut Engine, prompt: &[u32], options: &GenerateOptions) -> (Summary, Vec<Vec<LayerRouting>>) {
    let mut steps = Vec::new();
    let summary = block_on(async {
        let mut generation = engine.generate(prompt, options).unwrap();
        generation.keep_routing();
        while generation.next().await.unwrap().is_some() {
            steps.push(generation.routing().to_vec());
        }
        generation.finish().await.unwrap()
    });
    (summary, steps)
}

/// The ids of a text, and how often each expert was used for it.
type Text = (Vec<u32>, Vec<Vec<u64>>);

/// Everything that may show which experts were where: logits and routing of a text, two texts of which the second begins as the first, and loads.
fn all_of(engine: &mut Engine, vocab_size: usize) -> (Forward, Vec<Text>) {
    let prompt: Vec<u32> = (0..13).map(|id| (id * 97 + 5) % vocab_size as u32).collect();
    let forward = block_on(engine.forward(&prompt)).unwrap();
    let longer = [&prompt[..], &[1, 2, 3]].concat();
    let texts = [(&prompt[..], 0.0), (&longer, 0.9)].map(|(prompt, temperature)| {
        let (summary, _) = write(engine, prompt, &options(temperature, 8));
        (summary.ids, summary.expert_loads)
    });
    (forward, texts.to_vec())
}

/// The least share that has room for what a token uses in each layer, and one in the middle.
fn budgets(model: &Path) -> Vec<String> {
    let spec = spec_of(model);
    if spec.moe_layers().next().is_none() {
        return Vec::new();
    }
    let of_layer = |moe: &moebius::spec::MoeSpec| {
        let weighted = moe.router.num_weighted();
        100.0 * moe.router.num_experts_per_tok.min(weighted) as f64 / weighted as f64
    };
    let least = spec.moe_layers().map(|(_, moe)| of_layer(moe)).fold(0.0, f64::max);
    let budget = |percent: f64| format!("{}%", (percent * 100.0).ceil() / 100.0);
    let mut budgets = vec![budget(least)];
    budgets.extend((least < 50.0).then(|| budget((least + 100.0) / 2.0)));
    budgets
}

/// Families that store or connect their experts in different ways; `FULL=1` takes all.
const STRUCTURES: [&str; 10] = [
    "arctic",
    "deepseek_v3",
    "gemma4_moe",
    "gpt_oss",
    "granitemoeshared",
    "lfm2_moe",
    "llama4",
    "longcat_flash",
    "olmoe",
    "mixtral",
];

#[test]
fn every_family_computes_the_same_whatever_has_room() {
    if !gpu_or_skip() {
        return;
    }
    let is_full = std::env::var_os("FULL").is_some();
    let quants: &[&str] = if is_full { &["auto", "f32", "q8_0", "q4_0"] } else { &["auto"] };
    let mut paged = 0;
    for (index, model) in all_models().into_iter().enumerate() {
        if !is_full && !STRUCTURES.iter().any(|name| model.ends_with(name)) {
            continue;
        }
        let vocab_size = spec_of(&model).vocab_size;
        for quant in quants {
            let Ok(mut resident) = try_load(&model, quant, "all") else { continue };
            assert!(resident.paging().is_none());
            let (forward, texts) = all_of(&mut resident, vocab_size);
            drop(resident);
            let mut budgets = budgets(&model);
            if !is_full {
                // Kernels are compiled anew for every number of slots.
                budgets = vec![budgets.swap_remove(index % budgets.len().max(1))];
            }
            for (turn, memory) in budgets.into_iter().enumerate() {
                // As measured, and whole tokens whatever is missing.
                let submit_layers = if (index + turn) % 3 == 0 { None } else { Some(1000) };
                let about = format!("{} in {quant} with {memory}", model.display());
                let mut engine =
                    try_load_with(&model, quant, &memory, submit_layers).unwrap_or_else(|error| panic!("{about}: {error}"));
                let (found, found_texts) = all_of(&mut engine, vocab_size);
                assert_eq!(found.layers, forward.layers, "{about}");
                let bits = |values: &[f32]| values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
                assert!(bits(&found.logits) == bits(&forward.logits), "{about}: other logits");
                assert_eq!(found_texts, texts, "{about}");
                if let Some(PagingStats { decode, prefill, .. }) = engine.paging() {
                    paged += 1;
                    for counts in [decode, prefill] {
                        assert_eq!(counts.requests, counts.hits + counts.loads, "{about}");
                    }
                    assert!(prefill.loads > 0, "{about}: nothing was loaded");
                }
            }
        }
    }
    assert!(paged >= STRUCTURES.len(), "only {paged} models were paged");
}

#[test]
fn a_decoder_loads_what_the_simulator_says() {
    if !gpu_or_skip() {
        return;
    }
    for slots in [2, 4, 6] {
        let memory = format!("{}%", slots as f64 * 12.5);
        let mut engine = load(&demo_model(), "auto", &memory);
        // A prompt of one token is a step like any other.
        let (summary, steps) = write(&mut engine, &[300], &options(0.9, 80));
        let mut trace = Trace::new(Source::default(), engine.traced_layers());
        let domain = trace.domain("text");
        let ids: Vec<u32> = [300].into_iter().chain(summary.ids.iter().copied()).collect();
        for (position, routing) in steps.iter().enumerate() {
            trace.push(vec![TracedToken { domain, position, id: ids[position], text: "a".to_owned() }], routing);
        }
        let policy = PolicyKind::named("lfu").unwrap();
        let memory: ExpertMemory = memory.parse().unwrap();
        let expected =
            simulate(&trace, &SimulationOptions { policy, memory, order: Order::Decode, profile: None, text: None }).unwrap();
        let PagingStats { decode, .. } = engine.paging().unwrap();
        assert_eq!(
            (decode.tokens, decode.requests, decode.hits, decode.loads, decode.stops),
            (expected.tokens as u64, expected.requests, expected.hits, expected.loads, expected.stops),
            "{slots} slots"
        );
        assert_eq!(Some(decode.loaded_bytes), expected.loaded_bytes);
    }
}

#[test]
fn a_chunk_of_a_prompt_loads_each_expert_once_and_none_that_is_there() {
    if !gpu_or_skip() {
        return;
    }
    let mut engine = load(&demo_model(), "q4_0", "50%");
    let prompt: Vec<u32> = (0..700).map(|id| (id * 37 + 300) % 4096).collect();
    let forward = block_on(engine.forward(&prompt)).unwrap();
    // Chunks of 512 or fewer tokens; every one asks for each of its experts once.
    let PagingStats { prefill, slots, .. } = engine.paging().unwrap().clone();
    assert_eq!(slots, vec![4; forward.layers.len()]);
    let all = 8 * forward.layers.len() as u64;
    let chunks = prefill.requests / all;
    assert_eq!(prefill.requests, chunks * all, "long chunks use all experts of all layers");
    assert!(chunks >= 2);
    // What the chunk before has left stays, so that half of the experts are loaded from the second chunk on.
    assert_eq!(prefill.loads, all + (chunks - 1) * all / 2);
    assert_eq!(prefill.tokens, 700);
}

#[test]
fn too_little_memory_is_refused_with_what_would_do() {
    if !gpu_or_skip() {
        return;
    }
    for (memory, enough) in [("10%", "25%"), ("1MiB", "MiB")] {
        let error = try_load(&demo_model(), "auto", memory).unwrap_err();
        assert!(matches!(error, Error::ExpertMemory { .. }), "{error}");
        assert!(error.to_string().contains(enough), "{error}");
        assert!(error.hint().is_some());
    }
    for memory in ["all", "100%", "40GiB", "auto"] {
        assert!(load(&demo_model(), "auto", memory).paging().is_none(), "{memory}");
    }
}

#[test]
fn more_experts_per_token_than_slots_are_refused_and_change_nothing() {
    if !gpu_or_skip() {
        return;
    }
    let mut engine = load(&demo_model(), "auto", "25%");
    let (before, _) = write(&mut engine, &[5, 900, 77], &options(0.0, 6));
    let more = moebius::gating::RoutingOverride { experts_per_token: Some(3), ..Default::default() };
    let error = block_on(engine.set_routing(&more)).unwrap_err().to_string();
    assert!(error.contains("at most 2, the experts that have room on the device"), "{error}");
    let (after, _) = write(&mut engine, &[5, 900, 77], &options(0.0, 6));
    assert_eq!(after.ids, before.ids);
    let fewer = moebius::gating::RoutingOverride { experts_per_token: Some(1), ..Default::default() };
    block_on(engine.set_routing(&fewer)).unwrap();
    let (one, _) = write(&mut engine, &[5, 900, 77], &options(0.0, 6));
    let mut resident = load(&demo_model(), "auto", "all");
    block_on(resident.set_routing(&fewer)).unwrap();
    assert_eq!(one.ids, write(&mut resident, &[5, 900, 77], &options(0.0, 6)).0.ids);
}
