//! Noise on the logits, of a size that is learned: the first sparse mixture of experts.

use super::losses::{column_sums, squared_variation};
use super::rule::twin;
use super::{
    Batch, Distribution, EXPERTS_PER_TOKEN, Gate, Noise, Real, RouterMethod, RouterSpec, Routing, RunsAs, Setting, Values, row,
};

pub static GATE: Gate = Gate {
    name: "noisy_top_k",
    summary: "the best k of logits with learned noise, weighted by a softmax over them; a smooth estimate of the load keeps it balanced",
    source: "Shazeer et al. 2017, arXiv 1701.06538; tensor2tensor",
    router_rows: |dims, _| 2 * dims.num_experts,
    settings: &[&[EXPERTS_PER_TOKEN], OWN],
    noise: &[Noise { name: "normal", distribution: Distribution::Normal, per_token: |dims, _| dims.num_experts }],
    losses: &[("importance_loss", 0.1), ("load_loss", 0.1)],
    runs_as: Some(RunsAs {
        architecture: "mixtral",
        spec: |dims, values| {
            let base = RouterSpec::new(dims.num_experts, values.count("num_experts_per_tok"));
            Some(RouterSpec { method: RouterMethod::SoftmaxOfTopK, ..base })
        },
    }),
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

pub(super) static OWN: &[Setting] =
    &[Setting::fixed("noise_epsilon", 0.01, [1e-6, 10.0], "the least standard deviation of the noise")];

/// Logits of one token, and what noise makes of them.
pub(super) struct Noisy<R> {
    pub clean: Vec<R>,
    /// Standard deviation of the noise; empty without noise.
    pub std: Vec<R>,
    pub noisy: Vec<R>,
}

impl<R: Real> Noisy<R> {
    /// `raw` is what the noise is made from, `draws` are from a standard normal distribution, or none.
    pub fn new(clean: &[R], raw: &[R], draws: &[f64], epsilon: f64) -> Noisy<R> {
        if draws.is_empty() {
            return Noisy { clean: clean.to_vec(), std: Vec::new(), noisy: clean.to_vec() };
        }
        let std: Vec<R> = raw.iter().map(|raw| raw.softplus() + epsilon).collect();
        let noisy = clean.iter().zip(&std).zip(draws).map(|((&clean, &std), &draw)| clean + std * draw).collect();
        Noisy { clean: clean.to_vec(), std, noisy }
    }

    /// The best `chosen` experts, and a softmax over them.
    pub fn choose(&self, chosen: usize) -> (Vec<usize>, Vec<R>) {
        let best = row::top(&row::values(&self.noisy), chosen);
        let weights = row::softmax(&best.iter().map(|&expert| self.noisy[expert]).collect::<Vec<_>>());
        (best, weights)
    }

    /// How likely each expert is among the best `chosen` if its noise is drawn anew and that of the others stays. Without noise, or where every
    /// expert is chosen, whether it is.
    pub fn load(&self, chosen: usize) -> Vec<R> {
        let order = row::best_first(&row::values(&self.noisy));
        let is_chosen = |expert: usize| order[..chosen].contains(&expert);
        if self.std.is_empty() || chosen >= order.len() {
            return (0..order.len()).map(|expert| R::of(f64::from(u8::from(is_chosen(expert))))).collect();
        }
        let (last, next) = (self.noisy[order[chosen - 1]], self.noisy[order[chosen]]);
        let share = |expert: usize| {
            let threshold = if is_chosen(expert) { next } else { last };
            ((self.clean[expert] - threshold) / self.std[expert]).normal_cdf()
        };
        (0..order.len()).map(share).collect()
    }
}

fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let (num_experts, chosen) = (batch.dims.num_experts, values.count("num_experts_per_tok"));
    let mut routing = Routing::new(&batch.dims, chosen);
    let (mut load, mut noisy, mut std) = (Vec::new(), Vec::new(), Vec::new());
    for token in batch.tokens() {
        let (clean, raw) = batch.row(token).split_at(num_experts);
        let draws = if batch.training { batch.noise("normal", token) } else { &[] };
        let row = Noisy::new(clean, raw, draws, values.get("noise_epsilon"));
        let (best, weights) = row.choose(chosen);
        best.into_iter().zip(weights).enumerate().for_each(|(rank, (expert, weight))| routing.put(token, rank, expert, weight));
        load.extend(row.load(chosen));
        routing.push_scores(clean, &super::row::softmax(clean));
        noisy.extend(row.noisy);
        std.extend(row.std);
    }
    let load = column_sums(&load, num_experts);
    routing.losses.push(("load_loss", squared_variation(&load)));
    routing.named = vec![("load", load), ("noisy_logits", noisy), ("noise_std", std)];
    routing
}

const WGSL: &str = "
// Standard deviation of the noise of an expert.
fn deviation(i: u32) -> f32 {
    return softplus(z[NUM_EXPERTS + i]) + setting(S_NOISE_EPSILON);
}

fn choose() {
    softmax_all();
    for (var i = 0u; i < NUM_EXPERTS; i++) {
        key[i] = l[i] + noise_at(NOISE_NORMAL, i) * deviation(i);
    }
    var total = 0.0;
    var most = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = best_left();
        most = select(most, key[expert], rank == 0u);
        let weight = exp(key[expert] - most);
        put(rank, expert, weight);
        total += weight;
    }
    scale_weights(1.0 / total);
}

fn differentiate() {
    var mean = 0.0;
    for (var rank = 0u; rank < WIDTH; rank++) {
        mean += weight_of(rank) * dw[rank];
    }
    for (var rank = 0u; rank < WIDTH; rank++) {
        let expert = chosen(rank);
        let of_noisy = weight_of(rank) * (dw[rank] - mean);
        dl[expert] += of_noisy;
        dz[NUM_EXPERTS + expert] += of_noisy * noise_at(NOISE_NORMAL, expert) * sigmoid(z[NUM_EXPERTS + expert]);
    }
    softmax_back();
}
";
