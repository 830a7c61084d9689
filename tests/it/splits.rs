//! Attention of one token whose keys several workgroups of a GPU share.

use crate::common::{Golden, gpu_device_with, gpu_or_skip};
use moebius::batch::CacheShape;
use moebius::batch::rng::pcg;
use moebius::bench::{Bench, RoofOptions, Subject, SubjectOptions, Test, Work};
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules};
use moebius::gpu::{Caps, DeviceChoice, DeviceOptions, Overrides, Profile};
use moebius::kernels::attention::{self, Problem};
use moebius::quant::CacheFormat;
use moebius::reference::attention_merge::{Inputs, attention_merge};
use moebius::spec::{AttentionSpec, Mask};
use moebius::{Engine, LoadOptions};
use pollster::block_on;

#[test]
fn keys_are_split_only_of_one_token_over_a_long_context_on_a_gpu() {
    let spec = AttentionSpec::new(32, 8, 128);
    let splits = |spec: &AttentionSpec, profile, num_tokens, context| {
        let caps = Caps { profile, ..Caps::webgpu_default() };
        attention::splits(&caps, &Problem::of_spec(spec, num_tokens, CacheShape { context, format: CacheFormat::F32 }))
    };
    let on_gpu = |spec: &AttentionSpec, context| splits(spec, Profile::Gpu, 1, context);
    // Eight groups of heads: sixteen parts each make 128 workgroups, of 128 keys at least.
    assert_eq!([1024, 1025, 2048, 4096, 131_072].map(|context| on_gpu(&spec, context)), [1, 8, 16, 16, 16]);
    // Four of them: thirty-two, which is the most.
    assert_eq!([4, 2].map(|kv_heads| on_gpu(&AttentionSpec::new(8 * kv_heads, kv_heads, 128), 8192)), [32, 32]);
    // Where there are more groups there are fewer parts.
    assert_eq!([64, 127, 128].map(|heads| on_gpu(&AttentionSpec::new(heads, heads, 128), 8192)), [2, 2, 1]);
    for (mask, expected) in [(Mask::Window(128), 1), (Mask::Window(1024), 1), (Mask::Window(2048), 16), (Mask::Chunk(8192), 16)] {
        assert_eq!(on_gpu(&AttentionSpec { mask, ..spec.clone() }, 131_072), expected, "{mask:?}");
    }
    assert_eq!(splits(&spec, Profile::Gpu, 2, 8192), 1);
    assert_eq!(splits(&spec, Profile::Cpu, 1, 8192), 1);
}

#[test]
fn splits_meet_as_if_they_had_been_one() {
    // One head, values of 4: three keys of the same score in one part, one of them in another, none in the third.
    let part = |value: f32, top: f32, sum: f32| vec![value, 2.0 * value, 0.0, -value, top, sum, 7.0, 7.0];
    let partials = [part(3.0, 1.0, 3.0), part(5.0, 1.0, 1.0), part(0.0, -3e38, 0.0)].concat();
    let merged = |sinks| attention_merge(&Inputs { splits: 3, value_dim: 4, partials: &partials, sinks });
    assert_eq!(merged(None), [2.0, 4.0, 0.0, -2.0]);
    // The sink counts once, as four more keys without a value.
    let sink = [1.0 + 4f32.ln()];
    assert_eq!(merged(Some(&sink)), [1.0, 2.0, 0.0, -1.0]);
    // Another highest score, a thousand times as heavy.
    let partials = [part(1.0, 0.0, 1.0), part(2000.0, 0.0, 1000.0)].concat();
    let light = attention_merge(&Inputs { splits: 2, value_dim: 4, partials: &partials, sinks: None });
    let partials = [part(1.0, 0.0, 1.0), part(2.0, 1000f32.ln(), 1.0)].concat();
    let heavy = attention_merge(&Inputs { splits: 2, value_dim: 4, partials: &partials, sinks: None });
    assert!(light.iter().zip(&heavy).all(|(light, heavy)| (light - heavy).abs() < 1e-5), "{light:?} {heavy:?}");
}

fn in_profile(profile: Profile) -> DeviceOptions {
    // Bounds checks keep a software device from compiling for minutes what is meant for real ones.
    let overrides = Overrides { profile: Some(profile), checked_shaders: profile == Profile::Gpu, ..Overrides::from_env() };
    DeviceOptions { overrides, ..DeviceOptions::from_env(DeviceChoice::Auto) }
}

#[test]
fn a_long_text_goes_on_as_it_does_where_keys_are_not_split() {
    if !gpu_or_skip() {
        return;
    }
    let options = GenerateOptions {
        sampling: SamplingOptions::default(),
        stop: StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(16), stop_strings: Vec::new() },
    };
    // Sinks and windows; heads that attention turns itself; latents.
    for golden in ["gpt_oss", "hunyuan_v1_moe", "deepseek_v3"].map(Golden::load) {
        // The newest key before and after the end of a part, and in parts that were empty so far.
        for len in [250, 1270] {
            let prompt: Vec<u32> = (0..len).map(|position| pcg(position) % golden.spec.vocab_size as u32).collect();
            let [split, whole] = [Profile::Gpu, Profile::Cpu].map(|profile| {
                let quant = "f32".parse().unwrap();
                let load = LoadOptions { device: in_profile(profile), quant, context: Some(2048), ..LoadOptions::default() };
                let mut engine = block_on(Engine::load(&golden.directory, &load, &mut |_| {})).unwrap();
                let ids = block_on(async {
                    let mut generation = engine.generate(&prompt, &options).unwrap();
                    while generation.next().await.unwrap().is_some() {}
                    generation.finish().await.unwrap().ids
                });
                let merges = engine.gpu().unwrap().pipelines().iter().any(|(kernel, _)| *kernel == "attention_merge");
                assert_eq!(merges, profile == Profile::Gpu, "{}", golden.name);
                ids
            });
            assert_eq!(split.len(), 16);
            assert_eq!(split, whole, "{} after {len} tokens", golden.name);
        }
    }
}

#[test]
fn a_long_context_takes_one_dispatch_more_per_layer_and_a_short_one_none() {
    if !gpu_or_skip() {
        return;
    }
    let golden = Golden::load("hunyuan_v1_moe");
    let test = Test { work: Work::Decode(2), depth: 0 };
    let layers = golden.spec.layers.len() as f64;
    let dispatches = |profile, context| {
        let device = gpu_device_with(&in_profile(profile)).expect("asked before");
        let roofs = RoofOptions { bytes: 1 << 20, seconds: 0.001 };
        let options = SubjectOptions { context: Some(context), roofs, ..SubjectOptions::default() };
        let subject = Subject::Checkpoint(golden.directory.clone());
        let mut bench = block_on(Bench::load(device, &subject, &[test], &options, &mut |_| {})).unwrap();
        assert!(bench.num_pipelines() <= 40, "{} pipelines", bench.num_pipelines());
        block_on(bench.run(test, 1)).unwrap().dispatches_per_token
    };
    let short = dispatches(Profile::Gpu, 1024);
    assert_eq!(dispatches(Profile::Gpu, 2048), short + layers);
    assert_eq!(dispatches(Profile::Cpu, 2048), dispatches(Profile::Cpu, 1024));
}
