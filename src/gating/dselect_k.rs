//! Selectors write the number of an expert bit by bit, each bit a smooth step.

use super::rule::twin;
use super::{Batch, Chooser, Gate, Real, Routing, Setting, Values, row};

pub static GATE: Gate = Gate {
    name: "dselect_k",
    summary: "selectors choose experts by the bits of their number, each a smooth step that ends at exactly 0 and 1; a softmax mixes them",
    source: "Hazimeh et al. 2021, arXiv 2106.03760",
    chooses: Chooser::Everybody,
    width: |dims, _| dims.num_experts,
    router_rows: |dims, values| values.count("num_selectors") * (bits(dims.num_experts) + 1),
    settings: &[OWN],
    losses: &[("selector_entropy", 0.01)],
    twin: twin!(route),
    ..Gate::BASE
};

static OWN: &[Setting] = &[
    Setting::count("num_selectors", 2, 64, "experts that a token has once the selectors have decided"),
    Setting::live("gamma", 1.0, [1e-3, 1000.0], "width of the smooth step"),
];

/// Added to every choice inside a logarithm or a sum.
const EPS: f64 = 1e-6;

fn bits(num_experts: usize) -> usize {
    num_experts.next_power_of_two().ilog2() as usize
}

/// 0 below `-gamma / 2`, 1 above `gamma / 2`, and a cubic between.
fn smooth_step<R: Real>(x: R, gamma: f64) -> R {
    match x.value() {
        value if value <= -gamma / 2.0 => R::zero(),
        value if value >= gamma / 2.0 => R::of(1.0),
        _ => x * x * x * (-2.0 / gamma.powi(3)) + x * (1.5 / gamma) + 0.5,
    }
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let num_experts = batch.dims.num_experts;
    let (num_selectors, bits, gamma) = (values.count("num_selectors"), bits(num_experts), values.get("gamma"));
    let mut routing = Routing::new(&batch.dims, num_experts);
    let (mut selectors, mut mixes, mut entropies, mut unused) = (Vec::new(), Vec::new(), R::zero(), R::zero());
    for token in batch.tokens() {
        let (codes, mix) = batch.row(token).split_at(num_selectors * bits);
        let mix = row::softmax(mix);
        let mut weights = vec![R::zero(); num_experts];
        for (selector, &share) in mix.iter().enumerate() {
            let steps: Vec<R> = codes[selector * bits..][..bits].iter().map(|&code| smooth_step(code, gamma)).collect();
            // The first bit is the highest.
            let factor = |expert: usize, bit: usize| match expert >> (bits - 1 - bit) & 1 {
                1 => steps[bit],
                _ => R::of(1.0) - steps[bit],
            };
            let choice: Vec<R> =
                (0..num_experts).map(|expert| (0..bits).fold(R::of(1.0), |product, bit| product * factor(expert, bit))).collect();
            weights.iter_mut().zip(&choice).for_each(|(weight, &choice)| *weight = *weight + share * choice);
            entropies = entropies - row::sum(choice.iter().map(|&choice| choice * (choice + EPS).ln()));
            unused = unused + R::of(1.0) / row::sum(choice.iter().map(|&choice| choice + EPS));
            selectors.extend(choice);
        }
        weights.iter().enumerate().for_each(|(expert, &weight)| routing.put(token, expert, expert, weight));
        mixes.extend(mix);
    }
    let len = (batch.dims.num_tokens * num_selectors) as f64;
    routing.losses = vec![("selector_entropy", entropies / len), ("unused_codes", unused / len)];
    routing.named = vec![("selectors", selectors), ("mix", mixes)];
    routing
}
