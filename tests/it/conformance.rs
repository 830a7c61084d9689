//! Every kernel against its twin, on a device.

use crate::common::{gpu_device, gpu_device_with};
use moebius::conformance::{Case, Report, cases, run, run_cases};
use moebius::gpu::{Device, DeviceOptions, Overrides, Profile};
use moebius::kernels::KERNELS;
use std::path::Path;
use std::process::Command;

/// SwiftShader as a Vulkan driver, where Chromium is installed.
const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

fn run_all(device: &Device) -> Report {
    pollster::block_on(run(device, &mut |_| {})).unwrap()
}

fn assert_passed(device: &Device, report: &Report) {
    for summary in report.by_kernel() {
        println!(
            "{:<16} {:>3} cases, {} failed, max |difference| {:.1e}, nmse {:.1e}",
            summary.kernel, summary.cases, summary.failed, summary.max_abs_error, summary.nmse
        );
    }
    let failures: Vec<String> =
        report.failures().map(|case| format!("{} {}: {}\n    {}", case.kernel, case.case, case.detail, case.variant)).collect();
    assert!(failures.is_empty(), "{} {}:\n{}", device.name(), device.driver(), failures.join("\n"));
}

fn overridden(overrides: Overrides) -> DeviceOptions {
    DeviceOptions { overrides, ..Default::default() }
}

#[test]
fn every_kernel_has_cases_and_their_names_are_unique() {
    let cases = cases();
    for kernel in KERNELS {
        assert!(cases.iter().any(|case| case.kernel == kernel.name), "{}", kernel.name);
    }
    let mut names: Vec<String> = cases.iter().map(|case| format!("{case:?}")).collect();
    names.sort();
    for pair in names.windows(2) {
        assert_ne!(pair[0], pair[1]);
    }
}

#[test]
fn tolerances_are_sane_and_have_a_reason() {
    for case in cases() {
        assert!(case.tolerance.max_abs <= 1e-2 && case.tolerance.nmse <= 1e-9, "{case:?}");
        assert!(!case.tolerance.why.is_empty(), "{case:?}");
    }
}

#[test]
fn all_kernels_agree_with_their_twins() {
    let Some(device) = gpu_device() else { return };
    println!("{} {}, {:?}", device.name(), device.driver(), device.caps());
    assert_passed(&device, &run_all(&device));
}

#[test]
fn all_kernels_agree_on_the_plainest_device() {
    let overrides = Overrides { no_f16: true, no_subgroups: true, default_limits: true, profile: None };
    let Some(device) = gpu_device_with(&overridden(overrides)) else { return };
    assert_eq!((device.caps().subgroup_size, device.caps().shader_f16), (None, false));
    assert_passed(&device, &run_all(&device));
}

#[test]
fn all_kernels_agree_in_the_profile_for_gpus() {
    let profile = Some(Profile::Gpu);
    for no_subgroups in [false, true] {
        let overrides = Overrides { no_subgroups, profile, ..Default::default() };
        let Some(device) = gpu_device_with(&overridden(overrides)) else { return };
        assert_passed(&device, &run_all(&device));
    }
}

#[test]
fn all_kernels_agree_in_the_profile_for_software_devices() {
    let overrides = Overrides { profile: Some(Profile::Cpu), ..Default::default() };
    let Some(device) = gpu_device_with(&overridden(overrides)) else { return };
    assert_passed(&device, &run_all(&device));
}

#[test]
fn a_kernel_that_does_nothing_is_reported_by_name() {
    for kernel in KERNELS {
        let options = DeviceOptions { break_kernel: Some(kernel.name.to_owned()), ..overridden(Overrides::from_env()) };
        let Some(device) = gpu_device_with(&options) else { return };
        // All cases of the broken kernel, and one of every other.
        let mut chosen: Vec<Case> = Vec::new();
        for case in cases() {
            if case.kernel == kernel.name || chosen.iter().all(|other| other.kernel != case.kernel) {
                chosen.push(case);
            }
        }
        let report = pollster::block_on(run_cases(&device, &chosen, &mut |_| {})).unwrap();
        assert!(!report.passed());
        for case in &report.cases {
            assert_eq!(case.passed, case.kernel != kernel.name, "{} broken: {} {}", kernel.name, case.kernel, case.case);
            assert_eq!(case.passed, case.detail.is_empty());
        }
    }
}

#[test]
fn a_device_that_goes_away_is_an_error_and_no_failed_case() {
    let Some(device) = gpu_device() else { return };
    device.destroy();
    let outcome = pollster::block_on(run_cases(&device, &cases()[..1], &mut |_| {}));
    assert!(matches!(outcome, Err(moebius::Error::DeviceLost { .. })), "{outcome:?}");
}

/// The driver is chosen when a process starts: this binary runs itself again with another one.
#[test]
fn all_kernels_agree_on_swiftshader() {
    if !Path::new(SWIFTSHADER).exists() {
        println!("skipped: no {SWIFTSHADER}");
        return;
    }
    let output = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "it::conformance::all_kernels_agree_with_their_twins", "--nocapture"])
        .env("VK_DRIVER_FILES", SWIFTSHADER)
        .env("REQUIRE_GPU", "1")
        .output()
        .unwrap();
    let text = format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{text}");
    assert!(text.contains("SwiftShader") && text.contains("1 passed"), "{text}");
    println!("{text}");
}
