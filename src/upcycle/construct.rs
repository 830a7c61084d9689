//! How the experts of a layer are made of its dense MLP.
//!
//! A *neuron* of an MLP is one of its inner units: a row of the gate, the same row of up, and the same column of down. Every construction says which
//! neurons an expert takes, and what is changed about them.

use crate::batch::rng::{normal, pcg, shuffled};
use crate::error::{Error, Result};
use crate::tensor::Dtype;

/// A way to make experts of a dense MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Construction {
    /// Every expert is the whole MLP: sparse upcycling, Komatsuzaki et al. 2022, arXiv 2212.05055.
    Copy,
    /// Every neuron belongs to one expert, drawn at random: LLaMA-MoE, Zhu et al. 2024, arXiv 2406.16554.
    Split,
    /// The MLP is cut into as many shards as a token has experts, and every shard is there several times: virtual groups, He et al. 2024,
    /// arXiv 2410.07524. The router's rows are equal within a group, so that a token gets one complete group at first.
    Virtual,
    /// Copies, in each of which other neurons are drawn anew: drop-upcycling, Nakamura et al. 2025, arXiv 2502.19261.
    Drop,
}

/// What an upcycled model is to be like.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Shape {
    pub construction: Construction,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    /// Share of the neurons of an expert that [`Construction::Drop`] draws anew.
    pub redrawn: f64,
    pub seed: u32,
}

/// A dense MLP, or an expert: `gate_up [2 F, H]`, where the rows of gate and up take turns, and `down [H, F]`.
#[derive(Debug, Clone, PartialEq)]
pub struct Mlp {
    pub hidden_size: usize,
    pub gate_up: Vec<f32>,
    pub down: Vec<f32>,
}

/// The neurons of one expert.
#[derive(Debug, Clone, PartialEq)]
pub struct Selection {
    /// Neurons of the dense MLP, in the order of the expert's.
    pub neurons: Vec<usize>,
    /// Factor of the down matrix.
    pub scale: f32,
    /// Places among `neurons` that are drawn anew.
    pub redrawn: Vec<usize>,
}

/// A number that is drawn for a neuron: of which matrix, for which of the redrawn neurons, for which channel of the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Draw {
    pub matrix: Matrix,
    pub neuron: usize,
    pub channel: usize,
}

/// The matrices of an MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Matrix {
    Gate,
    Up,
    Down,
}

/// As many as a router of the largest models has.
const MOST_EXPERTS: usize = 1024;
/// Deviation of the rows of a new router.
const ROUTER_STD: f64 = 0.02;

/// What the numbers of a layer are drawn for; part of their seed.
#[derive(Clone, Copy)]
enum Purpose {
    Router = 1,
    Neurons,
    Redrawn,
    Values,
}

impl Construction {
    pub const ALL: [Construction; 4] = [Construction::Copy, Construction::Split, Construction::Virtual, Construction::Drop];

    /// As it is written on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Construction::Copy => "copy",
            Construction::Split => "split",
            Construction::Virtual => "virtual",
            Construction::Drop => "drop",
        }
    }
}

impl Shape {
    /// Makes sure that an MLP with `neurons` inner units can be made into these experts.
    ///
    /// # Errors
    /// [`Error::Argument`].
    pub fn check(&self, neurons: usize) -> Result<()> {
        let Shape { construction, num_experts, num_experts_per_tok, redrawn, .. } = *self;
        let refuse = |what, expected: String, found: String| Err(Error::Argument { what, expected, found });
        if num_experts == 0 || num_experts > MOST_EXPERTS {
            return refuse("number of experts", format!("1 to {MOST_EXPERTS}"), num_experts.to_string());
        }
        if num_experts_per_tok == 0 || num_experts_per_tok > num_experts {
            return refuse("experts per token", format!("1 to {num_experts}"), num_experts_per_tok.to_string());
        }
        if !(0.0..=1.0).contains(&redrawn) {
            return refuse("share of neurons drawn anew", "a number from 0 to 1".to_owned(), redrawn.to_string());
        }
        match construction {
            Construction::Split if !neurons.is_multiple_of(num_experts) => {
                refuse("number of experts", format!("a divisor of {neurons}, the neurons of the MLP"), num_experts.to_string())
            }
            Construction::Virtual if !neurons.is_multiple_of(num_experts_per_tok) => {
                let expected = format!("a divisor of {neurons}, the neurons of the MLP, which are cut into as many shards");
                refuse("experts per token", expected, num_experts_per_tok.to_string())
            }
            Construction::Virtual if !num_experts.is_multiple_of(num_experts_per_tok) => {
                let expected =
                    format!("a multiple of {num_experts_per_tok}, the experts per token: every group has one of each shard");
                refuse("number of experts", expected, num_experts.to_string())
            }
            _ => Ok(()),
        }
    }

    /// Neurons of an expert, of an MLP with `neurons`.
    pub fn neurons_per_expert(&self, neurons: usize) -> usize {
        match self.construction {
            Construction::Copy | Construction::Drop => neurons,
            Construction::Split => neurons / self.num_experts,
            Construction::Virtual => neurons / self.num_experts_per_tok,
        }
    }

    /// Whether the model has to compute what the dense one does, if the routing weights of a token sum to one and the experts are stored in `dtype`,
    /// in which the dense MLP is exact.
    pub fn keeps_the_function(&self, dtype: Dtype) -> bool {
        // Of 16 bits only a power of two leaves all.
        let is_exact = |factor: usize| dtype == Dtype::F32 || factor.is_power_of_two();
        match self.construction {
            Construction::Copy => true,
            Construction::Virtual => is_exact(self.num_experts_per_tok),
            Construction::Split => self.uses_all() && is_exact(self.num_experts),
            Construction::Drop => self.redrawn == 0.0,
        }
    }

    fn uses_all(&self) -> bool {
        self.num_experts_per_tok == self.num_experts
    }

    /// Which neurons each expert of a layer takes, of an MLP with `neurons`.
    pub fn selections(&self, layer: usize, neurons: usize) -> Vec<Selection> {
        let all = || (0..neurons).collect::<Vec<usize>>();
        let order = match self.construction {
            Construction::Split => shuffled(self.seed_of(Purpose::Neurons, [layer, 0]), neurons),
            _ => all(),
        };
        let width = self.neurons_per_expert(neurons);
        let of_expert = |expert: usize| match self.construction {
            Construction::Copy => Selection { neurons: all(), scale: 1.0, redrawn: Vec::new() },
            Construction::Drop => {
                let count = (self.redrawn * neurons as f64).round() as usize;
                let mut redrawn = shuffled(self.seed_of(Purpose::Redrawn, [layer, expert]), neurons);
                redrawn.truncate(count);
                Selection { neurons: all(), scale: 1.0, redrawn }
            }
            Construction::Split => {
                let mut neurons = order[expert * width..][..width].to_vec();
                neurons.sort_unstable();
                // Routing weights sum to one; all experts together, each with weight one, are the dense MLP.
                Selection { neurons, scale: self.num_experts as f32, redrawn: Vec::new() }
            }
            Construction::Virtual => {
                let shard = expert % self.num_experts_per_tok;
                let neurons = (shard * width..(shard + 1) * width).collect();
                // All of it on down: a product of SiLU is not linear in the gate, so that thirds on all three would not be the same function.
                Selection { neurons, scale: self.num_experts_per_tok as f32, redrawn: Vec::new() }
            }
        };
        (0..self.num_experts).map(of_expert).collect()
    }

    /// The router of a layer: `[num_experts, hidden_size]`.
    pub fn router(&self, layer: usize, hidden_size: usize) -> Vec<f32> {
        let seed = self.seed_of(Purpose::Router, [layer, 0]);
        let is_uniform = self.construction == Construction::Split && self.uses_all();
        let rows_alike = if self.construction == Construction::Virtual { self.num_experts_per_tok } else { 1 };
        let value = |i: usize| {
            let (row, column) = (i / hidden_size / rows_alike, i % hidden_size);
            // Equal weights for all experts, which are used by every token.
            if is_uniform { 0.0 } else { (ROUTER_STD * normal(seed, (row * hidden_size + column) as u32)) as f32 }
        };
        (0..self.num_experts * hidden_size).map(value).collect()
    }

    /// A normal number of variance one.
    pub fn draw(&self, layer: usize, expert: usize, draw: Draw) -> f64 {
        let seed = [draw.matrix as usize, draw.neuron]
            .into_iter()
            .fold(self.seed_of(Purpose::Values, [layer, expert]), |seed, part| pcg(seed ^ pcg(part as u32)));
        normal(seed, draw.channel as u32)
    }

    fn seed_of(&self, purpose: Purpose, place: [usize; 2]) -> u32 {
        let parts = [purpose as u32, place[0] as u32, place[1] as u32];
        parts.into_iter().fold(pcg(self.seed), |seed, part| pcg(seed ^ pcg(part)))
    }
}

impl Mlp {
    /// Its inner units, F.
    pub fn neurons(&self) -> usize {
        self.down.len() / self.hidden_size
    }

    /// The expert of some of its neurons. What is drawn anew has the mean and the deviation of what it takes the place of, matrix by matrix.
    pub fn expert(&self, selection: &Selection, draw: &dyn Fn(Draw) -> f64) -> Mlp {
        let (hidden, from, width) = (self.hidden_size, self.neurons(), selection.neurons.len());
        let mut expert = Mlp { hidden_size: hidden, gate_up: vec![0.0; 2 * width * hidden], down: vec![0.0; hidden * width] };
        for (to, neuron) in selection.neurons.iter().enumerate() {
            expert.gate_up[2 * to * hidden..][..2 * hidden].copy_from_slice(&self.gate_up[2 * neuron * hidden..][..2 * hidden]);
            for channel in 0..hidden {
                expert.down[channel * width + to] = selection.scale * self.down[channel * from + neuron];
            }
        }
        for matrix in [Matrix::Gate, Matrix::Up, Matrix::Down] {
            expert.redraw(matrix, &selection.redrawn, draw);
        }
        expert
    }

    fn redraw(&mut self, matrix: Matrix, neurons: &[usize], draw: &dyn Fn(Draw) -> f64) {
        let (hidden, width) = (self.hidden_size, self.neurons());
        let place = |neuron: usize, channel: usize| match matrix {
            Matrix::Gate => 2 * neuron * hidden + channel,
            Matrix::Up => (2 * neuron + 1) * hidden + channel,
            Matrix::Down => channel * width + neuron,
        };
        let values = match matrix {
            Matrix::Gate | Matrix::Up => &mut self.gate_up,
            Matrix::Down => &mut self.down,
        };
        let places = || neurons.iter().flat_map(|neuron| (0..hidden).map(move |channel| place(*neuron, channel)));
        let count = (neurons.len() * hidden) as f64;
        let mean = places().map(|place| f64::from(values[place])).sum::<f64>() / count;
        let squares: f64 = places().map(|place| (f64::from(values[place]) - mean).powi(2)).sum();
        // The deviation of a sample, as torch.std has it.
        let std = (squares / (count - 1.0).max(1.0)).sqrt();
        for (index, neuron) in neurons.iter().enumerate() {
            for channel in 0..hidden {
                values[place(*neuron, channel)] = (mean + std * draw(Draw { matrix, neuron: index, channel })) as f32;
            }
        }
    }
}
