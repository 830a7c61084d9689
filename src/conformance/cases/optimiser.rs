//! The optimiser: sums of squares, the bound on the norm, AdamW.

use super::super::inputs::Inputs;
use super::super::stage::{Layout, Prepared, Stage};
use super::super::{Case, Problem, Tolerance};
use super::SUM;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::{adamw, clip, squares};
use crate::reference;

const SQUARES: Tolerance = Tolerance { max_abs: 1e-2, nmse: 1e-11, why: "sums of f32 of up to some thousand squares" };

struct Squares {
    num_quads: usize,
    first_part: usize,
}

pub fn squares_cases() -> Vec<Case> {
    let sizes = [(1, 0), (3, 0), (64, 0), (513, 64), (5000, 0), (70_000, 64)];
    let case = |(num_quads, first_part)| {
        Case::new("squares", format!("{num_quads} quads from part {first_part} on"), SQUARES, Squares { num_quads, first_part })
    };
    sizes.into_iter().map(case).collect()
}

impl Problem for Squares {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![squares::choose(caps)]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(51));
        let gradients = inputs.floats(4 * self.num_quads, 1.0);
        let workgroup = device.caps().plain_workgroup();
        let sums = reference::squares::squares(&gradients, workgroup, squares::NUM_PARTS);
        let before = inputs.floats(self.first_part + squares::NUM_PARTS, 1.0);
        let after = [&before[..self.first_part], &sums].concat();
        let parts = stage.partly("parts", &before, &after);
        let gradients = stage.input("gradients", &gradients);
        let mut recording = Recording::default();
        let problem = squares::Problem { num_quads: self.num_quads, first_part: self.first_part };
        let buffers = squares::Buffers { gradients: &gradients, parts: &parts.buffer };
        squares::record(device, &mut recording, &problem, &buffers)?;
        Ok(Prepared { recording, outputs: vec![parts] })
    }
}

struct Clip {
    num_parts: usize,
    clip_norm: f32,
}

pub fn clip_cases() -> Vec<Case> {
    let case = |name: &str, num_parts, clip_norm| Case::new("clip", name, SUM, Clip { num_parts, clip_norm });
    vec![
        case("norm above the bound", 64, 0.5),
        case("norm below the bound", 64, 1e3),
        case("one part", 1, 1.0),
        case("two arenas", 128, 1.0),
    ]
}

impl Problem for Clip {
    fn variants(&self, _: &Caps) -> Vec<Variant> {
        vec![clip::choose(&clip::Problem { num_parts: self.num_parts, clip_norm: self.clip_norm })]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(52));
        let parts: Vec<f32> = inputs.floats(self.num_parts, 0.1).into_iter().map(f32::abs).collect();
        let control = reference::clip::clip(&parts, self.clip_norm);
        let control = stage.output("control", &control, Layout::dense(4));
        let parts = stage.input("parts", &parts);
        let mut recording = Recording::default();
        let problem = clip::Problem { num_parts: self.num_parts, clip_norm: self.clip_norm };
        clip::record(device, &mut recording, &problem, &clip::Buffers { parts: &parts, control: &control.buffer })?;
        Ok(Prepared { recording, outputs: vec![control] })
    }
}

struct Step {
    num_quads: usize,
    num_decayed: usize,
    /// Of the gradients, which are this far from zero at least: near zero a step is a quotient of nothing.
    least: f32,
    control: [f32; 4],
}

pub fn adamw_cases() -> Vec<Case> {
    let plain = [1.0, 1.0, 1.0, 0.0];
    let case = |name: &str, [num_quads, num_decayed]: [usize; 2], control| {
        Case::new("adamw", name, SUM, Step { num_quads, num_decayed, least: 1e-3, control })
    };
    vec![
        case("all decay", [100, 100], plain),
        case("none decays", [100, 0], plain),
        case("the first decay", [70, 33], plain),
        case("one quad", [1, 1], plain),
        case("bounded", [100, 50], [3.0, 0.25, 1.0, 0.0]),
        case("no number", [100, 50], [0.0, 0.0, 0.0, 0.0]),
        case("more than all workgroups at once", [70_000, 60_000], plain),
    ]
}

const CONSTANTS: adamw::Problem =
    adamw::Problem { num_quads: 0, num_decayed: 0, beta1: 0.9, beta2: 0.95, eps: 1e-8, weight_decay: 0.1 };

impl Step {
    fn problem(&self) -> adamw::Problem {
        adamw::Problem { num_quads: self.num_quads, num_decayed: self.num_decayed, ..CONSTANTS }
    }
}

impl Problem for Step {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![adamw::choose(caps, &self.problem())]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(53));
        let len = 4 * self.num_quads;
        let away = |value: f32| value + self.least.copysign(value);
        let gradients: Vec<f32> = inputs.floats(len, 1.0).into_iter().map(away).collect();
        let weights = inputs.floats(len, 1.0);
        let first = inputs.floats(len, 0.1);
        let second: Vec<f32> = inputs.floats(len, 1.0).into_iter().map(|value| value * value).collect();
        let live = [0.01, 1.0 - 0.9f32.powi(3), 1.0 - 0.95f32.powi(3)];
        let constants = reference::adamw::Constants {
            beta1: CONSTANTS.beta1,
            beta2: CONSTANTS.beta2,
            eps: CONSTANTS.eps,
            weight_decay: CONSTANTS.weight_decay,
            num_decayed: 4 * self.num_decayed,
        };
        let mut after = [weights.clone(), first.clone(), second.clone()];
        let [w, f, s] = &mut after;
        reference::adamw::adamw(&constants, &gradients, self.control, live, [w, f, s]);
        let state = [("weights", &weights), ("first", &first), ("second", &second)];
        let outputs: Vec<_> =
            state.into_iter().zip(&after).map(|((name, before), after)| stage.partly(name, before, after)).collect();
        let [gradients, control, live] = [("gradients", &gradients[..]), ("control", &self.control), ("live", &live)]
            .map(|(name, values)| stage.input(name, values));
        let mut recording = Recording::default();
        let buffers = adamw::Buffers {
            gradients: &gradients,
            control: &control,
            live: &live,
            weights: &outputs[0].buffer,
            first: &outputs[1].buffer,
            second: &outputs[2].buffer,
        };
        adamw::record(device, &mut recording, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs })
    }
}
