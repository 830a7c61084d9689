//! Tokens that halt because an expert is not there, anywhere: the same text, and nothing that ran behind a halt lasts.

use crate::common::{all_models, demo_model, gpu_device_with, gpu_or_skip, spec_of};
use moebius::batch::Sampling;
use moebius::checkpoint::{ModelFiles, WeightStore};
use moebius::gating::{ExpertAt, RoutingOverride};
use moebius::gpu::{Counts, DeviceChoice, DeviceOptions, Pace};
use moebius::model::{Decoder, Extent, GpuDecoder, LoadParts, Reach, Resume, Run};
use moebius::paging::PagingStats;
use moebius::platform::Stopwatch;
use moebius::quant::{CacheChoice, QuantChoice};
use moebius::spec::{BlockSpec, ModelSpec};
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use std::sync::Arc;

/// Steps of a text behind its prompt.
const STEPS: usize = 6;
/// What nobody may read: NaN, and in halves two of them.
const NAN: u32 = u32::MAX;

fn device(submit_layers: Option<usize>) -> DeviceOptions {
    let pace = Pace { seconds: 1e9, steps: Pace::MOST_STEPS };
    DeviceOptions { pace, submit_layers, ..DeviceOptions::from_env(DeviceChoice::Auto) }
}

/// The bundled model without two experts of each layer, so that slots for six of eight have room for all that is ever chosen.
fn spec() -> ModelSpec {
    let disabled = [6, 7].map(|expert| ExpertAt { expert, layer: None }).to_vec();
    spec_of(&demo_model()).with_routing(&RoutingOverride { disabled, ..RoutingOverride::default() }).unwrap()
}

fn decoder(memory: &str, submit_layers: Option<usize>) -> Decoder {
    let files = block_on(ModelFiles::open(&demo_model())).unwrap();
    let store: Arc<WeightStore> = block_on(files.weights()).unwrap().into();
    let device = gpu_device_with(&device(submit_layers)).expect("asked before");
    let (spec, quant, expert_memory) = (files.spec(), QuantChoice::default(), memory.parse().unwrap());
    let parts = LoadParts { device, spec, store, quant, cache: CacheChoice::Auto, context: 256, expert_memory };
    let mut decoder = Decoder::Gpu(Box::new(block_on(GpuDecoder::load(parts, &mut |_| {})).unwrap()));
    block_on(decoder.set_spec(self::spec())).unwrap();
    decoder
}

fn gpu(decoder: &mut Decoder) -> &mut GpuDecoder {
    match decoder {
        Decoder::Gpu(decoder) => decoder,
        Decoder::Reference(_) => unreachable!("it was loaded on a device"),
    }
}

/// Long enough to use every expert that may be chosen.
fn prompt() -> Vec<u32> {
    (0..96).map(|id| (id * 37 + 300) % 4096).collect()
}

/// Reads the prompt and gives the token that follows.
fn begin(decoder: &mut Decoder) -> u32 {
    block_on(async {
        decoder.begin(&Sampling::GREEDY, &[]).await.unwrap();
        decoder.prefill(&prompt(), 0).await.unwrap()
    })
}

fn decode(decoder: &mut Decoder, steps: usize) -> Vec<u32> {
    (0..steps).map(|done| block_on(decoder.decode(steps - done)).unwrap()).collect()
}

/// A text step by step with all experts there: its tokens, what every step chose in every layer, and what is kept of it.
struct Expected {
    first: u32,
    tokens: Vec<u32>,
    /// By step and place.
    chosen: Vec<Vec<Vec<u32>>>,
    states: Vec<u32>,
}

fn expected() -> Expected {
    let mut decoder = decoder("all", None);
    block_on(gpu(&mut decoder).fill_states(NAN)).unwrap();
    decoder.keep_routing(true);
    let first = begin(&mut decoder);
    let (mut tokens, mut chosen) = (Vec::new(), Vec::new());
    for _ in 0..STEPS {
        // Nothing runs ahead.
        tokens.push(block_on(decoder.decode(1)).unwrap());
        chosen.push(decoder.routing().iter().map(|layer| layer.expert_ids.clone()).collect());
    }
    let states = block_on(gpu(&mut decoder).read_states()).unwrap();
    Expected { first, tokens, chosen, states }
}

/// Has the best expert of each of these steps and places missing when it is used, and compares what comes of it.
fn compare(decoder: &mut Decoder, expected: &Expected, misses: &[(usize, usize)]) {
    assert_eq!(begin(decoder), expected.first);
    let loads = |decoder: &mut Decoder| gpu(decoder).paging().unwrap().decode.loads;
    let before = loads(decoder);
    let (mut tokens, mut evicted) = (Vec::new(), 0);
    for step in 0..STEPS {
        for &(at, place) in misses {
            // As early as nobody else needs it, so that the step runs behind others.
            let expert = expected.chosen[at][place][0];
            let since =
                (0..at).rev().find(|earlier| expected.chosen[*earlier][place].contains(&expert)).map_or(0, |last| last + 1);
            if since == step {
                let layer = spec().moe_layers().nth(place).unwrap().0;
                gpu(decoder).evict(layer, expert as usize).unwrap();
                evicted += 1;
            }
        }
        tokens.push(block_on(decoder.decode(STEPS - step)).unwrap());
    }
    assert_eq!(tokens, expected.tokens, "{misses:?}");
    assert_eq!(loads(decoder) - before, evicted, "{misses:?}");
    let states = block_on(gpu(decoder).read_states()).unwrap();
    let differ = expected.states.iter().zip(&states).filter(|(expected, _)| **expected != NAN).any(|(a, b)| a != b);
    assert!(!differ, "{misses:?}: other keys and values");
}

#[test]
fn a_miss_anywhere_changes_nothing() {
    if !gpu_or_skip() {
        return;
    }
    let expected = expected();
    let places = spec().moe_layers().count();
    // One layer at a time, two, and whole tokens, many at a time.
    for submit_layers in [Some(1), Some(2), Some(places * Pace::MOST_STEPS)] {
        let mut decoder = decoder("75%", submit_layers);
        block_on(gpu(&mut decoder).fill_states(NAN)).unwrap();
        begin(&mut decoder);
        // Steps that are submitted together become more by doubling.
        decode(&mut decoder, 40);
        compare(&mut decoder, &expected, &[]);
        for step in 0..STEPS {
            (0..places).for_each(|place| compare(&mut decoder, &expected, &[(step, place)]));
        }
        let steps = if std::env::var_os("FULL").is_some() { 0..STEPS - 1 } else { 2..3 };
        for step in steps {
            for (first, second) in (0..places).flat_map(|first| (0..places).map(move |second| (first, second))) {
                compare(&mut decoder, &expected, &[(step, first), (step + 1, second)]);
            }
        }
        if submit_layers > Some(places) {
            assert!(gpu(&mut decoder).paging().unwrap().wasted_layers > 0, "nothing ran behind a halt");
        }
    }
}

#[test]
fn a_model_that_has_what_it_needs_costs_no_command_more() {
    if !gpu_or_skip() {
        return;
    }
    let counted = |memory: &str| -> (Vec<u32>, Counts, Option<PagingStats>) {
        let mut decoder = decoder(memory, None);
        begin(&mut decoder);
        // Until nothing has been missing for long.
        decode(&mut decoder, 100);
        begin(&mut decoder);
        // Both begin with nothing in the queue, and with as many steps at a time as they take.
        decode(&mut decoder, 1);
        block_on(gpu(&mut decoder).device().finish("waiting")).unwrap();
        let before = gpu(&mut decoder).device().counts();
        let tokens = decode(&mut decoder, 96);
        (tokens, gpu(&mut decoder).device().counts() - before, gpu(&mut decoder).paging().cloned())
    };
    let (tokens, counts, none) = counted("all");
    assert!(none.is_none());
    let (paged_tokens, paged_counts, stats) = counted("75%");
    let PagingStats { decode, wasted_layers, .. } = stats.unwrap();
    assert_eq!((decode.loads, decode.stops, wasted_layers), (0, 0, 0));
    assert_eq!(paged_tokens, tokens);
    assert_eq!(paged_counts, counts);
}

/// The best of several turns each, because something else may run.
#[test]
fn a_model_that_has_what_it_needs_is_about_as_fast_as_a_resident_one() {
    if !gpu_or_skip() {
        return;
    }
    const TOKENS: usize = 64;
    let mut decoders = ["all", "75%"].map(|memory| decoder(memory, None));
    for decoder in &mut decoders {
        begin(decoder);
        decode(decoder, 120);
    }
    let mut best = [[f64::INFINITY; 2]; 2];
    for _ in 0..9 {
        for (decoder, best) in decoders.iter_mut().zip(&mut best) {
            let clock = Stopwatch::start();
            begin(decoder);
            best[0] = best[0].min(clock.seconds());
            let clock = Stopwatch::start();
            decode(decoder, TOKENS);
            best[1] = best[1].min(clock.seconds());
        }
    }
    let [prefill, decode] = [0, 1].map(|index| best[0][index] / best[1][index]);
    println!("with everything in slots: decode {decode:.3}, a prompt of 96 tokens {prefill:.3} of resident");
    // A look of the host at each layer would make it half.
    assert!(decode > 0.75 && prefill > 0.5, "{best:?}");
}

#[test]
fn one_miss_costs_one_look() {
    if !gpu_or_skip() {
        return;
    }
    let expected = expected();
    let places = spec().moe_layers().count();
    let mut decoder = decoder("75%", Some(places));
    let mut counts = |miss: Option<usize>| {
        begin(&mut decoder);
        if let Some(place) = miss {
            let (layer, _) = spec().moe_layers().nth(place).unwrap();
            gpu(&mut decoder).evict(layer, expected.chosen[0][place][0] as usize).unwrap();
        }
        let before = gpu(&mut decoder).device().counts();
        assert_eq!(block_on(decoder.decode(1)).unwrap(), expected.tokens[0]);
        gpu(&mut decoder).device().counts() - before
    };
    counts(None);
    let usual = counts(None);
    for place in 0..places {
        let stopped = counts(Some(place));
        assert_eq!((stopped.submits, stopped.readbacks), (usual.submits + 1, usual.readbacks + 1), "place {place}");
    }
}

#[test]
fn a_token_goes_on_where_all_it_needs_is_the_residual_stream() {
    let mut seen = [0; 2];
    for model in all_models() {
        let spec = spec_of(&model);
        let stepwise = ["arctic", "gemma4_moe", "longcat_flash"].iter().any(|name| model.ends_with(name));
        for (layer, _) in spec.moe_layers() {
            let resume = Resume::of(&spec, layer);
            let alone = spec.layers[layer].blocks.iter().any(|block| matches!(block, BlockSpec::Experts(_)));
            assert_eq!(resume == Resume::Layer, alone && !stepwise, "{} layer {layer}", model.display());
            seen[resume as usize] += 1;
        }
    }
    assert!(seen[0] > 30 && seen[1] >= 3, "{seen:?}");
}

/// Runs a controller through a device on which a look takes `stop` and a layer without its experts `idle` seconds, and a share of layers halts.
fn reach_after(stop: f64, idle: f64, share: f64) -> f64 {
    let mut reach = Reach::new(0.5);
    let (mut due, mut layer) = (0.0, 0usize);
    for _ in 0..4000 {
        let wanted = match reach.extent(48) {
            Extent::Layers(layers) => layers,
            Extent::Steps(steps) => 48 * steps.min(8),
        };
        let mut layers = 0;
        let mut halted = false;
        while layers < wanted && !halted {
            layer += 1;
            due += share;
            halted = due >= 1.0;
            if halted {
                due -= 1.0;
            } else {
                layers += 1;
            }
        }
        let wasted = if halted { wanted - layers - 1 } else { 0 };
        let seconds = stop + 2.0 * idle * layers as f64 + idle * wasted as f64;
        reach.observe(Run { layers, wasted, halted, seconds });
    }
    assert!(layer > 0);
    reach.wanted()
}

#[test]
fn reach_is_what_costs_least() {
    for (ratio, share) in [(1.0, 0.5), (1.0, 0.1), (1.0, 0.03), (4.0, 0.1), (20.0, 0.25), (20.0, 0.03)] {
        let best = f64::sqrt(2.0 * ratio / share).max(1.0);
        let found = reach_after(ratio * 1e-3, 1e-3, share);
        assert!(found > best / 2.0 && found < best * 2.0, "R/w = {ratio}, q = {share}: {found}, best {best}");
    }
    // Nothing halts: as much as anybody wants.
    assert_eq!(reach_after(1e-3, 1e-3, 0.0), f64::INFINITY);
    // Before anything is known it is neither.
    assert!(matches!(Reach::new(0.5).extent(48), Extent::Layers(1..=4)));
    // One halt after a long calm is heard at once.
    let mut reach = Reach::new(0.5);
    (0..40).for_each(|_| reach.observe(Run { layers: 48, wasted: 0, halted: false, seconds: 0.05 }));
    assert!(reach.is_calm());
    reach.observe(Run { layers: 20, wasted: 27, halted: true, seconds: 0.04 });
    assert!(!reach.is_calm() && reach.wanted().is_finite());
}

#[test]
fn a_token_whose_experts_no_dispatch_can_bind_is_refused() {
    if !gpu_or_skip() {
        return;
    }
    // A token of this model uses six experts, of 10 KiB in the down projection.
    let model = all_models().into_iter().find(|model| model.ends_with("deepseek")).unwrap();
    let of = |max_binding_bytes: u64| {
        let device = DeviceOptions { max_binding_bytes: Some(max_binding_bytes), ..device(None) };
        let (quant, expert_memory) = ("f32".parse().unwrap(), "50%".parse().unwrap());
        let options = LoadOptions { device, quant, expert_memory, context: Some(16), ..LoadOptions::default() };
        block_on(Engine::load(&model, &options, &mut |_| {})).map(drop)
    };
    let error = of(8 << 10).unwrap_err();
    assert!(matches!(error, Error::DeviceLimit { .. }), "{error}");
    let text = error.to_string();
    for part in ["6 experts", "bindings of 20.0 KiB", "4 of them", "`all`"] {
        assert!(text.contains(part), "{text}");
    }
    // What it names is enough, as far as experts are concerned.
    if let Err(error) = of(20 << 10) {
        assert!(!error.to_string().contains("when they are chosen"), "{error}");
    }
}
