//! A list of named commands: built once, submitted many times, counted without a device.

use super::buffer::Buffer;
use super::device::Device;
use super::pipeline::{Access, Kernel, Pipeline};
use super::shader::Variant;
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// Commands in the order of their execution.
#[derive(Debug, Default)]
pub struct Recording {
    commands: Vec<Command>,
    /// Nothing is appended.
    is_rehearsal: bool,
}

#[derive(Debug)]
pub enum Command {
    Dispatch(Dispatch),
    /// Zeros.
    Clear(Buffer),
    /// `bytes` from `from_bytes` of one buffer to `to_bytes` of another.
    Copy {
        from: Buffer,
        from_bytes: u64,
        to: Buffer,
        to_bytes: u64,
        bytes: u64,
    },
}

/// One run of a kernel.
#[derive(Debug)]
pub struct Dispatch {
    pub kernel: &'static str,
    /// Index of the model's layer, for what runs inside one.
    pub layer: Option<usize>,
    /// Workgroups per axis.
    pub grid: [u32; 3],
    /// The storage buffers that it binds, in the order of their bindings.
    pub bound: Vec<Bound>,
    pub(super) pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
}

/// A storage buffer as a dispatch sees it.
#[derive(Debug, Clone)]
pub struct Bound {
    /// Name of the binding.
    pub binding: &'static str,
    /// What the buffer was allocated as.
    pub label: Arc<str>,
    pub bytes: u64,
    pub is_written: bool,
}

/// What a kernel's `record` hands over.
pub struct DispatchDescriptor<'a> {
    pub kernel: &'static Kernel,
    pub variant: Variant,
    pub layer: Option<usize>,
    /// Bytes of `struct Params`; empty where the kernel has none.
    pub params: &'a [u8],
    /// Every other binding of the variant, by name.
    pub buffers: &'a [(&'static str, &'a Buffer)],
    pub grid: [usize; 3],
}

impl Recording {
    /// A recording that stays empty. What is recorded into it only shows which buffers it needs; nothing is compiled.
    pub fn rehearsal() -> Self {
        Recording { commands: Vec::new(), is_rehearsal: true }
    }

    pub fn commands(&self) -> &[Command] {
        &self.commands
    }

    /// Takes off the commands from `at` on.
    pub fn split_off(&mut self, at: usize) -> Self {
        Recording { commands: self.commands.split_off(at), is_rehearsal: self.is_rehearsal }
    }

    pub fn num_dispatches(&self) -> usize {
        self.commands.iter().filter(|command| matches!(command, Command::Dispatch(_))).count()
    }

    /// Appends a dispatch, compiling its variant on first use. Call inside [`Device::catch`].
    ///
    /// # Errors
    /// [`Error::DeviceLimit`] if the grid or a buffer is larger than the device allows.
    ///
    /// # Panics
    /// If the buffers are not those that the kernel declares.
    pub fn dispatch(&mut self, device: &Device, descriptor: &DispatchDescriptor) -> Result<()> {
        if self.is_rehearsal {
            return Ok(());
        }
        let kernel = descriptor.kernel;
        let grid = checked_grid(device, kernel, descriptor.grid)?;
        if device.pipelines.note(kernel, &descriptor.variant) {
            return Ok(());
        }
        let pipeline = device.pipelines.get(device, kernel, &descriptor.variant)?;
        let params =
            (!descriptor.params.is_empty()).then(|| device.uniform(&format!("{}.params", kernel.name), descriptor.params));
        let (mut entries, mut bound) = (Vec::new(), Vec::new());
        for binding in kernel.bindings_of(&descriptor.variant) {
            let buffer = if binding.name == "params" {
                params.as_ref()
            } else {
                descriptor.buffers.iter().find(|(name, _)| *name == binding.name).map(|(_, buffer)| *buffer)
            };
            let buffer = buffer.unwrap_or_else(|| panic!("{} needs a buffer `{}`", kernel.name, binding.name));
            if binding.access != Access::Uniform && buffer.size_bytes() > device.caps().max_binding_bytes {
                return Err(Error::DeviceLimit {
                    what: format!("`{}` of {}", binding.name, kernel.name),
                    device: device.name().to_owned(),
                    expected: format!("a binding of {}", crate::error::human_bytes(buffer.size_bytes())),
                    found: crate::error::human_bytes(device.caps().max_binding_bytes),
                });
            }
            if binding.access != Access::Uniform {
                device.counters.bound(buffer.size_bytes());
                bound.push(Bound {
                    binding: binding.name,
                    label: buffer.label().clone(),
                    bytes: buffer.size_bytes(),
                    is_written: binding.access == Access::ReadWrite,
                });
            }
            entries.push(wgpu::BindGroupEntry { binding: binding.number, resource: buffer.binding() });
        }
        let bind_group = device.raw.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(kernel.name),
            layout: &pipeline.layout,
            entries: &entries,
        });
        self.commands.push(Command::Dispatch(Dispatch {
            kernel: kernel.name,
            layer: descriptor.layer,
            grid,
            bound,
            pipeline,
            bind_group,
        }));
        Ok(())
    }

    /// Appends filling `buffer` with zeros.
    pub fn clear(&mut self, buffer: &Buffer) {
        self.append(Command::Clear(buffer.clone()));
    }

    /// Appends a copy of the first `bytes` (a multiple of 4) of `from` to `offset_bytes` of `to`.
    pub fn copy(&mut self, from: &Buffer, to: &Buffer, offset_bytes: u64, bytes: u64) {
        self.append(Command::Copy { from: from.clone(), from_bytes: 0, to: to.clone(), to_bytes: offset_bytes, bytes });
    }

    /// Appends a copy of these bytes of `from` (their ends multiples of 4) to the start of `to`.
    pub fn copy_part(&mut self, from: &Buffer, range: Range<u64>, to: &Buffer) {
        let (from_bytes, bytes) = (range.start, range.end - range.start);
        self.append(Command::Copy { from: from.clone(), from_bytes, to: to.clone(), to_bytes: 0, bytes });
    }

    fn append(&mut self, command: Command) {
        if !self.is_rehearsal {
            self.commands.push(command);
        }
    }
}

fn checked_grid(device: &Device, kernel: &Kernel, grid: [usize; 3]) -> Result<[u32; 3]> {
    let limit = device.caps().max_workgroups_per_dimension;
    let mut checked = [0; 3];
    for (axis, &workgroups) in grid.iter().enumerate() {
        checked[axis] = u32::try_from(workgroups).ok().filter(|count| *count <= limit).ok_or_else(|| Error::DeviceLimit {
            what: format!("the grid of {}", kernel.name),
            device: device.name().to_owned(),
            expected: format!("{workgroups} workgroups"),
            found: format!("{limit} per dimension"),
        })?;
    }
    Ok(checked)
}

impl Device {
    /// Runs recordings one after the other, in one submission.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`].
    pub async fn submit(&self, attempted: &str, recordings: &[&Recording]) -> Result<()> {
        self.submit_in_pieces(attempted, recordings, 1).await
    }

    /// As [`submit`](Self::submit), in up to `pieces` submissions with about as many commands each: a device that is given too much at once
    /// may be taken for hung, and shows nothing else meanwhile.
    ///
    /// # Errors
    /// As [`submit`](Self::submit).
    pub async fn submit_in_pieces(&self, attempted: &str, recordings: &[&Recording], pieces: usize) -> Result<()> {
        if self.profiler.is_on() {
            return self.submit_profiled(attempted, recordings).await;
        }
        self.submit_commands(attempted, recordings, pieces, None).await.map(|_| ())
    }

    /// `copy` is what follows the commands: from, to, bytes.
    pub(super) async fn submit_commands(
        &self,
        attempted: &str,
        recordings: &[&Recording],
        pieces: usize,
        copy: Option<(&Buffer, &Buffer, u64)>,
    ) -> Result<wgpu::SubmissionIndex> {
        let commands: Vec<&Command> = recordings.iter().flat_map(|recording| &recording.commands).collect();
        self.catch(attempted, || {
            let mut rest = &commands[..];
            for left in (1..=pieces.clamp(1, commands.len().max(1))).rev() {
                let (now, later) = rest.split_at(rest.len().div_ceil(left));
                let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(attempted) });
                encode(&mut encoder, now);
                if let (1, Some((from, to, bytes))) = (left, copy) {
                    encoder.copy_buffer_to_buffer(&from.raw, from.offset, &to.raw, to.offset, bytes);
                }
                let submission = self.queue.submit([encoder.finish()]);
                self.counters.submitted(now.iter().filter(|command| matches!(command, Command::Dispatch(_))).count());
                if left == 1 {
                    return Ok(submission);
                }
                rest = later;
            }
            unreachable!("the last piece returns")
        })
        .await
    }
}

impl Dispatch {
    pub(super) fn encode(&self, pass: &mut wgpu::ComputePass) {
        self.encode_grid(pass, self.grid);
    }

    pub(super) fn encode_grid(&self, pass: &mut wgpu::ComputePass, [x, y, z]: [u32; 3]) {
        pass.set_pipeline(&self.pipeline.raw);
        pass.set_bind_group(0, &self.bind_group, &[]);
        pass.dispatch_workgroups(x, y, z);
    }
}

/// One compute pass for every run of dispatches between copies and clears.
pub(super) fn encode(encoder: &mut wgpu::CommandEncoder, commands: &[&Command]) {
    let is_dispatch = |command: &&Command| matches!(command, Command::Dispatch(_));
    for run in commands.chunk_by(|a, b| is_dispatch(a) == is_dispatch(b)) {
        let mut pass = None;
        for command in run {
            match command {
                Command::Dispatch(dispatch) => {
                    let pass = pass.get_or_insert_with(|| encoder.begin_compute_pass(&Default::default()).forget_lifetime());
                    dispatch.encode(pass);
                }
                Command::Clear(buffer) => encoder.clear_buffer(&buffer.raw, buffer.offset, Some(buffer.size_bytes())),
                Command::Copy { from, from_bytes, to, to_bytes, bytes } => {
                    let (from_bytes, to_bytes) = (from.offset + from_bytes, to.offset + to_bytes);
                    encoder.copy_buffer_to_buffer(&from.raw, from_bytes, &to.raw, to_bytes, *bytes);
                }
            }
        }
    }
}
