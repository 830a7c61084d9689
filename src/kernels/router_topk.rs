//! The best experts of each token.

use super::to_u32;
use crate::error::Result;
use crate::gating::{GroupScore, Normalize, RouterMethod, RouterSpec};
use crate::gpu::{Access, Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Recording, Variant, When};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "router_topk",
    source: include_str!("../../shaders/router_topk.wgsl"),
    summary: "scores of the experts, the best of each token, their weights",
    params: PARAMS,
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "logits"),
        Binding::read(2, "slot_table"),
        Binding::read_write(3, "ids"),
        Binding::read_write(4, "slots"),
        Binding::read_write(5, "weights"),
        Binding::read_write(6, "loads").only(When::NotFlag("PAGED")),
        Binding::read(7, "selection_bias").only(When::Flag("SELECTION_BIAS")),
        Binding::read(8, "expert_scale").only(When::Flag("EXPERT_SCALE")),
        Binding::read_write(9, "halt").only(When::Flag("PAGED")),
        Binding::read(10, "stream").only(When::Flag("PAGED")),
    ],
};

/// Of `shaders/lib/top_k.wgsl`.
pub(super) const PARAMS: &[(&str, usize)] = &[
    ("load_offset", offset_of!(Params, load_offset)),
    ("forced", offset_of!(Params, forced)),
    ("temperature", offset_of!(Params, temperature)),
    ("fault", offset_of!(Params, fault)),
    ("disabled", offset_of!(Params, disabled)),
    ("place", offset_of!(Params, place)),
    ("chosen", offset_of!(Params, chosen)),
    ("stream", offset_of!(Params, stream)),
];

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct Params {
    load_offset: u32,
    /// `u32::MAX` for none.
    forced: u32,
    temperature: f32,
    fault: u32,
    /// One bit per expert.
    disabled: [u32; MAX_EXPERTS / 32],
    place: u32,
    chosen: u32,
    stream: u32,
    padding: u32,
}

/// As many as a spec may have.
const MAX_EXPERTS: usize = 1024;

impl Params {
    pub fn of(problem: &Problem) -> Self {
        let change = &problem.router.change;
        let mut disabled = [0; MAX_EXPERTS / 32];
        change.disabled.iter().for_each(|expert| disabled[expert / 32] |= 1 << (expert % 32));
        let Halting { place, chosen, stream, .. } = problem.halting.unwrap_or_default();
        Params {
            load_offset: to_u32(problem.load_offset),
            forced: change.forced.map_or(u32::MAX, to_u32),
            temperature: change.temperature,
            fault: to_u32(problem.fault_place),
            disabled,
            place: to_u32(place),
            chosen: to_u32(chosen),
            stream: to_u32(stream),
            padding: 0,
        }
    }
}

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    pub router: &'a RouterSpec,
    /// Where in `loads` this layer's experts are counted.
    pub load_offset: usize,
    /// Where in `loads` is counted what is not finite; in `halt` where it may halt.
    pub fault_place: usize,
    /// Experts may be absent; of a single token only. Then nothing is counted.
    pub halting: Option<Halting>,
}

/// What a router that may halt writes where in the halt record, in words.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Halting {
    /// Index among the layers with a router.
    pub place: usize,
    /// First of the ids.
    pub chosen: usize,
    /// First of the residual stream.
    pub stream: usize,
    /// Its quads.
    pub stream_quads: usize,
}

/// # Shapes
/// `logits [num_tokens, experts]`, `slot_table [experts]`, `ids`, `slots`, `weights [num_tokens, top_k]`, `loads [load_offset + experts]`.
pub struct Buffers<'a> {
    pub logits: &'a Buffer,
    pub slot_table: &'a Buffer,
    pub ids: &'a Buffer,
    pub slots: &'a Buffer,
    pub weights: &'a Buffer,
    pub loads: &'a Buffer,
    /// Where it may halt: the halt record, and the residual stream `[4 stream_quads]`.
    pub halt: Option<[&'a Buffer; 2]>,
    /// `[experts]`
    pub selection_bias: Option<&'a Buffer>,
    /// `[experts]`
    pub expert_scale: Option<&'a Buffer>,
}

impl<'a> Buffers<'a> {
    pub(super) fn bound(&self) -> Vec<(&'static str, &'a Buffer)> {
        let mut bound = vec![
            ("logits", self.logits),
            ("slot_table", self.slot_table),
            ("ids", self.ids),
            ("slots", self.slots),
            ("weights", self.weights),
            ("loads", self.loads),
        ];
        bound.extend(self.halt.into_iter().flat_map(|[halt, stream]| [("halt", halt), ("stream", stream)]));
        bound.extend(self.selection_bias.map(|bias| ("selection_bias", bias)));
        bound.extend(self.expert_scale.map(|scale| ("expert_scale", scale)));
        bound
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let variant = Variant::new().u32("WG", caps.plain_workgroup()).u32("LOADS", caps.loads(4));
    paged(top_k(variant, problem.router), problem.halting)
}

/// Whether a device binds as many buffers as a router of its own dispatch needs to halt.
pub fn can_halt(caps: &Caps, router: &RouterSpec) -> bool {
    let problem = Problem { num_tokens: 1, router, load_offset: 0, fault_place: 0, halting: Some(Halting::default()) };
    let variant = choose(caps, &problem);
    let storage_buffers = KERNEL.bindings_of(&variant).filter(|binding| binding.access != Access::Uniform).count();
    storage_buffers <= caps.max_storage_buffers as usize
}

/// As a router that may halt needs it.
pub(super) fn paged(variant: Variant, halting: Option<Halting>) -> Variant {
    match halting {
        Some(halting) => variant.flag("PAGED").u32("STREAM_QUADS", halting.stream_quads),
        None => variant,
    }
}

/// The consts and flags of `shaders/lib/top_k.wgsl`.
pub(super) fn top_k(variant: Variant, router: &RouterSpec) -> Variant {
    let mut variant = variant
        .u32("NUM_EXPERTS", router.num_experts)
        .u32("TOP_K", router.num_experts_per_tok)
        .f32("SCALE", router.scale)
        .flag_if(router.selection_bias, "SELECTION_BIAS")
        .flag_if(router.expert_scale, "EXPERT_SCALE")
        .flag_if(!router.change.is_none(), "OVERRIDE");
    variant = match router.method {
        RouterMethod::Softmax => variant.flag("SOFTMAX"),
        RouterMethod::SoftmaxOfTopK => variant.flag("SOFTMAX_OF_TOPK"),
        RouterMethod::Sigmoid => variant.flag("SIGMOID"),
        RouterMethod::SparseMixer { jitter } => variant.flag("SPARSE_MIXER").f32("JITTER", jitter),
    };
    variant = match router.normalize {
        Normalize::No => variant,
        Normalize::Sum { floor } => variant.flag("NORMALIZE_SUM").f32("FLOOR", floor),
        Normalize::Norm { p } => variant.flag("NORMALIZE_NORM").f32("P", p),
    };
    match router.groups {
        Some(groups) => variant
            .flag("GROUPS")
            .flag_if(groups.score == GroupScore::SumOfTopTwo, "GROUP_SUM")
            .u32("NUM_GROUPS", groups.num_groups)
            .u32("NUM_KEPT", groups.num_kept),
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
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer,
            params: bytemuck::bytes_of(&Params::of(problem)),
            buffers: &buffers.bound(),
            grid: [problem.num_tokens, 1, 1],
        },
    )
}
