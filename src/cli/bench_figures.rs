//! What `moebius bench` prints.

use super::{model, stats, table};
use moebius::DeviceDescription;
use moebius::bench::{Bench, KernelReport, Roofs, Subject, Test, TestReport, Work};
use moebius::error::human_bytes;
use serde_json::{Value, json};

/// Everything that was measured; one of the two is empty.
#[derive(Default)]
pub struct Figures {
    pub tests: Vec<TestReport>,
    /// By test, the slowest first.
    pub kernels: Vec<(Test, Vec<KernelReport>)>,
}

impl Figures {
    pub fn text(&self) -> String {
        if self.kernels.is_empty() {
            return tests_text(&self.tests);
        }
        let tables: Vec<String> = self.kernels.iter().map(|(test, kernels)| kernels_text(test, kernels)).collect();
        tables.join("\n")
    }

    /// What `--json` prints.
    pub fn json(&self, subject: &Subject, description: &DeviceDescription, bench: &Bench) -> Value {
        let spec = bench.spec();
        let Roofs { bytes, read_gb_s, copy_gb_s, fma_gflop_s, gap_us } = bench.roofs();
        let kernels = self.kernels.iter().flat_map(|(test, kernels)| kernels.iter().map(|kernel| kernel_json(test, kernel)));
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "device": model::device_json(description),
            "model": subject.path(),
            "synthetic": matches!(subject, Subject::Synthetic { .. }),
            "family": spec.family,
            "layers": spec.layers.len(),
            "quant": bench.formats(),
            "context": bench.context(),
            "largest_binding_bytes": bench.largest_binding_bytes(),
            "memory": stats::memory_json(bench.load_stats()),
            "roofs": {
                "bytes": bytes,
                "read_gb_s": read_gb_s,
                "copy_gb_s": copy_gb_s,
                "fma_gflop_s": fma_gflop_s,
                "gap_us": gap_us,
            },
            "tests": self.tests.iter().map(test_json).collect::<Vec<_>>(),
            "kernels": kernels.collect::<Vec<_>>(),
        })
    }
}

fn kernels_text(test: &Test, kernels: &[KernelReport]) -> String {
    let what = match test.work {
        Work::Prefill(tokens) => format!("{}: a prompt of {tokens} tokens after {} others", test.name(), test.depth),
        Work::Decode(_) => format!("tg1@d{}: a decode step after {} tokens", test.depth, test.depth.max(1)),
    };
    let header = ["kernel", "dispatches", "us", "share", "GB/s", "GFLOP/s", "of roof"];
    let some = |figure: f64| if figure > 0.0 { format!("{figure:.2}") } else { String::new() };
    let row = |kernel: &KernelReport| {
        vec![
            kernel.kernel.to_owned(),
            count(kernel.dispatches),
            format!("{:.1}", kernel.seconds * 1e6),
            percent(kernel.share),
            some(kernel.gb_s),
            some(kernel.gflop_s),
            if kernel.roof_share > 0.0 { percent(kernel.roof_share) } else { String::new() },
        ]
    };
    let total: f64 = kernels.iter().map(|kernel| kernel.seconds).sum();
    let mut rows: Vec<_> = kernels.iter().map(row).collect();
    let dispatches = kernels.iter().map(|kernel| kernel.dispatches).sum();
    rows.push(vec!["all".to_owned(), count(dispatches), format!("{:.1}", total * 1e6)]);
    format!("{what}\n{}", table::aligned(&header, &rows))
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

fn percent(share: f64) -> String {
    format!("{:.1}%", share * 100.0)
}

fn tests_text(reports: &[TestReport]) -> String {
    let header = [
        "test",
        "tokens/s",
        "+-",
        "dispatches/token",
        "submits/token",
        "readbacks/token",
        "weights/token",
        "of read roof",
        "of multiply-add roof",
    ];
    let share = |share: Option<f64>| share.map_or_else(String::new, percent);
    let row = |report: &TestReport| {
        vec![
            report.test.name(),
            format!("{:.2}", report.tokens_per_second()),
            format!("{:.2}", report.stddev()),
            count(report.dispatches_per_token),
            count(report.submits_per_token),
            count(report.readbacks_per_token),
            human_bytes(report.weight_bytes_per_token),
            share(report.read_roof_share),
            share(report.fma_roof_share),
        ]
    };
    table::aligned(&header, &reports.iter().map(row).collect::<Vec<_>>())
}

/// A whole number without its point.
fn count(count: f64) -> String {
    if count.fract() == 0.0 { format!("{count}") } else { format!("{count:.3}") }
}

fn test_json(report: &TestReport) -> Value {
    let (prompt, generate) = match report.test.work {
        Work::Prefill(tokens) => (tokens, 0),
        Work::Decode(tokens) => (0, tokens),
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
        "read_roof_share": report.read_roof_share,
        "fma_roof_share": report.fma_roof_share,
    })
}
