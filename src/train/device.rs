//! Steps on a device.

use super::arena::{Arenas, Layout};
use super::checkpoint::State;
use super::plan::{Plan, Sizes, Subject};
use super::reference::{Outcome, add_report, coefficients, optimiser, rule};
use super::settings::Settings;
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device};
use crate::reference::grad_embed::sorted;
use crate::reference::training::adamw::{AdamW, Moments};
use crate::reference::training::{Batch, LayerReport, LossCoefficients, NO_TARGET, Report, Weights};
use crate::spec::ModelSpec;

/// A model and its optimiser on a device: what [`Trainer`](super::Trainer) runs, for whoever has batches of their own.
pub struct DeviceSteps {
    device: Device,
    spec: ModelSpec,
    layout: Layout,
    arenas: Arenas,
    plan: Plan,
    sizes: Sizes,
    optimiser: AdamW,
    losses: LossCoefficients,
    /// Steps that the moments are the means of.
    steps: u64,
}

const STEP: &str = "a step of training";

impl DeviceSteps {
    /// Parts of a step have as many windows and tokens as `settings` say.
    ///
    /// # Errors
    /// [`Error::NotTrained`] for heads whose width is no multiple of four, [`Error::DeviceLimit`]; [`Error::Gpu`], [`Error::DeviceLost`].
    pub async fn new(device: Device, settings: &Settings, spec: &ModelSpec, weights: &Weights) -> Result<Self> {
        rule(spec)?;
        let is_odd = |head_dim: usize| !head_dim.is_multiple_of(4);
        if spec.layers.iter().filter_map(|layer| layer.attention()).any(|attention| is_odd(attention.head_dim)) {
            return Err(Error::NotTrained { family: spec.family, part: "heads whose width is no multiple of four, on a device" });
        }
        let train = &settings.train;
        let num_targets = train.windows * train.seq_len * train.accumulate;
        let sizes = Sizes { windows: train.windows, seq_len: train.seq_len, num_targets };
        let (layout, optimiser) = (Layout::new(spec), optimiser(settings));
        let recorded = device.catch("recording a step of training", || {
            let arenas = Arenas::new(&device, &layout)?;
            let subject = Subject { device: &device, spec, layout: &layout, arenas: &arenas };
            let plan = Plan::record(subject, sizes, &optimiser)?;
            Ok((arenas, plan))
        });
        let (arenas, plan) = recorded.await?;
        device.write(&arenas.weights, 0, bytemuck::cast_slice(&layout.gather(weights)));
        let (spec, losses) = (spec.clone(), coefficients(settings));
        Ok(DeviceSteps { device, spec, layout, arenas, plan, sizes, optimiser, losses, steps: 0 })
    }

    /// Of the device.
    pub fn name(&self) -> String {
        self.device.name().to_owned()
    }

    /// One step over the gradients of all batches. Each counts its own balance.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`].
    pub async fn step(&mut self, batches: &[Batch], lr: f64) -> Result<Outcome> {
        let parts = batches.len() as f64;
        let losses =
            LossCoefficients { load_balancing: self.losses.load_balancing / parts, router_z: self.losses.router_z / parts };
        let [first, second] = self.optimiser.corrections(self.steps + 1);
        let live = [lr, first, second, losses.load_balancing, losses.router_z].map(|value| value as f32);
        self.device.write(&self.plan.exchange.live, 0, bytemuck::cast_slice(&live));
        self.device.submit(STEP, &[&self.plan.begin]).await?;
        let mut report = Report::default();
        let num_targets: usize = batches.iter().map(Batch::num_targets).sum();
        for batch in batches {
            self.write(batch);
            let results = self.run(&self.plan.part).await?;
            add_report(&mut report, self.report(batch, &results, (num_targets, &losses)), batches.len());
        }
        self.device.submit(STEP, &[&self.plan.finish]).await?;
        let control = self.device.read_as::<f32>(STEP, &self.plan.exchange.control, 4).await?;
        let is_number = control[2] == 1.0;
        self.steps += u64::from(is_number);
        let grad_norm = if is_number { f64::from(control[0]) } else { f64::NAN };
        Ok(Outcome { report, grad_norm })
    }

    /// The losses of a batch of at most as many windows as a step has.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`].
    pub async fn evaluate(&self, batch: &Batch) -> Result<Report> {
        self.write(batch);
        let results = self.run(&self.plan.evaluate).await?;
        Ok(self.report(batch, &results, (batch.num_targets(), &self.losses)))
    }

    async fn run(&self, recording: &crate::gpu::Recording) -> Result<Vec<f32>> {
        self.device.submit(STEP, &[recording]).await?;
        self.device.read_as::<f32>(STEP, &self.plan.exchange.results, self.plan.exchange.results_len).await
    }

    /// Rows beyond those of the batch are of windows that nothing is learnt about.
    fn write(&self, batch: &Batch) {
        let (mut rows, mut targets) = (batch.rows.clone(), batch.targets.clone());
        for row in rows.len()..self.sizes.tokens() {
            let (position, sequence) = (row % self.sizes.seq_len, row / self.sizes.seq_len);
            rows.push(crate::batch::Row::new(0, position as u32, sequence as u32));
            targets.push(NO_TARGET);
        }
        let tokens: Vec<u32> = rows.iter().map(|row| row.token).collect();
        let (spans, order) = sorted(&tokens);
        let exchange = &self.plan.exchange;
        let contents: [(&Buffer, &[u8]); 4] = [
            (&exchange.rows, bytemuck::cast_slice(&rows)),
            (&exchange.targets, bytemuck::cast_slice(&targets)),
            (&exchange.spans, bytemuck::cast_slice(spans.as_flattened())),
            (&exchange.order, bytemuck::cast_slice(&order)),
        ];
        contents.into_iter().for_each(|(buffer, content)| self.device.write(buffer, 0, content));
    }

    /// From what was read back. The counts of a batch that was filled up hold those of what it was filled with.
    fn report(&self, batch: &Batch, results: &[f32], (num_targets, losses): (usize, &LossCoefficients)) -> Report {
        let (of_tokens, mut stats) = results.split_at(self.sizes.tokens());
        let sum: f64 = of_tokens[..batch.rows.len()].iter().copied().map(f64::from).sum();
        let cross_entropy = sum / num_targets as f64;
        let mut report = Report { loss: cross_entropy, cross_entropy, layers: Vec::new() };
        for (_, moe) in self.spec.moe_layers() {
            let num_experts = moe.router.num_experts;
            let (of_layer, rest) = stats.split_at(4 * (num_experts + 1));
            stats = rest;
            let layer = layer_report(of_layer.as_chunks::<4>().0, self.sizes.tokens());
            report.loss += losses.load_balancing * layer.load_balancing + losses.router_z * layer.router_z;
            report.layers.push(layer);
        }
        report
    }

    /// The weights as they are now.
    ///
    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`].
    pub async fn weights(&self) -> Result<Weights> {
        Ok(self.state().await?.weights)
    }

    /// # Errors
    /// [`Error::Gpu`], [`Error::DeviceLost`].
    pub(super) async fn state(&self) -> Result<State> {
        let len = self.layout.total_bytes as usize / size_of::<f32>();
        let mut parts = Vec::new();
        for arena in [&self.arenas.weights, &self.arenas.first, &self.arenas.second] {
            let values = self.device.read_as::<f32>("reading the weights", arena, len).await?;
            parts.push(self.layout.scatter(&self.spec, &values));
        }
        let [second, first, weights] = [parts.pop(), parts.pop(), parts.pop()].map(Option::unwrap_or_default);
        Ok(State { weights, moments: Moments { first, second, steps: self.steps }, exact: false })
    }

    pub(super) fn restore(&mut self, state: &State) {
        let Moments { first, second, steps } = &state.moments;
        for (arena, values) in
            [(&self.arenas.weights, &state.weights), (&self.arenas.first, first), (&self.arenas.second, second)]
        {
            self.device.write(arena, 0, bytemuck::cast_slice(&self.layout.gather(values)));
        }
        self.steps = *steps;
    }
}

/// Of the stats of `gate_stats`, as the reference counts them.
fn layer_report(stats: &[[f32; 4]], num_tokens: usize) -> LayerReport {
    let (of_all, of_experts) = (stats[stats.len() - 1], &stats[..stats.len() - 1]);
    let [mut assignments, mut balance] = [0.0; 2];
    for [count, score, ..] in of_experts {
        assignments += f64::from(*count);
        balance += f64::from(*count) * f64::from(*score);
    }
    LayerReport {
        counts: of_experts.iter().map(|[count, ..]| *count as u32).collect(),
        dropped: 0,
        load_balancing: of_experts.len() as f64 / (assignments * num_tokens as f64) * balance,
        router_z: f64::from(of_all[2]) / num_tokens as f64,
    }
}
