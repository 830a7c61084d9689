//! The reference of each kernel against values worked out by hand or another way.

use crate::common::max_difference;
use moebius::gating::{RouterSpec, ScoreFunction};
use moebius::reference::expert_combine::expert_combine;
use moebius::reference::expert_down::expert_down;
use moebius::reference::expert_gate_up::expert_gate_up;
use moebius::reference::expert_sort::{Sorted, expert_sort};
use moebius::reference::matmul::{matmul, matmul_add};
use moebius::reference::rms_norm::rms_norm;
use moebius::reference::rng::{pcg, uniform_f32};
use moebius::reference::rope::rope_table;
use moebius::reference::router_topk::router_topk;
use moebius::reference::sample::{Sampling, mark_seen, sample, seen_words};
use moebius::reference::{KvCache, Row, attention::attention, embed::embed, qkv};
use moebius::spec::{AttentionSpec, Mask, RopeSpec};
use std::collections::BTreeSet;

const DRAWS: u32 = 20_000;

fn attention_spec(num_heads: usize, num_kv_heads: usize, head_dim: usize, mask: Mask) -> AttentionSpec {
    AttentionSpec { num_heads, num_kv_heads, head_dim, scale: 1.0, rope: RopeSpec { theta: 10_000.0 }, mask }
}

/// How often each token is drawn, over many seeds.
fn frequencies(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
    let seen = vec![0; seen_words(logits.len())];
    let mut counts = vec![0.0; logits.len()];
    for seed in 0..DRAWS {
        counts[sample(&Sampling { seed, ..sampling }, logits, &seen, 7).token as usize] += 1.0 / f64::from(DRAWS);
    }
    counts
}

fn drawn(sampling: Sampling, logits: &[f32]) -> BTreeSet<usize> {
    frequencies(sampling, logits).iter().enumerate().filter(|(_, share)| **share > 0.0).map(|(token, _)| token).collect()
}

const HOT: Sampling = Sampling { temperature: 1.0, ..Sampling::GREEDY };

#[test]
fn embedding_takes_the_row_of_each_token() {
    let table = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0];
    assert_eq!(embed(&[Row::new(2, 0, 0), Row::new(0, 1, 0)], &table, 2), [20.0, 21.0, 0.0, 1.0]);
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    // mean(9 + 16) / 2 = 12.5; with eps 3.5 the root is 4.
    assert_eq!(rms_norm(&[3.0, 4.0, 0.0, 0.0], &[1.0, 2.0], 3.5), [0.75, 2.0, 0.0, 0.0]);
}

#[test]
fn matmul_is_the_dot_product_of_every_token_and_row() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // two tokens
    let weight = [1.0, 0.0, 0.0, 0.0, 1.0, -1.0, 2.0, 2.0, 2.0, 0.5, 0.5, 0.5]; // four rows
    let expected = [1.0, -1.0, 12.0, 3.0, 4.0, -1.0, 30.0, 7.5];
    assert_eq!(matmul(&x, &weight, 3), expected);
    let mut y = [100.0; 8];
    matmul_add(&x, &weight, 3, &mut y);
    assert_eq!(y.to_vec(), expected.map(|value| value + 100.0));
    assert!(matmul(&[], &weight, 3).is_empty());
}

#[test]
fn matmul_of_many_rows_puts_each_where_it_belongs() {
    // weight[r, c] = r where r % 5 == c: y[t, r] = r * x[t, r % 5]
    let weight: Vec<f32> = (0..100 * 5).map(|i| if i / 5 % 5 == i % 5 { (i / 5) as f32 } else { 0.0 }).collect();
    let x: Vec<f32> = (0..3 * 5).map(|i| i as f32 - 7.0).collect();
    let expected: Vec<f32> = (0..3 * 100).map(|i| (i % 100) as f32 * x[i / 100 * 5 + i % 5]).collect();
    assert_eq!(matmul(&x, &weight, 5), expected);
}

#[test]
fn rope_table_turns_the_first_pair_by_one_radian_per_position() {
    let table = rope_table(&RopeSpec { theta: 10_000.0 }, 4, 3);
    assert_eq!(table.len(), 3 * 2);
    assert_eq!(table[0], [1.0, 0.0]);
    assert_eq!(table[4], [2.0f64.cos() as f32, 2.0f64.sin() as f32]);
    // The second pair of two turns by theta^(-1/2) = 1/100.
    assert_eq!(table[5], [0.02f64.cos() as f32, 0.02f64.sin() as f32]);
}

#[test]
fn qkv_turns_pairs_half_a_head_apart_and_appends_at_the_position() {
    let spec = attention_spec(1, 1, 4, Mask::Causal);
    // Identity rows for q; twice and three times that for k and v.
    let weight: Vec<f32> = (0..3 * 16).map(|i| if i % 16 / 4 == i % 4 { (1 + i / 16) as f32 } else { 0.0 }).collect();
    let quarter_turn = [0.0, 1.0];
    let rope = vec![quarter_turn; 3 * 2];
    let mut cache = KvCache { k: vec![0.0; 2 * 3 * 4], v: vec![0.0; 2 * 3 * 4] };
    let rows = [Row::new(0, 2, 1)];
    let x = [1.0, 2.0, 3.0, 4.0];
    let q = qkv::qkv(&qkv::Inputs { spec: &spec, context: 3, rows: &rows, x: &x, weight: &weight, rope: &rope }, &mut cache);
    // (a, b) -> (-b, a) for the pairs (1, 3) and (2, 4).
    assert_eq!(q, [-3.0, -4.0, 1.0, 2.0]);
    assert_eq!(cache.k[5 * 4..], [-6.0, -8.0, 2.0, 4.0]);
    assert_eq!(cache.v[5 * 4..], [3.0, 6.0, 9.0, 12.0]);
    assert!(cache.k[..5 * 4].iter().chain(&cache.v[..5 * 4]).all(|value| *value == 0.0), "the rest is left alone");
}

#[test]
fn attention_averages_visible_values_where_scores_are_equal() {
    let spec = |mask| attention_spec(2, 1, 4, mask);
    let k = vec![0.0; 2 * 5 * 4];
    let v: Vec<f32> = (0..2 * 5).flat_map(|key| [key as f32; 4]).collect();
    let cache = KvCache { k, v };
    let q = [1.0; 8];
    // Sequence 1 holds the values 5 to 9; position 3 sees 5, 6, 7, 8.
    let rows = [Row::new(0, 3, 1)];
    assert_eq!(attention(&spec(Mask::Causal), 5, &rows, &q, &cache), [6.5; 8]);
    assert_eq!(attention(&spec(Mask::Window(2)), 5, &rows, &q, &cache), [7.5; 8]);
    assert_eq!(attention(&spec(Mask::Window(4)), 5, &rows, &q, &cache), [6.5; 8]);
    assert_eq!(attention(&spec(Mask::Window(1)), 5, &rows, &q, &cache), [8.0; 8]);
}

#[test]
fn attention_weighs_by_the_softmax_of_scaled_scores_whatever_their_size() {
    let spec = AttentionSpec { scale: 1000.0, ..attention_spec(1, 1, 4, Mask::Causal) };
    let k = [1.0, 0.0, 0.0, 0.0, 1.0 + 1.0 / 1024.0, 0.0, 0.0, 0.0];
    let v = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    let cache = KvCache { k: k.to_vec(), v: v.to_vec() };
    // Scores 1000 and 1000 + 1000/1024: the second weighs 1 / (1 + exp(-0.9765625)).
    let y = attention(&spec, 2, &[Row::new(0, 1, 0)], &[1.0, 0.0, 0.0, 0.0], &cache);
    assert!(max_difference(&y, &[0.726_425_6; 4]) < 1e-6, "{y:?}");
}

#[test]
fn router_counts_loads_and_looks_slots_up() {
    let router = RouterSpec { num_experts: 3, num_experts_per_tok: 2, scores: ScoreFunction::Softmax, renormalize: true };
    let mut loads = vec![0; 3];
    // Softmax of (0, ln 3) is (1/4, 3/4).
    let logits = [0.0, 3f32.ln(), -50.0, 1.0, 1.0, 1.0];
    let routing = router_topk(&router, &logits, &[7, 8, 9], &mut loads);
    assert_eq!(routing.expert_ids, [1, 0, 0, 1]);
    assert_eq!(routing.slots, [8, 7, 7, 8]);
    assert!(max_difference(&routing.routing_weights, &[0.75, 0.25, 0.5, 0.5]) < 1e-6);
    assert_eq!(loads, [2, 2, 0]);
}

#[test]
fn sort_cuts_each_expert_into_tiles_and_keeps_the_order() {
    let sorted = expert_sort(&[2, 0, 2, 2, 0, 2], &[5, 6, 7], 3, 5);
    let tiles = vec![[5, 0, 2, 0], [7, 2, 3, 0], [7, 5, 1, 0], [0; 4], [0; 4]];
    assert_eq!(sorted, Sorted { tiles, order: vec![1, 4, 0, 2, 3, 5] });
}

#[test]
fn experts_are_those_of_the_slot_and_combine_by_weight() {
    // Two slots, hidden 1, intermediate 1: gate and up are numbers.
    let gate_up = [vec![1.0, 10.0], vec![-1.0, 5.0]];
    let down = [vec![2.0], vec![3.0]];
    let silu = |x: f32| x / (1.0 + (-x).exp());
    let h = expert_gate_up(&[2.0], &[1, 0], 2, &gate_up, 1);
    assert!(max_difference(&h, &[silu(-2.0) * 10.0, silu(2.0) * 20.0]) < 1e-5, "{h:?}");
    let y = expert_down(&[4.0, 5.0], &[1, 0], &down, 1);
    assert_eq!(y, [12.0, 10.0]);
    let mut x = [100.0];
    expert_combine(&y, &[0.25, 0.75], 2, &mut x);
    assert_eq!(x, [110.5]);
}

#[test]
fn random_numbers_are_those_of_the_paper_and_fill_the_unit_interval() {
    // Worked out with unbounded integers from the definition.
    assert_eq!([pcg(0), pcg(1), pcg(42)], [129_708_002, 2_831_084_092, 1_223_963_391]);
    let numbers: Vec<f32> = (0..10_000).map(|position| uniform_f32(3, position)).collect();
    assert!(numbers.iter().all(|number| (0.0..1.0).contains(number)));
    let mean = numbers.iter().sum::<f32>() / 10_000.0;
    assert!((mean - 0.5).abs() < 0.01, "{mean}");
    assert_ne!(uniform_f32(3, 5), uniform_f32(4, 5));
}

#[test]
fn greedy_takes_the_best_token_and_the_lower_of_two() {
    let choice = sample(&Sampling::GREEDY, &[1.0, 3.0, 2.5, 3.0], &[0], 0);
    assert_eq!((choice.token, choice.margin), (1, 0.5));
}

#[test]
fn penalty_shrinks_positive_and_stretches_negative_logits_of_seen_tokens() {
    let penalty = Sampling { repeat_penalty: 2.0, ..Sampling::GREEDY };
    let mut seen = vec![0; 2];
    mark_seen(&mut seen, 33);
    let mut logits = vec![-9.0; 40];
    (logits[33], logits[4]) = (3.0, 2.0);
    assert_eq!(sample(&Sampling::GREEDY, &logits, &seen, 0).token, 33);
    assert_eq!(sample(&penalty, &logits, &seen, 0).token, 4);
    (logits[33], logits[4]) = (-1.0, -1.5);
    assert_eq!(sample(&penalty, &logits, &seen, 0).token, 4);
}

#[test]
fn draws_follow_the_softmax_at_every_temperature() {
    let logits = [0.0, 1.0, -1.0, 2.0];
    for temperature in [0.5, 1.0, 2.0] {
        let masses: Vec<f64> = logits.iter().map(|logit| f64::from(logit / temperature).exp()).collect();
        let total: f64 = masses.iter().sum();
        for (share, mass) in frequencies(Sampling { temperature, ..HOT }, &logits).iter().zip(masses) {
            // Three and a half standard deviations of 20000 draws at a share of one half.
            assert!((share - mass / total).abs() < 0.0125, "{temperature}: {share} {}", mass / total);
        }
    }
}

#[test]
fn top_k_keeps_k_tokens_and_what_ties_with_the_last() {
    let logits = [0.3, 0.0, 0.5, 0.1, 0.2];
    assert_eq!(drawn(Sampling { top_k: 1, ..HOT }, &logits), BTreeSet::from([2]));
    assert_eq!(drawn(Sampling { top_k: 3, ..HOT }, &logits), BTreeSet::from([0, 2, 4]));
    assert_eq!(drawn(Sampling { top_k: 0, ..HOT }, &logits).len(), 5);
    assert_eq!(drawn(Sampling { top_k: 9, ..HOT }, &logits).len(), 5);
    assert_eq!(drawn(Sampling { top_k: 2, ..HOT }, &[0.1, 0.5, 0.1, 0.0]), BTreeSet::from([0, 1, 2]));
}

#[test]
fn top_p_keeps_the_smallest_set_that_has_the_share() {
    // Probabilities 0.5, 0.3, 0.15, 0.05.
    let logits = [0.15f32.ln(), 0.5f32.ln(), 0.05f32.ln(), 0.3f32.ln()];
    let kept = |top_p| drawn(Sampling { top_p, ..HOT }, &logits);
    assert_eq!(kept(0.0), BTreeSet::from([1]));
    assert_eq!(kept(0.49), BTreeSet::from([1]));
    assert_eq!(kept(0.51), BTreeSet::from([1, 3]));
    assert_eq!(kept(0.79), BTreeSet::from([1, 3]));
    assert_eq!(kept(0.81), BTreeSet::from([0, 1, 3]));
    assert_eq!(kept(1.0).len(), 4);
    // After top-k, the share is one of what top-k left: 0.5 of 0.8.
    assert_eq!(drawn(Sampling { top_k: 2, top_p: 0.6, ..HOT }, &logits), BTreeSet::from([1]));
}

#[test]
fn min_p_keeps_what_is_likely_enough_beside_the_best() {
    let logits = [0.15f32.ln(), 0.5f32.ln(), 0.05f32.ln(), 0.3f32.ln()];
    assert_eq!(drawn(Sampling { min_p: 0.2, ..HOT }, &logits), BTreeSet::from([0, 1, 3]));
    assert_eq!(drawn(Sampling { min_p: 0.5, ..HOT }, &logits), BTreeSet::from([1, 3]));
    assert_eq!(drawn(Sampling { min_p: 1.0, ..HOT }, &logits), BTreeSet::from([1]));
}

#[test]
fn a_margin_tells_how_near_another_choice_was() {
    let logits = [0.0, 0.0];
    let near = (0..DRAWS).map(|seed| sample(&Sampling { seed, ..HOT }, &logits, &[0], 0).margin);
    for (seed, margin) in near.enumerate() {
        let distance = (f64::from(uniform_f32(seed as u32, 0)) - 0.5).abs();
        assert!((margin - distance).abs() < 1e-12, "{margin} {distance}");
    }
}
