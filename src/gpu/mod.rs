//! A WebGPU device and what runs on it. No word about models here; no wgpu type elsewhere.

mod adapter;
mod buffer;
mod caps;
mod counts;
mod device;
mod first_use;
mod halves;
mod pace;
mod pipeline;
mod profile;
mod readback;
mod recording;
mod shader;
mod tuning;

pub use adapter::{AdapterSummary, DeviceChoice, list_adapters};
pub use buffer::{Buffer, Shard, Sharded, VIEW_ALIGN};
pub use caps::{Caps, DeviceKind, Overrides, Profile};
pub use counts::Counts;
pub use device::{Device, DeviceOptions};
pub use pace::Pace;
pub use pipeline::{Access, Binding, Kernel, When};
pub use profile::DispatchTime;
pub use readback::Readback;
pub use recording::{Bound, Command, Dispatch, DispatchDescriptor, Recording};
pub use shader::{Part, Variant, compose};
pub use tuning::{Knob, TunedFor, Tuning, Tunings};
