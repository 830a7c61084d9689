//! What a device offers, asked once.

use super::tuning::Tuning;
use std::fmt;

/// How kernels are tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Profile {
    /// Many invocations, coalesced loads, cheap barriers.
    Gpu,
    /// A CPU that plays GPU (lavapipe, SwiftShader, WARP): scalar loads, dear barriers.
    Cpu,
}

impl Profile {
    pub fn name(self) -> &'static str {
        match self {
            Profile::Gpu => "gpu",
            Profile::Cpu => "cpu",
        }
    }
}

/// Kind of adapter, in the order of preference.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    Discrete,
    Integrated,
    Virtual,
    Unknown,
    Software,
}

impl fmt::Display for DeviceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DeviceKind::Discrete => "discrete",
            DeviceKind::Integrated => "integrated",
            DeviceKind::Virtual => "virtual",
            DeviceKind::Unknown => "unknown",
            DeviceKind::Software => "software",
        })
    }
}

/// The limits and features that decide which variant of a kernel runs.
#[derive(Debug, Clone)]
pub struct Caps {
    pub kind: DeviceKind,
    pub profile: Profile,
    /// Largest storage buffer that a shader can see.
    pub max_binding_bytes: u64,
    /// Largest buffer.
    pub max_buffer_bytes: u64,
    pub max_workgroup_bytes: u32,
    pub max_invocations: u32,
    pub max_workgroups_per_dimension: u32,
    pub max_storage_buffers: u32,
    /// Invocations that every subgroup has at least, where subgroup operations may be used. On software devices, which run a workgroup as one
    /// subgroup, all have exactly so many.
    pub subgroup_size: Option<u32>,
    pub shader_f16: bool,
    /// Whether `unpack2x16float` keeps numbers below the normal ones, which WGSL allows to flush: tried when a device of a GPU's profile is opened.
    pub small_halves: bool,
    pub timestamps: bool,
    /// Memory that the adapter calls its own, in bytes, where it can be asked.
    pub memory_bytes: Option<u64>,
    /// What was measured to be quicker than what kernels choose by the rest.
    pub tuning: Tuning,
}

/// What the environment takes away from a device, for tests and for finding out what a problem depends on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overrides {
    /// `MOEBIUS_NO_F16`
    pub no_f16: bool,
    /// `MOEBIUS_NO_SUBGROUPS`
    pub no_subgroups: bool,
    /// `MOEBIUS_NO_TIMESTAMPS`
    pub no_timestamps: bool,
    /// `MOEBIUS_DEFAULT_LIMITS`: no more than every WebGPU implementation grants.
    pub default_limits: bool,
    /// `MOEBIUS_CHECKED_SHADERS`: every index is checked and every loop counted, as browsers always do.
    pub checked_shaders: bool,
    /// `MOEBIUS_UNCHECKED_RESULTS`: nobody looks whether results are finite, for drivers that compute nothing.
    pub unchecked_results: bool,
    /// `MOEBIUS_PROFILE=gpu|cpu`
    pub profile: Option<Profile>,
}

impl Overrides {
    /// Reads the variables named above; any value but the empty one and `0` counts as set.
    pub fn from_env() -> Self {
        let set = |name: &str| std::env::var(name).is_ok_and(|value| !value.is_empty() && value != "0");
        Overrides {
            no_f16: set("MOEBIUS_NO_F16"),
            no_subgroups: set("MOEBIUS_NO_SUBGROUPS"),
            no_timestamps: set("MOEBIUS_NO_TIMESTAMPS"),
            default_limits: set("MOEBIUS_DEFAULT_LIMITS"),
            checked_shaders: set("MOEBIUS_CHECKED_SHADERS"),
            unchecked_results: set("MOEBIUS_UNCHECKED_RESULTS"),
            profile: match std::env::var("MOEBIUS_PROFILE").as_deref() {
                Ok("gpu") => Some(Profile::Gpu),
                Ok("cpu") => Some(Profile::Cpu),
                _ => None,
            },
        }
    }
}

impl Caps {
    /// The plainest device that WebGPU allows: default limits, no optional feature.
    pub fn webgpu_default() -> Self {
        let limits = wgpu::Limits::defaults();
        Self::from_parts(DeviceKind::Unknown, &limits, wgpu::Features::empty(), None, Profile::Gpu)
    }

    pub(super) fn from_parts(
        kind: DeviceKind,
        limits: &wgpu::Limits,
        features: wgpu::Features,
        subgroup_size: Option<u32>,
        profile: Profile,
    ) -> Self {
        Caps {
            kind,
            profile,
            max_binding_bytes: limits.max_storage_buffer_binding_size,
            max_buffer_bytes: limits.max_buffer_size,
            max_workgroup_bytes: limits.max_compute_workgroup_storage_size,
            max_invocations: limits.max_compute_invocations_per_workgroup,
            max_workgroups_per_dimension: limits.max_compute_workgroups_per_dimension,
            max_storage_buffers: limits.max_storage_buffers_per_shader_stage,
            subgroup_size: subgroup_size.filter(|_| features.contains(wgpu::Features::SUBGROUP)),
            shader_f16: features.contains(wgpu::Features::SHADER_F16),
            small_halves: false,
            timestamps: features.contains(wgpu::Features::TIMESTAMP_QUERY),
            memory_bytes: None,
            tuning: Tuning::default(),
        }
    }

    /// Invocations of a workgroup in kernels that only deal out elements.
    pub fn plain_workgroup(&self) -> usize {
        match self.profile {
            Profile::Gpu => 64,
            Profile::Cpu => 8,
        }
    }

    /// Loads that an invocation has under way at once, of `many` that would be good for a GPU. Software devices wait for none, and compile each into
    /// a page of code.
    pub fn loads(&self, many: usize) -> usize {
        match self.profile {
            Profile::Gpu => many,
            Profile::Cpu => 1,
        }
    }

    /// The largest piece of weights that one binding holds, in bytes.
    pub fn max_shard_bytes(&self) -> u64 {
        self.max_binding_bytes.min(self.max_buffer_bytes)
    }

    /// How many rows one buffer of at most [`max_shard_bytes`](Self::max_shard_bytes) takes: all of them, or a multiple of `unit_rows`.
    /// `None` if not even `unit_rows` fit.
    pub fn rows_per_shard(&self, num_rows: usize, row_bytes: usize, unit_rows: usize) -> Option<usize> {
        let limit = usize::try_from(self.max_shard_bytes()).unwrap_or(usize::MAX);
        if num_rows.saturating_mul(row_bytes) <= limit {
            return Some(num_rows);
        }
        let units = limit / (unit_rows * row_bytes);
        (units > 0).then_some(units * unit_rows)
    }
}
