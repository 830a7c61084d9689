//! Records in host memory, above sources that are slow.

use super::budget::{ExpertMemory, PlaceShape};
use super::policy::{PolicyKind, PolicySetup};
use super::residency::{ABSENT, Residency};

/// The records of experts that were loaded before, as many as a budget has room for, with the policy of the slots. What is on a device may be here too, so
/// that whoever gives a slot up copies nothing back.
#[derive(Debug)]
pub struct HostCache<R> {
    residency: Residency,
    /// By place and slot.
    records: Vec<Vec<Option<R>>>,
    bytes: u64,
    hits: u64,
    requests: u64,
}

impl<R: Clone> HostCache<R> {
    /// Room for `bytes`; `None` where that is not even for one expert of every place, or not known.
    pub fn new(places: &[PlaceShape], bytes: u64) -> Option<Self> {
        // What one token needs does not matter here: a place may have as little as one.
        let places: Vec<PlaceShape> = places.iter().map(|place| PlaceShape { experts_per_token: 1, ..*place }).collect();
        let slots = ExpertMemory::Bytes(bytes).slots(&places, None).ok()?;
        let kind = PolicyKind::named("lfu").ok()?;
        let policy = |place: usize| {
            let (experts, slots) = (places[place].weighted(), slots[place]);
            (kind.make)(&PolicySetup { place, experts, slots, least_slots: 1, hot: &[], future: &[] })
        };
        let size = |(place, slots): (&PlaceShape, &usize)| place.record_bytes.unwrap_or(0) * *slots as u64;
        Some(HostCache {
            bytes: places.iter().zip(&slots).map(size).sum(),
            residency: Residency::new(&places, &slots, policy),
            records: slots.iter().map(|slots| vec![None; *slots]).collect(),
            hits: 0,
            requests: 0,
        })
    }

    /// What it takes at most.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Records that were asked for, and those of them that were here.
    pub fn counts(&self) -> [u64; 2] {
        [self.requests, self.hits]
    }

    /// The record of an expert, if it is here.
    pub fn get(&mut self, place: usize, expert: usize) -> Option<R> {
        self.requests += 1;
        let slot = self.residency.table(place)[expert];
        let record = if slot == ABSENT { None } else { self.records[place].get(slot as usize)?.clone() };
        if record.is_some() {
            self.hits += 1;
            self.residency.used(place, &[expert as u32]);
        }
        record
    }

    /// Keeps a record that was not here, instead of that of least worth.
    pub fn put(&mut self, place: usize, expert: usize, record: R) {
        for load in self.residency.plan(place, &[expert as u32]).commit() {
            self.records[place][load.slot] = Some(record.clone());
        }
        self.residency.used(place, &[expert as u32]);
    }
}
