//! Hierarchical mixtures of experts, which learn by expectation and maximisation.

use super::rule::twin;
use super::{Batch, Chooser, Gate, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "hme_1994",
    summary: "a tree of two softmax gates over linear experts, which learn by a gradient or by expectation and maximisation",
    source: "Jordan, Jacobs 1994, Neural Computation 6",
    chooses: Chooser::Everybody,
    width: |dims, _| dims.num_experts,
    router_rows: |dims, values| values.count("num_groups") + dims.num_experts,
    settings: &[&[Setting::count(
        "num_groups",
        2,
        super::MAX_EXPERTS,
        "branches of the tree; each has the same number of experts",
    )]],
    twin: twin!(route),
    ..Gate::BASE
};

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_experts, num_groups) = (batch.dims.num_experts, values.count("num_groups"));
    let mut routing = Routing::new(&batch.dims, num_experts);
    for token in batch.tokens() {
        let (top, nested) = batch.row(token).split_at(num_groups);
        let branches = row::softmax(top);
        let leaves = nested.chunks_exact(num_experts / num_groups).map(row::softmax);
        let scores: Vec<R> =
            branches.iter().zip(leaves).flat_map(|(&branch, leaves)| leaves.into_iter().map(move |leaf| branch * leaf)).collect();
        routing.push_scores(nested, &scores);
        scores.into_iter().enumerate().for_each(|(expert, score)| routing.put(token, expert, expert, score));
    }
    routing
}

/// The parameters of such a tree: `inputs` numbers go in, of which the last is 1, and `outputs` come out.
#[derive(Debug, Clone, PartialEq)]
pub struct Hierarchy {
    pub inputs: usize,
    pub outputs: usize,
    pub num_groups: usize,
    /// `[num_groups, inputs]`
    pub gate_top: Vec<f64>,
    /// `[num_experts, inputs]`
    pub gate_nested: Vec<f64>,
    /// `[num_experts, outputs, inputs]`
    pub expert: Vec<f64>,
    /// Of each expert's error.
    pub variance: Vec<f64>,
}

/// How responsible each expert is for each example.
#[derive(Debug, Clone)]
pub struct EStep {
    /// Of all examples together.
    pub log_likelihood: f64,
    /// `[examples, num_groups]`
    pub gate_top: Vec<f64>,
    /// `[examples, num_experts]`: shares within the expert's branch.
    pub gate_nested: Vec<f64>,
    /// `[examples, num_experts]`
    pub posterior: Vec<f64>,
}

/// How far gates go in one step of maximisation.
#[derive(Debug, Clone, Copy)]
pub struct MStep {
    pub gate_rate: f64,
}

/// Added to the diagonal of the equations of an expert that nothing is responsible for.
const RIDGE: f64 = 1e-6;

impl Hierarchy {
    pub fn num_experts(&self) -> usize {
        self.variance.len()
    }

    fn group_len(&self) -> usize {
        self.num_experts() / self.num_groups
    }

    fn product(&self, matrix: &[f64], x: &[f64]) -> Vec<f64> {
        matrix.chunks_exact(self.inputs).map(|row| row::dot(row, x)).collect()
    }

    /// What each expert gives: `[num_experts, outputs]`.
    fn outputs(&self, x: &[f64]) -> Vec<f64> {
        self.product(&self.expert, x)
    }

    /// Shares of branches, and of experts within their branch.
    fn gates(&self, x: &[f64]) -> [Vec<f64>; 2] {
        let nested = self.product(&self.gate_nested, x);
        [row::softmax(&self.product(&self.gate_top, x)), nested.chunks_exact(self.group_len()).flat_map(row::softmax).collect()]
    }

    /// `x [examples, inputs]`, `wanted [examples, outputs]`.
    pub fn expect(&self, x: &[f64], wanted: &[f64]) -> EStep {
        let mut step = EStep { log_likelihood: 0.0, gate_top: Vec::new(), gate_nested: Vec::new(), posterior: Vec::new() };
        for (x, wanted) in x.chunks_exact(self.inputs).zip(wanted.chunks_exact(self.outputs)) {
            let [top, nested] = self.gates(x);
            let outputs = self.outputs(x);
            let log_density = |expert: usize| {
                let output = &outputs[expert * self.outputs..][..self.outputs];
                let square: f64 = output.iter().zip(wanted).map(|(output, wanted)| (output - wanted).powi(2)).sum();
                let variance = self.variance[expert];
                -0.5 * square / variance - 0.5 * self.outputs as f64 * (std::f64::consts::TAU * variance).ln()
            };
            let joint: Vec<f64> = (0..self.num_experts())
                .map(|expert| top[expert / self.group_len()].ln() + nested[expert].ln() + log_density(expert))
                .collect();
            step.log_likelihood += row::log_sum_exp(&joint);
            step.posterior.extend(row::softmax(&joint));
            step.gate_top.extend(top);
            step.gate_nested.extend(nested);
        }
        step
    }

    /// Experts by weighted least squares, gates by a step uphill. With a small enough step the likelihood only rises.
    pub fn maximise(&self, x: &[f64], wanted: &[f64], step: &EStep, how: MStep) -> Hierarchy {
        let mut next = self.clone();
        let num_experts = self.num_experts();
        for expert in 0..num_experts {
            let weights: Vec<f64> = step.posterior.iter().skip(expert).step_by(num_experts).copied().collect();
            let solved = self.least_squares(x, wanted, &weights);
            let mut square = 0.0;
            for ((x, wanted), weight) in x.chunks_exact(self.inputs).zip(wanted.chunks_exact(self.outputs)).zip(&weights) {
                let outputs = self.product(&solved, x);
                square += weight * outputs.iter().zip(wanted).map(|(output, wanted)| (output - wanted).powi(2)).sum::<f64>();
            }
            let responsible = self.outputs as f64 * weights.iter().sum::<f64>();
            if responsible > 0.0 {
                next.variance[expert] = square / responsible;
            }
            next.expert[expert * solved.len()..][..solved.len()].copy_from_slice(&solved);
        }
        for (example, x) in x.chunks_exact(self.inputs).enumerate() {
            let posterior = &step.posterior[example * num_experts..][..num_experts];
            for group in 0..self.num_groups {
                let experts = group * self.group_len()..(group + 1) * self.group_len();
                let of_group: f64 = posterior[experts.clone()].iter().sum();
                let error = of_group - step.gate_top[example * self.num_groups + group];
                add(&mut next.gate_top[group * self.inputs..], x, how.gate_rate * error);
                for expert in experts {
                    let error = posterior[expert] - of_group * step.gate_nested[example * num_experts + expert];
                    add(&mut next.gate_nested[expert * self.inputs..], x, how.gate_rate * error);
                }
            }
        }
        next
    }

    /// `(X^T diag(w) X) U^T = X^T diag(w) D`, as `[outputs, inputs]`.
    fn least_squares(&self, x: &[f64], wanted: &[f64], weights: &[f64]) -> Vec<f64> {
        let (inputs, columns) = (self.inputs, self.inputs + self.outputs);
        let mut table = vec![0.0; inputs * columns];
        for ((x, wanted), weight) in x.chunks_exact(inputs).zip(wanted.chunks_exact(self.outputs)).zip(weights) {
            for (row, &left) in table.chunks_exact_mut(columns).zip(x) {
                row.iter_mut().zip(x.iter().chain(wanted)).for_each(|(sum, right)| *sum += weight * left * right);
            }
        }
        for index in 0..inputs {
            // Where nothing tells the inputs apart; elsewhere the exact solution stays as it is.
            if table[index * columns + index] < RIDGE {
                table[index * columns + index] += RIDGE;
            }
        }
        solve(&mut table, inputs, columns);
        let solution = |output: usize| (0..inputs).map(move |input| [input, output]);
        let places = (0..self.outputs).flat_map(solution);
        places.map(|[input, output]| table[input * columns + inputs + output]).collect()
    }
}

/// `sums += factor x`
fn add(sums: &mut [f64], x: &[f64], factor: f64) {
    sums.iter_mut().zip(x).for_each(|(sum, x)| *sum += factor * x);
}

/// Gauss and Jordan with pivots; the right sides are the columns behind the square.
fn solve(table: &mut [f64], rows: usize, columns: usize) {
    for step in 0..rows {
        let size = |row: &usize| table[row * columns + step].abs();
        let pivot = (step..rows).max_by(|a, b| size(a).total_cmp(&size(b))).unwrap_or(step);
        for column in 0..columns {
            table.swap(step * columns + column, pivot * columns + column);
        }
        let diagonal = table[step * columns + step];
        if diagonal == 0.0 {
            continue;
        }
        for row in (0..rows).filter(|row| *row != step) {
            let factor = table[row * columns + step] / diagonal;
            for column in step..columns {
                table[row * columns + column] -= factor * table[step * columns + column];
            }
        }
    }
    for step in 0..rows {
        let diagonal = table[step * columns + step];
        if diagonal != 0.0 {
            table[step * columns..][..columns].iter_mut().for_each(|number| *number /= diagonal);
        }
    }
}
