use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::{COPY, ONE_SHARD, PRODUCT, SELDOM, SUM, THOROUGH};
use crate::batch::Row;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::embed::{self, Buffers};
use crate::quant::{F32, Quant, QuantFormat};
use crate::reference::{self};

struct Embed {
    num_tokens: usize,
    hidden_size: usize,
    scale: f32,
    quant: Quant,
    rows_per_shard: usize,
    /// Columns differ in size by up to 2^19, so that codes of every exponent occur.
    many_sizes: bool,
    /// Positions have rows too.
    positions: bool,
}

const VOCAB: usize = 50;

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |num_tokens, hidden_size, quant: Quant, rows_per_shard| {
        let scale = 1.0;
        let name = match rows_per_shard {
            ONE_SHARD => format!("{num_tokens}x{hidden_size} {}", quant.name),
            _ => format!("{num_tokens}x{hidden_size} {} shards of {rows_per_shard}", quant.name),
        };
        cases.push(Case::new(
            "embed",
            name,
            COPY,
            Embed { num_tokens, hidden_size, scale, quant, rows_per_shard, many_sizes: false, positions: false },
        ));
    };
    for quant in SELDOM {
        add(7, 513, quant, ONE_SHARD);
    }
    for quant in THOROUGH {
        for hidden_size in [1, 32, 96, 504, 513] {
            add(7, hidden_size, quant, ONE_SHARD);
        }
        add(20, 64, quant, 16);
    }
    add(1, 2048, &F32, ONE_SHARD);
    let fp8 = Embed {
        num_tokens: 7,
        hidden_size: 513,
        scale: 1.0,
        quant: QuantFormat::fp8(),
        rows_per_shard: ONE_SHARD,
        many_sizes: true,
        positions: false,
    };
    cases.push(Case::new("embed", "7x513 fp8, codes of every exponent".to_owned(), COPY, fp8));
    for scale in [0.25, 59.867] {
        let problem =
            Embed { num_tokens: 7, hidden_size: 33, scale, quant: &F32, rows_per_shard: 16, many_sizes: false, positions: false };
        cases.push(Case::new("embed", format!("times {scale}"), PRODUCT, problem));
    }
    cases.extend(position_cases());
    cases
}

/// Every way of reading words, whole and ragged rows, shards.
fn position_cases() -> Vec<Case> {
    let mut cases = Vec::new();
    for quant in THOROUGH {
        for (hidden_size, rows_per_shard) in [(72, ONE_SHARD), (513, 16)] {
            let (num_tokens, scale) = (11, (hidden_size as f32).sqrt());
            let problem = Embed { num_tokens, hidden_size, scale, quant, rows_per_shard, many_sizes: false, positions: true };
            cases.push(Case::new("embed", format!("positions, {num_tokens}x{hidden_size} {}", quant.name), SUM, problem));
        }
    }
    cases
}

impl Embed {
    fn problem(&self) -> embed::Problem {
        embed::Problem { num_tokens: self.num_tokens, hidden_size: self.hidden_size, scale: self.scale, quant: self.quant }
    }
}

impl Problem for Embed {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![embed::choose(caps, &self.problem()).flag_if(self.positions, "POSITIONS")]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(1));
        // The first and the last token of the vocabulary, and of every shard, are among them.
        let rows: Vec<Row> =
            (0..self.num_tokens).map(|token| Row::new([0, 49, 16, 15, 31, 32, 7, 47, 48][token % 9], token as u32, 0)).collect();
        let mut table = inputs.weights(VOCAB, self.hidden_size);
        if self.many_sizes {
            table
                .iter_mut()
                .enumerate()
                .for_each(|(index, value)| *value *= 0.5f32.powi((index % self.hidden_size * 7 % 20) as i32));
        }
        let (table, stored) = stage.weights(&table, self.hidden_size, self.quant, self.rows_per_shard);
        let positions = self.positions.then(|| inputs.floats(self.num_tokens * self.hidden_size, 1.0));
        let expected = reference::embed::embed(&rows, &stored, self.hidden_size, self.scale, positions.as_deref());
        let positions = positions.map(|positions| stage.padded_input("positions", &positions, self.hidden_size));

        let rows = stage.input("rows", &rows);
        let x = stage.output("x", &expected, Layout::clearing(self.hidden_size));
        let buffers = Buffers { rows: &rows, table: &table, x: &x.buffer, positions: positions.as_ref() };
        let mut recording = Recording::default();
        embed::record(device, &mut recording, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: vec![x] })
    }
}
