//! Training on a device, against PyTorch and against the reference.

use crate::common::{TrainedRun, demo_model, golden, gpu_device, gpu_or_skip, open, spec_of, steps_of, tensor, trainer_on};
use moebius::gpu::DeviceChoice;
use moebius::reference::training::gate::TopKSoftmax;
use moebius::reference::training::{Batch, LossCoefficients, Model, Weights};
use moebius::spec::WeightKey;
use moebius::train::{DeviceSteps, Settings, StepReport, Trainer};
use serde_json::{Value, json};
use std::path::Path;

fn settings(values: &[(&str, Value)]) -> Settings {
    let mut settings = Settings::default();
    values.iter().for_each(|(name, value)| settings.set(name, value).unwrap());
    settings
}

fn largest_difference(a: &Weights, b: &Weights) -> f64 {
    a.iter().flat_map(|(key, values)| values.iter().zip(&b[key])).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn twenty_steps_of_a_top_2_model_on_a_device_are_those_of_pytorch() {
    let Some(device) = gpu_device() else { return };
    let run = TrainedRun::open("top2");
    let settings = settings(&[
        ("train.windows", json!(4)),
        ("train.seq_len", json!(32)),
        ("losses.load_balancing_loss", json!(0.01)),
        ("losses.router_z_loss", json!(0.001)),
    ]);
    let optimiser = run.optimiser();
    assert_eq!((settings.train.beta2, settings.train.weight_decay), (optimiser.beta2, optimiser.weight_decay));
    let tolerance = |what: &str| run.json["tolerance"][what].as_f64().unwrap();
    let weights = run.weights("init.safetensors");
    let mut steps = pollster::block_on(DeviceSteps::new(device, &settings, &run.spec, &weights)).unwrap();
    for (step, batch) in run.batches.iter().enumerate() {
        let (stored, loss) = (&run.json["steps"][step], run.json["loss_f64"][step].as_f64().unwrap());
        let outcome = pollster::block_on(steps.step(std::slice::from_ref(batch), run.lr(step))).unwrap();
        assert!((outcome.report.loss - loss).abs() < tolerance("loss"), "step {step}: {} {loss}", outcome.report.loss);
        for (layer, found) in outcome.report.layers.iter().enumerate() {
            assert_eq!(json!(found.counts), stored["counts"][layer], "step {step}, layer {layer}");
            for (found, key) in [(found.load_balancing, "load_balancing_loss"), (found.router_z, "z_loss")] {
                assert!((found - stored[key][layer].as_f64().unwrap()).abs() < 1e-4, "step {step}: {key}");
            }
        }
        let norm = stored["grad_norm"].as_f64().unwrap();
        assert!((outcome.grad_norm / norm - 1.0).abs() < 1e-3, "step {step}: {} {norm}", outcome.grad_norm);
    }
    let found = pollster::block_on(steps.weights()).unwrap();
    let difference = largest_difference(&found, &run.weights("final.safetensors"));
    assert!(difference < tolerance("weight"), "{difference}");
}

/// Fifty steps with `FULL=1`, three without.
#[test]
fn losses_of_the_demo_model_on_a_device_are_those_of_pytorch() {
    let Some(device) = gpu_device() else { return };
    let folder = golden("training_parity");
    let run: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("run.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = tensor(&folder.join("batches.safetensors"), "tokens").iter().map(|token| *token as u32).collect();
    let spec = spec_of(&demo_model());
    let checkpoint = open(&demo_model(), &spec).unwrap();
    let read = |key: WeightKey| pollster::block_on(checkpoint.read(key, 0..key.shape(&spec).0)).unwrap().values;
    let weights = WeightKey::all(&spec).map(|key| (key, read(key).into_iter().map(f64::from).collect())).collect();
    let settings = settings(&[("losses.load_balancing_loss", json!(0.02))]);
    let mut steps = pollster::block_on(DeviceSteps::new(device, &settings, &spec, &weights)).unwrap();
    let wanted = if std::env::var("FULL").is_ok_and(|value| value == "1") { 50 } else { 3 };
    for (step, tokens) in tokens.chunks_exact(8 * 65).take(wanted).enumerate() {
        let stored = &run["steps"][step];
        let number = |key: &str| stored[key].as_f64().unwrap();
        let outcome = pollster::block_on(steps.step(&[Batch::of_windows(tokens, 64)], number("lr"))).unwrap();
        let (found, loss) = (outcome.report.loss, number("loss"));
        assert!((found - loss).abs() < 1e-3, "step {step}: {found} {loss}");
        if step == 0 {
            let counts: Vec<&Vec<u32>> = outcome.report.layers.iter().map(|layer| &layer.counts).collect();
            assert_eq!(json!(counts), stored["counts"]);
        }
        let norm = outcome.grad_norm / number("grad_norm") - 1.0;
        assert!(step >= 10 || norm.abs() < 1e-3, "step {step}: {}", outcome.grad_norm);
    }
}

const TEXT: &str = "the cat sat on the mat, the dog sat on the log, and the hen sat on the pen. ";

fn small(folder: &Path, changes: &[(&str, Value)]) -> Settings {
    let path = folder.join("text.txt");
    std::fs::write(&path, TEXT.repeat(20)).unwrap();
    let mut settings = settings(&[
        ("data.path", json!(path)),
        ("model.hidden_size", json!(20)),
        ("model.head_dim", json!(8)),
        ("model.num_experts", json!(5)),
        ("model.moe_intermediate_size", json!(12)),
        ("train.windows", json!(3)),
        ("train.seq_len", json!(17)),
        ("train.steps", json!(6)),
        ("train.warmup_steps", json!(2)),
        ("losses.router_z_loss", json!(0.01)),
    ]);
    changes.iter().for_each(|(name, value)| settings.set(name, value).unwrap());
    settings
}

#[test]
fn a_device_trains_as_the_reference_does() {
    if !gpu_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let one = [("gate.renormalize", json!(false)), ("gate.num_experts_per_tok", json!(1)), ("train.accumulate", json!(2))];
    for changes in [&[][..], &one, &[("model.tie_word_embeddings", json!(true))]] {
        let settings = small(folder.path(), changes);
        let [found, expected] =
            [DeviceChoice::Auto, DeviceChoice::Cpu].map(|choice| steps_of(&mut trainer_on(choice, &settings, None), 6));
        for (found, expected) in found.iter().zip(&expected) {
            assert!((found.report.loss - expected.report.loss).abs() < 1e-4, "{found:?} {expected:?}");
            assert!((found.grad_norm / expected.grad_norm - 1.0).abs() < 1e-3, "{found:?} {expected:?}");
            let counts = |report: &StepReport| report.report.layers.iter().map(|layer| layer.counts.clone()).collect::<Vec<_>>();
            assert_eq!(counts(found), counts(expected), "{changes:?}");
        }
        let [found, expected] = [found[5].validation_loss, expected[5].validation_loss].map(Option::unwrap);
        assert!((found - expected).abs() < 1e-4, "{found} {expected}");
    }
}

#[test]
fn a_run_on_a_device_repeats_itself_and_goes_on_with_the_same_bits() {
    if !gpu_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = small(folder.path(), &[]);
    let weights = |trainer: &Trainer| pollster::block_on(trainer.weights()).unwrap();
    let mut whole = trainer_on(DeviceChoice::Auto, &settings, None);
    let reports = steps_of(&mut whole, 6);
    let mut again = trainer_on(DeviceChoice::Auto, &settings, None);
    assert_eq!(steps_of(&mut again, 3), reports[..3]);
    let saved = folder.path().join("saved");
    pollster::block_on(again.save(&saved)).unwrap();
    let mut resumed = trainer_on(DeviceChoice::Auto, &settings, Some(&saved));
    assert_eq!(steps_of(&mut resumed, 3), reports[3..]);
    assert_eq!(weights(&resumed), weights(&whole));
    assert!(reports[5].report.loss < reports[0].report.loss);
    // The same checkpoint goes on elsewhere, with other bits.
    let elsewhere = steps_of(&mut trainer_on(DeviceChoice::Cpu, &settings, Some(&saved)), 3);
    assert!((elsewhere[2].report.loss - reports[5].report.loss).abs() < 1e-4);
}

#[test]
fn what_a_device_has_learnt_is_what_the_reference_reads() {
    if !gpu_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let settings = small(folder.path(), &[]);
    let mut trainer = trainer_on(DeviceChoice::Auto, &settings, None);
    let loss = steps_of(&mut trainer, 6)[5].validation_loss.unwrap();
    let gating = Box::new(TopKSoftmax { k: 2, renormalize: true });
    let weights = pollster::block_on(trainer.weights()).unwrap();
    let model = Model::new(trainer.spec().clone(), weights, gating, LossCoefficients::default()).unwrap();
    let (mut sum, mut targets) = (0.0, 0);
    for batch in trainer.data().held_out(8, settings.train.windows) {
        sum += model.evaluate(&batch).cross_entropy * batch.num_targets() as f64;
        targets += batch.num_targets();
    }
    assert!((sum / targets as f64 - loss).abs() < 1e-5, "{loss}");
}
