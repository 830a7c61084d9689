//! Single tokens through a plan whose routers halt where an expert is not there: the host loads it, and the token goes on.
//!
//! A walk is submitted in parts, each so far as [`Reach`](super::reach::Reach) says. After every token of a part, and at its end, the device leaves a report
//! of what was chosen and whether something halted. Behind a halt nothing lasts, so that whatever was submitted after it is forgotten. Between two calls a
//! walk is whole, whether it runs or has halted: an error while loading leaves it where it is, and the next call tries again.

use super::ahead::{MAX_BATCHES, Step};
use super::buffers::Buffers;
use super::faults::first_layer;
use super::go_on;
use super::gpu_decoder::GpuDecoder;
use super::paged::Paged;
use super::plan::{Output, PlanKey, Steps};
use super::reach::{Extent, Resume, Run};
use super::records::Records;
use super::sampler::RING;
use crate::batch::Row;
use crate::blocks::{Arena, HaltRecord, LayerTaps};
use crate::error::Result;
use crate::gpu::{Readback, Recording};
use crate::kernels::sample::FAULT;
use crate::platform::Stopwatch;
use crate::quant::padded;
use crate::spec::Role;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

/// One token after the other, until somebody wants another text.
#[derive(Debug)]
pub(super) struct Walk {
    attempted: &'static str,
    plan: Arc<Steps>,
    /// Ends of it choose a token.
    samples: bool,
    /// Somebody wants to see what routers did.
    taps: bool,
    /// Where the next part begins.
    next: Point,
    parts: VecDeque<Part>,
    stop: Option<Stop>,
    /// The token that is on its way, the oldest of them.
    fed: u32,
    position: usize,
    /// Layers of its way whose experts it has used.
    seen: usize,
}

/// A place between two pieces of a plan.
#[derive(Debug, Clone, Copy)]
struct Point {
    /// Of the token.
    position: usize,
    piece: usize,
    /// The residual stream has to be what it was where the token halted.
    restores: bool,
}

/// What was submitted together.
#[derive(Debug)]
struct Part {
    readback: Readback,
    first_piece: usize,
    ends: Vec<End>,
    submitted: Stopwatch,
}

/// Where the device leaves a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    Step,
    /// Behind the router of this place.
    Router(usize),
}

/// A token has halted.
#[derive(Debug, Clone)]
struct Stop {
    place: usize,
    /// What it chose there.
    ids: Vec<u32>,
    /// Nothing was run behind it.
    is_last: bool,
}

impl Walk {
    /// Tokens that were submitted whole.
    pub fn steps(&self) -> usize {
        self.parts.iter().map(|part| part.ends.iter().filter(|end| **end == End::Step).count()).sum()
    }
}

impl End {
    /// How many routers lie before it.
    fn places(self, num_places: usize) -> usize {
        match self {
            End::Step => num_places,
            End::Router(place) => place + 1,
        }
    }

    /// The first piece of the plan that lies behind it; none: that of the next token.
    fn piece(self) -> Option<usize> {
        match self {
            End::Step => None,
            End::Router(place) => Some(2 * place + 2),
        }
    }
}

impl GpuDecoder {
    /// As [`decode`](Self::decode), where an expert may be absent.
    pub(super) async fn decode_paged(&mut self, wanted: usize) -> Result<u32> {
        let fed = self.last_sampled;
        let returned = self.return_to(self.position).await?;
        if self.extend_history(&[fed], self.position).await? || returned {
            self.ahead.clear();
        }
        let key = PlanKey { num_tokens: 1, output: Output::Token, taps: self.routing.is_some() };
        self.prepare(key).await?;
        if self.ahead.walk.is_none() {
            let plan = self.plans[&key].steps();
            self.begin_walk("decoding", (plan, key.taps), Row::new(fed, self.position as u32, 0)).await?;
        }
        self.walk_on(wanted).await?;
        let step = self.ahead.ready.pop_front().expect("a walk goes on until a token is there");
        if step.fault {
            return Err(self.fault(step.faulty_layer, &[]).await);
        }
        self.position += 1;
        self.last_sampled = step.token;
        self.paging_mut().count(&step.chosen);
        self.routing = step.routing;
        Ok(step.token)
    }

    /// Runs one token by itself, whose row is there.
    pub(super) async fn run_single(&mut self, plan: &Arc<Steps>, row: Row) -> Result<()> {
        self.ahead.clear();
        self.begin_walk("running the model", (plan.clone(), false), row).await?;
        self.walk_on(1).await?;
        let step = self.ahead.ready.pop_front().expect("a walk goes on until a token is there");
        self.ahead.walk = None;
        let paged = self.paging_mut();
        paged.count(&step.chosen);
        paged.faulty_layer = step.faulty_layer;
        Ok(())
    }

    fn paging_mut(&mut self) -> &mut Paged {
        self.paged.as_mut().expect("only paged decoders walk")
    }

    async fn begin_walk(&mut self, attempted: &'static str, (plan, taps): (Arc<Steps>, bool), row: Row) -> Result<()> {
        let samples = plan.samples;
        self.write_tables(attempted).await?;
        let write = || {
            self.write_halt();
            self.device.write(&self.buffers.memory.rows, 0, bytemuck::bytes_of(&row));
            Ok(())
        };
        self.device.catch(attempted, write).await?;
        let position = row.position as usize;
        let next = Point { position, piece: 0, restores: false };
        let (parts, fed) = (VecDeque::new(), row.token);
        self.ahead.walk = Some(Walk { attempted, plan, samples, taps, next, parts, stop: None, fed, position, seen: 0 });
        Ok(())
    }

    /// Nothing has halted. Call inside [`Device::catch`](crate::gpu::Device::catch).
    fn write_halt(&self) {
        let record = halt_record(&self.buffers);
        self.device.write(&record.buffer, 0, bytemuck::cast_slice(&record.running()));
    }

    fn walk(&self) -> &Walk {
        self.ahead.walk.as_ref().expect("a walk has begun")
    }

    fn walk_mut(&mut self) -> &mut Walk {
        self.ahead.walk.as_mut().expect("a walk has begun")
    }

    /// Goes on until a token is there, and fills the queue of the device.
    async fn walk_on(&mut self, wanted: usize) -> Result<()> {
        loop {
            if self.walk().stop.is_some() && self.ahead.ready.is_empty() {
                go_on(&self.cancel)?;
                self.load_missing().await?;
            }
            while let Some(ends) = self.next_ends(wanted) {
                self.submit_part(ends).await?;
            }
            if !self.ahead.ready.is_empty() {
                return Ok(());
            }
            self.take_part().await?;
        }
    }

    /// Where reports of the next part are to be, if there is room for one in the queue.
    fn next_ends(&self, wanted: usize) -> Option<Vec<End>> {
        let (walk, reach) = (self.walk(), &self.paged.as_ref()?.reach);
        let num_places = walk.plan.cuts.len();
        let extent = match (self.has_state(), self.device.submit_layers()) {
            // A state that has moved on with what is behind a halt is lost.
            (true, _) => Extent::Layers(1),
            (_, Some(layers)) if layers < num_places => Extent::Layers(layers),
            (_, Some(layers)) => Extent::Steps(layers / num_places),
            (false, None) => reach.extent(num_places),
        };
        let is_calm = reach.is_calm() && matches!(extent, Extent::Steps(_));
        let most = wanted.saturating_sub(self.ahead.steps());
        if walk.stop.is_some() || most == 0 || walk.parts.len() >= if is_calm { MAX_BATCHES } else { 1 } {
            return None;
        }
        match extent {
            Extent::Layers(layers) => {
                let last = walk.next.piece.div_ceil(2) + layers - 1;
                Some(vec![if last < num_places { End::Router(last) } else { End::Step }])
            }
            Extent::Steps(steps) => {
                let position = walk.next.position;
                // A step whose token makes the text long or short for its rotary embedding is not for here.
                let unturned = |steps: &usize| {
                    let end = position + steps;
                    end <= self.buffers.memory.cache.context && self.spec.is_long(end) == self.is_long
                };
                let most = most.min(steps).min(self.step_time.steps(self.device.pace()));
                Some(vec![End::Step; 1 + (2..=most).take_while(unturned).count()])
            }
        }
    }

    /// Whether the model keeps a state that a token which runs in vain would spoil.
    fn has_state(&self) -> bool {
        self.spec.held_state_bytes() > 0
    }

    async fn submit_part(&mut self, ends: Vec<End>) -> Result<()> {
        let GpuDecoder { device, buffers: Buffers { memory, sampler, scratch, .. }, .. } = &*self;
        let (Walk { attempted, plan, taps, next, .. }, record) = (self.walk(), halt_record(&self.buffers));
        let mut before = Recording::default();
        if next.restores {
            let x = Arena::from(scratch).per_token("x", padded(self.spec.hidden_size));
            before.copy_part(&record.buffer, record.stream_bytes(), &x);
        }
        let report = report(&self.buffers, ends.len(), *taps);
        let mut after = Vec::with_capacity(ends.len());
        for (index, end) in ends.iter().enumerate() {
            let mut recording = Recording::default();
            recording.copy(&record.buffer, &sampler.report, report.of_end(index), report.end_bytes);
            if *taps && *end == End::Step {
                recording.copy(&memory.tap_values, &sampler.report, report.of_taps(index), report.tap_bytes);
            }
            if *end == End::Step && index + 1 == ends.len() {
                sampler.copy_faults(memory, &mut recording);
                recording.copy(&sampler.sampled, &sampler.report, 0, sampler.sampled_bytes());
            }
            after.push(recording);
        }
        let mut recordings = vec![&before];
        for (index, (end, after)) in ends.iter().zip(&after).enumerate() {
            recordings.extend(plan.pieces(if index == 0 { next.piece } else { 0 }, end.piece()));
            recordings.push(after);
        }
        let commands = recordings.iter().map(|recording| recording.commands().len()).sum();
        let steps = ends.iter().filter(|end| **end == End::Step).count();
        let pieces = self.step_time.pieces(device.pace(), ends.len(), commands);
        let (attempted, result) = (*attempted, (&sampler.report, report.bytes()));
        let readback = device.submit_and_read(attempted, &recordings, pieces, result).await?;
        let Point { position, piece: first_piece, .. } = *next;
        if first_piece == 0 {
            self.ledger.runs(position..position + 1);
        }
        let walk = self.walk_mut();
        walk.next = Point { position: position + steps, piece: ends[ends.len() - 1].piece().unwrap_or(0), restores: false };
        walk.parts.push_back(Part { readback, first_piece, ends, submitted: Stopwatch::start() });
        Ok(())
    }

    /// Waits for the oldest part, and hears what it has to report.
    async fn take_part(&mut self) -> Result<()> {
        let walk = self.walk();
        let attempted = walk.attempted;
        // Whoever wants no more meanwhile leaves the part where it is.
        self.device.arrived(attempted, &walk.parts.front().expect("a part was submitted").readback).await?;
        let part = self.walk_mut().parts.pop_front().expect("a part was submitted");
        let (report, num_ends) = (report(&self.buffers, part.ends.len(), self.walk().taps), part.ends.len());
        let (first_piece, ends, submitted) = (part.first_piece, part.ends, part.submitted);
        let words = self.device.take("reading the next tokens", part.readback).await?;
        let words: Vec<u32> = bytemuck::pod_collect_to_vec(&words);
        let seconds = self.ahead.done.as_ref().map_or(f64::INFINITY, Stopwatch::seconds).min(submitted.seconds());
        self.ahead.done = Some(Stopwatch::start());
        let mut run = Run { layers: 0, wasted: 0, halted: false, seconds };
        for (index, &end) in ends.iter().enumerate() {
            let first = if index == 0 { first_piece / 2 } else { 0 };
            let places = end.places(self.walk().plan.cuts.len());
            if run.halted {
                run.wasted += places;
                continue;
            }
            let heard = &words[report.end_words(index)];
            let halted = halt_record(&self.buffers).halted(heard);
            let passed = halted.unwrap_or(places);
            self.use_experts(heard, passed);
            run.layers += passed.saturating_sub(first);
            if let Some(place) = halted {
                run.halted = true;
                let is_last = end == End::Router(place) && index + 1 == num_ends;
                run.wasted += if is_last { 0 } else { places.saturating_sub(passed) };
                self.halt_at(heard, place, is_last);
            } else if end == End::Step {
                self.finish_step(&words, heard, report.taps_words(index));
            }
        }
        if !run.halted && first_piece == 0 && ends.iter().all(|end| *end == End::Step) {
            self.step_time.observe(num_ends, seconds);
        }
        let num_places = self.walk().plan.cuts.len();
        let walk = self.ahead.walk.as_mut().expect("it is there");
        let forgotten = if run.halted { walk.parts.drain(..).map(|part| part.ends.len() * num_places).sum() } else { 0 };
        let paged = self.paged.as_mut().expect("only paged decoders walk");
        paged.reach.observe(run);
        paged.note_waste(run.wasted + forgotten);
        Ok(())
    }

    /// The token that is on its way has used its experts up to a place.
    fn use_experts(&mut self, report: &[u32], until: usize) {
        let record = halt_record(&self.buffers);
        let (walk, paged) = (self.ahead.walk.as_mut(), self.paged.as_mut());
        let (walk, paged) = walk.zip(paged).expect("only paged decoders walk");
        for place in walk.seen..until {
            paged.used(place, record.chosen(report, place));
        }
        walk.seen = walk.seen.max(until);
    }

    fn halt_at(&mut self, report: &[u32], place: usize, is_last: bool) {
        let ids = halt_record(&self.buffers).chosen(report, place).to_vec();
        self.walk_mut().stop = Some(Stop { place, ids, is_last });
    }

    /// The token that is on its way has gone through all layers.
    fn finish_step(&mut self, words: &[u32], report: &[u32], taps: Range<usize>) {
        let record = halt_record(&self.buffers);
        let checked = !self.device.unchecked_results();
        let (walk, num_layers) = (self.walk(), self.spec.layers.len());
        let (position, num_places) = (walk.position, walk.plan.cuts.len());
        let word = words[(position + 1) % RING];
        let routing = walk.taps.then(|| {
            let mut layers = self.no_routing();
            self.buffers.memory.append_routing(&words[taps], 1, &mut layers);
            layers
        });
        let others = &words[RING..RING + num_layers];
        let faulty_layer = first_layer(record.faults(report)).or(first_layer(others)).filter(|_| checked);
        let is_bad = walk.samples && word & FAULT != 0 || self.is_nonsense(routing.as_deref());
        let chosen = (0..num_places).map(|place| record.chosen(report, place).to_vec()).collect();
        let fault = checked && (is_bad || faulty_layer.is_some());
        let token = word & !FAULT;
        self.ahead.ready.push_back(Step { token, fault, slot: 0, routing, chosen, faulty_layer });
        self.ledger.ran(position..position + 1);
        let walk = self.walk_mut();
        (walk.fed, walk.position, walk.seen) = (token, position + 1, 0);
    }

    /// Loads what the token that has halted needs, and lets it go on. Records are read before anything is overwritten, so that an error changes nothing.
    async fn load_missing(&mut self) -> Result<()> {
        let waiting = Stopwatch::start();
        let Stop { place, ids, is_last } = self.walk().stop.clone().expect("something has halted");
        let GpuDecoder { device, store, spec, weights, paged, .. } = self;
        let paged = paged.as_mut().expect("only paged decoders walk");
        let (layer, records) = (paged.layer(place), Records { store, spec, weights });
        let mut plan = paged.residency.plan(place, &ids);
        let experts: Vec<usize> = plan.loads().iter().map(|load| load.expert).collect();
        let read = paged.host.read(&records, (place, layer), &experts).await?;
        plan.evict();
        paged.is_stale[place] = true;
        let write = || {
            plan.loads().iter().zip(&read).for_each(|(load, record)| records.write(device, (layer, load.slot), record));
            Ok(())
        };
        device.catch("loading experts", write).await?;
        let num_loads = plan.commit().len();
        self.let_go_on(place, &ids, is_last).await?;
        let walk = self.walk_mut();
        (walk.stop, walk.seen) = (None, place + 1);
        self.paging_mut().loaded(place, (&ids, num_loads), waiting.seconds());
        Ok(())
    }

    /// The experts of a token that has halted are there.
    async fn let_go_on(&mut self, place: usize, ids: &[u32], is_last: bool) -> Result<()> {
        let attempted = "loading experts";
        self.write_tables(attempted).await?;
        let (walk, paged) = (self.walk(), self.paged.as_ref().expect("only paged decoders walk"));
        let cut = &walk.plan.cuts[place];
        let table = paged.residency.table(place);
        let slots: Vec<u32> = ids.iter().map(|&id| table[id as usize]).collect();
        let row = Row::new(walk.fed, walk.position as u32, 0);
        let write = || {
            self.write_halt();
            if is_last {
                // Nothing has changed since: the choice stands.
                self.device.write(&cut.slots, 0, bytemuck::cast_slice(&slots));
            } else {
                self.device.write(&self.buffers.memory.rows, 0, bytemuck::bytes_of(&row));
            }
            Ok(())
        };
        self.device.catch(attempted, write).await?;
        let piece = match Resume::of(&self.spec, cut.layer) {
            _ if is_last => 2 * place + 2,
            Resume::Layer => 2 * place + 1,
            Resume::Step => 0,
        };
        let walk = self.walk_mut();
        walk.next = Point { position: walk.position, piece, restores: piece == 2 * place + 1 };
        Ok(())
    }

    /// Brings the tables of the device up to date.
    async fn write_tables(&mut self, attempted: &str) -> Result<()> {
        let GpuDecoder { device, weights, paged, .. } = self;
        let paged = paged.as_mut().expect("only paged decoders walk");
        for place in 0..paged.is_stale.len() {
            if std::mem::take(&mut paged.is_stale[place]) {
                let (table, key) = (paged.residency.table(place), Role::Router.of_layer(paged.layer(place)));
                let write = || {
                    device.write(&weights.slot_tables[&key], 0, bytemuck::cast_slice(table));
                    Ok(())
                };
                let written = device.catch(attempted, write).await;
                paged.is_stale[place] = written.is_err();
                written?;
            }
        }
        Ok(())
    }
}

fn halt_record(buffers: &Buffers) -> &HaltRecord {
    buffers.memory.halt.as_ref().expect("paged decoders have a halt record")
}

/// Where a readback has what, after the ring of tokens and the faults that other routers have counted.
#[derive(Clone, Copy)]
struct Report {
    ring_bytes: u64,
    end_bytes: u64,
    num_ends: usize,
    tap_bytes: u64,
}

fn report(buffers: &Buffers, num_ends: usize, taps: bool) -> Report {
    let tap_bytes = if taps { (LayerTaps::len(&buffers.memory.taps, 1) * 4) as u64 } else { 0 };
    let end_bytes = (halt_record(buffers).report_words() * 4) as u64;
    Report { ring_bytes: buffers.sampler.sampled_bytes(), end_bytes, num_ends, tap_bytes }
}

impl Report {
    fn of_end(self, index: usize) -> u64 {
        self.ring_bytes + index as u64 * self.end_bytes
    }

    fn of_taps(self, index: usize) -> u64 {
        self.of_end(self.num_ends) + index as u64 * self.tap_bytes
    }

    fn bytes(self) -> u64 {
        self.of_taps(self.num_ends)
    }

    fn end_words(self, index: usize) -> Range<usize> {
        words(self.of_end(index)..self.of_end(index + 1))
    }

    fn taps_words(self, index: usize) -> Range<usize> {
        words(self.of_taps(index)..self.of_taps(index + 1))
    }
}

fn words(bytes: Range<u64>) -> Range<usize> {
    (bytes.start / 4) as usize..(bytes.end / 4) as usize
}
