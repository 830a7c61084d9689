//! Stop strings in text that arrives in pieces; the limits of sampling options.

use moebius::Error;
use moebius::generate::{GenerationDefaults, SamplingOptions, StopReason, StopRules};
use proptest::prelude::*;

fn rules(stop_strings: &[&str]) -> StopRules {
    StopRules {
        eos_ids: Some(vec![2, 7]),
        max_tokens: Some(3),
        stop_strings: stop_strings.iter().map(|&text| text.to_owned()).collect(),
    }
}

/// All text that comes out of the pieces, and the stop string that ended it.
fn run(rules: &StopRules, pieces: &[&str]) -> (String, Option<String>) {
    let mut matcher = rules.matcher();
    let mut text = String::new();
    for piece in pieces {
        let output = matcher.push(piece);
        text.push_str(&output.text);
        if output.stopped_by.is_some() {
            return (text, output.stopped_by);
        }
    }
    text.push_str(&matcher.flush());
    (text, None)
}

#[test]
fn the_output_is_cut_before_a_stop_string_that_spans_pieces() {
    let rules = rules(&["\nUser:"]);
    assert_eq!(run(&rules, &["Hello.\n", "Us", "er: and"]), ("Hello.".to_owned(), Some("\nUser:".to_owned())));
    assert_eq!(run(&rules, &["Hello.\n", "Us", "ual"]), ("Hello.\nUsual".to_owned(), None));
    assert_eq!(run(&rules, &["Hello.\n"]), ("Hello.\n".to_owned(), None));
}

#[test]
fn only_text_that_can_begin_a_stop_string_is_held_back() {
    let mut matcher = rules(&["END", "é!"]).matcher();
    let mut push = |piece: &str| matcher.push(piece).text;
    assert_eq!(push("some text E"), "some text ");
    assert_eq!(push("N"), "");
    assert_eq!(push("ENé"), "ENEN");
    assert_eq!(push("?"), "é?");
    assert_eq!(matcher.flush(), "");
}

#[test]
fn the_stop_string_that_is_complete_first_wins_and_then_the_longest() {
    assert_eq!(run(&rules(&["bc", "abcd"]), &["xabcd"]), ("xa".to_owned(), Some("bc".to_owned())));
    assert_eq!(run(&rules(&["bc", "abc"]), &["xabcd"]), ("x".to_owned(), Some("abc".to_owned())));
    assert_eq!(run(&rules(&["aab"]), &["aa", "aa", "b"]), ("aa".to_owned(), Some("aab".to_owned())));
}

#[test]
fn empty_stop_strings_are_refused_and_match_nothing() {
    assert!(rules(&["a", "b"]).validate().is_ok());
    assert!(matches!(rules(&["a", ""]).validate(), Err(Error::Argument { what: "stop string", .. })));
    assert_eq!(run(&rules(&[""]), &["ab"]), ("ab".to_owned(), None));
}

#[test]
fn tokens_end_a_text_by_kind_before_number() {
    let rules = rules(&[]);
    assert_eq!(rules.after_token(5, 2), None);
    assert_eq!(rules.after_token(5, 3), Some(StopReason::MaxTokens));
    assert_eq!(rules.after_token(7, 1), Some(StopReason::Eos));
    assert_eq!(rules.after_token(2, 3), Some(StopReason::Eos));
    assert_eq!(serde_json::to_string(&StopReason::MaxTokens).unwrap(), r#""max_tokens""#);
    assert_eq!(serde_json::to_string(&StopReason::StopString("x".to_owned())).unwrap(), r#"{"stop_string":"x"}"#);
}

proptest! {
    #[test]
    fn the_result_does_not_depend_on_how_the_text_is_cut(
        pieces in prop::collection::vec("[abé]{0,4}", 0..12),
        stops in prop::collection::vec("[abé]{1,4}", 0..4),
    ) {
        let stops: Vec<&str> = stops.iter().map(String::as_str).collect();
        let rules = rules(&stops);
        let whole = pieces.concat();
        let pieces: Vec<&str> = pieces.iter().map(String::as_str).collect();
        let (text, stopped_by) = run(&rules, &pieces);
        prop_assert_eq!(run(&rules, &[&whole]), (text.clone(), stopped_by.clone()));
        prop_assert!(whole.starts_with(&text));
        prop_assert!(!stops.iter().any(|stop| text.contains(stop)));
        match stopped_by {
            Some(stop) => prop_assert!(whole[text.len()..].starts_with(&stop)),
            None => prop_assert_eq!(text, whole),
        }
    }
}

#[test]
fn sampling_is_greedy_unless_asked_otherwise() {
    let greedy = SamplingOptions::default();
    assert!(greedy.is_greedy() && greedy.validate().is_ok());
    assert_eq!(SamplingOptions::suggested(&GenerationDefaults::default()), greedy);
    let defaults = GenerationDefaults { do_sample: Some(true), top_p: Some(0.9), ..Default::default() };
    let suggested = SamplingOptions::suggested(&defaults);
    assert_eq!((suggested.temperature, suggested.top_p, suggested.top_k), (1.0, 0.9, 0));
    let unused = GenerationDefaults { temperature: Some(0.6), ..Default::default() };
    assert!(SamplingOptions::suggested(&unused).is_greedy());
}

#[test]
fn sampling_options_out_of_range_are_named() {
    let good = SamplingOptions { temperature: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, repeat_penalty: 1.1, seed: 1 };
    assert!(good.validate().is_ok());
    for bad in [f32::NAN, f32::INFINITY, -0.1] {
        let named = |options: SamplingOptions, name: &str| {
            assert!(matches!(options.validate(), Err(Error::Argument { what, .. }) if what == name), "{name} = {bad}");
        };
        named(SamplingOptions { temperature: bad, ..good }, "temperature");
        named(SamplingOptions { top_p: bad, ..good }, "top_p");
        named(SamplingOptions { min_p: bad, ..good }, "min_p");
        named(SamplingOptions { repeat_penalty: bad, ..good }, "repeat_penalty");
    }
    assert!(SamplingOptions { top_p: 0.0, ..good }.validate().is_err());
    assert!(SamplingOptions { top_p: 1.001, ..good }.validate().is_err());
    assert!(SamplingOptions { repeat_penalty: 0.0, ..good }.validate().is_err());
    assert!(SamplingOptions { top_p: 1.0, min_p: 1.0, temperature: 0.0, ..good }.validate().is_ok());
}
