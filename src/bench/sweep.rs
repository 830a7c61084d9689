//! How speed changes with the length of the context and of the prompt.

use super::plot::Curve;
use super::test::{Test, TestReport, Work};

const FIRST_DEPTH: usize = 64;
const FIRST_PROMPT: usize = 32;

/// Tests at powers of two: prompts up to `prompt` tokens, then `generate` tokens at depths up to `depth`. The largest of both are always among
/// them; 0 leaves either out.
pub fn sweep_tests(prompt: usize, generate: usize, depth: usize) -> Vec<Test> {
    let prompts = powers(FIRST_PROMPT, prompt).map(|tokens| Test { work: Work::Prefill(tokens), depth: 0 });
    let depths = powers(FIRST_DEPTH, depth).map(|depth| Test { work: Work::Decode(generate), depth });
    prompts.chain(depths.filter(|test| test.tokens() > 0)).collect()
}

/// `first`, twice that, and so on below `last`, then `last`.
fn powers(first: usize, last: usize) -> impl Iterator<Item = usize> {
    let below = std::iter::successors(Some(first), |value| value.checked_mul(2)).take_while(move |value| *value < last);
    below.chain((last > 0).then_some(last))
}

/// The curves of a sweep: prefill over the length of the prompt, decode over the depth of the context. Empty ones are left out.
pub fn sweep_curves(reports: &[TestReport]) -> Vec<Curve> {
    let curve = |title: &str, x_label: &str, x: &dyn Fn(&Test) -> Option<usize>| {
        let point = |report: &TestReport| Some((x(&report.test)? as f64, report.tokens_per_second(), report.stddev()));
        let points: Vec<_> = reports.iter().filter_map(point).collect();
        let (title, x_label, y_label) = (title.to_owned(), x_label.to_owned(), "tokens/s".to_owned());
        (!points.is_empty()).then_some(Curve { title, x_label, y_label, points })
    };
    let prefill = curve("prefill", "tokens of the prompt", &|test| match test.work {
        Work::Prefill(tokens) => Some(tokens),
        Work::Decode(_) | Work::Sample(_) => None,
    });
    let decode = curve("decode", "tokens in the KV cache before", &|test| match test.work {
        Work::Decode(_) => Some(test.depth),
        Work::Prefill(_) | Work::Sample(_) => None,
    });
    prefill.into_iter().chain(decode).collect()
}
