//! Every kernel against its twin, on a device.

use crate::common::{gpu_device, gpu_device_with};
use moebius::conformance::{Case, Report, cases, large_cases, run, run_cases};
use moebius::gpu::{Device, DeviceOptions, Overrides, Profile};
use moebius::kernels::{KERNELS, SlabShape, Slabs};
use moebius::quant::{BF16, F32};
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// SwiftShader as a Vulkan driver, where Chromium is installed.
const SWIFTSHADER: &str = "/usr/lib/chromium/vk_swiftshader_icd.json";

fn run_all(device: &Device) -> Report {
    pollster::block_on(run(device, &mut |_| {})).unwrap()
}

/// The cases that between them try every combination of flags, and all others that compile nothing more. On a software device,
/// compiling is nearly all of the time that a case takes, and sizes are tried in full elsewhere.
fn run_thinned(device: &Device) -> Report {
    let (mut combinations, mut compiled) = (BTreeSet::new(), BTreeSet::new());
    let chosen: Vec<Case> = cases()
        .into_iter()
        .filter(|case| {
            let variants = case.variants(device.caps());
            let mut wanted = variants.iter().all(|variant| compiled.contains(&(case.kernel, variant.clone())));
            for variant in &variants {
                let described = variant.describe();
                let flags = described.split(' ').filter(|word| !word.contains('=') || word.starts_with("TOKENS"));
                wanted |= combinations.insert((case.kernel, flags.collect::<Vec<_>>().join(" ")));
            }
            if wanted {
                compiled.extend(variants.into_iter().map(|variant| (case.kernel, variant)));
            }
            wanted
        })
        .collect();
    assert!(chosen.len() >= 50, "only {} cases are left", chosen.len());
    pollster::block_on(run_cases(device, &chosen, &mut |_| {})).unwrap()
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
    let overrides = Overrides {
        no_f16: true,
        no_subgroups: true,
        no_timestamps: true,
        default_limits: true,
        checked_shaders: true,
        unchecked_results: false,
        profile: None,
    };
    let Some(device) = gpu_device_with(&overridden(overrides)) else { return };
    assert_eq!((device.caps().subgroup_size, device.caps().shader_f16), (None, false));
    assert_passed(&device, &run_thinned(&device));
}

/// What a browser on a real GPU gets.
#[test]
fn all_kernels_agree_in_the_profile_for_gpus_without_subgroups() {
    let overrides = Overrides { no_subgroups: true, checked_shaders: true, profile: Some(Profile::Gpu), ..Default::default() };
    let Some(device) = gpu_device_with(&overridden(overrides)) else { return };
    assert_passed(&device, &run_thinned(&device));
}

#[test]
fn all_kernels_agree_in_the_profile_for_gpus() {
    let overrides = Overrides { checked_shaders: true, profile: Some(Profile::Gpu), ..Default::default() };
    let Some(device) = gpu_device_with(&overridden(overrides)) else { return };
    assert_passed(&device, &run_thinned(&device));
}

#[test]
fn all_kernels_agree_in_the_profile_for_software_devices() {
    let overrides = Overrides { profile: Some(Profile::Cpu), ..Default::default() };
    let Some(device) = gpu_device_with(&overridden(overrides)) else { return };
    assert_passed(&device, &run_thinned(&device));
}

/// Cases cut their own slabs and shards; here the device's limit does it.
#[test]
fn weights_are_cut_where_bindings_are_small() {
    let limit = 16 << 10;
    let options = DeviceOptions { max_binding_bytes: Some(limit), ..overridden(Overrides::from_env()) };
    let Some(device) = gpu_device_with(&options) else { return };
    let shape = SlabShape { num_slots: 5, rows: 104, cols: 96, quant: &BF16, bias: false };
    let slabs = Slabs::new(&device, "slabs", shape).unwrap();
    // 192 bytes a row: 84 rows fit, then 20 rows of four slots.
    let cuts: Vec<_> = slabs.parts.iter().map(|part| (part.cut.first_row, part.cut.num_rows, part.shards.len())).collect();
    assert_eq!(cuts, [(0, 84, 5), (84, 20, 2)]);
    let sharded = device.sharded("weight", 0..430, 192, 4).unwrap();
    assert_eq!(
        sharded.shards.iter().map(|shard| (shard.first_row, shard.num_rows)).collect::<Vec<_>>(),
        [(0, 84), (84, 84), (168, 84), (252, 84), (336, 84), (420, 10)]
    );
    let buffers = slabs.parts.iter().flat_map(|part| &part.shards).chain(sharded.shards.iter().map(|shard| &shard.buffer));
    assert!(buffers.into_iter().all(|buffer| buffer.size_bytes() <= limit));

    let wide = SlabShape { num_slots: 1, rows: 8, cols: 4096, quant: &F32, bias: false };
    assert!(matches!(Slabs::new(&device, "slabs", wide), Err(moebius::Error::DeviceLimit { .. })));
    // What needs no more than that still agrees: a case that asks for larger buffers would fail.
    let few: Vec<Case> = cases().into_iter().filter(|case| case.name.contains("shards of 10000 bytes")).collect();
    assert!(few.len() >= 4);
    let report = pollster::block_on(run_cases(&device, &few, &mut |_| {})).unwrap();
    assert_passed(&device, &report);
}

/// Slabs of more than a binding, and more rows than a grid has workgroups, with the limits that every WebGPU implementation grants.
#[test]
fn expert_kernels_agree_beyond_the_limits_of_a_binding_and_a_grid() {
    let options = DeviceOptions { max_binding_bytes: Some(128 << 20), ..overridden(Overrides::from_env()) };
    let Some(device) = gpu_device_with(&options) else { return };
    let cases = large_cases();
    let shards = |case: &Case| case.variants(device.caps()).iter().any(|variant| variant.has("SHARD_1"));
    // Both kernels, in decode and prefill: nine slots in two shards, and one slot in two parts, which are dispatches of their own.
    assert_eq!(cases.iter().filter(|case| shards(case)).count(), 4);
    let parts = cases.iter().filter(|case| case.name.contains("1 of 1") && case.variants(device.caps()).len() == 2);
    assert_eq!(parts.count(), 4);
    assert_passed(&device, &pollster::block_on(run_cases(&device, &cases, &mut |_| {})).unwrap());
}

/// Cases that a kernel passes by doing nothing: gradients that are no numbers change no weight.
const LEAVES_EVERYTHING: [(&str, &str); 1] = [("adamw", "no number")];

#[test]
fn a_kernel_that_does_nothing_is_reported_by_name() {
    for kernel in KERNELS {
        let options = DeviceOptions { break_kernel: Some(kernel.name.to_owned()), ..overridden(Overrides::from_env()) };
        let Some(device) = gpu_device_with(&options) else { return };
        // All cases of the broken kernel, and one of every other.
        let mut chosen: Vec<Case> = Vec::new();
        // Some cases of `router` take two other kernels instead.
        for case in cases().into_iter().filter(|case| !case.variants(device.caps()).is_empty()) {
            if case.kernel == kernel.name || chosen.iter().all(|other| other.kernel != case.kernel) {
                chosen.push(case);
            }
        }
        let report = pollster::block_on(run_cases(&device, &chosen, &mut |_| {})).unwrap();
        assert!(!report.passed(), "{}", kernel.name);
        for case in &report.cases {
            // To leave everything as it is may be right.
            if LEAVES_EVERYTHING.contains(&(case.kernel, case.case.as_str())) {
                continue;
            }
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
