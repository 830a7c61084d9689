use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem};
use super::SUM;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::norm::{self, Buffers};
use crate::reference;
use crate::spec::{NormKind, NormSpec};

#[derive(Clone, Copy)]
struct Norm {
    first_row: usize,
    num_tokens: usize,
    cols: usize,
    /// Of the inputs.
    size: f32,
    /// Added to the inputs.
    offset: f32,
    spec: NormSpec,
    residual: Option<f32>,
    /// What `y` is multiplied by after the sum.
    output_scale: Option<f32>,
    /// What of the result `x` becomes.
    rescale: Option<f32>,
}

const EPS: f32 = 1e-5;

pub fn cases() -> Vec<Case> {
    let usual = Norm {
        first_row: 0,
        num_tokens: 3,
        cols: 64,
        size: 1.0,
        offset: 0.0,
        spec: NormSpec::rms(EPS),
        residual: None,
        output_scale: None,
        rescale: None,
    };
    let mut cases = Vec::new();
    let mut add = |name: String, problem| cases.push(Case::new("norm", name, SUM, problem));
    for cols in [1, 4, 31, 32, 33, 96, 255, 256, 257, 2048] {
        add(format!("3x{cols}"), Norm { cols, ..usual });
    }
    for kind in [NormKind::Rms, NormKind::Layer] {
        for bias in [false, true] {
            for residual in [None, Some(1.0), Some(0.22)] {
                // Without, with much and with little padding.
                for cols in [33, 62, 96, 257] {
                    let with_bias = if bias { " bias" } else { "" };
                    let added = residual.map_or_else(String::new, |scale| format!(" added {scale} times"));
                    let spec = NormSpec { kind, bias, eps: EPS };
                    add(format!("{kind:?}{with_bias}{added} 3x{cols}"), Norm { cols, spec, residual, ..usual });
                }
            }
        }
    }
    let layer = NormSpec { kind: NormKind::Layer, ..usual.spec };
    add("Layer far from zero".to_owned(), Norm { cols: 33, offset: 4.0, spec: layer, ..usual });
    add("Layer zeros".to_owned(), Norm { cols: 33, size: 0.0, spec: layer, ..usual });
    for cols in [33, 96] {
        let scaled = Norm { cols, residual: Some(0.5), output_scale: Some(0.3), ..usual };
        add(format!("added 0.5 times, all times 0.3, 3x{cols}"), scaled);
        add(format!("Layer added 0.5 times, all times 0.3, 3x{cols}"), Norm { spec: layer, ..scaled });
    }
    for (cols, num_tokens, spec) in [(33, 3, usual.spec), (96, 1, usual.spec), (2048, 2, usual.spec), (62, 3, layer)] {
        let name = format!("{:?}, and the input 3.5 times that, {num_tokens}x{cols}", spec.kind);
        add(name, Norm { cols, num_tokens, spec, rescale: Some(3.5), ..usual });
    }
    let last = Norm { first_row: 4, num_tokens: 1, ..usual };
    add("last row of 5".to_owned(), last);
    add("Layer added, last row of 5".to_owned(), Norm { spec: layer, residual: Some(0.5), ..last });
    add("tiny inputs".to_owned(), Norm { size: 1e-4, ..usual });
    add("huge inputs".to_owned(), Norm { size: 1e6, ..usual });
    add("zeros".to_owned(), Norm { size: 0.0, ..usual });
    cases
}

impl Norm {
    fn problem(&self) -> norm::Problem {
        norm::Problem {
            first_row: self.first_row,
            num_tokens: self.num_tokens,
            cols: self.cols,
            norm: self.spec,
            residual: self.residual,
            output_scale: self.output_scale.is_some(),
            rescale: self.rescale,
        }
    }
}

impl Problem for Norm {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![norm::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(2));
        let mut x = inputs.floats((self.first_row + self.num_tokens) * self.cols, self.size);
        x.iter_mut().for_each(|x| *x += self.offset);
        let weight = inputs.floats(self.cols * (1 + usize::from(self.spec.bias)), 1.0);
        let normed = reference::norm::norm(&self.spec, &x[self.first_row * self.cols..], &weight);
        let y = match self.residual {
            None => stage.output("y", &normed, Layout::clearing(self.cols)),
            Some(scale) => {
                let before = inputs.floats(normed.len(), 1.0);
                let after: Vec<f32> = before
                    .iter()
                    .zip(&normed)
                    .map(|(before, normed)| (before + scale * normed) * self.output_scale.unwrap_or(1.0))
                    .collect();
                stage.changed("y", &before, &after, Layout::clear(self.cols))
            }
        };
        let rescaled = self.rescale.map(|factor| {
            let after: Vec<f32> = normed.iter().map(|value| factor * value).collect();
            stage.changed("x", &x, &after, Layout::clear(self.cols))
        });
        let x = rescaled.as_ref().map_or_else(|| stage.padded_input("x", &x, self.cols), |x| x.buffer.clone());
        let weight = stage.padded_input("weight", &weight, self.cols);
        let mut recording = Recording::default();
        let output_scale = self.output_scale.map(|scale| stage.input("output_scale", &[scale]));
        let buffers = Buffers { x: &x, weight: &weight, y: &y.buffer, output_scale: output_scale.as_ref() };
        norm::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: [y].into_iter().chain(rescaled).collect() })
    }
}
