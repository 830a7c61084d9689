//! Feed-forward parts: MLPs, experts and their router.

use super::NormSpec;
use super::weight::{Role, Weight};
use crate::gating::RouterSpec;

/// `down(act(gate(x), up(x)))`, or `down(act(up(x)))` where the activation has no gate, each projection with a bias where `bias` says so.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MlpSpec {
    pub intermediate_size: usize,
    pub activation: Activation,
    pub bias: bool,
}

/// From gate and up, or up alone, to the inner values.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Activation {
    /// `silu(gate) * up`
    Silu,
    /// `gelu(gate) * up`, with the tanh approximation.
    GeluTanh,
    /// `(up + 1) * gate * sigmoid(alpha * gate)`, with `gate <= limit` and `|up| <= limit`. Source: `GptOssExperts` of transformers.
    ClampedSwiglu { alpha: f32, limit: f32 },
    /// `relu(up)^2`, without a gate.
    SquaredRelu,
}

impl Activation {
    pub fn is_gated(self) -> bool {
        self != Activation::SquaredRelu
    }

    /// Rows of gate and up together for so many inner values, or of up alone.
    pub fn gate_up_rows(self, intermediate_size: usize) -> usize {
        if self.is_gated() { 2 * intermediate_size } else { intermediate_size }
    }
}

/// A router, the experts it chooses from, and the expert that every token uses.
#[derive(Debug, Clone, PartialEq)]
pub struct MoeSpec {
    pub router: RouterSpec,
    pub expert: MlpSpec,
    pub shared: Option<SharedSpec>,
    /// A bias is added to the sum of the experts.
    pub output_bias: bool,
}

/// An expert that every token uses, added to the routed ones.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct SharedSpec {
    pub mlp: MlpSpec,
    /// Its output is multiplied by the sigmoid of one more linear row.
    pub gate: bool,
}

/// Experts beside a dense MLP. Both are added.
#[derive(Debug, Clone, PartialEq)]
pub struct ParallelSpec {
    pub dense: MlpSpec,
    pub moe: MoeSpec,
    pub inputs: ParallelInputs,
    /// Each of the two goes through a norm of its own before they are added.
    pub post_norms: bool,
    /// What the experts give waits, and is added at the end of the next layer.
    pub deferred: bool,
}

/// What a dense MLP and the experts beside it read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ParallelInputs {
    /// Both the norm of what the mixer left.
    Same,
    /// Both what the mixer left, each through a norm of its own.
    OwnNorms,
    /// The experts the norm of the layer's own input, before its mixer; the MLP what the mixer left, through a norm of its own.
    LayerInput,
}

impl MlpSpec {
    /// Rows of gate and up together.
    fn gate_up_rows(&self) -> usize {
        self.activation.gate_up_rows(self.intermediate_size)
    }

    /// Of an MLP that every token uses, which has no biases.
    pub(super) fn weights(&self, hidden_size: usize) -> [Weight; 2] {
        self.weights_as([Role::DenseGateUp, Role::DenseDown], hidden_size)
    }

    fn weights_as(&self, [gate_up, down]: [Role; 2], hidden_size: usize) -> [Weight; 2] {
        [Weight::matrix(gate_up, self.gate_up_rows(), hidden_size), Weight::matrix(down, hidden_size, self.intermediate_size)]
    }
}

impl MoeSpec {
    /// In the order of use.
    pub(super) fn weights(&self, hidden_size: usize) -> Vec<Weight> {
        let RouterSpec { num_experts, num_experts_per_tok, hidden, .. } = self.router;
        let mut weights = Vec::new();
        weights.extend(self.router.input_norm.map(|_| Weight::vector(Role::RouterNorm, hidden_size)));
        weights.extend(hidden.map(|width| Weight::matrix(Role::RouterHidden, width, hidden_size)));
        weights.push(Weight::matrix(Role::Router, self.router.rows(), hidden.unwrap_or(hidden_size)));
        weights.extend(self.router.bias.then(|| Weight::vector(Role::RouterBias, num_experts)));
        weights.extend(self.router.selection_bias.then(|| Weight::vector(Role::SelectionBias, num_experts)));
        weights.extend(self.router.expert_scale.then(|| Weight::vector(Role::ExpertScale, num_experts)));
        let num_weighted = self.router.num_weighted();
        let each = |weight: Weight| weight.of_experts(num_weighted, num_experts_per_tok);
        let [gate_up, down] = self.expert.weights_as([Role::ExpertGateUp, Role::ExpertDown], hidden_size);
        let bias = |role: Role, len: usize| self.expert.bias.then(|| each(Weight::vector(role, len)));
        weights.push(each(gate_up));
        weights.extend(bias(Role::ExpertGateUpBias, self.expert.gate_up_rows()));
        weights.push(each(down));
        weights.extend(bias(Role::ExpertDownBias, hidden_size));
        if let Some(shared) = &self.shared {
            weights.extend(shared.mlp.weights_as([Role::SharedGateUp, Role::SharedDown], hidden_size));
            weights.extend(shared.gate.then(|| Weight::matrix(Role::SharedGate, 1, hidden_size)));
        }
        weights.extend(self.output_bias.then(|| Weight::vector(Role::FfnBias, hidden_size)));
        weights
    }
}

impl ParallelSpec {
    /// In the order of use; `norm` is that of the layer.
    pub(super) fn weights(&self, hidden_size: usize, norm: NormSpec) -> Vec<Weight> {
        let norm = |wanted: bool, role: Role| wanted.then(|| Weight::norm(role, norm, hidden_size));
        let mut weights = self.moe.weights(hidden_size);
        weights.extend(norm(self.inputs != ParallelInputs::Same, Role::ParallelNorm));
        weights.extend(self.dense.weights(hidden_size));
        weights.extend(norm(self.post_norms, Role::ParallelPostNorm));
        weights.extend(norm(self.post_norms, Role::ExpertPostNorm));
        weights
    }
}
