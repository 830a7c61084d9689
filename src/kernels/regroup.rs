//! Blocks of values to another place.

pub use crate::batch::regroup::{Regroup, Strides};
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant};

pub static KERNEL: Kernel = Kernel {
    name: "regroup",
    source: include_str!("../../shaders/regroup.wgsl"),
    summary: "blocks of values to another place, copied or added",
    params: &[],
    bindings: &[Binding::read(0, "x"), Binding::read_write(1, "y")],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub shape: Regroup,
}

/// # Shapes
/// As the strides of the problem say.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub y: &'a Buffer,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let Regroup { outer, inner, len, x, y, add } = problem.shape;
    let variant = Variant::new()
        .u32("WG", caps.plain_workgroup())
        .u32("OUTER", outer)
        .u32("INNER", inner)
        .u32("LEN", len)
        .u32("X_FIRST", x.first)
        .u32("X_TOKEN", x.token)
        .u32("X_OUTER", x.outer)
        .u32("X_INNER", x.inner)
        .u32("Y_FIRST", y.first)
        .u32("Y_TOKEN", y.token)
        .u32("Y_OUTER", y.outer)
        .u32("Y_INNER", y.inner);
    match add {
        Some(scale) => variant.flag("ADD").f32("SCALE", scale),
        None => variant,
    }
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let variant = choose(device.caps(), problem);
    let Regroup { outer, inner, len, .. } = problem.shape;
    let groups = (outer * inner * len).div_ceil(variant.get("WG") as usize);
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: &[],
            buffers: &[("x", buffers.x), ("y", buffers.y)],
            grid: [groups, problem.num_tokens, 1],
        },
    )
}
