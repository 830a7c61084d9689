//! The device that GPU tests run on.

use moebius::gpu::{Device, DeviceOptions, Overrides};

/// Whether a missing adapter, or a missing tool, is a failure: `REQUIRE_GPU=1`.
pub fn required() -> bool {
    std::env::var("REQUIRE_GPU").is_ok_and(|value| !value.is_empty() && value != "0")
}

/// The best adapter, or `None` with a word about it where there is none.
///
/// # Panics
/// If there is none and `REQUIRE_GPU=1`.
pub fn gpu_device() -> Option<Device> {
    gpu_device_with(&DeviceOptions { overrides: Overrides::from_env(), ..Default::default() })
}

/// As [`gpu_device`], opened with these options.
pub fn gpu_device_with(options: &DeviceOptions) -> Option<Device> {
    match pollster::block_on(Device::open(options)) {
        Ok(device) => Some(device),
        Err(moebius::Error::NoAdapter { .. }) if !required() => {
            println!("skipped: no adapter");
            None
        }
        Err(error) => panic!("{error}"),
    }
}
