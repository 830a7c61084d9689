//! The open device: creation, errors, loss.

use super::adapter::{self, DeviceChoice};
use super::caps::{Caps, Overrides, Profile};
use super::counts::{Counters, Counts};
use super::halves;
use super::pace::Pace;
use super::pipeline::{Kernel, PipelineCache};
use super::profile::Profiler;
use super::readback::ReadbackRing;
use super::shader::Variant;
use super::tuning::{TunedFor, Tuning, Tunings};
use crate::error::{Error, Result};
use crate::platform;
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// How to open a device.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct DeviceOptions {
    pub choice: DeviceChoice,
    pub overrides: Overrides,
    pub pace: Pace,
    /// Where [`Tunings`] are kept; `None`: the device is untuned.
    pub tunings: Option<PathBuf>,
    /// Write the WGSL of every compiled variant to this directory (`MOEBIUS_DUMP_WGSL`).
    pub dump_wgsl: Option<PathBuf>,
    /// Compile this kernel so that it does nothing (`MOEBIUS_TEST_BREAK_KERNEL`), to prove that checks notice.
    pub break_kernel: Option<String>,
    /// Pretend that bindings are at most this large, to try sharding on small shapes.
    pub max_binding_bytes: Option<u64>,
    /// Layers with experts that a model runs before the host looks whether one was missing, instead of what measuring says (`MOEBIUS_SUBMIT_LAYERS`).
    pub submit_layers: Option<usize>,
    /// Pretend that there is no memory for weights of more bytes, and that nobody knows before.
    pub max_weight_bytes: Option<u64>,
}

impl DeviceOptions {
    /// `choice`, with the switches that the environment sets, untuned.
    pub fn from_env(choice: DeviceChoice) -> Self {
        DeviceOptions {
            choice,
            overrides: Overrides::from_env(),
            pace: Pace::from_env(),
            tunings: None,
            dump_wgsl: std::env::var_os("MOEBIUS_DUMP_WGSL").map(PathBuf::from),
            break_kernel: std::env::var("MOEBIUS_TEST_BREAK_KERNEL").ok().filter(|name| !name.is_empty()),
            max_binding_bytes: None,
            submit_layers: std::env::var("MOEBIUS_SUBMIT_LAYERS").ok().and_then(|layers| layers.parse().ok()),
            max_weight_bytes: None,
        }
    }
}

/// An adapter in use.
#[derive(Debug)]
pub struct Device {
    pub(super) raw: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    pub(super) pipelines: PipelineCache,
    pub(super) readbacks: ReadbackRing,
    caps: Caps,
    /// Without the tuning.
    untuned: Caps,
    pace: Pace,
    submit_layers: Option<usize>,
    max_weight_bytes: Option<u64>,
    info: wgpu::AdapterInfo,
    why: String,
    checked_shaders: bool,
    unchecked_results: bool,
    health: Arc<Health>,
    dump_wgsl: Option<PathBuf>,
    break_kernel: Option<String>,
    allocated_bytes: AtomicU64,
    /// Written since the device was last known to have taken all of it.
    staged_bytes: AtomicU64,
    pub(super) counters: Counters,
    pub(super) profiler: Profiler,
}

/// What callbacks report while nobody is looking.
#[derive(Debug, Default)]
struct Health {
    lost: Mutex<Option<String>>,
    error: Mutex<Option<String>>,
}

impl Device {
    /// Opens the adapter that the options stand for.
    ///
    /// # Errors
    /// [`Error::NoAdapter`] if there is none, [`Error::Gpu`] if it refuses; [`Error::Tuning`] and [`Error::Io`] where its tuning cannot be used.
    pub async fn open(options: &DeviceOptions) -> Result<Self> {
        let (adapter, why) = adapter::select(&options.choice).await?;
        let info = adapter.get_info();
        let mut untuned = adapter::caps_of(&adapter, &info, options.overrides);
        if let Some(bytes) = options.max_binding_bytes {
            untuned.max_binding_bytes = untuned.max_binding_bytes.min(bytes);
        }
        let tuning = match &options.tunings {
            Some(path) => Tunings::of_device(path, &tuned_for(&info, &untuned), &untuned).await?,
            None => Tuning::default(),
        };
        let descriptor = wgpu::DeviceDescriptor {
            label: Some("moebius"),
            required_features: adapter::wanted_features(&adapter, options.overrides),
            required_limits: adapter::wanted_limits(&adapter, options.overrides),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (raw, queue) = adapter
            .request_device(&descriptor)
            .await
            .map_err(|error| Error::Gpu { attempted: format!("opening {}", info.name), message: error.to_string() })?;

        let health = Arc::new(Health::default());
        let on_lost = health.clone();
        raw.set_device_lost_callback(move |reason, message| {
            let text = if message.is_empty() { format!("{reason:?}") } else { format!("{reason:?}: {message}") };
            on_lost.lost.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(text);
        });
        let on_error = health.clone();
        raw.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            on_error.error.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(error.to_string());
        }));

        let mut device = Device {
            raw,
            queue,
            pipelines: PipelineCache::default(),
            readbacks: ReadbackRing::default(),
            caps: untuned.tuned(tuning),
            untuned,
            pace: options.pace,
            submit_layers: options.submit_layers.filter(|layers| *layers > 0),
            max_weight_bytes: options.max_weight_bytes,
            info,
            why,
            checked_shaders: options.overrides.checked_shaders,
            unchecked_results: options.overrides.unchecked_results,
            health,
            dump_wgsl: options.dump_wgsl.clone(),
            break_kernel: options.break_kernel.clone(),
            allocated_bytes: AtomicU64::new(0),
            staged_bytes: AtomicU64::new(0),
            counters: Counters::default(),
            profiler: Profiler::default(),
        };
        device.try_small_halves().await?;
        Ok(device)
    }

    /// Learns whether small f16s are kept. What that took does not count.
    async fn try_small_halves(&mut self) -> Result<()> {
        if self.caps.profile == Profile::Cpu {
            return Ok(());
        }
        let kept = self.unchecked_results || halves::are_kept(self).await?;
        self.untuned.small_halves = kept;
        self.caps.small_halves = kept;
        self.pipelines = PipelineCache::default();
        self.counters = Counters::default();
        self.allocated_bytes = AtomicU64::new(0);
        Ok(())
    }

    /// Whether nobody shall look whether results are finite.
    pub(crate) fn unchecked_results(&self) -> bool {
        self.unchecked_results
    }

    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// What it would be without a tuning.
    pub fn untuned(&self) -> &Caps {
        &self.untuned
    }

    /// What a tuning of this device is kept under.
    pub fn tuned_for(&self) -> TunedFor {
        tuned_for(&self.info, &self.untuned)
    }

    /// Takes effect in what is recorded from now on.
    pub fn set_tuning(&mut self, tuning: Tuning) {
        self.caps = self.untuned.tuned(tuning);
    }

    /// How much work to give it at once.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Fails where weights of so many bytes are more than [`DeviceOptions::max_weight_bytes`].
    pub(crate) fn check_weights(&self, bytes: u64) -> Result<()> {
        match self.max_weight_bytes.filter(|most| bytes > *most) {
            None => Ok(()),
            Some(_) => Err(Error::OutOfMemory {
                what: "the weights".to_owned(),
                device: self.name().to_owned(),
                needed_bytes: bytes,
                available_bytes: None,
            }),
        }
    }

    /// As [`DeviceOptions::submit_layers`] says.
    pub fn submit_layers(&self) -> Option<usize> {
        self.submit_layers
    }

    pub fn name(&self) -> &str {
        &self.info.name
    }

    /// `Vulkan`, `Metal`, ...
    pub fn backend(&self) -> &'static str {
        self.info.backend.to_str()
    }

    pub fn driver(&self) -> String {
        adapter::driver_of(&self.info)
    }

    /// Why this adapter and no other.
    pub fn why(&self) -> &str {
        &self.why
    }

    /// Compiled variants so far.
    pub fn num_pipelines(&self) -> usize {
        self.pipelines.len()
    }

    /// Kernel and variant of each, sorted.
    pub fn pipelines(&self) -> Vec<(&'static str, Variant)> {
        self.pipelines.keys()
    }

    /// Everything ever allocated, in bytes.
    pub fn allocated_bytes(&self) -> u64 {
        self.allocated_bytes.load(Ordering::Relaxed)
    }

    /// What was handed to the queue so far.
    pub fn counts(&self) -> Counts {
        self.counters.now()
    }

    /// The largest binding of all dispatches so far.
    pub fn largest_binding_bytes(&self) -> u64 {
        self.counters.largest_binding_bytes()
    }

    pub(super) fn count_allocation(&self, bytes: u64) {
        self.allocated_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn count_staged(&self, bytes: u64) {
        self.staged_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(super) fn staged_bytes(&self) -> u64 {
        self.staged_bytes.load(Ordering::Relaxed)
    }

    pub(super) fn forget_staged(&self) {
        self.staged_bytes.store(0, Ordering::Relaxed);
    }

    /// Runs `work` and turns whatever the device reports about it into an error.
    ///
    /// # Errors
    /// [`Error::DeviceLost`], [`Error::OutOfMemory`], [`Error::Gpu`], or what `work` returns.
    pub async fn catch<T>(&self, attempted: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
        self.check(attempted)?;
        let memory = self.raw.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let validation = self.raw.push_error_scope(wgpu::ErrorFilter::Validation);
        let internal = self.raw.push_error_scope(wgpu::ErrorFilter::Internal);
        let value = work();
        // Every scope is popped before the first is awaited: they form a stack.
        let popped = (internal.pop(), validation.pop(), memory.pop());
        let error = match (popped.0.await, popped.1.await, popped.2.await) {
            (None, None, None) => None,
            (Some(error), ..) | (_, Some(error), _) | (_, _, Some(error)) => Some(error),
        };
        if error.is_some() {
            // A lost device makes every object invalid; polling is what brings the news of the loss.
            let _ = self.raw.poll(wgpu::PollType::Poll);
        }
        self.check(attempted)?;
        match error {
            None => value,
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::OutOfMemory {
                what: attempted.to_owned(),
                device: self.name().to_owned(),
                needed_bytes: self.allocated_bytes(),
                available_bytes: self.caps.memory_bytes,
            }),
            Some(error) => Err(Error::Gpu { attempted: attempted.to_owned(), message: error.to_string() }),
        }
    }

    /// Fails if the device was lost or reported an error outside of [`catch`](Self::catch).
    pub(super) fn check(&self, attempted: &str) -> Result<()> {
        let attempted = attempted.to_owned();
        if let Some(reason) = self.health.lost.lock().unwrap_or_else(PoisonError::into_inner).clone() {
            return Err(Error::DeviceLost { attempted, reason });
        }
        match self.health.error.lock().unwrap_or_else(PoisonError::into_inner).take() {
            Some(message) => Err(Error::Gpu { attempted, message }),
            None => Ok(()),
        }
    }

    /// Gives the device up, as a driver reset would. What follows returns [`Error::DeviceLost`].
    pub fn destroy(&self) {
        self.raw.destroy();
    }

    /// Compiles WGSL. A compiler error reaches the error scope.
    pub(super) fn shader_module(&self, descriptor: wgpu::ShaderModuleDescriptor) -> wgpu::ShaderModule {
        if self.checked_shaders || cfg!(target_family = "wasm") {
            return self.raw.create_shader_module(descriptor);
        }
        // SAFETY: every kernel stays within its buffers and ends its loops; the conformance cases run with checks as well as without, and
        // find canaries around every output untouched.
        unsafe { self.raw.create_shader_module_trusted(descriptor, wgpu::ShaderRuntimeChecks::unchecked()) }
    }

    pub(super) fn breaks(&self, kernel: &Kernel) -> bool {
        self.break_kernel.as_deref() == Some(kernel.name)
    }

    /// A debugging aid: failing to write must not stop the model.
    pub(super) fn dump_wgsl(&self, kernel: &Kernel, variant: &Variant, source: &str) {
        if let Some(directory) = &self.dump_wgsl {
            // File systems take names of 255 bytes, and some variants need more; the first line of the file has all of it.
            let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(variant);
            let words: String = variant.describe().replace([' ', '='], "_").chars().take(160).collect();
            let _ = platform::write_file(&directory.join(format!("{}.{words}.{hash:016x}.wgsl", kernel.name)), source.as_bytes());
        }
    }
}

fn tuned_for(info: &wgpu::AdapterInfo, caps: &Caps) -> TunedFor {
    TunedFor {
        adapter: info.name.clone(),
        backend: info.backend.to_str().to_owned(),
        driver: adapter::driver_of(info),
        profile: caps.profile.name().to_owned(),
        subgroup_size: caps.subgroup_size,
        moebius: env!("CARGO_PKG_VERSION").to_owned(),
    }
}
