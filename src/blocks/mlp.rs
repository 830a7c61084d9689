//! An MLP that every token uses: an expert in slot 0 with weight 1.

use super::experts::{Everyone, everyone};
use super::host::HostPass;
use super::recorder::Recorder;
use crate::error::Result;
use crate::spec::{MlpSpec, Role};

pub(super) const ROLES: [Role; 2] = [Role::DenseGateUp, Role::DenseDown];

/// `target += down(act(gate_up(input)))`
pub(super) fn record(recorder: &mut Recorder, spec: &MlpSpec) -> Result<()> {
    let target = recorder.open()?;
    let weights = &recorder.memory.ones;
    everyone(recorder, &Everyone { spec, roles: ROLES, weights, target: &target })
}

/// `[n, hidden]`
pub(super) fn reference(spec: &MlpSpec, pass: &HostPass) -> Vec<f32> {
    let mut y = vec![0.0; pass.normed.len()];
    pass.run_for_all(spec, ROLES, &pass.normed, &mut y);
    y
}
