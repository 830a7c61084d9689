//! The kernels that measure a device. They are no part of a model, so they have no twins: each is checked by what it must leave behind.

use crate::error::Result;
use crate::gpu::{Access, Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant, When};

static FILL: Kernel = Kernel {
    name: "probe_fill",
    source: include_str!("../../shaders/probes/probe_fill.wgsl"),
    summary: "known words",
    params: &[],
    bindings: &[written(0, "words")],
};

pub(super) static READ: Kernel = Kernel {
    name: "probe_read",
    source: include_str!("../../shaders/probes/probe_read.wgsl"),
    summary: "sums of a buffer that is read once",
    params: &[],
    bindings: &[Binding::read(0, "words"), written(1, "sums")],
};

pub(super) static COPY: Kernel = Kernel {
    name: "probe_copy",
    source: include_str!("../../shaders/probes/probe_copy.wgsl"),
    summary: "one buffer to another",
    params: &[],
    bindings: &[Binding::read(0, "source"), written(1, "copied")],
};

static MULTIPLY: Kernel = Kernel {
    name: "probe_multiply",
    source: include_str!("../../shaders/probes/probe_multiply.wgsl"),
    summary: "multiply-adds in registers",
    params: &[],
    bindings: &[Binding::read(0, "factor"), written(1, "sums")],
};

static COUNT: Kernel = Kernel {
    name: "probe_count",
    source: include_str!("../../shaders/probes/probe_count.wgsl"),
    summary: "dispatches that wait for each other",
    params: &[],
    bindings: &[written(0, "counter")],
};

/// Every probe.
pub static PROBES: &[&Kernel] = &[&FILL, &READ, &COPY, &MULTIPLY, &COUNT];

const fn written(number: u32, name: &'static str) -> Binding {
    Binding { number, name, access: Access::ReadWrite, when: When::Always }
}

/// Steps of `probe_multiply` in a turn of its loop.
const UNROLL: usize = 16;
/// Flops of one invocation of `probe_multiply` per step.
const FLOPS_PER_STEP: f64 = 32.0;

/// How the words of a buffer are dealt out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Deal {
    workgroup: usize,
    pub invocations: usize,
    /// Every invocation reads consecutive words; otherwise neighbours do.
    runs: bool,
}

impl Deal {
    /// The deals worth trying on a device, for a buffer of `words` vec4: a power of two.
    pub fn candidates(caps: &Caps, words: usize) -> Vec<Deal> {
        let deal = |workgroup: usize, workgroups: usize, runs: bool| {
            // Four words at least for each invocation.
            let workgroups = workgroups.min(words / 4 / workgroup).max(1);
            Deal { workgroup, invocations: workgroups * workgroup, runs }
        };
        match caps.profile {
            Profile::Cpu => vec![deal(8, 64, true), deal(8, 64, false)],
            Profile::Gpu => vec![deal(256, 1024, false), deal(256, 4096, false)],
        }
    }

    pub fn variant(&self, words: usize) -> Variant {
        Variant::new()
            .u32("WG", self.workgroup)
            .u32("NUM_INVOCATIONS", self.invocations)
            .u32("RUN", words / self.invocations)
            .flag_if(self.runs, "RUNS")
    }

    fn grid(&self) -> [usize; 3] {
        [self.invocations / self.workgroup, 1, 1]
    }
}

/// How many invocations multiply, and how often.
#[derive(Debug, Clone, Copy)]
pub(super) struct Multiply {
    workgroup: usize,
    pub invocations: usize,
    steps: usize,
    fused: bool,
}

impl Multiply {
    pub fn candidates(caps: &Caps) -> [Multiply; 2] {
        let (workgroup, invocations, steps) = match caps.profile {
            Profile::Cpu => (8, 512, 4096),
            Profile::Gpu => (256, 1 << 20, 1024),
        };
        [true, false].map(|fused| Multiply { workgroup, invocations, steps, fused })
    }

    pub fn variant(&self) -> Variant {
        Variant::new()
            .u32("WG", self.workgroup)
            .u32("LOOPS", self.steps / UNROLL)
            .u32("UNROLL", UNROLL)
            .flag_if(self.fused, "FUSED")
    }

    pub fn flops(&self) -> f64 {
        self.invocations as f64 * self.steps as f64 * FLOPS_PER_STEP
    }
}

/// Consecutive words that one invocation of `probe_fill` writes.
const FILL_RUN: usize = 64;
pub(super) const FACTOR: u32 = 0x9E37_79B9;

pub(super) fn fill_variant(caps: &Caps, words: usize) -> Variant {
    Variant::new()
        .u32("WG", if caps.profile == Profile::Cpu { 8 } else { 64 })
        .u32("RUN", FILL_RUN)
        .u32("NUM_WORDS", words)
        .u32("FACTOR", FACTOR as usize)
}

pub(super) fn count_variant() -> Variant {
    Variant::new().u32("WG", 1)
}

/// Every variant that [`measure_roofs`](super::measure_roofs) compiles on a device with buffers of `words` vec4, with the name of its probe.
pub fn probe_variants(caps: &Caps, words: usize) -> Vec<(&'static str, Variant)> {
    let mut variants = vec![(FILL.name, fill_variant(caps, words)), (COUNT.name, count_variant())];
    for deal in Deal::candidates(caps, words) {
        variants.extend([(READ.name, deal.variant(words)), (COPY.name, deal.variant(words))]);
    }
    variants.extend(Multiply::candidates(caps).map(|multiply| (MULTIPLY.name, multiply.variant())));
    variants
}

pub(super) fn record_fill(device: &Device, recording: &mut Recording, words: usize, buffer: &Buffer) -> Result<()> {
    let variant = fill_variant(device.caps(), words);
    let groups = words.div_ceil(FILL_RUN).div_ceil(variant.get("WG") as usize);
    record(device, recording, Probe { kernel: &FILL, variant, grid: [groups, 1, 1] }, &[("words", buffer)])
}

/// A probe as it is dispatched.
pub(super) struct Probe {
    kernel: &'static Kernel,
    variant: Variant,
    grid: [usize; 3],
}

impl Probe {
    /// One that reads buffers of `words` vec4.
    pub fn of_deal(kernel: &'static Kernel, deal: &Deal, words: usize) -> Self {
        Probe { kernel, variant: deal.variant(words), grid: deal.grid() }
    }
}

pub(super) fn record_multiply(
    device: &Device,
    recording: &mut Recording,
    multiply: &Multiply,
    buffers: &[(&'static str, &Buffer)],
) -> Result<()> {
    let grid = [multiply.invocations / multiply.workgroup, 1, 1];
    record(device, recording, Probe { kernel: &MULTIPLY, variant: multiply.variant(), grid }, buffers)
}

pub(super) fn record_count(device: &Device, recording: &mut Recording, counter: &Buffer) -> Result<()> {
    let probe = Probe { kernel: &COUNT, variant: count_variant(), grid: [1, 1, 1] };
    record(device, recording, probe, &[("counter", counter)])
}

pub(super) fn record(
    device: &Device,
    recording: &mut Recording,
    Probe { kernel, variant, grid }: Probe,
    buffers: &[(&'static str, &Buffer)],
) -> Result<()> {
    recording.dispatch(device, &DispatchDescriptor { kernel, variant, layer: None, params: &[], buffers, grid })
}
