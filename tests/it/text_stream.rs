//! Ids decoded one at a time against all at once.

use crate::common::{demo_model, golden};
use moebius::generate::{TextStream, Tokenizer};
use pollster::block_on;
use proptest::prelude::*;
use std::path::PathBuf;
use std::sync::LazyLock;

static BYTE_LEVEL: LazyLock<Tokenizer> = LazyLock::new(|| block_on(Tokenizer::open(&demo_model())).unwrap());
static BYTE_FALLBACK: LazyLock<Tokenizer> = LazyLock::new(|| open(golden("fixtures/mixtral")));

fn open(dir: PathBuf) -> Tokenizer {
    block_on(Tokenizer::open(&dir)).unwrap()
}

/// The pieces of every id and of the flush. Also checks that they make up the text that decoding at once gives.
fn pieces(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Vec<String> {
    let mut stream = TextStream::new(tokenizer, skip_special);
    let mut pieces: Vec<String> = ids.iter().map(|&id| stream.push(id).unwrap()).collect();
    pieces.push(stream.flush().unwrap());
    assert_eq!(pieces.concat(), tokenizer.decode(ids, skip_special).unwrap(), "{ids:?}");
    assert_eq!(stream.flush().unwrap(), "", "the second flush of {ids:?}");
    pieces
}

fn id_of(tokenizer: &Tokenizer, text: &str) -> u32 {
    (0..tokenizer.vocab_size() as u32).find(|&id| tokenizer.token_text(id).as_deref() == Some(text)).unwrap()
}

#[test]
fn words_come_one_by_one_and_not_at_the_end() {
    let ids = BYTE_LEVEL.encode("Once upon a time", false).unwrap();
    let pieces = pieces(&BYTE_LEVEL, &ids, true);
    assert_eq!(pieces.last().unwrap(), "");
    assert!(pieces[..ids.len()].iter().all(|piece| !piece.is_empty()), "{pieces:?}");
}

#[test]
fn a_character_of_several_byte_tokens_comes_whole() {
    for tokenizer in [&*BYTE_LEVEL, &*BYTE_FALLBACK] {
        let ids = tokenizer.encode("a 🦀 b", false).unwrap();
        let pieces = pieces(tokenizer, &ids, true);
        assert!(pieces.iter().any(|piece| piece.contains('🦀')), "{pieces:?}");
        assert!(pieces.iter().all(|piece| !piece.contains('\u{FFFD}')), "{pieces:?}");
    }
}

#[test]
fn an_unfinished_character_at_the_end_comes_as_a_replacement_with_the_flush() {
    let mut ids = BYTE_LEVEL.encode("ab🦀", false).unwrap();
    ids.pop();
    let pieces = pieces(&BYTE_LEVEL, &ids, true);
    assert_eq!(pieces.last().unwrap(), "\u{FFFD}");
}

#[test]
fn one_invalid_byte_spoils_its_run_of_byte_tokens_as_in_the_whole_text() {
    let ids = ["<0x41>", "<0xFF>", "<0x42>", "▁a", "<0x0A>", "▁a"].map(|text| id_of(&BYTE_FALLBACK, text));
    assert_eq!(pieces(&BYTE_FALLBACK, &ids, true), ["", "", "", "\u{FFFD}\u{FFFD}\u{FFFD} a", "", "\n a", ""]);
}

#[test]
fn skipped_control_tokens_neither_eat_spaces_nor_end_a_run_of_bytes() {
    let ids = ["▁a", "</s>", "▁a", "<0xC3>", "</s>", "<0xA9>", "<s>", "▁a"].map(|text| id_of(&BYTE_FALLBACK, text));
    assert_eq!(pieces(&BYTE_FALLBACK, &ids, true), ["a", "", " a", "", "", "", "", "é a", ""]);
    assert!(pieces(&BYTE_FALLBACK, &ids, false).concat().contains("</s>"));
}

#[test]
fn ids_beyond_the_vocabulary_give_no_text() {
    let mut stream = TextStream::new(&BYTE_LEVEL, true);
    assert_eq!(stream.push(u32::MAX).unwrap(), "");
    assert_eq!(stream.flush().unwrap(), "");
}

/// Mostly tokens of single bytes, where characters can break.
fn any_ids(vocab_size: u32) -> impl Strategy<Value = Vec<u32>> {
    prop::collection::vec(prop_oneof![2 => 0..262u32, 1 => 0..vocab_size + 3], 0..40)
}

proptest! {
    #[test]
    fn the_pieces_of_random_byte_level_ids_make_up_their_text(ids in any_ids(4096), skip_special: bool) {
        check_replacements(&BYTE_LEVEL, &ids, skip_special);
    }

    #[test]
    fn the_pieces_of_random_byte_fallback_ids_make_up_their_text(ids in any_ids(429), skip_special: bool) {
        check_replacements(&BYTE_FALLBACK, &ids, skip_special);
    }
}

/// `pieces` proved that the texts are equal, so U+FFFD is in a piece only where the whole text has it. What is left to show is that
/// this is not because everything came with the flush: all that a later id cannot change is out.
fn check_replacements(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) {
    let mut ids = ids.to_vec();
    let end = tokenizer.encode("a", false).unwrap();
    ids.extend(end);
    assert_eq!(pieces(tokenizer, &ids, skip_special).last().unwrap(), "", "{ids:?}");
}
