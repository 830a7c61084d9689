//! `moebius report`: what a device is, whether its numbers are right and how fast it is, in one file to attach to an issue.

use super::files::NewFile;
use super::progress::{Progress, Unit};
use super::subject::{self, SubjectArgs};
use super::talk::talk;
use super::{Global, check, model, number, stats};
use anyhow::Result;
use clap::Args;
use moebius::bench::{self, Bench, DeviceReport, System, Test, TestReport, Work};
use moebius::gpu::DeviceChoice;
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
        let adapter = bench::adapter_of(&device);
        let mut bench = subject::load(device, &subject, &tests, global, (self.roof_size.get() as u64) << 20).await?;
        let tests = self.measure(&mut bench, &tests).await?;

        let report = DeviceReport {
            version: super::VERSION,
            system: System::native(),
            adapter: &adapter,
            checked: &checked,
            measured: Some(bench::nameless_json(&subject, &bench, &tests)),
        };
        let report = report.json();
        out.write(format!("{}\n", serde_json::to_string_pretty(&report)?).as_bytes())?;
        let (passed, all) = (checked.cases.len() - checked.failures().count(), checked.cases.len());
        talk!("wrote    {}: {passed} of {all} cases passed", self.out.display());
        Ok(if checked.passed() { ExitCode::SUCCESS } else { ExitCode::from(1) })
    }

    async fn measure(&self, bench: &mut Bench, tests: &[Test]) -> Result<Vec<TestReport>> {
        let mut reports = Vec::new();
        let (line, times) = (Progress::new("bench", Unit::Tests, ""), self.repetitions.get());
        for (index, &test) in tests.iter().enumerate() {
            line.set(index as u64 + 1, tests.len() as u64);
            line.say(test.name());
            reports.push(bench.run(test, times).await?);
        }
        Ok(reports)
    }
}
