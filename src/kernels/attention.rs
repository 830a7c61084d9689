//! Softmax attention over the KV cache.

use super::{attention_merge, qk_rope, to_u32, with_cache};
use crate::batch::CacheShape;
use crate::error::Result;
use crate::gpu::{Binding, Buffer, Caps, Device, DispatchDescriptor, Kernel, Profile, Recording, Variant, When};
use crate::quant::{CacheFormat, padded};
use crate::spec::{AttentionSpec, LatentSpec, Mask};
use std::mem::offset_of;

pub static KERNEL: Kernel = Kernel {
    name: "attention",
    source: include_str!("../../shaders/attention.wgsl"),
    summary: "grouped-query attention over the KV cache, causal, sliding window or all keys; of one token also what qk_rope does",
    params: &[("num_tokens", offset_of!(Params, num_tokens))],
    bindings: &[
        Binding::uniform(0, "params"),
        Binding::read(1, "rows"),
        Binding::read(2, "q").only(When::NotFlag("RAW")),
        Binding::read(2, "qkv").only(When::Flag("RAW")),
        Binding::read(3, "k_cache").only(When::NotFlag("RAW")),
        Binding::read_write(3, "k_cache").only(When::Flag("RAW")),
        Binding::read(4, "v_cache").only(When::NotFlag("RAW")),
        Binding::read_write(4, "v_cache").only(When::Flag("RAW")),
        Binding::read_write(5, "y").only(When::NotFlag("SPLIT")),
        Binding::read_write(5, "partials").only(When::Flag("SPLIT")),
        Binding::read(6, "sinks").only(When::Flag("SINKS")),
        Binding::read(7, "rope").only(When::Flag("ROPE")),
        Binding::read(8, "q_norm").only(When::Flag("NORM_WEIGHT")),
        Binding::read(9, "k_norm").only(When::Flag("NORM_WEIGHT")),
        Binding::read(10, "bias").only(When::Flag("BIAS")),
    ],
};

#[repr(C)]
#[derive(Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
struct Params {
    num_tokens: u32,
    padding: [u32; 3],
}

#[derive(Debug, Clone, Copy)]
pub struct Problem<'a> {
    pub num_tokens: usize,
    pub num_heads: usize,
    pub num_kv_heads: usize,
    pub head_dim: usize,
    /// Values of a head, the first of each row of the value cache.
    pub value_dim: usize,
    /// Length of a row of the value cache.
    pub value_stride: usize,
    pub context: usize,
    pub cache: CacheFormat,
    pub scale: f32,
    pub mask: Mask,
    pub sinks: bool,
    pub softcap: Option<f32>,
    /// Scores add a bias by distance, up to this one.
    pub bias_reach: Option<usize>,
    /// The one token comes as `qk_rope` gets it, of this attention; see [`turns`].
    pub raw: Option<&'a AttentionSpec>,
}

impl Problem<'_> {
    /// The attention of `spec` over a cache of `context` positions, whose queries are turned already.
    pub fn of_spec(spec: &AttentionSpec, num_tokens: usize, cache: CacheShape) -> Self {
        Problem {
            num_tokens,
            num_heads: spec.num_heads,
            num_kv_heads: spec.num_kv_heads,
            head_dim: spec.head_dim,
            value_dim: spec.value_dim,
            value_stride: spec.value_dim,
            context: cache.context,
            cache: cache.format,
            scale: spec.scale,
            mask: spec.mask,
            sinks: spec.sinks,
            softcap: spec.softcap,
            bias_reach: spec.relative_bias.map(|bias| bias.max_distance),
            raw: None,
        }
    }

    /// As [`of_spec`](Self::of_spec), over a cache of latents in absorbed form: the first values of a key are its value.
    pub fn of_latent(latent: &LatentSpec, num_tokens: usize, cache: CacheShape) -> Self {
        Problem { value_dim: latent.latent_dim, ..Self::of_spec(&latent.over_cache(), num_tokens, cache) }
    }

    /// The most keys that one row sees.
    fn span(&self) -> usize {
        match self.mask {
            Mask::Causal | Mask::All => self.context,
            Mask::Window(keys) | Mask::Chunk(keys) => keys.min(self.context),
        }
    }
}

/// # Shapes
/// `rows [num_tokens]`, `query` and `y [num_tokens, padded(heads head_dim)]`, caches `[sequences, kv_heads, context, head_dim]` in the problem's format.
pub struct Buffers<'a> {
    pub rows: &'a Buffer,
    /// `q`; of a raw problem `qkv`, the projection `[num_tokens, padded(qkv_rows)]`.
    pub query: &'a Buffer,
    /// As in [`qk_rope::Buffers`], only of a raw problem.
    pub rope: Option<&'a Buffer>,
    pub norms: Option<[&'a Buffer; 2]>,
    pub k_cache: &'a Buffer,
    pub v_cache: &'a Buffer,
    /// Where keys are [split](splits) the partial results, as in [`attention_merge::Buffers`].
    pub y: &'a Buffer,
    /// `[heads]`; not where keys are split.
    pub sinks: Option<&'a Buffer>,
    /// `[heads, 2 reach + 1]`, as [`RelativeBias::table`](crate::spec::RelativeBias::table) makes it.
    pub bias: Option<&'a Buffer>,
}

/// Workgroups that keep a GPU busy.
const WANTED_WORKGROUPS: usize = 128;
const MAX_SPLITS: usize = 32;
/// Keys that are worth a workgroup of their own, and those that one workgroup meets quickly enough alone.
const SPLIT_KEYS: usize = 128;
const SHORT_SPAN: usize = 1024;

/// Workgroups that share the keys of one token, each group of heads; 1: one meets them all. More leave partial results, for
/// [`attention_merge`]. Nothing but the problem and the device decides, so the plan is the same at every position.
pub fn splits(caps: &Caps, problem: &Problem) -> usize {
    let span = problem.span();
    if caps.profile != Profile::Gpu || problem.num_tokens > 1 || span <= SHORT_SPAN {
        return 1;
    }
    let groups = problem.num_heads / Cut::choose(caps, problem).group;
    WANTED_WORKGROUPS.div_ceil(groups).min(span / SPLIT_KEYS).min(MAX_SPLITS)
}

/// What [`attention_merge`] has to do afterwards; `None`: nothing, keys are not split.
pub fn merge(caps: &Caps, problem: &Problem) -> Option<attention_merge::Problem> {
    let splits = splits(caps, problem);
    let Problem { num_heads, value_dim, sinks, .. } = *problem;
    (splits > 1).then_some(attention_merge::Problem { num_heads, value_dim, splits, sinks })
}

/// Workgroup memory for the queries that meet the same keys, in bytes; the scores take as much again at most.
const QUERY_BYTES: usize = 8 << 10;
/// Query heads that meet the same keys at most, and those of several rows.
const MAX_MEMBERS: usize = 16;
const ROW_MEMBERS: usize = 8;
/// Quads of one query that an invocation keeps at most: longer heads are compiled for too long.
const MAX_SLICE: usize = 8;

/// Lanes of the software devices that have vectors of them.
const LANES: usize = 8;
/// Quads of all members' queries, and of their outputs, that an invocation has to itself.
const MAX_OWN_QUADS: usize = 32;
/// Quads of a key, and keys, whose loads an invocation of a GPU has under way at once.
const K_STEP: usize = 8;
const V_STEP: usize = 8;
/// From so many members on, quads of half as many keys: their queries take registers, too.
const MANY_MEMBERS: usize = 8;
/// Keys that such an invocation meets with each load of its queries and outputs, of which there are more than registers.
const KEY_STEP: usize = 2;

/// Quads of outputs that an invocation of other software devices keeps: eight of them, as a browser translates them, take SwiftShader a minute.
const NARROW_REGISTERS: usize = 4;

/// How the work is cut.
struct Cut {
    workgroup: usize,
    /// Query heads of one key/value head, and rows, that meet the same keys.
    group: usize,
    rows: usize,
    by: By,
}

/// What an invocation has to itself.
#[derive(Clone, Copy, PartialEq, Eq)]
enum By {
    /// Keys.
    Key,
    /// So many quads of every head.
    Slice(usize),
    /// So many members; keys and values come by broadcast.
    Member(usize),
}

impl Cut {
    fn choose(caps: &Caps, problem: &Problem) -> Self {
        let quads = problem.head_dim / 4;
        let value_quads = problem.value_dim / 4;
        let shared = problem.num_heads / problem.num_kv_heads;
        // LLVM makes vectors of eight lanes and copes with much at once. SwiftShader, of four lanes, compiles a few registers too many for hours.
        let wide = caps.profile == Profile::Cpu && caps.subgroup_size == Some(LANES as u32);
        if wide
            && problem.num_tokens > 1
            && LANES.is_multiple_of(shared)
            && [quads, value_quads].iter().all(|quads| quads.is_multiple_of(LANES))
        {
            let rows = |own: usize| own * LANES / shared;
            let fits = |own: &usize| own * quads.max(value_quads) <= MAX_OWN_QUADS && rows(*own) <= problem.num_tokens;
            if let Some(own) = [4, 2, 1].into_iter().find(fits) {
                return Cut { workgroup: LANES, group: shared, rows: rows(own), by: By::Member(own) };
            }
        }
        let slice = Some(quads / LANES).filter(|slice| wide && quads.is_multiple_of(LANES) && *slice <= MAX_SLICE);
        let workgroup = match caps.profile {
            Profile::Gpu => 64,
            Profile::Cpu if slice.is_some() => LANES,
            Profile::Cpu if wide => value_quads.div_ceil(8).next_power_of_two().clamp(8, 64),
            Profile::Cpu => value_quads.div_ceil(NARROW_REGISTERS).next_power_of_two().clamp(8, 64),
        };
        let registers = slice.unwrap_or(0) + value_quads.div_ceil(workgroup);
        let max_registers = if caps.profile == Profile::Gpu || wide { 32 } else { NARROW_REGISTERS };
        let fits = |members: usize| {
            members <= MAX_MEMBERS
                && members * problem.head_dim * 4 <= QUERY_BYTES
                && members * registers <= max_registers
                // Software devices compile what they unroll for too long.
                && (slice.is_some() || caps.profile == Profile::Gpu || members <= 4)
                && members <= workgroup
        };
        let group = (1..=shared).rev().find(|&group| shared.is_multiple_of(group) && fits(group)).unwrap_or(1);
        let rows = [8, 4, 2]
            .into_iter()
            .find(|rows| *rows <= problem.num_tokens && rows * group <= ROW_MEMBERS && fits(rows * group))
            .unwrap_or(1);
        Cut { workgroup, group, rows, by: slice.map_or(By::Key, By::Slice) }
    }
}

/// Whether attention of one token does what `qk_rope` would do: then one workgroup has all heads that read a key, and bindings suffice.
pub fn turns(caps: &Caps, problem: &Problem) -> bool {
    let Some(spec) = problem.raw else { return false };
    let norms = if spec.qk_norm.is_some_and(|norm| norm.weight) { 2 } else { 0 };
    let bindings =
        5 + norms + usize::from(spec.rope.is_some()) + usize::from(problem.sinks) + usize::from(problem.bias_reach.is_some());
    problem.num_tokens == 1
        && problem.mask != Mask::All
        && bindings <= caps.max_storage_buffers as usize
        && Cut::choose(caps, problem).group == problem.num_heads / problem.num_kv_heads
}

/// Quads of a key at a time: a part of all, so that none is left over.
fn k_step(quads: usize, members: usize) -> usize {
    let most = if members >= MANY_MEMBERS { K_STEP / 2 } else { K_STEP };
    (1..=most).rev().find(|step| quads.is_multiple_of(*step)).unwrap_or(1)
}

pub fn choose(caps: &Caps, problem: &Problem) -> Variant {
    let Cut { workgroup, group, rows, by } = Cut::choose(caps, problem);
    let members = rows * group;
    let splits = splits(caps, problem);
    let lanes = workgroup / members;
    let value_quads = problem.value_dim / 4;
    // Invocations beyond those that one head's values take: for other members first, then for other keys.
    let parts = workgroup / value_quads.min(workgroup);
    let member_parts = (1..=parts.min(members)).rev().find(|parts| members.is_multiple_of(*parts)).unwrap_or(1);
    let key_parts = parts / member_parts;
    let variant = Variant::new()
        .u32("WG", workgroup)
        .u32("TILE", if caps.profile == Profile::Gpu { 64 } else { 32 })
        .u32("GROUP", group)
        .u32("ROWS", rows)
        .u32("MEMBERS", members)
        .u32("OWN_MEMBERS", members / member_parts)
        .u32("MEMBER_PARTS", member_parts)
        .u32("KEY_PARTS", key_parts)
        .u32("QUADS_PER_LANE", value_quads.div_ceil(workgroup))
        .u32("NUM_HEADS", problem.num_heads)
        .u32("NUM_KV_HEADS", problem.num_kv_heads)
        .u32("HEAD_DIM", problem.head_dim)
        .u32("VALUE_DIM", problem.value_dim)
        .u32("V_STRIDE", problem.value_stride / 4)
        .u32("Y_QUADS", padded(problem.num_heads * problem.value_dim) / 4)
        .u32("CONTEXT", problem.context)
        .u32("Q_QUADS", padded(problem.num_heads * problem.head_dim) / 4)
        .f32("SCALE", problem.scale)
        .flag_if(problem.sinks && splits == 1, "SINKS")
        .flag_if(lanes > 1, "LANES_MEET")
        .flag_if(key_parts > 1, "KEY_SPLIT")
        .flag_if(caps.profile == Profile::Cpu, "ROLLED");
    let variant = match caps.profile {
        Profile::Cpu => variant,
        Profile::Gpu => variant.u32("K_STEP", k_step(problem.head_dim / 4, members)).u32("V_STEP", V_STEP),
    };
    let variant = with_cache(variant, problem.cache);
    let variant = match splits {
        1 => variant,
        _ => variant.flag("SPLIT").u32("SPLITS", splits).u32("SPLIT_KEYS", SPLIT_KEYS),
    };
    let variant = match by {
        By::Key => variant,
        By::Slice(quads) => {
            variant.flag("SLICE").flag("SUBGROUPS").u32("SLICE_QUADS", quads).u32("LANE_STEPS", LANES.ilog2() as usize)
        }
        By::Member(own) => variant
            .flag("BROADCAST")
            .flag("SUBGROUPS")
            .u32("OWN", own)
            .u32("LANES", LANES)
            .u32("KEY_STEP", KEY_STEP)
            .u32("KEY_SLICES", problem.head_dim / 4 / LANES)
            .u32("VALUE_SLICES", value_quads / LANES),
    };
    let variant = match problem.raw {
        Some(spec) => qk_rope::heads(caps, variant, spec).flag("RAW"),
        None => variant,
    };
    let variant = match problem.mask {
        Mask::Causal => variant,
        Mask::All => variant.flag("ALL_KEYS"),
        Mask::Window(window) => variant.flag("WINDOWED").u32("WINDOW", window),
        Mask::Chunk(chunk) => variant.flag("CHUNKED").u32("CHUNK", chunk),
    };
    let variant = match problem.bias_reach {
        Some(reach) => variant.flag("BIAS").u32("REACH", reach),
        None => variant,
    };
    match problem.softcap {
        Some(cap) => variant.flag("SOFTCAP").f32("CAP", cap),
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
    let mut bound = vec![
        ("rows", buffers.rows),
        (if problem.raw.is_some() { "qkv" } else { "q" }, buffers.query),
        ("k_cache", buffers.k_cache),
        ("v_cache", buffers.v_cache),
        (if variant.has("SPLIT") { "partials" } else { "y" }, buffers.y),
    ];
    bound.extend(buffers.sinks.map(|sinks| ("sinks", sinks)));
    bound.extend(buffers.bias.map(|bias| ("bias", bias)));
    bound.extend(buffers.rope.map(|rope| ("rope", rope)));
    if let Some([q_norm, k_norm]) = buffers.norms {
        bound.extend([("q_norm", q_norm), ("k_norm", k_norm)]);
    }
    let groups = problem.num_heads / variant.get("GROUP") as usize;
    let tiles = if variant.has("SPLIT") {
        variant.get("SPLITS") as usize
    } else {
        problem.num_tokens.div_ceil(variant.get("ROWS") as usize)
    };
    let params = Params { num_tokens: to_u32(problem.num_tokens), padding: [0; 3] };
    recording.dispatch(
        device,
        &DispatchDescriptor {
            kernel: &KERNEL,
            variant,
            layer,
            params: bytemuck::bytes_of(&params),
            buffers: &bound,
            grid: [groups, tiles, 1],
        },
    )
}
