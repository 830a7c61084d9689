//! The time of every dispatch: by timestamps around a pass of its own, or by the clock around a submission of its own.

use super::device::Device;
use super::recording::{Bound, Command, Dispatch, Recording, encode};
use crate::error::Result;
use crate::platform::Stopwatch;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

/// Passes whose timestamps share a query set: WebGPU allows 4096 queries in one.
const PASSES_PER_SET: usize = 2048;

/// How long one dispatch took.
#[derive(Debug, Clone)]
pub struct DispatchTime {
    pub kernel: &'static str,
    /// Index of the model's layer, for what runs inside one.
    pub layer: Option<usize>,
    /// The storage buffers that it binds.
    pub bound: Vec<Bound>,
    pub seconds: f64,
}

#[derive(Debug, Default)]
pub(super) struct Profiler {
    on: AtomicBool,
    times: Mutex<Vec<DispatchTime>>,
}

impl Profiler {
    pub fn is_on(&self) -> bool {
        self.on.load(Ordering::Relaxed)
    }

    fn add(&self, dispatch: &Dispatch, seconds: f64) {
        let Dispatch { kernel, layer, bound, .. } = dispatch;
        let time = DispatchTime { kernel, layer: *layer, bound: bound.clone(), seconds };
        self.times.lock().unwrap_or_else(PoisonError::into_inner).push(time);
    }
}

impl Device {
    /// From now on every dispatch of [`submit`](Self::submit) is timed by itself, which makes the whole slower: no two overlap.
    pub fn start_profile(&self) {
        self.profiler.on.store(true, Ordering::Relaxed);
    }

    /// Ends what [`start_profile`](Self::start_profile) began: the time of every dispatch since, in order.
    pub fn take_profile(&self) -> Vec<DispatchTime> {
        self.profiler.on.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.profiler.times.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) async fn submit_profiled(&self, attempted: &str, recordings: &[&Recording]) -> Result<()> {
        let commands: Vec<&Command> = recordings.iter().flat_map(|recording| recording.commands()).collect();
        if !self.caps().timestamps {
            return self.submit_by_the_clock(attempted, &commands).await;
        }
        let mut rest = &commands[..];
        while !rest.is_empty() {
            let is_dispatch = |command: &&Command| matches!(command, Command::Dispatch(_));
            let past_set = rest.iter().enumerate().filter(|(_, command)| is_dispatch(command)).nth(PASSES_PER_SET);
            let (now, later) = rest.split_at(past_set.map_or(rest.len(), |(index, _)| index));
            self.submit_with_timestamps(attempted, now).await?;
            rest = later;
        }
        Ok(())
    }

    async fn submit_with_timestamps(&self, attempted: &str, commands: &[&Command]) -> Result<()> {
        let dispatches = dispatches(commands);
        let num_queries = 2 * dispatches.len().max(1) as u32;
        let results = self
            .catch(attempted, || {
                let queries = self.raw.create_query_set(&wgpu::QuerySetDescriptor {
                    label: Some("profile"),
                    ty: wgpu::QueryType::Timestamp,
                    count: num_queries,
                });
                let usage = wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC;
                let results = self.buffer("profile", u64::from(num_queries) * 8, usage);
                let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(attempted) });
                let mut query = 0;
                for command in commands {
                    let Command::Dispatch(dispatch) = command else {
                        encode(&mut encoder, &[command]);
                        continue;
                    };
                    let timestamps = wgpu::ComputePassTimestampWrites {
                        query_set: &queries,
                        beginning_of_pass_write_index: Some(query),
                        end_of_pass_write_index: Some(query + 1),
                    };
                    let descriptor =
                        wgpu::ComputePassDescriptor { label: Some(dispatch.kernel), timestamp_writes: Some(timestamps) };
                    dispatch.encode(&mut encoder.begin_compute_pass(&descriptor));
                    query += 2;
                }
                if query > 0 {
                    encoder.resolve_query_set(&queries, 0..query, &results.raw, 0);
                }
                self.queue.submit([encoder.finish()]);
                self.counters.submitted(dispatches.len());
                Ok(results)
            })
            .await?;
        let ticks: Vec<u64> = self.read_as(attempted, &results, 2 * dispatches.len()).await?;
        let seconds_per_tick = f64::from(self.queue.get_timestamp_period()) * 1e-9;
        for (dispatch, ticks) in dispatches.iter().zip(ticks.chunks_exact(2)) {
            // A clock that was reset in between gives no time, and not a huge one.
            self.profiler.add(dispatch, ticks[1].saturating_sub(ticks[0]) as f64 * seconds_per_tick);
        }
        Ok(())
    }

    /// The time of a submission without work is taken off.
    async fn submit_by_the_clock(&self, attempted: &str, commands: &[&Command]) -> Result<()> {
        self.finish(attempted).await?;
        let mut idle = f64::INFINITY;
        for _ in 0..3 {
            idle = idle.min(self.time_alone(attempted, &[]).await?);
        }
        for command in commands {
            let seconds = self.time_alone(attempted, &[command]).await?;
            if let Command::Dispatch(dispatch) = command {
                self.profiler.add(dispatch, (seconds - idle).max(0.0));
            }
        }
        Ok(())
    }

    async fn time_alone(&self, attempted: &str, commands: &[&Command]) -> Result<f64> {
        let clock = Stopwatch::start();
        self.catch(attempted, || {
            let mut encoder = self.raw.create_command_encoder(&wgpu::CommandEncoderDescriptor { label: Some(attempted) });
            encode(&mut encoder, commands);
            self.queue.submit([encoder.finish()]);
            self.counters.submitted(dispatches(commands).len());
            Ok(())
        })
        .await?;
        self.finish(attempted).await?;
        Ok(clock.seconds())
    }
}

fn dispatches<'a>(commands: &[&'a Command]) -> Vec<&'a Dispatch> {
    let dispatch = |command: &&'a Command| match command {
        Command::Dispatch(dispatch) => Some(dispatch),
        _ => None,
    };
    commands.iter().filter_map(dispatch).collect()
}
