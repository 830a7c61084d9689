//! A choice that first is learned and then never changes.

use super::rule::twin;
use super::{Batch, CAPACITY, DROP, Gate, Init, Leaf, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "stable_moe",
    summary: "first the best expert by a sigmoid, which a small router learns from the token id; then that router decides, and stays as it is",
    source: "Dai et al. 2022, StableMoE, arXiv 2204.08396",
    width: |_, _| 1,
    leaves: &[
        Leaf {
            name: "light_embedding",
            shape: |dims, values| vec![dims.vocab_size, values.count("light_dim")],
            init: Init::Normal { std: 0.02 },
        },
        Leaf {
            name: "light_router",
            shape: |dims, values| vec![dims.num_experts, values.count("light_dim")],
            init: Init::Normal { std: 0.02 },
        },
    ],
    settings: &[OWN, CAPACITY, DROP],
    losses: &[("stable_balance_loss", 0.3), ("distillation_loss", 0.3)],
    twin: twin!(route),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::word("stage", &["learning", "frozen"], "whether the router decides, or the small one that learned from it"),
    Setting::count("light_dim", 50, 4096, "width of the small router's embedding"),
];

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_tokens, num_experts) = (batch.dims.num_tokens, batch.dims.num_experts);
    let frozen = values.word("stage") == "frozen";
    let (embedding, light, len) = (batch.leaf("light_embedding"), batch.leaf("light_router"), values.count("light_dim"));
    let mut routing = Routing::new(&batch.dims, 1);
    let (mut light_logits, mut distillation) = (Vec::new(), R::zero());
    for token in batch.tokens() {
        let logits = batch.row(token);
        let word = &embedding[batch.token_ids[token] as usize * len..][..len];
        let of_word: Vec<R> = light.chunks_exact(len).map(|expert| row::dot(word, expert)).collect();
        let best = row::best_first(&row::values(if frozen { &of_word } else { logits }))[0];
        let scores: Vec<R> = logits.iter().map(|logit| logit.sigmoid()).collect();
        routing.put(token, 0, best, scores[best]);
        routing.push_scores(logits, &scores);
        distillation = distillation + row::log_sum_exp(&of_word) - of_word[best];
        light_logits.extend(of_word);
    }
    if !frozen {
        let fair = num_tokens as f64 / num_experts as f64;
        let excess: Vec<f64> = routing.counts(num_experts).iter().map(|&count| (count as f64 - fair) / fair).collect();
        let weights = routing.expert_ids.iter().zip(&routing.weights);
        let balance = row::sum(weights.map(|(&expert, &weight)| weight * excess[expert as usize]));
        routing.losses = vec![("stable_balance_loss", balance), ("distillation_loss", distillation)];
    }
    routing.named = vec![("light_logits", light_logits)];
    routing
}
