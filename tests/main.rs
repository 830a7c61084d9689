//! The one integration test binary.

#![allow(clippy::disallowed_methods, reason = "tests read files, start programs and block where they like")]

mod it;
