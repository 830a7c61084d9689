//! Runs one kernel on the GPU, and compares what it computes with its reference, which is plain Rust.
//!
//!     cargo run --example one_kernel

#![allow(clippy::disallowed_methods, reason = "a program may wait")]

use moebius::Result;
use moebius::gpu::{Device, DeviceOptions, Recording};
use moebius::kernels::norm::{Buffers, Problem, record};
use moebius::reference::norm::norm;
use moebius::spec::NormSpec;

fn main() -> Result<()> {
    pollster::block_on(async {
        let (num_tokens, cols) = (3, 64);
        let x: Vec<f32> = (0..num_tokens * cols).map(|index| (index as f32).sin()).collect();
        let weight: Vec<f32> = (0..cols).map(|column| 1.0 + column as f32 / 64.0).collect();
        let spec = NormSpec::rms(1e-5);

        let device = Device::open(&DeviceOptions::default()).await?;
        let buffer = |label, content: &[f32]| {
            let buffer = device.storage(label, size_of_val(content) as u64);
            device.write(&buffer, 0, bytemuck::cast_slice(content));
            buffer
        };
        let (x_buffer, weight_buffer, y_buffer) = (buffer("x", &x), buffer("weight", &weight), buffer("y", &x));
        let buffers = Buffers { x: &x_buffer, weight: &weight_buffer, y: &y_buffer, output_scale: None };
        let problem = Problem { first_row: 0, num_tokens, cols, norm: spec, residual: None, rescale: None, output_scale: false };
        let mut recording = Recording::default();
        record(&device, &mut recording, None, &problem, &buffers)?;
        device.submit("norm", &[&recording]).await?;

        let y = device.read_as::<f32>("norm", &y_buffer, x.len()).await?;
        let difference = y.iter().zip(norm(&spec, &x, &weight)).map(|(y, expected)| (y - expected).abs());
        let worst = difference.fold(0.0, f32::max);
        println!("RMSNorm of {num_tokens} rows on {}: at most {worst:.1e} from the reference", device.name());
        Ok(())
    })
}
