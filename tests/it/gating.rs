//! How tokens choose experts.

use moebius::gating::{ExpertAt, ExpertGroups, GroupScore, Normalize, RouterMethod, RouterSpec, RoutingOverride};
use proptest::prelude::*;

fn router(num_experts: usize, num_experts_per_tok: usize, renormalize: bool) -> RouterSpec {
    let normalize = if renormalize { Normalize::Sum { floor: 0.0 } } else { Normalize::No };
    RouterSpec { normalize, ..RouterSpec::new(num_experts, num_experts_per_tok) }
}

#[test]
fn equal_logits_go_to_the_lower_expert_id() {
    assert_eq!(router(4, 2, true).route(&[0.5; 4], None).expert_ids, [0, 1]);
    assert_eq!(router(5, 3, true).route(&[1.0, 2.0, 1.0, 2.0, 1.0], None).expert_ids, [1, 3, 0]);
}

#[test]
fn minus_zero_ties_with_zero() {
    assert_eq!(router(3, 2, true).route(&[-0.0, 0.0, 0.0], None).expert_ids, [0, 1]);
}

#[test]
fn nan_logits_do_not_panic() {
    assert_eq!(router(3, 2, true).route(&[f32::NAN; 3], None).expert_ids.len(), 2);
}

#[test]
fn best_expert_comes_first_with_its_softmax_share() {
    let assignment = router(3, 2, true).route(&[0.0, 3f32.ln(), -50.0], None);
    assert_eq!(assignment.expert_ids, [1, 0]);
    assert!((assignment.routing_weights[0] - 0.75).abs() < 1e-7, "{assignment:?}");
    assert!((assignment.routing_weights[1] - 0.25).abs() < 1e-7, "{assignment:?}");
}

#[test]
fn weights_keep_their_softmax_scores_without_renormalizing() {
    let assignment = router(4, 1, false).route(&[0.0; 4], None);
    assert_eq!((assignment.expert_ids.as_slice(), assignment.routing_weights.as_slice()), (&[0][..], &[0.25][..]));
}

#[test]
fn large_logits_do_not_overflow() {
    let assignment = router(3, 2, true).route(&[3e38, -3e38, 3e38], None);
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
        let assignment = router(logits.len(), num_chosen, true).route(&logits, None);

        let mut expected: Vec<u32> = (0..logits.len() as u32).collect();
        expected.sort_by_key(|&expert| std::cmp::Reverse(values[expert as usize]));
        prop_assert_eq!(&assignment.expert_ids, &expected[..num_chosen]);
        prop_assert!((assignment.routing_weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        prop_assert!(assignment.routing_weights.is_sorted_by(|a, b| a >= b));
    }
}

/// Logits whose softmax is `shares`.
fn logits_of(shares: &[f32]) -> Vec<f32> {
    shares.iter().map(|share| share.ln()).collect()
}

fn assert_close(found: &[f64], expected: &[f64]) {
    assert_eq!(found.len(), expected.len(), "{found:?} {expected:?}");
    for (found_value, expected_value) in found.iter().zip(expected) {
        assert!((found_value - expected_value).abs() < 1e-6, "{found:?} {expected:?}");
    }
}

#[test]
fn softmax_of_the_chosen_sums_to_one() {
    let router = RouterSpec { method: RouterMethod::SoftmaxOfTopK, scale: 2.0, ..RouterSpec::new(4, 2) };
    let assignment = router.route(&logits_of(&[0.1, 0.6, 0.1, 0.2]), None);
    assert_eq!(assignment.expert_ids, [1, 3]);
    assert_close(&assignment.routing_weights, &[1.5, 0.5]);
}

#[test]
fn a_selection_bias_chooses_but_does_not_weigh() {
    let router = RouterSpec { method: RouterMethod::Sigmoid, selection_bias: true, ..RouterSpec::new(3, 2) };
    // Sigmoids 1/2, 3/4, 9/10.
    let logits = [0.0, 3f32.ln(), 9f32.ln()];
    let assignment = router.route(&logits, Some(&[1.0, 0.0, 0.0]));
    assert_eq!(assignment.expert_ids, [0, 2]);
    assert_close(&assignment.routing_weights, &[0.5, 0.9]);
    let normalized = RouterSpec { normalize: Normalize::Sum { floor: 1e-20 }, scale: 2.8, ..router };
    assert_close(&normalized.route(&logits, Some(&[1.0, 0.0, 0.0])).routing_weights, &[1.0, 1.8]);
}

#[test]
fn a_sum_below_the_floor_does_not_divide() {
    let router = RouterSpec { normalize: Normalize::Sum { floor: 0.5 }, ..RouterSpec::new(4, 1) };
    assert_close(&router.route(&[0.0; 4], None).routing_weights, &[0.5]);
}

#[test]
fn weights_have_the_asked_norm() {
    let router = RouterSpec { normalize: Normalize::Norm { p: 2.0 }, ..RouterSpec::new(3, 2) };
    assert_close(&router.route(&logits_of(&[0.4, 0.3, 0.3]), None).routing_weights, &[0.8, 0.6]);
    let router = RouterSpec { normalize: Normalize::Norm { p: 1.0 }, ..router };
    assert_close(&router.route(&logits_of(&[0.6, 0.2, 0.2]), None).routing_weights, &[0.75, 0.25]);
}

#[test]
fn experts_of_losing_groups_are_out() {
    let groups = |score| Some(ExpertGroups { num_groups: 3, num_kept: 1, score });
    let logits = logits_of(&[0.30, 0.01, 0.20, 0.19, 0.15, 0.15]);
    // The best expert is in the first group; the best two together are in the second.
    let best = RouterSpec { groups: groups(GroupScore::Max), ..RouterSpec::new(6, 2) };
    assert_eq!(best.route(&logits, None).expert_ids, [0, 1]);
    let best_two = RouterSpec { groups: groups(GroupScore::SumOfTopTwo), ..RouterSpec::new(6, 2) };
    assert_eq!(best_two.route(&logits, None).expert_ids, [2, 3]);
    // The bias counts in the choice of groups too.
    let biased = RouterSpec { selection_bias: true, ..best_two };
    assert_eq!(biased.route(&logits, Some(&[0.0, 0.0, 0.0, 0.0, 0.3, 0.3])).expert_ids, [4, 5]);
}

#[test]
fn equal_groups_go_to_the_lower_one() {
    let groups = Some(ExpertGroups { num_groups: 2, num_kept: 1, score: GroupScore::SumOfTopTwo });
    assert_eq!(RouterSpec { groups, ..RouterSpec::new(4, 2) }.route(&[0.0; 4], None).expert_ids, [0, 1]);
}

#[test]
fn sparse_mixer_weighs_each_choice_among_those_near_it() {
    let router = RouterSpec { method: RouterMethod::SparseMixer { jitter: 0.05 }, ..RouterSpec::new(4, 2) };
    // 9.5 is within a tenth of 10, 8 is not; of what is left, 8 is not within a tenth of 9.5.
    let assignment = router.route(&[8.0, 10.0, 9.5, -20.0], None);
    assert_eq!(assignment.expert_ids, [1, 2]);
    assert_close(&assignment.routing_weights, &[1.0 / (1.0 + (-0.5f64).exp()), 1.0]);
    // Equal logits share in the first round, and what is left of them in the second.
    let assignment = router.route(&[1.0, 1.0, 1.0, 0.0], None);
    assert_eq!(assignment.expert_ids, [0, 1]);
    assert_close(&assignment.routing_weights, &[1.0 / 3.0, 0.5]);
}

fn at(expert: usize) -> ExpertAt {
    ExpertAt { expert, layer: None }
}

/// `router` of layer 2, changed.
fn changed(router: &RouterSpec, change: RoutingOverride) -> RouterSpec {
    change.apply(2, router).unwrap()
}

#[test]
fn a_disabled_expert_is_not_there_and_the_others_share_its_weight() {
    let logits = logits_of(&[0.1, 0.5, 0.3, 0.1]);
    let change = RoutingOverride { disabled: vec![at(1)], ..RoutingOverride::default() };
    let assignment = changed(&router(4, 2, false), change.clone()).route(&logits, None);
    assert_eq!(assignment.expert_ids, [2, 0]);
    assert_close(&assignment.routing_weights, &[0.6, 0.2]);
    let mixer = RouterSpec { method: RouterMethod::SparseMixer { jitter: 0.2 }, ..RouterSpec::new(4, 2) };
    assert_eq!(changed(&mixer, change).route(&[1.0, 9.0, 2.0, 3.0], None).expert_ids, [3, 2]);
}

#[test]
fn a_forced_expert_comes_first_and_weighs_as_much_as_the_best() {
    let logits = logits_of(&[0.1, 0.6, 0.3]);
    let change = RoutingOverride { forced: Some(at(0)), ..RoutingOverride::default() };
    let assignment = changed(&router(3, 2, true), change.clone()).route(&logits, None);
    assert_eq!(assignment.expert_ids, [0, 1]);
    assert_close(&assignment.routing_weights, &[0.5, 0.5]);
    // Even out of a group that loses, and against any selection bias.
    let groups = Some(ExpertGroups { num_groups: 2, num_kept: 1, score: GroupScore::SumOfTopTwo });
    let grouped = RouterSpec { groups, selection_bias: true, ..RouterSpec::new(4, 2) };
    let assignment = changed(&grouped, change.clone()).route(&[-5.0, -5.0, 1.0, 2.0], Some(&[0.0, 0.0, 9.0, 0.0]));
    assert_eq!(assignment.expert_ids, [0, 2]);
    let mixer = RouterSpec { method: RouterMethod::SparseMixer { jitter: 0.2 }, ..RouterSpec::new(4, 2) };
    assert_eq!(changed(&mixer, change).route(&[1.0, 9.0, 2.0, 3.0], None).expert_ids, [0, 1]);
}

#[test]
fn a_temperature_flattens_or_sharpens_the_weights_and_never_the_choice() {
    let logits = logits_of(&[0.8, 0.2]);
    for (temperature, expected) in [(1.0, [0.8, 0.2]), (2.0, [2.0 / 3.0, 1.0 / 3.0]), (0.5, [16.0 / 17.0, 1.0 / 17.0])] {
        let change = RoutingOverride { temperature: Some(temperature), ..RoutingOverride::default() };
        for method in [RouterMethod::Softmax, RouterMethod::SoftmaxOfTopK] {
            let assignment = changed(&RouterSpec { method, ..RouterSpec::new(2, 2) }, change.clone()).route(&logits, None);
            assert_eq!(assignment.expert_ids, [0, 1]);
            assert_close(&assignment.routing_weights, &expected);
        }
    }
}

#[test]
fn every_number_of_experts_per_token_can_be_chosen() {
    for count in 1..=4 {
        let change = RoutingOverride { experts_per_token: Some(count), ..RoutingOverride::default() };
        let assignment = changed(&router(4, 2, true), change).route(&[0.1, 0.4, 0.3, 0.2], None);
        assert_eq!(assignment.expert_ids, [1, 2, 3, 0][..count]);
        assert!((assignment.routing_weights.iter().sum::<f64>() - 1.0).abs() < 1e-12);
    }
}

#[test]
fn a_change_of_one_layer_leaves_the_others_as_trained() {
    let usual = router(4, 2, true);
    let elsewhere = ExpertAt { expert: 1, layer: Some(5) };
    let change = RoutingOverride { disabled: vec![elsewhere], forced: Some(elsewhere), ..RoutingOverride::default() };
    assert_eq!(changed(&usual, change), usual);
}

#[test]
fn changes_that_cannot_be_are_refused_with_what_can() {
    let groups = Some(ExpertGroups { num_groups: 4, num_kept: 2, score: GroupScore::Max });
    let grouped = RouterSpec { groups, ..RouterSpec::new(16, 4) };
    let default = RoutingOverride::default;
    let cases = [
        (RoutingOverride { disabled: vec![at(16)], ..default() }, "expert: expected 0 to 15, the experts of layer 2, found 16"),
        (RoutingOverride { forced: Some(at(99)), ..default() }, "expected 0 to 15"),
        (RoutingOverride { forced: Some(at(3)), disabled: vec![at(3)], ..default() }, "one that is not switched off"),
        (RoutingOverride { temperature: Some(0.0), ..default() }, "router temperature: expected 0.01 to 100, found 0"),
        (RoutingOverride { temperature: Some(f32::NAN), ..default() }, "found NaN"),
        (
            RoutingOverride { experts_per_token: Some(0), ..default() },
            "expected 1 to 8, as layer 2 has 8 to choose from, found 0",
        ),
        (RoutingOverride { experts_per_token: Some(9), ..default() }, "expected 1 to 8"),
        // Two groups of one expert each may be the ones that are kept.
        (RoutingOverride { disabled: [1, 2, 3, 5, 6, 7].map(at).to_vec(), ..default() }, "1 to 2, as layer 2 has 2"),
    ];
    for (change, expected) in cases {
        let error = change.apply(2, &grouped).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    for (text, expected) in [("3", Some((3, None))), ("3@5", Some((3, Some(5)))), ("x", None), ("3@", None), ("-1", None)] {
        let parsed = text.parse::<ExpertAt>().ok().map(|at| (at.expert, at.layer));
        assert_eq!(parsed, expected, "{text}");
    }
}
