use super::super::inputs::Inputs;
use super::super::stage::{Prepared, Stage};
use super::super::{Case, Problem};
use super::COPY;
use crate::error::Result;
use crate::gpu::{Caps, Device, Recording, Variant};
use crate::kernels::expert_sort::{self, Buffers};
use crate::reference;

struct Sort {
    num_assignments: usize,
    num_experts: usize,
    ids: Ids,
}

#[derive(Clone, Copy)]
enum Ids {
    Random,
    /// All on this expert.
    One(u32),
    /// Only on every third expert.
    Gaps,
    /// On each in turn.
    Even,
}

fn case(num_assignments: usize, num_experts: usize, ids: Ids) -> Case {
    let how = match ids {
        Ids::Random => String::new(),
        Ids::One(expert) => format!(", all on {expert}"),
        Ids::Gaps => ", empty experts".to_owned(),
        Ids::Even => ", all equally loaded".to_owned(),
    };
    let name = format!("{num_assignments} to {num_experts} experts{how}");
    Case::new("expert_sort", name, COPY, Sort { num_assignments, num_experts, ids })
}

/// More assignments than a grid may have workgroups.
pub fn large_cases() -> Vec<Case> {
    vec![case(66_000, 6, Ids::Random), case(66_000, 300, Ids::Gaps), case(66_000, 8, Ids::One(7))]
}

pub fn cases() -> Vec<Case> {
    let mut cases = Vec::new();
    let mut add = |num_assignments, num_experts, ids| cases.push(case(num_assignments, num_experts, ids));
    for num_assignments in [1, 2, 7, 8, 9, 33, 514] {
        add(num_assignments, 8, Ids::Random);
    }
    for num_experts in [1, 6, 64, 300] {
        add(100, num_experts, Ids::Random);
    }
    for num_assignments in [1, 8, 17] {
        add(num_assignments, 8, Ids::One(7));
        add(num_assignments, 8, Ids::One(0));
    }
    add(40, 8, Ids::Gaps);
    add(64, 8, Ids::Even);
    add(72, 8, Ids::Even);
    // Tiles of 32 and 64: full, one more than full, and one expert with the share of all.
    for num_assignments in [256, 264, 1024, 1032] {
        add(num_assignments, 8, Ids::Even);
    }
    add(513, 8, Ids::One(7));
    add(1025, 8, Ids::One(0));
    cases
}

impl Problem for Sort {
    fn variants(&self, caps: &Caps) -> Vec<Variant> {
        vec![expert_sort::choose(caps, &self.problem()).flag_if(self.starts(), "STARTS")]
    }

    fn prepare(&self, device: &Device) -> Result<Prepared> {
        let (stage, mut inputs) = (Stage { device }, Inputs::new(7));
        let ids: Vec<u32> = (0..self.num_assignments)
            .map(|assignment| match self.ids {
                Ids::Random => inputs.below(self.num_experts) as u32,
                Ids::One(expert) => expert,
                Ids::Gaps => (inputs.below(self.num_experts.div_ceil(3)) * 3) as u32,
                Ids::Even => (assignment % self.num_experts) as u32,
            })
            .collect();
        let slot_table: Vec<u32> = inputs.permutation(self.num_experts).into_iter().map(|slot| 3 * slot + 1).collect();
        let (problem, caps) = (self.problem(), device.caps());
        let sorted = reference::expert_sort::expert_sort(&ids, &slot_table, problem.tile_len(caps), problem.num_tiles(caps));

        let host_ids = ids;
        let (ids, slot_table) = (stage.input("ids", &host_ids), stage.input("slot_table", &slot_table));
        let tiles = stage.integers("tiles", sorted.tiles.as_flattened());
        let order = stage.integers("order", &sorted.order);
        let starts =
            self.starts().then(|| stage.integers("starts", &reference::expert_sort::starts(&host_ids, self.num_experts)));
        let buffers = Buffers {
            ids: &ids,
            slot_table: &slot_table,
            tiles: &tiles.buffer,
            order: &order.buffer,
            starts: starts.as_ref().map(|starts| &starts.buffer),
        };
        let mut recording = Recording::default();
        expert_sort::record(device, &mut recording, None, &self.problem(), &buffers)?;
        Ok(Prepared { recording, outputs: [tiles, order].into_iter().chain(starts).collect() })
    }
}

impl Sort {
    /// Whether the case asks for the first assignment of each expert.
    fn starts(&self) -> bool {
        self.num_assignments % 3 != 1
    }

    fn problem(&self) -> expert_sort::Problem {
        expert_sort::Problem { num_assignments: self.num_assignments, num_experts: self.num_experts }
    }
}
