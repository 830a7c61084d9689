//! How fast a device is, and how near a model comes to it. Returns data and prints nothing.

mod json;
mod kernels;
mod plot;
mod prefer;
mod probes;
mod roofs;
mod run;
mod subject;
mod sweep;
mod test;
mod tune;

pub use json::{
    DeviceReport, System, adapter_json, adapter_of, bench_json, case_json, check_json, device_json, memory_json, nameless_json,
    paging_json,
};
pub use kernels::KernelReport;
pub use plot::{Curve, svg};
pub use prefer::{
    Comparison, Comparisons, MIN_GAIN, ReferenceChoice, compare_with_reference, may_be_reference, measured_on, reference_choice,
};
pub use probes::{PROBES, probe_variants};
pub use roofs::{RoofOptions, Roofs, measure_read_roof, measure_roofs};
pub use run::Bench;
pub use subject::{Subject, SubjectOptions, open_device};
pub use sweep::{sweep_curves, sweep_tests};
pub use test::{Test, TestReport, Work, median};
pub use tune::{Trial, TuneEvent, TuneOptions, Tuned, Verdict};
