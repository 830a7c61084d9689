//! Tokens that the files beside `tokenizer.json` add to it, as transformers adds them.

use super::tokenizer_config::{TokenToAdd, TokenizerConfig};
use std::collections::{BTreeMap, BTreeSet};
use tokenizers::{AddedToken, Tokenizer};

/// The most unused ids that are filled with placeholders before a token that the files give a higher id.
const MAX_GAP: u32 = 4096;

/// Adds what `settings` names and `inner` lacks. `rows` is how many tokens the model has, where that is known. What cannot be added, or
/// not under the id that the files give, becomes a note.
///
/// # Errors
/// None of its own; the crate may panic, which is the caller's to contain.
pub fn add(inner: &mut Tokenizer, settings: &mut TokenizerConfig, rows: Option<u32>) -> tokenizers::Result<()> {
    let (mut tokens, mut notes) = (Vec::new(), Vec::new());
    let mut planned: BTreeMap<String, u32> = BTreeMap::new();
    let mut next = next_id(inner);
    let has_row = |id: u32| rows.is_none_or(|rows| id < rows);
    for (&id, token) in &settings.by_id {
        let content = &token.content;
        match inner.token_to_id(content).or_else(|| planned.get(content).copied()) {
            Some(found) if found == id => tokens.push(added(token)),
            Some(found) => {
                notes.push(format!("the files give {content:?} the id {id}, tokenizer.json gives it {found}: {found} is used"))
            }
            None if !has_row(id) => {
                notes.push(format!("{content:?} has the id {id}, which the model has no row for: left aside"));
            }
            None if id < next || id - next > MAX_GAP => {
                let there = inner.id_to_token(id).map_or("no token".to_owned(), |token| format!("{token:?}"));
                notes.push(format!("{content:?} cannot have its id {id}, where tokenizer.json has {there}: left aside"));
            }
            None => {
                // Ids are given in order, so what lies between has to be taken by something.
                tokens.extend((next..id).map(|id| AddedToken::from(format!("\u{fff9}unused {id}\u{fffb}"), true)));
                tokens.push(added(token));
                planned.insert(content.clone(), id);
                next = id + 1;
            }
        }
    }
    let mut seen: BTreeSet<&str> = settings.by_id.values().map(|token| token.content.as_str()).collect();
    for token in settings.special_tokens.iter().filter(|token| !token.content.is_empty()) {
        // One that is known as a whole already keeps its ways with spaces.
        if inner.get_added_vocabulary().get_vocab().contains_key(&token.content) || !seen.insert(&token.content) {
            continue;
        }
        if inner.token_to_id(&token.content).is_some() {
            tokens.push(added(token));
        } else if has_row(next) {
            tokens.push(added(token));
            next += 1;
        } else {
            let content = &token.content;
            notes.push(format!(
                "the special token {content:?} is not in tokenizer.json, and the model has no row for one more: left aside"
            ));
        }
    }
    // Its tries are built again with every call, and most files only repeat what is there.
    let known = inner.get_added_vocabulary().get_added_tokens_decoder();
    let is_new = |token: &AddedToken| inner.token_to_id(&token.content).is_none_or(|id| known.get(&id) != Some(token));
    if tokens.iter().any(is_new) {
        inner.add_tokens(&tokens);
    }
    settings.notes.append(&mut notes);
    Ok(())
}

/// The id that the next unknown token gets, as the crate counts.
fn next_id(inner: &Tokenizer) -> u32 {
    let own = u32::try_from(inner.get_vocab_size(false)).unwrap_or(u32::MAX);
    let added = inner.get_added_vocabulary().get_added_tokens_decoder().keys().max().map_or(0, |id| id.saturating_add(1));
    own.max(added)
}

fn added(token: &TokenToAdd) -> AddedToken {
    AddedToken::from(token.content.clone(), token.special)
        .single_word(token.single_word)
        .lstrip(token.lstrip)
        .rstrip(token.rstrip)
        .normalized(token.normalized.unwrap_or(!token.special))
}
