//! From text to the token ids of a model, and back.

mod added_tokens;
mod candidates;
mod chat;
mod generation;
mod generation_config;
mod jinja;
mod parts;
mod sampling;
mod stop;
mod text_stream;
mod tokenizer;
mod tokenizer_config;
mod tokenizer_files;
mod tokenizer_gguf;
mod tokenizer_legacy;
mod tokenizer_merges;
mod tokenizer_words;

pub use candidates::Candidate;
pub use chat::{ChatMessage, ChatRequest, ChatTemplate};
pub(crate) use generation::GenerationContext;
pub use generation::{GenerateOptions, Generation, Piece, Summary};
pub use generation_config::GenerationDefaults;
pub use parts::{AnswerParts, Part, PartText};
pub use sampling::SamplingOptions;
pub use stop::{StopMatcher, StopOutput, StopReason, StopRules};
pub use text_stream::TextStream;
pub use tokenizer::{SpecialTokens, Tokenizer};
pub use tokenizer_files::TokenizerFiles;
