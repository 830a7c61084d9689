//! The options that change how a model routes, shared by the commands that run one.

use super::number;
use clap::Args;
use moebius::gating::{ExpertAt, RoutingOverride};
use std::str::FromStr;

#[derive(Args)]
#[command(next_help_heading = "Routing, other than the model was trained")]
pub struct RoutingArgs {
    /// Experts of every token.
    #[arg(long, value_name = "K", value_parser = number::whole)]
    experts_per_token: Option<usize>,
    /// Switch experts off, in every layer or in one: 3,7 or 3,7@5; may be given more than once.
    #[arg(long, value_name = "E,..[@LAYER]")]
    disable_expert: Vec<Experts>,
    /// Send every token to this expert first, in every layer or in one: 3 or 3@5.
    #[arg(long, value_name = "E[@LAYER]")]
    force_expert: Option<ExpertAt>,
    /// Divide the router logits: above 1 experts are weighed more equally, below 1 the best one gets more.
    #[arg(long, value_name = "T", value_parser = number::router_temperature, allow_negative_numbers = true)]
    router_temperature: Option<f32>,
}

/// `3,7@5`: several experts of the same layer.
#[derive(Clone)]
struct Experts(Vec<ExpertAt>);

impl FromStr for Experts {
    type Err = moebius::Error;

    fn from_str(text: &str) -> Result<Self, moebius::Error> {
        let (experts, layer) = match text.split_once('@') {
            Some((experts, layer)) => (experts, format!("@{layer}")),
            None => (text, String::new()),
        };
        let each = experts.split(',').map(|expert| format!("{expert}{layer}").parse());
        Ok(Experts(each.collect::<Result<_, _>>()?))
    }
}

impl RoutingArgs {
    pub fn routing(&self) -> RoutingOverride {
        RoutingOverride {
            experts_per_token: self.experts_per_token,
            disabled: self.disable_expert.iter().flat_map(|experts| experts.0.clone()).collect(),
            forced: self.force_expert,
            temperature: self.router_temperature,
        }
    }
}
