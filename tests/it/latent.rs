//! Latent attention: its config, its weights on disk, its twins.

use super::checkpoint::{raw_tensor, read, read_all};
use crate::common::{golden, open, spec_of};
use moebius::Error;
use moebius::batch::Row;
use moebius::gating::{ExpertGroups, GroupScore, Normalize, RouterMethod};
use moebius::reference::KvCache;
use moebius::reference::attention::{self, attention};
use moebius::reference::head_matmul::{self, head_matmul};
use moebius::reference::latent::{self, latent};
use moebius::spec::{LatentSpec, ModelSpec, Parameters, RopePairing, RopeScaling, RopeSpec};
use moebius::spec::{Role, WeightKey};
use serde_json::{Value, json};

pub(super) const FP8: &str = "deepseek_v3_fp8";

/// The config of a fixture with some keys replaced.
pub(super) fn parse(fixture: &str, changes: &[(&str, Value)]) -> moebius::Result<ModelSpec> {
    let text = std::fs::read_to_string(golden("fixtures").join(fixture).join("config.json")).unwrap();
    let mut config: Value = serde_json::from_str(&text).unwrap();
    for (key, value) in changes {
        config[*key] = value.clone();
    }
    ModelSpec::parse(&config.to_string(), "config.json")
}

fn latent_spec(fixture: &str, changes: &[(&str, Value)]) -> LatentSpec {
    parse(fixture, changes).unwrap().layers[0].latent().unwrap().clone()
}

/// Two heads of 4 + 2, a latent of 4.
fn tiny_latent() -> LatentSpec {
    LatentSpec {
        num_heads: 2,
        query_rank: None,
        latent_dim: 4,
        nope_dim: 4,
        rope_dim: 2,
        value_dim: 4,
        scale: 1.0,
        norm_eps: 0.0,
        latent_scale: 1.0,
        rope: Some(RopeSpec { theta: 1e4, dims: 2, pairing: RopePairing::Interleaved, scaling: RopeScaling::None }),
    }
}

#[test]
fn latent_configs_say_ranks_heads_and_positions() {
    let spec = latent_spec("deepseek_v3", &[]);
    assert_eq!((spec.num_heads, spec.query_rank, spec.latent_dim), (4, Some(48), 40));
    assert_eq!((spec.nope_dim, spec.rope_dim, spec.value_dim, spec.norm_eps), (16, 16, 20, 1e-6));
    let rope = spec.rope.unwrap();
    assert_eq!((rope.dims, rope.pairing), (16, RopePairing::Interleaved));
    assert_eq!(latent_spec("moonlight", &[]).query_rank, None);
    assert_eq!(latent_spec("deepseek_v3", &[("rope_interleave", json!(false))]).rope.unwrap().pairing, RopePairing::Half);
}

#[test]
fn yarn_scales_the_scores_of_latent_attention_by_mscale_all_dim_alone() {
    let close = |found: f32, expected: f64| assert!((f64::from(found) - expected).abs() < 1e-6, "{found} {expected}");
    let plain = (12f64 + 8.0).sqrt().recip();
    let entropy = 0.1 * 0.8 * 8f64.ln() + 1.0;
    close(latent_spec("deepseek_v2", &[]).scale, plain * entropy * entropy);
    close(latent_spec("deepseek_v2", &[("rope_scaling", Value::Null)]).scale, plain);
    let yarn = json!({ "type": "yarn", "factor": 8, "mscale": 1.0 });
    close(latent_spec("deepseek_v2", &[("rope_scaling", yarn)]).scale, plain);
    let linear = json!({ "type": "linear", "factor": 8, "mscale_all_dim": 0.8 });
    close(latent_spec("deepseek_v2", &[("rope_scaling", linear)]).scale, plain);
}

#[test]
fn routers_of_both_generations_are_told_apart() {
    let router = |fixture: &str, changes: &[(&str, Value)]| {
        let spec = parse(fixture, changes).unwrap();
        assert!(spec.layers[0].dense().is_some() && spec.layers[0].moe().is_none(), "{fixture}");
        spec.layers[1].moe().unwrap().router.clone()
    };
    let v2 = router("deepseek_v2", &[]);
    assert_eq!(v2.groups, Some(ExpertGroups { num_groups: 4, num_kept: 2, score: GroupScore::Max }));
    assert_eq!((v2.method, v2.selection_bias, v2.normalize, v2.scale), (RouterMethod::Softmax, false, Normalize::No, 16.0));
    assert_eq!(router("deepseek_v2", &[("topk_method", json!("greedy"))]).groups, None);
    // The original divides by the sum or multiplies by the factor.
    assert_eq!(router("deepseek_v2", &[("norm_topk_prob", json!(true))]).scale, 1.0);
    let v3 = router("deepseek_v3", &[]);
    assert_eq!(v3.groups, Some(ExpertGroups { num_groups: 4, num_kept: 2, score: GroupScore::SumOfTopTwo }));
    assert_eq!((v3.method, v3.selection_bias, v3.scale), (RouterMethod::Sigmoid, true, 2.5));
    assert_eq!(parse("moonlight", &[]).unwrap().layers[1].moe().unwrap().shared.unwrap().mlp.intermediate_size, 2 * 36);
}

#[test]
fn nonsense_in_latent_configs_names_the_key_and_what_it_may_be() {
    let cases = [
        ("kv_lora_rank", Value::Null, "an integer from 1 to 1024"),
        ("kv_lora_rank", json!(0), "an integer from 1 to 1024"),
        ("kv_lora_rank", json!(42), "a multiple of 4"),
        ("kv_lora_rank", json!(1024), "at most 1024 together with qk_rope_head_dim (16)"),
        ("q_lora_rank", json!(0), "an integer from 1 to"),
        ("q_lora_rank", json!(-1), "an integer from 1 to"),
        ("qk_nope_head_dim", Value::Null, "an integer from 1 to 1024"),
        ("qk_nope_head_dim", json!(6), "a multiple of 4"),
        ("qk_rope_head_dim", json!(7), "a multiple of 4"),
        ("qk_rope_head_dim", json!(1u64 << 40), "an integer from 1 to 1024"),
        ("v_head_dim", json!("20"), "an integer from 1 to 1024"),
        ("v_head_dim", json!(2), "a multiple of 4"),
        ("attention_bias", json!(true), "false or absent"),
        ("rope_interleave", json!(1), "true or false"),
        ("partial_rotary_factor", json!(0.5), "1, because all of qk_rope_head_dim turns"),
        ("topk_method", json!("greedy"), "`noaux_tc`"),
        ("scoring_func", json!("softmax"), "`sigmoid`"),
        ("n_group", json!(3), "a divisor of the number of experts (16)"),
        ("topk_group", json!(5), "an integer from 1 to 4"),
        ("n_shared_experts", json!(65), "an integer from 0 to 64"),
        ("first_k_dense_replace", json!(-1), "an integer from 0 to"),
        ("moe_layer_freq", json!(0), "an integer from 1 to"),
        ("num_experts_per_tok", json!(17), "at most n_routed_experts (16)"),
    ];
    for (key, value, wanted) in cases {
        match parse("deepseek_v3", &[(key, value.clone())]) {
            Err(Error::Config { key: found, expected, .. }) => {
                assert_eq!(found, key);
                assert!(expected.contains(wanted), "{key} = {value}: expected {expected}");
            }
            other => panic!("{key} = {value}: {other:?}"),
        }
    }
    let message = parse("deepseek_v2", &[("topk_method", json!("noaux_tc"))]).unwrap_err().to_string();
    assert!(message.contains("`greedy`") && message.contains("`group_limited_greedy`"), "{message}");
    for block in [json!([128]), json!([0, 128]), json!("128"), Value::Null] {
        let section = json!({ "quant_method": "fp8", "weight_block_size": block });
        let message = parse(FP8, &[("quantization_config", section)]).unwrap_err().to_string();
        assert!(message.contains("`quantization_config.weight_block_size`"), "{message}");
    }
}

#[test]
fn no_value_of_any_key_of_a_latent_config_panics() {
    let hurtful =
        [json!(null), json!(0), json!(1), json!(-1), json!(3), json!(1u64 << 63), json!(1e300), json!("x"), json!([]), json!({})];
    for fixture in ["deepseek_v2", FP8, "glm4_moe_lite"] {
        let text = std::fs::read_to_string(golden("fixtures").join(fixture).join("config.json")).unwrap();
        let config: Value = serde_json::from_str(&text).unwrap();
        for key in config.as_object().unwrap().keys() {
            for value in &hurtful {
                if let Ok(spec) = parse(fixture, &[(key, value.clone())]) {
                    assert!(Parameters::of(&spec).total() > 0, "{fixture} {key} = {value}");
                }
            }
        }
    }
}

#[test]
fn the_projection_from_the_latent_is_split_into_transposed_keys_and_values() {
    let directory = golden("fixtures/deepseek_v2");
    let spec = spec_of(&directory);
    let checkpoint = open(&directory, &spec).unwrap();
    let LatentSpec { num_heads, latent_dim, nope_dim, value_dim, .. } = *spec.layers[2].latent().unwrap();
    let raw = raw_tensor(&directory, "model.layers.2.self_attn.kv_b_proj.weight");
    let raw_row = |head: usize, row: usize| &raw[(head * (nope_dim + value_dim) + row) * latent_dim..][..latent_dim];
    let keys = read_all(&checkpoint, &spec, Role::LatentKeyUp.of_layer(2)).values;
    let values = read_all(&checkpoint, &spec, Role::LatentValueUp.of_layer(2)).values;
    for head in 0..num_heads {
        for i in 0..latent_dim {
            let row = &keys[(head * latent_dim + i) * nope_dim..][..nope_dim];
            let column: Vec<f32> = (0..nope_dim).map(|j| raw_row(head, j)[i]).collect();
            assert_eq!(row, column, "head {head} latent {i}");
        }
        for row in 0..value_dim {
            let found = &values[(head * value_dim + row) * latent_dim..][..latent_dim];
            assert_eq!(found, raw_row(head, nope_dim + row), "head {head} row {row}");
        }
    }
}

#[test]
fn any_range_of_rows_of_a_latent_model_equals_that_part_of_the_whole() {
    for name in ["deepseek_v2", FP8] {
        let directory = golden("fixtures").join(name);
        let spec = spec_of(&directory);
        let checkpoint = open(&directory, &spec).unwrap();
        for key in WeightKey::all(&spec) {
            let whole = read_all(&checkpoint, &spec, key);
            for (start, end) in [(0, 1), (1, 6), (19, 47), (127, 131), (39, 41)] {
                let (start, end) = (whole.rows.min(start), whole.rows.min(end));
                let part = read(&checkpoint, key, start..end).values;
                assert_eq!(part, whole.values[start * whole.cols..end * whole.cols], "{name} {key:?} {start}..{end}");
            }
        }
    }
}

#[test]
fn latents_are_normed_and_cached_with_a_turned_key_and_queries_turn_in_place() {
    let spec = tiny_latent();
    let quarter = [[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]]; // no turn, a quarter, a half
    let rows = [Row::new(0, 1, 1), Row::new(0, 2, 0)];
    let kv = [2.0, -2.0, 2.0, 2.0, 5.0, 7.0, 0.0, 0.0, 6.0, 0.0, 1.0, 2.0];
    let mut q: Vec<f32> = (0..24).map(|value| value as f32).collect();
    let mut cache = KvCache { k: vec![-9.0; 2 * 3 * 6], v: Vec::new(), ..KvCache::default() };
    let inputs = latent::Inputs { spec: &spec, context: 3, rows: &rows, kv: &kv, norm: &[1.0, 2.0, 3.0, 4.0], rope: &quarter };
    latent(&inputs, &mut q, &mut cache);
    let mut expected = [-9.0; 36];
    expected[12..18].copy_from_slice(&[0.0, 0.0, 9.0 * 2.0 / 3.0, 0.0, -1.0, -2.0]); // sequence 0, position 2
    expected[24..30].copy_from_slice(&[1.0, -2.0, 3.0, 4.0, -7.0, 5.0]); // sequence 1, position 1
    assert_eq!(cache.k, expected);
    let turned = [0.0, 1.0, 2.0, 3.0, -5.0, 4.0, 6.0, 7.0, 8.0, 9.0, -11.0, 10.0];
    let half_turned = [12.0, 13.0, 14.0, 15.0, -16.0, -17.0, 18.0, 19.0, 20.0, 21.0, -22.0, -23.0];
    assert_eq!(q, [turned, half_turned].concat());
}

#[test]
fn each_head_has_a_matrix_of_its_own_and_the_rest_of_its_values_passes() {
    // Two tokens, two heads of two columns and one more value; three rows each.
    let x = [1.0, 2.0, 9.0, 3.0, 4.0, 8.0, -1.0, 0.0, 7.0, 0.0, 1.0, 6.0];
    let weight = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 10.0, 0.0, 0.0, 10.0, 10.0, -10.0];
    let y = head_matmul(&head_matmul::Inputs { num_heads: 2, cols: 2, x_stride: 3, x: &x, weight: &weight });
    assert_eq!(y, [1.0, 2.0, 3.0, 9.0, 30.0, 40.0, -10.0, 8.0, -1.0, 0.0, -1.0, 7.0, 0.0, 10.0, -10.0, 6.0]);
    assert!(head_matmul(&head_matmul::Inputs { num_heads: 2, cols: 2, x_stride: 3, x: &[], weight: &weight }).is_empty());
}

#[test]
fn attention_over_latents_takes_the_first_dimensions_of_a_key_as_its_value() {
    let spec = tiny_latent();
    let rows = [Row::new(0, 1, 0)];
    // The first key has the higher score by so much that head 1 sees it alone; head 0 sees both alike.
    let cache =
        KvCache { k: vec![1.0, 2.0, 3.0, 4.0, 100.0, 0.0, 5.0, 6.0, 7.0, 8.0, -100.0, 0.0], v: Vec::new(), ..KvCache::default() };
    let q = [0.0, 0.0, 0.0, 0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0];
    let spec = spec.over_cache();
    let inputs = attention::Inputs {
        spec: &spec,
        context: 2,
        rows: &rows,
        q: &q,
        cache: &cache,
        sinks: None,
        bias: None,
        value_dim: Some(4),
    };
    assert_eq!(attention(&inputs), [3.0, 4.0, 5.0, 6.0, 1.0, 2.0, 3.0, 4.0]);
}
