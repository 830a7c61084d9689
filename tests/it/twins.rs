//! The reference of each kernel against values worked out by hand or another way.

use crate::common::max_difference;
use moebius::batch::Row;
use moebius::batch::rope::rope_table;
use moebius::gating::{Normalize, RouterSpec};
use moebius::reference::expert_combine::expert_combine;
use moebius::reference::expert_down::expert_down;
use moebius::reference::expert_gate_up::{self, expert_gate_up};
use moebius::reference::expert_sort::{Sorted, expert_sort};
use moebius::reference::matmul::{add_bias, matmul};
use moebius::reference::norm::norm;
use moebius::reference::router::router;
use moebius::reference::router_topk::router_topk;
use moebius::reference::{KvCache, attention, embed::embed, qkv};
use moebius::spec::{
    Activation, AttentionSpec, Mask, NormKind, NormSpec, QkNorm, QkNormOver, RopePairing, RopeScaling, RopeSpec,
    TemperatureTuning,
};

fn attention_spec(num_heads: usize, num_kv_heads: usize, head_dim: usize, mask: Mask) -> AttentionSpec {
    AttentionSpec { scale: 1.0, rope: Some(rope(head_dim)), mask, ..AttentionSpec::new(num_heads, num_kv_heads, head_dim) }
}

fn rope(dims: usize) -> RopeSpec {
    RopeSpec { theta: 10_000.0, dims, pairing: RopePairing::Half, scaling: RopeScaling::None }
}

fn attend(spec: &AttentionSpec, context: usize, rows: &[Row], q: &[f32], cache: &KvCache) -> Vec<f32> {
    attention::attention(&attention::Inputs { spec, context, rows, q, cache, sinks: None, bias: None, value_dim: None })
}

/// Inputs of a context of three without biases and norms.
fn qkv_inputs<'a>(
    spec: &'a AttentionSpec,
    rows: &'a [Row],
    x: &'a [f32],
    weight: &'a [f32],
    rope: &'a [[f32; 2]],
) -> qkv::Inputs<'a> {
    qkv::Inputs { spec, context: 3, rows, x, weight, bias: None, query_norm: None, key_norm: None, rope }
}

#[test]
fn embedding_takes_the_row_of_each_token() {
    let table = [0.0, 1.0, 10.0, 11.0, 20.0, 21.0];
    assert_eq!(embed(&[Row::new(2, 0, 0), Row::new(0, 1, 0)], &table, 2, 1.0, None), [20.0, 21.0, 0.0, 1.0]);
}

#[test]
fn rms_norm_divides_by_the_root_of_the_mean_square() {
    // mean(9 + 16) / 2 = 12.5; with eps 3.5 the root is 4.
    assert_eq!(norm(&NormSpec::rms(3.5), &[3.0, 4.0, 0.0, 0.0], &[1.0, 2.0]), [0.75, 2.0, 0.0, 0.0]);
}

#[test]
fn layer_norm_takes_the_mean_off_and_adds_a_bias() {
    // Mean 5, variance 1; with eps 3 the root is 2. The weights, then the biases.
    let spec = NormSpec { kind: NormKind::Layer, eps: 3.0, bias: true };
    assert_eq!(norm(&spec, &[4.0, 6.0], &[1.0, 4.0, 10.0, 20.0]), [9.5, 22.0]);
    assert_eq!(norm(&NormSpec { bias: false, ..spec }, &[4.0, 6.0], &[1.0, 4.0]), [-0.5, 2.0]);
}

#[test]
fn matmul_is_the_dot_product_of_every_token_and_row() {
    let x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]; // two tokens
    let weight = [1.0, 0.0, 0.0, 0.0, 1.0, -1.0, 2.0, 2.0, 2.0, 0.5, 0.5, 0.5]; // four rows
    let expected = [1.0, -1.0, 12.0, 3.0, 4.0, -1.0, 30.0, 7.5];
    assert_eq!(matmul(&x, &weight, 3), expected);
    let mut y = [0.0; 8];
    add_bias(&mut y, &[1.0, 2.0, 3.0, 4.0]);
    assert_eq!(y, [1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]);
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
    let table = rope_table(&rope(4), 3, 3);
    assert_eq!(table.len(), 3 * 2);
    assert_eq!(table[0], [1.0, 0.0]);
    assert_eq!(table[4], [2.0f64.cos() as f32, 2.0f64.sin() as f32]);
    // The second pair of two turns by theta^(-1/2) = 1/100.
    assert_eq!(table[5], [0.02f64.cos() as f32, 0.02f64.sin() as f32]);
}

/// The cosines at position one of a table that does not rotate at all.
fn cosines(scaling: RopeScaling, total_len: usize) -> Vec<f32> {
    let table = rope_table(&RopeSpec { scaling, ..rope(8) }, 2, total_len);
    table[4..].iter().map(|turn| turn[0]).collect()
}

/// Cosines of the four plain frequencies 1, 1/10, 1/100, 1/1000, each divided.
fn divided(divisors: [f64; 4], magnitude: f64) -> Vec<f32> {
    let plain = [1.0, 0.1, 0.01, 0.001];
    plain.iter().zip(divisors).map(|(frequency, divisor)| (magnitude * (frequency / divisor).cos()) as f32).collect()
}

#[test]
fn linear_scaling_divides_every_frequency() {
    assert_eq!(cosines(RopeScaling::Linear { factor: 4.0 }, 0), divided([4.0; 4], 1.0));
}

#[test]
fn llama3_scaling_divides_slow_frequencies_and_mixes_those_between() {
    // Over 628 positions the pairs turn 100, 10, 1 and 1/10 times.
    let scaling = |low_freq_factor, high_freq_factor| RopeScaling::Llama3 {
        factor: 8.0,
        low_freq_factor,
        high_freq_factor,
        original_positions: 628,
    };
    assert_eq!(cosines(scaling(2.0, 5.0), 0), divided([1.0, 1.0, 8.0, 8.0], 1.0));
    assert_eq!(cosines(scaling(5.0, 5.0), 0), divided([1.0, 1.0, 8.0, 8.0], 1.0));
    let turns = 62.8 / std::f64::consts::TAU;
    let kept = (turns - 5.0) / (15.0 - 5.0);
    let mixed = 1.0 / (kept + (1.0 - kept) / 8.0);
    assert!(max_difference(&cosines(scaling(5.0, 15.0), 0), &divided([1.0, mixed, 8.0, 8.0], 1.0)) < 1e-6);
}

#[test]
fn yarn_keeps_fast_pairs_divides_slow_ones_and_stretches_all() {
    let scaling = |truncate| RopeScaling::Yarn {
        factor: 8.0,
        beta_fast: 50.0,
        beta_slow: 0.5,
        original_positions: 628,
        truncate,
        attention_factor: 1.25,
    };
    // A pair that turns n times is the pair 2 - log10(n) (628 is a hundred full turns): from 0.3 to 2.3.
    let index = |turns: f64| 8.0 * (628.0 / (turns * std::f64::consts::TAU)).ln() / (2.0 * 10_000f64.ln());
    for (truncate, first, end) in [(true, 0.0, 3.0), (false, index(50.0), index(0.5))] {
        let divisor = |pair: f64| {
            let share = ((pair - first) / (end - first)).clamp(0.0, 1.0);
            1.0 / (share / 8.0 + 1.0 - share)
        };
        let expected = divided([divisor(0.0), divisor(1.0), divisor(2.0), divisor(3.0)], 1.25);
        assert!(max_difference(&cosines(scaling(truncate), 0), &expected) < 1e-6, "{truncate}");
    }
}

#[test]
fn longrope_takes_the_divisors_of_the_texts_length() {
    let scaling = RopeScaling::Long {
        short: vec![1.0, 2.0, 3.0, 4.0],
        long: vec![5.0, 6.0, 7.0, 8.0],
        short_mscale: 1.5,
        long_mscale: 2.0,
        original_positions: 16,
    };
    assert_eq!(cosines(scaling.clone(), 16), divided([1.0, 2.0, 3.0, 4.0], 1.5));
    assert_eq!(cosines(scaling, 17), divided([5.0, 6.0, 7.0, 8.0], 2.0));
}

/// What one token at position 1 becomes with identity projections and quarter turns: query, key, value.
fn projected(spec: &AttentionSpec, bias: &[f32], norms: Option<&[f32]>) -> [Vec<f32>; 3] {
    let identity: Vec<f32> = (0..3 * 16).map(|i| if i % 16 / 4 == i % 4 { 1.0 } else { 0.0 }).collect();
    let rope = vec![[0.0, 1.0]; 2 * spec.rope.as_ref().map_or(0, |rope| rope.dims / 2)];
    let mut cache = KvCache { k: vec![0.0; 8], v: vec![0.0; 8], ..KvCache::default() };
    let inputs = qkv::Inputs {
        context: 2,
        bias: (!bias.is_empty()).then_some(bias),
        query_norm: norms,
        key_norm: norms,
        ..qkv_inputs(spec, &[Row { token: 0, position: 1, sequence: 0, keys: 0 }], &[1.0, 2.0, 3.0, 4.0], &identity, &rope)
    };
    let q = qkv::qkv(&inputs, &mut cache);
    [q, cache.k[4..].to_vec(), cache.v[4..].to_vec()]
}

#[test]
fn qkv_turns_neighbours_and_only_the_first_dimensions_where_asked() {
    let plain = attention_spec(1, 1, 4, Mask::Causal);
    let with = |rope: Option<RopeSpec>| projected(&AttentionSpec { rope, ..plain.clone() }, &[], None)[0].clone();
    assert_eq!(with(Some(RopeSpec { pairing: RopePairing::Interleaved, ..rope(4) })), [-2.0, 1.0, -4.0, 3.0]);
    assert_eq!(with(Some(rope(2))), [-2.0, 1.0, 3.0, 4.0]);
    assert_eq!(with(None), [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn qkv_adds_the_bias_then_clips() {
    let spec = AttentionSpec { rope: None, clip: Some(3.0), ..attention_spec(1, 1, 4, Mask::Causal) };
    let bias: Vec<f32> = [0.5, -9.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.25].to_vec();
    let [q, k, v] = projected(&spec, &bias, None);
    assert_eq!((q, k, v), (vec![1.5, -3.0, 3.0, 3.0], vec![2.0, 3.0, 3.0, 3.0], vec![1.0, 2.0, 3.0, 3.0]));
}

#[test]
fn qkv_norms_query_and_key_before_or_after_the_turn() {
    let spec = |after_rope, weight| AttentionSpec {
        qk_norm: Some(QkNorm { eps: 1.0, over: QkNormOver::Head, after_rope, weight }),
        ..attention_spec(1, 1, 4, Mask::Causal)
    };
    // The mean square of 1, 2, 3, 4 is 7.5.
    let root = 8.5f32.sqrt();
    let weight = [1.0, 2.0, 4.0, 8.0];
    let [q, k, v] = projected(&spec(false, true), &[], Some(&weight));
    assert!(max_difference(&q, &[-12.0 / root, -32.0 / root, 1.0 / root, 4.0 / root]) < 1e-6, "{q:?}");
    assert_eq!((k, v), (q, vec![1.0, 2.0, 3.0, 4.0]));
    let [q, ..] = projected(&spec(true, true), &[], Some(&weight));
    assert!(max_difference(&q, &[-3.0 / root, -8.0 / root, 4.0 / root, 16.0 / root]) < 1e-6, "{q:?}");
    let [q, ..] = projected(&spec(true, false), &[], None);
    assert!(max_difference(&q, &[-3.0 / root, -4.0 / root, 1.0 / root, 2.0 / root]) < 1e-6, "{q:?}");
}

#[test]
fn qkv_norms_all_heads_together_where_asked() {
    let qk_norm = Some(QkNorm { eps: 0.0, over: QkNormOver::AllHeads, after_rope: false, weight: true });
    let spec = AttentionSpec { rope: None, qk_norm, ..attention_spec(2, 1, 4, Mask::Causal) };
    // Query heads [1, 0, 0, 0] and [7, 0, 0, 0]: mean square 50 / 8.
    let mut weight = vec![0.0; 16];
    (weight[0], weight[4], weight[8], weight[12]) = (1.0, 7.0, 2.0, 3.0);
    let (rows, ones) = ([Row::new(0, 0, 0)], [1.0; 8]);
    let mut cache = KvCache { k: vec![0.0; 12], v: vec![0.0; 12], ..KvCache::default() };
    let inputs =
        qkv::Inputs { query_norm: Some(&ones), key_norm: Some(&ones[..4]), ..qkv_inputs(&spec, &rows, &[1.0], &weight, &[]) };
    let q = qkv::qkv(&inputs, &mut cache);
    assert!(max_difference(&q, &[0.4, 0.0, 0.0, 0.0, 2.8, 0.0, 0.0, 0.0]) < 1e-6, "{q:?}");
    assert_eq!((cache.k[0], cache.v[0]), (2.0, 3.0));
}

#[test]
fn value_heads_may_be_narrower_and_are_scaled() {
    let spec = AttentionSpec { rope: None, value_dim: 2, value_scale: 0.5, ..attention_spec(1, 1, 4, Mask::Causal) };
    let weight: Vec<f32> = (1..=10).map(|row| row as f32).collect();
    let rows = [Row::new(0, 0, 0), Row::new(0, 1, 0)];
    let mut cache = KvCache { k: vec![0.0; 12], v: vec![0.0; 6], ..KvCache::default() };
    let q = qkv::qkv(&qkv_inputs(&spec, &rows, &[1.0, 0.0], &weight, &[]), &mut cache);
    assert_eq!(q, [1.0, 2.0, 3.0, 4.0, 0.0, 0.0, 0.0, 0.0]);
    assert_eq!((&cache.k[..4], &cache.v[..3]), (&[5.0, 6.0, 7.0, 8.0][..], &[4.5, 5.0, 0.0][..]));
    assert_eq!(attend(&spec, 3, &rows, &q, &cache), [4.5, 5.0, 2.25, 2.5]);
}

#[test]
fn qkv_warms_the_query_with_its_position() {
    let temperature = Some(TemperatureTuning { scale: 0.5, floor: 2.0 });
    let spec = AttentionSpec { rope: None, temperature, ..attention_spec(1, 1, 4, Mask::Causal) };
    // (1 + 1) / 2 is 1: one plus half the logarithm of two.
    let factor = 1.0 + 0.5 * 2f32.ln();
    let [q, k, _] = projected(&spec, &[], None);
    assert!(max_difference(&q, &[1.0, 2.0, 3.0, 4.0].map(|q| q * factor)) < 1e-6, "{q:?}");
    assert_eq!(k, [1.0, 2.0, 3.0, 4.0]);
}

#[test]
fn qkv_turns_pairs_half_a_head_apart_and_appends_at_the_position() {
    let spec = attention_spec(1, 1, 4, Mask::Causal);
    // Identity rows for q; twice and three times that for k and v.
    let weight: Vec<f32> = (0..3 * 16).map(|i| if i % 16 / 4 == i % 4 { (1 + i / 16) as f32 } else { 0.0 }).collect();
    let quarter_turn = [0.0, 1.0];
    let turns = vec![quarter_turn; 3 * 2];
    let mut cache = KvCache { k: vec![0.0; 2 * 3 * 4], v: vec![0.0; 2 * 3 * 4], ..KvCache::default() };
    let rows = [Row::new(0, 2, 1)];
    let x = [1.0, 2.0, 3.0, 4.0];
    let q = qkv::qkv(&qkv_inputs(&spec, &rows, &x, &weight, &turns), &mut cache);
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
    let cache = KvCache { k, v, ..KvCache::default() };
    let q = [1.0; 8];
    // Sequence 1 holds the values 5 to 9; position 3 sees 5, 6, 7, 8.
    let rows = [Row::new(0, 3, 1)];
    assert_eq!(attend(&spec(Mask::Causal), 5, &rows, &q, &cache), [6.5; 8]);
    assert_eq!(attend(&spec(Mask::Window(2)), 5, &rows, &q, &cache), [7.5; 8]);
    assert_eq!(attend(&spec(Mask::Window(4)), 5, &rows, &q, &cache), [6.5; 8]);
    assert_eq!(attend(&spec(Mask::Window(1)), 5, &rows, &q, &cache), [8.0; 8]);
}

#[test]
fn attention_in_chunks_sees_nothing_of_the_chunk_before() {
    let cache = KvCache { k: vec![0.0; 5 * 4], v: (0..5).flat_map(|key| [key as f32; 4]).collect(), ..KvCache::default() };
    let chunked = |chunk, position| {
        attend(&attention_spec(1, 1, 4, Mask::Chunk(chunk)), 5, &[Row::new(0, position, 0)], &[1.0; 4], &cache)[0]
    };
    assert_eq!([chunked(2, 0), chunked(2, 1), chunked(2, 2), chunked(2, 3), chunked(2, 4)], [0.0, 0.5, 2.0, 2.5, 4.0]);
    assert_eq!(chunked(3, 4), 3.5);
    assert_eq!(chunked(9, 4), 2.0);
}

#[test]
fn a_sink_takes_its_share_and_gives_nothing() {
    let spec = attention_spec(2, 1, 4, Mask::Causal);
    let cache = KvCache { k: vec![0.0; 8], v: vec![6.0; 8], ..KvCache::default() };
    let rows = [Row::new(0, 1, 0)];
    // Two keys of weight one each; the sinks weigh one and four.
    let sinks = Some([0.0, 4f32.ln()]);
    let inputs = attention::Inputs {
        spec: &spec,
        context: 2,
        rows: &rows,
        q: &[1.0; 8],
        cache: &cache,
        sinks: sinks.as_ref().map(<[f32; 2]>::as_slice),
        bias: None,
        value_dim: None,
    };
    let y = attention::attention(&inputs);
    assert!(max_difference(&y, &[4.0, 4.0, 4.0, 4.0, 2.0, 2.0, 2.0, 2.0]) < 1e-6, "{y:?}");
    // However large it is.
    let y = attention::attention(&attention::Inputs { sinks: Some(&[1e6, -1e6]), ..inputs });
    assert_eq!(y, [0.0, 0.0, 0.0, 0.0, 6.0, 6.0, 6.0, 6.0]);
}

#[test]
fn capped_scores_stay_below_the_cap() {
    let spec = AttentionSpec { softcap: Some(2.0), ..attention_spec(1, 1, 4, Mask::Causal) };
    let mut cache = KvCache { k: vec![0.0; 8], v: vec![0.0; 8], ..KvCache::default() };
    (cache.k[4], cache.v[4]) = (1.0, 1.0);
    // Scores 0 and 2 tanh(1000 / 2).
    let y = attend(&spec, 2, &[Row::new(0, 1, 0)], &[1000.0, 0.0, 0.0, 0.0], &cache);
    assert!((y[0] - 1.0 / (1.0 + (-2f32).exp())).abs() < 1e-6, "{y:?}");
}

#[test]
fn attention_weighs_by_the_softmax_of_scaled_scores_whatever_their_size() {
    let spec = AttentionSpec { scale: 1000.0, ..attention_spec(1, 1, 4, Mask::Causal) };
    let k = [1.0, 0.0, 0.0, 0.0, 1.0 + 1.0 / 1024.0, 0.0, 0.0, 0.0];
    let v = [0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 1.0, 1.0];
    let cache = KvCache { k: k.to_vec(), v: v.to_vec(), ..KvCache::default() };
    // Scores 1000 and 1000 + 1000/1024: the second weighs 1 / (1 + exp(-0.9765625)).
    let y = attend(&spec, 2, &[Row::new(0, 1, 0)], &[1.0, 0.0, 0.0, 0.0], &cache);
    assert!(max_difference(&y, &[0.726_425_6; 4]) < 1e-6, "{y:?}");
}

#[test]
fn router_counts_loads_and_looks_slots_up() {
    let router = RouterSpec { normalize: Normalize::Sum { floor: 0.0 }, ..RouterSpec::new(3, 2) };
    let mut loads = vec![0; 3];
    // Softmax of (0, ln 3) is (1/4, 3/4).
    let logits = [0.0, 3f32.ln(), -50.0, 1.0, 1.0, 1.0];
    let routing = router_topk(&router, &logits, [None, None], &[7, 8, 9], &mut loads);
    assert_eq!(routing.expert_ids, [1, 0, 0, 1]);
    assert_eq!(routing.slots, [8, 7, 7, 8]);
    assert!(max_difference(&routing.routing_weights, &[0.75, 0.25, 0.5, 0.5]) < 1e-6);
    assert_eq!(loads, [2, 2, 0]);
}

#[test]
fn router_chooses_by_logits_with_bias_then_scaled_then_capped() {
    let spec = RouterSpec { bias: true, logit_scale: 0.5, softcap: Some(2.0), ..RouterSpec::new(3, 1) };
    let weight = [1.0, 0.0, 0.0, 1.0, 3.0, 3.0];
    let mut loads = vec![0; 3];
    let (logits, routing) = router(&spec, [&[2.0, 4.0], &weight], Some(&[0.0, 1.0, -18.0]), [None; 2], &[7, 8, 9], &mut loads);
    // x W^T is (2, 4, 18); with the bias (2, 5, 0), halved (1, 2.5, 0), and 2 tanh of half of that.
    assert!(max_difference(&logits, &[0.924_234_3, 1.696_567, 0.0]) < 1e-6, "{logits:?}");
    assert_eq!((routing.expert_ids, routing.slots, loads), (vec![1], vec![8], vec![0, 1, 0]));
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
    let down: [&[f32]; 2] = [&[2.0], &[3.0]];
    let silu = |x: f32| x / (1.0 + (-x).exp());
    let slabs: Vec<&[f32]> = gate_up.iter().map(Vec::as_slice).collect();
    let h = expert_gate_up(&expert_gate_up::Inputs {
        x: &[2.0],
        slots: &[1, 0],
        top_k: 2,
        slabs: &slabs,
        biases: &[],
        input_weights: None,
        hidden_size: 1,
        activation: Activation::Silu,
    });
    assert!(max_difference(&h, &[silu(-2.0) * 10.0, silu(2.0) * 20.0]) < 1e-5, "{h:?}");
    let y = expert_down(&[4.0, 5.0], &[1, 0], &down, &[], 1);
    assert_eq!(y, [12.0, 10.0]);
    let mut x = [100.0];
    expert_combine(&y, &[0.25, 0.75], 2, &mut x);
    assert_eq!(x, [110.5]);
}

/// One assignment to one expert with hidden size and width one.
fn inner(activation: Activation, gate_up: [f32; 2], bias: [f32; 2], x: f32) -> f32 {
    let h = expert_gate_up(&expert_gate_up::Inputs {
        x: &[x],
        slots: &[0],
        top_k: 1,
        slabs: &[&gate_up],
        biases: &[&bias],
        input_weights: None,
        hidden_size: 1,
        activation,
    });
    h[0]
}

#[test]
fn activations_are_those_of_their_formulas() {
    // GELU of 1 by its tanh approximation is 0.841192, of -2 it is -0.0454023.
    let gelu = |gate| inner(Activation::GeluTanh, [gate, 3.0], [0.0; 2], 1.0);
    assert!((gelu(1.0) - 3.0 * 0.841_192).abs() < 1e-5 && (gelu(-2.0) + 3.0 * 0.045_402_3).abs() < 1e-5);
    let clamped = |gate, up| inner(Activation::ClampedSwiglu { alpha: 1.5, limit: 2.0 }, [gate, up], [0.0; 2], 1.0);
    let swish = |gate: f32| gate / (1.0 + (-1.5 * gate).exp());
    assert!((clamped(1.0, 0.5) - 1.5 * swish(1.0)).abs() < 1e-6);
    // The gate is bounded above only, up on both sides.
    assert!((clamped(9.0, 9.0) - 3.0 * swish(2.0)).abs() < 1e-6);
    assert!((clamped(-9.0, -9.0) + swish(-9.0)).abs() < 1e-6);
}

#[test]
fn experts_add_their_own_biases_and_weigh_the_input_where_asked() {
    let silu = |x: f32| x / (1.0 + (-x).exp());
    assert!((inner(Activation::Silu, [1.0, 1.0], [0.5, -1.0], 2.0) - silu(2.5)).abs() < 1e-6);
    let inputs = expert_gate_up::Inputs {
        x: &[2.0],
        slots: &[1, 0],
        top_k: 2,
        slabs: &[&[1.0, 1.0], &[1.0, 2.0]],
        biases: &[&[0.0, 10.0], &[0.0, 20.0]],
        input_weights: Some(&[0.5, 0.25]),
        hidden_size: 1,
        activation: Activation::Silu,
    };
    let h = expert_gate_up(&inputs);
    assert!(max_difference(&h, &[silu(1.0) * 22.0, silu(0.5) * 10.5]) < 1e-5, "{h:?}");
    assert_eq!(expert_down(&[4.0, 5.0], &[1, 0], &[&[2.0], &[3.0]], &[&[100.0], &[200.0]], 1), [212.0, 110.0]);
}
