//! Token choice: every token takes its `num_experts_per_tok` best experts.

use super::RouterChange;
use super::row::best_first;

/// How a layer's router turns logits into a choice.
///
/// In this order: logits (times `logit_scale`, with bias, capped), scores, selection scores (scores plus selection bias, experts of losing
/// groups out), the best `num_experts_per_tok` of them, weights (the scores of the chosen), normalised, times `scale` and the expert's own.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterSpec {
    pub num_experts: usize,
    /// The last so many of them have no weights: they give back what they are given.
    pub identity_experts: usize,
    pub num_experts_per_tok: usize,
    /// The input goes through an RMSNorm of the router's own, with this epsilon.
    pub input_norm: Option<f32>,
    /// The logits come through a layer of this width with tanh instead of straight from the input.
    pub hidden: Option<usize>,
    /// The input gives a query, a key and a value of each expert, and the logits are what the experts' attention to each other makes of them.
    pub attention: bool,
    /// The logits add a bias.
    pub bias: bool,
    /// Multiplies the product of input and router, and its bias.
    pub logit_scale: f32,
    /// Logits become `cap * tanh(logit / cap)`.
    pub softcap: Option<f32>,
    pub method: RouterMethod,
    /// A bias is added to the scores for choosing only.
    pub selection_bias: bool,
    pub groups: Option<ExpertGroups>,
    pub normalize: Normalize,
    /// Multiplies the weights.
    pub scale: f32,
    /// Each expert has a factor of its own, which multiplies its weight.
    pub expert_scale: bool,
    pub weight_on: WeightOn,
    /// How it differs from what was trained.
    pub change: RouterChange,
}

/// `router_logits` -> `router_scores`, or a method of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum RouterMethod {
    /// Softmax over all experts.
    Softmax,
    /// The best logits, then softmax over those alone.
    SoftmaxOfTopK,
    /// `1 / (1 + exp(-logit))`
    Sigmoid,
    /// Rounds of a masked softmax with a threshold of twice the jitter; the weights do not sum to one. `num_experts_per_tok` is 2.
    /// Source: `sparsemixer` of transformers' PhiMoE; Liu et al. 2023, arXiv 2310.00811.
    SparseMixer { jitter: f32 },
}

/// Experts compete in groups of equal size first; only the best groups go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertGroups {
    pub num_groups: usize,
    pub num_kept: usize,
    pub score: GroupScore,
}

/// What a group is worth: of its selection scores
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GroupScore {
    Max,
    SumOfTopTwo,
}

/// What the weights of the chosen experts are divided by.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Normalize {
    No,
    /// Their sum, or `floor` where the sum is less.
    Sum {
        floor: f32,
    },
    /// Their p-norm.
    Norm {
        p: f32,
    },
}

/// What the weight multiplies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WeightOn {
    Output,
    /// The expert sees `weight * x`, and its output counts whole.
    Input,
}

/// The experts of one token, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub expert_ids: Vec<u32>,
    /// What multiplies each expert's output, or its input.
    pub routing_weights: Vec<f64>,
}

impl RouterSpec {
    /// Softmax over all experts, not normalised: the base that architectures change.
    pub fn new(num_experts: usize, num_experts_per_tok: usize) -> Self {
        RouterSpec {
            num_experts,
            identity_experts: 0,
            num_experts_per_tok,
            input_norm: None,
            hidden: None,
            attention: false,
            bias: false,
            logit_scale: 1.0,
            softcap: None,
            method: RouterMethod::Softmax,
            selection_bias: false,
            groups: None,
            normalize: Normalize::No,
            scale: 1.0,
            expert_scale: false,
            weight_on: WeightOn::Output,
            change: RouterChange::default(),
        }
    }

    /// Rows of the router's last matrix.
    pub fn rows(&self) -> usize {
        if self.attention { 3 * self.num_experts } else { self.num_experts }
    }

    /// Experts with weights.
    pub fn num_weighted(&self) -> usize {
        self.num_experts - self.identity_experts
    }

    /// Chooses the experts of one token from its `router_logits [num_experts]`, which have the bias and are capped, and the `selection_bias
    /// [num_experts]`, where the spec has one. Equal scores go to the lower expert id. The factors of `expert_scale` are not applied.
    pub fn route(&self, router_logits: &[f32], selection_bias: Option<&[f32]>) -> Assignment {
        let changed;
        let router_logits = if self.change.is_none() {
            router_logits
        } else {
            changed = self.change.logits(router_logits);
            &changed
        };
        if let RouterMethod::SparseMixer { jitter } = self.method {
            let mut assignment = self.sparse_mixer(router_logits, f64::from(jitter));
            assignment.routing_weights.iter_mut().for_each(|weight| *weight *= f64::from(self.scale));
            return assignment;
        }
        let scores = self.scores(router_logits);
        // Scores grow with their logits, which are finer: they decide where nothing is added to the score.
        let key = |expert: usize| match (selection_bias, self.groups) {
            _ if self.change.disabled.contains(&expert) => f64::NEG_INFINITY,
            (Some(bias), _) => scores[expert] + f64::from(bias[expert]),
            (None, Some(ExpertGroups { score: GroupScore::SumOfTopTwo, .. })) => scores[expert],
            (None, _) => f64::from(router_logits[expert]),
        };
        let mut keys: Vec<f64> = (0..router_logits.len()).map(key).collect();
        let kept = self.groups.map(|groups| groups.kept(&keys));
        let in_kept = |expert: usize| match (&kept, self.groups) {
            (Some(kept), Some(groups)) => kept.contains(&(expert * groups.num_groups / router_logits.len())),
            _ => true,
        };
        if let Some(forced) = self.change.forced {
            keys[forced] = f64::INFINITY;
        }
        let mut chosen = best_first(&keys);
        chosen.retain(|&expert| in_kept(expert) || Some(expert) == self.change.forced);
        chosen.truncate(self.num_experts_per_tok);
        let weights = match self.method {
            RouterMethod::SoftmaxOfTopK => self.softmax(&chosen.iter().map(|&expert| scores[expert]).collect::<Vec<_>>()),
            _ => chosen.iter().map(|&expert| scores[expert]).collect(),
        };
        let factor = f64::from(self.scale) / self.normalize.divisor(&weights);
        Assignment {
            expert_ids: chosen.into_iter().map(|expert| expert as u32).collect(),
            routing_weights: weights.into_iter().map(|weight| weight * factor).collect(),
        }
    }

    /// For [`RouterMethod::SoftmaxOfTopK`] these are the logits: their softmax comes after the choice.
    fn scores(&self, router_logits: &[f32]) -> Vec<f64> {
        let logits = router_logits.iter().copied().map(f64::from);
        let temperature = f64::from(self.change.temperature);
        match self.method {
            RouterMethod::Sigmoid => logits.map(|logit| 1.0 / (1.0 + (-logit / temperature).exp())).collect(),
            RouterMethod::SoftmaxOfTopK => logits.collect(),
            _ => self.softmax(&logits.collect::<Vec<_>>()),
        }
    }

    fn softmax(&self, logits: &[f64]) -> Vec<f64> {
        let temperature = f64::from(self.change.temperature);
        let max = logits.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let exponentials: Vec<f64> = logits.iter().map(|logit| ((logit - max) / temperature).exp()).collect();
        let total: f64 = exponentials.iter().sum();
        exponentials.into_iter().map(|exponential| exponential / total).collect()
    }

    /// Each round takes the best logit; its weight is its softmax over those that are not far below it.
    fn sparse_mixer(&self, router_logits: &[f32], jitter: f64) -> Assignment {
        let logits: Vec<f64> = router_logits.iter().copied().map(f64::from).collect();
        let mut left = logits.clone();
        let mut assignment = Assignment { expert_ids: Vec::new(), routing_weights: Vec::new() };
        for round in 0..self.num_experts_per_tok {
            let best = self.change.forced.filter(|_| round == 0).unwrap_or_else(|| best_first(&left)[0]);
            let top = left[best];
            let far = |expert: usize| (top - logits[expert]) / logits[expert].abs().max(top) > 2.0 * jitter;
            let near = |(expert, &logit): (usize, &f64)| if far(expert) { f64::NEG_INFINITY } else { logit };
            let kept: Vec<f64> = left.iter().enumerate().map(near).collect();
            assignment.expert_ids.push(best as u32);
            assignment.routing_weights.push(self.softmax(&kept)[best]);
            left[best] = f64::NEG_INFINITY;
        }
        assignment
    }
}

impl ExpertGroups {
    /// The best groups, from the selection scores of all experts.
    fn kept(&self, keys: &[f64]) -> Vec<usize> {
        let scores: Vec<f64> = keys
            .chunks_exact(keys.len() / self.num_groups)
            .map(|keys| {
                let best = best_first(keys);
                let top = match self.score {
                    GroupScore::Max => 1,
                    GroupScore::SumOfTopTwo => 2,
                };
                // Only experts that are left count: a group with a single one is worth that one.
                let there = |score: &f64| *score > f64::NEG_INFINITY;
                let scores: Vec<f64> = best.iter().take(top).map(|&expert| keys[expert]).filter(there).collect();
                if scores.is_empty() { f64::NEG_INFINITY } else { scores.iter().sum() }
            })
            .collect();
        let mut kept = best_first(&scores);
        kept.truncate(self.num_kept);
        kept
    }
}

impl Normalize {
    fn divisor(self, weights: &[f64]) -> f64 {
        match self {
            Normalize::No => 1.0,
            Normalize::Sum { floor } => weights.iter().sum::<f64>().max(f64::from(floor)),
            Normalize::Norm { p } => {
                let p = f64::from(p);
                weights.iter().map(|weight| weight.abs().powf(p)).sum::<f64>().powf(p.recip())
            }
        }
    }
}
