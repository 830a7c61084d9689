//! The token's id decides. There is no router.

use super::rule::twin;
use super::{Batch, Chooser, Gate, Real, Routing, Setting, State, StateInit, Values};

pub static GATE: Gate = Gate {
    name: "hash_routing",
    summary: "a table gives every token id its expert, at random: nothing is learned, so this is what a router has to be better than",
    source: "Roller et al. 2021, Hash Layers, arXiv 2106.04426",
    chooses: Chooser::Nobody,
    width: |_, values| values.count("num_tables"),
    router_rows: |_, _| 0,
    settings: &[TABLES],
    state: &[State {
        name: "table",
        shape: |dims, values| vec![values.count("num_tables"), dims.vocab_size],
        init: StateInit::RandomExperts,
    }],
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};

pub(super) static TABLES: &[Setting] =
    &[Setting::count("num_tables", 1, 64, "tables, each with a share of the experts of its own; a token has one of every table")];

/// A table names experts within its share of them.
pub(super) fn route<R: Real>(batch: &Batch<'_, R>, values: &Values) -> Routing<R> {
    let num_tables = values.count("num_tables");
    let share = batch.dims.num_experts / num_tables;
    let mut routing = Routing::new(&batch.dims, num_tables);
    for (token, &id) in batch.token_ids.iter().enumerate() {
        for (rank, table) in batch.state("table").chunks_exact(batch.dims.vocab_size).enumerate() {
            routing.put(token, rank, rank * share + table[id as usize] as usize, R::of(1.0));
        }
    }
    routing
}

pub(super) const WGSL: &str = "
fn choose() {
    for (var rank = 0u; rank < WIDTH; rank++) {
        put(rank, rank * (NUM_EXPERTS / WIDTH) + u32(state_at(rank * VOCAB_SIZE + token_id())), 1.0);
    }
}

fn differentiate() {}
";
