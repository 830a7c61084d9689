//! The gradients of the keys and values of causal attention, after `grad_query`.

use super::grad_query::Params;
pub use super::grad_query::{Buffers, Problem, choose};
use crate::error::Result;
use crate::gpu::{Binding, Device, DispatchDescriptor, Kernel, Recording, When};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "grad_key_value",
    source: include_str!("../../shaders/grad_key_value.wgsl"),
    summary: "training: the gradients of the keys and values of attention",
    params: &[("num_tokens", offset_of!(Params, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "q"),
        Binding::read(3, "k_cache"),
        Binding::read(4, "v_cache"),
        Binding::read(5, "dy"),
        Binding::read(6, "rope").only(When::Flag("ROPE")),
        Binding::read_write(7, "dqkv"),
        Binding::read(8, "stats"),
    ],
};

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&Params::new(problem.num_tokens)),
            buffers: &buffers.bound(),
            grid: [problem.num_tokens.div_ceil(device.caps().plain_workgroup()), problem.num_kv_heads, 1],
        },
    )
}
