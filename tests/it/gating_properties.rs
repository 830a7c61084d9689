//! What holds for every gating method, whatever it reads.

use super::gating_parts::random;
use moebius::batch::rng::pcg;
use moebius::gating::{
    Batch, Dims, GATES, Gate, MAX_NOISE, MAX_SETTINGS, Mixing, Named, Real, Routed, Routing, Tape, Values, Var, gate, loss,
};
use proptest::prelude::*;

/// Small sizes that suit every method, and settings that need more than one expert of a token.
fn setting(gate: &Gate) -> (Dims, Values) {
    let num_experts = 8;
    let dims = Dims { num_tokens: 16, seq_len: 8, hidden_size: 6, num_experts, vocab_size: 11 };
    let mut values = Values::new(gate.settings);
    for (name, text) in
        [("num_keys", "4"), ("router_dim", "5"), ("light_dim", "3"), ("slots_per_expert", "2"), ("num_groups", "4")]
    {
        if values.number(name).is_some() {
            values.set(name, text).unwrap();
        }
    }
    if values.number("num_kept_groups").is_some() {
        values.set("num_kept_groups", "2").unwrap();
    }
    let dims = if gate.name == "peer" { Dims { num_experts: 16, ..dims } } else { dims };
    (dims, values)
}

/// Everything that a rule reads, drawn at random.
struct Drawn {
    dims: Dims,
    training: bool,
    x: Vec<f64>,
    router: Vec<f64>,
    leaves: Named<f64>,
    noise: Named<f64>,
    state: Named<f64>,
    token_ids: Vec<u32>,
    domains: Vec<u32>,
}

impl Drawn {
    fn new(gate: &Gate, dims: Dims, values: &Values, seed: u32) -> Drawn {
        let mut next = seed;
        let mut draw = |len: usize| {
            next = pcg(next);
            random(next, len)
        };
        let router = draw(dims.num_tokens * (gate.router_rows)(&dims, values));
        let leaves = gate.leaves.iter().map(|leaf| (leaf.name, draw((leaf.shape)(&dims, values).iter().product()))).collect();
        // Above zero, as exponential draws have to be; that is a legitimate value of every other distribution.
        let noise = gate.noise.iter().map(|noise| (noise.name, (noise.per_token)(&dims, values)));
        let noise = noise.chain([("rts", if values.word("drop") == "rts" { dims.num_experts } else { 0 })]);
        let noise =
            noise.map(|(name, len)| (name, draw(dims.num_tokens * len).into_iter().map(|u| (u + 1.5) / 3.0 + 1e-3).collect()));
        let noise: Named<f64> = noise.collect();
        let experts = values
            .number("num_tables")
            .or(values.number("num_domains"))
            .map_or(dims.num_experts, |parts| dims.num_experts / parts as usize);
        let state = gate.state.iter().map(|state| {
            let numbers = draw((state.shape)(&dims, values).iter().product());
            let expert = |u: f64| ((u + 1.5) / 3.0 * experts as f64).floor().min(experts as f64 - 1.0);
            (state.name, if state.name == "table" { numbers.into_iter().map(expert).collect() } else { numbers })
        });
        let state = state.collect();
        let token_ids = draw(dims.num_tokens).into_iter().map(|u| ((u + 1.5) / 3.0 * dims.vocab_size as f64) as u32).collect();
        Drawn {
            dims,
            training: true,
            x: draw(dims.num_tokens * dims.hidden_size),
            router,
            leaves,
            noise,
            state,
            token_ids,
            domains: vec![0; dims.num_tokens],
        }
    }

    fn batch(&self) -> Batch<'_, f64> {
        Batch {
            dims: self.dims,
            training: self.training,
            x: &self.x,
            router: &self.router,
            leaves: &self.leaves,
            noise: &self.noise,
            state: &self.state,
            token_ids: &self.token_ids,
            domains: &self.domains,
        }
    }
}

/// All that a routing gives, as one list of numbers.
fn all_numbers<R: Real>(routing: &Routing<R>) -> Vec<R> {
    let mut numbers = routing.weights.clone();
    match &routing.mixing {
        Mixing::Slots { dispatch, combine } => numbers.extend(dispatch.iter().chain(combine)),
        Mixing::Merged { shares, .. } => numbers.extend(shares),
        Mixing::List | Mixing::Neurons => {}
    }
    numbers.extend(routing.routed_scale.iter().chain(&routing.shared_scale).flatten());
    numbers.extend(routing.losses.iter().map(|(_, value)| *value));
    numbers
}

/// Methods whose gradient is not that of their value, on purpose.
const ESTIMATED: [&str; 2] = ["gumbel_straight_through", "sparse_mixer"];

#[test]
fn the_tape_gives_the_slope_of_every_rule() {
    const STEP: f64 = 1e-5;
    for gate in GATES.iter().filter(|gate| !ESTIMATED.contains(&gate.name)) {
        let (dims, values) = setting(gate);
        let drawn = Drawn::new(gate, dims, &values, 7);
        let tape = Tape::new();
        let (router, x) = (tape.vars(&drawn.router), tape.vars(&drawn.x));
        let leaves: Named<Var<'_>> = drawn.leaves.iter().map(|(name, numbers)| (*name, tape.vars(numbers))).collect();
        let plain = drawn.batch();
        let taped = Batch {
            dims,
            training: true,
            x: &x,
            router: &router,
            leaves: &leaves,
            noise: plain.noise,
            state: plain.state,
            token_ids: plain.token_ids,
            domains: plain.domains,
        };
        let found = gate.route_taped(&taped, &values).unwrap();
        let numbers = all_numbers(&found);
        let seeds = random(3, numbers.len());
        let gradient = tape.gradient(numbers.into_iter().zip(seeds.iter().copied()));
        let value = |drawn: &Drawn| -> f64 {
            let numbers = all_numbers(&gate.route(&drawn.batch(), &values).unwrap());
            numbers.iter().zip(&seeds).map(|(number, seed)| number * seed).sum()
        };
        let mut slopes = Vec::new();
        let mut slope = |change: &dyn Fn(&mut Drawn, f64)| {
            let at = |step: f64| {
                let mut moved = Drawn::new(gate, dims, &values, 7);
                change(&mut moved, step);
                value(&moved)
            };
            slopes.push((at(STEP) - at(-STEP)) / (2.0 * STEP));
        };
        let mut expected = Vec::new();
        for place in (0..router.len()).step_by(3) {
            slope(&|drawn, step| drawn.router[place] += step);
            expected.push(gradient.of(router[place]));
        }
        for (name, vars) in &leaves {
            for place in (0..vars.len()).step_by(2) {
                slope(&|drawn, step| drawn.leaves.get_mut(name).unwrap()[place] += step);
                expected.push(gradient.of(vars[place]));
            }
        }
        for (index, (found, expected)) in expected.iter().zip(&slopes).enumerate() {
            assert!(
                (found - expected).abs() <= 1e-6 * (1.0 + expected.abs()),
                "{} [{index}]: {found}, but the slope is {expected}",
                gate.name
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn no_expert_accepts_more_than_its_capacity(seed in 0u32..10_000, factor in 0.1f64..2.0, drop in 0usize..5, which in 0usize..3) {
        let gate = gate(["top1_switch", "top2_gshard", "top_k_softmax"][which]).unwrap();
        let (dims, mut values) = setting(gate);
        values.set("capacity_factor", &factor.to_string()).unwrap();
        values.set("capacity_group", "8").unwrap();
        values.set("drop", ["choice", "token", "bpr", "rank", "rts"][drop]).unwrap();
        let routing = gate.route(&Drawn::new(gate, dims, &values, seed).batch(), &values).unwrap();
        let capacity = routing.expert_capacity.unwrap();
        for group in 0..2 {
            let mut taken = vec![Vec::new(); dims.num_experts];
            for token in group * 8..(group + 1) * 8 {
                for (rank, expert) in routing.of_token(token) {
                    let place = token * routing.width + rank;
                    if routing.kept[place] {
                        taken[expert].push(routing.slots[place]);
                    } else {
                        prop_assert_eq!(routing.weights[place], 0.0);
                    }
                }
            }
            for (expert, mut slots) in taken.into_iter().enumerate() {
                slots.sort_unstable();
                prop_assert!(slots.len() <= capacity, "expert {} has {} tokens of {}", expert, slots.len(), capacity);
                prop_assert!(slots.windows(2).all(|pair| pair[0] < pair[1]), "two tokens share a place: {slots:?}");
            }
        }
    }

    #[test]
    fn experts_that_choose_are_equally_busy(seed in 0u32..10_000) {
        let gate = gate("expert_choice").unwrap();
        let (dims, values) = setting(gate);
        let routing = gate.route(&Drawn::new(gate, dims, &values, seed).batch(), &values).unwrap();
        prop_assert_eq!(routing.counts(dims.num_experts), vec![4; dims.num_experts]);
    }

    #[test]
    fn an_auction_gives_every_expert_the_same_number(seed in 0u32..10_000) {
        let gate = gate("base_layer").unwrap();
        let (dims, values) = setting(gate);
        let routing = gate.route(&Drawn::new(gate, dims, &values, seed).batch(), &values).unwrap();
        prop_assert_eq!(routing.counts(dims.num_experts), vec![2; dims.num_experts]);
    }

    /// Of methods that read one number for each expert.
    #[test]
    fn experts_in_another_order_change_nothing_else(seed in 0u32..10_000, shift in 1usize..8) {
        for name in ["top1_switch", "top2_gshard", "top_k_softmax", "dense_softmax", "top_p", "relu_routing", "expert_choice", "sinkhorn_routing"] {
            let gate = gate(name).unwrap();
            let (dims, values) = setting(gate);
            let drawn = Drawn::new(gate, dims, &values, seed);
            let mut turned = Drawn::new(gate, dims, &values, seed);
            let num_experts = dims.num_experts;
            let other = |place: usize| place / num_experts * num_experts + (place + shift) % num_experts;
            (0..drawn.router.len()).for_each(|place| turned.router[other(place)] = drawn.router[place]);
            let before = gate.route(&drawn.batch(), &values).unwrap().dense(num_experts);
            let after = gate.route(&turned.batch(), &values).unwrap().dense(num_experts);
            for (place, weight) in before.iter().enumerate() {
                prop_assert!((weight - after[other(place)]).abs() < 1e-12, "{}: {} and {}", name, weight, after[other(place)]);
            }
        }
    }
}

/// Every expert gets the same, and every score is the same.
#[test]
fn a_balanced_batch_gives_the_value_that_each_loss_states() {
    let dims = Dims { num_tokens: 8, seq_len: 8, hidden_size: 2, num_experts: 4, vocab_size: 0 };
    let gate = gate("group_limited").unwrap();
    let mut values = Values::new(gate.settings);
    values.set("num_kept_groups", "2").unwrap();
    let mut routing = Routing::<f64>::new(&dims, 2);
    for token in 0..dims.num_tokens {
        (0..2).for_each(|rank| routing.put(token, rank, (token + rank) % 4, 0.5));
        routing.push_scores(&[0.0; 4], &[0.25; 4]);
    }
    let routed =
        Routed { routing: &routing, dims: &dims, values: &values, router: &[1.0, 0.0, 0.0, 1.0], global_share: &[0.25; 4] };
    for (name, expected) in [
        ("load_balancing_loss", 1.0),
        ("load_balancing_loss_gshard", 1.0 / 16.0),
        ("load_balancing_loss_top_k", 1.0),
        ("load_balancing_loss_transformers", 2.0),
        ("global_balancing_loss", 1.0),
        ("sequence_loss", 1.0),
        ("device_loss", 1.0),
        ("importance_loss", 0.0),
        ("importance_loss_sample", 0.0),
        ("entropy_loss", 4f64.ln()),
        ("mutual_information_loss", 0.0),
        ("orthogonality_loss", 0.0),
    ] {
        let found = loss(name).unwrap().value(&routed);
        assert!((found - expected).abs() < 1e-12, "{name} is {found}, expected {expected}");
    }
}

#[test]
fn what_a_gate_runs_as_chooses_the_same() {
    for gate in GATES {
        let Some(runs_as) = &gate.runs_as else { continue };
        let (dims, values) = setting(gate);
        let spec = (runs_as.spec)(&dims, &values).expect("the defaults are known");
        let mut drawn = Drawn::new(gate, dims, &values, 5);
        drawn.training = false;
        // Routers of models read f32.
        drawn.router.iter_mut().for_each(|number| *number = f64::from(*number as f32));
        let routing = gate.route(&drawn.batch(), &values).unwrap();
        let bias: Option<Vec<f32>> =
            drawn.state.get("selection_bias").map(|bias| bias.iter().map(|&number| number as f32).collect());
        for token in 0..dims.num_tokens {
            let logits: Vec<f32> =
                routing.logits[token * dims.num_experts..][..dims.num_experts].iter().map(|&logit| logit as f32).collect();
            let assignment = spec.route(&logits, bias.as_deref());
            let ids: Vec<u32> = routing.expert_ids[token * routing.width..][..routing.width].to_vec();
            let mut pairs: Vec<(u32, f64)> =
                ids.into_iter().zip(routing.weights[token * routing.width..].iter().copied()).collect();
            pairs.sort_by(|a, b| b.1.total_cmp(&a.1));
            let mut expected: Vec<(u32, f64)> =
                assignment.expert_ids.iter().copied().zip(assignment.routing_weights.iter().copied()).collect();
            expected.sort_by(|a, b| b.1.total_cmp(&a.1));
            for (found, expected) in pairs.iter().zip(&expected) {
                assert_eq!(found.0, expected.0, "{}", gate.name);
                assert!((found.1 - expected.1).abs() < 1e-6, "{}: {} and {}", gate.name, found.1, expected.1);
            }
            assert_eq!(pairs.len(), expected.len(), "{}", gate.name);
        }
    }
}

#[test]
fn rules_in_wgsl_have_room_in_the_uniform() {
    let with_rule: Vec<&Gate> = GATES.iter().copied().filter(|gate| gate.wgsl.is_some()).collect();
    assert!(with_rule.len() >= 20, "{}", with_rule.len());
    for gate in with_rule {
        assert!(Values::new(gate.settings).iter().count() <= MAX_SETTINGS, "{}", gate.name);
        assert!(gate.noise.len() <= MAX_NOISE && gate.state.len() <= 1, "{}", gate.name);
        let text = gate.wgsl_text().unwrap();
        assert!(text.contains("fn choose()") && text.contains("fn differentiate()"), "{}", gate.name);
    }
}

#[test]
fn what_does_not_fit_is_an_error() {
    let refuse = |name: &str, settings: &[(&str, &str)], num_tokens: usize, expected: &str| {
        let gate = gate(name).unwrap();
        let (dims, mut values) = setting(gate);
        settings.iter().for_each(|(name, text)| values.set(name, text).unwrap());
        let dims = Dims { num_tokens, seq_len: num_tokens, ..dims };
        let drawn = Drawn::new(gate, dims, &values, 1);
        let error = format!("{:?}", gate.route(&drawn.batch(), &values).unwrap_err());
        assert!(error.contains(expected), "{name}: {error}");
    };
    refuse("top_k_softmax", &[("num_experts_per_tok", "9")], 16, "experts per token");
    refuse("base_layer", &[], 15, "a multiple of 8");
    refuse("group_limited", &[("num_groups", "3")], 16, "groups");
    refuse("group_limited", &[("num_kept_groups", "1"), ("num_experts_per_tok", "3")], 16, "groups that are kept");
    refuse("grouped_top_k", &[("experts_per_group", "3")], 16, "experts of a group");
    refuse("smear", &[("segment", "5")], 16, "segment");
    let gate = gate("top1_switch").unwrap();
    let (dims, mut values) = setting(gate);
    let mut drawn = Drawn::new(gate, dims, &values, 1);
    drawn.router.pop();
    assert!(format!("{:?}", gate.route(&drawn.batch(), &values).unwrap_err()).contains("product of the router"));
    for (name, text) in [
        ("capacity_facter", "1"),
        ("capacity_factor", "-1"),
        ("min_capacity", "2.5"),
        ("drop", "all"),
        ("capacity_factor", "much"),
    ] {
        assert!(values.set(name, text).is_err(), "{name} = {text}");
    }
    assert!(moebius::gating::gate("top_q").is_err());
}
