//! Token choice: every token takes its `num_experts_per_tok` best experts.

/// How a layer's router turns logits into a choice.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterSpec {
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    pub scores: ScoreFunction,
    /// Divide the chosen scores by their sum.
    pub renormalize: bool,
}

/// `router_logits` -> `router_scores`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScoreFunction {
    /// Softmax over all experts.
    Softmax,
}

/// The experts of one token, best first.
#[derive(Debug, Clone, PartialEq)]
pub struct Assignment {
    pub expert_ids: Vec<u32>,
    /// What multiplies each expert's output.
    pub routing_weights: Vec<f64>,
}

impl RouterSpec {
    /// Chooses the experts of one token from its `router_logits [num_experts]`. Equal scores go to the lower expert id.
    ///
    /// Source: `MixtralTopKRouter` of transformers.
    pub fn route(&self, router_logits: &[f32]) -> Assignment {
        let max = router_logits.iter().fold(f64::NEG_INFINITY, |max, &logit| max.max(f64::from(logit)));
        let ScoreFunction::Softmax = self.scores;
        let exponentials: Vec<f64> = router_logits.iter().map(|&logit| (f64::from(logit) - max).exp()).collect();
        let total: f64 = exponentials.iter().sum();

        let mut expert_ids: Vec<u32> = (0..router_logits.len() as u32).collect();
        // The order has to be total for NaN, but minus zero equals zero: adding zero makes it so.
        let key = |expert: u32| router_logits[expert as usize] + 0.0;
        expert_ids.sort_by(|&a, &b| key(b).total_cmp(&key(a)).then(a.cmp(&b)));
        expert_ids.truncate(self.num_experts_per_tok);

        let mut routing_weights: Vec<f64> = expert_ids.iter().map(|&expert| exponentials[expert as usize] / total).collect();
        if self.renormalize {
            let sum: f64 = routing_weights.iter().sum();
            routing_weights.iter_mut().for_each(|weight| *weight /= sum);
        }
        Assignment { expert_ids, routing_weights }
    }
}
