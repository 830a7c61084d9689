//! Text in, text out: what stands between a person's words and the token ids of a model.

mod chat;
mod generation;
mod sampling;
mod stop;
mod text_stream;
mod tokenizer;

pub use chat::{ChatMessage, ChatTemplate};
pub(crate) use generation::GenerationContext;
pub use generation::{GenerateOptions, Generation, Piece, Summary};
pub use sampling::SamplingOptions;
pub use stop::{StopMatcher, StopOutput, StopReason, StopRules};
pub use text_stream::TextStream;
pub use tokenizer::{GenerationDefaults, SpecialTokens, Tokenizer, TokenizerFiles};
