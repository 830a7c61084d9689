//! Several futures at a time, without a runtime.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// Requests that are under way at the same time, at most: browsers take no more of one server.
const MOST: usize = 6;

/// What these futures give, in their order.
pub async fn together<T, F: Future<Output = T>>(futures: Vec<F>) -> Vec<T> {
    let mut waiting = futures.into_iter();
    let mut running: Vec<(usize, Pin<Box<F>>)> = waiting.by_ref().take(MOST).map(Box::pin).enumerate().collect();
    let mut done: Vec<Option<T>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut at = 0;
        while at < running.len() {
            let (index, future) = &mut running[at];
            let Poll::Ready(outcome) = future.as_mut().poll(context) else {
                at += 1;
                continue;
            };
            done[*index] = Some(outcome);
            running.remove(at);
            if let Some(next) = waiting.next() {
                running.push((done.len(), Box::pin(next)));
                done.push(None);
            }
        }
        if running.is_empty() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
    done.into_iter().flatten().collect()
}

/// What comes of a future that has nothing to wait for; `None` where it would have to wait.
pub fn at_once<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(outcome) => Some(outcome),
        Poll::Pending => None,
    }
}
