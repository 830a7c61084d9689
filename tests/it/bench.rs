//! Roofs, counters and benchmarks.

use crate::common::{Golden, demo_model, golden, gpu_device, gpu_device_with, gpu_or_skip};
use moebius::bench::{
    Bench, Curve, RoofOptions, Subject, SubjectOptions, Test, Work, measure_roofs, svg, sweep_curves, sweep_tests,
};
use moebius::error::human_bytes;
use moebius::gpu::{Counts, Device, DeviceOptions, Overrides, Recording};
use moebius::kernels::norm;
use moebius::quant::QuantChoice;
use moebius::spec::NormSpec;
use pollster::block_on;

/// Enough to measure something, and not more.
const QUICK: RoofOptions = RoofOptions { bytes: 8 << 20, seconds: 0.001 };

#[test]
fn roofs_are_positive_and_finite() {
    let Some(device) = gpu_device() else { return };
    let roofs = block_on(measure_roofs(&device, &QUICK)).unwrap();
    assert_eq!(roofs.bytes, QUICK.bytes);
    for roof in [roofs.read_gb_s, roofs.copy_gb_s, roofs.fma_gflop_s, roofs.gap_us] {
        assert!(roof.is_finite() && roof > 0.0, "{roofs:?}");
    }
}

#[test]
fn a_probe_that_does_nothing_is_noticed() {
    for probe in ["probe_read", "probe_copy", "probe_multiply", "probe_count", "probe_fill"] {
        let options = DeviceOptions { break_kernel: Some(probe.to_owned()), ..Default::default() };
        let Some(device) = gpu_device_with(&options) else { return };
        let error = block_on(measure_roofs(&device, &QUICK)).expect_err(probe).to_string();
        assert!(error.contains("a probe left"), "{probe}: {error}");
    }
}

/// A recording of so many norms, each after the other.
fn some_norms(device: &Device, count: usize) -> Recording {
    let record = || {
        let mut recording = Recording::default();
        let [x, weight, y] = ["x", "weight", "y"].map(|label| device.storage(label, 4 * 64));
        let problem = norm::Problem {
            first_row: 0,
            num_tokens: 1,
            cols: 64,
            norm: NormSpec::rms(1e-5),
            residual: None,
            output_scale: false,
            rescale: None,
        };
        for layer in 0..count {
            let buffers = norm::Buffers { x: &x, weight: &weight, y: &y, output_scale: None };
            norm::record(device, &mut recording, Some(layer), &problem, &buffers)?;
        }
        recording.clear(&y);
        recording.copy(&x, &y, 0, 16);
        Ok(recording)
    };
    block_on(device.catch("recording norms", record)).unwrap()
}

#[test]
fn dispatches_submits_and_readbacks_are_counted_where_they_happen() {
    let Some(device) = gpu_device() else { return };
    let (three, one) = (some_norms(&device, 3), some_norms(&device, 1));
    let counted = |work: &dyn Fn()| {
        let before = device.counts();
        work();
        device.counts() - before
    };
    let counts = counted(&|| block_on(device.submit("norms", &[&three, &one, &three])).unwrap());
    assert_eq!(counts, Counts { dispatches: 7, submits: 1, readbacks: 0 });
    let buffer = device.storage("something", 64);
    let counts = counted(&|| drop(block_on(device.read("reading", &buffer, 64)).unwrap()));
    assert_eq!(counts, Counts { dispatches: 0, submits: 1, readbacks: 1 });
    let counts = counted(&|| block_on(device.finish("waiting")).unwrap());
    assert_eq!(counts, Counts::default());
}

#[test]
fn a_profile_has_the_time_of_every_dispatch_with_and_without_timestamps() {
    for no_timestamps in [false, true] {
        let overrides = Overrides { no_timestamps, ..Overrides::from_env() };
        let Some(device) = gpu_device_with(&DeviceOptions { overrides, ..Default::default() }) else { return };
        assert!(!(no_timestamps && device.caps().timestamps));
        let (three, many) = (some_norms(&device, 3), some_norms(&device, 2100));
        block_on(device.submit("before", &[&three])).unwrap();
        device.start_profile();
        // More than one query set holds.
        let profiled: &[&Recording] = if no_timestamps { &[&three] } else { &[&three, &many] };
        block_on(device.submit("norms", profiled)).unwrap();
        let times = device.take_profile();
        block_on(device.submit("after", &[&three])).unwrap();

        assert_eq!(times.len(), if no_timestamps { 3 } else { 2103 });
        assert!(device.take_profile().is_empty());
        for (index, time) in times.iter().enumerate() {
            assert_eq!((time.kernel, time.layer), ("norm", Some(if index < 3 { index } else { index - 3 })));
            assert!((0.0..1.0).contains(&time.seconds), "{}", time.seconds);
            let bound: Vec<_> =
                time.bound.iter().map(|bound| (bound.binding, &*bound.label, bound.bytes, bound.is_written)).collect();
            assert_eq!(bound, [("x", "x", 256, false), ("weight", "weight", 256, false), ("y", "y", 256, true)]);
        }
        assert!(times.iter().any(|time| time.seconds > 0.0));
    }
}

fn load(subject: &Subject, tests: &[Test], options: &SubjectOptions) -> moebius::Result<Bench> {
    load_on(gpu_device().expect("asked before"), subject, tests, options)
}

fn load_on(device: Device, subject: &Subject, tests: &[Test], options: &SubjectOptions) -> moebius::Result<Bench> {
    let options = SubjectOptions { roofs: QUICK, ..options.clone() };
    block_on(Bench::load(device, subject, tests, &options, &mut |_| {}))
}

fn prefill(tokens: usize, depth: usize) -> Test {
    Test { work: Work::Prefill(tokens), depth }
}

fn decode(tokens: usize, depth: usize) -> Test {
    Test { work: Work::Decode(tokens), depth }
}

#[test]
fn a_bench_of_the_demo_model_counts_and_measures() {
    if !gpu_or_skip() {
        return;
    }
    let tests = [prefill(9, 0), decode(3, 0), decode(2, 20), prefill(5, 300)];
    assert_eq!(tests.map(|test| test.name()), ["pp9", "tg3", "tg2@d20", "pp5@d300"]);
    assert_eq!(tests.map(|test| test.positions()), [9, 4, 22, 305]);
    let mut bench = load(&Subject::Checkpoint(demo_model()), &tests, &SubjectOptions::default()).unwrap();
    assert_eq!((bench.context(), bench.formats()), (305, vec!["bf16"]));
    let reports = tests.map(|test| block_on(bench.run(test, 2)).unwrap());
    for report in &reports {
        assert_eq!(report.samples.len(), 2);
        assert!(report.samples.iter().all(|sample| sample.is_finite() && *sample > 0.0), "{report:?}");
        assert!(report.tokens_per_second() > 0.0 && report.stddev() >= 0.0);
        let is_decode = matches!(report.test.work, Work::Decode(_));
        assert_eq!((report.read_roof_share.is_some(), report.fma_roof_share.is_some()), (is_decode, !is_decode));
        assert!(report.read_roof_share.or(report.fma_roof_share).unwrap() > 0.0);
    }
    // The same plan for every token, whatever came before it.
    let [_, short, deep, _] = &reports;
    assert_eq!(short.dispatches_per_token.fract(), 0.0);
    assert_eq!(short.dispatches_per_token, deep.dispatches_per_token);
    // Per layer: qkv, attention, its output, router with or without top-k, gate and up, down. Besides: embedding, head, sampler.
    let demo_layers = 6.0;
    assert!(short.dispatches_per_token <= most_per_layer(&bench) * demo_layers + 3.0, "{}", short.dispatches_per_token);
    assert!(short.readbacks_per_token <= 1.0);

    let kernels = block_on(bench.kernels(decode(1, 20), 2)).unwrap();
    assert_eq!(kernels.iter().map(|kernel| kernel.dispatches).sum::<f64>(), short.dispatches_per_token);
    assert!((kernels.iter().map(|kernel| kernel.share).sum::<f64>() - 1.0).abs() < 1e-9);
    assert!(kernels.is_sorted_by(|a, b| a.seconds >= b.seconds));
    // Norms, rotary embedding and the like aside, the kernels read what the shapes say.
    let read: f64 = kernels.iter().map(|kernel| kernel.bytes).sum();
    let cache = 21.0 * bench.spec().kv_bytes_per_token(bench.load_stats().kv_cache_format) as f64;
    let expected = short.weight_bytes_per_token as f64 + cache;
    assert!((read / expected - 1.0).abs() < 0.05, "{read} bytes by kernel, {expected} by shape");
}

/// Six, if the device binds what the router needs for all it does.
fn most_per_layer(bench: &Bench) -> f64 {
    if bench.device().caps().max_storage_buffers < 10 { 7.0 } else { 6.0 }
}

#[test]
fn a_layer_takes_seven_dispatches_at_most_and_a_model_few_pipelines() {
    if !gpu_or_skip() {
        return;
    }
    for name in ["mixtral", "olmoe", "qwen3_moe", "granitemoe", "minimax_m2"] {
        let tests = [prefill(24, 0), decode(2, 0)];
        let subject = Subject::Checkpoint(Golden::load(name).directory);
        let mut bench = load(&subject, &tests, &SubjectOptions::default()).unwrap();
        let [_, decode] = tests.map(|test| block_on(bench.run(test, 1)).unwrap());
        // qkv with rotary embedding or attention with it, output, router, gate and up, down. Besides: embedding, head, sampler.
        let layers = bench.spec().layers.len() as f64;
        assert!(decode.dispatches_per_token <= most_per_layer(&bench) * layers + 3.0, "{name}: {decode:?}");
        assert!(bench.num_pipelines() <= 40, "{name}: {} pipelines", bench.num_pipelines());
    }
}

#[test]
fn bytes_per_token_are_those_of_the_active_weights() {
    if !gpu_or_skip() {
        return;
    }
    let mut bench = load(&Subject::Checkpoint(demo_model()), &[decode(1, 0)], &SubjectOptions::default()).unwrap();
    // By hand, from config.json: bf16 matrices; f32 routers and norms.
    let per_layer = 2 * ((8 + 2 * 2) * 32 * 256 + 256 * 256 + 2 * 3 * 384 * 256) + 4 * (8 * 256 + 2 * 256);
    let expected = 6 * per_layer + 2 * 4096 * 256 + 2 * 256 + 4 * 256;
    assert_eq!(block_on(bench.run(decode(1, 0), 1)).unwrap().weight_bytes_per_token, expected);
}

#[test]
fn what_cannot_be_measured_is_refused_without_a_device() {
    let demo = Subject::Checkpoint(demo_model());
    let refused = |subject: &Subject, tests: &[Test], context: Option<usize>, words: &[&str]| {
        let error = block_on(subject.check(tests, &SubjectOptions { context, ..SubjectOptions::default() }))
            .expect_err("refused")
            .to_string();
        assert!(words.iter().all(|word| error.contains(word)), "{error}");
    };
    refused(&demo, &[], None, &["tests", "neither"]);
    refused(&demo, &[decode(1, 2000)], None, &["tg1@d2000", "1024", "2001"]);
    refused(&demo, &[prefill(64, 0)], Some(32), &["pp64", "64", "32"]);
    refused(&demo, &[prefill(64, 0)], Some(5000), &["1024", "5000"]);
    let olmoe = golden("configs/olmoe-1b-7b.json");
    for layers in [0, 17] {
        let subject = Subject::Synthetic { config: olmoe.clone(), layers: Some(layers) };
        refused(&subject, &[decode(1, 0)], None, &["number of layers", "1 to 16", &layers.to_string()]);
    }
    // Random weights have no longest text.
    let long = Subject::Synthetic { config: olmoe, layers: None };
    let (spec, context) = block_on(long.check(&[decode(8, 8192)], &SubjectOptions::default())).unwrap();
    assert_eq!((spec.max_positions, context), (8200, 8200));
    let missing = Subject::Synthetic { config: golden("configs/none.json"), layers: None };
    refused(&missing, &[decode(1, 0)], None, &["none.json"]);
}

#[test]
fn published_shapes_run_at_full_width_within_the_smallest_bindings() {
    if !gpu_or_skip() {
        return;
    }
    // Each in the format that it is published in, or is usually run in.
    for (name, format) in [("gpt-oss-20b", "mxfp4"), ("qwen3-30b-a3b", "q4_0"), ("deepseek-v2-lite", "q8_0")] {
        let quant: QuantChoice = format.parse().unwrap();
        let subject = Subject::Synthetic { config: golden(&format!("configs/{name}.json")), layers: Some(2) };
        let options =
            DeviceOptions { max_binding_bytes: Some(128 << 20), overrides: Overrides::from_env(), ..Default::default() };
        let device = gpu_device_with(&options).expect("asked before");
        let clock = std::time::Instant::now();
        let test = decode(1, 0);
        let mut bench = load_on(device, &subject, &[test], &SubjectOptions { quant, ..SubjectOptions::default() }).unwrap();
        assert_eq!(bench.formats()[0], format, "{name}");
        let (loaded, allocated) = (clock.elapsed().as_secs_f64(), human_bytes(bench.allocated_bytes()));
        let report = block_on(bench.run(test, 1)).unwrap();
        let (speed, seconds) = (report.tokens_per_second(), clock.elapsed().as_secs_f64());
        println!("{name}, {format}: {allocated} in {loaded:.1} s, {speed:.2} tokens/s, {seconds:.1} s in all");
        assert!(report.samples[0] > 0.0);
        // Cut because it has to be, and as wide as it may be: the head alone takes more in all of them but one.
        let largest = bench.largest_binding_bytes();
        assert!((64 << 20..=128 << 20).contains(&largest), "{name}: a binding of {}", human_bytes(largest));
        let (logits, loads) = block_on(bench.sanity(&[1])).unwrap();
        assert!(logits.iter().all(|logit| logit.is_finite()), "{name}: activations overflow");
        assert!(
            loads.iter().all(|loads| loads.iter().filter(|load| **load > 0).count() > 1),
            "{name}: every token takes the same way"
        );
    }
}

#[test]
fn random_weights_send_tokens_to_many_experts_and_keep_activations_in_size() {
    if !gpu_or_skip() {
        return;
    }
    // The demo model's own shapes, with random weights.
    let subject = Subject::Synthetic { config: demo_model().join("config.json"), layers: None };
    let test = prefill(64, 0);
    let mut bench = load(&subject, &[test], &SubjectOptions::default()).unwrap();
    assert_eq!(bench.formats(), ["f16"]);
    let ids: Vec<u32> = (0..64).map(|id| id * 61 + 7).collect();
    let (logits, loads) = block_on(bench.sanity(&ids)).unwrap();
    let mean_square = logits.iter().map(|logit| f64::from(logit * logit)).sum::<f64>() / logits.len() as f64;
    assert!((0.3..3.0).contains(&mean_square), "{mean_square}");
    for loads in loads {
        assert_eq!(loads.iter().sum::<u64>(), 128);
        assert!(loads.iter().filter(|load| **load > 0).count() >= 6, "{loads:?}");
    }
}

#[test]
fn a_sweep_goes_in_powers_of_two_to_the_largest() {
    let names = |tests: Vec<Test>| tests.iter().map(Test::name).collect::<Vec<_>>();
    assert_eq!(names(sweep_tests(100, 16, 300)), ["pp32", "pp64", "pp100", "tg16@d64", "tg16@d128", "tg16@d256", "tg16@d300"]);
    assert_eq!(names(sweep_tests(0, 8, 64)), ["tg8@d64"]);
    assert_eq!(names(sweep_tests(32, 0, 64)), ["pp32"]);
    assert!(sweep_curves(&[]).is_empty());
}

#[test]
fn a_plot_is_well_formed_and_keeps_every_point_inside() {
    let curve = |points: &[(f64, f64, f64)]| Curve {
        title: "decode & <prefill>".to_owned(),
        x_label: "tokens".to_owned(),
        y_label: "tokens/s".to_owned(),
        points: points.to_vec(),
    };
    for points in
        [&[][..], &[(64.0, 10.0, 0.0)], &[(64.0, 100.0, 3.0), (128.0, 90.5, 2.0), (1000.0, 0.0, 0.0)], &[(0.0, 0.0, 0.0)]]
    {
        let image = svg(&[curve(points), curve(points)]);
        assert!(image.starts_with("<svg ") && image.ends_with("</svg>\n"));
        assert!(image.contains("decode &amp; &lt;prefill>") && !image.contains("NaN") && !image.contains("inf"), "{image}");
        assert_eq!(image.matches("<circle").count(), 2 * points.len());
        for place in image.split("cx=\"").skip(1) {
            let x: f64 = place.split('"').next().unwrap().parse().unwrap();
            assert!((0.0..=640.0).contains(&x), "{x}");
        }
    }
}
