//! `moebius report`: valid against its schema, and without the names of places.

use crate::common::{golden, gpu_or_skip};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

fn schema() -> jsonschema::Validator {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/device-report.schema.json")).unwrap();
    jsonschema::validator_for(&serde_json::from_str(&text).unwrap()).unwrap()
}

/// The exit code and the report of a small run in `folder`.
fn report(folder: &Path, variables: &[(&str, &str)]) -> (Option<i32>, Value) {
    let out = folder.join("report.json");
    let model = golden("fixtures/mixtral");
    let mut command = Command::new(env!("CARGO_BIN_EXE_moebius"));
    command.args(["report", "-o", "report.json", model.to_str().unwrap(), "--kernel", "embed", "--kernel", "regroup"]);
    command.args(["-p", "8", "-n", "4", "-r", "1", "--roof-size", "2"]).current_dir(folder);
    command.env("MOEBIUS_TUNING", "off").envs(variables.iter().copied());
    let output = command.output().unwrap();
    let text = std::fs::read_to_string(&out).unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), serde_json::from_str(&text).unwrap())
}

#[test]
fn a_report_fits_its_schema_and_names_no_places() {
    if !gpu_or_skip() {
        return;
    }
    let (folder, schema) = (tempfile::tempdir().unwrap(), schema());
    let swiftshader = "/usr/lib/chromium/vk_swiftshader_icd.json";
    let mut drivers: Vec<Vec<(&str, &str)>> = vec![Vec::new()];
    if Path::new(swiftshader).is_file() {
        drivers.push(vec![("VK_DRIVER_FILES", swiftshader), ("MOEBIUS_CHECKED_SHADERS", "1")]);
    }
    for variables in drivers {
        let (code, report) = report(folder.path(), &variables);
        let errors: Vec<String> = schema.iter_errors(&report).map(|error| format!("{}: {error}", error.instance_path)).collect();
        assert!(errors.is_empty(), "{errors:#?}");
        assert_eq!((code, &report["check"]["passed"]), (Some(0), &true.into()));
        let kernels: Vec<&str> =
            report["check"]["kernels"].as_array().unwrap().iter().map(|kernel| kernel["kernel"].as_str().unwrap()).collect();
        assert_eq!(kernels, ["embed", "regroup"]);
        let tests: Vec<&str> =
            report["bench"]["tests"].as_array().unwrap().iter().map(|test| test["name"].as_str().unwrap()).collect();
        assert_eq!(tests, ["pp8", "tg4"]);
        assert_eq!(report["bench"]["model"], "mixtral");
        let text = report.to_string();
        for place in [env!("CARGO_MANIFEST_DIR"), folder.path().to_str().unwrap(), "fixtures"] {
            assert!(!text.contains(place), "{place} in {text}");
        }
    }
}

#[test]
fn a_report_of_a_device_that_computes_wrongly_says_so() {
    if !gpu_or_skip() {
        return;
    }
    let folder = tempfile::tempdir().unwrap();
    let (code, report) = report(folder.path(), &[("MOEBIUS_TEST_BREAK_KERNEL", "regroup")]);
    assert_eq!((code, &report["check"]["passed"]), (Some(1), &false.into()));
    assert!(
        schema().is_valid(&report),
        "{:#?}",
        schema().iter_errors(&report).map(|error| error.to_string()).collect::<Vec<_>>()
    );
    assert!(report["check"]["failures"].as_array().unwrap().iter().all(|case| case["kernel"] == "regroup"));
}

#[test]
fn a_report_that_cannot_be_made_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    for (args, part) in [
        (&["report", "-o", "report.json", "--device", "cpu"][..], "the reference itself"),
        (&["report", "-o", "report.json", "--kernel", "regruop"], "did you mean regroup?"),
        (&["report", "-o", "missing/report.json"], "missing/report.json"),
        (&["report"], "--out"),
    ] {
        let output = Command::new(env!("CARGO_BIN_EXE_moebius")).args(args).current_dir(folder.path()).output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{args:?}: {message}");
        assert!(message.contains(part), "{args:?}: {message}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
