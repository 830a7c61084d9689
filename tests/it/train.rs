//! Runs of training: settings, text, checkpoints, going on.

use crate::common::{demo_model, golden, open, spec_of, steps_of, tensor, trainer_on};
use moebius::batch::Row;
use moebius::checkpoint::{Checkpoint, scatter};
use moebius::generate::Tokenizer;
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::reference::training::adamw::{AdamW, Moments};
use moebius::reference::training::gate::TopKSoftmax;
use moebius::reference::training::{Batch, LossCoefficients, Model, Weights, check, zeros_like};
use moebius::spec::{ModelSpec, WeightKey};
use moebius::train::{Data, KEYS, Settings, Trainer, TrainerOptions, metrics_line};
use moebius::{Engine, LoadOptions};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Command, Output};

const TEXT: &str = "the cat sat on the mat, the dog sat on the log, and the hen sat on the pen. ";

/// A small model, and a text in a folder.
fn small(folder: &Path, changes: &[(&str, Value)]) -> Settings {
    let path = folder.join("text.txt");
    std::fs::write(&path, TEXT.repeat(20)).unwrap();
    let mut settings = Settings::default();
    let fixed = [
        ("data.path", json!(path)),
        ("model.hidden_size", json!(16)),
        ("model.head_dim", json!(8)),
        ("model.num_experts", json!(4)),
        ("model.moe_intermediate_size", json!(12)),
        ("train.windows", json!(2)),
        ("train.seq_len", json!(16)),
        ("train.steps", json!(6)),
        ("train.warmup_steps", json!(2)),
    ];
    fixed.iter().chain(changes).for_each(|(name, value)| settings.set(name, value).unwrap());
    settings
}

fn trainer(settings: &Settings, resume: Option<&Path>) -> Trainer {
    trainer_on(DeviceChoice::Cpu, settings, resume)
}

#[test]
fn settings_are_printed_as_a_file_that_means_the_same() {
    let mut settings = Settings::default();
    settings.set("train.lr", &json!(0.00125)).unwrap();
    settings.set("gate.renormalize", &json!(false)).unwrap();
    let mut read = Settings::default();
    read.set_all(settings.to_json().as_object().unwrap()).unwrap();
    assert_eq!(read, settings);
    assert_eq!(settings.differences(&Settings::default()), ["gate.renormalize", "train.lr"]);
    let text = settings.to_toml();
    for key in KEYS {
        let (section, name) = key.name.split_once('.').unwrap();
        let of_section = text.split(&format!("[{section}]")).nth(1).unwrap();
        assert!(of_section.contains(&format!("{name} = ")) && text.contains(key.help), "{}", key.name);
    }
}

#[test]
fn settings_that_there_are_not_are_refused_by_name() {
    let mut settings = Settings::default();
    let mut refused = |name: &str, value: Value| settings.set(name, &value).unwrap_err().to_string();
    assert!(refused("train.learning", json!(1)).contains("--print-settings"));
    assert!(refused("train.step", json!(1)).contains("`train.steps` is one"));
    assert!(refused("train.steps", json!(0)).contains("from 1 to"));
    assert!(refused("train.lr", json!("fast")).contains("a number from 0 to"));
    assert!(refused("train.schedule", json!("sine")).contains("constant, linear, cosine"));
    assert!(refused("gate.renormalize", json!(1)).contains("true or false"));
    assert!(settings.set_all(&Map::from_iter([("train".to_owned(), json!({ "lr": -1 }))])).is_err());
    assert_eq!(settings, Settings::default());
}

#[test]
fn the_learning_rate_grows_and_falls() {
    let mut settings = Settings::default();
    let rates = |settings: &Settings| [0, 19, 20, 210, 399].map(|step| settings.lr(step));
    let [first, warm, top, middle, last] = rates(&settings);
    assert!((first - 1.5e-4).abs() < 1e-12 && (warm - 3e-3).abs() < 1e-12 && (top - 3e-3).abs() < 1e-12);
    assert!((middle - 1.65e-3).abs() < 1e-12 && (3e-4..3.1e-4).contains(&last));
    settings.set("train.schedule", &json!("constant")).unwrap();
    assert_eq!(rates(&settings)[2..], [3e-3; 3]);
}

#[test]
fn every_window_is_drawn_once_in_every_pass_in_an_order_of_its_own() {
    let tokens: Vec<u32> = (0..101).collect();
    let data = Data::new(&[tokens], 5, 0.0, 7).unwrap();
    assert_eq!(data.num_windows(), 20);
    let pass = |first: u64| -> Vec<u32> { (first..first + 20).map(|number| data.batch(number, 1).rows[0].token).collect() };
    let [one, two] = [pass(0), pass(20)];
    for pass in [&one, &two] {
        assert_eq!(pass.iter().collect::<BTreeSet<_>>().len(), 20, "{pass:?}");
    }
    assert_ne!(one, two);
    assert_ne!(one, (0..20).map(|window| 5 * window).collect::<Vec<_>>());
    let batch = data.batch(18, 4);
    assert_eq!(batch.rows.iter().step_by(5).map(|row| row.token).collect::<Vec<_>>(), [&one[18..], &two[..2]].concat());
    assert_eq!(batch.rows[7], Row::new(one[19] + 2, 2, 1));
    assert!(batch.rows.iter().zip(&batch.targets).all(|(row, target)| row.token + 1 == *target));
}

#[test]
fn what_is_held_out_is_never_trained_on() {
    let tokens: Vec<u32> = (0..200).collect();
    let data = Data::new(&[tokens], 4, 0.25, 1).unwrap();
    let drawn = data.batch(0, 500).rows.iter().map(|row| row.token).max().unwrap();
    let held_out = data.held_out(2, 3);
    assert_eq!(held_out.iter().map(|batch| batch.rows.len()).sum::<usize>(), 24);
    assert!(drawn < 150 && held_out.iter().flat_map(|batch| &batch.rows).all(|row| row.token >= 150));
    assert!(Data::new(&[vec![1, 2, 3]], 4, 0.0, 1).unwrap_err().to_string().contains("more than 4 tokens"));
}

#[test]
fn a_run_that_was_stopped_goes_on_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let settings = small(folder.path(), &[("train.accumulate", json!(2))]);
    let mut whole = trainer(&settings, None);
    let reports = steps_of(&mut whole, 6);
    assert!(reports[5].validation_loss.is_some());

    let mut first = trainer(&settings, None);
    let mut parts = steps_of(&mut first, 3);
    let saved = folder.path().join("saved");
    pollster::block_on(first.save(&saved)).unwrap();
    let mut second = trainer(&settings, Some(&saved));
    assert_eq!((second.steps_done(), second.is_done()), (3, false));
    parts.extend(steps_of(&mut second, 3));
    assert_eq!(parts, reports);
    let weights = |trainer: &Trainer| pollster::block_on(trainer.weights()).unwrap();
    assert_eq!(weights(&second), weights(&whole));
    assert!(reports[5].report.loss < reports[0].report.loss);
}

#[test]
fn texts_in_memory_teach_what_files_do() {
    let folder = tempfile::tempdir().unwrap();
    let from_file = small(folder.path(), &[]);
    let mut in_memory = from_file.clone();
    in_memory.set("data.path", &json!("")).unwrap();
    let device = DeviceOptions::from_env(DeviceChoice::Cpu);
    let options = TrainerOptions { device, resume: None, documents: Some(vec![TEXT.repeat(20)]) };
    let mut learner = pollster::block_on(Trainer::new(&in_memory, &options)).unwrap();
    let mut reader = trainer(&from_file, None);
    assert_eq!(learner.data(), reader.data());
    assert_eq!(learner.bytes_per_token(), reader.bytes_per_token());
    assert_eq!(steps_of(&mut learner, 6), steps_of(&mut reader, 6));
}

#[test]
fn a_checkpoint_is_a_model_that_runs() {
    for renormalize in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let settings = small(folder.path(), &[("gate.renormalize", json!(renormalize)), ("train.steps", json!(3))]);
        let mut trainer = trainer(&settings, None);
        steps_of(&mut trainer, 3);
        let directory = folder.path().join("model");
        pollster::block_on(trainer.save(&directory)).unwrap();
        assert!(pollster::block_on(trainer.save(&directory)).unwrap_err().to_string().contains("not empty"));

        let tokenizer = pollster::block_on(Tokenizer::open(&directory)).unwrap();
        let ids = tokenizer.encode("Über the cat\n", true).unwrap();
        assert_eq!(ids, "Über the cat\n".bytes().map(u32::from).collect::<Vec<_>>());
        assert_eq!((tokenizer.decode(&ids, true).unwrap().as_str(), tokenizer.eos_ids()), ("Über the cat\n", &[256][..]));

        let options = LoadOptions::on(DeviceChoice::Cpu);
        let mut engine = pollster::block_on(Engine::load(&directory, &options, &mut |_| {})).unwrap();
        let found = pollster::block_on(engine.forward(&ids)).unwrap().logits;
        let rows: Vec<Row> = (0..).zip(&ids).map(|(position, id)| Row::new(*id, position, 0)).collect();
        let gating = Box::new(TopKSoftmax { k: 2, renormalize });
        let model = Model::new(
            trainer.spec().clone(),
            pollster::block_on(trainer.weights()).unwrap(),
            gating,
            LossCoefficients::default(),
        )
        .unwrap();
        let expected = model.logits(&rows);
        let worst = found.iter().zip(&expected).map(|(a, b)| (f64::from(*a) - b).abs()).fold(0.0, f64::max);
        assert!(found.len() == expected.len() && worst < 1e-4, "{worst}");
    }
}

#[test]
fn tensors_are_scattered_as_they_were_gathered() {
    // Experts one by one, all in one tensor, and with gate and up in one.
    for name in ["mixtral", "olmoe", "qwen3_moe", "deepseek", "granitemoe", "dbrx"] {
        if !moebius_fixture_exists(name) {
            continue;
        }
        let directory = golden("fixtures").join(name);
        let spec = spec_of(&directory);
        let checkpoint = open(&directory, &spec).unwrap();
        let read = |key: WeightKey| pollster::block_on(checkpoint.read(key, 0..key.shape(&spec).0)).unwrap().values;
        let tensors = scatter(&spec, WeightKey::all(&spec), &mut |key| read(key)).unwrap();
        assert_eq!(tensors.iter().map(|(name, tensor)| (name.clone(), tensor.shape.clone())).collect::<Vec<_>>(), {
            Checkpoint::required(&spec).into_iter().collect::<Vec<_>>()
        });
        let bytes = std::fs::read(directory.join("model.safetensors")).unwrap();
        let stored = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in tensors {
            let expected = stored.tensor(&name).unwrap();
            let expected = expected
                .data()
                .as_chunks::<2>()
                .0
                .iter()
                .map(|bytes| f32::from_bits(u32::from(u16::from_le_bytes(*bytes)) << 16));
            assert_eq!(tensor.values, expected.collect::<Vec<_>>(), "{name}");
        }
    }
}

fn moebius_fixture_exists(name: &str) -> bool {
    let exists = golden("fixtures").join(name).join("model.safetensors").exists();
    assert!(exists || name != "mixtral", "the first fixture has to be there");
    exists
}

#[test]
fn a_step_in_parts_is_the_step_as_a_whole() {
    let folder = tempfile::tempdir().unwrap();
    let no_losses = ("losses.load_balancing_loss", json!(0.0));
    let run = |windows: usize, accumulate: usize| {
        let sizes = [("train.windows", json!(windows)), ("train.accumulate", json!(accumulate)), no_losses.clone()];
        let mut trainer = trainer(&small(folder.path(), &sizes), None);
        let losses: Vec<f64> = steps_of(&mut trainer, 4).iter().map(|report| report.report.loss).collect();
        losses
    };
    for (whole, parts) in run(4, 1).iter().zip(run(1, 4)) {
        assert!((whole - parts).abs() < 1e-9, "{whole} {parts}");
    }
}

#[test]
fn a_model_learns_four_windows_by_heart() {
    let folder = tempfile::tempdir().unwrap();
    let settings = small(
        folder.path(),
        &[
            ("train.windows", json!(4)),
            ("train.steps", json!(200)),
            ("train.lr", json!(2e-2)),
            ("train.init_matrix_std", json!(0.2)),
            ("train.weight_decay", json!(0.0)),
            ("data.held_out", json!(0.0)),
        ],
    );
    // Just as many tokens as four windows take.
    std::fs::write(folder.path().join("text.txt"), &TEXT[..64]).unwrap();
    let mut trainer = trainer(&settings, None);
    assert_eq!(trainer.data().num_windows(), 4);
    let last = steps_of(&mut trainer, 200).pop().unwrap();
    assert!(last.report.cross_entropy < 0.1, "{}", last.report.cross_entropy);
    assert_eq!(last.validation_loss, None);
}

#[test]
fn a_line_of_metrics_is_flat() {
    let folder = tempfile::tempdir().unwrap();
    let line = metrics_line(&steps_of(&mut trainer(&small(folder.path(), &[]), None), 1)[0]);
    let line = line.as_object().unwrap();
    assert!(line.values().all(|value| !value.is_object()));
    assert_eq!(line["layers/1/counts"].as_array().unwrap().iter().filter_map(Value::as_u64).sum::<u64>(), 64);
    assert!((line["losses/load_balancing_loss"].as_f64().unwrap() - 2.0).abs() < 0.5);
    assert_eq!((&line["step"], &line["tokens"], &line["skipped"]), (&json!(0), &json!(32), &json!(false)));
}

fn moebius(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_moebius")).args(["train", "--device", "cpu"]).args(arguments).output().unwrap()
}

#[test]
fn the_command_trains_saves_and_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let settings = small(folder.path(), &[("train.save_every", json!(2))]);
    let file = folder.path().join("settings.toml");
    std::fs::write(&file, settings.to_toml()).unwrap();
    let out = folder.path().join("runs/first");
    let [file, out] = [&file, &out].map(|path| path.to_str().unwrap());
    let output = moebius(&[file, "--out", out, "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((&result["steps"], &result["last"]["step"]), (&json!(6), &json!(5)));
    let metrics = || std::fs::read_to_string(Path::new(out).join("metrics.jsonl")).unwrap();
    let losses = |text: &str| -> Vec<Value> {
        text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap()["loss"].clone()).collect()
    };
    let before = losses(&metrics());
    assert_eq!(before.len(), 6);
    assert!(Path::new(out).join("step-000002/model.safetensors").exists() && Path::new(out).join("run.json").exists());

    // As after a kill: the last checkpoint is that of step 4, the lines reach further.
    std::fs::remove_dir_all(Path::new(out).join("step-000006")).unwrap();
    let output = moebius(&["--resume", out]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stderr).contains("after step 4, with the same settings"));
    assert_eq!(losses(&metrics()), before);
}

#[test]
fn the_command_says_what_is_wrong() {
    let folder = tempfile::tempdir().unwrap();
    let empty = folder.path().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let [out, empty] = [&folder.path().join("out"), &empty].map(|path| path.to_str().unwrap().to_owned());
    let refused = |arguments: &[&str], expected: &str| {
        let output = moebius(arguments);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(2) && message.contains(expected), "{arguments:?}: {message}");
    };
    refused(&["--out", &out], "no text to learn from");
    refused(&["--out", &out, "--data", "/nowhere"], "a text, or a folder with .txt files");
    refused(&["--out", &out, "--data", &empty], "a text, or a folder with .txt files");
    refused(&["--out", &out, "--set", "train.stepz=3"], "`train.steps` is one");
    refused(&["--out", &out, "--set", "train.steps"], "expected KEY=VALUE");
    refused(&["--resume", &empty], "has no checkpoint");
    refused(&["--out", &out, "--data", "README.md", "--set", "gate.num_experts_per_tok=9"], "num_experts_per_tok");
    assert!(!Path::new(&out).join("step-000400").exists());
}

/// The demo model trained on as PyTorch did: all fifty steps with `FULL=1`, three without.
#[test]
fn losses_of_the_demo_model_are_those_of_pytorch() {
    let folder = golden("training_parity");
    let run: Value = serde_json::from_str(&std::fs::read_to_string(folder.join("run.json")).unwrap()).unwrap();
    let tokens: Vec<u32> = tensor(&folder.join("batches.safetensors"), "tokens").iter().map(|token| *token as u32).collect();
    let spec = spec_of(&demo_model());
    let mut model = demo(&spec);
    let mut moments = Moments::new(&model.weights);
    let optimiser = AdamW { beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1, clip_norm: 1.0 };
    let wanted = if std::env::var("FULL").is_ok_and(|value| value == "1") { 50 } else { 3 };
    for (step, tokens) in tokens.chunks_exact(8 * 65).take(wanted).enumerate() {
        let (stored, batch) = (&run["steps"][step], Batch::of_windows(tokens, 64));
        let number = |key: &str| stored[key].as_f64().unwrap();
        let mut gradients = zeros_like(&model.weights);
        let report = model.gradients(&batch, batch.num_targets(), &mut gradients);
        assert!((report.loss - number("loss")).abs() < 1e-3, "step {step}: {} {}", report.loss, number("loss"));
        if step == 0 {
            let counts: Vec<&Vec<u32>> = report.layers.iter().map(|layer| &layer.counts).collect();
            assert_eq!(json!(counts), stored["counts"]);
        }
        let norm = optimiser.step(&mut model.weights, &mut moments, &gradients, number("lr"));
        assert!(step >= 10 || (norm / number("grad_norm") - 1.0).abs() < 1e-3, "step {step}: {norm}");
    }
}

fn demo(spec: &ModelSpec) -> Model {
    check(spec).unwrap();
    let checkpoint = open(&demo_model(), spec).unwrap();
    let read = |key: WeightKey| pollster::block_on(checkpoint.read(key, 0..key.shape(spec).0)).unwrap().values;
    let weights: Weights = WeightKey::all(spec).map(|key| (key, read(key).into_iter().map(f64::from).collect())).collect();
    let gating = Box::new(TopKSoftmax { k: 2, renormalize: true });
    Model::new(spec.clone(), weights, gating, LossCoefficients { load_balancing: 0.02, router_z: 0.0 }).unwrap()
}
