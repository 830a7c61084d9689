//! What only tests ask of a decoder: to have experts missing where nobody would, and to see what it keeps.

use super::gpu_decoder::GpuDecoder;
use crate::error::{Error, Result};

impl GpuDecoder {
    /// Takes the slot of an expert away, where it has one. Steps that ran ahead are forgotten.
    ///
    /// # Errors
    /// [`Error::Argument`] if not all experts of the layer are loaded only when they are chosen, or there is no such expert.
    #[doc(hidden)]
    pub fn evict(&mut self, layer: usize, expert: usize) -> Result<()> {
        self.ahead.clear();
        let found = format!("expert {expert} of layer {layer}");
        let evicted = self.paged.as_mut().is_some_and(|paged| paged.evict(layer, expert));
        let expected = "an expert that may be absent".to_owned();
        if evicted { Ok(()) } else { Err(Error::Argument { what: "eviction", expected, found }) }
    }

    /// Fills everything that blocks keep between passes with this word.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`].
    #[doc(hidden)]
    pub async fn fill_states(&self, word: u32) -> Result<()> {
        let fill = || {
            for (_, state) in self.buffers.memory.layers.iter().flatten().flat_map(|block| &block.states) {
                let words = vec![word; (state.size_bytes() / 4) as usize];
                self.device.write(state, 0, bytemuck::cast_slice(&words));
            }
            Ok(())
        };
        self.device.catch("filling the KV cache", fill).await
    }

    /// Everything that blocks keep between passes, one buffer after the other.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`].
    #[doc(hidden)]
    pub async fn read_states(&self) -> Result<Vec<u32>> {
        let mut words = Vec::new();
        for (_, state) in self.buffers.memory.layers.iter().flatten().flat_map(|block| &block.states) {
            words.extend(self.device.read_as::<u32>("reading the KV cache", state, (state.size_bytes() / 4) as usize).await?);
        }
        Ok(words)
    }
}
