//! The end of attention whose keys several workgroups share.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};

pub static KERNEL: Kernel = Kernel {
    name: "attention_merge",
    source: include_str!("../../shaders/attention_merge.wgsl"),
    summary: "one token's attention over a long context, from the splits that met its keys",
    params: &[],
    bindings: &[Binding::read(0, "partials"), Binding::read_write(1, "y"), Binding::read(2, "sinks").only(When::Flag("SINKS"))],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_heads: usize,
    pub value_dim: usize,
    pub splits: usize,
    pub sinks: bool,
}

impl Problem {
    /// Values of the partial results: of a head and a split, its values and a quad for the highest score and the sum.
    pub fn num_partials(&self) -> usize {
        self.num_heads * self.splits * (self.value_dim + 4)
    }
}

/// # Shapes
/// `partials [heads, splits, value_dim + 4]`, `y [padded(heads value_dim)]`.
pub struct Buffers<'a> {
    pub partials: &'a Buffer,
    pub y: &'a Buffer,
    /// `[heads]`
    pub sinks: Option<&'a Buffer>,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("NUM_HEADS", problem.num_heads)
        .u32("VALUE_DIM", problem.value_dim)
        .u32("SPLITS", problem.splits)
        .flag_if(problem.sinks, "SINKS")
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let variant = choose(device.caps(), problem);
    let quads = problem.num_heads * problem.value_dim / 4;
    let mut bound = vec![("partials", buffers.partials), ("y", buffers.y)];
    bound.extend(buffers.sinks.map(|sinks| ("sinks", sinks)));
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            layer,
            params: &[],
            buffers: &bound,
            grid: [quads.div_ceil(variant.get("WG") as usize), 1, 1],
            variant,
        },
    )
}
