//! What experts drop, against what transformers stored of Switch Transformers and NLLB-MoE.

use crate::common::golden;
use moebius::gating::{CallCapacity, CallLimit, Normalize, RouterSpec};
use moebius::reference::expert_capacity::{DROPPED, expert_capacity};
use moebius::reference::router_topk::router_topk;
use serde_json::Value;

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

/// Of each token its experts and their weights, by expert, those that were dropped first.
fn sorted(ids: impl Iterator<Item = i64>, weights: impl Iterator<Item = f64>, top_k: usize) -> Vec<(i64, f64)> {
    let mut pairs: Vec<_> = ids.zip(weights).collect();
    pairs.chunks_mut(top_k).for_each(|pairs| pairs.sort_by(|a, b| a.partial_cmp(b).unwrap()));
    pairs
}

/// The router of one of the two models, and what its experts take.
fn router(model: &str, num_experts: usize) -> (RouterSpec, CallCapacity) {
    let (top_k, normalize, limit) = match model {
        "switch_transformers" => (1, Normalize::No, CallLimit::Tokens(14)),
        _ => (2, Normalize::Sum { floor: f32::EPSILON }, CallLimit::Share(0.5)),
    };
    (RouterSpec { normalize, ..RouterSpec::new(num_experts, top_k) }, CallCapacity { limit, renormalize: None })
}

#[test]
fn capacity_drops_what_transformers_drops() {
    let text = std::fs::read_to_string(golden("two_stacks/capacity.json")).unwrap();
    let stored: Vec<Value> = serde_json::from_str(&text).unwrap();
    for case in stored {
        let name = format!("{} {}", case["model"], case["values"]);
        let num_experts = case["num_experts"].as_u64().unwrap() as usize;
        let (router, capacity) = router(case["model"].as_str().unwrap(), num_experts);
        let top_k = router.num_experts_per_tok;
        let logits: Vec<f32> = numbers(&case["router_logits"]).into_iter().map(|logit| logit as f32).collect();
        let mut loads = vec![0; num_experts];
        let mut routing = router_topk(&router, &logits, [None, None], &vec![0; num_experts], &mut loads);
        let kept = expert_capacity(&capacity, top_k, &routing.expert_ids, &mut routing.routing_weights, &mut loads);

        let signed = kept.iter().map(|id| if *id == DROPPED { -1 } else { i64::from(*id) });
        let ours = sorted(signed, routing.routing_weights.iter().map(|weight| f64::from(*weight)), top_k);
        let ids = numbers(&case["topk_idx"]);
        assert!(ids.iter().any(|id| *id < 0.0), "{name}: a case in which nothing is dropped shows nothing");
        let theirs = sorted(ids.iter().map(|id| *id as i64), numbers(&case["topk_w"]).into_iter(), top_k);
        assert_eq!(ours.len(), theirs.len(), "{name}");
        for (ours, theirs) in ours.iter().zip(&theirs) {
            assert!(ours.0 == theirs.0 && (ours.1 - theirs.1).abs() < 1e-6, "{name}: {ours:?}, stored {theirs:?}");
        }
        let all_kept = kept.iter().filter(|id| **id != DROPPED).count();
        assert_eq!(loads.iter().sum::<u32>() as usize, all_kept, "{name}: what is dropped is no load");
    }
}

#[test]
fn second_choices_queue_behind_all_first_ones_and_may_be_weighed_anew() {
    // Expert 0 takes two: the first choices of tokens 1 and 2, which come after the second choice of token 0.
    let ids = [1, 0, 0, 1, 0, 2];
    let capacity = CallCapacity { limit: CallLimit::Tokens(2), renormalize: Some(f32::EPSILON) };
    let (mut weights, mut loads) = ([0.5, 0.25, 0.5, 0.25, 0.5, 0.25], [3, 2, 1]);
    let kept = expert_capacity(&capacity, 2, &ids, &mut weights, &mut loads);
    assert_eq!(kept, [1, DROPPED, 0, 1, 0, 2]);
    assert_eq!(loads, [2, 2, 1]);
    let expected = [1.0, 0.0, 2.0 / 3.0, 1.0 / 3.0, 2.0 / 3.0, 1.0 / 3.0];
    assert!(weights.iter().zip(expected).all(|(weight, expected): (_, f32)| (weight - expected).abs() < 1e-6), "{weights:?}");

    // A token of which everything is dropped has no weight at all.
    let (mut weights, mut loads) = ([0.5, 0.25], [1, 1]);
    let none = CallCapacity { limit: CallLimit::Share(0.0), ..capacity };
    assert_eq!(expert_capacity(&none, 2, &[1, 0], &mut weights, &mut loads), [DROPPED; 2]);
    assert_eq!(weights, [0.0; 2]);
}

#[test]
fn a_share_of_the_call_is_rounded_up() {
    let capacity = CallCapacity { limit: CallLimit::Share(0.5), renormalize: None };
    assert_eq!([1, 2, 5, 18, 65].map(|num_tokens| capacity.limit(num_tokens)), [1, 1, 3, 9, 33]);
}
