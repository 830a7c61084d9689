//! A text in the colours of its experts, as the page shows it.

use super::failure::Failure;
use super::talk::{self, talk};
use anstyle::{Color, RgbColor, Style};
use anyhow::Result;
use moebius::Engine;
use moebius::batch::LayerRouting;
use moebius::generate::TextStream;
use moebius::spec::ModelSpec;
use moebius::trace::expert_colour;
use std::str::FromStr;

/// The layer whose experts are shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ShownLayer {
    Last,
    Index(usize),
}

impl FromStr for ShownLayer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "last" => Ok(ShownLayer::Last),
            number => number.parse().map(ShownLayer::Index).map_err(|_| "expected the number of a layer, or last".to_owned()),
        }
    }
}

/// Best experts of one layer, token by token.
pub struct BestExperts {
    pub layer: usize,
    num_experts: usize,
    experts: Vec<usize>,
}

impl BestExperts {
    /// Of no token yet.
    ///
    /// # Errors
    /// A model or a layer without a router.
    pub fn of(spec: &ModelSpec, wanted: ShownLayer) -> Result<Self> {
        let found = match wanted {
            ShownLayer::Last => spec.moe_layers().last(),
            ShownLayer::Index(index) => spec.moe_layers().find(|(layer, _)| *layer == index),
        };
        match found {
            Some((layer, moe)) => Ok(BestExperts { layer, num_experts: moe.router.num_experts, experts: Vec::new() }),
            None => {
                let layers: Vec<String> = spec.moe_layers().map(|(layer, _)| layer.to_string()).collect();
                let hint = match layers.as_slice() {
                    [] => "this model has no experts".to_owned(),
                    [first, ..] => format!("layers {first} to {} have experts, the last by default", layers[layers.len() - 1]),
                };
                Err(Failure::new("--show-experts names a layer without a router", hint).into())
            }
        }
    }

    /// What the routers did with the next tokens.
    pub fn add(&mut self, routing: &[LayerRouting]) {
        let Some(layer) = routing.iter().find(|layer| layer.layer == self.layer) else { return };
        let tokens = layer.router_logits.len() / self.num_experts;
        let chosen = layer.expert_ids.len() / tokens.max(1);
        self.experts.extend(layer.expert_ids.chunks_exact(chosen.max(1)).map(|ids| ids[0] as usize));
    }

    /// Prints the text of `ids`: on a terminal with colours each token in that of its best expert, elsewhere with its number.
    pub fn print(&self, engine: &Engine, ids: &[u32]) -> Result<()> {
        let coloured = anstream::AutoStream::choice(&std::io::stderr()) != anstream::ColorChoice::Never;
        let how = if coloured { "in the colour" } else { "followed by the number" };
        talk!("\nthe text, each token {how} of its best expert in layer {}:", self.layer);
        let mut stream = TextStream::new(engine.tokenizer(), false);
        for (index, id) in ids.iter().enumerate() {
            let text = stream.push(*id)?;
            let text = talk::on_stderr(&text);
            match self.experts.get(index) {
                // The newest token has not been through the model.
                None => talk::text(&text),
                Some(expert) if coloured => talk::text(&lines(&text, style(*expert))),
                Some(expert) => talk::text(&format!("{text}[{expert}]")),
            }
        }
        talk!("");
        if coloured {
            let legend: String = self.used().into_iter().map(|expert| format!(" {0} {expert} {0:#}", style(expert))).collect();
            talk!("experts {legend}");
        }
        Ok(())
    }

    /// Those that were the best of some token, in order.
    fn used(&self) -> Vec<usize> {
        let mut used = self.experts.clone();
        used.sort_unstable();
        used.dedup();
        used
    }
}

/// In a style, but for the ends of lines: a terminal would colour the rest of the line.
fn lines(text: &str, style: Style) -> String {
    let painted = |line: &str| if line.is_empty() { String::new() } else { format!("{style}{line}{style:#}") };
    text.split('\n').map(painted).collect::<Vec<_>>().join("\n")
}

fn style(expert: usize) -> Style {
    let (ground, ink) = expert_colour(expert);
    Style::new().bg_color(Some(colour(ground))).fg_color(Some(colour(ink)))
}

/// Of `#rrggbb` or `#rgb`.
fn colour(text: &str) -> Color {
    let digits = text.trim_start_matches('#');
    let part = |index: usize| match digits.len() {
        3 => u8::from_str_radix(&digits[index..=index].repeat(2), 16),
        _ => u8::from_str_radix(&digits[2 * index..2 * index + 2], 16),
    };
    let [red, green, blue] = [0, 1, 2].map(|index| part(index).unwrap_or(0));
    RgbColor(red, green, blue).into()
}
