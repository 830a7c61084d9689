//! Records of experts on their way to a device, and those that are kept in host memory because making them takes long.

use super::records::{Record, Records};
use crate::error::Result;
use crate::paging::{HostCache, PlaceShape};
use crate::platform;
use std::sync::Arc;

/// Of the memory that is available, the share that records may take.
const HOST_SHARE: u64 = 4;
/// What they may take where the system does not say what is available: in a page.
const HOST_BYTES: u64 = 256 << 20;

/// Where the records of a paged decoder come from: from its files, whose pages the system keeps, or from a cache of packed records above files that hold
/// them in another format.
#[derive(Debug, Default)]
pub(super) struct HostRecords {
    cache: Option<HostCache<Arc<Record>>>,
}

impl HostRecords {
    /// Keeps records from now on, for these places.
    pub fn keep(&mut self, places: &[PlaceShape]) {
        let bytes = platform::available_memory_bytes().map_or(HOST_BYTES, |available| available / HOST_SHARE);
        self.cache = HostCache::new(places, bytes);
    }

    /// The most that the cache takes, the records that it was asked for, and those that it had.
    pub fn counts(&self) -> Option<(u64, [u64; 2])> {
        self.cache.as_ref().map(|cache| (cache.bytes(), cache.counts()))
    }

    /// The records of some experts of a place, which is this layer.
    ///
    /// # Errors
    /// What reading weights can fail with.
    pub async fn read(
        &mut self,
        records: &Records<'_>,
        (place, layer): (usize, usize),
        experts: &[usize],
    ) -> Result<Vec<Arc<Record>>> {
        let known: Vec<Option<Arc<Record>>> =
            experts.iter().map(|&expert| self.cache.as_mut().and_then(|cache| cache.get(place, expert))).collect();
        let missing: Vec<usize> =
            experts.iter().zip(&known).filter(|(_, known)| known.is_none()).map(|(expert, _)| *expert).collect();
        let mut read = records.read_all(layer, &missing).await?.into_iter().map(Arc::new);
        let mut all = Vec::with_capacity(experts.len());
        for (&expert, known) in experts.iter().zip(known) {
            all.extend(known.or_else(|| {
                let record = read.next()?;
                if let Some(cache) = &mut self.cache {
                    cache.put(place, expert, record.clone());
                }
                Some(record)
            }));
        }
        Ok(all)
    }
}
