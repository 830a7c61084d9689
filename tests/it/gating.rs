//! How tokens choose experts.

use moebius::gating::{RouterSpec, ScoreFunction};
use proptest::prelude::*;

fn router(num_experts: usize, num_experts_per_tok: usize, renormalize: bool) -> RouterSpec {
    RouterSpec { num_experts, num_experts_per_tok, scores: ScoreFunction::Softmax, renormalize }
}

#[test]
fn equal_logits_go_to_the_lower_expert_id() {
    assert_eq!(router(4, 2, true).route(&[0.5; 4]).expert_ids, [0, 1]);
    assert_eq!(router(5, 3, true).route(&[1.0, 2.0, 1.0, 2.0, 1.0]).expert_ids, [1, 3, 0]);
}

#[test]
fn minus_zero_ties_with_zero() {
    assert_eq!(router(3, 2, true).route(&[-0.0, 0.0, 0.0]).expert_ids, [0, 1]);
}

#[test]
fn nan_logits_do_not_panic() {
    assert_eq!(router(3, 2, true).route(&[f32::NAN; 3]).expert_ids.len(), 2);
}

#[test]
fn best_expert_comes_first_with_its_softmax_share() {
    let assignment = router(3, 2, true).route(&[0.0, 3f32.ln(), -50.0]);
    assert_eq!(assignment.expert_ids, [1, 0]);
    assert!((assignment.routing_weights[0] - 0.75).abs() < 1e-7, "{assignment:?}");
    assert!((assignment.routing_weights[1] - 0.25).abs() < 1e-7, "{assignment:?}");
}

#[test]
fn weights_keep_their_softmax_scores_without_renormalizing() {
    let assignment = router(4, 1, false).route(&[0.0; 4]);
    assert_eq!((assignment.expert_ids.as_slice(), assignment.routing_weights.as_slice()), (&[0][..], &[0.25][..]));
}

#[test]
fn large_logits_do_not_overflow() {
    let assignment = router(3, 2, true).route(&[3e38, -3e38, 3e38]);
    assert_eq!(assignment.expert_ids, [0, 2]);
    assert_eq!(assignment.routing_weights, [0.5, 0.5]);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// Few different values make many ties.
    #[test]
    fn choice_is_that_of_a_stable_sort(values in prop::collection::vec(-3i8..3, 2..20), share in 0.0f64..1.0) {
        let logits: Vec<f32> = values.iter().map(|&value| f32::from(value)).collect();
        let num_chosen = 1 + (share * (logits.len() - 1) as f64) as usize;
        let assignment = router(logits.len(), num_chosen, true).route(&logits);

        let mut expected: Vec<u32> = (0..logits.len() as u32).collect();
        expected.sort_by_key(|&expert| std::cmp::Reverse(values[expert as usize]));
        prop_assert_eq!(&assignment.expert_ids, &expected[..num_chosen]);
        prop_assert!((assignment.routing_weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(assignment.routing_weights.is_sorted_by(|a, b| a >= b));
    }
}
