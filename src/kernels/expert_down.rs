//! Down projection of the chosen experts.

use super::expert_gate_up::{Problem, Routing};
use super::slab::{SHARDS_PER_DISPATCH, SLAB_PARAMS, Slabs};
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::padded;

pub static KERNEL: Kernel = Kernel {
    name: "expert_down",
    source: include_str!("../../shaders/expert_down.wgsl"),
    summary: "down projection of the chosen experts; in decode summed by routing weight into the residual stream",
    params: SLAB_PARAMS,
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "h"),
        Binding::read(2, "slots").only(When::NotFlag("SORTED")),
        Binding::read(3, "weights").only(When::NotFlag("SORTED")),
        Binding::read(2, "tiles").only(When::Flag("SORTED")),
        Binding::read(3, "order").only(When::Flag("SORTED")),
        Binding::read_write(4, "y"),
        Binding::read(5, "slab_0"),
        Binding::read(6, "slab_1").only(When::Flag("SHARD_1")),
        Binding::read(7, "slab_2").only(When::Flag("SHARD_2")),
        Binding::read(8, "slab_3").only(When::Flag("SHARD_3")),
    ],
};

/// # Shapes
/// `h [num_tokens * top_k, padded(intermediate)]`, `weights [num_tokens, top_k]`, `slabs [slots, hidden, intermediate]`;
/// `y [num_tokens, padded(hidden)]` is added to when routed directly, `y [num_tokens * top_k, padded(hidden)]` replaced when sorted.
pub struct Buffers<'a> {
    pub h: &'a Buffer,
    pub routing: Routing<'a>,
    pub weights: &'a Buffer,
    pub y: &'a Buffer,
    pub slabs: &'a Slabs,
}

/// Without the consts of the slabs, which [`record`] adds.
pub fn choose(caps: &Caps, problem: &Problem, sorted: bool) -> Variant {
    problem
        .tile(caps, sorted, problem.hidden_size)
        .variant(problem.intermediate_size, problem.quant)
        .u32("TOP_K", problem.num_experts_per_tok)
        .u32("Y_STRIDE", padded(problem.hidden_size))
        .f32("SCALE", problem.scale)
        .flag_if(problem.weight_on == WeightOn::Input, "WEIGHT_INPUT")
        .flag_if(sorted, "SORTED")
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let sorted = buffers.routing.is_sorted();
    let base = choose(device.caps(), problem, sorted);
    let tile = problem.tile(device.caps(), sorted, problem.hidden_size);
    // Tiles when sorted; otherwise a workgroup sums all assignments of its token.
    let grid_rows = if sorted { buffers.routing.grid_rows(device.caps(), problem) } else { problem.num_tokens };
    for dispatch in buffers.slabs.dispatches(SHARDS_PER_DISPATCH) {
        let mut bound = vec![("h", buffers.h), ("y", buffers.y)];
        match buffers.routing {
            Routing::Direct { slots } => bound.extend([("slots", slots), ("weights", buffers.weights)]),
            Routing::Sorted { tiles, order } => bound.extend([("tiles", tiles), ("order", order)]),
        }
        bound.extend(dispatch.buffers());
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant: dispatch.variant(base.clone(), &buffers.slabs.shape),
                layer,
                params: bytemuck::bytes_of(&dispatch.params()),
                buffers: &bound,
                grid: [tile.row_groups(dispatch.cut.num_rows), grid_rows, 1],
            },
        )?;
    }
    Ok(())
}
