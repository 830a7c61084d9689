//! Token ids to text, one id at a time.

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Decodes ids as they come. The pieces of [`TextStream::push`] and the one of [`TextStream::flush`] put together are the text
/// that [`Tokenizer::decode`] gives for all ids at once, and none ends in the middle of a character. After a prompt they are what
/// comes after its text: the text of the prompt and the pieces put together are that of all ids.
///
/// A decoder may look at neighbours (a leading space is dropped, bytes make up a character), so each new id is decoded together
/// with those of the piece before it, and the text of that piece is taken off again: the scheme of text-generation-inference.
/// Unlike there, and unlike `tokenizers::DecodeStream`, a run of byte tokens (`<0xE2>`) is held back until it ends, because one
/// invalid byte makes U+FFFD of its whole run.
#[derive(Debug, Clone)]
pub struct TextStream<'a> {
    tokenizer: &'a Tokenizer,
    skip_special: bool,
    /// The ids of the last piece, then those whose text is still held back.
    window: Vec<u32>,
    /// How many ids of `window` are out already, and their text.
    num_done: usize,
    done: String,
}

impl<'a> TextStream<'a> {
    /// With `skip_special`, control tokens give no text.
    pub fn new(tokenizer: &'a Tokenizer, skip_special: bool) -> Self {
        TextStream { tokenizer, skip_special, window: Vec::new(), num_done: 0, done: String::new() }
    }

    /// A stream that goes on after `prompt_ids`.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the decoder of `tokenizer.json` fails.
    pub fn after(tokenizer: &'a Tokenizer, prompt_ids: &[u32], skip_special: bool) -> Result<Self> {
        let mut stream = TextStream::new(tokenizer, skip_special);
        stream.window = stream.context_of(prompt_ids);
        stream.num_done = stream.window.len();
        stream.done = tokenizer.decode(&stream.window, skip_special)?;
        Ok(stream)
    }

    /// The last ids of a prompt: enough that a decoder makes the same of what follows as it would after the whole.
    fn context_of(&self, prompt_ids: &[u32]) -> Vec<u32> {
        const ENOUGH: usize = 16;
        let mut context = Vec::new();
        let mut inside_character = true;
        for &id in prompt_ids.iter().rev() {
            let Some(token) = self.tokenizer.token_text(id) else { continue };
            if self.skip_special && self.tokenizer.is_special(id) {
                continue;
            }
            if context.len() >= ENOUGH && !inside_character {
                break;
            }
            // A run of byte tokens belongs together.
            inside_character = is_byte(&token);
            context.push(id);
        }
        context.reverse();
        context
    }

    /// The text that is certain after the next id; often empty.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the decoder of `tokenizer.json` fails.
    pub fn push(&mut self, id: u32) -> Result<String> {
        let Some(token) = self.tokenizer.token_text(id) else { return Ok(String::new()) };
        if self.skip_special && self.tokenizer.is_special(id) {
            return Ok(String::new());
        }
        self.window.push(id);
        if is_byte(&token) {
            return Ok(String::new());
        }
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        // At the end of the text U+FFFD may be the first bytes of a character.
        if text.ends_with(char::REPLACEMENT_CHARACTER) || self.agreed(&text) == text.len() {
            return Ok(String::new());
        }
        self.advance(&text)
    }

    /// How much of `text`, in bytes, is what is out already. A decoder that rewrites earlier text (WordPiece mends punctuation) cannot be
    /// streamed exactly: then less than all of it agrees.
    fn agreed(&self, text: &str) -> usize {
        text.chars().zip(self.done.chars()).take_while(|(new, old)| new == old).map(|(new, _)| new.len_utf8()).sum()
    }

    /// The rest of the text, when no more ids come. Bytes of an unfinished character give U+FFFD.
    ///
    /// # Errors
    /// [`crate::Error::Tokenizer`] if the decoder of `tokenizer.json` fails.
    pub fn flush(&mut self) -> Result<String> {
        let text = self.tokenizer.decode(&self.window, self.skip_special)?;
        self.advance(&text)
    }

    /// What `text`, that of the whole window, adds to the text that is out; the ids behind it become the next context.
    fn advance(&mut self, text: &str) -> Result<String> {
        let piece = text[self.agreed(text)..].to_owned();
        if self.num_done < self.window.len() {
            self.window.drain(..self.num_done);
            self.num_done = self.window.len();
            self.done = self.tokenizer.decode(&self.window, self.skip_special)?;
        }
        Ok(piece)
    }
}

/// Whether a token stands for one byte, as in SentencePiece vocabularies with byte fallback.
fn is_byte(token: &str) -> bool {
    token.len() == 6
        && token.starts_with("<0x")
        && token.ends_with('>')
        && token[3..5].bytes().all(|digit| digit.is_ascii_hexdigit())
}
