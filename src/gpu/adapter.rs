//! Which adapter to use, and why.

use super::caps::{Caps, DeviceKind, Overrides, Profile};
use crate::error::{Error, Result};
use std::str::FromStr;

/// What the user asked for with `--device`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum DeviceChoice {
    /// The best adapter.
    #[default]
    Auto,
    /// The best adapter that is not a software device.
    Gpu,
    /// The adapter at this place of `moebius devices`.
    GpuIndex(usize),
    /// The first adapter whose name or driver contains this, whatever the case.
    Name(String),
    /// No adapter: the reference implementation.
    Cpu,
}

impl FromStr for DeviceChoice {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let text = text.trim();
        // Adapters are found whatever the case.
        Ok(match text.to_ascii_lowercase().as_str() {
            "" => {
                return Err(Error::Argument {
                    what: "device",
                    expected: "auto, gpu, gpu:N, cpu or part of an adapter's name".to_owned(),
                    found: "nothing".to_owned(),
                });
            }
            "auto" => DeviceChoice::Auto,
            "gpu" => DeviceChoice::Gpu,
            "cpu" => DeviceChoice::Cpu,
            lower => match lower.strip_prefix("gpu:") {
                Some(index) => DeviceChoice::GpuIndex(index.parse().map_err(|_| Error::Argument {
                    what: "device",
                    expected: "gpu:N with N from `moebius devices`".to_owned(),
                    found: format!("`{text}`"),
                })?),
                None => DeviceChoice::Name(text.to_owned()),
            },
        })
    }
}

/// One adapter, as `moebius devices` prints it.
#[derive(Debug, Clone)]
pub struct AdapterSummary {
    pub name: String,
    pub backend: String,
    pub driver: String,
    /// After the overrides of the environment.
    pub caps: Caps,
}

impl AdapterSummary {
    fn of(adapter: &wgpu::Adapter, overrides: Overrides) -> Self {
        let info = adapter.get_info();
        AdapterSummary {
            name: info.name.clone(),
            backend: info.backend.to_str().to_owned(),
            driver: driver_of(&info),
            caps: caps_of(adapter, &info, overrides),
        }
    }
}

/// Every adapter of this machine, best first.
pub async fn list_adapters() -> Vec<AdapterSummary> {
    let overrides = Overrides::from_env();
    enumerate().await.iter().map(|adapter| AdapterSummary::of(adapter, overrides)).collect()
}

/// The adapter that `choice` stands for, and the reason in words.
pub(super) async fn select(choice: &DeviceChoice) -> Result<(wgpu::Adapter, String)> {
    let adapters = enumerate().await;
    let names: Vec<String> = adapters.iter().map(|adapter| adapter.get_info().name).collect();
    let missing = |wanted: String| Error::NoAdapter { wanted, found: names.clone() };
    let position = match choice {
        DeviceChoice::Auto => adapters.first().map(|_| 0).ok_or_else(|| missing("auto".to_owned()))?,
        DeviceChoice::Gpu => adapters
            .iter()
            .position(|adapter| kind_of(&adapter.get_info()) != DeviceKind::Software)
            .ok_or_else(|| missing("gpu".to_owned()))?,
        DeviceChoice::GpuIndex(index) => adapters.get(*index).map(|_| *index).ok_or_else(|| missing(format!("gpu:{index}")))?,
        DeviceChoice::Name(name) => {
            let wanted = name.to_lowercase();
            adapters
                .iter()
                .position(|adapter| {
                    let info = adapter.get_info();
                    [info.name, info.driver, info.driver_info].iter().any(|text| text.to_lowercase().contains(&wanted))
                })
                .ok_or_else(|| missing(name.clone()))?
        }
        DeviceChoice::Cpu => return Err(missing("cpu".to_owned())),
    };
    let kind = kind_of(&adapters[position].get_info());
    let why = match choice {
        DeviceChoice::Auto if adapters.len() == 1 => format!("the only adapter, {kind}"),
        DeviceChoice::Auto => format!("best of {}: {kind}", adapters.len()),
        DeviceChoice::Gpu => format!("first that is not software: {kind}"),
        _ => "as asked for".to_owned(),
    };
    let adapter = adapters.into_iter().nth(position).expect("position comes from this list");
    Ok((adapter, why))
}

/// Discrete before integrated before software; the order of the driver otherwise.
async fn enumerate() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::PRIMARY;
    let instance = wgpu::Instance::new(descriptor.with_env());
    let mut adapters = instance.enumerate_adapters(wgpu::Backends::all()).await;
    adapters.sort_by_key(|adapter| kind_of(&adapter.get_info()));
    adapters
}

pub(super) fn driver_of(info: &wgpu::AdapterInfo) -> String {
    format!("{} {}", info.driver, info.driver_info).trim().to_owned()
}

pub(super) fn kind_of(info: &wgpu::AdapterInfo) -> DeviceKind {
    match info.device_type {
        wgpu::DeviceType::DiscreteGpu => DeviceKind::Discrete,
        wgpu::DeviceType::IntegratedGpu => DeviceKind::Integrated,
        wgpu::DeviceType::VirtualGpu => DeviceKind::Virtual,
        wgpu::DeviceType::Cpu => DeviceKind::Software,
        wgpu::DeviceType::Other => DeviceKind::Unknown,
    }
}

/// The optional features we ask for where they exist.
pub(super) fn wanted_features(adapter: &wgpu::Adapter, overrides: Overrides) -> wgpu::Features {
    let mut wanted = wgpu::Features::empty();
    wanted.set(wgpu::Features::TIMESTAMP_QUERY, !overrides.no_timestamps);
    wanted.set(wgpu::Features::SHADER_F16, !overrides.no_f16);
    wanted.set(wgpu::Features::SUBGROUP, !overrides.no_subgroups);
    adapter.features() & wanted
}

/// WebGPU's defaults, raised to what the adapter gives for the handful that matter here.
pub(super) fn wanted_limits(adapter: &wgpu::Adapter, overrides: Overrides) -> wgpu::Limits {
    let mut limits = wgpu::Limits::defaults();
    if !overrides.default_limits {
        let offered = adapter.limits();
        limits.max_storage_buffer_binding_size = offered.max_storage_buffer_binding_size;
        limits.max_buffer_size = offered.max_buffer_size;
        limits.max_compute_workgroup_storage_size = offered.max_compute_workgroup_storage_size;
        limits.max_compute_invocations_per_workgroup = offered.max_compute_invocations_per_workgroup;
        limits.max_compute_workgroup_size_x = offered.max_compute_workgroup_size_x;
        limits.max_storage_buffers_per_shader_stage = offered.max_storage_buffers_per_shader_stage;
    }
    limits
}

pub(super) fn caps_of(adapter: &wgpu::Adapter, info: &wgpu::AdapterInfo, overrides: Overrides) -> Caps {
    let kind = kind_of(info);
    let natural = if kind == DeviceKind::Software { Profile::Cpu } else { Profile::Gpu };
    let profile = overrides.profile.unwrap_or(natural);
    // Many GPUs have subgroups of several sizes, of which a driver takes one for each kernel: teams as large as the least fit into all.
    let fixed = info.subgroup_min_size == info.subgroup_max_size;
    let subgroup_size = (fixed || profile == Profile::Gpu).then_some(info.subgroup_min_size);
    let caps = Caps::from_parts(
        kind,
        &wanted_limits(adapter, overrides),
        wanted_features(adapter, overrides),
        subgroup_size.filter(|size| size.is_power_of_two() && *size >= 4),
        profile,
    );
    Caps { memory_bytes: memory_bytes(adapter), ..caps }
}

/// The largest heap that Vulkan calls local to the device. WebGPU has no word for memory.
#[cfg(any(target_os = "linux", target_os = "windows", target_os = "android", target_os = "freebsd"))]
fn memory_bytes(adapter: &wgpu::Adapter) -> Option<u64> {
    const DEVICE_LOCAL: u32 = 1; // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT
    // SAFETY: the handles live as long as the guard, and are only read.
    let vulkan = unsafe { adapter.as_hal::<wgpu::hal::vulkan::Api>() }?;
    let instance = vulkan.shared_instance().raw_instance();
    let memory = unsafe { instance.get_physical_device_memory_properties(vulkan.raw_physical_device()) };
    let heaps = &memory.memory_heaps[..memory.memory_heap_count as usize];
    heaps.iter().filter(|heap| heap.flags.as_raw() & DEVICE_LOCAL != 0).map(|heap| heap.size).max()
}

#[cfg(not(any(target_os = "linux", target_os = "windows", target_os = "android", target_os = "freebsd")))]
fn memory_bytes(_adapter: &wgpu::Adapter) -> Option<u64> {
    None
}
