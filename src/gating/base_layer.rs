//! Every expert gets the same number of tokens, by an auction.

use super::rule::twin;
use super::{Batch, Gate, Real, Routing, Values, row};

pub static GATE: Gate = Gate {
    name: "base_layer",
    summary: "while training, an auction gives every expert the same number of tokens; later each token takes its best expert",
    source: "Lewis et al. 2021, BASE layers, arXiv 2103.16716; fairseq",
    width: |_, _| 1,
    tokens_multiple_of: |dims, _| dims.num_experts,
    causal: false,
    twin: twin!(route),
    ..Gate::BASE
};

/// From this round on tokens are held only for what they are worth, which ends quickly.
const PATIENT_ROUNDS: usize = 100;
/// After so many rounds every token is given away as it is, which no auction of ours has needed.
const MOST_ROUNDS: usize = 100_000;

/// Who holds each token after every round, -1 for nobody; the last round is the assignment. `scores [num_tokens, num_experts]`, where the
/// tokens are a multiple of the experts.
pub fn auction(scores: &[f64], num_experts: usize) -> Vec<Vec<i32>> {
    let num_tokens = scores.len() / num_experts;
    let per_expert = num_tokens / num_experts;
    let (least, most) =
        scores.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(least, most), &score| (least.min(score), most.max(score)));
    let step = ((most - least) / 50.0).max(1e-4);
    let score = |expert: usize, token: usize| scores[token * num_experts + expert];
    let mut values: Vec<Vec<f64>> =
        (0..num_experts).map(|expert| (0..num_tokens).map(|token| score(expert, token)).collect()).collect();
    let (mut prices, mut holders) = (vec![0.0; num_tokens], vec![-1; num_tokens]);
    let mut rounds: Vec<Vec<i32>> = Vec::new();
    for round in 0..MOST_ROUNDS {
        let mut bids = vec![vec![0.0; num_tokens]; num_experts];
        for (values, bids) in values.iter().zip(&mut bids) {
            let best = row::top(values, per_expert + 1);
            let next = best.get(per_expert).map_or(f64::NEG_INFINITY, |&token| values[token]);
            best[..per_expert].iter().for_each(|&token| bids[token] = values[token] - next + step);
        }
        if (1..PATIENT_ROUNDS).contains(&round) {
            let held = holders.iter().enumerate().filter(|(_, holder)| **holder >= 0);
            held.for_each(|(token, &holder)| bids[holder as usize][token] = step);
        }
        let highest = |token: usize| {
            let best = row::best_first(&bids.iter().map(|bids| bids[token]).collect::<Vec<_>>())[0];
            (bids[best][token], if bids[best][token] > 0.0 { best as i32 } else { -1 })
        };
        let winning: Vec<f64> = (0..num_tokens).map(|token| highest(token).0).collect();
        holders = (0..num_tokens).map(|token| highest(token).1).collect();
        rounds.push(holders.clone());
        if holders.iter().all(|holder| *holder >= 0) {
            break;
        }
        prices.iter_mut().zip(winning).for_each(|(price, bid)| *price += bid);
        for (expert, values) in values.iter_mut().enumerate() {
            for (token, value) in values.iter_mut().enumerate() {
                *value = match holders[token] == expert as i32 {
                    true if round < PATIENT_ROUNDS => most,
                    true => score(expert, token),
                    false => score(expert, token) - prices[token],
                };
            }
        }
    }
    rounds
}

fn route<R: Real>(batch: &Batch<'_, R>, _: &Values) -> Routing<R> {
    let num_experts = batch.dims.num_experts;
    let mut routing = Routing::new(&batch.dims, 1);
    let mut rounds = if batch.training { auction(&row::values(batch.router), num_experts) } else { Vec::new() };
    let assigned = rounds.pop();
    for token in batch.tokens() {
        let logits = batch.row(token);
        let greedy = || row::best_first(&row::values(logits))[0];
        let expert = assigned.as_ref().and_then(|holders| usize::try_from(holders[token]).ok()).unwrap_or_else(greedy);
        let scores: Vec<R> = logits.iter().map(|logit| logit.sigmoid()).collect();
        routing.put(token, 0, expert, scores[expert]);
        routing.push_scores(logits, &scores);
    }
    routing
}
