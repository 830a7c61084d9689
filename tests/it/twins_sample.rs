//! The reference's sampler against values worked out by hand or another way.

use moebius::batch::rng::{pcg, uniform_f32};
use moebius::batch::{Sampling, mark_seen, seen_words};
use moebius::reference::sample::sample;
use std::collections::BTreeSet;

const DRAWS: u32 = 20_000;

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
