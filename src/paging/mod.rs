//! Experts that do not all fit on a device at once: how many have a slot there, which of them, and which gives its slot up for another.
//!
//! A *slot* is room for one expert of one layer, and a *place* is the index of a layer among those with a router. Nothing here knows a device:
//! the simulator of [`trace`](crate::trace) makes the same decisions with the same objects as a decoder does.

mod budget;
mod host;
mod policy;
mod residency;
mod stats;

pub use budget::{ExpertMemory, PlaceShape};
pub use host::HostCache;
pub use policy::{HALF_LIFE, POLICIES, Policy, PolicyKind, PolicySetup};
pub use residency::{ABSENT, Load, Plan, Residency, WEIGHTLESS, Wave, Waves};
pub use stats::{Packing, PagingCounts, PagingStats};
