//! The one integration test binary.
#![allow(clippy::disallowed_methods, reason = "tests read files and block")]

mod common;
mod it;
