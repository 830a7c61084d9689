use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::attention_merge::{self, Buffers};
use crate::reference;

#[derive(Clone, Copy)]
struct AttentionMerge {
    num_heads: usize,
    value_dim: usize,
    splits: usize,
    /// From the first on: at least one.
    with_keys: usize,
    /// Highest scores lie within this.
    scores: f32,
    /// Sinks around this.
    sinks: Option<f32>,
}

pub fn cases() -> Vec<Case> {
    let usual = AttentionMerge { num_heads: 6, value_dim: 24, splits: 16, with_keys: 16, scores: 3.0, sinks: None };
    let mut cases = Vec::new();
    let mut add = |name: String, problem| {
        cases.push(Case::new("attention_merge", name, super::attention::TOLERANCE, problem));
    };
    for (num_heads, value_dim, splits) in [(1, 4, 2), (6, 24, 16), (8, 128, 7), (16, 512, 3), (5, 12, 5)] {
        let problem = AttentionMerge { num_heads, value_dim, splits, with_keys: splits, ..usual };
        add(format!("{splits} of {num_heads} heads of {value_dim}"), problem);
    }
    for with_keys in [1, 15] {
        add(format!("{with_keys} of 16 have keys"), AttentionMerge { with_keys, ..usual });
        add(format!("{with_keys} of 16 have keys, sinks"), AttentionMerge { with_keys, sinks: Some(0.0), ..usual });
    }
    for sink in [-60.0, 0.0, 60.0] {
        add(format!("sinks around {sink}"), AttentionMerge { sinks: Some(sink), ..usual });
    }
    add("one wins".to_owned(), AttentionMerge { scores: 1000.0, ..usual });
    add("equal scores".to_owned(), AttentionMerge { scores: 0.0, ..usual });
    cases
}

impl AttentionMerge {
    fn problem(&self) -> attention_merge::Problem {
        let AttentionMerge { num_heads, value_dim, splits, sinks, .. } = *self;
        attention_merge::Problem { num_heads, value_dim, splits, sinks: sinks.is_some() }
    }

    /// Sums as of some hundred keys, and values that such sums weigh.
    fn partials(&self, inputs: &mut Inputs) -> Vec<f32> {
        let mut partials = Vec::with_capacity(self.problem().num_partials());
        for index in 0..self.num_heads * self.splits {
            if index % self.splits >= self.with_keys {
                partials.extend(vec![0.0; self.value_dim]);
                partials.extend([-3e38, 0.0, 0.0, 0.0]);
                continue;
            }
            let sum = 150.0 * (1.01 + inputs.float());
            partials.extend(inputs.floats(self.value_dim, sum));
            partials.extend([self.scores * inputs.float(), sum, 0.0, 0.0]);
        }
        partials
    }
}

impl Problem for AttentionMerge {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![attention_merge::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(23));
        let partials = self.partials(&mut inputs);
        let sinks: Option<Vec<f32>> = self.sinks.map(|center| (0..self.num_heads).map(|_| center + inputs.float()).collect());
        let AttentionMerge { splits, value_dim, num_heads, .. } = *self;
        let twin = reference::attention_merge::Inputs { splits, value_dim, partials: &partials, sinks: sinks.as_deref() };
        let expected = reference::attention_merge::attention_merge(&twin);

        let (partials, sinks) = (stage.input("partials", &partials), sinks.map(|sinks| stage.input("sinks", &sinks)));
        let y = stage.output("y", &expected, Layout::padded(num_heads * value_dim));
        let buffers = Buffers { partials: &partials, y: &y.buffer, sinks: sinks.as_ref() };
        let mut recording = Recording::default();
        attention_merge::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![y] })
    }
}
