//! The next token of a sequence.

use super::to_u32;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant, When};
use std::mem::offset_of;

pub use crate::batch::{Sampling, seen_words};

pub static KERNEL: Kernel = Kernel {
    name: "sample",
    source: include_str!("../../shaders/sample.wgsl"),
    summary: "next token: greedy, or temperature, top-k, top-p, min-p with a seed",
    params: &[("first_row", offset_of!(Params, first_row))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::uniform(1, "sampling"),
        Binding::read(2, "logits"),
        Binding::read_write(3, "seen"),
        Binding::read_write(4, "rows"),
        Binding::read_write(5, "sampled"),
        Binding::read(6, "halt").only(When::Flag("PAGED")),
    ],
};

/// Set in what is put into `sampled` where a logit is not finite.
pub const FAULT: u32 = 0x8000_0000;

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    first_row: u32,
    padding: [u32; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem {
    pub num_sequences: usize,
    pub vocab_size: usize,
    /// Row of the last token of the first sequence: 0, or at least `num_sequences`, because the first rows are written.
    pub first_row: usize,
    /// Sampled tokens kept per sequence.
    pub ring: usize,
    /// Something before may have halted.
    pub halts: bool,
}

/// # Shapes
/// `sampling` one [`Sampling`], `logits [sequences, vocab]`, `seen [sequences, seen_words(vocab)]`, `rows [tokens]`,
/// `sampled [sequences, ring]`.
pub struct Buffers<'a> {
    pub sampling: &'a Buffer,
    pub logits: &'a Buffer,
    pub seen: &'a Buffer,
    pub rows: &'a Buffer,
    pub sampled: &'a Buffer,
    /// A halt record, where something may have halted.
    pub halt: Option<&'a Buffer>,
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    Variant::new()
        .u32("WG", if caps.profile == Profile::Cpu { 16 } else { 256 })
        .flag_if(caps.profile == Profile::Cpu, "ROLLED")
        // With eight, SwiftShader compiles for most of a minute.
        .u32("LOADS", caps.loads(4))
        .u32("VOCAB", problem.vocab_size)
        .u32("RING", problem.ring)
        .flag_if(problem.halts, "PAGED")
}

pub fn record(device: &Device, recording: &mut Recording, problem: &Problem, buffers: &Buffers) -> Result<()> {
    let mut bound = vec![
        ("sampling", buffers.sampling),
        ("logits", buffers.logits),
        ("seen", buffers.seen),
        ("rows", buffers.rows),
        ("sampled", buffers.sampled),
    ];
    bound.extend(buffers.halt.map(|halt| ("halt", halt)));
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant: choose(device.caps(), problem),
            layer: None,
            params: bytemuck::bytes_of(&Params { first_row: to_u32(problem.first_row), padding: [0; 3] }),
            buffers: &bound,
            grid: [problem.num_sequences, 1, 1],
        },
    )
}
