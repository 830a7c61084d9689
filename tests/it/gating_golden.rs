//! Every gating method against values that PyTorch computed in f64: choices, weights, losses, and gradients by the tape.

use moebius::gating::{
    Batch, Dims, GATES, Gate, Mixing, NONE, Named, Real, Routed, Routing, Tape, Values, Var, WeightOn, gate, loss,
};
use safetensors::SafeTensors;
use safetensors::tensor::Dtype;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Stored values are rounded to f32.
const WITHIN: f64 = 1e-6;

pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/gating")
}

/// A stored case.
pub struct Case {
    /// `method/case_name`
    pub name: String,
    pub tensors: BTreeMap<String, Vec<f64>>,
    pub shapes: BTreeMap<String, Vec<usize>>,
    pub json: Value,
}

impl Case {
    pub fn load(path: &Path) -> Case {
        let json = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let (mut tensors, mut shapes) = (BTreeMap::new(), BTreeMap::new());
        for (name, view) in file.tensors() {
            let words = view.data().chunks_exact(4).map(|word| <[u8; 4]>::try_from(word).unwrap());
            let numbers = match view.dtype() {
                Dtype::F32 => words.map(|word| f64::from(f32::from_le_bytes(word))).collect(),
                Dtype::I32 => words.map(|word| f64::from(i32::from_le_bytes(word))).collect(),
                other => panic!("{name} is {other:?}"),
            };
            tensors.insert(name.clone(), numbers);
            shapes.insert(name, view.shape().to_vec());
        }
        let folder = path.parent().unwrap().file_name().unwrap().to_str().unwrap();
        Case { name: format!("{folder}/{}", path.file_stem().unwrap().to_str().unwrap()), tensors, shapes, json }
    }

    /// The cases of one folder, by name.
    pub fn of(method: &str) -> Vec<Case> {
        let entries = std::fs::read_dir(folder().join(method)).unwrap();
        let mut paths: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.extension().is_some_and(|extension| extension == "json"));
        paths.sort();
        paths.iter().map(|path| Case::load(path)).collect()
    }

    pub fn get(&self, name: &str) -> &[f64] {
        self.tensors.get(name).unwrap_or_else(|| panic!("{} has no {name}", self.name))
    }

    pub fn find(&self, name: &str) -> Option<&[f64]> {
        self.tensors.get(name).map(Vec::as_slice)
    }

    pub fn hp(&self, name: &str) -> Option<f64> {
        let value = &self.json["hp"][name];
        value.as_f64().or_else(|| value.as_bool().map(|is| f64::from(u8::from(is))))
    }

    fn method(&self) -> &str {
        self.name.split('/').next().unwrap()
    }

    /// Sizes, whose names differ a little between methods.
    fn dims(&self) -> Dims {
        let shape = |name: &str| self.json["shape"][name].as_u64().map(|number| number as usize);
        let num_tokens = shape("T").or_else(|| Some(shape("B")? * shape("S")?)).unwrap();
        let num_experts = match (self.method(), shape("E")) {
            ("peer", _) => shape("n").unwrap().pow(2),
            ("hash_routing", Some(per_table)) => per_table * self.shapes["table"][0],
            (_, Some(experts)) => experts,
            _ => shape("G").unwrap() * shape("M").unwrap(),
        };
        let seq_len = self.hp("seq_len").map(|len| len as usize).or(shape("S")).unwrap_or(num_tokens);
        let vocab_size = match self.method() {
            "hash_gated" => self.shapes["table"][0],
            "stable_moe" => self.shapes["light_embedding"][0],
            _ => self.shapes.get("table").map_or(0, |shape| shape[1]),
        };
        Dims { num_tokens, seq_len, hidden_size: shape("H").unwrap(), num_experts, vocab_size }
    }

    fn is_training(&self) -> bool {
        !self.name.ends_with("eval") && self.hp("greedy").is_none()
    }

    /// Settings in our words.
    fn values(&self, gate: &Gate) -> Values {
        let mut values = Values::new(gate.settings);
        let mut set = |name: &str, text: &str| {
            if values.number(name).is_some() {
                values.set(name, text).unwrap();
            }
        };
        // The fixtures leave out what is off.
        set("renormalize", "no");
        set("sinkhorn_iterations", "0");
        let method = self.method();
        for (key, value) in self.json["hp"].as_object().unwrap() {
            let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            let name = match (key.as_str(), method) {
                ("k", "hierarchical_noisy") => "experts_per_group",
                ("k", _) => "num_experts_per_tok",
                ("k_group" | "topk_group", _) => "num_kept_groups",
                ("n_group", _) => "num_groups",
                ("k_per_group", _) => "experts_per_group",
                ("jitter", "sparse_mixer") => "mask_jitter",
                ("iters", _) => "sinkhorn_iterations",
                ("scale_input", _) => "weight_on",
                (other, _) => other,
            };
            match (key.as_str(), method) {
                ("version", _) => set("version", &format!("v{text}")),
                ("stage", _) => set("stage", if text == "1" { "learning" } else { "frozen" }),
                ("bpr", _) => set("drop", if text == "true" { "bpr" } else { "choice" }),
                ("normalize", "top2_gshard" | "top_k_softmax") => set("renormalize_after_drop", "yes"),
                ("scale_input", _) => set(name, "input"),
                // These need a limit that is not a factor.
                ("capacity_factor", "stable_moe") => {
                    set(name, &text);
                    set("capacity_rounding", "floor");
                }
                _ => set(name, &text),
            }
        }
        let dim = |name: &str, axis: usize| self.shapes.get(name).map_or_else(String::new, |shape| shape[axis].to_string());
        let shape = |name: &str| self.json["shape"][name].to_string();
        match method {
            "cosine_router" => set("router_dim", &dim("router", 1)),
            "stable_moe" => set("light_dim", &dim("light_router", 1)),
            "soft_moe" => set("slots_per_expert", &shape("P")),
            "smear" if self.find("ln_weight").is_some() => set("layer_norm", "yes"),
            "dselect_k" => set("num_selectors", &shape("K")),
            "hash_routing" => set("num_tables", &dim("table", 0)),
            "random_routed" => set("num_domains", &dim("table", 0)),
            "hash_gated" => set("num_experts_per_tok", &shape("k")),
            "hierarchical_noisy" | "hme_1994" => set("num_groups", &shape("G")),
            "relu_routing" => set("num_experts_per_tok", &self.json["hp"]["k"].to_string()),
            "peer" => {
                set("num_heads", &shape("heads"));
                set("num_keys", &shape("n"));
                set("key_dim", &shape("dk"));
            }
            _ => {}
        }
        values
    }

    /// The matrices that make up the router's, one below the other.
    fn router(&self) -> &'static [&'static str] {
        match self.method() {
            "attention_router" => &["router_q", "router_k", "router_v"],
            "cosine_router" => &["projector"],
            "dselect_k" => &["selector", "mixer"],
            "noisy_top_k" => &["router", "router_noise"],
            "hierarchical_noisy" => &["router", "router_noise", "router_nested", "router_nested_noise"],
            "peer" => &["query"],
            "residual_moe" => &["router", "coefficient"],
            "hme_1994" => &["gate_top", "gate_nested"],
            "hash_routing" | "random_routed" | "soft_moe" | "smear" => &[],
            _ => &["router"],
        }
    }
}

/// What a leaf is called in the fixtures.
fn stored_leaf(name: &'static str) -> &'static str {
    match name {
        "expert_vectors" | "merge_router" => "router",
        other => other,
    }
}

/// One layer on a tape.
pub struct Layer<'c, 't> {
    pub case: &'c Case,
    pub dims: Dims,
    pub values: Values,
    pub inputs: BTreeMap<String, Vec<Var<'t>>>,
    pub routing: Routing<Var<'t>>,
    pub y: Vec<Var<'t>>,
    pub outputs: Vec<Var<'t>>,
}

fn product<'t>(x: &[Var<'t>], matrix: &[Var<'t>], hidden_size: usize) -> Vec<Var<'t>> {
    x.chunks_exact(hidden_size).flat_map(|x| matrix.chunks_exact(hidden_size).map(move |row| dot(x, row))).collect()
}

fn dot<'t>(a: &[Var<'t>], b: &[Var<'t>]) -> Var<'t> {
    a.iter().zip(b).fold(Var::zero(), |sum, (&a, &b)| sum + a * b)
}

/// What the rule of a case reads, as plain numbers or on a tape.
struct Read<R> {
    dims: Dims,
    training: bool,
    x: Vec<R>,
    router: Vec<R>,
    leaves: Named<R>,
    noise: Named<f64>,
    state: Named<f64>,
    token_ids: Vec<u32>,
    domains: Vec<u32>,
}

impl<R: Real> Read<R> {
    fn batch(&self) -> Batch<'_, R> {
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

/// The routers' products of every token, one after the other.
fn interleaved<'t>(parts: &[Vec<Var<'t>>], num_tokens: usize) -> Vec<Var<'t>> {
    let of_token = |token: usize| {
        parts.iter().flat_map(move |part| part[token * part.len() / num_tokens..][..part.len() / num_tokens].to_vec())
    };
    (0..num_tokens).flat_map(of_token).collect()
}

fn read<'t>(case: &Case, gate: &Gate, inputs: &BTreeMap<String, Vec<Var<'t>>>) -> Read<Var<'t>> {
    let (dims, values) = (case.dims(), case.values(gate));
    let x = inputs["x"].clone();
    let jittered: Vec<Var<'t>> = match case.find("noise_jitter") {
        Some(jitter) => x.iter().zip(jitter).map(|(&x, &factor)| x * factor).collect(),
        None => x.clone(),
    };
    let rows = (gate.router_rows)(&dims, &values);
    let matrices = case.router().iter().filter_map(|name| inputs.get(*name));
    let mut parts: Vec<Vec<Var<'t>>> = matrices.map(|matrix| product(&jittered, matrix, dims.hidden_size)).collect();
    // At evaluation the fixtures have no router of the noise.
    let found: usize = parts.iter().map(Vec::len).sum();
    parts.push(vec![Var::zero(); dims.num_tokens * rows - found]);
    let ids = |name: &str| case.find(name).map_or(Vec::new(), |ids| ids.iter().map(|&id| id as u32).collect());
    let noise = gate.noise.iter().map(|noise| noise.name).chain(["rts"]);
    let noise = noise.filter_map(|name| Some((name, case.find(&format!("noise_{name}"))?.to_vec())));
    let mut state: Named<f64> = gate
        .state
        .iter()
        .map(|state| {
            let len = (state.shape)(&dims, &values).iter().product();
            (state.name, case.find(state.name).map_or_else(|| vec![0.0; len], <[f64]>::to_vec))
        })
        .collect();
    if case.method() == "random_routed" {
        // Stored are the experts of the whole layer.
        let domains = case.shapes["table"][0];
        let share = (dims.num_experts / domains) as f64;
        state.get_mut("table").unwrap().iter_mut().for_each(|expert| *expert %= share);
    }
    let leaves = gate.leaves.iter().filter_map(|leaf| Some((leaf.name, inputs.get(stored_leaf(leaf.name))?.clone())));
    Read {
        dims,
        training: case.is_training(),
        router: interleaved(&parts, dims.num_tokens),
        x,
        leaves: leaves.collect(),
        noise: noise.collect(),
        state,
        token_ids: ids("token_ids"),
        domains: ids("domain"),
    }
}

/// The experts of a layer.
struct Experts<'a, 't> {
    inputs: &'a BTreeMap<String, Vec<Var<'t>>>,
    prefix: &'static str,
    hidden_size: usize,
    count: usize,
}

impl<'t> Experts<'_, 't> {
    fn slice(&self, name: &str, expert: usize) -> &[Var<'t>] {
        let all = &self.inputs[&format!("{}{name}", self.prefix)];
        let len = all.len() / self.count;
        &all[expert * len..][..len]
    }

    fn is_gated(&self) -> bool {
        self.inputs.contains_key(&format!("{}gate_proj", self.prefix))
    }

    /// The matrices of one expert: those into the hidden layer, and the one out of it.
    fn matrices(&self, expert: usize) -> Vec<Vec<Var<'t>>> {
        let names: &[&str] = if self.is_gated() { &["gate_proj", "up_proj", "down_proj"] } else { &["wi", "wo"] };
        names.iter().map(|name| self.slice(name, expert).to_vec()).collect()
    }

    fn apply(&self, matrices: &[Vec<Var<'t>>], x: &[Var<'t>]) -> Vec<Var<'t>> {
        let into = |matrix: &[Var<'t>]| product(x, matrix, self.hidden_size);
        let hidden: Vec<Var<'t>> = match matrices {
            [gate, up, _] => into(gate).into_iter().zip(into(up)).map(|(gate, up)| gate * gate.sigmoid() * up).collect(),
            _ => into(&matrices[0]).into_iter().map(Real::relu).collect(),
        };
        product(&hidden, &matrices[matrices.len() - 1], hidden.len())
    }

    fn run(&self, expert: usize, x: &[Var<'t>]) -> Vec<Var<'t>> {
        self.apply(&self.matrices(expert), x)
    }
}

fn add<'t>(y: &mut [Var<'t>], output: &[Var<'t>], factor: Var<'t>) {
    y.iter_mut().zip(output).for_each(|(y, &output)| *y = *y + output * factor);
}

/// The neurons of PEER: the exact GELU of one product each.
fn neurons<'t>(layer: &mut Layer<'_, 't>) {
    let len = layer.dims.hidden_size;
    let (down, up) = (&layer.inputs["expert_down"], &layer.inputs["expert_up"]);
    for token in 0..layer.dims.num_tokens {
        let x = &layer.inputs["x"][token * len..][..len];
        for (rank, id) in layer.routing.of_token(token) {
            let sum = dot(&down[id * len..][..len], x);
            let weight = layer.routing.weights[token * layer.routing.width + rank];
            add(&mut layer.y[token * len..][..len], &up[id * len..][..len], sum * sum.normal_cdf() * weight);
        }
    }
}

fn lists<'t>(layer: &mut Layer<'_, 't>, experts: &Experts<'_, 't>) {
    let len = layer.dims.hidden_size;
    for token in 0..layer.dims.num_tokens {
        let x = layer.inputs["x"][token * len..][..len].to_vec();
        let mut sum = vec![Var::zero(); len];
        for (rank, id) in layer.routing.of_token(token) {
            let place = token * layer.routing.width + rank;
            if !layer.routing.kept[place] {
                continue;
            }
            let weight = layer.routing.weights[place];
            let output = match layer.routing.weight_on {
                WeightOn::Output => experts.run(id, &x),
                WeightOn::Input => experts.run(id, &x.iter().map(|&x| x * weight).collect::<Vec<_>>()),
            };
            let factor = if layer.routing.weight_on == WeightOn::Output { weight } else { Var::of(1.0) };
            add(&mut sum, &output, factor);
            layer.outputs.extend(output);
        }
        let scale = layer.routing.routed_scale.as_ref().map_or(Var::of(1.0), |scale| scale[token]);
        add(&mut layer.y[token * len..][..len], &sum, scale);
    }
}

fn slots<'t>(layer: &mut Layer<'_, 't>, experts: &Experts<'_, 't>, mixing: [&[Var<'t>]; 2]) {
    let [dispatch, combine] = mixing;
    let (len, num_tokens) = (layer.dims.hidden_size, layer.dims.num_tokens);
    let num_slots = dispatch.len() / num_tokens;
    for slot in 0..num_slots {
        let mut input = vec![Var::zero(); len];
        for token in 0..num_tokens {
            add(&mut input, &layer.inputs["x"][token * len..][..len], dispatch[token * num_slots + slot]);
        }
        let output = experts.run(slot * layer.dims.num_experts / num_slots, &input);
        for token in 0..num_tokens {
            add(&mut layer.y[token * len..][..len], &output, combine[token * num_slots + slot]);
        }
    }
}

fn merged<'t>(layer: &mut Layer<'_, 't>, experts: &Experts<'_, 't>, shares: &[Var<'t>], group_len: usize) {
    let len = layer.dims.hidden_size;
    for (group, shares) in shares.chunks_exact(layer.dims.num_experts).enumerate() {
        let mut matrices: Vec<Vec<Var<'t>>> = experts.matrices(0).iter().map(|matrix| vec![Var::zero(); matrix.len()]).collect();
        for (expert, &share) in shares.iter().enumerate() {
            matrices.iter_mut().zip(experts.matrices(expert)).for_each(|(sum, matrix)| add(sum, &matrix, share));
        }
        for token in group * group_len..(group + 1) * group_len {
            let output = experts.apply(&matrices, &layer.inputs["x"][token * len..][..len]);
            add(&mut layer.y[token * len..][..len], &output, Var::of(1.0));
        }
    }
}

/// The expert that every token has, with what multiplies it.
fn shared<'t>(layer: &mut Layer<'_, 't>) {
    let prefix = if layer.inputs.contains_key("dense.wi") { "dense." } else { "shared." };
    let len = layer.dims.hidden_size;
    let experts = Experts { inputs: &layer.inputs, prefix, hidden_size: len, count: 1 };
    if !experts.is_gated() && prefix == "shared." {
        return;
    }
    for token in 0..layer.dims.num_tokens {
        let x = &layer.inputs["x"][token * len..][..len];
        let gate = layer.inputs.get("shared_gate").map(|row| dot(x, row).sigmoid());
        let scale = layer.routing.shared_scale.as_ref().map(|scale| scale[token]);
        let output = experts.run(0, x);
        add(&mut layer.y[token * len..][..len], &output, scale.or(gate).unwrap_or(Var::of(1.0)));
    }
}

impl<'c, 't> Layer<'c, 't> {
    pub fn new(case: &'c Case, tape: &'t Tape) -> Layer<'c, 't> {
        let gate = gate(case.method()).unwrap();
        let (dims, values) = (case.dims(), case.values(gate));
        let is_input = |name: &str| !name.starts_with("out.") && !name.starts_with("grad.") && !name.starts_with("noise_");
        let inputs = case.tensors.iter().filter(|(name, _)| is_input(name));
        let inputs: BTreeMap<String, Vec<Var<'t>>> = inputs.map(|(name, values)| (name.clone(), tape.vars(values))).collect();
        let read = read(case, gate, &inputs);
        let routing = gate.route_taped(&read.batch(), &values).unwrap_or_else(|error| panic!("{}: {error:?}", case.name));
        let y = vec![Var::zero(); dims.num_tokens * dims.hidden_size];
        let mut layer = Layer { case, dims, values, inputs, routing, y, outputs: Vec::new() };
        layer.run();
        layer
    }

    fn run(&mut self) {
        let inputs = self.inputs.clone();
        let experts = Experts { inputs: &inputs, prefix: "", hidden_size: self.dims.hidden_size, count: self.dims.num_experts };
        match self.routing.mixing.clone() {
            Mixing::List => lists(self, &experts),
            Mixing::Slots { dispatch, combine } => slots(self, &experts, [&dispatch, &combine]),
            Mixing::Merged { shares, group_len } => merged(self, &experts, &shares, group_len),
            Mixing::Neurons => neurons(self),
        }
        shared(self);
        if let Some(omega) = self.inputs.get("omega") {
            let len = omega.len();
            self.y.iter_mut().enumerate().for_each(|(place, y)| *y = *y * omega[place % len]);
        }
    }

    fn routed(&self) -> Routed<'_, Var<'t>> {
        Routed { routing: &self.routing, dims: &self.dims, values: &self.values, router: &[], global_share: &[] }
    }

    /// A loss by the name that the fixtures give it.
    fn loss(&self, stored: &str) -> Option<Var<'t>> {
        let name = our_name(self.case.method(), stored);
        let own = self.routing.losses.iter().find(|(own, _)| *own == name).map(|(_, value)| *value);
        own.or_else(|| Some(loss(name)?.value_taped(&self.routed())))
    }
}

fn our_name<'n>(method: &str, stored: &'n str) -> &'n str {
    match (method, stored) {
        ("top_k_softmax" | "attention_router" | "grouped_top_k" | "cosine_router", "load_balancing_loss") => {
            "load_balancing_loss_top_k"
        }
        ("top_p", "load_balancing_loss") => "load_balancing_loss_transformers",
        (_, "load_balancing_loss_hf") => "load_balancing_loss_transformers",
        (_, "expert_loss") => "load_balancing_loss_top_k",
        (_, "gshard_loss") => "load_balancing_loss",
        ("dselect_k", "entropy") => "selector_entropy",
        (_, "entropy") => "entropy_loss",
        (_, "l1_balance") => "l1_loss",
        (_, "balance") => "stable_balance_loss",
        (_, "distill") => "distillation_loss",
        (_, other) => other,
    }
}

/// What differs by more than it may, as lines.
pub struct Differences {
    case: String,
    pub lines: Vec<String>,
}

impl Differences {
    pub fn new(case: &str) -> Differences {
        Differences { case: case.to_owned(), lines: Vec::new() }
    }

    pub fn compare(&mut self, what: &str, found: &[f64], expected: &[f64]) {
        if found.len() != expected.len() {
            self.lines.push(format!("{}: {what} has {} numbers, expected {}", self.case, found.len(), expected.len()));
            return;
        }
        let error = |(found, expected): (&f64, &f64)| (found - expected).abs() / (1.0 + expected.abs());
        let worst = found.iter().zip(expected).enumerate().map(|(index, pair)| (error(pair), index));
        let worst = worst.max_by(|a, b| a.0.total_cmp(&b.0));
        if let Some((error, index)) = worst.filter(|(error, _)| error.is_nan() || *error > WITHIN) {
            self.lines
                .push(format!("{}: {what}[{index}] is {}, expected {} ({error:e})", self.case, found[index], expected[index]));
        }
    }

    pub fn finish(all: Vec<Differences>) {
        let lines: Vec<String> = all.into_iter().flat_map(|differences| differences.lines).collect();
        assert!(lines.is_empty(), "{}", lines.join("\n"));
    }
}

pub fn values_of(vars: &[Var<'_>]) -> Vec<f64> {
    vars.iter().map(|var| var.value()).collect()
}

fn as_numbers(ids: &[u32]) -> Vec<f64> {
    ids.iter().map(|&id| if id == NONE { -1.0 } else { f64::from(id) }).collect()
}

/// Choices, places, capacity and weights.
fn compare_routing(layer: &Layer<'_, '_>, differences: &mut Differences) {
    let (case, routing) = (layer.case, &layer.routing);
    let num_experts = layer.dims.num_experts;
    let mut check = |name: &str, found: Vec<f64>| {
        if let Some(expected) = case.find(&format!("out.{name}")) {
            differences.compare(name, &found, expected);
        }
    };
    let counts = |counts: Vec<usize>| counts.into_iter().map(|count| count as f64).collect::<Vec<_>>();
    if let (Mixing::List, Some(kept)) = (&routing.mixing, case.find("out.kept")) {
        let (mut ids, mut assigned) = (as_numbers(&routing.expert_ids), counts(routing.counts(num_experts)));
        // A second expert that is not used is stored, and counted, all the same.
        if let Some(used) = case.find("out.second_used") {
            for token in (0..used.len()).filter(|token| used[*token] == 0.0) {
                assert_eq!(ids[token * 2 + 1], -1.0);
                ids[token * 2 + 1] = case.get("out.expert_ids")[token * 2 + 1];
                assigned[ids[token * 2 + 1] as usize] += 1.0;
            }
        }
        check("expert_ids", ids);
        check("kept", routing.kept.iter().map(|&kept| f64::from(u8::from(kept))).collect());
        if let Some(slots) = case.find("out.slots") {
            let ours = routing
                .slots
                .iter()
                .zip(kept)
                .zip(slots)
                .map(|((&ours, &kept), &stored)| if kept == 1.0 { f64::from(ours) } else { stored });
            check("slots", ours.collect());
        }
        check("counts", assigned);
        check("kept_counts", counts(routing.kept_counts(num_experts)));
        // Without a limit either -1 or all tokens are stored.
        let stored = case.find("out.expert_capacity").map_or(-1.0, |stored| stored[0]);
        let unlimited = if stored == layer.dims.num_tokens as f64 { stored } else { -1.0 };
        check("expert_capacity", vec![routing.expert_capacity.map_or(unlimited, |capacity| capacity as f64)]);
        check("routing_weights", values_of(&routing.weights));
    }
    if matches!(routing.mixing, Mixing::Neurons) {
        check("expert_ids", as_numbers(&routing.expert_ids));
        check("routing_weights", values_of(&routing.weights));
    }
    if matches!(routing.mixing, Mixing::List) && case.find("out.combine").is_some() {
        let dense = values_of(&routing.dense(num_experts));
        check("combine", dense);
    }
    if !routing.logits.is_empty() && case.method() != "hme_1994" {
        check("router_logits", values_of(&routing.logits));
    }
    if !matches!(case.method(), "stable_moe" | "base_layer" | "relu_routing") {
        check("router_scores", values_of(&routing.scores));
    }
    for (name, values) in &routing.named {
        check(name, values_of(values));
    }
    check("y", values_of(&layer.y));
}

/// Losses, and the gradient of everything.
fn compare_gradients(layer: &Layer<'_, '_>, tape: &Tape, differences: &mut Differences) {
    let case = layer.case;
    let mut seeds: Vec<_> = layer.y.iter().copied().zip(case.get("R").iter().copied()).collect();
    let mut total: f64 = seeds.iter().map(|(y, factor)| y.value() * factor).sum();
    for (name, expected) in case.json["losses"].as_object().unwrap() {
        let Some(value) = layer.loss(name) else {
            differences.lines.push(format!("{}: no loss is called {name}", case.name));
            continue;
        };
        differences.compare(name, &[value.value()], &[expected.as_f64().unwrap()]);
        if let Some(coefficient) = case.json["coef"][name].as_f64() {
            total += coefficient * value.value();
            seeds.push((value, coefficient));
        }
    }
    differences.compare("total", &[total], &[case.json["total"].as_f64().unwrap()]);
    let gradient = tape.gradient(seeds);
    for (name, expected) in case.tensors.iter().filter_map(|(name, values)| Some((name.strip_prefix("grad.")?, values))) {
        let found = match name {
            "router_logits" => gradient.of_all(&layer.routing.logits),
            name => gradient.of_all(&layer.inputs[name]),
        };
        differences.compare(&format!("grad.{name}"), &found, expected);
    }
}

/// Folders of golden data that are no gating method.
const NO_GATES: [&str; 7] = ["bias_update", "expert_dropout", "lora", "losses", "metrics", "train", "upcycle"];
/// Methods whose golden data is no layer; each has a test of its own.
const NO_LAYERS: [&str; 4] = ["balanced_hash", "hme_1994", "jacobs_1991", "quantile_balancing"];

#[test]
fn gates_are_the_folders_of_golden_data() {
    let mut folders: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap())
        .filter(|entry| entry.file_type().unwrap().is_dir())
        .map(|entry| entry.file_name().into_string().unwrap())
        .filter(|name| !NO_GATES.contains(&name.as_str()))
        .collect();
    folders.sort();
    assert_eq!(GATES.iter().map(|gate| gate.name).collect::<Vec<_>>(), folders);
}

#[test]
fn every_gate_routes_and_learns_as_stored() {
    let only = std::env::var("GATE").ok();
    let mut all = Vec::new();
    for gate in GATES.iter().filter(|gate| !NO_LAYERS.contains(&gate.name)) {
        if only.as_ref().is_some_and(|only| only != gate.name) {
            continue;
        }
        for case in Case::of(gate.name) {
            let tape = Tape::new();
            let layer = Layer::new(&case, &tape);
            let mut differences = Differences::new(&case.name);
            compare_routing(&layer, &mut differences);
            compare_gradients(&layer, &tape, &mut differences);
            all.push(differences);
        }
    }
    assert!(!all.is_empty());
    Differences::finish(all);
}
