//! Random bytes from a virtio entropy device (virtio 1.2, 5.4).

use core::fmt;

use blockdev::virtio::{Leash, TIMEOUT_MS};
use virtio_drivers::transport::Transport;
use virtio_drivers::{Hal, Result};

use crate::features::Features;
use crate::queue::Incoming;

/// An entropy device.
pub struct Entropy<H: Hal, T: Transport> {
    /// The first to be dropped: the device stops before its buffer is given back.
    transport: Leash<T>,
    requests: Incoming<H, SLOTS>,
}

impl<H: Hal, T: Transport> Entropy<H, T> {
    /// Makes an entropy device ready and asks it for bytes.
    ///
    /// # Errors
    /// The device does not keep the specification.
    pub fn new(transport: impl Into<Leash<T>>) -> Result<Self> {
        let mut transport = transport.into();
        let features = Features::negotiate(&mut transport, 0)?;
        let mut requests = Incoming::new(&mut *transport, 0, features)?;
        transport.finish_init();
        requests.fill(&mut *transport, 1, SEED_BYTES)?;
        Ok(Self { transport, requests })
    }

    /// Waits for 256 random bits that nobody had before, until `now_ms` tells that it took too long.
    ///
    /// A device that says that it filled a buffer and wrote nothing, or only the first part of it, leaves the zeros there; as a
    /// seed they would be the same at each start. Such bytes are thrown away and others asked for, a few times.
    ///
    /// # Errors
    /// There are none to be had; nothing was told to be random that is not.
    pub fn seed(
        &mut self,
        mut now_ms: impl FnMut() -> u64,
    ) -> core::result::Result<[u8; SEED_BYTES], NoSeed> {
        let until = now_ms().saturating_add(SEED_MS_MAX);
        let (mut seed, mut have, mut failure) = ([0; SEED_BYTES], 0, NoSeed::Silent);
        for _ in 0..TRIES_MAX {
            loop {
                let rest = seed.get_mut(have..).unwrap_or_default();
                match self.take(rest).map_err(NoSeed::Device)? {
                    Some(0) => {
                        failure = NoSeed::Empty;
                        break;
                    }
                    Some(count) => have += count,
                    None if now_ms() >= until => return Err(failure),
                    None => {}
                }
                if have < SEED_BYTES {
                    continue;
                }
                if !has_run(&seed) {
                    return Ok(seed);
                }
                (seed, have, failure) = ([0; SEED_BYTES], 0, NoSeed::Unwritten);
                break;
            }
        }
        Err(failure)
    }

    /// Fills as much of `seed` as the device has bytes ready, and yields how much that was; nothing if it has not answered.
    fn take(&mut self, seed: &mut [u8]) -> Result<Option<usize>> {
        let Some((mut buffer, filled)) = self.requests.take()? else {
            return Ok(None);
        };
        let fresh = buffer.get(..filled).unwrap_or_default();
        let mut count = 0;
        for (place, byte) in seed.iter_mut().zip(fresh) {
            *place = *byte;
            count += 1;
        }
        // No byte is used twice, and none stays behind.
        buffer.fill(0);
        self.requests.give(&mut *self.transport, buffer)?;
        Ok(Some(count))
    }
}

/// Why a device yields no seed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoSeed {
    /// It does not keep the specification.
    Device(virtio_drivers::Error),
    /// It does not answer.
    Silent,
    /// It gives buffers back without a byte in them.
    Empty,
    /// It claims bytes that it has not written, or that nobody would call random.
    Unwritten,
}

impl fmt::Display for NoSeed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(error) => write!(f, "the entropy device breaks the rules of virtio: {error}"),
            Self::Silent => f.write_str("the entropy device does not answer"),
            Self::Empty => f.write_str("the entropy device gives buffers back empty"),
            Self::Unwritten => {
                f.write_str("what the entropy device calls random is not: equal bytes in a row, as in a buffer it left as it was")
            }
        }
    }
}

/// Whether a seed holds so many equal bytes in a row that no random one does: one in 2^51.
fn has_run(seed: &[u8]) -> bool {
    seed.windows(RUN_BYTES).any(|run| run.iter().all(|byte| Some(byte) == run.first()))
}

/// One request is enough; QEMU's queue has 8 places.
const SLOTS: usize = 8;

/// Bytes that are asked for at a time: one seed of a server.
pub const SEED_BYTES: usize = 32;

/// Seeds, or buffers that came back empty, after which a device is given up.
const TRIES_MAX: usize = 8;

/// Equal bytes in a row that a seed must not have.
const RUN_BYTES: usize = 8;

/// Milliseconds that a device may take for a seed, as a disk for a request.
pub const SEED_MS_MAX: u64 = TIMEOUT_MS;

#[cfg(test)]
mod tests {
    use std::string::ToString as _;
    use std::vec::Vec;

    use blockdev::virtio::fake::{Fake, Flat};
    use virtio_drivers::transport::DeviceType;

    use super::*;

    /// Asks a device for a seed that answers each request with these bytes and this length; yields how often it did.
    fn seed_of(
        mut answer: impl FnMut(usize) -> (Vec<u8>, u32),
    ) -> (core::result::Result<[u8; SEED_BYTES], NoSeed>, usize) {
        let fake = Fake::of(DeviceType::EntropySource, Vec::new(), Vec::new());
        let mut entropy = Entropy::<Flat, Fake>::new(fake.clone()).unwrap();
        let (mut now, mut answers) = (0, 0);
        let seed = entropy.seed(|| {
            let mut device = fake.0.borrow_mut();
            if let Some(chain) = device.next(0) {
                let (bytes, length) = answer(answers);
                chain.fill(&bytes);
                device.push(0, chain.head.into(), length);
                answers += 1;
            }
            now += 1;
            now
        });
        (seed, answers)
    }

    fn random(count: usize) -> Vec<u8> {
        let mut bytes = std::vec![0; count];
        fastrand::Rng::with_seed(count as u64).fill(&mut bytes);
        bytes
    }

    #[test]
    fn a_seed_is_what_the_device_wrote_in_as_many_parts_as_it_likes() {
        for part in [1, 5, 31, 32] {
            let wanted = random(SEED_BYTES);
            let (seed, _) = seed_of(|index| {
                let bytes = wanted.iter().skip(index * part).take(part).copied().collect();
                (bytes, u32::try_from(part).unwrap())
            });
            assert_eq!(seed.unwrap().to_vec(), wanted, "in parts of {part}");
        }
    }

    #[test]
    fn what_was_not_written_is_no_seed() {
        // Nothing, half of it, a byte at a time, and what is no more random for being written.
        for (written, length) in [
            (Vec::new(), 32),
            (random(16), 32),
            (random(24), 32),
            (Vec::new(), 1),
            (std::vec![255; 32], 32),
        ] {
            let (seed, answers) = seed_of(|_| (written.clone(), length));
            assert_eq!(seed, Err(NoSeed::Unwritten), "{written:?} of {length}");
            assert!(answers <= TRIES_MAX * SEED_BYTES, "{answers}");
        }
        assert!(NoSeed::Unwritten.to_string().contains("is not"));
    }

    #[test]
    fn a_device_that_gives_nothing_is_given_up() {
        let (seed, answers) = seed_of(|_| (Vec::new(), 0));
        assert_eq!((seed, answers), (Err(NoSeed::Empty), TRIES_MAX));
        let fake = Fake::of(DeviceType::EntropySource, Vec::new(), Vec::new());
        let mut entropy = Entropy::<Flat, Fake>::new(fake).unwrap();
        let mut now = 0;
        let seed = entropy.seed(|| {
            now += 1;
            now
        });
        assert_eq!((seed, now), (Err(NoSeed::Silent), SEED_MS_MAX + 1));
    }

    #[test]
    fn a_device_that_does_not_stop_is_not_waited_for() {
        let fake = Fake::of(DeviceType::EntropySource, Vec::new(), Vec::new());
        let entropy = Entropy::<Flat, Fake>::new(fake.clone()).unwrap();
        fake.0.borrow_mut().resets = false;
        drop(entropy);
        assert!(Entropy::<Flat, Fake>::new(fake.clone()).is_err());
    }

    #[test]
    fn what_is_right_after_all_is_taken() {
        let wanted = random(SEED_BYTES);
        let (seed, answers) = seed_of(|index| match index {
            0 => (Vec::new(), 32),
            1 => (Vec::new(), 0),
            _ => (wanted.clone(), 32),
        });
        assert_eq!((seed.unwrap().to_vec(), answers), (wanted, 3));
    }
}
