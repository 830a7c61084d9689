//! Runs tests on a loaded subject.

use super::roofs::{Roofs, measure_roofs};
use super::subject::{Subject, SubjectOptions, choose_context};
use super::test::{Test, TestReport, Work};
use crate::batch::Sampling;
use crate::batch::rng::pcg;
use crate::error::{Error, Result};
use crate::gpu::{Device, Pace};
use crate::model::{Decoder, GpuDecoder, LoadStats, LoadStep};
use crate::paging::PagingStats;
use crate::platform::{Listener, Stopwatch};
use crate::spec::ModelSpec;

/// A model on a device whose roofs are known.
#[derive(Debug)]
pub struct Bench {
    pub(super) spec: ModelSpec,
    pub(super) decoder: Decoder,
    pub(super) roofs: Roofs,
    context: usize,
    /// As the checkpoint asks.
    sampling: Sampling,
}

impl Bench {
    /// Measures the roofs of the device, then loads the subject with room for every test. `progress` is told how far that is.
    ///
    /// # Errors
    /// [`Error::Argument`] if a test does not fit in the context, before anything is measured; what loading can fail with.
    pub async fn load(
        device: Device,
        subject: &Subject,
        tests: &[Test],
        options: &SubjectOptions,
        progress: &mut Listener<'_, LoadStep>,
    ) -> Result<Self> {
        let (spec, context) = subject.check(tests, options).await?;
        let sampling = subject.sampling().await?.for_kernel();
        let roofs = measure_roofs(&device, &options.roofs).await?;
        let decoder = subject.load(device, &spec, (options, context), progress).await?;
        Ok(Bench { spec, decoder: Decoder::Gpu(Box::new(decoder)), roofs, context, sampling })
    }

    pub fn spec(&self) -> &ModelSpec {
        &self.spec
    }

    pub fn roofs(&self) -> &Roofs {
        &self.roofs
    }

    /// Positions of the KV cache.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Names of the formats of the weight matrices, that of the most bytes first.
    pub fn formats(&self) -> Vec<&'static str> {
        self.gpu().formats().to_vec()
    }

    pub fn device(&self) -> &Device {
        self.gpu().device()
    }

    /// What loading took.
    pub fn load_stats(&self) -> &LoadStats {
        self.gpu().load_stats()
    }

    /// Experts that were loaded while it ran; `None` where all are on the device.
    pub fn paging(&self) -> Option<&PagingStats> {
        self.gpu().paging()
    }

    /// Everything that was allocated on the device, in bytes, that of the probes included.
    pub fn allocated_bytes(&self) -> u64 {
        self.gpu().device().allocated_bytes()
    }

    /// Variants of kernels that were compiled, those of the probes included.
    pub fn num_pipelines(&self) -> usize {
        self.gpu().device().num_pipelines()
    }

    /// The largest buffer that a dispatch reads or writes, in bytes, those of the probes included.
    pub fn largest_binding_bytes(&self) -> u64 {
        self.gpu().device().largest_binding_bytes()
    }

    pub(super) fn gpu(&self) -> &GpuDecoder {
        match &self.decoder {
            Decoder::Gpu(decoder) => decoder,
            Decoder::Reference(_) => unreachable!("a bench loads no reference"),
        }
    }

    /// Runs a test so many times after a warm-up.
    ///
    /// # Errors
    /// [`Error::Argument`] for no repetitions or a test beyond the context; what running can fail with.
    pub async fn run(&mut self, test: Test, repetitions: usize) -> Result<TestReport> {
        self.run_and_tell(test, repetitions, &mut |_| {}).await
    }

    /// As [`run`](Self::run); `on_repetition` gets the number of each repetition, from 1 on, when it begins.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub async fn run_and_tell(
        &mut self,
        test: Test,
        repetitions: usize,
        on_repetition: &mut dyn FnMut(usize),
    ) -> Result<TestReport> {
        self.check(test, repetitions)?;
        self.fill(test).await?;
        // Whatever the first run compiles or allocates is not what is measured.
        self.rewind(test.depth).await?;
        let enough = match test.work {
            Work::Prefill(tokens) => tokens,
            // So many that the steps of one submission have grown to what they will be.
            Work::Decode(tokens) | Work::Sample(tokens) => tokens.min(2 * Pace::MOST_STEPS),
        };
        self.work(test, enough).await?;

        let mut samples = Vec::with_capacity(repetitions);
        let mut counts = Vec::with_capacity(repetitions);
        for repetition in 1..=repetitions {
            on_repetition(repetition);
            self.rewind(test.depth).await?;
            self.gpu().device().finish("waiting for the device").await?;
            let before = self.gpu().device().counts();
            let clock = Stopwatch::start();
            self.work(test, test.tokens()).await?;
            self.gpu().device().finish("waiting for the device").await?;
            samples.push(test.tokens() as f64 / clock.seconds());
            counts.push(self.gpu().device().counts() - before);
        }
        let counts = counts.into_iter().sum();
        Ok(TestReport::new(test, samples, counts, self.gpu().token_cost(), &self.roofs))
    }

    /// Logits of `ids` from position 0 on, and how often each expert of each MoE layer was chosen: whether the numbers of random weights are
    /// those of a model.
    ///
    /// # Errors
    /// What running can fail with.
    pub async fn sanity(&mut self, ids: &[u32]) -> Result<(Vec<f32>, Vec<Vec<u64>>)> {
        self.decoder.begin(&Sampling::GREEDY, &[]).await?;
        let forward = self.decoder.forward(ids, 0).await?;
        Ok((forward.logits, self.decoder.expert_loads().await?))
    }

    pub(super) fn check(&self, test: Test, repetitions: usize) -> Result<()> {
        if repetitions == 0 || test.tokens() == 0 {
            let (expected, found) = ("at least one repetition of at least one token".to_owned(), "none".to_owned());
            return Err(Error::Argument { what: "test", expected, found });
        }
        choose_context(&self.spec, &[test], Some(self.context)).map(|_| ())
    }

    /// What the clock runs for.
    pub(super) async fn work(&mut self, test: Test, tokens: usize) -> Result<()> {
        match test.work {
            Work::Prefill(_) => {
                let ids = self.ids(test.depth, tokens);
                self.decoder.prefill(&ids, test.depth).await?;
            }
            Work::Decode(_) | Work::Sample(_) => {
                for done in 0..tokens {
                    self.decoder.decode(tokens - done).await?;
                }
            }
        }
        Ok(())
    }

    /// Puts the tokens before a test into the KV cache.
    pub(super) async fn fill(&mut self, test: Test) -> Result<()> {
        let sampling = match test.work {
            Work::Sample(_) => self.sampling,
            Work::Prefill(_) | Work::Decode(_) => Sampling::GREEDY,
        };
        self.decoder.begin(&sampling, &[]).await?;
        if test.depth > 0 {
            let ids = self.ids(0, test.depth);
            self.decoder.prefill(&ids, 0).await?;
        }
        Ok(())
    }

    /// Back to the end of the first `depth` tokens, with a next token chosen.
    pub(super) async fn rewind(&mut self, depth: usize) -> Result<()> {
        let last = depth.saturating_sub(1);
        let first = self.decoder.resumable(last);
        let ids = self.ids(first, last + 1 - first);
        self.decoder.prefill(&ids, first).await?;
        Ok(())
    }

    /// Random tokens, the same for the same positions.
    pub(super) fn ids(&self, position: usize, len: usize) -> Vec<u32> {
        let vocab_size = self.spec.vocab_size as u32;
        (position as u32..).take(len).map(|position| pcg(position) % vocab_size).collect()
    }
}
