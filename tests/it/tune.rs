//! Choices that are measured: which there are, how they are kept, and that all of them compute the same.

use crate::common::{Golden, LOGITS_WITHIN, demo_model, gpu_device_with, gpu_or_skip};
use moebius::bench::{Bench, RoofOptions, Subject, SubjectOptions, Test, Trial, TuneEvent, TuneOptions, Tuned, Verdict, Work};
use moebius::gpu::{Caps, Device, DeviceChoice, DeviceOptions, Knob, Overrides, Profile, TunedFor, Tuning, Tunings};
use moebius::{Engine, Error, LoadOptions};
use pollster::block_on;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn tuning(values: &[(Knob, usize)]) -> Tuning {
    values.iter().fold(Tuning::default(), |tuning, (knob, value)| tuning.with(*knob, *value))
}

#[test]
fn a_device_has_the_knobs_that_its_kernels_turn() {
    let gpu = Caps::webgpu_default();
    let warps = Caps { subgroup_size: Some(32), ..gpu.clone() };
    let cpu = Caps { profile: Profile::Cpu, ..gpu.clone() };
    let wide = Caps { subgroup_size: Some(8), ..cpu.clone() };
    let knobs = |caps: &Caps| -> Vec<&str> {
        Knob::ALL.iter().filter(|knob| !knob.values(caps).is_empty()).map(|knob| knob.name()).collect()
    };
    assert_eq!(knobs(&gpu), ["decode_lanes", "decode_workgroup", "router_weights", "batch_lanes", "tile_tokens"]);
    assert_eq!(knobs(&warps)[0], "subgroups");
    assert_eq!(knobs(&cpu), ["router_weights"]);
    assert_eq!(knobs(&wide), ["subgroups", "decode_rows", "router_weights", "tile_tokens", "tile_rows"]);
    for caps in [&gpu, &warps, &cpu, &wide] {
        for knob in Knob::ALL {
            let values = knob.values(caps);
            assert!(values.iter().enumerate().all(|(index, value)| !values[..index].contains(value)), "{knob:?}: {values:?}");
            assert!(values.len() != 1, "{knob:?}: nothing to choose");
            assert!(values.first().is_none_or(|own| caps.knob(knob) == *own), "{knob:?}: the first is what is used untuned");
        }
    }
    let tuned = wide.tuned(tuning(&[(Knob::Subgroups, 0), (Knob::RouterWeights, 0)]));
    assert_eq!((tuned.subgroup_size, tuned.knob(Knob::RouterWeights)), (None, 0));
    assert_eq!(tuned.tuning.to_string(), "subgroups 0, router_weights 0");
}

fn tuned_for(driver: &str) -> TunedFor {
    let [adapter, backend, profile, moebius] = ["a card", "vulkan", "gpu", "0.1"].map(str::to_owned);
    TunedFor { adapter, backend, driver: driver.to_owned(), profile, subgroup_size: Some(32), moebius }
}

#[test]
fn tunings_are_kept_by_device() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("not there yet").join("tuning.json");
    let read = || block_on(Tunings::read(&path)).unwrap();
    assert_eq!(read(), Tunings::default());
    let mut tunings = Tunings::default();
    let [first, second] = [tuning(&[(Knob::DecodeLanes, 16)]), tuning(&[(Knob::DecodeLanes, 64), (Knob::TileTokens, 32)])];
    tunings.set(tuned_for("1"), first.clone());
    tunings.set(tuned_for("2"), first.clone());
    tunings.set(tuned_for("2"), second.clone());
    tunings.write(&path).unwrap();
    assert_eq!(read(), tunings);
    assert_eq!(["1", "2", "3"].map(|driver| read().find(&tuned_for(driver)).cloned()), [Some(first), Some(second), None]);
    tunings.set(tuned_for("1"), Tuning::default());
    tunings.write(&path).unwrap();
    assert_eq!(read().find(&tuned_for("1")), None);
    // Nothing is left of what was written on the way.
    assert_eq!(std::fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);

    let good = std::fs::read_to_string(&path).unwrap();
    for (bad, word) in
        [(&good[..good.len() / 2], "EOF"), (&good.replace("tile_tokens", "tile_size"), "tile_size"), ("[]", "devices")]
    {
        std::fs::write(&path, bad).unwrap();
        let error = block_on(Tunings::read(&path)).unwrap_err();
        assert!(matches!(&error, Error::Tuning { file, .. } if file.ends_with("tuning.json")), "{error}");
        assert!(word == "devices" || error.to_string().contains(word), "{error}");
        assert!(error.hint().unwrap().contains("MOEBIUS_TUNING=off"));
    }
}

/// This device in a profile, with a file that tunes it.
fn tuned_options(folder: &Path, overrides: Overrides, tuning: &Tuning) -> DeviceOptions {
    let options = DeviceOptions { overrides, ..DeviceOptions::from_env(DeviceChoice::Auto) };
    let device = block_on(Device::open(&options)).unwrap();
    let mut tunings = Tunings::default();
    tunings.set(device.tuned_for(), tuning.clone());
    let path = folder.join("tuning.json");
    tunings.write(&path).unwrap();
    DeviceOptions { tunings: Some(path), ..options }
}

/// As engine.rs has them: no driver of a software device should unroll what is meant for real ones.
fn in_profile(profile: Profile) -> Overrides {
    Overrides { profile: Some(profile), checked_shaders: profile == Profile::Gpu, ..Overrides::from_env() }
}

#[test]
fn a_tuned_device_runs_other_variants_and_computes_the_same() {
    if !gpu_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let golden = Golden::load("mixtral");
    let gpu = Profile::Gpu;
    for (profile, values, says) in [
        (gpu, &[(Knob::DecodeLanes, 8), (Knob::DecodeWorkgroup, 256), (Knob::BatchLanes, 16)][..], " LANES=8 "),
        (
            gpu,
            &[(Knob::DecodeLanes, 64), (Knob::DecodeWorkgroup, 128), (Knob::TileTokens, 8), (Knob::BatchLanes, 32)],
            " LANES=64 ",
        ),
        (Profile::Cpu, &[(Knob::RouterWeights, 0)], "SOFTMAX"),
    ] {
        let options = tuned_options(folder.path(), in_profile(profile), &tuning(values));
        let options = LoadOptions { device: options, context: Some(golden.context()), ..LoadOptions::default() };
        let mut engine = block_on(Engine::load(&golden.directory, &options, &mut |_| {})).unwrap();
        for (index, prompt) in golden.prompts.iter().enumerate() {
            // All at once, and one by one.
            let together = block_on(engine.forward(prompt)).unwrap();
            assert!(golden.assert_logits(index, &together.logits) <= LOGITS_WITHIN, "{values:?}");
            golden.assert_routing(index, &together.layers);
        }
        let device = engine.gpu().unwrap();
        assert_eq!(device.caps().tuning, tuning(values));
        let kernel = if says == "SOFTMAX" { "router_topk" } else { "qkv" };
        let variants = device.pipelines().into_iter().filter(|(name, _)| *name == kernel);
        assert!(variants.into_iter().any(|(_, variant)| format!("{} ", variant.describe()).contains(says)), "{values:?}");
    }
}

#[test]
fn a_tuning_that_is_not_for_the_device_is_refused() {
    if !gpu_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    for (profile, knob, value) in
        [(Profile::Gpu, Knob::DecodeLanes, 7), (Profile::Gpu, Knob::DecodeRows, 64), (Profile::Cpu, Knob::DecodeLanes, 32)]
    {
        let options = tuned_options(folder.path(), in_profile(profile), &tuning(&[(knob, value)]));
        let error = block_on(Device::open(&options)).unwrap_err();
        assert!(matches!(error, Error::Tuning { .. }), "{error}");
        assert!(error.to_string().contains(&format!("{} {value} is not for ", knob.name())), "{error}");
    }
}

const SHORT: TuneOptions = TuneOptions { prompt: 9, generate: 3, rounds: 1 };

fn tune(options: &DeviceOptions) -> Option<(Bench, Vec<Trial>, Tuned)> {
    let device = gpu_device_with(options)?;
    let subject = Subject::Checkpoint(Golden::load("mixtral").directory);
    let tests = [Work::Prefill(SHORT.prompt), Work::Decode(SHORT.generate)].map(|work| Test { work, depth: 0 });
    let roofs = RoofOptions { bytes: 1 << 20, seconds: 0.0 };
    let options = SubjectOptions { roofs, ..SubjectOptions::default() };
    let mut bench = block_on(Bench::load(device, &subject, &tests, &options, &mut |_| {})).unwrap();
    let mut trials = Vec::new();
    let tuned = block_on(bench.tune(&SHORT, &mut |event| {
        if let TuneEvent::Trial(trial) = event {
            trials.push(trial.clone());
        }
    }))
    .unwrap();
    Some((bench, trials, tuned))
}

#[test]
fn every_value_of_every_knob_is_tried_and_right() {
    let Some((bench, trials, tuned)) = tune(&DeviceOptions::from_env(DeviceChoice::Auto)) else { return };
    let untuned = bench.device().untuned();
    // Chance may take anything after a single round. Without subgroups a software device has fewer knobs than it began with.
    let lost_subgroups = trials.iter().any(|trial| trial.knob == Knob::Subgroups && trial.verdict == Verdict::Taken);
    let rest = untuned.tuned(if lost_subgroups { tuning(&[(Knob::Subgroups, 0)]) } else { Tuning::default() });
    for knob in Knob::ALL {
        let tried: Vec<&Trial> = trials.iter().filter(|trial| trial.knob == knob).collect();
        let values = knob.values(if knob == Knob::Subgroups { untuned } else { &rest });
        assert_eq!(tried.len(), values.len().saturating_sub(1), "{knob:?}");
        for Trial { gains, verdict, over, value, .. } in tried {
            assert!(matches!(verdict, Verdict::Taken | Verdict::NotQuicker | Verdict::Beaten), "{knob:?}: {verdict:?}");
            assert_eq!(gains.map(|gain| gain.is_some_and(|gain| gain > 0.0)), knob.concerns(), "{knob:?}");
            assert_ne!(over, value);
        }
    }
    assert_eq!(bench.device().caps().tuning, tuned.tuning, "the device stays tuned");
}

#[test]
fn a_value_whose_kernels_are_wrong_is_not_taken() {
    // The untuned device runs the broken kernel and router_weights 0 does not, so that they differ.
    let overrides = Overrides { unchecked_results: true, ..Overrides::default() };
    let options = DeviceOptions { break_kernel: Some("router".to_owned()), overrides, ..DeviceOptions::default() };
    let Some((_, trials, tuned)) = tune(&options) else { return };
    let trial = trials.iter().find(|trial| (trial.knob, trial.value) == (Knob::RouterWeights, 0)).unwrap();
    assert!(matches!(trial.verdict, Verdict::Wrong(difference) if difference > 1e-5), "{trial:?}");
    assert_eq!((trial.gains, tuned.tuning.get(Knob::RouterWeights)), ([None, None], None));
}

fn moebius(args: &[&str], tunings: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moebius")).args(args).env("MOEBIUS_TUNING", tunings).output().unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn tune_keeps_what_it_finds_where_later_commands_look() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tuning.json");
    let demo = demo_model();
    let demo = demo.to_str().unwrap();
    let nowhere = moebius(&["tune", demo], &demo_model().join("config.json").join("tuning.json"));
    assert_eq!(nowhere.status.code(), Some(2));
    assert!(stderr(&nowhere).contains("error: cannot ") && !stderr(&nowhere).contains("tried"), "{}", stderr(&nowhere));
    let cpu = moebius(&["tune", demo, "--device", "cpu"], &path);
    assert_eq!(cpu.status.code(), Some(2), "{}", stderr(&cpu));
    let off = moebius(&["tune", demo], Path::new("off"));
    assert_eq!(off.status.code(), Some(2));
    assert!(stderr(&off).contains("nowhere to keep") && stderr(&off).contains("hint: "), "{}", stderr(&off));
    if !gpu_or_skip() {
        return;
    }
    let fixture = Golden::load("mixtral").directory;
    let args = ["tune", fixture.to_str().unwrap(), "-p", "9", "-n", "2", "-r", "1", "--json"];
    let dry = moebius(&[&args[..], &["--dry-run"]].concat(), &path);
    assert_eq!(dry.status.code(), Some(0), "{}", stderr(&dry));
    assert!(!path.exists(), "only looked at");
    let found = moebius(&args, &path);
    let result: Value = serde_json::from_slice(&found.stdout).unwrap();
    assert_eq!(result["kept"], path.to_str().unwrap());
    assert!(!result["trials"].as_array().unwrap().is_empty() && result["gains"]["decode"].is_number(), "{result}");

    // What is kept is used, and said.
    let device = block_on(Device::open(&DeviceOptions::from_env(DeviceChoice::Auto))).unwrap();
    let mut tunings = block_on(Tunings::read(&path)).unwrap();
    assert_eq!(
        tunings.find(&device.tuned_for()).map_or(serde_json::json!({}), |tuning| serde_json::json!(tuning)),
        result["tuning"]
    );
    tunings.set(device.tuned_for(), tuning(&[(Knob::RouterWeights, 0)]));
    tunings.write(&path).unwrap();
    let run = ["run", demo, "Once", "-n", "1", "--stats", "--device", "gpu:0"];
    let tuned = moebius(&run, &path);
    assert_eq!(tuned.status.code(), Some(0), "{}", stderr(&tuned));
    assert!(stderr(&tuned).contains("tuned    router_weights 0\n"), "{}", stderr(&tuned));
    assert!(!stderr(&moebius(&run, Path::new("off"))).contains("tuned "));
    let reset = moebius(&["tune", "--reset"], &path);
    assert_eq!(reset.status.code(), Some(0), "{}", stderr(&reset));
    assert!(!stderr(&moebius(&run, &path)).contains("tuned "));

    another_device_is_not_tuned(&path, &device, &mut tunings);

    // A damaged file stops everything that would use it, and stays as it is.
    std::fs::write(&path, "{").unwrap();
    for args in [&run[..], &args, &["tune", "--reset"]] {
        let refused = moebius(args, &path);
        assert_eq!(refused.status.code(), Some(2), "{}", stderr(&refused));
        assert!(stderr(&refused).contains("is not what `moebius tune` writes"), "{}", stderr(&refused));
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "{");
}

/// Without its subgroups it is another device.
fn another_device_is_not_tuned(path: &Path, device: &Device, tunings: &mut Tunings) {
    tunings.set(device.tuned_for(), tuning(&[(Knob::RouterWeights, 0)]));
    tunings.write(path).unwrap();
    let check = ["check", "embed"];
    assert!(stderr(&moebius(&check, path)).contains("tuned    router_weights 0\n"));
    let other = Command::new(env!("CARGO_BIN_EXE_moebius"))
        .args(check)
        .env("MOEBIUS_TUNING", path)
        .env("MOEBIUS_NO_SUBGROUPS", "1")
        .output()
        .unwrap();
    assert_eq!(other.status.code(), Some(0), "{}", stderr(&other));
    assert_eq!(stderr(&other).contains("tuned "), device.caps().subgroup_size.is_none(), "{}", stderr(&other));
}
