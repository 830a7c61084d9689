//! Experts and routing weights of every token, by the rule of any gating method that has one in WGSL.

use super::to_u32;
use crate::error::{Error, Result};
use crate::gating::{Dims, Gate, MAX_NOISE, MAX_SETTINGS, Values};
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Part, Recording, Variant};
use crate::quant::padded;
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "gate_rule",
    source: include_str!("../../shaders/gate_rule.wgsl"),
    summary: "training: experts and routing weights of every token, by the rule of a gating method",
    params: PARAMS,
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "router"),
        Binding::read(2, "noise"),
        Binding::read(3, "state"),
        Binding::read(4, "rows"),
        Binding::read_write(5, "ids"),
        Binding::read_write(6, "weights"),
        Binding::read_write(7, "shares"),
        Binding::read_write(8, "log_sums"),
    ],
};

/// Fields of `struct Params` of both kernels that apply a rule.
pub(super) const PARAMS: &[(&str, usize)] = &[
    ("num_tokens", offset_of!(RuleParams, num_tokens)),
    ("is_training", offset_of!(RuleParams, is_training)),
    ("noise_stride", offset_of!(RuleParams, noise_stride)),
    ("seq_len", offset_of!(RuleParams, seq_len)),
    ("noise", offset_of!(RuleParams, noise)),
    ("settings", offset_of!(RuleParams, settings)),
];

#[repr(C)]
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
pub(super) struct RuleParams {
    num_tokens: u32,
    is_training: u32,
    noise_stride: u32,
    seq_len: u32,
    noise: [u32; 2 * MAX_NOISE],
    settings: [f32; MAX_SETTINGS],
}

/// More experts would not fit where an invocation keeps its own values.
pub const MAX_EXPERTS: usize = 256;

/// A method, and what it is applied to.
#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    gate: &'static Gate,
    values: &'a Values,
    dims: Dims,
    training: bool,
    part: Part,
}

/// # Shapes
/// `router [num_tokens, router_stride]`, `noise [num_tokens, noise of a token]`, `state` of the method, `rows [num_tokens, 2] u32`, `ids`, `weights
/// [num_tokens, width]`, `shares [num_tokens, experts]`, `log_sums [num_tokens]`. What a method has none of may be any buffer.
pub struct Buffers<'a> {
    pub router: &'a Buffer,
    pub noise: &'a Buffer,
    pub state: &'a Buffer,
    pub rows: &'a Buffer,
    pub ids: &'a Buffer,
    pub weights: &'a Buffer,
    pub shares: &'a Buffer,
    pub log_sums: &'a Buffer,
}

impl<'a> Problem<'a> {
    /// # Errors
    /// [`Error::Argument`] for a method that exists only as a twin, and for sizes that it or the kernel cannot be applied to.
    pub fn new(gate: &'static Gate, values: &'a Values, dims: Dims, training: bool) -> Result<Problem<'a>> {
        gate.fits(&dims, values)?;
        let argument = |what, expected: String, found: String| Error::Argument { what, expected, found };
        let Some(text) = gate.wgsl_text() else {
            let expected = "one that a device can compute; others run with `--device cpu`".to_owned();
            return Err(argument("gating method", expected, gate.name.to_owned()));
        };
        if dims.num_experts > MAX_EXPERTS {
            return Err(argument(
                "experts",
                format!("at most {MAX_EXPERTS} where a device routes"),
                dims.num_experts.to_string(),
            ));
        }
        Ok(Problem { gate, values, dims, training, part: Part { name: gate.name, text } })
    }

    fn rows(&self) -> usize {
        (self.gate.router_rows)(&self.dims, self.values)
    }

    /// Columns of `router`, padded.
    pub fn router_stride(&self) -> usize {
        padded(self.rows().max(1))
    }

    /// Most experts of a token.
    pub fn width(&self) -> usize {
        (self.gate.width)(&self.dims, self.values)
    }

    /// How many numbers of each kind of noise a token has.
    pub fn noise(&self) -> impl Iterator<Item = usize> + '_ {
        self.gate.noise.iter().map(|noise| if self.training { (noise.per_token)(&self.dims, self.values) } else { 0 })
    }

    pub(super) fn params(&self) -> RuleParams {
        let mut params = RuleParams {
            num_tokens: to_u32(self.dims.num_tokens),
            is_training: u32::from(self.training),
            noise_stride: 0,
            seq_len: to_u32(self.dims.seq_len),
            noise: [0; 2 * MAX_NOISE],
            settings: [0.0; MAX_SETTINGS],
        };
        for (place, len) in params.noise.as_chunks_mut::<2>().0.iter_mut().zip(self.noise()) {
            *place = [params.noise_stride, to_u32(len)];
            params.noise_stride += to_u32(len);
        }
        params.settings.iter_mut().zip(self.values.iter()).for_each(|(setting, (_, value))| *setting = value as f32);
        params
    }

    pub(super) fn variant(&self, caps: &Caps) -> Variant {
        Variant::new()
            .u32("WG", caps.plain_workgroup())
            .u32("NUM_EXPERTS", self.dims.num_experts)
            .u32("WIDTH", self.width())
            .u32("ROUTER_ROWS", self.rows().max(1))
            .u32("HAS_ROUTER", usize::from(self.rows() > 0))
            .u32("ROUTER_STRIDE", self.router_stride())
            .u32("VOCAB_SIZE", self.dims.vocab_size)
            .part("rule", self.part)
    }

    /// What the sum of a token's weights is at least, where they are divided by it after dropping.
    pub(super) fn least_sum(&self) -> Option<f32> {
        let renormalized = self.values.number("renormalize_after_drop").is_some_and(|flag| flag != 0.0);
        renormalized.then(|| self.values.number("eps").map_or(0.0, |eps| eps as f32).max(f32::MIN_POSITIVE))
    }

    pub(super) fn grid(&self, caps: &Caps) -> [usize; 3] {
        [self.dims.num_tokens.div_ceil(caps.plain_workgroup()), 1, 1]
    }
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    problem.variant(caps)
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
            params: bytemuck::bytes_of(&problem.params()),
            buffers: &[
                ("router", buffers.router),
                ("noise", buffers.noise),
                ("state", buffers.state),
                ("rows", buffers.rows),
                ("ids", buffers.ids),
                ("weights", buffers.weights),
                ("shares", buffers.shares),
                ("log_sums", buffers.log_sums),
            ],
            grid: problem.grid(device.caps()),
        },
    )
}
