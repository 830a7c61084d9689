//! A prompt of which somebody wants no more, and kernels that are counted while they are compiled.

use crate::common::{demo_model, gpu_or_skip};
use moebius::generate::{GenerateOptions, SamplingOptions, StopReason, StopRules, Summary};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::model::Cancel;
use moebius::{Engine, LoadEvent, LoadOptions};
use pollster::block_on;
use std::time::Duration;

fn load(choice: DeviceChoice, on_event: &mut (dyn FnMut(LoadEvent) + Send)) -> Engine {
    let options = LoadOptions { device: DeviceOptions::from_env(choice), ..LoadOptions::default() };
    block_on(Engine::load(&demo_model(), &options, on_event)).unwrap()
}

fn greedy(max_tokens: usize) -> GenerateOptions {
    GenerateOptions {
        sampling: SamplingOptions::default(),
        stop: StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(max_tokens), stop_strings: Vec::new() },
    }
}

/// With a flag that ends it, or none.
fn generate(engine: &mut Engine, prompt: &[u32], cancel: Option<&Cancel>) -> Summary {
    let mut generation = engine.generate(prompt, &greedy(4)).unwrap();
    cancel.into_iter().for_each(|cancel| generation.heed(cancel.clone()));
    block_on(async {
        while generation.next().await.unwrap().is_some() {}
        generation.finish().await.unwrap()
    })
}

fn ids(len: usize) -> Vec<u32> {
    (0..len as u32).map(|index| index * 37 % 1000 + 5).collect()
}

#[test]
fn a_request_ends_a_long_prompt_between_two_chunks() {
    let mut engine = load(DeviceChoice::Cpu, &mut |_| {});
    let (prompt, cancel) = (ids(1000), Cancel::default());
    let request = cancel.clone();
    let ended = std::thread::scope(|scope| {
        scope.spawn(move || {
            // The reference takes longer for its first chunk.
            std::thread::sleep(Duration::from_millis(20));
            request.request();
        });
        generate(&mut engine, &prompt, Some(&cancel))
    });
    assert_eq!((&ended.stop, ended.ids.len(), ended.prefill_tokens), (&StopReason::Cancelled, 0, 0));
    let chosen: u64 = ended.expert_loads[0].iter().sum();
    let read = chosen as usize / engine.traced_layers()[0].experts_per_token;
    assert!(read < prompt.len() && read.is_multiple_of(256), "{read} tokens were read");
    // What was asked once is not asked of the next text.
    let whole = generate(&mut engine, &ids(30), None);
    assert_eq!((&whole.stop, whole.ids.len()), (&StopReason::MaxTokens, 4));
}

#[test]
fn nothing_runs_once_nothing_is_wanted() {
    let choices = [DeviceChoice::Cpu, DeviceChoice::Auto];
    for choice in choices.into_iter().filter(|choice| *choice == DeviceChoice::Cpu || gpu_or_skip()) {
        let mut engine = load(choice, &mut |_| {});
        let cancel = Cancel::default();
        cancel.request();
        let ended = generate(&mut engine, &ids(30), Some(&cancel));
        assert_eq!((&ended.stop, ended.ids.len()), (&StopReason::Cancelled, 0));
        assert!(cancel.reset() && !cancel.is_requested());
        assert_eq!(generate(&mut engine, &ids(30), Some(&cancel)).ids.len(), 4);
    }
}

#[test]
fn kernels_are_counted_while_they_are_compiled() {
    if !gpu_or_skip() {
        return;
    }
    let mut counts = Vec::new();
    let mut engine = load(DeviceChoice::Auto, &mut |event| {
        if let LoadEvent::Kernels { done, total } = event {
            counts.push((done, total));
        }
    });
    let total = engine.gpu().unwrap().num_pipelines() as u64;
    assert!(total > 5);
    assert_eq!(counts, (0..=total).map(|done| (done, total)).collect::<Vec<_>>());

    // Some drivers compile when a kernel is first used; after that there is nothing to count.
    for is_first in [true, false] {
        let mut counts = Vec::new();
        let mut generation = engine.generate(&ids(30), &greedy(4)).unwrap();
        block_on(generation.compile(&mut |done, total| counts.push((done, total)))).unwrap();
        block_on(async { while generation.next().await.unwrap().is_some() {} });
        let total = counts.last().map_or(0, |last| last.1);
        assert_eq!(total > 5, is_first);
        assert_eq!(counts, (0..=total).filter(|_| is_first).map(|done| (done, total)).collect::<Vec<_>>());
    }
}
