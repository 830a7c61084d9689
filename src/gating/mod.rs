//! How tokens choose experts: the routers of models ([`RouterSpec`]), and every gating method of the literature as a rule ([`GATES`]).

mod balance;
mod capacity;
mod change;
mod effect;
mod losses;
mod metrics;
mod part;
mod real;
mod row;
mod rule;
mod settings;
mod top_k;

mod attention_router;
mod balanced_hash;
mod base_layer;
mod cosine_router;
mod dense_softmax;
mod dselect_k;
mod expert_choice;
mod group_limited;
mod grouped_top_k;
mod gumbel_straight_through;
mod hash_gated;
mod hash_routing;
mod hierarchical_noisy;
mod hme_1994;
mod jacobs_1991;
mod mixture_of_depths;
mod noisy_top_k;
mod peer;
mod quantile_balancing;
mod random_routed;
mod relu_routing;
mod residual_moe;
mod sigmoid_bias;
mod sinkhorn_routing;
mod smear;
mod soft_moe;
mod sparse_mixer;
mod stable_moe;
mod top1_switch;
mod top2_gshard;
mod top_k_softmax;
mod top_p;
mod v_moe;

pub use balance::{AfterStep, balanced_table};
pub use base_layer::auction;
pub use capacity::{CAPACITY, CallCapacity, CallLimit, DROP, DROP_OR_NEXT, Demand, FORMULAS, Formula, Limit, expert_capacity};
pub use change::{ExpertAt, RouterChange, RoutingOverride};
pub use effect::{Effect, Sums, TokenGradient, TokenScores};
pub use hme_1994::{EStep, Hierarchy, MStep};
pub use jacobs_1991::{Supervised, supervised};
pub use losses::{LOSSES, Loss, LossTwin, OWN_LOSSES, Routed, loss, shares};
pub use metrics::{Balance, churn, drop_rate, nearly_dead, unserved_rate};
pub use part::{MAX_NOISE, MAX_SETTINGS};
pub use real::{Gradient, Real, Tape, Var};
pub use rule::{
    Batch, Chooser, Dims, Distribution, Gate, Init, Leaf, Mixing, NONE, Named, Noise, Routing, RunsAs, State, StateInit, Twin,
    Update,
};
pub use settings::{EXPERTS_PER_TOKEN, JITTER, MAX_EXPERTS, Setting, Settings, Values};
pub use top_k::{Assignment, ExpertGroups, GroupScore, Normalize, RouterMethod, RouterSpec, WeightOn};

use crate::error::{Error, Result, nearest};

/// Every gating method, by its name.
pub static GATES: &[&Gate] = &[
    &attention_router::GATE,
    &balanced_hash::GATE,
    &base_layer::GATE,
    &cosine_router::GATE,
    &dense_softmax::GATE,
    &dselect_k::GATE,
    &expert_choice::GATE,
    &group_limited::GATE,
    &grouped_top_k::GATE,
    &gumbel_straight_through::GATE,
    &hash_gated::GATE,
    &hash_routing::GATE,
    &hierarchical_noisy::GATE,
    &hme_1994::GATE,
    &jacobs_1991::GATE,
    &mixture_of_depths::GATE,
    &noisy_top_k::GATE,
    &peer::GATE,
    &quantile_balancing::GATE,
    &random_routed::GATE,
    &relu_routing::GATE,
    &residual_moe::GATE,
    &sigmoid_bias::GATE,
    &sinkhorn_routing::GATE,
    &smear::GATE,
    &soft_moe::GATE,
    &sparse_mixer::GATE,
    &stable_moe::GATE,
    &top1_switch::GATE,
    &top2_gshard::GATE,
    &top_k_softmax::GATE,
    &top_p::GATE,
    &v_moe::GATE,
];

/// A gating method by its name.
///
/// # Errors
/// [`Error::Argument`] for a name that no method has.
pub fn gate(name: &str) -> Result<&'static Gate> {
    let names = || GATES.iter().map(|gate| gate.name);
    GATES.iter().copied().find(|gate| gate.name == name).ok_or_else(|| {
        let expected = match nearest(name, names()) {
            Some(near) => format!("the name of a method; did you mean `{near}`?"),
            None => format!("one of {}", names().collect::<Vec<_>>().join(", ")),
        };
        Error::Argument { what: "gating method", expected, found: name.to_owned() }
    })
}
