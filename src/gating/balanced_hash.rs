//! The token's id decides, by a table that gives every expert the same share of a text.

use super::hash_routing::{TABLES, WGSL, route};
use super::rule::twin;
use super::{Chooser, Gate, State, StateInit};

pub static GATE: Gate = Gate {
    name: "balanced_hash",
    summary: "a table gives every token id its expert, frequent ones first to the expert that has least: balanced without a router",
    source: "Roller et al. 2021, Hash Layers, arXiv 2106.04426",
    chooses: Chooser::Nobody,
    width: |_, values| values.count("num_tables"),
    router_rows: |_, _| 0,
    settings: &[TABLES],
    state: &[State {
        name: "table",
        shape: |dims, values| vec![values.count("num_tables"), dims.vocab_size],
        init: StateInit::BalancedExperts,
    }],
    twin: twin!(route),
    wgsl: Some(WGSL),
    ..Gate::BASE
};
