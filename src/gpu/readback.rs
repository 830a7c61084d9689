//! Reading device memory back.

use super::buffer::Buffer;
use super::device::Device;
use super::recording::Recording;
use crate::error::{Error, Result};
use crate::platform::{self, Stopwatch};
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

/// Staging buffers that wait for the next readback.
#[derive(Debug, Default)]
pub(super) struct ReadbackRing {
    idle: Mutex<Vec<Buffer>>,
}

/// Staging buffers that are kept; more are dropped after use.
const RING_LEN: usize = 4;
/// A device that answers nothing for so long is gone, whatever it says.
const PATIENCE_SECONDS: f64 = 600.0;
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// What the mapping callback leaves behind.
#[derive(Debug, Default)]
struct Mapping {
    done: Option<bool>,
    waker: Option<Waker>,
}

impl Mapping {
    fn settle(mapping: &Mutex<Mapping>, done: bool) {
        let mut mapping = mapping.lock().unwrap_or_else(PoisonError::into_inner);
        mapping.done = Some(done);
        if let Some(waker) = mapping.waker.take() {
            waker.wake();
        }
    }
}

impl ReadbackRing {
    fn take(&self, size: u64) -> Option<Buffer> {
        let mut idle = self.idle.lock().unwrap_or_else(PoisonError::into_inner);
        let index = idle.iter().position(|buffer| buffer.size_bytes() >= size)?;
        Some(idle.swap_remove(index))
    }
}

/// The first bytes of a buffer, on their way to the host.
#[derive(Debug)]
pub struct Readback {
    staging: Buffer,
    bytes: u64,
    mapping: Arc<Mutex<Mapping>>,
    submission: wgpu::SubmissionIndex,
}

impl Device {
    /// The first `bytes` of a buffer, once everything submitted before has run.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] or [`Error::Gpu`].
    pub async fn read(&self, attempted: &str, buffer: &Buffer, bytes: u64) -> Result<Vec<u8>> {
        let readback = self.read_after(attempted, &[], 1, (buffer, bytes)).await?;
        self.take(attempted, readback).await
    }

    /// Runs recordings one after the other, as [`submit_in_pieces`](Self::submit_in_pieces) does, and then copies the first `bytes` of a
    /// buffer for [`take`](Self::take) to fetch. Returns before anything has run.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn submit_and_read(
        &self,
        attempted: &str,
        recordings: &[&Recording],
        pieces: usize,
        (buffer, bytes): (&Buffer, u64),
    ) -> Result<Readback> {
        let rest = if self.profiler.is_on() {
            self.submit_profiled(attempted, recordings).await?;
            &[]
        } else {
            recordings
        };
        self.read_after(attempted, rest, pieces, (buffer, bytes)).await
    }

    async fn read_after(
        &self,
        attempted: &str,
        recordings: &[&Recording],
        pieces: usize,
        (buffer, bytes): (&Buffer, u64),
    ) -> Result<Readback> {
        let size = bytes.next_multiple_of(4);
        let staging = self.staging(attempted, size).await?;
        let submission = self.submit_commands(attempted, recordings, pieces, Some((buffer, &staging, size))).await?;
        let mapping = Arc::new(Mutex::new(Mapping::default()));
        let callback = mapping.clone();
        staging.raw.map_async(wgpu::MapMode::Read, 0..size, move |result| Mapping::settle(&callback, result.is_ok()));
        Ok(Readback { staging, bytes, mapping, submission })
    }

    /// Waits for what [`submit_and_read`](Self::submit_and_read) began, and for nothing that was submitted after it.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn take(&self, attempted: &str, readback: Readback) -> Result<Vec<u8>> {
        let Readback { staging, bytes, mapping, submission } = readback;
        self.wait(attempted, &mapping, Some(submission)).await?;
        self.counters.read_back();
        let view = staging.raw.get_mapped_range(0..bytes.next_multiple_of(4)).map_err(|error| Error::Gpu {
            attempted: attempted.to_owned(),
            message: format!("the result cannot be mapped: {error}"),
        })?;
        let content = view[..bytes as usize].to_vec();
        drop(view);
        staging.raw.unmap();
        let mut idle = self.readbacks.idle.lock().unwrap_or_else(PoisonError::into_inner);
        if idle.len() < RING_LEN {
            idle.push(staging);
        }
        Ok(content)
    }

    /// Waits until [`take`](Self::take) has nothing more to wait for.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn arrived(&self, attempted: &str, readback: &Readback) -> Result<()> {
        self.wait(attempted, &readback.mapping, Some(readback.submission.clone())).await
    }

    /// Waits until everything submitted before has run.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub async fn finish(&self, attempted: &str) -> Result<()> {
        let mapping = Arc::new(Mutex::new(Mapping::default()));
        let callback = mapping.clone();
        self.queue.on_submitted_work_done(move || Mapping::settle(&callback, true));
        self.wait(attempted, &mapping, None).await
    }

    /// As [`read`](Self::read), as 32-bit values.
    pub async fn read_as<T: bytemuck::Pod>(&self, attempted: &str, buffer: &Buffer, len: usize) -> Result<Vec<T>> {
        let bytes = self.read(attempted, buffer, (len * size_of::<T>()) as u64).await?;
        Ok(bytemuck::pod_collect_to_vec(&bytes))
    }

    async fn staging(&self, attempted: &str, size: u64) -> Result<Buffer> {
        if let Some(buffer) = self.readbacks.take(size) {
            return Ok(buffer);
        }
        let usage = wgpu::BufferUsages::MAP_READ | wgpu::BufferUsages::COPY_DST;
        self.catch(attempted, || Ok(self.buffer("readback", size, usage))).await
    }

    /// Waits for the mapping callback. Where the platform can block, polling the device is what makes it come. `None`: for everything.
    async fn wait(&self, attempted: &str, mapping: &Mutex<Mapping>, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        let waiting = Stopwatch::start();
        poll_fn(|context| {
            let polled =
                self.raw.poll(wgpu::PollType::Wait { submission_index: submission.clone(), timeout: Some(POLL_INTERVAL) });
            let mut mapping = mapping.lock().unwrap_or_else(PoisonError::into_inner);
            match mapping.done {
                Some(true) => return Poll::Ready(Ok(())),
                Some(false) => {
                    let failed = Error::Gpu { attempted: attempted.to_owned(), message: "the readback was cancelled".to_owned() };
                    return Poll::Ready(self.check(attempted).and(Err(failed)));
                }
                None => {}
            }
            self.check(attempted)?;
            if waiting.seconds() > PATIENCE_SECONDS {
                let reason = match polled {
                    Err(error) => error.to_string(),
                    Ok(_) => format!("no answer for {PATIENCE_SECONDS} s"),
                };
                return Poll::Ready(Err(Error::DeviceLost { attempted: attempted.to_owned(), reason }));
            }
            if platform::CAN_BLOCK {
                context.waker().wake_by_ref();
            } else {
                mapping.waker = Some(context.waker().clone());
            }
            Poll::Pending
        })
        .await
    }
}
