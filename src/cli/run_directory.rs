//! The directory of a run of training: what was asked for, a line per step, and checkpoints.

#![allow(clippy::disallowed_methods, reason = "the command line opens the files that the user names")]

use super::failure::Failure;
use anyhow::{Context, Result};
use moebius::train::step_directory;
use serde_json::Value;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

const METRICS: &str = "metrics.jsonl";
const ABOUT: &str = "run.json";

/// A run that is being written.
pub struct RunDirectory {
    path: PathBuf,
    metrics: File,
}

impl RunDirectory {
    /// Makes sure that a new one can be at `path`: nothing may be there, or an empty directory.
    pub fn check(path: &Path) -> Result<()> {
        drop(moebius::platform::NewDirectory::prepare(path)?);
        Ok(())
    }

    /// A new one, which is filled step by step.
    pub fn begin(path: &Path) -> Result<Self> {
        Self::check(path)?;
        fs::create_dir_all(path).with_context(|| format!("cannot write {}", path.display()))?;
        Self::with_metrics(path, "")
    }

    /// One that goes on after so many steps: lines of later ones, which were not saved, are taken away.
    pub fn resume(path: &Path, step: usize) -> Result<Self> {
        let path = Self::of(path);
        let before = fs::read_to_string(path.join(METRICS)).unwrap_or_default();
        let is_kept = |line: &&str| {
            let line: Option<Value> = serde_json::from_str(line).ok();
            line.and_then(|line| line["step"].as_u64()).is_some_and(|of_line| of_line < step as u64)
        };
        let kept: String = before.lines().filter(is_kept).map(|line| format!("{line}\n")).collect();
        Self::with_metrics(&path, &kept)
    }

    fn with_metrics(path: &Path, lines: &str) -> Result<Self> {
        let metrics = path.join(METRICS);
        moebius::platform::replace_file(&metrics, lines.as_bytes())?;
        let opened = OpenOptions::new().append(true).open(&metrics);
        let metrics = opened.with_context(|| format!("cannot write {}", metrics.display()))?;
        Ok(RunDirectory { path: path.to_owned(), metrics })
    }

    /// The run that a path names: its directory, or one of its checkpoints.
    fn of(path: &Path) -> PathBuf {
        let is_checkpoint = path.join("state.safetensors").is_file();
        path.parent().filter(|_| is_checkpoint).unwrap_or(path).to_owned()
    }

    /// The last checkpoint of the run at `path`, or the checkpoint that `path` is.
    pub fn last_checkpoint(path: &Path) -> Result<PathBuf> {
        if path.join("state.safetensors").is_file() {
            return Ok(path.to_owned());
        }
        let entries = fs::read_dir(path).with_context(|| format!("cannot read {}", path.display()))?;
        let steps = entries.flatten().filter_map(|entry| {
            let step: usize = entry.file_name().to_str()?.strip_prefix("step-")?.parse().ok()?;
            Some((step, entry.path()))
        });
        let last = steps.max().map(|(_, path)| path);
        last.ok_or_else(|| {
            let problem = format!("{} has no checkpoint", path.display());
            Failure::new(
                problem,
                "name the directory of a run that `moebius train --out` wrote, with a folder step-000100 or the like",
            )
            .into()
        })
    }

    pub fn write_about(&self, about: &Value) -> Result<()> {
        Ok(moebius::platform::replace_file(&self.path.join(ABOUT), format!("{about:#}\n").as_bytes())?)
    }

    /// Adds the line of a step.
    pub fn append(&mut self, line: &Value) -> Result<()> {
        let written = self.metrics.write_all(format!("{line}\n").as_bytes());
        written.with_context(|| format!("cannot write {}", self.path.join(METRICS).display()))
    }

    /// Where the checkpoint after so many steps is to be.
    pub fn checkpoint(&self, step: usize) -> PathBuf {
        step_directory(&self.path, step)
    }
}
