//! Token ids to text, one id at a time.

use super::tokenizer::Tokenizer;
use crate::error::Result;

/// Decodes ids as they come. The pieces of [`TextStream::push`] and the one of [`TextStream::flush`] put together are the text
/// that [`Tokenizer::decode`] gives for all ids at once, and none ends in the middle of a character.
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
        if text.ends_with(char::REPLACEMENT_CHARACTER) || text.len() <= self.done.len() {
            return Ok(String::new());
        }
        self.advance(&text)
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
        // A decoder that rewrites earlier text (WordPiece mends punctuation) cannot be streamed exactly: keep what agrees.
        let agreed =
            text.chars().zip(self.done.chars()).take_while(|(new, old)| new == old).map(|(new, _)| new.len_utf8()).sum::<usize>();
        let piece = text[agreed..].to_owned();
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
