//! What `bench` and `tune` measure: a model, or random weights in the shapes of one.

use super::Global;
use super::model;
use super::number;
use super::progress::{self, Progress, Unit};
use anyhow::Result;
use clap::Args;
use moebius::bench::{Bench, RoofOptions, Subject, SubjectOptions, Test};
use moebius::gpu::Device;
use moebius::model::LoadStep;
use std::path::PathBuf;

#[derive(Args)]
pub struct SubjectArgs {
    /// A directory in Hugging Face layout or a hub id (org/name); the bundled model if left out.
    model: Option<String>,
    /// Random weights in the shapes of this config.json, instead of a model; the context may be longer than the model's own.
    #[arg(long, value_name = "CONFIG", conflicts_with = "model")]
    synthetic: Option<PathBuf>,
    /// Only the first so many layers.
    #[arg(long, requires = "synthetic", value_parser = number::whole)]
    layers: Option<usize>,
}

impl SubjectArgs {
    pub async fn subject(&self) -> Result<Subject> {
        match &self.synthetic {
            Some(config) => Ok(Subject::Synthetic { config: config.clone(), layers: self.layers }),
            None => Ok(Subject::Checkpoint(model::directory(self.model.as_deref()).await?)),
        }
    }
}

pub fn options(global: &Global) -> SubjectOptions {
    SubjectOptions {
        quant: global.quant,
        kv_cache: global.kv_cache,
        context: global.ctx.map(|tokens| tokens.get()),
        expert_memory: global.expert_memory,
        ..SubjectOptions::default()
    }
}

/// Measures the roofs over so many bytes, then loads the subject, with a progress bar.
pub async fn load(device: Device, subject: &Subject, tests: &[Test], global: &Global, roof_bytes: u64) -> Result<Bench> {
    let mut line = Some(Progress::new("load", Unit::Bytes, "measuring what this device can do at most"));
    let roofs = RoofOptions { bytes: roof_bytes, ..RoofOptions::default() };
    let options = SubjectOptions { roofs, ..options(global) };
    let mut progress = |step| match (step, &line) {
        (LoadStep::Weights { done_bytes, total_bytes }, Some(line)) => line.set(done_bytes, total_bytes),
        (LoadStep::Weights { .. }, None) => {}
        (LoadStep::Kernels { done, total }, _) => progress::compiling(&mut line, done, total),
    };
    let bench = Bench::load(device, subject, tests, &options, &mut progress).await;
    drop(line);
    Ok(bench?)
}
