//! Kernel against twin, on a given device: what `moebius check` runs, on machines that we do not own.
//!
//! A case is one problem of one kernel with inputs made from a seed. It builds buffers, records through the kernel's own `record`,
//! and compares every element of every buffer that the kernel may write with the twin, also those that it must leave alone.

mod cases;
mod compare;
mod inputs;
mod report;
mod stage;

pub use cases::{cases, large_cases};
pub use compare::Tolerance;
pub use report::{CaseReport, KernelSummary, Report};

use crate::error::{Error, Result};
use crate::gpu::{Caps, Device, Variant};
use compare::Comparison;
use stage::Prepared;
use std::fmt;

/// One problem of one kernel.
pub struct Case {
    /// Name of the entry in [`KERNELS`](crate::kernels::KERNELS).
    pub kernel: &'static str,
    /// What distinguishes it from the kernel's other cases.
    pub name: String,
    pub tolerance: Tolerance,
    problem: Box<dyn Problem>,
}

/// How a case is put together. What differs from kernel to kernel.
trait Problem: Send + Sync {
    /// Every variant that a device with these capabilities compiles for it.
    fn variants(&self, caps: &Caps) -> Vec<Variant>;

    /// Fills buffers, records, and asks the twin what to expect. Runs inside [`Device::catch`].
    fn prepare(&self, device: &Device) -> Result<Prepared>;
}

impl Case {
    fn new(kernel: &'static str, name: impl Into<String>, tolerance: Tolerance, problem: impl Problem + 'static) -> Self {
        Case { kernel, name: name.into(), tolerance, problem: Box::new(problem) }
    }

    /// Every variant that a device with these capabilities compiles for this case, usually one.
    pub fn variants(&self, caps: &Caps) -> Vec<Variant> {
        self.problem.variants(caps)
    }

    /// Runs the case.
    ///
    /// # Errors
    /// [`Error::DeviceLost`]. Whatever else goes wrong is a failed case.
    pub async fn run(&self, device: &Device) -> Result<CaseReport> {
        let comparison = match self.compare(device).await {
            Ok(comparison) => comparison,
            Err(lost @ Error::DeviceLost { .. }) => return Err(lost),
            Err(error) => Comparison::failed(error.to_string()),
        };
        let variants: Vec<String> = self.variants(device.caps()).iter().map(Variant::describe).collect();
        Ok(CaseReport {
            kernel: self.kernel,
            case: self.name.clone(),
            variant: variants.join("; "),
            passed: comparison.detail.is_empty(),
            max_abs_error: comparison.max_abs_error,
            nmse: comparison.nmse,
            tolerance: self.tolerance,
            detail: comparison.detail,
        })
    }

    async fn compare(&self, device: &Device) -> Result<Comparison> {
        let attempted = format!("{} {}", self.kernel, self.name);
        let Prepared { recording, outputs } = device.catch(&attempted, || self.problem.prepare(device)).await?;
        device.submit(&attempted, &[&recording]).await?;
        let mut comparison = Comparison::default();
        for output in outputs {
            let found = device.read_as::<u32>(&attempted, &output.buffer, output.expected.len()).await?;
            comparison.add(output.name, &found, &output.expected, &self.tolerance);
        }
        Ok(comparison)
    }
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kernel, self.name)
    }
}

/// Runs every case, in order; `on_case` hears of each as it ends.
///
/// # Errors
/// [`Error::DeviceLost`].
pub async fn run(device: &Device, on_case: &mut dyn FnMut(&CaseReport)) -> Result<Report> {
    run_cases(device, &cases(), on_case).await
}

/// As [`run`], for some of the [`cases`].
///
/// # Errors
/// [`Error::DeviceLost`].
pub async fn run_cases(device: &Device, cases: &[Case], on_case: &mut dyn FnMut(&CaseReport)) -> Result<Report> {
    let mut report = Report::default();
    for case in cases {
        let outcome = case.run(device).await?;
        on_case(&outcome);
        report.cases.push(outcome);
    }
    Ok(report)
}
