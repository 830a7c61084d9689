//! Activations: buffers that blocks ask for by name, and that nobody keeps from one layer to the next.

use crate::gpu::{Buffer, Device};
use crate::quant::ROW_ALIGN;
use std::collections::BTreeMap;

/// Every name of scratch with a row for each token, and what is in it after the block that asks for it: what can be tapped.
pub static TAPS: &[(&str, &str)] = &[
    ("x", "the residual stream, after the block"),
    ("normed", "the residual stream after the norm before the block; with one token the kernels apply that norm themselves"),
    ("part", "what the block gives, where a norm stands between it and the residual stream"),
    ("qkv", "queries, keys and values as they are projected, where norms or positions follow in a kernel of their own"),
    ("q", "queries after norms and positions"),
    ("attended", "what the heads of an attention give, after its gate"),
    ("latent_query", "the query of latent attention between its two projections"),
    ("latent_query_normed", "the same after the norm"),
    ("latent", "the latent and the shared key, before norm and positions"),
    ("latent_values", "what the heads read from the cache of latents"),
    ("filter_pair", "the input of the second convolution of a local filter"),
    ("filter_middle", "what its first convolution gives"),
    ("filter_sum", "what its second convolution gives, with the input added"),
    ("filter_normed", "the same after the norm"),
    ("convolution_input", "what a short convolution is given: what multiplies before it, after it, and what it is of"),
    ("convolved", "what a short convolution gives, after its activation or its gate"),
    ("recurrent_input", "what a recurrence is given: its gate, then values, keys and queries before their convolution"),
    ("recurrent_steps", "the step of each of its heads, before bias and softplus"),
    ("recurrent_steps_raw", "between the two projections of its steps"),
    ("recurrent_steps_normed", "the same after the norm"),
    ("recurrent_decays", "what is left of each row of the state of each head"),
    ("recurrent_keys", "keys and queries that come from the values, before their norms"),
    ("recurrent_gate", "the gate of its output, before the activation, where it has a projection of its own"),
    ("recurrent_output", "what its heads give, before norm and gate"),
    ("router_hidden", "between the two layers of a router, or its queries, keys and values"),
    ("router_input", "the input of a router that has a norm of its own"),
    ("router_logits", "the logits of a router"),
    ("expert_ids", "the experts of each token, as 32-bit integers"),
    ("routing_weights", "their weights"),
    ("slots", "their cache slots, as 32-bit integers; only with one token"),
    ("order", "the assignments of a batch by expert, as 32-bit integers"),
    ("h", "the inner values of experts or MLP"),
    ("expert_output", "what each assignment of a batch gives, before they are summed"),
    ("shared_weights", "the gate of a shared expert"),
    ("layer_input", "the residual stream that experts beside an MLP read"),
    ("branch", "what one of the two gives before its norm"),
    ("deferred", "what experts give that waits for the next layer"),
];

/// What all blocks of a model have asked for, the largest request of each name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Sizes {
    /// Values of one row of a batch.
    per_token: BTreeMap<&'static str, usize>,
    /// Values whatever the rows.
    whole: BTreeMap<&'static str, usize>,
}

impl Sizes {
    /// The widest row, in values.
    pub fn widest(&self) -> usize {
        self.per_token.values().copied().max().unwrap_or(0)
    }
}

/// Of these, kernels read whole words behind the last row. The others have no room behind it: the widest may fill a binding.
const READ_BEHIND: [&str; 2] = ["qkv", "latent_values"];

/// The buffers of [`Sizes`], for so many rows.
#[derive(Debug)]
pub(crate) struct Scratch {
    sizes: Sizes,
    buffers: BTreeMap<&'static str, Buffer>,
}

impl Scratch {
    /// Zeroed memory for passes of up to `max_tokens` rows. One buffer per name: kernels that touch different buffers need no barrier between
    /// them. Call inside [`Device::catch`].
    pub fn new(device: &Device, sizes: Sizes, max_tokens: usize) -> Self {
        let buffer = |name: &'static str, len: usize| {
            let behind = if READ_BEHIND.contains(&name) { ROW_ALIGN } else { 0 };
            (name, device.storage(name, ((len + behind) * 4) as u64))
        };
        let per_token = sizes.per_token.iter().map(|(name, width)| buffer(name, max_tokens * width));
        let whole = sizes.whole.iter().map(|(name, len)| buffer(name, *len));
        let buffers = per_token.chain(whole).collect();
        Scratch { sizes, buffers }
    }
}

/// Where a recording gets its scratch from.
pub(crate) enum Arena<'a> {
    /// Nothing is recorded: requests are noted, and every one of them gets the same small buffer.
    Rehearsal { sizes: Sizes, stand_in: Buffer },
    Real {
        scratch: &'a Scratch,
        /// What the block that is being recorded has asked for, with the values of one row.
        asked: BTreeMap<&'static str, usize>,
    },
}

impl<'a> From<&'a Scratch> for Arena<'a> {
    fn from(scratch: &'a Scratch) -> Self {
        Arena::Real { scratch, asked: BTreeMap::new() }
    }
}

impl Arena<'_> {
    /// `width` values for every row.
    pub fn per_token(&mut self, name: &'static str, width: usize) -> Buffer {
        match self {
            Arena::Rehearsal { sizes, stand_in } => request(&mut sizes.per_token, stand_in, name, width),
            Arena::Real { scratch, asked } => {
                asked.insert(name, width);
                granted(&scratch.sizes.per_token, &scratch.buffers, name, width)
            }
        }
    }

    /// `len` values.
    pub fn whole(&mut self, name: &'static str, len: usize) -> Buffer {
        match self {
            Arena::Rehearsal { sizes, stand_in } => request(&mut sizes.whole, stand_in, name, len),
            Arena::Real { scratch, .. } => granted(&scratch.sizes.whole, &scratch.buffers, name, len),
        }
    }

    /// Forgets what has been asked for: another block begins.
    pub fn begin_block(&mut self) {
        if let Arena::Real { asked, .. } = self {
            asked.clear();
        }
    }

    /// The scratch of the block that was recorded, with the values of one row, by name.
    pub fn asked(&self) -> Vec<(&'static str, usize)> {
        match self {
            Arena::Rehearsal { .. } => Vec::new(),
            Arena::Real { asked, .. } => asked.iter().map(|(name, width)| (*name, *width)).collect(),
        }
    }

    pub fn is_rehearsal(&self) -> bool {
        matches!(self, Arena::Rehearsal { .. })
    }
}

fn request(sizes: &mut BTreeMap<&'static str, usize>, stand_in: &Buffer, name: &'static str, len: usize) -> Buffer {
    let known = sizes.entry(name).or_default();
    *known = len.max(*known);
    stand_in.clone()
}

/// # Panics
/// If the rehearsal of the same pass did not ask for so much: it runs the same code.
fn granted(
    sizes: &BTreeMap<&'static str, usize>,
    buffers: &BTreeMap<&'static str, Buffer>,
    name: &'static str,
    len: usize,
) -> Buffer {
    let known = sizes.get(name).copied().unwrap_or(0);
    assert!(len <= known, "scratch `{name}` has {known} values, {len} are asked for");
    buffers[name].clone()
}
