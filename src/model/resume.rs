//! Tokens of a text that have to be run again, because what is kept of them has become that of another text.

use super::buffers::Buffers;
use super::gpu_decoder::GpuDecoder;
use super::paged::Paged;
use super::plan::{Output, PlanKey};
use crate::error::Result;
use crate::gpu::Recording;
use std::ops::Range;

impl GpuDecoder {
    /// Notes that `ids` come at `position`. Where that makes the text long or short for its rotary embedding, the keys of all earlier
    /// tokens turn differently: they are run again, and the answer is true.
    pub(super) async fn extend_history(&mut self, ids: &[u32], position: usize) -> Result<bool> {
        self.history.truncate(position);
        self.history.extend_from_slice(ids);
        let is_long = self.spec.is_long(self.history.len());
        if is_long == self.is_long {
            return Ok(false);
        }
        self.is_long = is_long;
        self.device
            .catch("turning the rotary tables", || {
                self.buffers.memory.write_ropes(&self.device, &self.spec, self.history.len());
                Ok(())
            })
            .await?;
        self.repeat(0..position).await?;
        Ok(true)
    }

    /// Where steps ran ahead that the text does not have, the state is that of another text: runs what is missing again, from the last state that is
    /// still true. Whether anything was run.
    pub(super) async fn return_to(&mut self, position: usize) -> Result<bool> {
        let resumed = self.ledger.resumable(position);
        // Steps that are still wanted have moved the state on as they should.
        if self.ahead.steps() > 0 || resumed == position {
            return Ok(false);
        }
        self.repeat(resumed..position).await?;
        Ok(true)
    }

    /// Runs tokens of the text again that have been counted already.
    async fn repeat(&mut self, positions: Range<usize>) -> Result<()> {
        let tokens = self.history[positions.clone()].to_vec();
        let counted = self.paged.as_ref().map(Paged::counted);
        self.keep_loads(true).await?;
        for (index, chunk) in tokens.chunks(self.buffers.chunk.max_tokens).enumerate() {
            let key = PlanKey { num_tokens: chunk.len(), output: Output::Nothing, taps: false };
            self.pass(chunk, positions.start + index * self.buffers.chunk.max_tokens, key).await?;
        }
        if let (Some(paged), Some(counted)) = (&mut self.paged, counted) {
            paged.set_counted(counted);
        }
        self.keep_loads(false).await
    }

    /// Puts what routers have counted aside, or back.
    async fn keep_loads(&self, aside: bool) -> Result<()> {
        let Buffers { memory, sampler, .. } = &self.buffers;
        let (from, to) = if aside { (&memory.loads, &sampler.loads_aside) } else { (&sampler.loads_aside, &memory.loads) };
        let mut recording = Recording::default();
        recording.copy(from, to, 0, memory.loads.size_bytes());
        self.device.submit("keeping the expert loads", &[&recording]).await
    }
}
