//! Decode steps that run before anybody asked for their tokens: the sampler on the device feeds each step to the next.

use super::buffers::Buffers;
use super::faults::first_layer;
use super::gpu_decoder::GpuDecoder;
use super::plan::{Output, PlanKey};
use super::sampler::RING;
use super::walk::Walk;
use crate::batch::LayerRouting;
use crate::blocks::LayerTaps;
use crate::error::{Error, Result};
use crate::gpu::{Pace, Readback, Recording};
use crate::kernels::sample::FAULT;
use crate::platform::Stopwatch;
use crate::spec::{SLOT_POSITIONS, STATE_SLOTS};
use std::collections::VecDeque;
use std::ops::Range;

/// Batches of steps that the queue of the device holds at the same time: while the host reads one, the device runs the other.
pub(super) const MAX_BATCHES: usize = 2;
/// Slots for snapshots: those of the batches in the queue, and of the one that is being handed out.
pub(super) const NUM_SLOTS: usize = (MAX_BATCHES + 1) * Pace::MOST_STEPS;
// A text may end with any token that was handed out, when so many more have run: the end of a block before it has to be there still.
const _: () = assert!(STATE_SLOTS >= (SLOT_POSITIONS - 1 + NUM_SLOTS - 1) / SLOT_POSITIONS + 2);
/// What is known about a device before it has run a step: nothing that allows more than one, in pieces of so many commands.
const FIRST_PIECE: usize = 32;
/// In seconds of as many single steps. Whoever wants no more of a prompt is heard once the device is waited for.
const LONG_PASS: f64 = 2.0;

/// The steps between the last one that was handed out and the last one submitted.
#[derive(Debug, Default)]
pub(super) struct Ahead {
    pub batches: VecDeque<Batch>,
    pub ready: VecDeque<Step>,
    /// Where the next batch leaves its snapshots.
    pub next_slot: usize,
    /// The snapshot of expert loads after the last step that was handed out, where later ones have run.
    pub last_slot: Option<usize>,
    /// Runs since the last batch was there.
    pub done: Option<Stopwatch>,
    /// Where experts may be absent, instead of batches.
    pub walk: Option<Walk>,
    /// Steps have been forgotten: the row on the device is not that of the last token that was handed out.
    pub row_is_later: bool,
}

/// Steps of one submission.
#[derive(Debug)]
pub(super) struct Batch {
    pub readback: Readback,
    /// Position of the token that its first step chooses.
    pub position: usize,
    pub steps: usize,
    /// Of its first step; those of the others follow.
    pub slot: usize,
    pub submitted: Stopwatch,
}

/// One step that has run.
#[derive(Debug)]
pub(super) struct Step {
    pub token: u32,
    /// What was computed for it is not finite.
    pub fault: bool,
    pub slot: usize,
    /// Where it is kept.
    pub routing: Option<Vec<LayerRouting>>,
    /// Where experts may be absent: those that it chose, by place, and the first layer whose router was not finite.
    pub chosen: Vec<Vec<u32>>,
    pub faulty_layer: Option<usize>,
}

impl Ahead {
    /// Steps that were submitted and not handed out.
    pub fn steps(&self) -> usize {
        let walking = self.walk.as_ref().map_or(0, Walk::steps);
        self.ready.len() + self.batches.iter().map(|batch| batch.steps).sum::<usize>() + walking
    }

    /// Forgets what was submitted: the text goes on differently. What such steps wrote to the KV cache lies behind its end, and a state that they
    /// moved on is still there as it was after an earlier position: see [`Ledger`](super::ledger::Ledger).
    pub fn clear(&mut self) {
        let (next_slot, row_is_later) = (self.next_slot, self.row_is_later || self.steps() > 0);
        *self = Ahead { next_slot, row_is_later, ..Ahead::default() };
    }
}

/// How long a step takes, as far as is known.
#[derive(Debug, Default)]
pub(super) struct StepTime {
    seconds: Option<f64>,
    /// Steps of the largest batch so far.
    most: usize,
}

impl StepTime {
    /// Steps for the next submission, at least 1. The number grows by doubling: what a first step took may have been compiling.
    pub fn steps(&self, pace: Pace) -> usize {
        match self.seconds {
            Some(seconds) => ((pace.seconds / seconds) as usize).min(2 * self.most).min(pace.steps).clamp(1, Pace::MOST_STEPS),
            None => 1,
        }
    }

    /// Submissions for so many `commands` that take `steps` at most.
    pub fn pieces(&self, pace: Pace, steps: usize, commands: usize) -> usize {
        match self.seconds {
            Some(seconds) => (steps as f64 * seconds / pace.seconds).ceil() as usize,
            None => commands.div_ceil(FIRST_PIECE),
        }
        .clamp(1, commands.max(1))
    }

    /// Whether a pass over so many tokens is better waited for before more follows: it may take a while.
    pub fn is_long(&self, num_tokens: usize) -> bool {
        self.seconds.is_none_or(|seconds| num_tokens as f64 * seconds > LONG_PASS)
    }

    /// A batch of `steps` was there `seconds` after the device could begin with it.
    pub fn observe(&mut self, steps: usize, seconds: f64) {
        let now = seconds / steps as f64;
        self.seconds = Some(self.seconds.map_or(now, |known| now.min(0.5 * (known + now))));
        self.most = self.most.max(steps);
    }
}

impl GpuDecoder {
    /// Feeds the last chosen token back and chooses the next. `wanted`: tokens that the caller may ask for from now on, this one included;
    /// the device runs so far ahead at most.
    pub(super) async fn decode(&mut self, wanted: usize) -> Result<u32> {
        if self.paged.is_some() {
            return self.decode_paged(wanted).await;
        }
        let fed = self.last_sampled;
        let row_is_later = std::mem::take(&mut self.ahead.row_is_later);
        let returned = self.return_to(self.position).await?;
        if self.extend_history(&[fed], self.position).await? || returned || row_is_later {
            // Another pass has overwritten the row, or a step that is forgotten.
            self.upload_rows(&[fed], self.position).await?;
        }
        // Otherwise the sampler has left the chosen token in row 0: nothing to upload.
        self.submit_ahead(wanted).await?;
        if self.ahead.ready.is_empty() {
            self.take_batch().await?;
        }
        let step = self.ahead.ready.pop_front().expect("a batch has steps");
        if step.fault {
            return Err(self.fault_of_step(&step).await);
        }
        self.position += 1;
        self.last_sampled = step.token;
        self.ahead.last_slot = Some(step.slot);
        self.routing = step.routing;
        Ok(step.token)
    }

    /// Fills the queue of the device.
    async fn submit_ahead(&mut self, wanted: usize) -> Result<()> {
        let taps = self.routing.is_some();
        let key = PlanKey { num_tokens: 1, output: Output::Token, taps };
        self.prepare(key).await?;
        while self.ahead.batches.len() < MAX_BATCHES {
            let position = self.position + self.ahead.steps();
            // A step whose token makes the text long or short for its rotary embedding is not for here.
            let unturned = |steps: &usize| {
                position + steps <= self.buffers.memory.cache.context && self.spec.is_long(position + steps) == self.is_long
            };
            let most = self.step_time.steps(self.device.pace()).min(wanted.saturating_sub(self.ahead.steps()));
            let steps = (1..=most).take_while(unturned).count();
            if steps == 0 {
                return Ok(());
            }
            self.submit_batch(key, position, steps).await?;
        }
        Ok(())
    }

    async fn submit_batch(&mut self, key: PlanKey, position: usize, steps: usize) -> Result<()> {
        let GpuDecoder { device, buffers: Buffers { memory, sampler, .. }, .. } = &*self;
        let (slot, ring_bytes) = (self.ahead.next_slot, sampler.sampled_bytes());
        let tap_bytes = (LayerTaps::len(&memory.taps, 1) * 4) as u64;
        let mut after = Vec::with_capacity(steps);
        for step in 0..steps {
            let mut recording = Recording::default();
            let load_bytes = memory.loads.size_bytes();
            recording.copy(&memory.loads, &sampler.load_steps, (slot + step) as u64 * load_bytes, load_bytes);
            if key.taps {
                recording.copy(&memory.tap_values, &sampler.tap_steps, ring_bytes + step as u64 * tap_bytes, tap_bytes);
            }
            if step + 1 == steps {
                sampler.copy_faults(memory, &mut recording);
            }
            if key.taps && step + 1 == steps {
                recording.copy(&sampler.sampled, &sampler.tap_steps, 0, ring_bytes);
            }
            after.push(recording);
        }
        let plan = &self.plans[&key];
        let recordings: Vec<&Recording> = after.iter().flat_map(|after| plan.recordings().into_iter().chain([after])).collect();
        let commands = recordings.iter().map(|recording| recording.commands().len()).sum();
        let pieces = self.step_time.pieces(device.pace(), steps, commands);
        let result =
            if key.taps { (&sampler.tap_steps, ring_bytes + steps as u64 * tap_bytes) } else { (&sampler.sampled, ring_bytes) };
        let readback = device.submit_and_read("decoding", &recordings, pieces, result).await?;
        self.ledger.ran(position..position + steps);
        self.ahead.batches.push_back(Batch { readback, position: position + 1, steps, slot, submitted: Stopwatch::start() });
        self.ahead.next_slot = (slot + Pace::MOST_STEPS) % NUM_SLOTS;
        Ok(())
    }

    /// Waits for the oldest batch.
    async fn take_batch(&mut self) -> Result<()> {
        let batch = self.ahead.batches.pop_front().expect("a step was submitted");
        let words = self.device.take("reading the next tokens", batch.readback).await?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&words);
        // The device began with it when it was there, or when the one before was done.
        let seconds = self.ahead.done.as_ref().map_or(f64::INFINITY, Stopwatch::seconds).min(batch.submitted.seconds());
        self.step_time.observe(batch.steps, seconds);
        self.ahead.done = Some(Stopwatch::start());
        let (ring, rest) = words.split_at(RING);
        let (faults, taps) = rest.split_at(self.spec.layers.len());
        let checked = !self.device.unchecked_results();
        let faults = if checked && first_layer(faults).is_some() {
            self.faulty_slots(batch.slot..batch.slot + batch.steps).await?
        } else {
            Vec::new()
        };
        let tap_len = LayerTaps::len(&self.buffers.memory.taps, 1);
        for step in 0..batch.steps {
            let routing = self.routing.is_some().then(|| {
                let mut layers = self.no_routing();
                self.buffers.memory.append_routing(&taps[step * tap_len..], 1, &mut layers);
                layers
            });
            let word = ring[(batch.position + step) % RING];
            let slot = batch.slot + step;
            let fault = checked && (word & FAULT != 0 || faults.contains(&slot) || self.is_nonsense(routing.as_deref()));
            let (token, chosen, faulty_layer) = (word & !FAULT, Vec::new(), None);
            self.ahead.ready.push_back(Step { token, fault, slot, routing, chosen, faulty_layer });
        }
        Ok(())
    }

    pub(super) fn is_nonsense(&self, routing: Option<&[LayerRouting]>) -> bool {
        let layers = routing.unwrap_or_default().iter().zip(&self.buffers.memory.taps);
        layers.into_iter().any(|(routing, taps)| routing.is_nonsense(taps.num_experts_per_tok))
    }

    /// Those of the slots of a batch after whose steps a router had counted what is not finite.
    async fn faulty_slots(&self, slots: Range<usize>) -> Result<Vec<usize>> {
        let mut faulty = Vec::new();
        for slot in slots {
            if first_layer(&self.faults_at(slot).await?).is_some() {
                faulty.push(slot);
            }
        }
        Ok(faulty)
    }

    /// What routers had counted, by layer, after the step of a slot.
    async fn faults_at(&self, slot: usize) -> Result<Vec<u32>> {
        let counters = (self.buffers.memory.loads.size_bytes() / 4) as usize;
        let end = slot * counters + self.spec.layers.len();
        Ok(self.device.read_as("reading the faults", &self.buffers.sampler.load_steps, end).await?.split_off(slot * counters))
    }

    /// Where the fault of a step begins. The token that it was made from is part of the text already.
    async fn fault_of_step(&mut self, step: &Step) -> Error {
        match self.faults_at(step.slot).await {
            Ok(faults) => self.fault(first_layer(&faults), &[]).await,
            Err(error) => error,
        }
    }
}
