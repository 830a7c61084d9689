//! What a gating method is: a rule, and the facts about it.
//!
//! A rule says which experts compute a token, and what their outputs are multiplied with. It is written once, over [`Real`], for plain numbers
//! and for numbers on a tape: its *twin*. The same rule in WGSL, for one token, stands in the same file.

use super::{Limit, Real, RouterSpec, Settings, Values, Var, WeightOn};
use crate::error::{Error, Result};
use std::collections::BTreeMap;

/// No expert.
pub const NONE: u32 = u32::MAX;

/// A gating method: an entry of [`GATES`](super::GATES).
#[derive(Debug)]
pub struct Gate {
    pub name: &'static str,
    pub summary: &'static str,
    /// The paper, and the code where that says more.
    pub source: &'static str,
    pub chooses: Chooser,
    /// Most experts of a token.
    pub width: fn(&Dims, &Values) -> usize,
    /// Numbers of each token that the rule reads from the router's product: rows of the router's matrix.
    pub router_rows: fn(&Dims, &Values) -> usize,
    /// Parameters beyond the router's matrix.
    pub leaves: &'static [Leaf],
    pub settings: Settings,
    /// While training, the number of tokens has to be a multiple of this.
    pub tokens_multiple_of: fn(&Dims, &Values) -> usize,
    pub noise: &'static [Noise],
    pub state: &'static [State],
    /// Coefficients of losses, by their name in [`LOSSES`](super::LOSSES), as its authors set them.
    pub losses: &'static [(&'static str, f64)],
    pub update: Option<Update>,
    /// Whether what a token gets depends on no later token.
    pub causal: bool,
    pub runs_as: Option<RunsAs>,
    pub twin: Twin,
    /// `choose()` and `differentiate()`, for `shaders/gate.wgsl`.
    pub wgsl: Option<&'static str>,
}

/// Who chooses.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chooser {
    /// Tokens choose experts.
    Token,
    /// Experts choose tokens.
    Expert,
    /// Nobody: a table, or chance.
    Nobody,
    /// Every expert sees every token.
    Everybody,
}

impl Chooser {
    pub fn word(self) -> &'static str {
        match self {
            Chooser::Token => "tokens",
            Chooser::Expert => "experts",
            Chooser::Nobody => "nobody",
            Chooser::Everybody => "everybody",
        }
    }
}

/// Sizes that a rule is applied to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Dims {
    pub num_tokens: usize,
    /// Tokens of a sequence; the batch holds whole ones.
    pub seq_len: usize,
    pub hidden_size: usize,
    pub num_experts: usize,
    pub vocab_size: usize,
}

/// A parameter that a rule reads and training moves.
#[derive(Debug)]
pub struct Leaf {
    pub name: &'static str,
    pub shape: fn(&Dims, &Values) -> Vec<usize>,
    pub init: Init,
}

/// What a parameter is before training.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    Constant(f64),
    Normal { std: f64 },
}

/// Random numbers that a rule reads. They are drawn on the host, so that a rerun, the twin and every device see the same.
#[derive(Debug)]
pub struct Noise {
    pub name: &'static str,
    pub distribution: Distribution,
    /// How many of them a token has; none where the settings need none.
    pub per_token: fn(&Dims, &Values) -> usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// From 0 to 1.
    Uniform,
    Normal,
    /// `-ln(-ln u)`
    Gumbel,
    /// `-ln u`
    Exponential,
}

/// Numbers that a rule reads, that training does not move and that belong to a checkpoint.
#[derive(Debug)]
pub struct State {
    pub name: &'static str,
    pub shape: fn(&Dims, &Values) -> Vec<usize>,
    pub init: StateInit,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub enum StateInit {
    Constant(f64),
    /// Experts, each number drawn by itself.
    RandomExperts,
    /// Experts, given out so that each has the same share of a text.
    BalancedExperts,
}

/// What changes a [`State`] after the optimiser's step, without a gradient.
#[derive(Debug)]
pub struct Update {
    pub state: &'static str,
    pub twin: fn(&super::AfterStep<'_>, &Values) -> Vec<f64>,
}

/// What computes the same where a model is run.
#[derive(Debug)]
pub struct RunsAs {
    /// An entry of `ARCHS`.
    pub architecture: &'static str,
    /// `None` for settings that it does not know.
    pub spec: fn(&Dims, &Values) -> Option<RouterSpec>,
}

/// A rule for both kinds of numbers. The macro `twin!` makes it of one generic function.
pub struct Twin {
    pub plain: fn(&Batch<'_, f64>, &Values) -> Routing<f64>,
    pub taped: for<'a, 't> fn(&Batch<'a, Var<'t>>, &Values) -> Routing<Var<'t>>,
}

impl std::fmt::Debug for Twin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Twin")
    }
}

/// `twin!(route)` holds `route::<f64>` and `route::<Var>`.
macro_rules! twin {
    ($route:ident) => {
        $crate::gating::Twin { plain: $route::<f64>, taped: |batch, values| $route(batch, values) }
    };
}
pub(crate) use twin;

/// Numbers by name.
pub type Named<T> = BTreeMap<&'static str, Vec<T>>;

/// What a rule reads.
#[derive(Debug, Clone, Copy)]
pub struct Batch<'a, R> {
    pub dims: Dims,
    /// Whether this is a step of training: without it there is no noise, and some methods choose in another way.
    pub training: bool,
    /// What the layer reads, `[num_tokens, hidden_size]`.
    pub x: &'a [R],
    /// The router's product, `[num_tokens, router_rows]`.
    pub router: &'a [R],
    pub leaves: &'a Named<R>,
    /// Each `[num_tokens, per_token]`.
    pub noise: &'a Named<f64>,
    pub state: &'a Named<f64>,
    pub token_ids: &'a [u32],
    /// Which kind of text a token is from.
    pub domains: &'a [u32],
}

impl<'a, R> Batch<'a, R> {
    /// The router's product for one token.
    pub fn row(&self, token: usize) -> &'a [R] {
        let len = self.router.len() / self.dims.num_tokens;
        &self.router[token * len..][..len]
    }

    /// What the layer reads of one token.
    pub fn input(&self, token: usize) -> &'a [R] {
        &self.x[token * self.dims.hidden_size..][..self.dims.hidden_size]
    }

    pub fn leaf(&self, name: &str) -> &'a [R] {
        self.leaves.get(name).map_or(&[], Vec::as_slice)
    }

    pub fn state(&self, name: &str) -> &'a [f64] {
        self.state.get(name).map_or(&[], Vec::as_slice)
    }

    /// The noise of one token; empty where there is none.
    pub fn noise(&self, name: &str, token: usize) -> &'a [f64] {
        let all = self.noise.get(name).map_or(&[][..], Vec::as_slice);
        let len = all.len() / self.dims.num_tokens;
        &all[token * len..][..len]
    }

    /// Tokens, in order.
    pub fn tokens(&self) -> std::ops::Range<usize> {
        0..self.dims.num_tokens
    }
}

/// What a rule gives.
#[derive(Debug, Clone)]
pub struct Routing<R> {
    /// Most experts of a token.
    pub width: usize,
    /// `[num_tokens, width]`, best first; [`NONE`] where there is none. Before anything is dropped.
    pub expert_ids: Vec<u32>,
    /// What multiplies the outputs, or the inputs, of these experts: `[num_tokens, width]`; 0 where there is none, or it was dropped.
    pub weights: Vec<R>,
    pub weight_on: WeightOn,
    /// Whether the expert computes the token: `[num_tokens, width]`.
    pub kept: Vec<bool>,
    /// Places within the capacity of the experts, `[num_tokens, width]`; they mean something where the assignment is kept.
    pub slots: Vec<u32>,
    /// What the tokens chose first, where those who were refused went on to another expert; otherwise empty.
    pub refused_first: Vec<u32>,
    /// Tokens that an expert accepts of a group.
    pub expert_capacity: Option<usize>,
    /// What the scores are made from, `[num_tokens, num_experts]`; empty without a router.
    pub logits: Vec<R>,
    /// `[num_tokens, num_experts]`, or empty.
    pub scores: Vec<R>,
    /// What losses take for the shares of experts, where that is not the scores divided by their sum; otherwise empty.
    pub shares: Vec<R>,
    pub mixing: Mixing<R>,
    /// Multiplies what the experts of a token give together.
    pub routed_scale: Option<Vec<R>>,
    /// Multiplies what the shared expert gives for a token.
    pub shared_scale: Option<Vec<R>>,
    /// Losses that only this method has, or that it defines in its own way: they go before those of [`LOSSES`](super::LOSSES).
    pub losses: Vec<(&'static str, R)>,
    /// Intermediate values with a name, for pictures and tests.
    pub named: Vec<(&'static str, Vec<R>)>,
}

/// How the outputs of experts come together.
#[derive(Debug, Clone)]
pub enum Mixing<R> {
    /// Each token adds up the experts of its list.
    List,
    /// Every expert computes `slots_per_expert` mixtures of tokens, and a token mixes their outputs. Both are `[num_tokens, slots]`.
    Slots { dispatch: Vec<R>, combine: Vec<R> },
    /// The weights of all experts are averaged to one, for each group of `group_len` tokens: `[groups, num_experts]`.
    Merged { shares: Vec<R>, group_len: usize },
    /// The list names single neurons.
    Neurons,
}

impl<R: Real> Routing<R> {
    /// Nothing chosen yet.
    pub fn new(dims: &Dims, width: usize) -> Self {
        let len = dims.num_tokens * width;
        Routing {
            width,
            expert_ids: vec![NONE; len],
            weights: vec![R::zero(); len],
            weight_on: WeightOn::Output,
            kept: vec![false; len],
            slots: vec![0; len],
            refused_first: Vec::new(),
            expert_capacity: None,
            logits: Vec::new(),
            scores: Vec::new(),
            shares: Vec::new(),
            mixing: Mixing::List,
            routed_scale: None,
            shared_scale: None,
            losses: Vec::new(),
            named: Vec::new(),
        }
    }

    /// Gives a token an expert.
    pub fn put(&mut self, token: usize, rank: usize, expert: usize, weight: R) {
        let place = token * self.width + rank;
        self.expert_ids[place] = expert as u32;
        self.weights[place] = weight;
        self.kept[place] = true;
    }

    /// Logits and scores of the next token.
    pub fn push_scores(&mut self, logits: &[R], scores: &[R]) {
        self.logits.extend_from_slice(logits);
        self.scores.extend_from_slice(scores);
    }

    /// Assignments of a token: rank and expert, best first, those that are dropped included.
    pub fn of_token(&self, token: usize) -> impl Iterator<Item = (usize, usize)> + '_ {
        let row = &self.expert_ids[token * self.width..][..self.width];
        row.iter().enumerate().filter(|(_, id)| **id != NONE).map(|(rank, id)| (rank, *id as usize))
    }

    /// Assignments of each expert, before any is dropped.
    pub fn counts(&self, num_experts: usize) -> Vec<usize> {
        let mut counts = vec![0; num_experts];
        self.expert_ids.iter().filter(|id| **id != NONE).for_each(|id| counts[*id as usize] += 1);
        counts
    }

    /// Assignments of each expert that it computes.
    pub fn kept_counts(&self, num_experts: usize) -> Vec<usize> {
        let mut counts = vec![0; num_experts];
        let kept = self.expert_ids.iter().zip(&self.kept).filter(|(id, kept)| **id != NONE && **kept);
        kept.for_each(|(id, _)| counts[*id as usize] += 1);
        counts
    }

    /// Tokens that have each expert as their best one.
    pub fn first_choices(&self, num_experts: usize) -> Vec<usize> {
        let mut counts = vec![0; num_experts];
        let chosen = if self.refused_first.is_empty() { &self.expert_ids } else { &self.refused_first };
        chosen.iter().step_by(self.width.max(1)).filter(|id| **id != NONE).for_each(|id| counts[*id as usize] += 1);
        counts
    }

    /// `weights` of all experts, `[num_tokens, num_experts]`.
    pub fn dense(&self, num_experts: usize) -> Vec<R> {
        let num_tokens = self.expert_ids.len() / self.width.max(1);
        let mut dense = vec![R::zero(); num_tokens * num_experts];
        for (place, &id) in self.expert_ids.iter().enumerate().filter(|(_, id)| **id != NONE) {
            let cell = &mut dense[place / self.width * num_experts + id as usize];
            *cell = *cell + self.weights[place];
        }
        dense
    }

    /// An intermediate value by its name.
    pub fn named(&self, name: &str) -> Option<&[R]> {
        self.named.iter().find(|(known, _)| *known == name).map(|(_, values)| values.as_slice())
    }
}

impl Gate {
    /// What most methods have. Each says at least its name, its source and its twin.
    pub(super) const BASE: Gate = Gate {
        name: "",
        summary: "",
        source: "",
        chooses: Chooser::Token,
        width: |_, values| values.count("num_experts_per_tok"),
        router_rows: |dims, _| dims.num_experts,
        leaves: &[],
        settings: &[],
        tokens_multiple_of: |_, _| 1,
        noise: &[],
        state: &[],
        losses: &[],
        update: None,
        causal: true,
        runs_as: None,
        twin: Twin { plain: |batch, _| Routing::new(&batch.dims, 0), taped: |batch, _| Routing::new(&batch.dims, 0) },
        wgsl: None,
    };

    /// Applies the rule, then lets the experts' capacity drop what is too much.
    ///
    /// # Errors
    /// [`Error::Argument`] where a part of `batch` has another length than the method needs, or it can not be applied to these sizes.
    pub fn route(&self, batch: &Batch<'_, f64>, values: &Values) -> Result<Routing<f64>> {
        self.check(batch, values)?;
        let mut routing = (self.twin.plain)(batch, values);
        Limit::of(&batch.dims, values, &routing).apply(&mut routing, batch);
        Ok(routing)
    }

    /// The same with numbers on a tape.
    ///
    /// # Errors
    /// As [`route`](Self::route).
    pub fn route_taped<'t>(&self, batch: &Batch<'_, Var<'t>>, values: &Values) -> Result<Routing<Var<'t>>> {
        self.check(batch, values)?;
        let mut routing = (self.twin.taped)(batch, values);
        Limit::of(&batch.dims, values, &routing).apply(&mut routing, batch);
        Ok(routing)
    }

    /// Whether the method can be applied to these sizes.
    ///
    /// # Errors
    /// [`Error::Argument`] where it can not.
    pub fn fits(&self, dims: &Dims, values: &Values) -> Result<()> {
        for (what, size) in [("tokens", dims.num_tokens), ("experts", dims.num_experts), ("tokens of a sequence", dims.seq_len)] {
            if size == 0 {
                return Err(argument(what, "at least 1", 0));
            }
        }
        if !dims.num_tokens.is_multiple_of(dims.seq_len) {
            return Err(argument("tokens", format!("a multiple of {}, which a sequence has", dims.seq_len), dims.num_tokens));
        }
        let chosen = (self.width)(dims, values);
        let groups = values.number("num_groups").map_or(1, |number| number as usize);
        if !dims.num_experts.is_multiple_of(groups) {
            return Err(argument("groups", format!("a divisor of the {} experts", dims.num_experts), groups));
        }
        let kept = values.number("num_kept_groups").map_or(1, |number| number as usize);
        if kept > groups || kept * (dims.num_experts / groups) < chosen && values.number("num_kept_groups").is_some() {
            let expected = format!("groups that hold {chosen} experts together, of {groups}");
            return Err(argument("groups that are kept", expected, kept));
        }
        let segment = values.number("segment").map_or(0, |len| len as usize);
        if segment > 0 && !dims.seq_len.is_multiple_of(segment) {
            return Err(argument(
                "tokens of a segment",
                format!("a divisor of the {} tokens of a sequence", dims.seq_len),
                segment,
            ));
        }
        let of_group = values.number("experts_per_group").map_or(1, |number| number as usize);
        if of_group > dims.num_experts / groups {
            return Err(argument("experts of a group", format!("at most {}", dims.num_experts / groups), of_group));
        }
        if matches!(self.chooses, Chooser::Token) && chosen > dims.num_experts && !self.has_own_experts() {
            return Err(argument("experts per token", format!("1 to {}, as there are so many", dims.num_experts), chosen));
        }
        Ok(())
    }

    /// The list names neurons, of which there are more than experts.
    fn has_own_experts(&self) -> bool {
        self.name == super::peer::GATE.name
    }

    fn check<R>(&self, batch: &Batch<'_, R>, values: &Values) -> Result<()> {
        let dims = &batch.dims;
        self.fits(dims, values)?;
        let length = |what: &'static str, found: usize, expected: usize| match found == expected {
            true => Ok(()),
            false => Err(argument(what, format!("{expected} numbers for `{}`", self.name), found)),
        };
        length("input of the layer", batch.x.len(), dims.num_tokens * dims.hidden_size)?;
        length("product of the router", batch.router.len(), dims.num_tokens * (self.router_rows)(dims, values))?;
        for leaf in self.leaves {
            let found = batch.leaves.get(leaf.name).map_or(0, Vec::len);
            length(leaf.name, found, (leaf.shape)(dims, values).iter().product())?;
        }
        for state in self.state {
            let found = batch.state.get(state.name).map_or(0, Vec::len);
            length(state.name, found, (state.shape)(dims, values).iter().product())?;
        }
        if batch.training {
            let multiple = (self.tokens_multiple_of)(dims, values);
            if !dims.num_tokens.is_multiple_of(multiple) {
                let expected = format!("a multiple of {multiple}, so that `{}` can give every expert the same number", self.name);
                return Err(argument("tokens of a step", expected, dims.num_tokens));
            }
            for noise in self.noise.iter().chain(super::capacity::NOISE) {
                let found = batch.noise.get(noise.name).map_or(0, Vec::len);
                length(noise.name, found, dims.num_tokens * (noise.per_token)(dims, values))?;
            }
        }
        self.check_ids(batch, values)
    }

    /// Whether ids are there, where the method reads them, and name what exists.
    fn check_ids<R>(&self, batch: &Batch<'_, R>, values: &Values) -> Result<()> {
        let dims = &batch.dims;
        let tables =
            self.state.iter().filter(|state| matches!(state.init, StateInit::RandomExperts | StateInit::BalancedExperts));
        let reads_ids = tables.clone().count() > 0 || self.leaves.iter().any(|leaf| leaf.name == "light_embedding");
        if reads_ids && batch.token_ids.len() != dims.num_tokens {
            return Err(argument("token ids", format!("{}, one for each token", dims.num_tokens), batch.token_ids.len()));
        }
        if let Some(id) = batch.token_ids.iter().find(|id| **id as usize >= dims.vocab_size).filter(|_| reads_ids) {
            return Err(argument("token id", format!("below {}", dims.vocab_size), id));
        }
        let domains = values.number("num_domains").map(|number| number as usize);
        if let Some(domains) = domains {
            if batch.domains.len() != dims.num_tokens {
                return Err(argument("kinds of text", format!("{}, one for each token", dims.num_tokens), batch.domains.len()));
            }
            if let Some(domain) = batch.domains.iter().find(|domain| **domain as usize >= domains) {
                return Err(argument("kind of text", format!("below {domains}"), domain));
            }
        }
        // Each table has a share of the experts of its own.
        let parts = domains.or(values.number("num_tables").map(|number| number as usize)).unwrap_or(1);
        let share = (dims.num_experts / parts) as f64;
        for table in tables {
            if let Some(expert) = batch.state(table.name).iter().find(|expert| !(0.0..share).contains(*expert)) {
                return Err(argument("expert of a table", format!("below {share}"), expert));
            }
        }
        Ok(())
    }
}

fn argument(what: &'static str, expected: impl Into<String>, found: impl ToString) -> Error {
    Error::Argument { what, expected: expected.into(), found: found.to_string() }
}
