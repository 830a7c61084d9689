//! Continues a text.
//!
//!     cargo run --example generate -- [MODEL] [PROMPT]
//!
//! MODEL is a folder, or the name of a repository on the Hugging Face hub, which is fetched.

#![allow(clippy::disallowed_methods, reason = "a program may wait")]

use moebius::generate::GenerateOptions;
use moebius::{Engine, LoadOptions, Result};
use std::io::Write;

fn main() -> Result<()> {
    pollster::block_on(async {
        let mut arguments = std::env::args().skip(1);
        let model = arguments.next().unwrap_or_else(|| "examples/models/demo".to_owned());
        let prompt = arguments.next().unwrap_or_else(|| "Once upon a time there was a king who".to_owned());

        let mut engine = Engine::open(&model, LoadOptions::default()).await?;
        let ids = engine.tokenizer().encode(&prompt, true)?;
        let mut generation = engine.generate(&ids, &GenerateOptions::default())?;
        print!("{prompt}");
        while let Some(piece) = generation.next().await? {
            print!("{}", piece.text);
            std::io::stdout().flush().expect("stdout can be written");
        }
        let summary = generation.finish().await?;
        println!("\n\n{} tokens, {:.1} per second, on {}", summary.ids.len(), summary.decode_rate(), engine.device().name);
        Ok(())
    })
}
