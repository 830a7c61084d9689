//! `moebius tune`: which variants of the kernels are quickest on this device.

use super::failure::Failure;
use super::number;
use super::progress::{Progress, Unit};
use super::subject::{self, SubjectArgs};
use super::talk::talk;
use super::{Global, model, table};
use anyhow::Result;
use clap::Args;
use moebius::DeviceDescription;
use moebius::bench::{self, Test, Trial, TuneEvent, TuneOptions, Tuned, Verdict, Work};
use moebius::gpu::{DeviceOptions, Tuning, Tunings};
use moebius::platform;
use serde_json::{Value, json};
use std::io::Write;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius tune                                   with the bundled model
  moebius tune org/name --quant q4_0             with the model and the format that you use
  moebius tune --synthetic olmoe/config.json --quant q4_0 --layers 2
  moebius tune --reset                           back to what the kernels choose by themselves

Each knob is tried value by value, in turns with the value to beat, and the logits of each are compared with those of the untuned kernels. What is
quicker by 3 % is kept for this adapter, driver and version, and every later command uses it. MOEBIUS_TUNING=FILE keeps it elsewhere, MOEBIUS_TUNING=off
leaves it aside. Nothing else should run meanwhile.";

/// Find the quickest variants of the kernels on this device, by measuring them.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct TuneArgs {
    /// Length of the prompt that is timed, in tokens.
    #[arg(short = 'p', long = "prompt", value_name = "TOKENS", default_value = "512", value_parser = number::positive)]
    prompt: NonZeroUsize,
    /// Number of tokens that are generated and timed.
    #[arg(short = 'n', long = "generate", value_name = "TOKENS", default_value = "32", value_parser = number::positive)]
    generate: NonZeroUsize,
    /// How often each value is timed, each time after a warm-up.
    #[arg(short, long, value_name = "TIMES", default_value = "7", value_parser = number::positive)]
    repetitions: NonZeroUsize,
    #[command(flatten)]
    subject: SubjectArgs,
    /// Measure, but keep what was known before.
    #[arg(long)]
    dry_run: bool,
    /// Forget what is known of this device, and measure nothing.
    #[arg(long, conflicts_with_all = ["model", "synthetic", "dry_run", "json"])]
    reset: bool,
    /// Print one JSON object on stdout.
    #[arg(long)]
    json: bool,
}

impl TuneArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        let path = tunings_path().ok_or_else(|| {
            let problem = "there is nowhere to keep what is found: MOEBIUS_TUNING is off, or there is no home directory";
            Failure::new(problem, "set MOEBIUS_TUNING to the file to keep it in")
        })?;
        let mut tunings = Tunings::read(&path).await?;
        let (device, description) = bench::open_device(&DeviceOptions::from_env(global.device.clone())).await?;
        talk!("device   {}", model::describe(&description));
        let tuned_for = device.tuned_for();
        if self.reset {
            tunings.set(tuned_for, Tuning::default());
            tunings.write(&path)?;
            talk!("untuned  {}", path.display());
            return Ok(ExitCode::SUCCESS);
        }

        if !self.dry_run {
            // Before anybody waits: whether it can be written at all.
            tunings.write(&path)?;
        }

        let subject = self.subject.subject().await?;
        let options = TuneOptions { prompt: self.prompt.get(), generate: self.generate.get(), rounds: self.repetitions.get() };
        let tests = [Work::Prefill(options.prompt), Work::Decode(options.generate)].map(|work| Test { work, depth: 0 });
        // Roofs are no matter here: as few bytes as can be.
        let mut bench = subject::load(device, &subject, &tests, global, 1 << 20).await?;
        talk!("model    {}: {}, weights in {}\n", subject.path().display(), bench.spec().family, bench.formats().join(", "));

        let mut trials = Vec::new();
        let line_of_progress = Progress::new("tune", Unit::Knobs, "the kernels as they are");
        let tuned = bench
            .tune(&options, &mut |event| match event {
                TuneEvent::Knob { knob, number, of } => {
                    line_of_progress.set(number as u64, of as u64);
                    line_of_progress.say(knob.name());
                }
                TuneEvent::Trial(trial) => {
                    line_of_progress.suspend(|| talk!("{}", line(trial)));
                    trials.push(trial.clone());
                }
            })
            .await;
        drop(line_of_progress);
        let tuned = tuned?;
        if !self.dry_run {
            tunings.set(tuned_for, tuned.tuning.clone());
            tunings.write(&path)?;
        }
        self.print(&description, &trials, &tuned, &path)?;
        Ok(ExitCode::SUCCESS)
    }

    fn print(&self, description: &DeviceDescription, trials: &[Trial], tuned: &Tuned, path: &Path) -> Result<()> {
        let mut stdout = std::io::stdout().lock();
        let kept = (!self.dry_run).then_some(path);
        if self.json {
            let result = json!({
                "device": bench::device_json(description),
                "trials": trials.iter().map(trial_json).collect::<Vec<_>>(),
                "tuning": tuned.tuning,
                "gains": gains_json(&tuned.gains.map(Some)),
                "kept": kept,
            });
            writeln!(stdout, "{result}")?;
            return Ok(());
        }
        let header = ["knob", "value", "over", "prompt", "decode", ""];
        let rows: Vec<Vec<String>> = trials.iter().map(row).collect();
        writeln!(stdout, "{}", table::aligned(&header, &rows))?;
        if tuned.tuning.is_empty() {
            writeln!(stdout, "nothing is quicker by 3 % than what the kernels choose by themselves")?;
        } else {
            let [prompt, decode] = tuned.gains;
            writeln!(stdout, "{}: prompts {prompt:.2} times as fast, decode {decode:.2} times", tuned.tuning)?;
        }
        if let Some(path) = kept {
            writeln!(stdout, "kept in {}", path.display())?;
        }
        Ok(())
    }
}

/// Where tunings are kept: the file that `MOEBIUS_TUNING` names, or one in the cache of this user. `None`: nowhere.
pub fn tunings_path() -> Option<PathBuf> {
    match std::env::var_os("MOEBIUS_TUNING").filter(|value| !value.is_empty()) {
        Some(value) if value == "off" => None,
        Some(value) => Some(PathBuf::from(value)),
        None => Some(platform::cache_directory()?.join("moebius").join("tuning.json")),
    }
}

fn line(trial: &Trial) -> String {
    let Trial { knob, value, over, .. } = trial;
    format!("tried    {} {value} instead of {over}: {}", knob.name(), verdict(&trial.verdict))
}

fn row(trial: &Trial) -> Vec<String> {
    let [prompt, decode] = trial.gains.map(|gain| gain.map_or(String::new(), |gain| format!("{gain:.2} x")));
    let Trial { knob, value, over, .. } = trial;
    vec![knob.name().to_owned(), value.to_string(), over.to_string(), prompt, decode, verdict(&trial.verdict)]
}

fn verdict(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Taken => "taken".to_owned(),
        Verdict::NotQuicker => "not quicker".to_owned(),
        Verdict::Beaten => "quicker, but not the quickest".to_owned(),
        Verdict::Wrong(difference) => format!("wrong: logits differ by {difference:.1e}; `moebius check` says more"),
        Verdict::Failed(problem) => format!("failed: {problem}"),
    }
}

fn gains_json(gains: &[Option<f64>; 2]) -> Value {
    json!({ "prompt": gains[0], "decode": gains[1] })
}

fn trial_json(trial: &Trial) -> Value {
    let Trial { knob, value, over, gains, .. } = trial;
    let taken = trial.verdict == Verdict::Taken;
    json!({
        "knob": knob,
        "value": value,
        "over": over,
        "gains": gains_json(gains),
        "taken": taken,
        "verdict": verdict(&trial.verdict),
    })
}
