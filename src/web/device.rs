//! Is this device right, and how fast is it: the same as `moebius check` and `moebius report`.

use super::json::{self, thrown, to_js};
use super::{JsFiles, JsReport, JsResult, OnCase, mount};
use crate::bench::{self, Bench, DeviceReport, RoofOptions, Subject, SubjectOptions, System, Test, Work};
use crate::conformance::{self, Report};
use crate::gpu::{Device, DeviceOptions};
use serde_json::Value;
use wasm_bindgen::prelude::*;

/// Fewer and shorter than those of the program: a page waits for it, often with software in the place of a GPU.
const TESTS: [Test; 2] = [Test { work: Work::Prefill(128), depth: 0 }, Test { work: Work::Decode(32), depth: 0 }];
const REPETITIONS: usize = 3;
const ROOFS: RoofOptions = RoofOptions { bytes: 128 << 20, seconds: 0.1 };

/// Runs every conformance case of the kernels on this device, and compares with the reference. `on_case` hears of each as it ends.
#[wasm_bindgen(js_name = checkDevice)]
pub async fn check_device(on_case: Option<OnCase>) -> JsResult<JsReport> {
    let device = Device::open(&DeviceOptions::default()).await.map_err(thrown)?;
    let checked = check(&device, on_case).await.map_err(thrown)?;
    let report = DeviceReport {
        version: env!("CARGO_PKG_VERSION"),
        system: System { os: "browser".to_owned(), architecture: browser() },
        adapter: &bench::adapter_of(&device),
        checked: &checked,
        measured: None,
    };
    let mut found = json::report(&device, &checked);
    found["report"] = report.json();
    Ok(to_js(&found).unchecked_into())
}

/// How fast this device runs a model: what belongs into `report.bench` of `checkDevice`. It loads the model for itself.
#[wasm_bindgen(js_name = measureDevice)]
pub async fn measure_device(files: JsFiles) -> JsResult<JsValue> {
    let device = Device::open(&DeviceOptions::default()).await.map_err(thrown)?;
    Ok(to_js(&measure(device, &files).await.map_err(thrown)?))
}

/// What it says of itself.
fn browser() -> String {
    let of = |object: &JsValue, name: &str| js_sys::Reflect::get(object, &name.into()).unwrap_or(JsValue::UNDEFINED);
    let navigator = of(&js_sys::global(), "navigator");
    of(&navigator, "userAgent").as_string().unwrap_or_else(|| "unknown".to_owned())
}

async fn check(device: &Device, on_case: Option<OnCase>) -> crate::Result<Report> {
    let cases = conformance::cases();
    let mut done = 0;
    let mut tell = |_: &conformance::CaseReport| {
        done += 1;
        if let Some(on_case) = on_case.as_ref().and_then(|function| function.dyn_ref::<js_sys::Function>()) {
            // Nothing that listens may stop the check.
            let _ = on_case.call2(&JsValue::NULL, &done.into(), &(cases.len() as u32).into());
        }
    };
    conformance::run_cases(device, &cases, &mut tell).await
}

async fn measure(device: Device, files: &JsFiles) -> crate::Result<Value> {
    let mount = mount(files, None);
    let subject = Subject::Checkpoint(mount.model().to_owned());
    let options = SubjectOptions { roofs: ROOFS, ..SubjectOptions::default() };
    let mut bench = Bench::load(device, &subject, &TESTS, &options, &mut |_| {}).await?;
    let mut tests = Vec::new();
    for test in TESTS {
        tests.push(bench.run(test, REPETITIONS).await?);
    }
    Ok(bench::nameless_json(&subject, &bench, &tests))
}
