//! Shows which experts each token of a text is sent to, in every layer, and with which weights.
//!
//!     cargo run --example trace_routing -- [TEXT]

#![allow(clippy::disallowed_methods, reason = "a program may wait")]

use moebius::generate::TextStream;
use moebius::{Engine, LoadOptions, Result};

fn main() -> Result<()> {
    pollster::block_on(async {
        let text = std::env::args().nth(1).unwrap_or_else(|| "def parse(self, line):".to_owned());
        let mut engine = Engine::open("examples/models/demo", LoadOptions::default()).await?;
        let ids = engine.tokenizer().encode(&text, true)?;
        let layers = engine.forward(&ids).await?.layers;

        let mut stream = TextStream::new(engine.tokenizer(), false);
        for (token, &id) in ids.iter().enumerate() {
            print!("{:>10}", format!("{:?}", stream.push(id)?));
            for layer in &layers {
                let chosen = layer.expert_ids.len() / ids.len();
                let row = token * chosen..(token + 1) * chosen;
                let experts = layer.expert_ids[row.clone()].iter().zip(&layer.routing_weights[row]);
                print!("   {}", experts.map(|(id, weight)| format!("{id}:{weight:.2}")).collect::<Vec<_>>().join(" "));
            }
            println!();
        }
        Ok(())
    })
}
