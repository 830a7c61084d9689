//! Gate and up projection of the chosen experts, with the activation.

use super::norm::Fused;
use super::slab::{SHARDS_PER_DISPATCH, SLAB_PARAMS, Slabs};
use super::{expert_sort, tile::Tile};
use crate::error::Result;
use crate::gating::WeightOn;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use crate::quant::{Quant, padded};
use crate::spec::Activation;

pub static KERNEL: Kernel = Kernel {
    name: "expert_gate_up",
    source: include_str!("../../shaders/expert_gate_up.wgsl"),
    summary: "gate and up projection of the chosen experts, and their activation",
    params: SLAB_PARAMS,
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "x"),
        Binding::read(2, "slots").only(When::NotFlag("SORTED")),
        Binding::read(2, "tiles").only(When::Flag("SORTED")),
        Binding::read(3, "order").only(When::Flag("SORTED")),
        Binding::read_write(4, "h"),
        Binding::read(5, "slab_0"),
        Binding::read(6, "slab_1").only(When::Flag("SHARD_1")),
        Binding::read(7, "slab_2").only(When::Flag("SHARD_2")),
        Binding::read(8, "slab_3").only(When::Flag("SHARD_3")),
        Binding::read(9, "weights").only(When::Flag("WEIGHT_INPUT")),
        Binding::read(10, "norm").only(When::Flag("NORM")),
        Binding::read_write(11, "gate_up").only(When::Flag("KEEP")),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_tokens: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    pub hidden_size: usize,
    pub intermediate_size: usize,
    pub activation: Activation,
    pub weight_on: WeightOn,
    /// Multiplies what the experts add to the residual stream.
    pub scale: f32,
    /// Goes before the gate and up projections; one token only.
    pub norm: Option<Fused>,
    pub quant: Quant,
}

/// How assignments reach the experts.
#[derive(Clone, Copy)]
pub enum Routing<'a> {
    /// One workgroup row per assignment: decode.
    Direct { slots: &'a Buffer },
    /// The tiles of `expert_sort`: prefill.
    Sorted { tiles: &'a Buffer, order: &'a Buffer },
}

/// # Shapes
/// `x [num_tokens, padded(hidden)]`, `norm [padded(hidden)]`, `weights [num_tokens, top_k]` (read where they multiply the input),
/// `h [num_tokens * top_k, padded(intermediate)]`, `slabs [slots, 2 intermediate, hidden]`, or half as many rows
/// where the activation has no gate.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub routing: Routing<'a>,
    pub weights: &'a Buffer,
    pub norm: Option<&'a Buffer>,
    pub h: &'a Buffer,
    /// `[num_tokens * top_k, padded(rows of a slab)]`, where what goes into the activation is kept; not with a norm.
    pub gate_up: Option<&'a Buffer>,
    pub slabs: &'a Slabs,
}

impl Routing<'_> {
    pub fn is_sorted(&self) -> bool {
        matches!(self, Routing::Sorted { .. })
    }

    /// Rows of the grid: assignments, or tiles.
    pub(super) fn grid_rows(&self, caps: &Caps, problem: &Problem) -> usize {
        match self {
            Routing::Direct { .. } => problem.num_tokens * problem.num_experts_per_tok,
            Routing::Sorted { .. } => problem.sort().num_tiles(caps),
        }
    }
}

impl Problem {
    /// How its assignments are sorted.
    fn sort(&self) -> expert_sort::Problem {
        expert_sort::Problem { num_assignments: self.num_tokens * self.num_experts_per_tok, num_experts: self.num_experts }
    }

    /// Rows of gate and up together, or of up alone.
    fn num_rows(&self) -> usize {
        self.activation.gate_up_rows(self.intermediate_size)
    }

    /// The tile of an expert kernel with `num_rows` rows.
    pub(super) fn tile(&self, caps: &Caps, sorted: bool, num_rows: usize) -> Tile {
        Tile::of(caps, if sorted { self.sort().tile_len(caps) } else { 1 }, num_rows)
    }
}

/// Shard buffers that one dispatch can bind: one less where the weights take a binding, and where a norm does.
pub fn shards_per_dispatch(problem: &Problem) -> usize {
    SHARDS_PER_DISPATCH - usize::from(problem.weight_on == WeightOn::Input) - usize::from(problem.norm.is_some())
}

/// Without the consts of the slabs, which [`record`] adds.
pub fn choose(caps: &Caps, problem: &Problem, sorted: bool) -> Variant {
    let variant = problem
        .tile(caps, sorted, problem.num_rows())
        .variant(problem.hidden_size, problem.quant)
        .u32("TOP_K", problem.num_experts_per_tok)
        .u32("H_STRIDE", padded(problem.intermediate_size))
        .flag_if(sorted, "SORTED")
        .flag_if(problem.weight_on == WeightOn::Input, "WEIGHT_INPUT");
    let variant = Fused::variant(problem.norm, variant, problem.hidden_size);
    match problem.activation {
        Activation::Silu => variant.flag("SILU"),
        Activation::GeluTanh => variant.flag("GELU_TANH"),
        Activation::SquaredRelu => variant.flag("SQUARED_RELU"),
        Activation::ClampedSwiglu { alpha, limit } => variant.flag("CLAMPED_SWIGLU").f32("ALPHA", alpha).f32("LIMIT", limit),
    }
}

/// The variant that also writes what goes into the activation, if it is to.
pub fn keeping(variant: Variant, problem: &Problem, keeps: bool) -> Variant {
    if keeps { variant.flag("KEEP").u32("GATE_UP_STRIDE", padded(problem.num_rows())) } else { variant }
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let sorted = buffers.routing.is_sorted();
    let keeps = buffers.gate_up.is_some();
    let base = keeping(choose(device.caps(), problem, sorted), problem, keeps);
    let tile = problem.tile(device.caps(), sorted, problem.num_rows());
    for dispatch in buffers.slabs.dispatches(shards_per_dispatch(problem) - usize::from(keeps)) {
        let mut bound = vec![("x", buffers.x), ("h", buffers.h)];
        match buffers.routing {
            Routing::Direct { slots } => bound.push(("slots", slots)),
            Routing::Sorted { tiles, order } => bound.extend([("tiles", tiles), ("order", order)]),
        }
        if problem.weight_on == WeightOn::Input {
            bound.push(("weights", buffers.weights));
        }
        bound.extend(buffers.norm.map(|norm| ("norm", norm)));
        bound.extend(buffers.gate_up.map(|gate_up| ("gate_up", gate_up)));
        bound.extend(dispatch.buffers());
        recording.dispatch(
            device,
            &DispatchDescriptor {
                kernel: &KERNEL,
                variant: dispatch.variant(base.clone(), &buffers.slabs.shape),
                layer,
                params: bytemuck::bytes_of(&dispatch.params()),
                buffers: &bound,
                grid: [tile.row_groups(dispatch.cut.num_rows), buffers.routing.grid_rows(device.caps(), problem), 1],
            },
        )?;
    }
    Ok(())
}
