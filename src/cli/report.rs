//! `moebius report`: what a device is, whether its numbers are right and how fast it is, in one file to attach to an issue.

use super::bench_figures::Figures;
use super::files::NewFile;
use super::progress::{Progress, Unit};
use super::subject::{self, SubjectArgs};
use super::talk::talk;
use super::{Global, check, devices, model, number, stats};
use anyhow::Result;
use clap::Args;
use moebius::bench::{self, Bench, Subject, Test, Work};
use moebius::gpu::{AdapterSummary, DeviceChoice};
use serde_json::{Value, json};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius report -o report.json                       the best device: all kernels, and the bundled model
  moebius report -o report.json --device gpu:1        another one
  moebius report -o report.json --kernel attention    only this kernel is checked

The file has no name of a host, a user or a folder in it, and nothing is sent anywhere. docs/devices.md says what to do with it.
Exit code 1 if a kernel differs from its reference; the file is written all the same.";

/// The version of what is written; described by docs/device-report.schema.json.
const FORMAT: &str = "moebius-device-report 1";

/// Write a report on this device into a file.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct ReportArgs {
    /// The file to write.
    #[arg(short, long, value_name = "FILE")]
    out: PathBuf,
    /// Check only this kernel; may be given several times.
    #[arg(long, value_name = "KERNEL", value_parser = check::kernel)]
    kernel: Vec<&'static str>,
    /// Tokens of the prompt that is measured.
    #[arg(short, long, value_name = "TOKENS", default_value = "512", value_parser = number::positive)]
    prompt: NonZeroUsize,
    /// Tokens that are generated.
    #[arg(short = 'n', long, value_name = "TOKENS", default_value = "128", value_parser = number::positive)]
    generate: NonZeroUsize,
    /// How often each test runs, after a warm-up.
    #[arg(short, long, value_name = "TIMES", default_value = "5", value_parser = number::positive)]
    repetitions: NonZeroUsize,
    /// Mebibytes over which the device's limits are measured.
    #[arg(long, value_name = "MIB", default_value = "1024", value_parser = number::positive)]
    roof_size: NonZeroUsize,
    #[command(flatten)]
    subject: SubjectArgs,
}

impl ReportArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        if global.device == DeviceChoice::Cpu {
            return Err(check::nothing_to_compare().into());
        }
        let out = NewFile::prepare(&self.out)?;
        let subject = self.subject.subject().await?;
        let tests = [Work::Prefill(self.prompt.get()), Work::Decode(self.generate.get())].map(|work| Test { work, depth: 0 });
        subject.check(&tests, &subject::options(global)).await?;
        let (device, description) = bench::open_device(&model::device_options(global)).await?;
        talk!("device   {}", model::describe(&description));
        stats::say_tuning(&device);

        let checked = check::check(&device, &self.kernel).await?;
        let adapter = AdapterSummary {
            name: description.name.clone(),
            backend: description.backend.clone(),
            driver: description.driver.clone(),
            caps: device.caps().clone(),
        };
        let mut bench = subject::load(device, &subject, &tests, global, (self.roof_size.get() as u64) << 20).await?;
        let figures = self.measure(&mut bench, &tests).await?;

        let mut measured = figures.json(&subject, &description, &bench);
        measured["model"] = without_places(&subject, &bench);
        let report = json!({
            "format": FORMAT,
            "moebius": super::VERSION,
            "system": { "os": std::env::consts::OS, "architecture": std::env::consts::ARCH },
            "device": devices::adapter_json(&adapter),
            "check": check::summary_json(&checked),
            "bench": measured,
        });
        out.write(format!("{}\n", serde_json::to_string_pretty(&report)?).as_bytes())?;
        let (passed, all) = (checked.cases.len() - checked.failures().count(), checked.cases.len());
        talk!("wrote    {}: {passed} of {all} cases passed", self.out.display());
        Ok(if checked.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn measure(&self, bench: &mut Bench, tests: &[Test]) -> Result<Figures> {
        let mut figures = Figures::default();
        let (line, times) = (Progress::new("bench", Unit::Tests, ""), self.repetitions.get());
        for (index, &test) in tests.iter().enumerate() {
            line.set(index as u64 + 1, tests.len() as u64);
            line.say(test.name());
            figures.tests.push(bench.run(test, times).await?);
        }
        Ok(figures)
    }
}

/// A folder's name may be that of a person or a project.
fn without_places(subject: &Subject, bench: &Bench) -> Value {
    match subject {
        Subject::Synthetic { .. } => json!(format!("{}, random weights", bench.spec().family)),
        Subject::Checkpoint(_) => json!(bench.spec().family),
    }
}
