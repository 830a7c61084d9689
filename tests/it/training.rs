//! The trainer in f64 against PyTorch, and its gradients against differences of its own losses.

use crate::common::{TrainedRun, config_with};
use moebius::Error;
use moebius::batch::rng::uniform_f32;
use moebius::reference::training::adamw::{self, Moments};
use moebius::reference::training::gate::TopKSoftmax;
use moebius::reference::training::{Batch, LossCoefficients, Model, NO_TARGET, Weights, check, zeros_like};
use moebius::spec::{ModelSpec, WeightKey};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const LOSSES: LossCoefficients = LossCoefficients { load_balancing: 0.01, router_z: 0.001 };

fn top2(run: &TrainedRun) -> Model {
    let gating = Box::new(TopKSoftmax { k: 2, renormalize: true });
    Model::new(run.spec.clone(), run.weights("init.safetensors"), gating, LOSSES).unwrap()
}

fn largest_difference(a: &Weights, b: &Weights) -> f64 {
    a.iter().flat_map(|(key, values)| values.iter().zip(&b[key])).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max)
}

#[test]
fn twenty_steps_of_a_top_2_model_are_those_of_pytorch() {
    let run = TrainedRun::open("top2");
    let (mut model, optimiser) = (top2(&run), run.optimiser());
    let mut moments = Moments::new(&model.weights);
    for (step, (batch, routing)) in run.batches.iter().zip(run.routing()).enumerate() {
        let (stored, loss) = (&run.json["steps"][step], run.json["loss_f64"][step].as_f64().unwrap());
        assert_eq!(model.choices(&batch.rows), routing, "step {step}");
        let mut gradients = zeros_like(&model.weights);
        let report = model.gradients(batch, batch.num_targets(), &mut gradients);
        assert!((report.loss - loss).abs() < 1e-9, "step {step}: {} {loss}", report.loss);
        if step == 0 {
            let expected = run.weights("first_gradient.safetensors");
            assert!(largest_difference(&gradients, &expected) < 1e-6, "{}", largest_difference(&gradients, &expected));
        }
        for (layer, found) in report.layers.iter().enumerate() {
            assert_eq!(json!(found.counts), stored["counts"][layer]);
            let close = |found: f64, key: &str| (found - stored[key][layer].as_f64().unwrap()).abs() < 1e-4;
            assert!(close(found.load_balancing, "load_balancing_loss") && close(found.router_z, "z_loss"), "step {step}");
            assert_eq!(found.dropped, 0);
        }
        let norm = optimiser.step(&mut model.weights, &mut moments, &gradients, run.lr(step));
        assert!((norm - stored["grad_norm"].as_f64().unwrap()).abs() < 1e-4, "step {step}: {norm}");
    }
    let difference = largest_difference(&model.weights, &run.weights("final.safetensors"));
    assert!(difference < 1e-4, "{difference}");
}

/// A model of every part that is trained, with small weights from a seed.
fn small(changes: &[(&str, Value)]) -> Model {
    let spec = ModelSpec::parse(&config_with(changes), "config.json").unwrap();
    let mut drawn = 0;
    let mut draw = |size: f64| {
        drawn += 1;
        size * (2.0 * f64::from(uniform_f32(3, drawn)) - 1.0)
    };
    let weights = WeightKey::all(&spec).map(|key| {
        let (rows, cols) = key.shape(&spec);
        let base = if adamw::decays(key) { 0.0 } else { 1.0 };
        (key, (0..rows * cols).map(|_| base + draw(0.6)).collect())
    });
    let weights: Weights = weights.collect();
    let routed = spec.layers.iter().find_map(|layer| layer.moe());
    let gating = TopKSoftmax { k: routed.map_or(1, |moe| moe.router.num_experts_per_tok), renormalize: spec.family == "mixtral" };
    Model::new(spec, weights, Box::new(gating), LossCoefficients { load_balancing: 0.1, router_z: 0.05 }).unwrap()
}

fn two_sequences() -> Batch {
    let mut batch = Batch::of_windows(&[1, 5, 9, 2, 4, 7, 7, 0, 3, 8, 2, 6], 5);
    batch.targets[3] = NO_TARGET;
    batch
}

/// Compares, for every role, the derivative along a random direction with a difference of losses in the same routing.
fn gradients_are_slopes(model: &mut Model) {
    let batch = two_sequences();
    let mut gradients = zeros_like(&model.weights);
    let report = model.gradients(&batch, batch.num_targets(), &mut gradients);
    assert!((report.loss - model.evaluate(&batch).loss).abs() < 1e-14);
    let choices = model.choices(&batch.rows);
    let mut by_role: BTreeMap<_, Vec<WeightKey>> = BTreeMap::new();
    for key in model.weights.keys() {
        by_role.entry((key.role, key.layer)).or_default().push(*key);
    }
    let before = model.weights.clone();
    for (role, keys) in by_role {
        let direction = |key: &WeightKey, i: usize| 2.0 * f64::from(uniform_f32(key.expert as u32 + 7, i as u32)) - 1.0;
        let slope: f64 =
            keys.iter().flat_map(|key| gradients[key].iter().enumerate().map(move |(i, g)| g * direction(key, i))).sum();
        let mut loss_at = |distance: f64| {
            for key in &keys {
                let moved = before[key].iter().enumerate().map(|(i, weight)| weight + distance * direction(key, i));
                model.weights.insert(*key, moved.collect());
            }
            assert_eq!(model.choices(&batch.rows), choices, "{role:?}: a choice changed");
            model.evaluate(&batch).loss
        };
        let step = 1e-6;
        let difference = (loss_at(step) - loss_at(-step)) / (2.0 * step);
        loss_at(0.0);
        assert!((slope - difference).abs() < 1e-6 * slope.abs().max(0.01), "{role:?}: {slope} {difference}");
    }
}

#[test]
fn gradients_are_the_slopes_of_the_loss() {
    gradients_are_slopes(&mut small(&[]));
    gradients_are_slopes(&mut small(&[("num_local_experts", json!(5)), ("tie_word_embeddings", json!(true))]));
}

#[test]
fn gradients_of_a_router_that_is_not_renormalised_reach_every_expert() {
    let olmoe = [
        ("model_type", json!("qwen3_moe")),
        ("num_experts", json!(4)),
        ("moe_intermediate_size", json!(6)),
        ("norm_topk_prob", json!(false)),
    ];
    let text = config_with(&olmoe);
    let spec = ModelSpec::parse(&text, "config.json").unwrap();
    // Its norms of query and key have no gradients here.
    assert!(matches!(check(&spec), Err(Error::NotTrained { .. })));
    let mut model = small(&[]);
    model.gating = Box::new(TopKSoftmax { k: 1, renormalize: false });
    gradients_are_slopes(&mut model);
}

#[test]
fn targets_that_count_for_nothing_teach_nothing() {
    let model = small(&[]);
    let mut batch = two_sequences();
    batch.targets.fill(NO_TARGET);
    let mut gradients = zeros_like(&model.weights);
    let report = Model { losses: LossCoefficients::default(), ..model }.gradients(&batch, 7, &mut gradients);
    assert_eq!((report.loss, adamw::norm(&gradients)), (0.0, 0.0));
}

#[test]
fn gradients_of_parts_add_up_to_those_of_the_whole() {
    let model = Model { losses: LossCoefficients::default(), ..small(&[]) };
    let tokens = [1, 5, 9, 2, 4, 7, 7, 0, 3, 8, 2, 6];
    let (mut whole, mut parts) = (zeros_like(&model.weights), zeros_like(&model.weights));
    let loss = model.gradients(&Batch::of_windows(&tokens, 5), 10, &mut whole).loss;
    let part_losses = tokens.chunks_exact(6).map(|part| model.gradients(&Batch::of_windows(part, 5), 10, &mut parts).loss);
    assert!((loss - part_losses.sum::<f64>()).abs() < 1e-12);
    assert!(largest_difference(&whole, &parts) < 1e-14);
}

#[test]
fn gradients_that_are_no_numbers_change_nothing() {
    let model = small(&[]);
    let (mut weights, mut moments) = (model.weights.clone(), Moments::new(&model.weights));
    let mut gradients = zeros_like(&weights);
    gradients.values_mut().next().unwrap()[0] = f64::NAN;
    let optimiser = TrainedRun::open("top2").optimiser();
    assert!(optimiser.step(&mut weights, &mut moments, &gradients, 0.1).is_nan());
    assert_eq!((&weights, moments.steps), (&model.weights, 0));
}

#[test]
fn models_with_parts_that_have_no_gradients_are_refused_by_the_part() {
    for (changes, part) in [
        (vec![("sliding_window", json!(8))], "attention to a window"),
        (
            vec![("model_type", json!("qwen3_moe")), ("num_experts", json!(4)), ("moe_intermediate_size", json!(6))],
            "norms of query",
        ),
    ] {
        let spec = ModelSpec::parse(&config_with(&changes), "config.json").unwrap();
        let message = check(&spec).unwrap_err().to_string();
        assert!(message.contains("cannot be trained") && message.contains(part), "{message}");
    }
}
