//! The one integration test binary.
#![allow(clippy::disallowed_methods, reason = "tests read files, start threads and wait")]

mod common;
mod it;
