//! Whether a device keeps the smallest f16s: WGSL leaves it open, and no limit or feature says it.

use super::device::Device;
use super::pipeline::{Binding, Kernel};
use super::recording::{DispatchDescriptor, Recording};
use super::shader::Variant;
use crate::error::Result;

static PROBE: Kernel = Kernel {
    name: "probe_halves",
    source: include_str!("../../shaders/probes/probe_halves.wgsl"),
    summary: "what becomes of the smallest f16s",
    params: &[],
    bindings: &[Binding::read_write(0, "words")],
};

/// 2^-15 and -2^-15 as f16, below the smallest normal one.
const SMALL: u32 = 0x8200_0200;

/// Asks the device.
///
/// # Errors
/// As [`Device::read`].
pub(super) async fn are_kept(device: &Device) -> Result<bool> {
    let attempted = "trying small f16 numbers";
    let words = device.storage("halves", 8);
    device.write(&words, 0, bytemuck::cast_slice(&[SMALL, 0]));
    let mut recording = Recording::default();
    let probe = DispatchDescriptor {
        kernel: &PROBE,
        variant: Variant::new(),
        layer: None,
        params: &[],
        buffers: &[("words", &words)],
        grid: [1, 1, 1],
    };
    recording.dispatch(device, &probe)?;
    device.submit(attempted, &[&recording]).await?;
    let found: Vec<u32> = device.read_as(attempted, &words, 2).await?;
    Ok(found == [0.5f32.to_bits(), (-0.5f32).to_bits()])
}
