//! Pipelines before they are needed.

use super::device::Device;
use super::recording::{Command, Dispatch, Recording};
use crate::error::Result;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl Recording {
    /// One dispatch of each pipeline that [`Device::use_first`] has not had yet.
    pub fn unused<'r>(recordings: impl Iterator<Item = &'r Recording>) -> Vec<&'r Dispatch> {
        let mut unused: Vec<&Dispatch> = Vec::new();
        for command in recordings.flat_map(|recording| recording.commands()) {
            let Command::Dispatch(dispatch) = command else { continue };
            let is_used = dispatch.pipeline.is_used.load(Ordering::Relaxed);
            if !is_used && !unused.iter().any(|other| Arc::ptr_eq(&other.pipeline, &dispatch.pipeline)) {
                unused.push(dispatch);
            }
        }
        unused
    }
}

impl Device {
    /// Runs a kernel over no workgroup at all: some drivers finish compiling it only when it is first used. Nothing is computed.
    ///
    /// # Errors
    /// [`Error::DeviceLost`](crate::Error::DeviceLost) or [`Error::Gpu`](crate::Error::Gpu).
    pub async fn use_first(&self, attempted: &str, dispatch: &Dispatch) -> Result<()> {
        self.catch(attempted, || {
            let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(attempted) });
            dispatch.encode_grid(&mut encoder.begin_compute_pass(&Default::default()), [0; 3]);
            self.queue.submit([encoder.finish()]);
            Ok(())
        })
        .await?;
        self.finish(attempted).await?;
        dispatch.pipeline.is_used.store(true, Ordering::Relaxed);
        Ok(())
    }
}
