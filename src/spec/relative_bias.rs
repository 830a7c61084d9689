//! What the distance between a query and a key adds to their score.

/// The relative position bias of T5: distances fall into buckets, fine near zero and coarse far away, and each head has a number for each bucket.
/// Source: Raffel et al. 2020, arXiv 1910.10683, section 2.1, and `T5Attention._relative_position_bucket` of transformers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RelativeBias {
    pub num_buckets: usize,
    /// From here on all distances are in one bucket.
    pub max_distance: usize,
    /// Half of the buckets are for keys that come later; otherwise these are all at distance zero.
    pub bidirectional: bool,
}

impl RelativeBias {
    /// Entries of one head in the table: one for each distance from `-max_distance` to `max_distance`.
    pub fn width(&self) -> usize {
        2 * self.max_distance + 1
    }

    /// The entry for the key at place `key` of a query at `position`.
    pub fn entry(&self, position: usize, key: usize) -> usize {
        (key + self.max_distance).saturating_sub(position).min(2 * self.max_distance)
    }

    /// The bucket of an entry.
    fn bucket(&self, entry: usize) -> usize {
        let is_later = entry > self.max_distance;
        let (first, num_buckets, distance) = match (self.bidirectional, is_later) {
            (true, true) => (self.num_buckets / 2, self.num_buckets / 2, entry - self.max_distance),
            (true, false) => (0, self.num_buckets / 2, self.max_distance - entry),
            (false, _) => (0, self.num_buckets, self.max_distance.saturating_sub(entry)),
        };
        let exact = num_buckets / 2;
        if distance < exact {
            return first + distance;
        }
        // In f32, as the models were trained: at a power the logarithm decides.
        let part = (distance as f32 / exact as f32).ln() / (self.max_distance as f64 / exact as f64).ln() as f32;
        first + (exact + (part * (num_buckets - exact) as f32) as usize).min(num_buckets - 1)
    }

    /// `weight [num_buckets, num_heads]` by distance: `[num_heads, width]`.
    pub fn table(&self, weight: &[f32], num_heads: usize) -> Vec<f32> {
        let of_head = |head: usize| (0..self.width()).map(move |entry| weight[self.bucket(entry) * num_heads + head]);
        (0..num_heads).flat_map(of_head).collect()
    }
}
