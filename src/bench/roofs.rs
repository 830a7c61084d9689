//! What a device can do at best, measured on the spot: everything else is a share of it.

use super::probes::{self, Deal, Multiply, Probe};
use crate::error::{Error, Result};
use crate::gpu::{Buffer, Device, Recording};
use crate::platform::Stopwatch;

/// The limits of one device.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Roofs {
    /// Size of what was read, in bytes.
    pub bytes: u64,
    /// 10^9 bytes read per second.
    pub read_gb_s: f64,
    /// 10^9 bytes per second, those read and those written together.
    pub copy_gb_s: f64,
    /// 10^9 f32 operations per second; a multiply-add is two.
    pub fma_gflop_s: f64,
    /// Microseconds of a dispatch that does nothing but wait for the one before.
    pub gap_us: f64,
}

/// How [`measure_roofs`] measures.
#[derive(Debug, Clone, Copy)]
pub struct RoofOptions {
    /// Bytes to read: several times what the last cache holds. Rounded to whole buffers, at least two; at most an eighth of the device's memory.
    pub bytes: u64,
    /// Each time is at least so long, in seconds.
    pub seconds: f64,
}

impl Default for RoofOptions {
    fn default() -> Self {
        RoofOptions { bytes: 1 << 30, seconds: 0.1 }
    }
}

/// What every WebGPU device can bind.
const MAX_SHARD_BYTES: u64 = 128 << 20;
const WORD_BYTES: u64 = 16;
/// The best of so many times counts.
const ATTEMPTS: usize = 4;
const MAX_REPEATS: f64 = 4096.0;
/// Dispatches that wait for each other.
const CHAIN: usize = 512;

/// Measures the roofs of a device. What the probes compute is compared with what they must compute.
///
/// # Errors
/// [`Error::OutOfMemory`], [`Error::DeviceLost`], or [`Error::Gpu`] if a probe did not do its work.
pub async fn measure_roofs(device: &Device, options: &RoofOptions) -> Result<Roofs> {
    let probes = Probes::new(device, options).await?;
    Ok(Roofs {
        bytes: probes.bytes(),
        read_gb_s: probes.read().await?,
        copy_gb_s: probes.copy().await?,
        fma_gflop_s: probes.multiply().await?,
        gap_us: probes.gap().await?,
    })
}

/// Measures only how fast a device reads, in 10^9 bytes per second; also says over how many bytes.
///
/// # Errors
/// As [`measure_roofs`].
pub async fn measure_read_roof(device: &Device, options: &RoofOptions) -> Result<(f64, u64)> {
    let probes = Probes::new(device, options).await?;
    Ok((probes.read().await?, probes.bytes()))
}

struct Probes<'a> {
    device: &'a Device,
    seconds: f64,
    /// vec4 per shard.
    words: usize,
    shards: Vec<Buffer>,
    /// One for each shard, so that its dispatches need not wait for those of the others.
    sums: Vec<Buffer>,
}

impl<'a> Probes<'a> {
    async fn new(device: &'a Device, options: &RoofOptions) -> Result<Self> {
        let bytes = options.bytes.min(device.caps().memory_bytes.map_or(u64::MAX, |memory| memory / 8));
        let most = device.caps().max_shard_bytes().min(MAX_SHARD_BYTES).min(bytes / 2).max(1 << 16);
        // Whole powers of two deal out evenly.
        let shard_bytes = 1u64 << most.ilog2();
        let words = (shard_bytes / WORD_BYTES) as usize;
        let num_shards = (bytes / shard_bytes).max(2);
        let deals = Deal::candidates(device.caps(), words);
        let invocations = deals.iter().map(|deal| deal.invocations).max().unwrap_or(1);
        let allocate = || {
            let shards = (0..num_shards).map(|_| device.storage("roof", shard_bytes)).collect();
            let sums = (0..num_shards).map(|_| device.storage("roof_sums", invocations as u64 * WORD_BYTES)).collect();
            Ok(Probes { device, seconds: options.seconds, words, shards, sums })
        };
        let probes = device.catch("allocating what the roofs are measured on", allocate).await?;
        let fill = probes
            .record(|recording| probes.shards.iter().try_for_each(|shard| probes::record_fill(device, recording, words, shard)));
        device.submit("filling what the roofs are measured on", &[&fill.await?]).await?;
        Ok(probes)
    }

    /// In all shards.
    fn bytes(&self) -> u64 {
        self.shards.len() as u64 * self.words as u64 * WORD_BYTES
    }

    /// The fastest way to read every shard once.
    async fn read(&self) -> Result<f64> {
        let mut best = 0.0f64;
        for deal in Deal::candidates(self.device.caps(), self.words) {
            let recording = self.read_recording(&deal, 0..self.shards.len()).await?;
            let seconds = self.seconds_of("measuring the read roof", &recording).await?;
            self.check_sums(&deal, 0..self.shards.len()).await?;
            best = best.max(self.bytes() as f64 / seconds);
        }
        Ok(best * 1e-9)
    }

    /// The fastest way to copy the first half of the shards over the second.
    async fn copy(&self) -> Result<f64> {
        let half = self.shards.len() / 2;
        let mut best = 0.0f64;
        for deal in Deal::candidates(self.device.caps(), self.words) {
            let mut clear = Recording::default();
            self.shards[half..2 * half].iter().for_each(|shard| clear.clear(shard));
            self.device.submit("measuring the copy roof", &[&clear]).await?;
            let pairs = || self.shards[..half].iter().zip(&self.shards[half..]);
            let recording = self
                .record(|recording| {
                    pairs().try_for_each(|(source, copied)| {
                        let buffers = [("source", source), ("copied", copied)];
                        probes::record(self.device, recording, Probe::of_deal(&probes::COPY, &deal, self.words), &buffers)
                    })
                })
                .await?;
            let seconds = self.seconds_of("measuring the copy roof", &recording).await?;
            let check = self.read_recording(&deal, half..2 * half).await?;
            self.device.submit("checking the copy", &[&check]).await?;
            self.check_sums(&deal, half..2 * half).await?;
            best = best.max(self.bytes_of(2 * half) / seconds);
        }
        Ok(best * 1e-9)
    }

    async fn multiply(&self) -> Result<f64> {
        const ATTEMPTED: &str = "measuring the multiply-add roof";
        let candidates = Multiply::candidates(self.device.caps());
        let num_sums = candidates.map(|multiply| multiply.invocations * 4)[0];
        let allocate = || {
            let factor = self.device.storage("roof_factor", 4);
            self.device.write(&factor, 0, &0.5f32.to_le_bytes());
            Ok((factor, self.device.storage("roof_products", num_sums as u64 * 4)))
        };
        let (factor, sums) = self.device.catch(ATTEMPTED, allocate).await?;
        let mut best = 0.0f64;
        for multiply in candidates {
            let buffers = [("factor", &factor), ("sums", &sums)];
            let recording = self.record(|recording| probes::record_multiply(self.device, recording, &multiply, &buffers)).await?;
            let seconds = self.seconds_of(ATTEMPTED, &recording).await?;
            let found: Vec<f32> = self.device.read_as(ATTEMPTED, &sums, num_sums).await?;
            if let Some(wrong) = found.iter().find(|sum| (**sum - 8.0).abs() > 1e-4) {
                return Err(wrong_result(ATTEMPTED, "8", &wrong.to_string()));
            }
            best = best.max(multiply.flops() / seconds);
        }
        Ok(best * 1e-9)
    }

    async fn gap(&self) -> Result<f64> {
        const ATTEMPTED: &str = "measuring the gap between dispatches";
        let counter = self.device.catch(ATTEMPTED, || Ok(self.device.storage("roof_counter", 4))).await?;
        let recording =
            self.record(|recording| (0..CHAIN).try_for_each(|_| probes::record_count(self.device, recording, &counter))).await?;
        let before = self.device.counts().dispatches;
        let seconds = self.seconds_of(ATTEMPTED, &recording).await?;
        let expected = self.device.counts().dispatches - before;
        let counted = self.device.read_as::<u32>(ATTEMPTED, &counter, 1).await?[0];
        if u64::from(counted) != expected {
            return Err(wrong_result(ATTEMPTED, &expected.to_string(), &counted.to_string()));
        }
        Ok(seconds / CHAIN as f64 * 1e6)
    }

    fn bytes_of(&self, num_shards: usize) -> f64 {
        (num_shards as u64 * self.words as u64 * WORD_BYTES) as f64
    }

    async fn record(&self, work: impl FnOnce(&mut Recording) -> Result<()>) -> Result<Recording> {
        self.device
            .catch("preparing the probes", || {
                let mut recording = Recording::default();
                work(&mut recording).map(|()| recording)
            })
            .await
    }

    async fn read_recording(&self, deal: &Deal, shards: std::ops::Range<usize>) -> Result<Recording> {
        self.record(|recording| {
            self.shards[shards.clone()].iter().zip(&self.sums[shards]).try_for_each(|(words, sums)| {
                let buffers = [("words", words), ("sums", sums)];
                probes::record(self.device, recording, Probe::of_deal(&probes::READ, deal, self.words), &buffers)
            })
        })
        .await
    }

    /// Every shard holds `FACTOR` times the index of each of its 32-bit words.
    async fn check_sums(&self, deal: &Deal, shards: std::ops::Range<usize>) -> Result<()> {
        let len = self.words as u64 * 4;
        let expected = (u128::from(len) * u128::from(len - 1) / 2) as u32;
        let expected = expected.wrapping_mul(probes::FACTOR);
        for sums in &self.sums[shards] {
            let sums: Vec<u32> = self.device.read_as("checking the sums", sums, deal.invocations * 4).await?;
            let found = sums.iter().fold(0u32, |total, sum| total.wrapping_add(*sum));
            if found != expected {
                return Err(wrong_result("reading a known buffer", &expected.to_string(), &found.to_string()));
            }
        }
        Ok(())
    }

    /// Seconds of one run: of the fastest of several times, each long enough for the clock.
    async fn seconds_of(&self, attempted: &str, recording: &Recording) -> Result<f64> {
        // The first run may compile, or put memory in place.
        self.seconds_of_repeats(attempted, recording, 1).await?;
        let once = self.seconds_of_repeats(attempted, recording, 1).await?;
        let repeats = (self.seconds / once.max(1e-6)).ceil().clamp(1.0, MAX_REPEATS) as usize;
        let mut best = f64::INFINITY;
        for _ in 0..ATTEMPTS {
            best = best.min(self.seconds_of_repeats(attempted, recording, repeats).await?);
        }
        Ok(best)
    }

    async fn seconds_of_repeats(&self, attempted: &str, recording: &Recording, repeats: usize) -> Result<f64> {
        let clock = Stopwatch::start();
        self.device.submit(attempted, &vec![recording; repeats]).await?;
        self.device.finish(attempted).await?;
        Ok(clock.seconds() / repeats as f64)
    }
}

fn wrong_result(attempted: &str, expected: &str, found: &str) -> Error {
    Error::Gpu { attempted: attempted.to_owned(), message: format!("a probe left {found} where {expected} belongs") }
}
