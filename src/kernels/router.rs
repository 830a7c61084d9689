//! Router: the logits of each token, its best experts and their weights. Of one token in one dispatch, where that is quicker than two.

use super::matmul;
use super::norm::Fused;
use super::router_topk::{self, Halting, PARAMS, Params, paged, top_k};
use super::tile::Tile;
use crate::error::Result;
use crate::gating::RouterSpec;
use crate::gpu::{Access, Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Knob, Recording, Sharded, Variant, When};
use crate::quant::Quant;

pub static KERNEL: Kernel = Kernel {
    name: "router",
    source: include_str!("../../shaders/router.wgsl"),
    summary: "logits of one token, its best experts and their weights",
    params: PARAMS,
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "x"),
        Binding::read(2, "weight"),
        Binding::read_write(3, "logits"),
        Binding::read(4, "slot_table"),
        Binding::read_write(5, "ids"),
        Binding::read_write(6, "slots"),
        Binding::read_write(7, "weights"),
        Binding::read_write(8, "loads").only(When::NotFlag("PAGED")),
        Binding::read(9, "selection_bias").only(When::Flag("SELECTION_BIAS")),
        Binding::read(10, "expert_scale").only(When::Flag("EXPERT_SCALE")),
        Binding::read(11, "norm").only(When::Flag("NORM")),
        Binding::read(12, "logit_bias").only(When::Flag("LOGIT_BIAS")),
        Binding::read_write(13, "halt").only(When::Flag("PAGED")),
        Binding::read(14, "stream").only(When::Flag("STREAM")),
    ],
};

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    /// Its bias, factor and soft cap make the logits.
    pub router: &'a RouterSpec,
    pub cols: usize,
    /// Goes before the product; one token only.
    pub norm: Option<Fused>,
    pub quant: Quant,
    /// As in [`router_topk::Problem`].
    pub load_offset: usize,
    pub fault_place: usize,
    /// Likewise. Where `norm` goes before the product, `x` is the residual stream.
    pub halting: Option<Halting>,
}

/// # Shapes
/// `x [num_tokens, padded(cols)]`, `weight [experts, cols]` packed, `norm [padded(cols)]`, `bias [experts]`, and those of the choice.
pub struct Buffers<'a> {
    pub x: &'a Buffer,
    pub weight: &'a Sharded,
    pub norm: Option<&'a Buffer>,
    pub bias: Option<&'a Buffer>,
    /// The logits are written.
    pub choice: router_topk::Buffers<'a>,
}

impl<'a> Problem<'a> {
    fn logits(&self) -> matmul::Problem {
        let RouterSpec { num_experts, bias, logit_scale, softcap, .. } = *self.router;
        matmul::Problem {
            num_tokens: self.num_tokens,
            rows: num_experts,
            cols: self.cols,
            y_stride: num_experts,
            bias,
            scale: logit_scale,
            output: softcap.map_or(matmul::Output::Replace, matmul::Output::Capped),
            norm: self.norm,
            part: None,
            quant: self.quant,
        }
    }

    fn choice(&self) -> router_topk::Problem<'a> {
        router_topk::Problem {
            num_tokens: self.num_tokens,
            router: self.router,
            load_offset: self.load_offset,
            fault_place: self.fault_place,
            halting: self.halting,
        }
    }
}

/// `None` where it takes two dispatches, of [`matmul`] and [`router_topk`]: more than one token, more weights than one workgroup reads sooner
/// than another dispatch starts, or more buffers than the device binds.
pub fn choose(caps: &Caps, problem: &Problem) -> Option<Variant> {
    let Problem { num_tokens, router, cols, norm, quant, halting, .. } = *problem;
    if num_tokens > 1 || router.num_experts * cols > caps.knob(Knob::RouterWeights) {
        return None;
    }
    let variant = Tile::whole(caps, router.num_experts)?
        .variant(cols, quant)
        .f32("LOGIT_SCALE", router.logit_scale)
        .flag_if(router.bias, "LOGIT_BIAS");
    let variant = match router.softcap {
        Some(cap) => variant.flag("LOGIT_CAPPED").f32("LOGIT_CAP", cap),
        None => variant,
    };
    let variant = paged(top_k(Fused::variant(norm, variant, cols), router), halting);
    let variant = variant.flag_if(halting.is_some() && norm.is_none(), "STREAM");
    let storage_buffers = KERNEL.bindings_of(&variant).filter(|binding| binding.access != Access::Uniform).count();
    (storage_buffers <= caps.max_storage_buffers as usize).then_some(variant)
}

pub fn record(
    device: &Device,
    recording: &mut Recording,
    layer: Option<usize>,
    problem: &Problem,
    buffers: &Buffers,
) -> Result<()> {
    let Buffers { x, weight, norm, bias, choice } = buffers;
    let (Some(variant), [only]) = (choose(device.caps(), problem), &weight.shards[..]) else {
        let logits = matmul::Buffers { x, weight, bias: *bias, norm: *norm, decay: None, y: choice.logits };
        matmul::record(device, recording, layer, &problem.logits(), &logits)?;
        return router_topk::record(device, recording, layer, &problem.choice(), choice);
    };
    let mut bound = vec![("x", *x), ("weight", &only.buffer)];
    bound.extend(choice.bound());
    bound.extend(norm.map(|norm| ("norm", norm)));
    bound.extend(bias.map(|bias| ("logit_bias", bias)));
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: bytemuck::bytes_of(&Params::of(&problem.choice())),
            buffers: &bound,
            grid: [1, 1, 1],
        },
    )
}
