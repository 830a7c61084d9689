//! Routing that differs from the model as it was trained.

use super::{Normalize, RouterSpec};
use crate::error::{Error, Result};
use std::fmt;
use std::str::FromStr;

/// Temperatures that a person may choose: beyond them every weight is 0, 1 or the same.
const TEMPERATURES: std::ops::RangeInclusive<f32> = 0.01..=100.0;
/// Sums of weights never fall below this where the temperature can make all of them vanish in an f32.
const LEAST_SUM: f32 = 1e-30;

/// What to change about the routing of a loaded model. The default changes nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct RoutingOverride {
    /// Experts of every token, in every layer with a router.
    pub experts_per_token: Option<usize>,
    /// Experts that are treated as if they were not there.
    pub disabled: Vec<ExpertAt>,
    /// An expert that every token takes first, with a logit as high as the highest.
    pub forced: Option<ExpertAt>,
    /// Divides the router logits: above 1 the weights come closer to each other, below 1 the best expert gets more.
    pub temperature: Option<f32>,
}

/// An expert of one layer, or of every layer with a router. Written `3` or `3@5`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ExpertAt {
    pub expert: usize,
    /// Index of the layer in the model.
    pub layer: Option<usize>,
}

/// The part of a [`RoutingOverride`] that concerns one router, and that its choice reads.
#[derive(Debug, Clone, PartialEq)]
pub struct RouterChange {
    /// In rising order.
    pub disabled: Vec<usize>,
    pub forced: Option<usize>,
    pub temperature: f32,
}

impl Default for RouterChange {
    fn default() -> Self {
        RouterChange { disabled: Vec::new(), forced: None, temperature: 1.0 }
    }
}

impl RouterChange {
    pub fn is_none(&self) -> bool {
        *self == RouterChange::default()
    }

    /// `router_logits` with the disabled experts at minus infinity and the forced one as high as the highest.
    pub(super) fn logits(&self, router_logits: &[f32]) -> Vec<f32> {
        let mut logits = router_logits.to_vec();
        self.disabled.iter().for_each(|&expert| logits[expert] = f32::NEG_INFINITY);
        if let Some(forced) = self.forced {
            logits[forced] = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        }
        logits
    }
}

impl RoutingOverride {
    /// Whether the model routes as it was trained to.
    pub fn is_none(&self) -> bool {
        *self == RoutingOverride::default()
    }

    /// The router of `layer`, changed.
    ///
    /// # Errors
    /// [`Error::Argument`] for an expert that the layer does not have, a temperature out of range, or more experts per token than are left.
    pub fn apply(&self, layer: usize, router: &RouterSpec) -> Result<RouterSpec> {
        let here = |at: &&ExpertAt| at.layer.is_none_or(|wanted| wanted == layer);
        let mut disabled: Vec<usize> = self.disabled.iter().filter(here).map(|at| at.expert).collect();
        disabled.sort_unstable();
        disabled.dedup();
        let forced = self.forced.as_ref().filter(here).map(|at| at.expert);
        let temperature = self.temperature.unwrap_or(1.0);
        for &expert in disabled.iter().chain(&forced) {
            if expert >= router.num_experts {
                let expected = format!("0 to {}, the experts of layer {layer}", router.num_experts - 1);
                return Err(argument("expert", expected, expert));
            }
        }
        if let Some(forced) = forced.filter(|forced| disabled.contains(forced)) {
            return Err(argument("forced expert", format!("one that is not switched off in layer {layer}"), forced));
        }
        if !TEMPERATURES.contains(&temperature) {
            let expected = format!("{} to {}", TEMPERATURES.start(), TEMPERATURES.end());
            return Err(argument("router temperature", expected, temperature));
        }
        let num_experts_per_tok = self.experts_per_token.unwrap_or(router.num_experts_per_tok);
        let most = router.most_per_token(&disabled);
        if !(1..=most).contains(&num_experts_per_tok) {
            if most == 0 {
                let expected = format!("fewer than all {} of layer {layer}", router.num_experts);
                return Err(argument("experts switched off", expected, disabled.len()));
            }
            let what = "experts per token";
            let expected = match most {
                1 => format!("1, as layer {layer} has 1 to choose from (a token may be sent to fewer experts than in training)"),
                _ => format!("1 to {most}, as layer {layer} has {most} to choose from"),
            };
            return Err(argument(what, expected, num_experts_per_tok));
        }
        let normalize = match router.normalize {
            Normalize::Sum { floor } if temperature != 1.0 => Normalize::Sum { floor: floor.max(LEAST_SUM) },
            other => other,
        };
        let change = RouterChange { disabled, forced, temperature };
        Ok(RouterSpec { num_experts_per_tok, normalize, change, ..router.clone() })
    }
}

impl RouterSpec {
    /// How many experts any token can be given without the `disabled` ones, whichever groups win.
    fn most_per_token(&self, disabled: &[usize]) -> usize {
        let (num_groups, num_kept) = self.groups.map_or((1, 1), |groups| (groups.num_groups, groups.num_kept));
        let group_len = self.num_experts / num_groups;
        let mut left = vec![group_len; num_groups];
        disabled.iter().for_each(|&expert| left[expert / group_len] -= 1);
        // Groups without any expert lose against all others.
        left.retain(|&experts| experts > 0);
        left.sort_unstable();
        left.iter().take(num_kept).sum()
    }
}

impl FromStr for ExpertAt {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let wrong = || argument("expert", "a number such as 3, or 3@5 for layer 5 only".to_owned(), text);
        let number = |text: &str| text.trim().parse().map_err(|_| wrong());
        match text.split_once('@') {
            Some((expert, layer)) => Ok(ExpertAt { expert: number(expert)?, layer: Some(number(layer)?) }),
            None => Ok(ExpertAt { expert: number(text)?, layer: None }),
        }
    }
}

impl fmt::Display for ExpertAt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.layer {
            Some(layer) => write!(f, "{}@{layer}", self.expert),
            None => write!(f, "{}", self.expert),
        }
    }
}

/// For a person: `1 expert per token, without expert 3@5, always expert 2, router temperature 0.5`.
impl fmt::Display for RoutingOverride {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        if let Some(count) = self.experts_per_token {
            parts.push(format!("{count} expert{} per token", if count == 1 { "" } else { "s" }));
        }
        if !self.disabled.is_empty() {
            let experts: Vec<String> = self.disabled.iter().map(ExpertAt::to_string).collect();
            parts.push(format!("without expert{} {}", if experts.len() == 1 { "" } else { "s" }, experts.join(", ")));
        }
        parts.extend(self.forced.map(|expert| format!("always expert {expert}")));
        parts.extend(self.temperature.map(|temperature| format!("router temperature {temperature}")));
        f.write_str(if parts.is_empty() { "as trained" } else { "" })?;
        f.write_str(&parts.join(", "))
    }
}

fn argument(what: &'static str, expected: String, found: impl ToString) -> Error {
    Error::Argument { what, expected, found: found.to_string() }
}
