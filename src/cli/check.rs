//! `moebius check`: are the numbers of this device right?

use super::failure::Failure;
use super::progress::{Progress, Unit};
use super::talk::talk;
use super::{Global, model, stats, style, table};
use anyhow::Result;
use clap::Args;
use moebius::DeviceDescription;
use moebius::bench;
use moebius::conformance::{self, CaseReport, KernelSummary, Report};
use moebius::error::nearest;
use moebius::gpu::{Device, DeviceChoice};
use moebius::kernels::KERNELS;
use serde_json::{Value, json};
use std::io::Write;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius check                      the best device
  moebius check attention norm       only these kernels
  moebius check --device llvmpipe    another one
  moebius check -v                   every case, not only every kernel
  moebius check --json

Exit code 1 if a kernel differs from its reference by more than the tolerance of the case.";

/// Compare every kernel with its reference, on this device.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArgs {
    /// Check only these kernels (see `moebius list kernels`); all of them without it.
    #[arg(value_name = "KERNEL", value_parser = kernel)]
    kernels: Vec<&'static str>,
    /// Print one JSON object with every case on stdout.
    #[arg(long)]
    json: bool,
}

impl CheckArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        if global.device == DeviceChoice::Cpu {
            return Err(nothing_to_compare().into());
        }
        let device = Device::open(&model::device_options(global)).await?;
        let description = describe(&device);
        talk!("device   {}", model::describe(&description));
        stats::say_tuning(&device);
        let report = check(&device, &self.kernels).await?;

        let mut stdout = anstream::stdout().lock();
        if self.json {
            writeln!(stdout, "{}", report_json(&description, &report))?;
        } else if global.verbose {
            write!(stdout, "{}", every_case(&report))?;
        } else {
            write!(stdout, "{}", every_kernel(&report))?;
        }
        for summary in report.by_kernel().iter().filter(|summary| summary.failed > 0) {
            say_what_is_wrong(summary, &report);
        }
        let num_cases = report.cases.len();
        talk!("\n{} of {num_cases} cases passed", num_cases - report.failures().count());
        Ok(if report.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }
}

/// Runs the cases of these kernels, of all where none is named, with a line of progress.
pub async fn check(device: &Device, kernels: &[&'static str]) -> Result<Report> {
    let mut cases = conformance::cases();
    cases.retain(|case| kernels.is_empty() || kernels.contains(&case.kernel));
    let line = Progress::new("check", Unit::Cases, "");
    let mut done = 0;
    let mut tell = |case: &CaseReport| {
        done += 1;
        line.set(done, cases.len() as u64);
        line.say(case.kernel);
    };
    Ok(conformance::run_cases(device, &cases, &mut tell).await?)
}

/// The error of a command that compares with the reference, asked for the reference.
pub fn nothing_to_compare() -> Failure {
    let problem = "cpu is the reference itself: there is nothing to compare it with";
    Failure::new(problem, "choose another --device; `moebius devices` lists them")
}

/// The name of a kernel, as clap reads it.
pub fn kernel(text: &str) -> Result<&'static str, String> {
    let names = || KERNELS.iter().map(|kernel| kernel.name);
    names().find(|name| *name == text).ok_or_else(|| {
        let meant = nearest(text, names()).map_or_else(String::new, |near| format!("did you mean {near}? "));
        format!("there is no such kernel; {meant}`moebius list kernels` prints their names")
    })
}

/// The first failure of a kernel stands for the others.
fn say_what_is_wrong(summary: &KernelSummary, report: &Report) {
    let Some(case) = report.failures().find(|case| case.kernel == summary.kernel) else { return };
    talk!("\n{} is wrong in {} of {} cases; the first:", summary.kernel, summary.failed, summary.cases);
    talk!("  case     {}\n  found    {}\n  variant  {}", case.case, case.detail, case.variant);
}

fn describe(device: &Device) -> DeviceDescription {
    DeviceDescription {
        name: device.name().to_owned(),
        kind: device.caps().kind.to_string(),
        backend: device.backend().to_owned(),
        driver: device.driver(),
        why: device.why().to_owned(),
    }
}

/// One row per kernel: how many cases passed, and the worst errors.
fn every_kernel(report: &Report) -> String {
    let row = |summary: &KernelSummary| {
        vec![
            summary.kernel.to_owned(),
            format!("{}/{}", summary.cases - summary.failed, summary.cases),
            format!("{:.1e}", summary.max_abs_error),
            format!("{:.1e}", summary.nmse),
            verdict(summary.failed == 0),
        ]
    };
    let rows: Vec<Vec<String>> = report.by_kernel().iter().map(row).collect();
    table::aligned(&["kernel", "passed", "largest error", "nmse", "result"], &rows)
}

fn every_case(report: &Report) -> String {
    let row = |case: &CaseReport| {
        vec![
            case.kernel.to_owned(),
            case.case.clone(),
            format!("{:.1e}", case.max_abs_error),
            format!("{:.1e}", case.tolerance.max_abs),
            verdict(case.passed),
            case.tolerance.why.to_owned(),
        ]
    };
    let rows: Vec<Vec<String>> = report.cases.iter().map(row).collect();
    table::aligned(&["kernel", "case", "error", "tolerance", "result", "why this tolerance"], &rows)
}

fn verdict(passed: bool) -> String {
    if passed { style::good("ok") } else { style::bad("FAILED") }
}

fn report_json(device: &DeviceDescription, report: &Report) -> Value {
    json!({
        "device": bench::device_json(device),
        "passed": report.passed(),
        "cases": report.cases.iter().map(bench::case_json).collect::<Vec<_>>(),
    })
}
