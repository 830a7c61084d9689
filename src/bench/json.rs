//! Figures, checks and reports as JSON, alike from the command line and from a page.

use super::kernels::KernelReport;
use super::roofs::Roofs;
use super::run::Bench;
use super::subject::Subject;
use super::test::{Test, TestReport, Work};
use crate::conformance::{CaseReport, KernelSummary, Report};
use crate::engine::DeviceDescription;
use crate::gpu::{AdapterSummary, Device};
use crate::model::LoadStats;
use crate::paging::{Packing, PagingCounts, PagingStats};
use serde_json::{Value, json};

/// The version of what [`DeviceReport::json`] writes; `docs/device-report.schema.json` describes it.
const REPORT_FORMAT: &str = "moebius-device-report 1";

/// What a device is, whether its numbers are right and how fast it is: what people attach to an issue.
pub struct DeviceReport<'a> {
    /// Of the program, with the commit where it is known.
    pub version: &'a str,
    pub system: System,
    pub adapter: &'a AdapterSummary,
    pub checked: &'a Report,
    /// What was measured, as [`nameless_json`] gives it, if anything was.
    pub measured: Option<Value>,
}

/// Where the program ran.
pub struct System {
    pub os: String,
    pub architecture: String,
}

impl DeviceReport<'_> {
    /// One object, without the name of a host, a user or a folder.
    pub fn json(self) -> Value {
        json!({
            "format": REPORT_FORMAT,
            "moebius": self.version,
            "system": { "os": self.system.os, "architecture": self.system.architecture },
            "device": adapter_json(self.adapter),
            "check": check_json(self.checked),
            "bench": self.measured,
        })
    }
}

impl System {
    /// This machine; of a page, what its browser says of itself.
    pub fn native() -> Self {
        System { os: std::env::consts::OS.to_owned(), architecture: std::env::consts::ARCH.to_owned() }
    }
}

/// An open device as [`crate::gpu::list_adapters`] describes it.
pub fn adapter_of(device: &Device) -> AdapterSummary {
    AdapterSummary {
        name: device.name().to_owned(),
        backend: device.backend().to_owned(),
        driver: device.driver(),
        caps: device.caps().clone(),
    }
}

/// What an adapter is and offers.
pub fn adapter_json(adapter: &AdapterSummary) -> Value {
    let caps = &adapter.caps;
    json!({
        "name": adapter.name,
        "kind": caps.kind.to_string(),
        "backend": adapter.backend,
        "driver": adapter.driver,
        "memory_bytes": caps.memory_bytes,
        "max_buffer_bytes": caps.max_buffer_bytes,
        "max_binding_bytes": caps.max_binding_bytes,
        "max_workgroup_bytes": caps.max_workgroup_bytes,
        "max_invocations": caps.max_invocations,
        "max_storage_buffers": caps.max_storage_buffers,
        "shader_f16": caps.shader_f16,
        "subgroup_size": caps.subgroup_size,
        "timestamps": caps.timestamps,
    })
}

/// Each kernel in a line, and the cases that failed.
pub fn check_json(report: &Report) -> Value {
    let of_kernel = |summary: &KernelSummary| {
        json!({
            "kernel": summary.kernel,
            "cases": summary.cases,
            "failed": summary.failed,
            "max_abs_error": summary.max_abs_error,
            "nmse": summary.nmse,
        })
    };
    json!({
        "passed": report.passed(),
        "kernels": report.by_kernel().iter().map(of_kernel).collect::<Vec<_>>(),
        "failures": report.failures().map(case_json).collect::<Vec<_>>(),
    })
}

pub fn case_json(case: &CaseReport) -> Value {
    json!({
        "kernel": case.kernel,
        "case": case.case,
        "variant": case.variant,
        "passed": case.passed,
        "max_abs_error": case.max_abs_error,
        "nmse": case.nmse,
        "max_abs_tolerance": case.tolerance.max_abs,
        "nmse_tolerance": case.tolerance.nmse,
        "why": case.tolerance.why,
        "detail": case.detail,
    })
}

/// What runs a model.
pub fn device_json(device: &DeviceDescription) -> Value {
    json!({ "name": device.name, "kind": device.kind, "backend": device.backend, "driver": device.driver })
}

/// Where memory went.
pub fn memory_json(stats: &LoadStats) -> Value {
    json!({
        "weight_bytes": stats.weight_bytes,
        "kv_cache_bytes": stats.kv_cache_bytes,
        "kv_cache_format": stats.kv_cache_format.name(),
        "state_bytes": stats.state_bytes,
        "activation_bytes": stats.activation_bytes,
        "peak_host_bytes": stats.peak_host_bytes,
    })
}

/// Budget and counts of a model whose experts do not all have room.
pub fn paging_json(paging: &PagingStats) -> Value {
    let PagingStats { memory, policy, slots, experts, slot_bytes, decode, prefill, .. } = paging;
    let PagingStats { wasted_layers, reach_layers, stop_seconds, packing, .. } = paging;
    let packing = packing.map(|Packing { seconds, host_bytes, host_requests, host_hits }| {
        json!({ "seconds": seconds, "host_bytes": host_bytes, "host_requests": host_requests, "host_hits": host_hits })
    });
    let counts = |counts: &PagingCounts| {
        let PagingCounts { tokens, requests, hits, stops, loads, loaded_bytes, seconds } = *counts;
        json!({
            "tokens": tokens, "requests": requests, "hits": hits, "stops": stops, "loads": loads, "loaded_bytes": loaded_bytes,
            "wait_seconds": seconds,
        })
    };
    json!({
        "budget": memory.to_string(), "policy": policy, "slots": slots, "experts": experts, "slot_bytes": slot_bytes,
        "decode": counts(decode), "prefill": counts(prefill),
        "wasted_layers": wasted_layers, "stop_seconds": stop_seconds,
        // As many as anybody may want: no number of JSON.
        "reach_layers": reach_layers.is_finite().then_some(reach_layers),
        // Of experts that are not stored as the device needs them.
        "packing": packing,
    })
}

/// What was measured of `subject`, for a report: a folder's name may be that of a person or a project, so the model is called by its family.
pub fn nameless_json(subject: &Subject, bench: &Bench, tests: &[TestReport]) -> Value {
    let mut json = bench_json(subject, bench, tests, &[]);
    json["model"] = match subject {
        Subject::Synthetic { .. } => format!("{}, random weights", bench.spec().family).into(),
        Subject::Checkpoint(_) => bench.spec().family.into(),
    };
    json
}

/// Everything that was measured of `subject`.
pub fn bench_json(subject: &Subject, bench: &Bench, tests: &[TestReport], kernels: &[(Test, Vec<KernelReport>)]) -> Value {
    let spec = bench.spec();
    let Roofs { bytes, read_gb_s, copy_gb_s, fma_gflop_s, gap_us } = bench.roofs();
    let kernels = kernels.iter().flat_map(|(test, kernels)| kernels.iter().map(|kernel| kernel_json(test, kernel)));
    let mut json = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": device_json(&DeviceDescription::of(bench.device())),
        "model": subject.path(),
        "synthetic": matches!(subject, Subject::Synthetic { .. }),
        "family": spec.family,
        "layers": spec.layers.len(),
        "quant": bench.formats(),
        "context": bench.context(),
        "largest_binding_bytes": bench.largest_binding_bytes(),
        "memory": memory_json(bench.load_stats()),
        "roofs": {
            "bytes": bytes,
            "read_gb_s": read_gb_s,
            "copy_gb_s": copy_gb_s,
            "fma_gflop_s": fma_gflop_s,
            "gap_us": gap_us,
        },
        "tests": tests.iter().map(test_json).collect::<Vec<_>>(),
        "kernels": kernels.collect::<Vec<_>>(),
    });
    if let Some(paging) = bench.paging() {
        json["paging"] = paging_json(paging);
    }
    json
}

fn test_json(report: &TestReport) -> Value {
    let (prompt, generate) = match report.test.work {
        Work::Prefill(tokens) => (tokens, 0),
        Work::Decode(tokens) | Work::Sample(tokens) => (0, tokens),
    };
    json!({
        "name": report.test.name(),
        "n_prompt": prompt,
        "n_gen": generate,
        "n_depth": report.test.depth,
        "tokens_per_second": report.tokens_per_second(),
        "stddev": report.stddev(),
        "samples": report.samples,
        "dispatches_per_token": report.dispatches_per_token,
        "submits_per_token": report.submits_per_token,
        "readbacks_per_token": report.readbacks_per_token,
        "weight_bytes_per_token": report.weight_bytes_per_token,
        "state_bytes_per_token": report.state_bytes_per_token,
        "read_roof_share": report.read_roof_share,
        "fma_roof_share": report.fma_roof_share,
    })
}

fn kernel_json(test: &Test, report: &KernelReport) -> Value {
    json!({
        "test": test.name(),
        "kernel": report.kernel,
        "dispatches": report.dispatches,
        "microseconds": report.seconds * 1e6,
        "share": report.share,
        "bytes": report.bytes,
        "flops": report.flops,
        "gb_s": report.gb_s,
        "gflop_s": report.gflop_s,
        "roof_share": report.roof_share,
    })
}
