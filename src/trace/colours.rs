//! The colours of experts: those of the page.

use std::sync::LazyLock;

/// `export const PALETTE = ["#77aadd", ...]`, which scripts/palette.mjs writes.
const PALETTE: &str = include_str!("../../web/palette.js");

/// The colour of an expert and the ink that is read on it, as `#rrggbb`.
pub fn expert_colour(expert: usize) -> (&'static str, &'static str) {
    static COLOURS: LazyLock<Vec<&'static str>> =
        LazyLock::new(|| PALETTE.split('"').filter(|text| text.starts_with('#')).collect());
    let colour = COLOURS[expert % COLOURS.len()];
    (colour, ink(colour))
}

/// Black or white, whichever has more contrast.
fn ink(colour: &str) -> &'static str {
    let part = |place: usize| {
        let value = f64::from(u8::from_str_radix(&colour[place..place + 2], 16).unwrap_or(0)) / 255.0;
        if value <= 0.04045 { value / 12.92 } else { ((value + 0.055) / 1.055).powf(2.4) }
    };
    let luminance = 0.2126 * part(1) + 0.7152 * part(3) + 0.0722 * part(5);
    if (luminance + 0.05) / 0.05 > 1.05 / (luminance + 0.05) { "#000" } else { "#fff" }
}
