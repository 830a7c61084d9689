//! Traces of routing: the numbers by hand, the file, and the models behind it.

use crate::common::{Golden, demo_model};
use moebius::gating::RoutingOverride;
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules};
use moebius::gpu::{DeviceChoice, DeviceOptions};
use moebius::reference::LayerRouting;
use moebius::trace::{
    Balance, ExpertToken, Source, Statistics, Trace, TracedLayer, TracedToken, balance, divergence, header_line, html, read,
    shares,
};
use moebius::{Engine, LoadOptions};
use pollster::block_on;
use std::path::Path;

fn load(directory: &Path, context: Option<usize>) -> Engine {
    let device = DeviceOptions { choice: DeviceChoice::Cpu, ..DeviceOptions::default() };
    block_on(Engine::load(directory, &LoadOptions { device, context, ..LoadOptions::default() }, &mut |_| {})).unwrap()
}

fn source() -> Source {
    Source { model: "a <model>".to_owned(), device: "cpu".to_owned(), routing: "as trained".to_owned() }
}

/// One layer with 4 experts, 2 of which every token has. Domain `x`: `a b a`, domain `y`: `a a`.
fn small() -> Trace {
    let mut trace = Trace::new(source(), vec![TracedLayer { layer: 3, experts: 4, experts_per_token: 2 }]);
    for (domain, texts, expert_ids) in
        [("x", vec!["a", "b", "a"], vec![0, 1, 2, 0, 0, 1]), ("y", vec!["a", "a"], vec![1, 0, 1, 2])]
    {
        let domain = trace.domain(domain);
        let token = |(position, text): (usize, &&str)| TracedToken { domain, position, id: 7, text: (*text).to_owned() };
        let routing_weights = expert_ids.iter().map(|_| 0.5).collect();
        let tokens = texts.iter().enumerate().map(token).collect();
        trace.push(tokens, &[LayerRouting { layer: 3, router_logits: Vec::new(), expert_ids, routing_weights }]);
    }
    trace
}

#[test]
fn balance_is_that_of_the_definitions() {
    assert_eq!(balance(&[5, 5, 5, 5]), Balance { ratio: Some(1.0), variation: 0.0, entropy: 1.0, dead: 0 });
    let one = balance(&[8, 0, 0, 0]);
    assert_eq!((one.ratio, one.entropy, one.dead), (None, 0.0, 3));
    // Mean 2, deviations 2, 2, 2, 2.
    assert_eq!(balance(&[4, 0, 4, 0]), Balance { ratio: None, variation: 1.0, entropy: 0.5, dead: 2 });
    assert_eq!(balance(&[3, 1]).ratio, Some(3.0));
    assert_eq!(balance(&[0, 0]), Balance { ratio: None, variation: 0.0, entropy: 0.0, dead: 2 });
    assert_eq!(balance(&[9]).entropy, 1.0);
    assert_eq!(shares(&[1, 3]), [0.25, 0.75]);
    assert_eq!(shares(&[0, 0]), [0.0, 0.0]);
}

#[test]
fn divergence_is_zero_for_the_same_shares_and_one_for_nothing_in_common() {
    assert_eq!(divergence(&[1, 3], &[2, 6]), 0.0);
    assert_eq!(divergence(&[1, 0], &[0, 5]), 1.0);
    // Middle (3/4, 1/4): half of (log2 4/3) and half of (1/2 log2 2/3 + 1/2 log2 2).
    let expected = ((4f64 / 3.0).log2() + 0.5 * (2f64 / 3.0).log2() + 0.5) / 2.0;
    assert!((divergence(&[1, 0], &[1, 1]) - expected).abs() < 1e-12);
    assert_eq!(divergence(&[1, 1], &[1, 0]), divergence(&[1, 0], &[1, 1]));
}

#[test]
fn statistics_of_five_tokens_are_those_counted_by_hand() {
    let statistics = Statistics::of(&small());
    assert_eq!(statistics.tokens, 5);
    assert_eq!(statistics.domains, [("x".to_owned(), 3), ("y".to_owned(), 2)]);
    let layer = &statistics.layers[0];
    assert_eq!((layer.layer, layer.loads.as_slice()), (3, &[4, 4, 2, 0][..]));
    assert_eq!(layer.balance.dead, 1);
    // 01 then 20 share one of two, 20 then 01 one, 10 then 12 one; from x to y does not count.
    assert_eq!(layer.overlap, Some(0.5));
    // (0.8^2 + 0.8^2 + 0.4^2) / 2
    assert!((layer.chance_overlap - 0.72).abs() < 1e-12);
    assert_eq!(layer.coactivation, [[4, 3, 1, 0], [3, 4, 1, 0], [1, 1, 2, 0], [0, 0, 0, 0]]);
    assert_eq!(layer.domains[0].loads, [3, 2, 1, 0]);
    assert_eq!(layer.domains[1].loads, [1, 2, 1, 0]);
    assert_eq!(layer.domains[1].divergence, divergence(&[1, 2, 1, 0], &[4, 4, 2, 0]));
    let texts: Vec<(&str, u64)> = statistics.preferences.iter().map(|token| (token.text.as_str(), token.count)).collect();
    assert_eq!(texts, [("a", 4), ("b", 1)]);
    // `a` went to expert 1 four times, to expert 0 three times; `b` to 2 and 0, of which the lower counts.
    assert_eq!(statistics.preferences[0].favourites, [(1, 1.0)]);
    assert_eq!(statistics.preferences[1].favourites, [(0, 1.0)]);
    assert_eq!(layer.expert_tokens[1], [ExpertToken { text: "a".to_owned(), count: 4, total: 4 }]);
    assert!(layer.expert_tokens[0].is_empty() && layer.expert_tokens[3].is_empty());
}

#[test]
fn a_trace_survives_its_file() {
    let trace = small();
    let text = header_line(&trace.source, &trace.layers) + &trace.records();
    assert_eq!(text.lines().count(), 1 + 5);
    assert_eq!(
        text.lines().nth(2).unwrap(),
        r#"{"domain":"x","position":1,"token":7,"text":"b","layer":3,"experts":[2,0],"weights":[0.5,0.5]}"#
    );
    assert_eq!(read(&text, "t.jsonl").unwrap(), trace);
}

#[test]
fn a_damaged_trace_is_refused_with_its_line() {
    let trace = small();
    let text = header_line(&trace.source, &trace.layers) + &trace.records();
    let changed = |from: &str, to: &str| text.replacen(from, to, 1);
    let two_layers = changed("\"layers\":[", r#""layers":[{"layer":1,"experts":4,"experts_per_token":2},"#);
    for (damaged, expected) in [
        (String::new(), "line 1: the file is empty"),
        ("{}".to_owned(), "line 1: it is no header of a trace"),
        (changed("trace 1", "trace 9"), "expected the format `moebius-trace 1`, found `moebius-trace 9`"),
        (changed("\"experts_per_token\":2", "\"experts_per_token\":9"), "layer 3 cannot choose 9 of 4 experts"),
        (changed("\"layer\":3,\"experts\":[0", "\"layer\":4,\"experts\":[0"), "line 2: expected layer 3, found 4"),
        (changed("[2,0]", "[2]"), "line 3: expected 2 experts and weights, found 1 and 2"),
        (changed("[2,0]", "[2,4]"), "line 3: expert 4 is beyond the 4 of layer 3"),
        (changed("[2,0]", "[2,-1]"), "line 3: "),
        (changed("[2,0]", "oops"), "line 3: "),
        (two_layers, "line 2: expected layer 1, found 3"),
    ] {
        let error = read(&damaged, "t.jsonl").unwrap_err();
        assert!(error.to_string().contains(expected) && error.to_string().starts_with("t.jsonl"), "{error}");
        assert!(error.hint().is_some());
    }
    // Cut off inside of a token.
    let layers = [3, 4].map(|layer| TracedLayer { layer, experts: 4, experts_per_token: 2 });
    let cut = header_line(&trace.source, &layers) + trace.records().lines().next().unwrap();
    assert!(read(&cut, "t.jsonl").unwrap_err().to_string().contains("cut off"));
}

#[test]
fn the_page_needs_nothing_else_and_shows_text_as_text() {
    let mut trace = small();
    trace.tokens[1].text = "<script>".to_owned();
    let page = html(&trace, &Statistics::of(&trace));
    for absent in ["<script", "http://", "https://", "src=", "href=", "url("] {
        assert!(!page.replace("http://www.w3.org/2000/svg", "").contains(absent), "{absent}");
    }
    for present in ["&lt;script&gt;", "a &lt;model&gt;", "<svg", "How far each text departs", "layer 3"] {
        assert!(page.contains(present), "{present}");
    }
    let empty = Trace::new(source(), trace.layers.clone());
    assert!(html(&empty, &Statistics::of(&empty)).ends_with("</html>\n"));
}

/// A tracing in windows of 16 tokens has the routing of a forward pass over each window.
#[test]
fn windows_are_traced_as_the_forward_pass_routes_them() {
    let golden = Golden::load("mixtral");
    let mut engine = load(&golden.directory, Some(16));
    assert!(engine.tokenizer().bos_id().is_none() || golden.prompts[2].len() > 16);
    let ids = &golden.prompts[2][..40];
    let mut found: Vec<(Vec<u32>, Vec<LayerRouting>)> = Vec::new();
    block_on(engine.trace(ids, &mut |window, layers| found.push((window.to_vec(), layers.to_vec())))).unwrap();
    assert_eq!(found.iter().flat_map(|(window, _)| window.clone()).collect::<Vec<_>>(), ids);
    assert!(found.len() >= 3);
    let first = block_on(engine.forward(&ids[..16])).unwrap();
    assert_eq!(found[0].1, first.layers);
    for (window, layers) in &found {
        assert!(layers.iter().all(|layer| layer.expert_ids.len() == 2 * window.len()));
    }
}

#[test]
fn a_generation_is_traced_with_the_number_of_experts_that_it_has() {
    let mut engine = load(&demo_model(), None);
    block_on(engine.set_routing(&RoutingOverride { experts_per_token: Some(3), ..RoutingOverride::default() })).unwrap();
    assert!(engine.traced_layers().iter().all(|layer| layer.experts_per_token == 3 && layer.experts == 8));
    let stop = StopRules { eos_ids: Vec::new(), max_tokens: 2, stop_strings: Vec::new() };
    let options = GenerateOptions { sampling: SamplingOptions::default(), stop };
    let prompt = engine.tokenizer().encode("The king", true).unwrap();
    block_on(async {
        let mut generation = engine.generate(&prompt, &options).unwrap();
        generation.keep_routing();
        generation.next().await.unwrap();
        assert!(generation.routing().iter().all(|layer| layer.expert_ids.len() == 3 * prompt.len()));
    });
}
