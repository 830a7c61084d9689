//! Work that would block, on a thread of its own.

use super::Listener;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

/// What the thread and the future that waits for it share.
struct Shared<E, T> {
    events: VecDeque<E>,
    outcome: Option<thread::Result<T>>,
    waker: Option<Waker>,
    /// Nobody waits any more.
    is_abandoned: bool,
}

/// Marks the work as abandoned when the future is dropped.
struct Waiting<E, T>(Arc<Mutex<Shared<E, T>>>);

impl<E, T> Drop for Waiting<E, T> {
    fn drop(&mut self) {
        change(&self.0, |shared| shared.is_abandoned = true);
    }
}

/// Runs `work` on a thread of its own and gives its result. Its events are passed to `listener`, on the thread that polls the future. Passing
/// an event returns false once the future has been dropped, and then `work` should end. A panic of `work` goes on here.
pub(super) async fn in_background<E, T, W>(work: W, listener: &mut Listener<'_, E>) -> T
where
    E: Send + 'static,
    T: Send + 'static,
    W: FnOnce(&mut dyn FnMut(E) -> bool) -> T + Send + 'static,
{
    let shared = Shared { events: VecDeque::new(), outcome: None, waker: None, is_abandoned: false };
    let waiting = Waiting(Arc::new(Mutex::new(shared)));
    let theirs = waiting.0.clone();
    #[allow(clippy::disallowed_methods, reason = "this is the wrapper that clippy.toml points to")]
    thread::spawn(move || {
        let mut tell = |event| change(&theirs, |shared| shared.tell(event));
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(&mut tell)));
        change(&theirs, |shared| {
            shared.outcome = Some(outcome);
            shared.wake();
        });
    });
    let outcome = poll_fn(|context| {
        let (events, outcome) = change(&waiting.0, |shared| {
            shared.waker = Some(context.waker().clone());
            (std::mem::take(&mut shared.events), shared.outcome.take())
        });
        events.into_iter().for_each(&mut *listener);
        outcome.map_or(Poll::Pending, Poll::Ready)
    });
    outcome.await.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

impl<E, T> Shared<E, T> {
    fn tell(&mut self, event: E) -> bool {
        self.events.push_back(event);
        self.wake();
        !self.is_abandoned
    }

    fn wake(&mut self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

/// Nothing panics while it holds the lock, so a poisoned one is as good as any.
fn change<E, T, R>(shared: &Mutex<Shared<E, T>>, with: impl FnOnce(&mut Shared<E, T>) -> R) -> R {
    with(&mut shared.lock().unwrap_or_else(PoisonError::into_inner))
}
