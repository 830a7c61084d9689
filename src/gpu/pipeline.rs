//! Kernels as the device sees them: descriptors, and the cache of compiled variants.

use super::device::Device;
use super::shader::{Variant, compose};
use crate::error::Result;
use std::collections::HashMap;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};

/// A WGSL file and its interface. Tests compare it with what naga reflects from every variant.
#[derive(Debug)]
pub struct Kernel {
    /// Stem of the file.
    pub name: &'static str,
    pub source: &'static str,
    /// One line for tables.
    pub summary: &'static str,
    /// Fields of `struct Params` at binding 0, with their offsets in bytes; empty if the kernel has none.
    pub params: &'static [(&'static str, usize)],
    pub bindings: &'static [Binding],
}

/// One resource of a kernel.
#[derive(Debug, Clone, Copy)]
pub struct Binding {
    pub number: u32,
    pub name: &'static str,
    pub access: Access,
    pub when: When,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    Uniform,
    Read,
    ReadWrite,
}

/// In which variants a binding exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    Always,
    Flag(&'static str),
    NotFlag(&'static str),
}

impl Binding {
    pub const fn uniform(number: u32, name: &'static str) -> Self {
        Binding { number, name, access: Access::Uniform, when: When::Always }
    }

    pub const fn read(number: u32, name: &'static str) -> Self {
        Binding { number, name, access: Access::Read, when: When::Always }
    }

    pub const fn read_write(number: u32, name: &'static str) -> Self {
        Binding { number, name, access: Access::ReadWrite, when: When::Always }
    }

    pub const fn only(mut self, when: When) -> Self {
        self.when = when;
        self
    }
}

impl Kernel {
    /// The bindings of one variant, in ascending order.
    pub fn bindings_of(&self, variant: &Variant) -> impl Iterator<Item = &'static Binding> {
        self.bindings.iter().filter(move |binding| match binding.when {
            When::Always => true,
            When::Flag(flag) => variant.has(flag),
            When::NotFlag(flag) => !variant.has(flag),
        })
    }

    /// The WGSL text of one variant.
    ///
    /// # Errors
    /// As [`compose`].
    pub fn compose(&self, variant: &Variant) -> Result<String> {
        compose(self.name, self.source, variant)
    }
}

/// A compiled variant.
#[derive(Debug)]
pub(super) struct Pipeline {
    pub raw: wgpu::ComputePipeline,
    pub layout: wgpu::BindGroupLayout,
    /// See [`Device::use_first`].
    pub is_used: AtomicBool,
}

/// Compiled variants by kernel name and variant.
#[derive(Debug, Default)]
pub(super) struct PipelineCache {
    pipelines: Mutex<HashMap<(&'static str, Variant), Arc<Pipeline>>>,
    /// While somebody asks what a recording would compile: the variants that are not there yet, in the order of their first use.
    survey: Mutex<Option<Vec<(&'static Kernel, Variant)>>>,
}

impl PipelineCache {
    pub fn len(&self) -> usize {
        self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    pub fn keys(&self) -> Vec<(&'static str, Variant)> {
        let mut keys: Vec<_> = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).keys().cloned().collect();
        keys.sort();
        keys
    }

    /// Notes a variant where somebody only asks; `false` where nobody does.
    pub fn note(&self, kernel: &'static Kernel, variant: &Variant) -> bool {
        let mut survey = self.survey.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(missing) = survey.as_mut() else { return false };
        let is_there =
            self.pipelines.lock().unwrap_or_else(PoisonError::into_inner).contains_key(&(kernel.name, variant.clone()));
        if !is_there && !missing.iter().any(|(other, known)| other.name == kernel.name && known == variant) {
            missing.push((kernel, variant.clone()));
        }
        true
    }

    /// The pipeline of a variant, compiled on first use. A compiler error reaches the device's error scope.
    pub fn get(&self, device: &Device, kernel: &Kernel, variant: &Variant) -> Result<Arc<Pipeline>> {
        let mut pipelines = self.pipelines.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (kernel.name, variant.clone());
        if let Some(pipeline) = pipelines.get(&key) {
            return Ok(pipeline.clone());
        }
        let pipeline = Arc::new(compile(device, kernel, variant)?);
        pipelines.insert(key, pipeline.clone());
        Ok(pipeline)
    }
}

impl Device {
    /// The variants that `record` would compile. Its dispatches go nowhere. Call inside [`catch`](Self::catch).
    ///
    /// # Errors
    /// What `record` returns.
    pub fn missing_pipelines(&self, record: impl FnOnce() -> Result<()>) -> Result<Vec<(&'static Kernel, Variant)>> {
        let survey = || self.pipelines.survey.lock().unwrap_or_else(PoisonError::into_inner);
        *survey() = Some(Vec::new());
        let outcome = record();
        let missing = survey().take().unwrap_or_default();
        outcome.map(|()| missing)
    }

    /// Compiles a variant unless it is there. Call inside [`catch`](Self::catch).
    ///
    /// # Errors
    /// As [`Kernel::compose`].
    pub fn compile(&self, kernel: &Kernel, variant: &Variant) -> Result<()> {
        self.pipelines.get(self, kernel, variant).map(drop)
    }
}

fn compile(device: &Device, kernel: &Kernel, variant: &Variant) -> Result<Pipeline> {
    let mut source = kernel.compose(variant)?;
    device.dump_wgsl(kernel, variant, &source);
    if device.breaks(kernel) {
        source = broken(&source);
    }
    let entries: Vec<wgpu::BindGroupLayoutEntry> = kernel.bindings_of(variant).map(layout_entry).collect();
    let layout =
        device.raw.create_bind_group_layout(&wgpu::BindGroupLayoutDescriptor { label: Some(kernel.name), entries: &entries });
    let pipeline_layout = device.raw.create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
        label: Some(kernel.name),
        bind_group_layouts: &[Some(&layout)],
        immediate_size: 0,
    });
    let module = device.shader_module(wgpu::ShaderModuleDescriptor {
        label: Some(kernel.name),
        source: wgpu::ShaderSource::Wgsl(source.into()),
    });
    let raw = device.raw.create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
        label: Some(kernel.name),
        layout: Some(&pipeline_layout),
        module: &module,
        entry_point: Some("main"),
        compilation_options: wgpu::PipelineCompilationOptions {
            // Some backends let one invocation do it. A kernel with this flag writes all of its workgroup memory before it reads any.
            zero_initialize_workgroup_memory: !variant.has("STAGED"),
            ..Default::default()
        },
        cache: None,
    });
    Ok(Pipeline { raw, layout, is_used: AtomicBool::new(false) })
}

fn layout_entry(binding: &Binding) -> wgpu::BindGroupLayoutEntry {
    let ty = match binding.access {
        Access::Uniform => wgpu::BufferBindingType::Uniform,
        Access::Read => wgpu::BufferBindingType::Storage { read_only: true },
        Access::ReadWrite => wgpu::BufferBindingType::Storage { read_only: false },
    };
    wgpu::BindGroupLayoutEntry {
        binding: binding.number,
        visibility: wgpu::ShaderStages::COMPUTE,
        ty: wgpu::BindingType::Buffer { ty, has_dynamic_offset: false, min_binding_size: None },
        count: None,
    }
}

/// The same kernel, but it returns before it writes anything: proof that the checks see a kernel that does not work.
fn broken(source: &str) -> String {
    match source.find("fn main(").and_then(|main| source[main..].find("{\n").map(|brace| main + brace + 2)) {
        Some(body) => format!("{}    if true {{ return; }}\n{}", &source[..body], &source[body..]),
        None => source.to_owned(),
    }
}
