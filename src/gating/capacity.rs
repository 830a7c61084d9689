//! How many tokens an expert accepts, and which ones where more come.
//!
//! Capacity counts within groups of tokens that follow each other. A dropped assignment gives the token nothing: what the layer adds to the
//! stream lacks that expert.

use super::{Batch, Dims, Distribution, NONE, Noise, Real, Routing, Setting, Values, row};
use std::cmp::Reverse;

/// Settings of every method whose experts may have a capacity.
pub static CAPACITY: &[Setting] = &[
    Setting::live(
        "capacity_factor",
        0.0,
        [0.0, 64.0],
        "an expert accepts so many times the tokens that it would get if all got equally many; 0 sets no limit",
    ),
    Setting::word(
        "capacity_rounding",
        &["ceil", "floor", "round"],
        "how the capacity becomes whole; `round` takes halves to the even number",
    ),
    Setting::switch("capacity_ignores_k", false, "the capacity is counted as if every token had one expert"),
    Setting::count("capacity_multiple_of", 1, 1 << 16, "the capacity is rounded up to a multiple of this"),
    Setting {
        name: "min_capacity",
        default: 0.0,
        range: [0.0, 65_536.0],
        words: &[],
        whole: true,
        live: true,
        help: "the capacity is at least this",
    },
    Setting::count("capacity_group", 1024, 1 << 20, "tokens among which the capacity counts"),
    Setting::switch("renormalize_after_drop", false, "the weights of the experts that a token keeps are divided by their sum"),
];

/// Who is dropped.
pub static DROP: &[Setting] = &[Setting::word("drop", &["choice", "token", "bpr", "rank", "rts"], DROP_HELP)];

/// The same for methods with one expert per token, which may go on to the next one.
pub static DROP_OR_NEXT: &[Setting] = &[
    Setting::word("drop", &["choice", "token", "bpr", "rank", "rts", "ntlb"], DROP_HELP),
    Setting::count("ntlb_tries", 2, 64, "experts that a token tries, where `drop` is `ntlb`"),
];

const DROP_HELP: &str = "who gets a place: first choices before second ones (`choice`), earlier tokens before later ones (`token`), tokens with a \
    high score of their first choice (`bpr`), of each expert the highest weights (`rank`), or any (`rts`); with `ntlb` whoever was refused tries the next expert";

/// What dropping reads.
pub static NOISE: &[Noise] = &[Noise {
    name: "rts",
    distribution: Distribution::Uniform,
    per_token: |dims, values| if values.word("drop") == "rts" { dims.num_experts } else { 0 },
}];

/// What the capacity is made from.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Demand {
    /// Of the group among which the capacity counts.
    pub num_tokens: usize,
    pub num_experts: usize,
    pub num_experts_per_tok: usize,
    pub capacity_factor: f64,
}

impl Demand {
    /// Assignments that an expert would have if all had equally many.
    fn share(&self, experts_per_token: usize) -> f64 {
        experts_per_token as f64 * self.num_tokens as f64 / self.num_experts as f64
    }

    /// Tokens of an expert where each token has one, rounded up.
    fn tokens(&self) -> f64 {
        (self.num_tokens as f64 / self.num_experts as f64).ceil()
    }
}

/// How one code base computes the capacity of an expert.
#[derive(Debug)]
pub struct Formula {
    pub name: &'static str,
    pub text: &'static str,
    pub capacity: fn(&Demand) -> f64,
}

/// Capacities as published code computes them. They differ in what they count, and in how they round.
pub static FORMULAS: &[Formula] = &[
    Formula { name: "GShard, lingvo", text: "2 T/E", capacity: |demand| demand.share(2).floor() },
    Formula {
        name: "mesh-tensorflow",
        text: "max(4, min(T, floor(f T/E)))",
        capacity: |demand| (demand.capacity_factor * demand.share(1)).floor().min(demand.num_tokens as f64).max(4.0),
    },
    Formula {
        name: "flaxformer",
        text: "max(4, round(f T/E))",
        capacity: |demand| (demand.capacity_factor * demand.share(1)).round_ties_even().max(4.0),
    },
    Formula {
        name: "V-MoE",
        text: "ceil(f k T/E), up to a multiple of 4",
        capacity: |demand| ((demand.capacity_factor * demand.share(demand.num_experts_per_tok)).ceil() / 4.0).ceil() * 4.0,
    },
    Formula {
        name: "DeepSpeed",
        text: "max(4, ceil(f k T/E))",
        capacity: |demand| (demand.capacity_factor * demand.share(demand.num_experts_per_tok)).ceil().max(4.0),
    },
    Formula {
        name: "Tutel",
        text: "k floor(f ceil(T/E))",
        capacity: |demand| demand.num_experts_per_tok as f64 * (demand.capacity_factor * demand.tokens()).floor(),
    },
    Formula {
        name: "MegaBlocks",
        text: "floor(f k T/E)",
        capacity: |demand| (demand.capacity_factor * demand.share(demand.num_experts_per_tok)).floor(),
    },
    Formula {
        name: "fairseq",
        text: "top-1 floor(f ceil(T/E)), top-2 2 ceil(T/E)",
        capacity: |demand| match demand.num_experts_per_tok {
            1 => (demand.capacity_factor * demand.tokens()).floor(),
            _ => 2.0 * demand.tokens(),
        },
    },
    Formula {
        name: "Megatron",
        text: "ceil(f k T/E)",
        capacity: |demand| (demand.capacity_factor * demand.share(demand.num_experts_per_tok)).ceil(),
    },
    Formula { name: "StableMoE", text: "floor(2 T/E)", capacity: |demand| demand.share(2).floor() },
];

/// The capacity that settings ask for; `None` without a limit.
pub fn expert_capacity(demand: &Demand, values: &Values) -> Option<usize> {
    if values.number("capacity_group").is_none() || values.get("capacity_factor") == 0.0 {
        return None;
    }
    let experts_per_token = if values.flag("capacity_ignores_k") { 1 } else { demand.num_experts_per_tok };
    let exact = demand.capacity_factor * demand.share(experts_per_token);
    let whole = rounded(exact, values.word("capacity_rounding"));
    let whole = whole.max(values.get("min_capacity")) as usize;
    Some(whole.next_multiple_of(values.count("capacity_multiple_of")))
}

/// Python's rounding, as code of this field has it.
pub(super) fn rounded(exact: f64, how: &str) -> f64 {
    match how {
        "floor" => exact.floor(),
        "round" => exact.round_ties_even(),
        _ => exact.ceil(),
    }
}

/// How many tokens of one call an expert of a trained model takes, where the model was trained to drop the rest. A call of a single token drops nothing.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CallCapacity {
    pub limit: CallLimit,
    /// The weights that a token keeps are divided by their sum, but by no less than this.
    pub renormalize: Option<f32>,
}

/// Tokens that an expert takes of a call.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum CallLimit {
    /// Always so many: `expert_capacity` of Switch Transformers.
    Tokens(usize),
    /// This part of the call's tokens, rounded up: `moe_eval_capacity_token_fraction` of NLLB-MoE.
    Share(f64),
}

impl CallCapacity {
    /// Tokens that an expert takes of a call of `num_tokens`.
    pub fn limit(&self, num_tokens: usize) -> usize {
        match self.limit {
            CallLimit::Tokens(most) => most,
            CallLimit::Share(share) => (share * num_tokens as f64).ceil() as usize,
        }
    }
}

/// The limit that a routing is held to.
#[derive(Debug)]
pub struct Limit {
    expert_capacity: Option<usize>,
    drop: &'static str,
    group_len: usize,
    tries: usize,
    num_experts: usize,
    /// Weights are divided by their sum after dropping, but by no less than this.
    renormalize: Option<f64>,
}

/// An assignment that wants a place.
#[derive(Debug, Clone, Copy)]
struct Wish {
    token: usize,
    rank: usize,
    expert: usize,
}

impl Limit {
    pub fn of<R: Real>(dims: &Dims, values: &Values, routing: &Routing<R>) -> Limit {
        let group_len = values.number("capacity_group").map_or(dims.num_tokens, |len| (len as usize).min(dims.num_tokens));
        let demand = Demand {
            num_tokens: group_len,
            num_experts: dims.num_experts,
            num_experts_per_tok: routing.width,
            capacity_factor: values.number("capacity_factor").unwrap_or(0.0),
        };
        let renormalize = values.number("renormalize_after_drop").is_some_and(|flag| flag != 0.0);
        Limit {
            expert_capacity: expert_capacity(&demand, values),
            drop: values.word("drop"),
            group_len,
            tries: values.number("ntlb_tries").map_or(1, |tries| tries as usize),
            num_experts: dims.num_experts,
            renormalize: renormalize.then(|| values.number("eps").unwrap_or(0.0)),
        }
    }

    /// Gives places, and takes from what has none its weight.
    pub fn apply<R: Real>(&self, routing: &mut Routing<R>, batch: &Batch<'_, R>) {
        if let Some(capacity) = self.expert_capacity {
            routing.expert_capacity = Some(capacity);
            for first in (0..batch.dims.num_tokens).step_by(self.group_len) {
                let tokens = first..(first + self.group_len).min(batch.dims.num_tokens);
                match self.drop {
                    "ntlb" => self.fill_or_next(routing, tokens, capacity),
                    _ => self.fill(routing, batch, tokens),
                }
            }
            for (weight, kept) in routing.weights.iter_mut().zip(&routing.kept) {
                if !kept {
                    *weight = R::zero();
                }
            }
        } else if matches!(routing.mixing, super::Mixing::List) {
            self.fill(routing, batch, 0..batch.dims.num_tokens);
        }
        if let Some(floor) = self.renormalize {
            for weights in routing.weights.chunks_exact_mut(routing.width) {
                let total = row::sum(weights.iter().copied());
                let divisor = if total.value() < floor { R::of(floor) } else { total };
                weights.iter_mut().for_each(|weight| *weight = *weight / divisor);
            }
        }
    }

    /// Gives the assignments of some tokens their places, in the order that `drop` says. What comes too late is not kept.
    fn fill<R: Real>(&self, routing: &mut Routing<R>, batch: &Batch<'_, R>, tokens: std::ops::Range<usize>) {
        let mut wishes: Vec<Wish> = Vec::new();
        for token in tokens {
            let of_token = routing.of_token(token).filter(|(rank, _)| routing.kept[token * routing.width + rank]);
            wishes.extend(of_token.map(|(rank, expert)| Wish { token, rank, expert }));
        }
        let score = |wish: &Wish| {
            let first = routing.expert_ids[wish.token * routing.width];
            match routing.scores.is_empty() || first == NONE {
                true => routing.weights[wish.token * routing.width].value(),
                false => routing.scores[wish.token * self.num_experts + first as usize].value(),
            }
        };
        let weight = |wish: &Wish| routing.weights[wish.token * routing.width + wish.rank].value();
        let draw = |wish: &Wish| batch.noise("rts", wish.token).get(wish.expert).copied().unwrap_or(0.0);
        match self.drop {
            "token" => {}
            "bpr" => wishes.sort_by_key(|wish| (wish.rank, Reverse(Ordered(score(wish))), wish.token)),
            "rank" => wishes.sort_by_key(|wish| (Reverse(Ordered(weight(wish))), wish.rank, wish.token)),
            "rts" => wishes.sort_by_key(|wish| (Reverse(Ordered(draw(wish))), wish.rank, wish.token)),
            _ => wishes.sort_by_key(|wish| (wish.rank, wish.token)),
        }
        let mut taken = vec![0; self.num_experts];
        for wish in wishes {
            let place = wish.token * routing.width + wish.rank;
            routing.slots[place] = taken[wish.expert];
            routing.kept[place] = self.expert_capacity.is_none_or(|capacity| (taken[wish.expert] as usize) < capacity);
            taken[wish.expert] += 1;
        }
    }

    /// In passes: who was refused tries its next expert, by score, and takes the score as its weight.
    fn fill_or_next<R: Real>(&self, routing: &mut Routing<R>, tokens: std::ops::Range<usize>, capacity: usize) {
        let mut taken = vec![0usize; self.num_experts];
        let mut refused: Vec<usize> = tokens.collect();
        routing.refused_first.extend_from_slice(&routing.expert_ids[refused[0]..][..refused.len()]);
        refused.iter().for_each(|&token| routing.kept[token] = false);
        for pass in 0..self.tries.min(self.num_experts) {
            refused.retain(|&token| {
                let scores = &routing.scores[token * self.num_experts..][..self.num_experts];
                let first = routing.refused_first[token] as usize;
                let others = row::best_first(&row::values(scores)).into_iter().filter(|&expert| expert != first);
                let expert = if pass == 0 { first } else { others.clone().nth(pass - 1).unwrap_or(first) };
                let refuse = taken[expert] >= capacity;
                if !refuse {
                    let (weight, slot) = (scores[expert], taken[expert] as u32);
                    routing.put(token, 0, expert, weight);
                    routing.slots[token] = slot;
                    taken[expert] += 1;
                }
                refuse
            });
        }
        refused.into_iter().for_each(|token| routing.expert_ids[token] = NONE);
    }
}

/// A number in the order of `total_cmp`, where both zeros are one.
#[derive(Debug, PartialEq)]
struct Ordered(f64);

impl Eq for Ordered {}

impl PartialOrd for Ordered {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Ordered {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0 + 0.0).total_cmp(&(other.0 + 0.0))
    }
}
