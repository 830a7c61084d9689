use super::super::compare::{Expected, Rule};
use super::super::inputs::Inputs;
use super::super::stage::{Output, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use crate::batch::{Row, Sampling, mark_seen, seen_words};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::sample::{self, Buffers};
use crate::reference::sample::{Choice, sample};

struct Sample {
    sampling: Sampling,
    num_sequences: usize,
    vocab_size: usize,
    first_row: usize,
    logits: Logits,
    halt: Halt,
}

/// Whether something before may have halted.
#[derive(Clone, Copy, PartialEq)]
enum Halt {
    Never,
    NotYet,
    Before,
}

#[derive(Clone, Copy)]
enum Logits {
    /// Uniform in plus and minus this.
    Random(f32),
    /// Few different values.
    Ties,
}

/// Below this margin, in logits or in probability, f32 sums over the vocabulary may choose another token than the twin.
const MIN_MARGIN: f64 = 1e-5;
const TOLERANCE: Tolerance = Tolerance { max_abs: 0.0, nmse: 0.0, why: "a choice is exact, or free where rounding decides" };
const RING: usize = 5;
/// Draws of one case.
const SEQUENCES: usize = 40;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |name: &str, sampling, vocab_size, logits| {
        let (num_sequences, first_row, halt) = (SEQUENCES, SEQUENCES + 3, Halt::Never);
        let problem = Sample { sampling, num_sequences, vocab_size, first_row, logits, halt };
        cases.push(Case::new("sample", format!("{name}, vocabulary of {vocab_size}"), TOLERANCE, problem));
    };
    let greedy = Sampling::GREEDY;
    let hot = Sampling { temperature: 0.8, seed: 11, ..greedy };
    let random = Logits::Random(6.0);
    for vocab_size in [1, 31, 256, 257, 1000] {
        add("greedy", greedy, vocab_size, random);
        add("temperature", hot, vocab_size, random);
    }
    add("greedy ties", greedy, 1000, Logits::Ties);
    add("greedy with penalty", Sampling { repeat_penalty: 1.3, ..greedy }, 1000, random);
    add("penalty", Sampling { repeat_penalty: 1.3, ..hot }, 1000, random);
    add("top-k 1", Sampling { top_k: 1, ..hot }, 1000, random);
    add("top-k 7", Sampling { top_k: 7, ..hot }, 1000, random);
    add("top-k beyond the vocabulary", Sampling { top_k: 1000, ..hot }, 1000, random);
    add("top-k ties", Sampling { top_k: 7, ..hot }, 1000, Logits::Ties);
    add("top-p 0.1", Sampling { top_p: 0.1, ..hot }, 1000, random);
    add("top-p 0.9", Sampling { top_p: 0.9, ..hot }, 1000, random);
    add("top-p 0", Sampling { top_p: 0.0, ..hot }, 1000, random);
    add("min-p 0.05", Sampling { min_p: 0.05, ..hot }, 1000, random);
    add("min-p 1", Sampling { min_p: 1.0, ..hot }, 1000, random);
    let all = Sampling { temperature: 1.4, top_k: 40, top_p: 0.95, min_p: 0.02, repeat_penalty: 1.1, seed: 5, padding: [0; 2] };
    add("all filters", all, 1000, random);
    add("all filters", all, 4096, random);
    add("low temperature", Sampling { temperature: 0.05, ..hot }, 1000, random);
    add("high temperature", Sampling { temperature: 50.0, ..hot }, 31, random);
    add("logits far apart", hot, 1000, Logits::Random(1e4));
    // More than the kernel keeps as candidates: found by searching all logits.
    add("top-k 500", Sampling { top_k: 500, ..hot }, 4096, random);
    add("top-p 0.9 of nearly equal", Sampling { top_p: 0.9, ..hot }, 1000, Logits::Random(0.1));
    add("top-k 500 and top-p 0.9", Sampling { top_k: 500, top_p: 0.9, ..hot }, 4096, Logits::Random(1.0));
    add("min-p 0.9 of nearly equal", Sampling { min_p: 0.9, ..hot }, 1000, Logits::Random(0.1));
    // Several spans of blocks, the last of them cut short.
    add("top-k 40", Sampling { top_k: 40, ..hot }, 9001, random);
    add("top-p 0.9", Sampling { top_p: 0.9, temperature: 0.3, ..hot }, 9001, random);
    for (name, num_sequences, first_row) in [("one row of many", 1, 7), ("rows replaced in place", 4, 0)] {
        let problem = Sample { sampling: hot, num_sequences, vocab_size: 1000, first_row, logits: random, halt: Halt::Never };
        cases.push(Case::new("sample", name, TOLERANCE, problem));
    }
    for (name, halt) in [("paged", Halt::NotYet), ("halted before", Halt::Before)] {
        let problem = Sample { sampling: hot, num_sequences: 1, vocab_size: 1000, first_row: 0, logits: random, halt };
        cases.push(Case::new("sample", name, TOLERANCE, problem));
    }
    cases
}

impl Sample {
    fn problem(&self) -> sample::Problem {
        let Sample { num_sequences, vocab_size, first_row, halt, .. } = *self;
        sample::Problem { num_sequences, vocab_size, first_row, ring: RING, halts: halt != Halt::Never }
    }

    fn logits(&self, inputs: &mut Inputs) -> Vec<f32> {
        let len = self.num_sequences * self.vocab_size;
        match self.logits {
            Logits::Random(size) => inputs.floats(len, size),
            Logits::Ties => (0..len).map(|_| inputs.below(9) as f32 - 4.0).collect(),
        }
    }

    fn seen(&self, inputs: &mut Inputs) -> Vec<u32> {
        let words = seen_words(self.vocab_size);
        let mut seen = vec![0; self.num_sequences * words];
        for seen in seen.chunks_exact_mut(words) {
            for token in 0..self.vocab_size {
                if inputs.below(4) == 0 {
                    mark_seen(seen, token as u32);
                }
            }
        }
        seen
    }
}

/// Everything a step writes, sequence by sequence.
#[derive(Default)]
struct Step {
    seen: Expected,
    rows: Expected,
    ring: Expected,
}

impl Problem for Sample {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![sample::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(11));
        let logits = self.logits(&mut inputs);
        let seen = self.seen(&mut inputs);
        // Every sequence at another position.
        let num_rows = self.first_row + self.num_sequences;
        let rows: Vec<Row> = (0..num_rows).map(|row| Row::new(9, 3 * row as u32, 100 + row as u32)).collect();
        let ring = vec![77; self.num_sequences * RING];

        let step = self.step(&logits, &seen, &rows, &ring);
        let outputs = self.outputs(stage, [&seen, bytemuck::cast_slice(&rows), &ring], step);
        let logits = stage.input("logits", &logits);
        let sampling = device.uniform("sampling", bytemuck::bytes_of(&self.sampling));
        let halt = stage.input("halt", &[u32::from(self.halt == Halt::Before), 7, 7, 7]);
        let [seen, rows, sampled] = [0, 1, 2].map(|index| &outputs[index].buffer);
        let halt = (self.halt != Halt::Never).then_some(&halt);
        let buffers = Buffers { sampling: &sampling, logits: &logits, seen, rows, sampled, halt };
        let mut recording = Recording::default();
        sample::record(device, &mut recording, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: outputs.into() })
    }
}

impl Sample {
    fn outputs(&self, stage: Stage, before: [&[u32]; 3], step: Step) -> [Output; 3] {
        let [seen, rows, ring] = before.map(<[u32]>::to_vec);
        [
            stage.exactly("seen", seen, step.seen),
            stage.exactly("rows", rows, step.rows),
            stage.exactly("sampled", ring, step.ring),
        ]
    }

    /// What the twin makes of the buffers.
    fn step(&self, logits: &[f32], seen: &[u32], rows: &[Row], ring: &[u32]) -> Step {
        let mut step = Step::default();
        for bits in bytemuck::cast_slice::<Row, u32>(rows) {
            step.rows.push(*bits, Rule::Exact);
        }
        for token in ring {
            step.ring.push(*token, Rule::Exact);
        }
        let words = seen_words(self.vocab_size);
        if self.halt == Halt::Before {
            seen.iter().for_each(|word| step.seen.push(*word, Rule::Exact));
            step.rows.set(1, rows[0].position + 1, Rule::Exact);
            return step;
        }
        for sequence in 0..self.num_sequences {
            let logits = &logits[sequence * self.vocab_size..][..self.vocab_size];
            let seen = &seen[sequence * words..][..words];
            let row = rows[self.first_row + sequence];
            let Choice { token, margin } = sample(&self.sampling, logits, seen, row.position);
            let rule = if margin < MIN_MARGIN { Rule::Free } else { Rule::Exact };

            let mut marked = seen.to_vec();
            mark_seen(&mut marked, token);
            marked.iter().for_each(|word| step.seen.push(*word, rule));
            step.rows.set(4 * sequence, token, rule);
            for (field, bits) in [(1, row.position + 1), (2, row.sequence), (3, 0)] {
                step.rows.set(4 * sequence + field, bits, Rule::Exact);
            }
            step.ring.set(sequence * RING + (row.position as usize + 1) % RING, token, rule);
        }
        step
    }
}
