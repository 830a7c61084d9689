//! Reads at places of files, on a few threads: a disk answers several requests at a time sooner than one after the other.

#![allow(clippy::disallowed_methods, reason = "this is what clippy.toml points to")]

use std::collections::VecDeque;
use std::fs::File;
use std::future::poll_fn;
use std::io;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

/// More threads than this find no more for a disk to do.
const MOST_THREADS: usize = 4;

/// A read that somebody waits for.
struct Job {
    file: Arc<File>,
    range: Range<u64>,
    outcome: Arc<Mutex<Outcome>>,
}

#[derive(Default)]
struct Outcome {
    bytes: Option<io::Result<Vec<u8>>>,
    waker: Option<Waker>,
}

/// Jobs that no thread has begun with, for all models of the process.
#[derive(Default)]
struct Queue {
    jobs: Mutex<VecDeque<Job>>,
    more: Condvar,
}

/// The bytes in `range` of a file. Begins when it is first polled. Whoever drops it before it is done leaves the read to its thread.
pub(super) async fn read_at(file: &Arc<File>, range: Range<u64>) -> io::Result<Vec<u8>> {
    let outcome = Arc::new(Mutex::new(Outcome::default()));
    let queue = queue();
    locked(&queue.jobs).push_back(Job { file: file.clone(), range, outcome: outcome.clone() });
    queue.more.notify_one();
    poll_fn(|context| {
        let mut outcome = locked(&outcome);
        outcome.waker = Some(context.waker().clone());
        outcome.bytes.take().map_or(Poll::Pending, Poll::Ready)
    })
    .await
}

fn queue() -> &'static Queue {
    static QUEUE: OnceLock<Arc<Queue>> = OnceLock::new();
    QUEUE.get_or_init(|| {
        let queue = Arc::new(Queue::default());
        let threads = thread::available_parallelism().map_or(1, |cores| cores.get().min(MOST_THREADS));
        for _ in 0..threads {
            let queue = queue.clone();
            thread::spawn(move || work(&queue));
        }
        queue
    })
}

fn work(queue: &Queue) {
    loop {
        let mut jobs = locked(&queue.jobs);
        let job = loop {
            match jobs.pop_front() {
                Some(job) => break job,
                None => jobs = queue.more.wait(jobs).unwrap_or_else(PoisonError::into_inner),
            }
        };
        drop(jobs);
        // Nobody else knows of the outcome: nobody waits any more.
        if Arc::strong_count(&job.outcome) == 1 {
            continue;
        }
        let bytes = read_now(&job.file, job.range);
        let mut outcome = locked(&job.outcome);
        outcome.bytes = Some(bytes);
        if let Some(waker) = outcome.waker.take() {
            waker.wake();
        }
    }
}

fn read_now(file: &File, range: Range<u64>) -> io::Result<Vec<u8>> {
    let len = usize::try_from(range.end - range.start).map_err(|_| io::ErrorKind::OutOfMemory)?;
    let mut bytes = vec![0; len];
    let mut done = 0;
    while done < len {
        match read_some(file, &mut bytes[done..], range.start + done as u64) {
            Ok(0) => {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, format!("the file ends after {done} of {len} bytes")));
            }
            Ok(read) => done += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes)
}

#[cfg(unix)]
fn read_some(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, offset)
}

#[cfg(windows)]
fn read_some(file: &File, into: &mut [u8], offset: u64) -> io::Result<usize> {
    std::os::windows::fs::FileExt::seek_read(file, into, offset)
}

/// Nothing panics while it holds the lock, so a poisoned one is as good as any.
fn locked<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
