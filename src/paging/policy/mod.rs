//! Which expert gives its slot up when another one needs it.
//!
//! No policy asks a clock, draws lots that differ from run to run, or goes through a hash map: the same routing gives the same evictions everywhere.

mod belady;
mod fixed;
mod lfu;
mod lru;
mod random;

pub use lfu::HALF_LIFE;

use crate::error::{Error, Result, nearest};

/// What one place knows about its experts. Experts are counted from 0, those without weights left out.
pub trait Policy: std::fmt::Debug + Send + Sync {
    /// `tokens` tokens used the expert. It is told of hits and misses alike, once for each token or chunk of a prompt; `now` counts the tokens before.
    fn used(&mut self, expert: usize, tokens: u32, now: u64);

    /// Which of `candidates` goes: experts that have a slot and are not needed now, ascending, at least one. Of equal ones the lowest.
    fn victim(&self, candidates: &[usize], now: u64) -> usize;

    /// Experts that have a slot from the start, and keep it.
    fn pinned(&self) -> &[usize] {
        &[]
    }
}

/// What a policy is made from, for one place.
#[derive(Debug, Clone, Copy)]
pub struct PolicySetup<'a> {
    pub place: usize,
    /// Experts with weights.
    pub experts: usize,
    pub slots: usize,
    /// Slots that one token needs at most.
    pub least_slots: usize,
    /// Experts by how much they were used elsewhere, the most used first; empty where that is not known.
    pub hot: &'a [usize],
    /// The experts of every token to come, where a simulation knows them.
    pub future: &'a [&'a [u32]],
}

/// A policy by its name.
#[derive(Debug)]
pub struct PolicyKind {
    pub name: &'static str,
    pub summary: &'static str,
    pub make: fn(&PolicySetup<'_>) -> Box<dyn Policy>,
}

/// Every policy; `belady` and `random` are there to be compared with. The first is the one that is meant where none is named.
pub static POLICIES: &[PolicyKind] = &[
    PolicyKind {
        name: "lfu",
        summary: "evicts the expert used least often, where a use counts half as much after 32 tokens",
        make: |setup| Box::new(lfu::Lfu::new(setup)),
    },
    PolicyKind {
        name: "lru",
        summary: "evicts the expert that has not been used for longest",
        make: |setup| Box::new(lru::Lru::new(setup)),
    },
    PolicyKind {
        name: "static",
        summary: "keeps the experts that a trace used most; the others share as many slots as one token needs",
        make: |setup| Box::new(fixed::Fixed::new(setup)),
    },
    PolicyKind {
        name: "belady",
        summary: "evicts the expert that will not be used for longest: for who knows the future, the most hits that decoding can have",
        make: |setup| Box::new(belady::Belady::new(setup)),
    },
    PolicyKind {
        name: "random",
        summary: "evicts any expert, the same one in every run: what a policy has to be better than",
        make: |setup| Box::new(random::Random::new(setup)),
    },
];

impl PolicyKind {
    /// The policy of that name, in any case.
    ///
    /// # Errors
    /// [`Error::Argument`], with the name that was probably meant.
    pub fn named(name: &str) -> Result<&'static Self> {
        let names = || POLICIES.iter().map(|kind| kind.name);
        POLICIES.iter().find(|kind| kind.name.eq_ignore_ascii_case(name.trim())).ok_or_else(|| {
            let near = nearest(name.trim(), names()).map_or_else(String::new, |near| format!("; did you mean `{near}`?"));
            let expected = format!("one of {}", names().collect::<Vec<_>>().join(", "));
            Error::Argument { what: "policy", expected, found: format!("`{name}`{near}") }
        })
    }
}
