//! Thinking and answer told apart while they come.

use moebius::generate::{AnswerParts, Part, PartText};

/// Thinking and answer of the pieces, text and control tokens (in `{}`) in turns.
fn told(tail: &str, pieces: &[&str]) -> (String, String) {
    let mut parts = AnswerParts::after(tail);
    let mut all: Vec<PartText> = Vec::new();
    for piece in pieces {
        match piece.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) {
            Some(token) if parts.heeds(token) => all.extend(parts.control(token)),
            Some(_) => {}
            None => all.extend(parts.push(piece)),
        }
    }
    all.extend(parts.finish());
    let of = |part: Part| all.iter().filter(|piece| piece.part == part).map(|piece| piece.text.as_str()).collect::<String>();
    (of(Part::Thinking), of(Part::Answer))
}

fn pair(thinking: &str, answer: &str) -> (String, String) {
    (thinking.to_owned(), answer.to_owned())
}

#[test]
fn a_text_without_marks_is_the_answer_and_stays_as_it_is() {
    for text in ["Hello!", "  Hello\n", "a <think> b </think> c", "[x] <answer>", "", " \n", "<thin", "x</think>y"] {
        assert_eq!(told("user: Hi\nassistant:", &[text]), pair("", text), "{text:?}");
    }
}

#[test]
fn marks_around_the_thinking_are_found_however_the_text_is_cut() {
    let text = "\n<think>\nLet me see.\n\n</think>\n\nIt is <b>4</b>.\n";
    let expected = pair("Let me see.", "It is <b>4</b>.\n");
    assert_eq!(told("", &[text]), expected);
    let letters: Vec<String> = text.chars().map(String::from).collect();
    assert_eq!(told("", &letters.iter().map(String::as_str).collect::<Vec<_>>()), expected);
    for cut in 1..text.len() {
        assert_eq!(told("", &[&text[..cut], &text[cut..]]), expected, "{cut}");
    }
}

#[test]
fn a_template_that_opens_the_thinking_itself_is_heeded() {
    assert_eq!(told("<｜Assistant｜><think>\n", &["Hm.\n", "</think>", "\n\n4"]), pair("Hm.", "4"));
    // Closed at once: no thinking wanted.
    assert_eq!(told("<|assistant|>\n<think></think>", &["4"]), pair("", "4"));
    // Cut off while thinking.
    assert_eq!(told("<think>", &["Hm. </th"]), pair("Hm. </th", ""));
}

#[test]
fn marks_of_other_families_are_known() {
    assert_eq!(told("", &["{[THINK]}", "a", "{[/THINK]}", "b"]), pair("a", "b"));
    assert_eq!(told("", &["<think>\na\n</think>\n<answer>\nb\n</answer>"]), pair("a", "b"));
    assert_eq!(
        told("", &["{<|START_THINKING|>}", "a", "{<|END_THINKING|>}", "{<|START_RESPONSE|>}", "b", "{<|END_RESPONSE|>}"]),
        pair("a", "b")
    );
    assert_eq!(told("", &["{<|channel>}", "thought\n", "a\n", "{<channel|>}", "b"]), pair("a", "b"));
    assert_eq!(
        told(
            "<|begin|>assistant",
            &["{<|think|>}", "a", "{<|end|>}", "{<|begin|>}", "assistant", "{<|content|>}", "b", "{<|end|>}"]
        ),
        pair("a", "b")
    );
    assert_eq!(told("", &["<longcat_think>a</longcat_think>\nb"]), pair("a", "b"));
}

#[test]
fn channels_of_gpt_oss_are_told_apart() {
    let first = ["{<|channel|>}", "analysis", "{<|message|>}", "User greets. ", "Be polite.", "{<|end|>}"];
    let second =
        ["{<|start|>}", "assistant", "{<|channel|>}", "final", "{<|message|>}", "Hello! ", "How can I help?", "{<|return|>}"];
    let all = [&first[..], &second[..]].concat();
    let expected = pair("User greets. Be polite.", "Hello! How can I help?");
    assert_eq!(told("<|start|>assistant", &all), expected);
    // A prompt that gives the channel already.
    assert_eq!(told("<|start|>assistant<|channel|>analysis<|message|>", &all[3..]), expected);
    assert_eq!(told("<|start|>assistant<|channel|>final<|message|>", &["4"]), pair("", "4"));
    // Two messages of one channel, and a call of a tool.
    let call =
        ["{<|channel|>}", "commentary to=functions.f ", "{<|constrain|>}", "json", "{<|message|>}", "{\"a\": 1} ", "{<|call|>}"];
    assert_eq!(told("<|start|>assistant", &[&first[..], &call[..]].concat()), pair("User greets. Be polite.\n\n{\"a\": 1} ", ""));
    // Where the tokens are no control tokens of this tokenizer, other models' text passes.
    assert_eq!(told("", &["a", "{<|end|>}", "b"]), pair("", "ab"));
}
