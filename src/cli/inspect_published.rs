//! `moebius inspect` of a model that has no weights: what its sizes come to, beside what its paper says.

use super::table;
use moebius::gating::{Demand, FORMULAS};
use moebius::spec::Published;
use serde_json::{Value, json};

/// Tokens among which capacities are counted here.
const GROUP_TOKENS: usize = 4096;

/// What each code base would let an expert accept, as rows of a table.
fn capacities(demand: &Demand) -> Vec<[String; 3]> {
    FORMULAS
        .iter()
        .map(|formula| [formula.name.to_owned(), formula.text.to_owned(), (formula.capacity)(demand).to_string()])
        .collect()
}

fn demand(model: &Published) -> Demand {
    Demand {
        num_tokens: GROUP_TOKENS,
        num_experts: model.num_experts(),
        num_experts_per_tok: model.num_experts_per_tok,
        capacity_factor: model.capacity_factor,
    }
}

fn billions(parameters: f64) -> String {
    format!("{:.1} B", parameters / 1e9)
}

pub fn text(model: &Published) -> String {
    let sums = model.arithmetic();
    let layers: Vec<String> = model.pyramid.iter().map(|[layers, experts]| format!("{layers} of {experts} experts")).collect();
    let difference = 100.0 * (sums.total() / model.stated.total - 1.0);
    let active = model.stated.active.map_or_else(String::new, |active| format!("; the paper says {}", billions(active)));
    let facts = [
        ("model", format!("{}; nobody has its weights", model.summary)),
        ("source", model.source.to_owned()),
        ("gating", format!("{}, {} per token", model.gate, model.num_experts_per_tok)),
        ("layers", format!("{} with experts: {}", model.experts.count, layers.join(", "))),
        (
            "parameters",
            format!("{}; the paper says {} ({difference:+.1}%)", billions(sums.total()), billions(model.stated.total)),
        ),
        (
            "",
            format!(
                "embedding {}, attention {}, dense {}, routers {}, experts {}",
                billions(sums.embedding),
                billions(sums.attention),
                billions(sums.dense),
                billions(sums.routers),
                billions(sums.experts)
            ),
        ),
        ("active", format!("{} per token{active}", billions(sums.active()))),
    ];
    let lines: String = facts.iter().map(|(name, value)| format!("{name:<12}{value}\n")).collect();
    let rows: Vec<Vec<String>> = capacities(&demand(model)).into_iter().map(Vec::from).collect();
    let title = format!("tokens that an expert accepts of {GROUP_TOKENS}");
    let header = vec!["as computed by", "formula", title.as_str()];
    format!("{lines}\nWith a capacity factor f of {}:\n\n{}", model.capacity_factor, table::aligned(&header, &rows))
}

pub fn object(model: &Published) -> Value {
    let sums = model.arithmetic();
    let capacities: serde_json::Map<String, Value> =
        FORMULAS.iter().map(|formula| (formula.name.to_owned(), (formula.capacity)(&demand(model)).into())).collect();
    json!({
        "name": model.name,
        "source": model.source,
        "gate": model.gate,
        "num_experts": model.num_experts(),
        "num_experts_per_tok": model.num_experts_per_tok,
        "parameters": {
            "total": sums.total(),
            "active": sums.active(),
            "embedding": sums.embedding,
            "attention": sums.attention,
            "dense": sums.dense,
            "routers": sums.routers,
            "experts": sums.experts,
            "stated_total": model.stated.total,
            "stated_active": model.stated.active,
        },
        "capacity": { "factor": model.capacity_factor, "tokens": GROUP_TOKENS, "of_expert": capacities },
    })
}
