//! The rules in WGSL, as parts that kernels import.

use super::{GATES, Gate};
use std::fmt::Write;
use std::sync::LazyLock;

/// Settings that the uniform of a kernel has room for.
pub const MAX_SETTINGS: usize = 20;
/// Kinds of noise that it knows.
pub const MAX_NOISE: usize = 2;

static TEXTS: LazyLock<Vec<Option<String>>> =
    LazyLock::new(|| GATES.iter().map(|gate| gate.wgsl.map(|rule| text(gate, rule))).collect());

impl Gate {
    /// The rule in WGSL, with constants for the places of its settings and its noise and for the words that settings may be; `None` if only the
    /// twin exists.
    pub fn wgsl_text(&self) -> Option<&'static str> {
        let place = GATES.iter().position(|gate| gate.name == self.name)?;
        TEXTS[place].as_deref()
    }
}

fn text(gate: &Gate, rule: &str) -> String {
    let mut text = format!("// {}: {}.\n", gate.name, gate.summary);
    for (place, setting) in gate.settings.iter().flat_map(|group| group.iter()).enumerate() {
        let name = setting.name.to_uppercase();
        let _ = writeln!(text, "const S_{name}: u32 = {place}u;");
        for (place, word) in setting.words.iter().enumerate().filter(|(_, word)| !["no", "yes"].contains(word)) {
            let _ = writeln!(text, "const {name}_{}: f32 = {place}.0;", word.to_uppercase());
        }
    }
    for (place, noise) in gate.noise.iter().enumerate() {
        let _ = writeln!(text, "const NOISE_{}: u32 = {place}u;", noise.name.to_uppercase());
    }
    if !rule.contains("const OWN_LOGITS") {
        text.push_str("const OWN_LOGITS: bool = false;\n");
    }
    text.push_str(rule);
    text
}
