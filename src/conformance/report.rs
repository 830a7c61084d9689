//! What a run of cases comes to.

use super::compare::Tolerance;

/// The outcome of one case.
#[derive(Debug, Clone)]
pub struct CaseReport {
    pub kernel: &'static str,
    pub case: String,
    /// Flags and constants of the variants that ran.
    pub variant: String,
    pub passed: bool,
    pub max_abs_error: f32,
    pub nmse: f64,
    pub tolerance: Tolerance,
    /// The first difference, with index, expected and found, or the device's error; empty if the case passed.
    pub detail: String,
}

/// The outcome of all cases, in their order.
#[derive(Debug, Clone, Default)]
pub struct Report {
    pub cases: Vec<CaseReport>,
}

/// All cases of one kernel.
#[derive(Debug, Clone)]
pub struct KernelSummary {
    pub kernel: &'static str,
    pub cases: usize,
    pub failed: usize,
    /// The worst of all cases.
    pub max_abs_error: f32,
    /// The worst of all cases.
    pub nmse: f64,
}

impl Report {
    pub fn passed(&self) -> bool {
        self.cases.iter().all(|case| case.passed)
    }

    pub fn failures(&self) -> impl Iterator<Item = &CaseReport> {
        self.cases.iter().filter(|case| !case.passed)
    }

    /// One line per kernel, in the order of the cases.
    pub fn by_kernel(&self) -> Vec<KernelSummary> {
        let mut summaries: Vec<KernelSummary> = Vec::new();
        for case in &self.cases {
            let index = summaries.iter().position(|summary| summary.kernel == case.kernel).unwrap_or_else(|| {
                summaries.push(KernelSummary { kernel: case.kernel, cases: 0, failed: 0, max_abs_error: 0.0, nmse: 0.0 });
                summaries.len() - 1
            });
            let summary = &mut summaries[index];
            summary.cases += 1;
            summary.failed += usize::from(!case.passed);
            summary.max_abs_error = summary.max_abs_error.max(case.max_abs_error);
            summary.nmse = summary.nmse.max(case.nmse);
        }
        summaries
    }
}
