//! Traces of routing: the numbers by hand, the file, and the models behind it.

use crate::common::{Golden, demo_model};
use moebius::batch::LayerRouting;
use moebius::gating::RoutingOverride;
use moebius::generate::{GenerateOptions, SamplingOptions, StopRules};
use moebius::gpu::{DeviceChoice, DeviceOptions};
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
    let mut trace =
        Trace::new(source(), vec![TracedLayer { layer: 3, experts: 4, experts_per_token: 2, ..TracedLayer::default() }]);
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
    // What only some traces say is only in their headers.
    assert!(text.lines().next().unwrap().ends_with(r#""layers":[{"layer":3,"experts":4,"experts_per_token":2}]}"#));
    let mut sized = trace.clone();
    sized.layers[0] = TracedLayer { weightless: 1, expert_bytes: Some(9), ..sized.layers[0] };
    let text = header_line(&sized.source, &sized.layers) + &sized.records();
    assert!(text.lines().next().unwrap().ends_with(r#""experts_per_token":2,"weightless":1,"expert_bytes":9}]}"#));
    assert_eq!(read(&text, "t.jsonl").unwrap(), sized);
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
        (changed("[2,0]", "[2,2]"), "line 3: expert 2 is chosen twice"),
        (changed("\"experts\":4", "\"experts\":4,\"weightless\":4"), "line 1: the experts of layer 3 have no weights"),
        (changed("\"experts\":4", "\"experts\":4,\"expert_bytes\":0"), "line 1: the experts of layer 3 have no weights"),
        (changed("[2,0]", "[2,-1]"), "line 3: "),
        (changed("[2,0]", "oops"), "line 3: "),
        (two_layers, "line 2: expected layer 1, found 3"),
    ] {
        let error = read(&damaged, "t.jsonl").unwrap_err();
        assert!(error.to_string().contains(expected) && error.to_string().starts_with("t.jsonl"), "{error}");
        assert!(error.hint().is_some());
    }
    // Cut off inside of a token.
    let layers = [3, 4].map(|layer| TracedLayer { layer, experts: 4, experts_per_token: 2, ..TracedLayer::default() });
    let cut = header_line(&trace.source, &layers) + trace.records().lines().next().unwrap();
    assert!(read(&cut, "t.jsonl").unwrap_err().to_string().contains("cut off"));
}

#[test]
fn the_page_needs_nothing_else_and_shows_text_as_text() {
    let mut trace = small();
    trace.tokens[1].text = "<script>".to_owned();
    let page = html(&trace, &Statistics::of(&trace));
    // Links lead to parts of the page itself.
    let page = page.replace("http://www.w3.org/2000/svg", "").replace("href=\"#", "");
    for absent in ["<script", "http://", "https://", "src=", "href=", "url("] {
        assert!(!page.contains(absent), "{absent}");
    }
    for present in ["&lt;script&gt;", "a &lt;model&gt;", "<svg", "How far each text departs", "layer 3"] {
        assert!(page.contains(present), "{present}");
    }
    let empty = Trace::new(source(), trace.layers.clone());
    assert!(html(&empty, &Statistics::of(&empty)).ends_with("</html>\n"));
}

/// As much as a large model gives: 48 layers, 128 experts, eight texts. Tokens and experts are drawn with a fixed seed.
fn large() -> Trace {
    let layers = (0..48).map(|layer| TracedLayer { layer, experts: 128, experts_per_token: 8, ..TracedLayer::default() });
    let mut trace = Trace::new(source(), layers.collect());
    let mut state = 1u64;
    let mut draw = |bound: u64| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) % bound
    };
    for name in ["story", "law", "bible", "drama", "maths", "medicine", "python", "letters"] {
        let domain = trace.domain(name);
        let mut routing: Vec<LayerRouting> = (0..48).map(LayerRouting::empty).collect();
        let token = |position| TracedToken { domain, position, id: 7, text: format!(" word{}", draw(200)) };
        let tokens: Vec<TracedToken> = (0..512).map(token).collect();
        for layer in &mut routing {
            for _ in 0..tokens.len() {
                // Eight different ones, some oftener than others.
                let (first, stride) = (draw(64) + draw(64), 1 + 2 * draw(2));
                layer.expert_ids.extend((0..8).map(|rank| ((first + rank * stride) % 128) as u32));
                layer.routing_weights.extend([0.125; 8]);
            }
        }
        trace.push(tokens, &routing);
    }
    trace
}

#[test]
fn the_page_of_a_large_model_stays_small() {
    let trace = large();
    let page = html(&trace, &Statistics::of(&trace));
    let nodes = page.matches('<').count() - page.matches("</").count();
    println!("{} bytes, {nodes} nodes", page.len());
    assert!(page.len() < 1_000_000, "{} bytes", page.len());
    assert!(nodes < 8_000, "{nodes} nodes");
    // Nothing is left out but tokens of experts beyond the third: every layer, every text, every number of the load.
    assert_eq!(page.matches("<summary>Layer 47</summary>").count(), 3);
    let numbers =
        page.split("<section id=\"load\"").nth(1).unwrap().split("<pre>").nth(1).unwrap().split("</pre>").next().unwrap();
    assert_eq!(numbers.lines().count(), 1 + 48);
    let loads = &Statistics::of(&trace).layers[47].loads;
    let shown: Vec<String> = numbers.lines().last().unwrap().split_whitespace().skip(2).map(str::to_owned).collect();
    let expected: Vec<String> = shares(loads).iter().map(|share| format!("{:.0}", share * 1000.0)).collect();
    assert_eq!(shown, expected);
}

#[test]
fn the_page_has_contents_a_scale_and_the_text_in_the_colours_of_the_web_page() {
    let page = html(&small(), &Statistics::of(&small()));
    for name in ["load", "sample", "departs", "domains", "overlap", "together", "tokens", "experts"] {
        assert!(page.contains(&format!("<a href=\"#{name}\">")) && page.contains(&format!("<section id=\"{name}\" ")), "{name}");
    }
    assert!(page.contains("The scale of colours, from 0 to 40.0 %"), "the busiest has 4 of 10 assignments");
    // The first experts of x are 0, 2, 0; those of y are 1, 1.
    for sample in [
        "<b class=\"e0\" title=\"experts 0, 1\">a</b><b class=\"e2\" title=\"experts 2, 0\">b</b>",
        "<b class=\"e1\" title=\"experts 1, 0\">a</b>",
    ] {
        assert!(page.contains(sample), "{sample}");
    }
    let palette = include_str!("../../web/palette.js");
    let colours: Vec<&str> = palette.split('"').filter(|text| text.starts_with('#')).collect();
    assert_eq!(colours.len(), 512);
    for (expert, colour) in colours.iter().enumerate().take(3) {
        assert!(page.contains(&format!(".e{expert}{{background:{colour};color:#000}}")), "{colour}");
    }
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
fn layers_say_what_an_expert_takes_and_how_many_need_nothing() {
    for (fixture, weightless, matrix_values, bias_values) in [
        // Gate, up and down of 96 x 32, with biases.
        ("gpt_oss_bf16", 0, 3 * 96 * 32, 2 * 32 + 96),
        // 40 rows of 72 columns and 72 of 20, in rows of whole blocks of 32.
        ("longcat_flash", 4, 40 * 96 + 72 * 32, 0),
    ] {
        let load = |quant: &str| {
            let device = DeviceOptions { choice: DeviceChoice::Cpu, ..DeviceOptions::default() };
            let options = LoadOptions { device, quant: quant.parse().unwrap(), ..LoadOptions::default() };
            block_on(Engine::load(&Golden::load(fixture).directory, &options, &mut |_| {})).unwrap()
        };
        for (quant, bytes) in [("f32", 4 * matrix_values), ("bf16", 2 * matrix_values)] {
            let layers = load(quant).traced_layers();
            assert!(!layers.is_empty());
            for layer in layers {
                assert_eq!(
                    (layer.weightless, layer.expert_bytes),
                    (weightless, Some(bytes + 4 * bias_values)),
                    "{fixture} in {quant}"
                );
            }
        }
    }
}

#[test]
fn a_generation_is_traced_with_the_number_of_experts_that_it_has() {
    let mut engine = load(&demo_model(), None);
    block_on(engine.set_routing(&RoutingOverride { experts_per_token: Some(3), ..RoutingOverride::default() })).unwrap();
    assert!(engine.traced_layers().iter().all(|layer| layer.experts_per_token == 3 && layer.experts == 8));
    let stop = StopRules { eos_ids: Some(Vec::new()), max_tokens: Some(2), stop_strings: Vec::new() };
    let options = GenerateOptions { sampling: SamplingOptions::default(), stop };
    let prompt = engine.tokenizer().encode("The king", true).unwrap();
    block_on(async {
        let mut generation = engine.generate(&prompt, &options).unwrap();
        generation.keep_routing();
        generation.next().await.unwrap();
        assert!(generation.routing().iter().all(|layer| layer.expert_ids.len() == 3 * prompt.len()));
    });
}
