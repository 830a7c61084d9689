//! The beginning of every text, its tokens in the colours of their experts.

use super::Trace;
use super::colours::expert_colour;
use super::svg::escape;
use std::collections::BTreeSet;
use std::fmt::Write;

/// Tokens that are shown of all texts together, and of one at most.
const TOKENS: usize = 600;
const TOKENS_OF_A_TEXT: usize = 200;

/// By the first expert of the last layer, where texts differ most. Empty for a trace without tokens.
pub(super) fn sample(trace: &Trace) -> String {
    let Some(last) = trace.layers.len().checked_sub(1).filter(|_| !trace.tokens.is_empty()) else { return String::new() };
    let each = (TOKENS / trace.domains.len().max(1)).clamp(1, TOKENS_OF_A_TEXT);
    let mut used = BTreeSet::new();
    let mut texts = String::new();
    for (domain, name) in trace.domains.iter().enumerate() {
        let open = if domain == 0 { " open" } else { "" };
        let _ = write!(texts, "<details{open}><summary>{}</summary><p class=\"text\">", escape(name));
        let tokens = trace.tokens.iter().enumerate().filter(|(_, token)| token.domain == domain);
        for (index, token) in tokens.take(each) {
            let (experts, _) = trace.chosen(index, last);
            used.insert(experts[0] as usize);
            let all = experts.iter().map(u32::to_string).collect::<Vec<_>>().join(", ");
            let _ = write!(texts, "<b class=\"e{}\" title=\"experts {all}\">{}</b>", experts[0], escape(&token.text));
        }
        texts.push_str("</p></details>\n");
    }
    let mut styles = String::from("<style>");
    let mut legend = String::from("<p class=\"text\">Experts: ");
    for expert in used {
        let (colour, ink) = expert_colour(expert);
        let _ = write!(styles, ".e{expert}{{background:{colour};color:{ink}}}");
        let _ = write!(legend, "<b class=\"e{expert}\"> {expert} </b> ");
    }
    format!("{styles}</style>{legend}</p>\n{texts}")
}
