//! The references of mixers with a state, against values worked out by hand or another way.

use moebius::batch::Row;
use moebius::reference::gated_norm::gated_norm;
use moebius::reference::scan::{self, scan};
use moebius::reference::short_conv::{Inputs, short_conv};
use moebius::spec::{Decay, GateActivation, GatedNormSpec, RecurrentSpec, Rule};

fn rows(positions: std::ops::Range<u32>, sequence: u32) -> Vec<Row> {
    positions.map(|position| Row::new(0, position, sequence)).collect()
}

/// A convolution of one channel over three positions.
fn convolved(rows: &[Row], x: &[f32], state: &mut [f32]) -> Vec<f32> {
    let weight = &[100.0, 10.0, 1.0];
    short_conv(&Inputs { rows, channels: 1, x, weight, bias: None, silu: false, gated: false }, state)
}

#[test]
fn a_short_convolution_sees_itself_with_the_last_weight_and_nothing_before_the_text() {
    let mut state = [f32::NAN; 9];
    assert_eq!(convolved(&rows(0..4, 0), &[1.0, 2.0, 3.0, 4.0], &mut state), [1.0, 12.0, 123.0, 234.0]);
    // Position p in row p % 3: the first has made room for the fourth.
    assert_eq!(state[..3], [4.0, 2.0, 3.0]);
    assert_eq!(convolved(&rows(4..5, 0), &[5.0], &mut state), [345.0]);
    // Another text begins with nothing.
    assert_eq!(convolved(&rows(0..1, 0), &[7.0], &mut state), [7.0]);
}

#[test]
fn a_short_convolution_finds_the_end_of_the_block_before_and_of_the_one_before_that() {
    let x: Vec<f32> = (0..140).map(|position| position as f32).collect();
    let mut state = [f32::NAN; 9];
    convolved(&rows(0..140, 0), &x, &mut state);
    for position in [64, 128, 140] {
        let found = convolved(&rows(position..position + 1, 0), &[9.0], &mut state.clone());
        assert_eq!(found, [110.0 * position as f32 - 210.0 + 9.0], "position {position}");
    }
}

#[test]
fn a_short_convolution_may_have_a_bias_an_activation_or_gates() {
    let mut state = [0.0; 9];
    let inputs = Inputs {
        rows: &rows(0..1, 0),
        channels: 1,
        x: &[2.0],
        weight: &[0.0, 0.0, 3.0],
        bias: Some(&[-6.0]),
        silu: true,
        gated: false,
    };
    assert_eq!(short_conv(&inputs, &mut state), [0.0]);
    let silu = short_conv(&Inputs { bias: Some(&[-5.0]), ..inputs }, &mut state)[0];
    assert!((silu - 0.731_058_6).abs() < 1e-6, "{silu}");
    // b = 2, c = 5, u = 7: c * weight * (b * u), and what is kept is the product.
    let inputs = Inputs { rows: &rows(0..1, 0), x: &[2.0, 5.0, 7.0], bias: None, silu: false, gated: true, ..inputs };
    assert_eq!(short_conv(&inputs, &mut state), [210.0]);
    assert_eq!(state[0], 14.0);
}

#[test]
fn texts_of_one_batch_do_not_see_each_other() {
    let both = [rows(0..2, 0), rows(0..2, 1)].concat();
    let mut state = [f32::NAN; 18];
    assert_eq!(convolved(&both, &[1.0, 2.0, 3.0, 4.0], &mut state), [1.0, 12.0, 3.0, 34.0]);
    assert_eq!([state[0], state[1], state[9], state[10]], [1.0, 2.0, 3.0, 4.0]);
}

const NORM: GatedNormSpec =
    GatedNormSpec { eps: 0.0, groups: 1, activation: GateActivation::Silu, gate_first: true, shared_weight: false };

/// Heads of 1 x 1 whose steps are all 1.
fn heads(key_heads: usize, value_heads: usize) -> RecurrentSpec {
    let (decay, conv) = (Decay::Head { step_range: [1.0; 2] }, None);
    RecurrentSpec { key_heads, value_heads, key_dim: 1, value_dim: 1, rule: Rule::Add, decay, conv, norm: Some(NORM) }
}

/// `x` has values, keys and queries of every row; nothing is skipped.
fn scanned(spec: &RecurrentSpec, rows: &[Row], x: &[f32], decay: f32, state: &mut [f32]) -> Vec<f32> {
    let of_heads = |value: f32| vec![value; spec.value_heads];
    let steps = vec![0.0; rows.len() * spec.value_heads];
    let (step_bias, decay, skip) = (of_heads(0.0), of_heads(decay), of_heads(0.0));
    let inputs = scan::Inputs::new(spec, rows, x);
    scan(&scan::Inputs { steps: &steps, step_bias: &step_bias, decay: &decay, skip: &skip, ..inputs }, state)
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    assert!(found.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-5), "{found:?}, expected {expected:?}");
}

#[test]
fn a_scan_forgets_by_half_adds_and_reads() {
    let (spec, half) = (heads(1, 1), -std::f32::consts::LN_2);
    let x = [8.0, 1.0, 1.0, 0.0, 1.0, 1.0, 2.0, 3.0, 10.0];
    let mut state = [f32::NAN; 3];
    // 8, then half of it, then half of that and 2 times 3, ten times.
    close(&scanned(&spec, &rows(0..3, 0), &x, half, &mut state), &[8.0, 4.0, 80.0]);
    close(&state[..1], &[8.0]);
    // Goes on from what was kept, and at position 0 from nothing.
    close(&scanned(&spec, &rows(3..4, 0), &[0.0, 1.0, 1.0], half, &mut state), &[4.0]);
    close(&scanned(&spec, &rows(0..1, 0), &[5.0, 1.0, 1.0], half, &mut state), &[5.0]);
}

/// What a head of 2 x 1 gives for values, keys and queries, with these betas before their sigmoid, and decays of both rows of its state.
fn delta(x: &[f32], betas: &[f32], decays: &[f32]) -> Vec<f32> {
    let spec = RecurrentSpec { key_dim: 2, rule: Rule::Delta, decay: Decay::Channel { rank: 1 }, ..heads(1, 1) };
    let rows = rows(0..betas.len() as u32, 0);
    scan(&scan::Inputs { betas, decays, ..scan::Inputs::new(&spec, &rows, x) }, &mut [f32::NAN; 6])
}

#[test]
fn a_delta_rule_replaces_what_is_stored_under_a_key_after_its_decay() {
    let root = 2f32.sqrt();
    // Keys and queries count by their direction, and queries by the root of 2. A beta of 1 stores the value, whatever was there.
    let x = [6.0, 5.0, 0.0, 1.0, 0.0, 8.0, 9.0, 0.0, 0.0, 3.0, 0.0, 2.0, 0.0, 0.0, 7.0];
    close(&delta(&x, &[40.0, 40.0, 40.0], &[1.0; 6]), &[6.0 / root, 0.0, 0.0]);
    let again = [6.0, 5.0, 0.0, 1.0, 0.0, 8.0, 9.0, 0.0, 4.0, 0.0];
    close(&delta(&again, &[40.0, 40.0], &[1.0; 4]), &[6.0 / root, 8.0 / root]);
    // A beta of a half takes half of what is missing: of 8 where 6 were and 3 are left, 5.5.
    close(&delta(&again, &[40.0, 0.0], &[1.0, 1.0, 0.5, 1.0]), &[6.0 / root, 5.5 / root]);
    // What the other row of the state loses does not matter here, and is read there.
    let other = [6.0, 5.0, 0.0, 1.0, 0.0, 8.0, 0.0, 9.0, 4.0, 0.0];
    close(&delta(&other, &[40.0, 40.0], &[1.0, 1.0, 0.25, 0.5]), &[6.0 / root, 1.5 / root]);
}

#[test]
fn a_channel_with_a_decay_for_every_value_norms_its_keys_and_gates_its_output() {
    let spec = RecurrentSpec { key_dim: 2, decay: Decay::Pair { rank: 1, eps: 1e-12 }, norm: None, ..heads(1, 1) };
    let half = -std::f32::consts::LN_2;
    // Steps of 1, from softplus; a value of 3; keys of mean square 1 and 4.
    let (rows, one) = (rows(0..2, 0), 1f32.exp_m1().ln());
    let inputs = scan::Inputs {
        steps: &[one, one],
        decay: &[half, 3.0 * half],
        skip: &[10.0],
        keys: &[1.0, 1.0, 2.0, 2.0, 0.0, 0.0, 2.0, -2.0],
        key_norms: [&[1.0, 2.0], &[1.0, 1.0]],
        gate: &[0.0, 40.0],
        ..scan::Inputs::new(&spec, &rows, &[3.0, 0.0])
    };
    let mut state = [f32::NAN; 6];
    // A gate of 0 lets nothing through; then of 3 and 6 a half and an eighth are left, one less the other, 40 times.
    close(&scan(&inputs, &mut state), &[0.0, 30.0]);
    close(&state[..2], &[1.5, 0.75]);
}

#[test]
fn constant_decays_fall_with_the_head_and_inputs_go_through_silu() {
    let spec = RecurrentSpec { decay: Decay::Constant { factor: 2.0 }, norm: None, ..heads(2, 2) };
    let (silu, rows) = (|x: f32| x / (1.0 + (-x).exp()), rows(0..2, 0));
    let x = [1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    let y = scan(&scan::Inputs::new(&spec, &rows, &x), &mut [f32::NAN; 6]);
    let one = silu(1.0) * silu(1.0);
    let (first, second) = (silu(1.0) * one, silu(2.0) * one);
    // 2 * 2^-4 and 2 * 2^-8.
    close(&y, &[first, second, first * (-0.125f32).exp(), second * (-0.007_812_5f32).exp()]);
}

#[test]
fn rows_to_come_do_not_change_what_a_scan_gives() {
    let spec = RecurrentSpec { key_dim: 2, rule: Rule::Delta, decay: Decay::Channel { rank: 1 }, ..heads(1, 1) };
    let x: Vec<f32> = (0..50).map(|index| (index * 37 % 11) as f32 - 5.0).collect();
    let (betas, decays) = ([0.3; 10], [0.9; 20]);
    let scanned = |num_tokens: usize| {
        let rows = rows(0..num_tokens as u32, 0);
        let inputs = scan::Inputs::new(&spec, &rows, &x);
        scan(&scan::Inputs { betas: &betas, decays: &decays, ..inputs }, &mut [f32::NAN; 6])
    };
    assert_eq!(scanned(10)[..7], scanned(7));
}

#[test]
fn consecutive_value_heads_share_a_key_head() {
    // Four values, two keys, two queries.
    let x = [1.0, 1.0, 1.0, 1.0, 2.0, 3.0, 10.0, 100.0];
    close(&scanned(&heads(2, 4), &rows(0..1, 0), &x, -1.0, &mut [f32::NAN; 12]), &[20.0, 20.0, 300.0, 300.0]);
}

#[test]
fn the_state_after_a_block_stays_until_the_third_block_after_it_begins() {
    let spec = heads(1, 1);
    let ones = [1.0; 3 * 200];
    let mut state = [f32::NAN; 3];
    // Nothing is forgotten: the state counts the rows.
    scanned(&spec, &rows(0..191, 0), &ones[..3 * 191], 0.0, &mut state);
    assert_eq!(state, [64.0, 128.0, 191.0]);
    scanned(&spec, &rows(191..193, 0), &ones[..6], 0.0, &mut state);
    assert_eq!(state, [193.0, 128.0, 192.0]);
    let mut at_once = [f32::NAN; 3];
    scanned(&spec, &rows(0..193, 0), &ones[..3 * 193], 0.0, &mut at_once);
    assert_eq!(at_once, state);
}

#[test]
fn steps_go_through_softplus_and_are_kept_to_their_range() {
    let step = |raw: f32, bias: f32, step_range: [f32; 2]| {
        let spec = RecurrentSpec { decay: Decay::Head { step_range }, ..heads(1, 1) };
        let (x, steps, step_bias) = ([1.0; 3], [raw], [bias]);
        let rows = rows(0..1, 0);
        let inputs = scan::Inputs::new(&spec, &rows, &x);
        let inputs = scan::Inputs { steps: &steps, step_bias: &step_bias, decay: &[-1.0], skip: &[0.5], ..inputs };
        // What is added to the state, and half of the value beside it.
        scan(&inputs, &mut [f32::NAN; 3])[0] - 0.5
    };
    let free = [0.0, f32::MAX];
    close(&[step(0.0, 0.0, free), step(1.0, 2.0, free), step(-9.0, 0.0, free)], &[std::f32::consts::LN_2, 3.048_587_3, 1.234e-4]);
    close(&[step(0.0, 0.0, [0.7, 1.0]), step(0.0, 0.0, [0.0, 0.6])], &[0.7, 0.6]);
}

#[test]
fn a_gate_stands_before_or_after_the_norm_of_its_group() {
    let silu = |x: f32| x / (1.0 + (-x).exp());
    let (x, gate, weight) = ([3.0, 4.0, 0.0, 2.0], [1.0, 2.0, 3.0, -1.0], [1.0, 1.0, 1.0, 10.0]);
    // Before it, all four are one group.
    let gated = [3.0 * silu(1.0), 4.0 * silu(2.0), 0.0, 2.0 * silu(-1.0)];
    let root = (gated.iter().map(|value| value * value).sum::<f32>() / 4.0).sqrt();
    close(&gated_norm(&NORM, &x, &gate, &weight), &[gated[0] / root, gated[1] / root, 0.0, 10.0 * gated[3] / root]);
    // Two groups: the first has a root of 12.5, the second one of 2.
    let after = GatedNormSpec { groups: 2, gate_first: false, ..NORM };
    let (first, second) = (12.5f32.sqrt(), 2f32.sqrt());
    close(
        &gated_norm(&after, &x, &gate, &weight),
        &[3.0 / first * silu(1.0), 4.0 / first * silu(2.0), 0.0, 20.0 / second * silu(-1.0)],
    );
    let shared = GatedNormSpec { shared_weight: true, activation: GateActivation::Sigmoid, ..after };
    let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
    close(
        &gated_norm(&shared, &x, &gate, &[1.0, 2.0]),
        &[3.0 / first * sigmoid(1.0), 8.0 / first * sigmoid(2.0), 0.0, 4.0 / second * sigmoid(-1.0)],
    );
}
