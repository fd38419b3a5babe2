//! The parsers of StateFS under hostile bytes: one target each, run by libFuzzer from `tests/fuzz/libfuzzer`, and by
//! `cargo test` over the corpus and seeded mutations of it.
//!
//! A target takes any bytes. It must not panic, hang or allocate what a field claims; and what it parses must keep the
//! promises that its module names. Where bytes are sealed by tags, the target seals them again after the mutation, so
//! that mutations reach what lies behind the tags.

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod frame;
pub mod image;
pub mod import;
pub mod key;
pub mod mount;
pub mod mutate;
pub mod policy;
pub mod record;
pub mod seal;
pub mod superblock;
pub mod virtio;

/// A parser under test.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: of the libFuzzer target, and of the folder of its corpus.
    pub name: &'static str,
    /// Gives it bytes.
    pub run: fn(&[u8]),
}

/// All targets.
pub const TARGETS: &[Target] = &[
    Target { name: "checkpoint", run: checkpoint::run },
    Target { name: "frame", run: frame::run },
    Target { name: "import", run: import::run },
    Target { name: "key", run: key::run },
    Target { name: "mount", run: mount::run },
    Target { name: "policy", run: policy::run },
    Target { name: "record", run: record::run },
    Target { name: "superblock", run: superblock::run },
    Target { name: "virtio", run: virtio::run },
];
