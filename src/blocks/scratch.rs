//! Activations: buffers that blocks ask for by name, and that nobody keeps from one layer to the next.

use crate::gpu::{Buffer, Device};
use crate::quant::ROW_ALIGN;
use std::collections::BTreeMap;

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
        // Kernels may read whole words behind the last row.
        let buffer = |name: &'static str, len: usize| (name, device.storage(name, ((len + ROW_ALIGN) * 4) as u64));
        let per_token = sizes.per_token.iter().map(|(name, width)| buffer(name, max_tokens * width));
        let whole = sizes.whole.iter().map(|(name, len)| buffer(name, *len));
        let buffers = per_token.chain(whole).collect();
        Scratch { sizes, buffers }
    }
}

/// Where a recording gets its scratch from.
pub(crate) enum Arena<'a> {
    /// Nothing is recorded: requests are noted, and every one of them gets the same small buffer.
    Rehearsal {
        sizes: Sizes,
        stand_in: Buffer,
    },
    Real(&'a Scratch),
}

impl Arena<'_> {
    /// `width` values for every row.
    pub fn per_token(&mut self, name: &'static str, width: usize) -> Buffer {
        match self {
            Arena::Rehearsal { sizes, stand_in } => request(&mut sizes.per_token, stand_in, name, width),
            Arena::Real(scratch) => granted(&scratch.sizes.per_token, &scratch.buffers, name, width),
        }
    }

    /// `len` values.
    pub fn whole(&mut self, name: &'static str, len: usize) -> Buffer {
        match self {
            Arena::Rehearsal { sizes, stand_in } => request(&mut sizes.whole, stand_in, name, len),
            Arena::Real(scratch) => granted(&scratch.sizes.whole, &scratch.buffers, name, len),
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
