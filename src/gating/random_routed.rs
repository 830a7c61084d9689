//! The kind of text decides the group of experts, a random table the expert.

use super::rule::twin;
use super::{Batch, Chooser, Gate, Real, Routing, Setting, State, StateInit, Values};

pub static GATE: Gate = Gate {
    name: "random_routed",
    summary: "every kind of text has its own experts, among which a random table chooses by token id",
    source: "Ren et al. 2023, PanGu-Sigma, arXiv 2303.10845",
    chooses: Chooser::Nobody,
    width: |_, _| 1,
    router_rows: |_, _| 0,
    settings: &[OWN],
    state: &[State {
        name: "table",
        shape: |dims, values| vec![values.count("num_domains"), dims.vocab_size],
        init: StateInit::RandomExperts,
    }],
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

static OWN: &[Setting] =
    &[Setting::count("num_domains", 1, 1 << 16, "kinds of text, each with a share of the experts of its own")];

/// The table of a domain names experts within the domain's share.
fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let share = batch.dims.num_experts / values.count("num_domains");
    let mut routing = Routing::new(&batch.dims, 1);
    for (token, (&id, &domain)) in batch.token_ids.iter().zip(batch.domains).enumerate() {
        let place = domain as usize * batch.dims.vocab_size + id as usize;
        routing.put(token, 0, domain as usize * share + batch.state("table")[place] as usize, R::of(1.0));
    }
    routing
}

const WGSL: &str = "
fn choose() {
    let share = NUM_EXPERTS / u32(setting(S_NUM_DOMAINS));
    put(0u, domain() * share + u32(state_at(domain() * VOCAB_SIZE + token_id())), 1.0);
}

fn differentiate() {}
";
