//! Placeholder, filled by the first commit of this crate.
#![forbid(unsafe_code)]
