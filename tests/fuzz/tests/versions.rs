//! Formats that are not this one: what has an older or a newer number is told from damage, and is not changed.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test stops where it fails")]

use fuzz::image::{Base, SLOT};
use fuzz::seal;
use journal::layout::superblock;
use journal::{OpenError, Plants, Superblock, SuperblockError};
use tests::faults::bench::{Bench, on};

#[test]
fn every_other_version_is_refused_and_not_changed() {
    for base in [Base::young(), Base::old()] {
        for version in (0..=u16::MAX).filter(|n| *n < 8 || n.is_power_of_two() || *n == u16::MAX) {
            let image = of_version(&base.image, version);
            let slot = image.first_chunk().unwrap();
            let mut bench = Bench::blank(Plants::default(), image.len() as u64);
            // No mount may draw the epochs of another.
            bench.seed = 1 << 20;
            bench.device.restore(&image);
            let opened = bench.try_open(&mut on).unwrap().unwrap();
            if version == superblock::VERSION_VALUE {
                assert!(opened.is_ok() && image == base.image);
                continue;
            }
            assert_eq!(Superblock::decode(slot), Err(SuperblockError::Version(version)));
            assert_eq!(opened.err(), Some(OpenError::Version(version)));
            assert!(bench.inspect().unwrap().volume.is_none(), "{version}");
            assert!(bench.device.visible() == image, "{version}");
        }
    }
}

/// States another version in all four copies of the superblock, under tags that are right.
fn of_version(image: &[u8], version: u16) -> Vec<u8> {
    let mut image = image.to_vec();
    let end = image.len();
    for start in [0, SLOT, end - 2 * SLOT, end - SLOT] {
        let slot = &mut image[start..start + SLOT];
        slot[superblock::VERSION].copy_from_slice(&version.to_le_bytes());
        seal::superblock(slot);
    }
    image
}
