//! The key itself, and its record.

use core::ops::Range;

use ed25519_dalek::{Signer as _, SigningKey, VerifyingKey};
use zeroize::{Zeroize, Zeroizing};

use crate::error::{Damage, Error};

/// A signature of Ed25519.
pub type Signature = [u8; 64];

/// Bytes of the record of a key.
pub const RECORD_BYTES: usize = CHECKSUM.end;

/// 256 bits of randomness that nobody else has; wiped when it is dropped.
pub struct Entropy(Zeroizing<[u8; SECRET_BYTES]>);

impl Entropy {
    /// Takes bytes from a source of cryptographic quality.
    ///
    /// # Errors
    /// [`Error::NoEntropy`] for what a source yields that does not work.
    pub fn new(bytes: [u8; SECRET_BYTES]) -> Result<Self, Error> {
        let bytes = Zeroizing::new(bytes);
        if bytes.iter().all(|byte| *byte == 0) || bytes.iter().all(|byte| *byte == 0xff) {
            return Err(Error::NoEntropy);
        }
        Ok(Self(bytes))
    }
}

/// A device key. It signs; it cannot be printed, cloned or read out, and is wiped when it is dropped.
///
/// ```compile_fail
/// fn shown(key: &keystored::DeviceKey) -> String {
///     format!("{key:?}")
/// }
/// ```
pub struct DeviceKey(SigningKey);

impl DeviceKey {
    /// Makes the key of this entropy.
    pub(crate) fn of(entropy: &Entropy) -> Self {
        Self(SigningKey::from_bytes(&entropy.0))
    }

    /// Yields the public key: what names this machine to others.
    #[must_use]
    pub fn public(&self) -> [u8; 32] {
        self.0.verifying_key().to_bytes()
    }

    /// Signs a message; the same message has the same signature (RFC 8032).
    #[must_use]
    pub fn sign(&self, message: &[u8]) -> Signature {
        self.0.sign(message).to_bytes()
    }

    /// Yields the record that is stored.
    pub(crate) fn encode(&self) -> Zeroizing<[u8; RECORD_BYTES]> {
        let mut record = Zeroizing::new([0; RECORD_BYTES]);
        let mut secret = self.0.to_bytes();
        write(&mut record, MAGIC_AT, MAGIC);
        write(&mut record, VERSION_AT, &VERSION.to_le_bytes());
        write(&mut record, SECRET, &secret);
        write(&mut record, PUBLIC, &self.public());
        secret.zeroize();
        let sum = crc32fast::hash(part(&*record, 0..CHECKSUM.start));
        write(&mut record, CHECKSUM, &sum.to_le_bytes());
        record
    }

    /// Reads a record, and checks that it is whole and that its two halves belong together.
    pub(crate) fn decode(record: &[u8]) -> Result<Self, Damage> {
        if record.len() != RECORD_BYTES {
            return Err(Damage::Length { bytes: record.len() as u64 });
        }
        if part(record, MAGIC_AT) != MAGIC {
            return Err(Damage::Magic);
        }
        let sum = crc32fast::hash(part(record, 0..CHECKSUM.start));
        if part(record, CHECKSUM) != sum.to_le_bytes() {
            return Err(Damage::Checksum);
        }
        let version = part(record, VERSION_AT);
        if version != VERSION.to_le_bytes() || part(record, RESERVED) != [0; 2] {
            let version = version.iter().rev().fold(0, |sum, byte| sum << 8 | u16::from(*byte));
            return Err(Damage::Version { version });
        }
        let mut secret = Zeroizing::new([0; SECRET_BYTES]);
        secret.copy_from_slice(part(record, SECRET));
        let key = Self(SigningKey::from_bytes(&secret));
        // Derived anew: a wrong public half would make signatures that tell of the secret.
        if part(record, PUBLIC) != key.public() {
            return Err(Damage::Mismatch);
        }
        Ok(key)
    }
}

/// Tells whether `signature` is one of `message` by the key whose public half is `public`.
#[must_use]
pub fn verify(public: &[u8; 32], message: &[u8], signature: &Signature) -> bool {
    let signature = ed25519_dalek::Signature::from_bytes(signature);
    VerifyingKey::from_bytes(public).is_ok_and(|key| key.verify_strict(message, &signature).is_ok())
}

fn part(record: &[u8], range: Range<usize>) -> &[u8] {
    record.get(range).unwrap_or_default()
}

fn write(record: &mut [u8; RECORD_BYTES], range: Range<usize>, bytes: &[u8]) {
    record.get_mut(range).expect("the parts of a record lie in it").copy_from_slice(bytes);
}

// The record: magic, version and two zeros; the secret, its public half; CRC-32 of all before.
const MAGIC: &[u8; 4] = b"SFDK";
const VERSION: u16 = 1;
const SECRET_BYTES: usize = 32;
const MAGIC_AT: Range<usize> = 0..4;
const VERSION_AT: Range<usize> = 4..6;
const RESERVED: Range<usize> = 6..8;
const SECRET: Range<usize> = 8..40;
const PUBLIC: Range<usize> = 40..72;
const CHECKSUM: Range<usize> = 72..76;

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    fn key(first: u8) -> DeviceKey {
        let mut bytes = [7; 32];
        bytes[0] = first;
        DeviceKey::of(&Entropy::new(bytes).unwrap())
    }

    #[test]
    fn a_record_is_read_back() {
        let first = key(1);
        let again =
            DeviceKey::decode(&*first.encode()).map_err(|damage| damage.to_string()).unwrap();
        assert_eq!(again.public(), first.public());
        assert_ne!(key(2).public(), first.public());
        let signature = again.sign(b"message");
        assert_eq!(signature, first.sign(b"message"));
        assert!(verify(&first.public(), b"message", &signature));
        assert!(!verify(&first.public(), b"massage", &signature));
        assert!(!verify(&key(2).public(), b"message", &signature));
        assert!(!verify(&[0xff; 32], b"message", &signature), "no public key");
    }

    /// The key and signature of RFC 8032, section 7.1, test 2.
    #[test]
    fn it_is_the_ed25519_of_the_standard() {
        let secret = [
            0x4c, 0xcd, 0x08, 0x9b, 0x28, 0xff, 0x96, 0xda, 0x9d, 0xb6, 0xc3, 0x46, 0xec, 0x11,
            0x4e, 0x0f, 0x5b, 0x8a, 0x31, 0x9f, 0x35, 0xab, 0xa6, 0x24, 0xda, 0x8c, 0xf6, 0xed,
            0x4f, 0xb8, 0xa6, 0xfb,
        ];
        let key = DeviceKey::of(&Entropy::new(secret).unwrap());
        assert_eq!(key.public()[..4], [0x3d, 0x40, 0x17, 0xc3]);
        assert_eq!(key.sign(&[0x72])[..4], [0x92, 0xa0, 0x09, 0xa9]);
    }

    #[test]
    fn every_flipped_bit_is_found() {
        let record = key(1).encode();
        for bit in 0..8 * RECORD_BYTES {
            let mut record = record.clone();
            record[bit / 8] ^= 1 << (bit % 8);
            assert!(DeviceKey::decode(&*record).is_err(), "bit {bit}");
        }
        for bytes in 0..RECORD_BYTES {
            assert_eq!(
                DeviceKey::decode(&record[..bytes]).err(),
                Some(Damage::Length { bytes: bytes as u64 })
            );
        }
    }

    #[test]
    fn what_only_the_self_check_can_find_is_found() {
        let reseal = |change: fn(&mut [u8; RECORD_BYTES])| {
            let mut record = key(1).encode();
            change(&mut record);
            let sum = crc32fast::hash(part(&*record, 0..CHECKSUM.start));
            write(&mut record, CHECKSUM, &sum.to_le_bytes());
            DeviceKey::decode(&*record).err()
        };
        assert_eq!(reseal(|_| ()), None);
        assert_eq!(reseal(|record| record[8] ^= 1), Some(Damage::Mismatch));
        assert_eq!(reseal(|record| record[40] ^= 1), Some(Damage::Mismatch));
        assert_eq!(reseal(|record| record[4] = 2), Some(Damage::Version { version: 2 }));
        assert_eq!(reseal(|record| record[7] = 1), Some(Damage::Version { version: 1 }));
        assert_eq!(reseal(|record| record[0] = b'X'), Some(Damage::Magic));
    }

    #[test]
    fn a_source_that_does_not_work_is_refused() {
        assert_eq!(Entropy::new([0; 32]).err(), Some(Error::NoEntropy));
        assert_eq!(Entropy::new([0xff; 32]).err(), Some(Error::NoEntropy));
    }
}
