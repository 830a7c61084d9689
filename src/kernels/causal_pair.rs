//! Every value beside the one at the position before.

use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "causal_pair",
    source: include_str!("../../shaders/causal_pair.wgsl"),
    summary: "every value beside the one at the position before: the input of a causal convolution over two",
    params: &[],
    bindings: &[
        Binding::read(0, "rows"),
        Binding::read(1, "x").only(When::Flag("APPEND")),
        Binding::read_write(2, "cache").only(When::Flag("APPEND")),
        Binding::read(2, "cache").only(When::NotFlag("APPEND")),
        Binding::read_write(3, "y").only(When::NotFlag("APPEND")),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub width: usize,
    pub context: usize,
}

/// # Shapes
/// `rows [num_tokens]`, `x [num_tokens, padded(width)]`, `cache [sequences, context, width]`, `y [num_tokens, padded(2 width)]`.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    pub x: &'a Buffer,
    pub cache: &'a Buffer,
    pub y: &'a Buffer,
}

/// The first of the two dispatches appends.
pub fn choose(caps: &Caps, problem: &Problem, appends: bool) -> Variant {
    Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("WIDTH", problem.width)
        .u32("CONTEXT", problem.context)
        .u32("X_STRIDE", padded(problem.width))
        .u32("Y_STRIDE", padded(2 * problem.width))
        .flag_if(appends, "APPEND")
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    for appends in [true, false] {
        let variant = choose(device.caps(), problem, appends);
        let groups = problem.width.div_ceil(variant.get("WG") as usize);
        let mut bound = vec![("rows", buffers.rows), ("cache", buffers.cache)];
        bound.push(if appends { ("x", buffers.x) } else { ("y", buffers.y) });
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant,
                layer,
                params: &[],
                buffers: &bound,
                grid: [groups, problem.num_tokens, 1],
            },
        )?;
    }
    Ok(())
}
