//! Steps that run before their tokens are asked for: nothing but the time may show it.

use crate::common::{demo_model, gpu_device_with, gpu_or_skip};
use moebius::batch::LayerRouting;
use moebius::bench::{Bench, RoofOptions, Subject, SubjectOptions, Test, TestReport, Work};
use moebius::generate::{GenerateOptions, SamplingOptions, StopReason, StopRules, Summary};
use moebius::gpu::{DeviceChoice, DeviceOptions, Pace};
use moebius::{Engine, LoadOptions};
use pollster::block_on;

/// One step at a time in one piece; as many as allowed; more than 32 pieces per step.
const PACES: [Pace; 3] = [
    Pace { seconds: 1e9, steps: 1 },
    Pace { seconds: 1e9, steps: Pace::MOST_STEPS },
    Pace { seconds: 1e-9, steps: Pace::MOST_STEPS },
];

fn device(pace: Pace) -> DeviceOptions {
    DeviceOptions { pace, ..DeviceOptions::from_env(DeviceChoice::Auto) }
}

fn load(pace: Pace, context: Option<usize>) -> Engine {
    let options = LoadOptions { device: device(pace), context, ..LoadOptions::default() };
    block_on(Engine::load(&demo_model(), &options, &mut |_| {})).unwrap()
}

fn options(max_tokens: usize, eos_ids: &[u32]) -> GenerateOptions {
    let sampling = SamplingOptions { temperature: 0.9, seed: 11, repeat_penalty: 1.1, ..SamplingOptions::default() };
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

#[test]
fn texts_loads_and_continuations_are_those_of_single_steps() {
    if !gpu_or_skip() {
        return;
    }
    let prompt: Vec<u32> = (0..9).map(|id| id * 97 + 300).collect();
    let mut outcomes = Vec::new();
    for pace in PACES {
        let mut engine = load(pace, None);
        let whole = generate(&mut engine, &prompt, &options(60, &[]), usize::MAX);
        assert_eq!(whole.ids.len(), 60);
        // Ended by a token that comes when later steps have run, by the caller, and by the limit; and each goes on.
        let eos = whole.ids[41];
        let first = whole.ids.iter().position(|&id| id == eos).unwrap();
        let ended = generate(&mut engine, &prompt, &options(60, &[eos]), usize::MAX);
        assert_eq!((&ended.ids[..], ended.stop.clone()), (&whole.ids[..first + 1], StopReason::Eos));
        let cancelled = generate(&mut engine, &prompt, &options(60, &[]), 23);
        assert_eq!((&cancelled.ids[..], cancelled.stop.clone()), (&whole.ids[..23], StopReason::Cancelled));
        for (summary, tokens) in [(&ended, first + 1), (&cancelled, 23)] {
            let run = summary.prefill_tokens + tokens - 1;
            assert!(summary.expert_loads.iter().all(|loads| loads.iter().sum::<u64>() == 2 * run as u64), "{pace:?}");
        }
        let longer = [&prompt[..], &cancelled.ids].concat();
        let next = generate(&mut engine, &longer, &options(20, &[]), usize::MAX);
        outcomes.push((whole.ids, ended.expert_loads, cancelled.expert_loads, next.ids, next.expert_loads));
    }
    assert_eq!(outcomes[0], outcomes[1]);
    assert_eq!(outcomes[0], outcomes[2]);
}

#[test]
fn routing_is_that_of_single_steps() {
    if !gpu_or_skip() {
        return;
    }
    let traced = |pace: Pace| -> Vec<Vec<LayerRouting>> {
        let mut engine = load(pace, None);
        let mut steps = Vec::new();
        block_on(async {
            let mut generation = engine.generate(&[5, 900, 77], &options(40, &[])).unwrap();
            generation.keep_routing();
            while generation.next().await.unwrap().is_some() {
                steps.push(generation.routing().to_vec());
            }
        });
        steps
    };
    let [single, many, pieces] = PACES.map(traced);
    assert_eq!(single.len(), 40);
    assert_eq!(single[39][0].expert_ids.len(), 2);
    assert!(single == many && single == pieces);
}

#[test]
fn a_full_context_ends_the_text_where_it_always_did() {
    if !gpu_or_skip() {
        return;
    }
    let outcomes = PACES.map(|pace| generate(&mut load(pace, Some(32)), &[1, 2, 3], &options(500, &[]), usize::MAX));
    for outcome in &outcomes {
        assert_eq!((outcome.ids.len(), outcome.stop.clone()), (30, StopReason::ContextFull));
        assert_eq!(outcome.ids, outcomes[0].ids);
    }
}

#[test]
fn one_readback_brings_eight_tokens_and_long_steps_are_cut() {
    if !gpu_or_skip() {
        return;
    }
    let report = |pace: Pace| -> TestReport {
        let device = gpu_device_with(&device(pace)).expect("asked before");
        let test = Test { work: Work::Decode(64), depth: 0 };
        let roofs = RoofOptions { bytes: 8 << 20, seconds: 0.001 };
        let subject = Subject::Checkpoint(demo_model());
        let options = SubjectOptions { roofs, ..SubjectOptions::default() };
        let mut bench = block_on(Bench::load(device, &subject, &[test], &options, &mut |_| {})).unwrap();
        block_on(bench.run(test, 1)).unwrap()
    };
    let ahead = report(Pace { seconds: 1e9, steps: 8 });
    assert_eq!((ahead.readbacks_per_token, ahead.submits_per_token), (0.125, 0.125));
    let [single, many, cut] = PACES.map(report);
    assert_eq!((single.readbacks_per_token, single.submits_per_token), (1.0, 1.0));
    assert_eq!(many.readbacks_per_token, 1.0 / 16.0);
    // Every command by itself.
    assert_eq!(cut.readbacks_per_token, 1.0);
    assert!(cut.submits_per_token > cut.dispatches_per_token, "{cut:?}");
    assert!([&ahead, &many, &cut].iter().all(|report| report.dispatches_per_token == single.dispatches_per_token));
}
