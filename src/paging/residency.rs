//! Which experts have a slot: the tables of every place, and what has to be loaded.

use super::budget::PlaceShape;
use super::policy::Policy;

/// In a table: an expert without a slot.
pub const ABSENT: u32 = u32::MAX;
/// In a table: an expert without weights, which needs no slot.
pub const WEIGHTLESS: u32 = u32::MAX - 1;

/// The slots of all places.
///
/// A decoder calls, for each token and place: [`plan`](Self::plan) where an expert is absent, then [`used`](Self::used); for each chunk of a prompt and
/// place [`used_by_chunk`](Self::used_by_chunk), then [`waves`](Self::waves). What these give holds the residency borrowed, so that nothing changes
/// between a plan and its records; given up before its commit, it has changed nothing.
#[derive(Debug)]
pub struct Residency {
    places: Vec<Place>,
}

/// One layer with a router.
#[derive(Debug)]
struct Place {
    /// `[experts]`: the slot of each, [`ABSENT`] or [`WEIGHTLESS`].
    table: Vec<u32>,
    /// `[slots]`: the expert in each.
    holds: Vec<Option<usize>>,
    policy: Box<dyn Policy>,
    /// Tokens that have been here.
    now: u64,
}

/// An expert that is to be written into a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    pub expert: usize,
    pub slot: usize,
    /// What the slot holds until then.
    pub evicts: Option<usize>,
}

/// What has to be loaded before a token can go on.
#[derive(Debug)]
#[must_use = "the residency changes only when the plan is committed"]
pub struct Plan<'a> {
    place: &'a mut Place,
    loads: Vec<Load>,
}

/// Experts of a chunk that have their slots at the same time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wave {
    /// Ascending.
    pub experts: Vec<usize>,
    /// None in a wave of experts that are there already.
    pub loads: Vec<Load>,
}

/// The waves of a chunk, to be run and committed one after the other.
#[derive(Debug)]
#[must_use = "the residency changes only when waves are committed"]
pub struct Waves<'a> {
    place: &'a mut Place,
    waves: Vec<Wave>,
    committed: usize,
}

impl Residency {
    /// Nothing is there yet. `slots` are those of each place, and `policy` makes the policy of one.
    ///
    /// # Panics
    /// If there are not as many `slots` as `places`.
    pub fn new(places: &[PlaceShape], slots: &[usize], mut policy: impl FnMut(usize) -> Box<dyn Policy>) -> Self {
        assert_eq!(places.len(), slots.len(), "slots of every place");
        let make = |(index, (shape, &slots)): (usize, (&PlaceShape, &usize))| {
            let table = (0..shape.experts).map(|expert| if expert < shape.weighted() { ABSENT } else { WEIGHTLESS });
            Place { table: table.collect(), holds: vec![None; slots], policy: policy(index), now: 0 }
        };
        Residency { places: places.iter().zip(slots).enumerate().map(make).collect() }
    }

    /// `[experts]`: the slot of each, [`ABSENT`] or [`WEIGHTLESS`].
    pub fn table(&self, place: usize) -> &[u32] {
        &self.places[place].table
    }

    /// `[slots]`: the expert in each.
    pub fn holds(&self, place: usize) -> &[Option<usize>] {
        &self.places[place].holds
    }

    /// Experts that have a slot, ascending.
    pub fn resident(&self, place: usize) -> Vec<usize> {
        self.places[place].resident()
    }

    /// What the policy wants to have before the first token.
    pub fn start(&mut self, place: usize) -> Plan<'_> {
        let pinned = self.places[place].policy.pinned().to_vec();
        self.fill(place, &pinned)
    }

    /// Loads as many of `experts`, in their order, as there are free slots. Nothing is evicted.
    pub fn fill(&mut self, place: usize, experts: &[usize]) -> Plan<'_> {
        let place = &mut self.places[place];
        let free = (0..place.holds.len()).filter(|&slot| place.holds[slot].is_none());
        let absent = distinct(experts.iter().copied().filter(|&expert| place.table[expert] == ABSENT));
        let loads = absent.into_iter().zip(free).map(|(expert, slot)| Load { expert, slot, evicts: None }).collect();
        Plan { place, loads }
    }

    /// What one token needs that is not there: for each absent expert of `wanted` a free slot, or that of an expert which is not wanted.
    ///
    /// # Panics
    /// If more experts are wanted than there are slots, or one that the place does not have.
    pub fn plan(&mut self, place: usize, wanted: &[u32]) -> Plan<'_> {
        let place = &mut self.places[place];
        let wanted = place.weighted(wanted);
        let missing: Vec<usize> = wanted.iter().copied().filter(|&expert| place.table[expert] == ABSENT).collect();
        let loads = place.loads(&wanted, &missing, &place.holds);
        Plan { place, loads }
    }

    /// Takes the slot of an expert away, if it has one.
    pub fn evict(&mut self, place: usize, expert: usize) {
        let place = &mut self.places[place];
        if place.table[expert] < WEIGHTLESS {
            place.holds[place.table[expert] as usize] = None;
            place.table[expert] = ABSENT;
        }
    }

    /// One token used these experts, which are all there. To be called once for each token and place, whether something had to be loaded or not.
    pub fn used(&mut self, place: usize, experts: &[u32]) {
        let place = &mut self.places[place];
        for expert in place.weighted(experts) {
            debug_assert_ne!(place.table[expert], ABSENT, "expert {expert} was used without a slot");
            place.policy.used(expert, 1, place.now);
        }
        place.now += 1;
    }

    /// `tokens` tokens of a prompt use these experts; `counts [experts]` says how many of them each.
    pub fn used_by_chunk(&mut self, place: usize, counts: &[u32], tokens: usize) {
        let place = &mut self.places[place];
        for (expert, &count) in counts.iter().enumerate().filter(|(_, count)| **count > 0) {
            if place.table[expert] != WEIGHTLESS {
                place.policy.used(expert, count, place.now);
            }
        }
        place.now += tokens as u64;
    }

    /// The experts that a chunk uses, `counts [experts]` times each: those that are there, then the others by as many as the slots take. A wave may evict
    /// whatever an earlier one is done with. The experts of most worth come last, and what the last waves leave alone is of most worth, too.
    ///
    /// # Panics
    /// If a place has no slots.
    pub fn waves(&mut self, place: usize, counts: &[u32]) -> Waves<'_> {
        let place = &mut self.places[place];
        let is_wanted = |expert: &usize| counts[*expert] > 0;
        let there: Vec<usize> = place.resident().into_iter().filter(is_wanted).collect();
        let absent = (0..counts.len()).filter(|&expert| place.table[expert] == ABSENT).filter(is_wanted).collect();
        let mut waves = Vec::new();
        if !there.is_empty() {
            waves.push(Wave { experts: there, loads: Vec::new() });
        }
        let mut holds = place.holds.clone();
        for part in place.least_first(absent).chunks(place.room()) {
            let loads = place.loads(part, part, &holds);
            loads.iter().for_each(|load| holds[load.slot] = Some(load.expert));
            let mut experts = part.to_vec();
            experts.sort_unstable();
            waves.push(Wave { experts, loads });
        }
        Waves { place, waves, committed: 0 }
    }
}

impl Place {
    fn resident(&self) -> Vec<usize> {
        (0..self.table.len()).filter(|&expert| self.table[expert] < WEIGHTLESS).collect()
    }

    /// Those of `experts` that have weights, each once.
    fn weighted(&self, experts: &[u32]) -> Vec<usize> {
        distinct(experts.iter().map(|&expert| expert as usize).filter(|&expert| self.table[expert] != WEIGHTLESS))
    }

    /// Slots that a wave may fill: those of pinned experts stay as they are.
    fn room(&self) -> usize {
        self.holds.len().saturating_sub(self.policy.pinned().len()).max(1)
    }

    /// Slots for the `missing` among `wanted`, where slots hold what `holds` says.
    fn loads(&self, wanted: &[usize], missing: &[usize], holds: &[Option<usize>]) -> Vec<Load> {
        if missing.is_empty() {
            return Vec::new();
        }
        let mut free = (0..holds.len()).filter(|&slot| holds[slot].is_none());
        let mut candidates: Vec<usize> = holds.iter().flatten().copied().filter(|expert| !wanted.contains(expert)).collect();
        candidates.sort_unstable();
        let mut load = |&expert: &usize| {
            if let Some(slot) = free.next() {
                return Load { expert, slot, evicts: None };
            }
            assert!(!candidates.is_empty(), "{} experts are wanted in {} slots", wanted.len(), holds.len());
            let victim = self.policy.victim(&candidates, self.now);
            candidates.retain(|&candidate| candidate != victim);
            let slot = holds.iter().position(|held| *held == Some(victim)).expect("candidates have slots");
            Load { expert, slot, evicts: Some(victim) }
        };
        missing.iter().map(&mut load).collect()
    }

    /// In the order in which the policy would let them go.
    fn least_first(&self, mut experts: Vec<usize>) -> Vec<usize> {
        let mut ordered = Vec::with_capacity(experts.len());
        while !experts.is_empty() {
            let least = self.policy.victim(&experts, self.now);
            experts.retain(|&expert| expert != least);
            ordered.push(least);
        }
        ordered
    }

    fn evict(&mut self, loads: &[Load]) {
        for load in loads {
            if let Some(evicted) = self.holds[load.slot].take() {
                self.table[evicted] = ABSENT;
            }
        }
    }

    fn commit(&mut self, loads: &[Load]) {
        self.evict(loads);
        for load in loads {
            self.table[load.expert] = load.slot as u32;
            self.holds[load.slot] = Some(load.expert);
        }
    }
}

impl Plan<'_> {
    pub fn loads(&self) -> &[Load] {
        &self.loads
    }

    /// The slots are about to be overwritten: what they hold is gone, whatever becomes of the plan.
    pub fn evict(&mut self) {
        self.place.evict(&self.loads);
    }

    /// The records are there. Returns what was loaded.
    pub fn commit(self) -> Vec<Load> {
        self.place.commit(&self.loads);
        self.loads
    }
}

impl Waves<'_> {
    /// All of them, in order.
    pub fn all(&self) -> &[Wave] {
        &self.waves
    }

    /// The first wave that is not committed, with the table for it: [`ABSENT`] for whatever is not in this wave.
    pub fn current(&self) -> Option<(&Wave, Vec<u32>)> {
        let wave = self.waves.get(self.committed)?;
        let mut table: Vec<u32> =
            self.place.table.iter().map(|&slot| if slot == WEIGHTLESS { WEIGHTLESS } else { ABSENT }).collect();
        for &expert in &wave.experts {
            table[expert] = self.place.table[expert];
        }
        wave.loads.iter().for_each(|load| table[load.expert] = load.slot as u32);
        Some((wave, table))
    }

    /// As [`Plan::evict`], for the first wave that is not committed.
    pub fn evict_current(&mut self) {
        if let Some(wave) = self.waves.get(self.committed) {
            self.place.evict(&wave.loads);
        }
    }

    /// The records of the first wave that is not committed are there.
    pub fn commit_current(&mut self) {
        if let Some(wave) = self.waves.get(self.committed) {
            self.place.commit(&wave.loads);
            self.committed += 1;
        }
    }
}

/// Each once, in the order in which they come.
fn distinct(experts: impl Iterator<Item = usize>) -> Vec<usize> {
    let mut seen = Vec::new();
    for expert in experts {
        if !seen.contains(&expert) {
            seen.push(expert);
        }
    }
    seen
}
