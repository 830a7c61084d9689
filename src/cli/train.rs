//! `moebius train`: a model learns from a text.

use super::failure::Failure;
use super::interrupt::Watch;
use super::run_directory::RunDirectory;
use super::talk::talk;
use super::{Global, files};
use anyhow::Result;
use clap::Args;
use moebius::error::human_bytes;
use moebius::gpu::{DeviceChoice, DeviceKind, DeviceOptions, list_adapters};
use moebius::platform::Stopwatch;
use moebius::spec::Parameters;
use moebius::train::{Settings, StepReport, Trainer, TrainerOptions, metrics_line};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

const EXAMPLES: &str = "\
Examples:
  moebius train --print-settings > settings.toml                  every key, its default and what it means
  moebius train settings.toml --data texts --out run
  moebius train --data book.txt --out run --set train.steps=200 --set gate.num_experts_per_tok=1
  moebius train --resume run --set train.steps=800
  moebius run run/step-000400 \"Once upon a time\"                  what has been learnt

OUT gets metrics.jsonl with a line per step, run.json with all settings, and a model's directory per checkpoint.";

/// Seconds between two lines on stderr.
const TALK_EVERY_S: f64 = 5.0;

/// Train a model on a text.
#[derive(Args)]
#[command(after_help = EXAMPLES)]
pub struct TrainArgs {
    /// A file of settings in TOML; without it, and for keys that it does not have, the defaults hold.
    #[arg(conflicts_with = "resume")]
    settings: Option<PathBuf>,
    /// One setting, as in the file: train.lr=1e-3. May be given several times, and comes after the file.
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, Value)>,
    /// The text, or a folder whose .txt files are read: the setting data.path.
    #[arg(long, value_name = "PATH")]
    data: Option<PathBuf>,
    /// The directory to write: one that is not there yet, or an empty one.
    #[arg(short, long, value_name = "OUT", required_unless_present_any = ["resume", "print_settings", "dry_run"], conflicts_with = "resume")]
    out: Option<PathBuf>,
    /// Go on with the run in this directory, from its last checkpoint.
    #[arg(long, value_name = "OUT")]
    resume: Option<PathBuf>,
    /// Say what the run would need, and end.
    #[arg(long)]
    dry_run: bool,
    /// Print every setting with its value and what it means, as a file of settings, and end.
    #[arg(long)]
    print_settings: bool,
    /// Print one JSON object about the run on stdout.
    #[arg(long)]
    json: bool,
}

/// `section.name=value`, where the value is written as in TOML; what is none is a text.
fn assignment(text: &str) -> Result<(String, Value), String> {
    let (name, value) = text.split_once('=').ok_or("expected KEY=VALUE, such as train.lr=1e-3")?;
    let parsed = toml::from_str::<Map<String, Value>>(&format!("value = {value}")).ok();
    let value = parsed.and_then(|mut table| table.remove("value")).unwrap_or_else(|| value.into());
    Ok((name.trim().to_owned(), value))
}

impl TrainArgs {
    pub async fn run(&self, global: &Global) -> Result<ExitCode> {
        let saved = match &self.resume {
            Some(directory) => Some(RunDirectory::last_checkpoint(directory)?),
            None => None,
        };
        let before = match &saved {
            Some(checkpoint) => Some(Trainer::saved(checkpoint).await?),
            None => None,
        };
        let settings = self.settings(before.as_ref().map(|saved| &saved.settings))?;
        if self.print_settings {
            std::io::stdout().write_all(settings.to_toml().as_bytes())?;
            return Ok(ExitCode::SUCCESS);
        }
        if settings.data.path.is_empty() {
            return Err(Failure::new("there is no text to learn from", "name one: --data FILE, or the setting data.path").into());
        }
        if let Some(before) = &before {
            let changed = settings.differences(&before.settings);
            let changed = if changed.is_empty() {
                "with the same settings".to_owned()
            } else {
                format!("with another {}", changed.join(", "))
            };
            talk!("resume   after step {}, {changed}", before.step);
        }
        if let Some(out) = &self.out {
            RunDirectory::check(out)?;
        }
        let device = DeviceOptions::from_env(chosen_device(&settings, global).await);
        let mut trainer = Trainer::new(&settings, &TrainerOptions { device, resume: saved, documents: None }).await?;
        describe(&trainer);
        let mut out = match (&self.resume, &self.out) {
            _ if self.dry_run => return Ok(ExitCode::SUCCESS),
            (Some(directory), _) => RunDirectory::resume(directory, trainer.steps_done())?,
            (_, Some(out)) => RunDirectory::begin(out)?,
            (None, None) => return Ok(ExitCode::SUCCESS),
        };
        self.train(&mut trainer, &mut out).await
    }

    fn settings(&self, before: Option<&Settings>) -> Result<Settings> {
        let mut settings = before.cloned().unwrap_or_default();
        if let Some(path) = &self.settings {
            let table: Map<String, Value> = toml::from_str(&files::read_text(path)?).map_err(|error| {
                let problem = format!("{} is no TOML: {}", path.display(), error.message());
                Failure::new(problem, "`moebius train --print-settings` prints a valid file")
            })?;
            settings.set_all(&table)?;
        }
        self.set.iter().try_for_each(|(name, value)| settings.set(name, value))?;
        if let Some(path) = &self.data {
            settings.data.path = path.display().to_string();
        }
        Ok(settings)
    }

    async fn train(&self, trainer: &mut Trainer, out: &mut RunDirectory) -> Result<ExitCode> {
        out.write_about(&about(trainer))?;
        let (watch, clock) = (Watch::start(), Stopwatch::start());
        let (first, mut last_talk, mut last) = (trainer.steps_done(), f64::NEG_INFINITY, None);
        while !trainer.is_done() && !watch.requested() {
            let report = trainer.step().await?;
            out.append(&metrics_line(&report))?;
            if clock.seconds() - last_talk > TALK_EVERY_S || report.validation_loss.is_some() || trainer.is_done() {
                last_talk = clock.seconds();
                let per_step = last_talk / (trainer.steps_done() - first) as f64;
                say(&report, trainer, per_step);
            }
            let every = trainer.settings().train.save_every;
            if every > 0 && trainer.steps_done().is_multiple_of(every) && !trainer.is_done() {
                trainer.save(&out.checkpoint(trainer.steps_done())).await?;
            }
            last = Some(report);
        }
        let checkpoint = out.checkpoint(trainer.steps_done());
        if !checkpoint.exists() {
            trainer.save(&checkpoint).await?;
            talk!("wrote    {}", checkpoint.display());
        }
        if self.json {
            let result = json!({
                "out": checkpoint,
                "steps": trainer.steps_done(),
                "last": last.as_ref().map(metrics_line),
                "seconds": clock.seconds(),
            });
            writeln!(std::io::stdout(), "{result}")?;
        }
        if trainer.is_done() { Ok(ExitCode::SUCCESS) } else { Err(moebius::Error::Stopped { what: "training" }.into()) }
    }
}

fn about(trainer: &Trainer) -> Value {
    let parameters = Parameters::of(trainer.spec());
    json!({
        "version": env!("CARGO_PKG_VERSION"),
        "device": trainer.device(),
        "settings": trainer.settings().to_json(),
        "parameters": parameters.total(),
        "active_parameters": parameters.active(),
        "tokens_of_text": trainer.data().num_tokens(),
    })
}

fn describe(trainer: &Trainer) {
    let (parameters, train) = (Parameters::of(trainer.spec()), &trainer.settings().train);
    let tokens = train.accumulate * train.windows * train.seq_len;
    talk!("model    {} parameters, {} of them for a token", parameters.total(), parameters.active());
    talk!("text     {} tokens, {} windows of {}", trainer.data().num_tokens(), trainer.data().num_windows(), train.seq_len);
    talk!("steps    {} of {tokens} tokens, on {}", train.steps, trainer.device());
    talk!("memory   {} for weights, gradients and moments", human_bytes(trainer.state_bytes()));
}

fn say(report: &StepReport, trainer: &Trainer, seconds_per_step: f64) {
    let bits = |loss: f64| loss / std::f64::consts::LN_2 / trainer.bytes_per_token();
    let left = seconds_per_step * (trainer.settings().train.steps - trainer.steps_done()) as f64;
    let validation =
        report.validation_loss.map_or_else(String::new, |loss| format!(", held-out {loss:.4} ({:.3} bits per byte)", bits(loss)));
    talk!(
        "step     {}: loss {:.4} ({:.3} bits per byte), MaxVio {:.2}, {:.0} tokens/s, {left:.0} s left{validation}",
        trainer.steps_done(),
        report.report.loss,
        bits(report.report.cross_entropy),
        report.max_violation(),
        report.tokens_per_s
    );
}

/// What trains where nobody chose: a new model is small, and a software device would compile its kernels longer than the reference trains it.
async fn chosen_device(settings: &Settings, global: &Global) -> DeviceChoice {
    let open = global.device == DeviceChoice::Auto && settings.model.from.is_empty();
    if open && list_adapters().await.first().is_none_or(|best| best.caps.kind == DeviceKind::Software) {
        talk!("device   cpu [reference, Rust]: there is only software here; --device gpu:0 trains on it");
        return DeviceChoice::Cpu;
    }
    global.device.clone()
}
