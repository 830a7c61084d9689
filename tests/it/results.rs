//! What the tests check of every family, written down: `tests/golden/families.json`, and the table of `docs/architectures.md` made from it and from `ARCHS`.
//!
//! `UPDATE=1 cargo test the_results` writes both.

use crate::common::{FIXTURES, Golden, LOGITS_WITHIN, golden};
use moebius::spec::ARCHS;
use serde_json::{Map, Value, json};
use std::path::Path;

/// What `engine.rs` and `reference.rs` assert of each fixture, on the device and on the reference.
fn checked() -> Value {
    let entry = |name: &&'static str| {
        let golden = Golden::load(name);
        let greedy: usize = golden.greedy.iter().map(|(_, tokens)| tokens.len()).sum();
        let facts = json!({
            "family": golden.spec.family,
            "prompts": golden.prompts.len(),
            "positions": golden.prompts.iter().map(Vec::len).sum::<usize>(),
            "logits_within": LOGITS_WITHIN.to_string(),
            "routing": routing(&golden),
            "greedy_tokens": greedy,
        });
        ((*name).to_owned(), facts)
    };
    Value::Object(FIXTURES.iter().map(entry).collect::<Map<_, _>>())
}

/// What is compared of the routers.
fn routing(golden: &Golden) -> &'static str {
    match golden.spec.moe_layers().next() {
        None => "dense",
        Some(_) if golden.stores_choices() => "exact",
        Some(_) => "logits",
    }
}

fn table(results: &Value) -> String {
    let mut text =
        "| architecture | model_type | models | checked | logits | routing | greedy text |\n|---|---|---|---|---|---|---|\n"
            .to_owned();
    for arch in ARCHS {
        let entries = results.as_object().unwrap().values().filter(|entry| entry["family"] == arch.name);
        let entries: Vec<&Value> = entries.collect();
        let sum = |key: &str| entries.iter().map(|entry| entry[key].as_u64().unwrap()).sum::<u64>();
        let checks = match entries.first() {
            None => "counted only | | | ".to_owned(),
            Some(first) => {
                let fixtures = if entries.len() == 1 { "1 fixture".to_owned() } else { format!("{} fixtures", entries.len()) };
                let exact = entries.iter().find(|entry| entry["routing"] == "exact");
                format!(
                    "{fixtures}, {} positions | within {} | {} | {} tokens equal",
                    sum("positions"),
                    first["logits_within"].as_str().unwrap(),
                    exact.unwrap_or(first)["routing"].as_str().unwrap(),
                    sum("greedy_tokens")
                )
            }
        };
        text += &format!("| {} | {} | {} | {checks} |\n", arch.name, arch.model_types.join(", "), arch.covers);
    }
    text
}

#[test]
fn the_results_are_those_that_the_tests_check_and_the_page_of_architectures_shows_them() {
    if std::env::var_os("FIXTURE").is_some() {
        return;
    }
    let results = checked();
    let (path, page_path) = (golden("families.json"), Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architectures.md"));
    let written = format!("{}\n", serde_json::to_string_pretty(&results).unwrap());
    let page = std::fs::read_to_string(&page_path).unwrap();
    let (begin, end) = ("<!-- begin: archs -->\n", "<!-- end: archs -->");
    let (before, rest) = page.split_once(begin).expect("the page has the markers");
    let (_, after) = rest.split_once(end).expect("the page has the markers");
    let updated = format!("{before}{begin}{}{end}{after}", table(&results));
    if std::env::var("UPDATE").is_ok_and(|value| value == "1") {
        std::fs::write(&path, &written).unwrap();
        std::fs::write(&page_path, &updated).unwrap();
    }
    let hint = "UPDATE=1 cargo test the_results writes it anew";
    assert!(
        std::fs::read_to_string(&path).unwrap_or_default() == written,
        "{} is not what the tests check: {hint}",
        path.display()
    );
    assert!(std::fs::read_to_string(&page_path).unwrap() == updated, "the table in {} is old: {hint}", page_path.display());
}

#[test]
fn every_architecture_that_runs_has_a_fixture() {
    if std::env::var_os("FIXTURE").is_some() {
        return;
    }
    let families: Vec<&str> = FIXTURES.iter().map(|name| Golden::load(name).spec.family).collect();
    for arch in ARCHS.iter().filter(|arch| !arch.covers.contains("not run yet")) {
        assert!(families.contains(&arch.name), "{}", arch.name);
    }
}
