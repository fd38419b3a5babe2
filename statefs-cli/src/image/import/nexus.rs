//! Reading the images of Open Nexus OS statefs: journals v1 and v2, compacted or not.
//!
//! Its own reader stops at the first record that does not verify and says nothing. This one says what
//! is wrong and where, goes on behind it, and leaves to the caller whether that may be used.

use std::collections::BTreeMap;

use crc::{CRC_32_ISCSI, Crc};

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);
const BLOCK_BYTES: usize = 512;
const MAGIC: [u8; 4] = [0x46, 0x53, 0x58, 0x4e];
const SUPERBLOCK_MAGIC: [u8; 4] = *b"NXS2";
const HEADER_BYTES: usize = 11;
/// A header and a sum, with no key and no value.
const RECORD_BYTES_MIN: usize = HEADER_BYTES + 4;
const KEY_BYTES_MAX: usize = 255;
const VALUE_BYTES_MAX: usize = 65_536;
/// Longest part of a value in a transaction; its number comes before it.
const CHUNK_BYTES_MAX: usize = 8_192;
/// Bytes that the search behind damage may sum for each byte of the image: forged lengths cost no more.
const WORK_MAX: usize = 64;

const UNVERIFIED: &str = "a record does not verify: damaged, or torn if it is the last";
const SPENT: &str = "what lies behind was not searched to its end: too much looks like records";

/// Something that is wrong with an image.
#[derive(PartialEq, Eq, Debug)]
pub(crate) struct Damage {
    /// Bytes from the start of the image.
    pub(crate) offset: usize,
    pub(crate) what: &'static str,
    /// Records behind it that verify.
    pub(crate) intact_behind: u64,
}

/// A key and a chunk of its value.
type Part = (Vec<u8>, Vec<u8>);

/// What an image holds.
#[derive(Default)]
pub(crate) struct Parsed {
    pub(crate) values: BTreeMap<Vec<u8>, Vec<u8>>,
    pub(crate) damage: Vec<Damage>,
    pub(crate) records: u64,
    pub(crate) generation: u32,
    /// Records that verify behind the end of a compacted region: stale ones, or cut off by a blank. It cannot be told which.
    pub(crate) records_behind_end: usize,
    /// Transactions that were open at the end: never committed, so nothing of them counts.
    pub(crate) open_transactions: usize,
    transactions: BTreeMap<u64, Transaction>,
    /// Records that did not verify: of what was open before one, a part may be missing.
    gaps: u64,
    /// Records that the gaps can have held, at most.
    lost: u64,
    /// Records that are known to have been there: what a compaction wrote.
    owed: u64,
    /// What the records say of each key: nothing where they deleted it.
    state: State,
    /// What they said before a gap that the end may lie in. What follows may be older, so it only adds to this.
    settled: State,
}

type State = BTreeMap<Vec<u8>, Option<Vec<u8>>>;

/// An open transaction.
struct Transaction {
    /// The gaps before it. It is whole as long as there are no more.
    gaps_before: u64,
    parts: Vec<Part>,
}

/// A stretch of the image that holds a log.
struct Region<'a> {
    /// Bytes from the start of the image.
    start: usize,
    bytes: &'a [u8],
    /// Generation and entries, where it begins with a checkpoint.
    checkpoint: Option<(u32, u32)>,
    /// Whether what has to follow is there, so that it can be full without having been cut short.
    followed: bool,
    /// Where a snapshot begins that was never put in use: behind the end.
    snapshot: Option<usize>,
}

impl<'a> Region<'a> {
    fn new(image: &'a [u8], start: usize, bytes: usize) -> Self {
        let bytes = image.get(start..start + bytes).unwrap_or_default();
        let checkpoint = record(bytes).and_then(|record| checkpoint(&record));
        // The region that a superblock names may lie behind the end.
        Self { start: start.min(image.len()), bytes, checkpoint, followed: true, snapshot: None }
    }
}

/// Reads a whole image.
pub(crate) fn parse(image: &[u8]) -> Parsed {
    let blocks = image.len() / BLOCK_BYTES;
    let region = blocks.saturating_sub(1) / 2 * BLOCK_BYTES;
    let mut journal = Region::new(image, 0, image.len());
    let mut a = Region::new(image, BLOCK_BYTES, region);
    let b = Region::new(image, BLOCK_BYTES + region, region);
    // The first compaction goes to B, so where A is in use B begins with a checkpoint.
    a.followed = b.checkpoint.is_some();
    // It is whole before the superblock takes the place of the journal's first block. Where the power
    // failed before that, the journal is in use as ever.
    journal.snapshot = b.checkpoint.filter(|(generation, _)| *generation == 1).map(|_| b.start);
    // Behind a superblock its block is blank, so that what has a record there is a journal.
    let begun = (0..BLOCK_BYTES).any(|at| image.get(at..).and_then(record).is_some());
    let lost_superblock = Some((0, "the superblock does not verify"));
    let compacted = match superblock(image) {
        Some((in_b, generation, entries)) => {
            let (region, named) = (if in_b { &b } else { &a }, Some((generation, entries)));
            let fault = (region.start, "the checkpoint is not the one that the superblock names");
            let fault = (region.checkpoint != named).then_some(fault);
            Some(Parsed::of(region, named, fault))
        }
        None if begun => None,
        None => in_use([&a, &b].map(|region| {
            region.checkpoint.map(|found| Parsed::of(region, Some(found), lost_superblock))
        })),
    };
    let mut parsed = compacted.unwrap_or_else(|| {
        let fault = lost_superblock.filter(|_| image.starts_with(&SUPERBLOCK_MAGIC));
        Parsed::of(&journal, None, fault)
    });
    if !image.len().is_multiple_of(BLOCK_BYTES) || image.is_empty() {
        parsed.damage(image.len(), "the image is no whole number of blocks");
    }
    parsed
}

/// Tells which of two regions was in use, where no superblock does: the newer one, but for a snapshot
/// that the power failed behind.
///
/// Such a snapshot has no changes behind it, and the older region may have some. If it was in use after
/// all, the older region holds the same, as long as it is whole.
fn in_use(regions: [Option<Parsed>; 2]) -> Option<Parsed> {
    let (older, newer) = match regions {
        [Some(a), Some(b)] if a.generation > b.generation => (b, a),
        [Some(a), Some(b)] => (a, b),
        [a, b] => return a.or(b),
    };
    let follows = older.generation.checked_add(1) == Some(newer.generation);
    // Each has one fault, which is that of the superblock.
    let whole = older.damage.len() == 1;
    let unchanged = newer.records + newer.lost <= newer.owed;
    Some(if follows && whole && unchanged { older } else { newer })
}

impl Parsed {
    /// Reads a region, of which is known what a compaction wrote there, and what is wrong with it at first.
    fn of(
        region: &Region<'_>,
        compacted: Option<(u32, u32)>,
        fault: Option<(usize, &'static str)>,
    ) -> Self {
        let generation = compacted.map_or(0, |(generation, _)| generation);
        // Blanks inside of what a compaction writes are no end, and this is how much that is.
        let counted = region.checkpoint.or(compacted);
        let owed = counted.map_or(0, |(_, entries)| u64::from(entries) + 1);
        let mut parsed = Self { generation, owed, ..Self::default() };
        if let Some((offset, what)) = fault {
            parsed.damage(offset, what);
        }
        parsed.replay(region);
        parsed.open_transactions = parsed.transactions.len();
        parsed.settle();
        let settled = std::mem::take(&mut parsed.settled).into_iter();
        parsed.values = settled.filter_map(|(key, value)| Some((key, value?))).collect();
        parsed
    }

    fn damage(&mut self, offset: usize, what: &'static str) {
        self.damage.push(Damage { offset, what, intact_behind: 0 });
    }

    /// Applies the records of a region.
    fn replay(&mut self, region: &Region<'_>) {
        let &Region { start, bytes, .. } = region;
        let mut at = 0;
        let mut work = bytes.len().saturating_mul(WORK_MAX);
        while at < bytes.len() {
            let rest = bytes.get(at..).unwrap_or_default();
            if let Some(record) = record(rest) {
                self.apply(start + at, &record);
                at += record.bytes;
                continue;
            }
            let next = match search(bytes, at + 1, &mut work) {
                Found::At(next) => Some(next),
                Found::Nothing => None,
                Found::Spent => return self.damage(start + at, SPENT),
            };
            if let Some(end) = damaged(bytes, at, next) {
                self.lose(start + at, 1);
                at = end;
                continue;
            }
            let gap = Gap::new(bytes, at, next);
            // A compacted region was used before, so a torn record at its end has stale ones behind it.
            let used = self.generation > 0;
            let may_end = gap.blank || (used && gap.torn);
            let intact_or_lost = self.records + self.lost;
            let unused = self.gaps == 0 && next == region.snapshot;
            if may_end && intact_or_lost >= self.owed && (used || next.is_none() || unused) {
                if !gap.blank {
                    self.damage(start + at, UNVERIFIED);
                }
                if next.is_some_and(|next| !self.count_behind_end(bytes, next, &mut work)) {
                    self.damage(start + at, SPENT);
                }
                return;
            }
            if may_end && intact_or_lost + gap.lost_before_end >= self.owed {
                self.settle();
            }
            self.lose(start + at, gap.lost);
            let Some(next) = next else { return };
            at = next;
        }
        // Of an image that was cut short the regions are shorter too, and may end between two records.
        if self.records + self.lost < self.owed {
            self.damage(start + at, "the region ends before all that its checkpoint counts");
        } else if !region.followed {
            self.damage(start + at, "the region is full, and no other follows: it may go on");
        }
    }

    /// Tells a gap, which can have held so many records.
    fn lose(&mut self, offset: usize, records_max: u64) {
        self.damage(offset, UNVERIFIED);
        // What an open transaction is missing nobody knows.
        self.gaps += 1;
        self.lost += records_max;
    }

    /// Lets nothing that follows replace what the records said so far.
    fn settle(&mut self) {
        for (key, value) in std::mem::take(&mut self.state) {
            self.settled.entry(key).or_insert(value);
        }
    }

    /// Counts the records that verify behind the end, the first of them at `at`; false where it had to give up.
    fn count_behind_end(&mut self, bytes: &[u8], mut at: usize, work: &mut usize) -> bool {
        loop {
            if let Some(record) = bytes.get(at..).and_then(record) {
                self.records_behind_end += 1;
                at += record.bytes;
                continue;
            }
            match search(bytes, at, work) {
                Found::At(next) => at = next,
                Found::Nothing => return true,
                Found::Spent => return false,
            }
        }
    }

    fn apply(&mut self, offset: usize, record: &Record<'_>) {
        self.records += 1;
        if let Some(damage) = self.damage.last_mut() {
            damage.intact_behind += 1;
        }
        if !record.is_shaped() {
            self.damage(offset, "a record whose lengths are none of its kind");
            self.gaps += 1;
            return;
        }
        let id = record.value.first_chunk().map_or(0, |id| u64::from_le_bytes(*id));
        match record.op {
            0x01 => drop(self.state.insert(record.key.into(), Some(record.value.into()))),
            0x02 => drop(self.state.insert(record.key.into(), None)),
            // Where the log was left, a checkpoint is of another one, and that may be older.
            0x03 if self.gaps > 0 => self.settle(),
            0x03 => {
                self.state.clear();
                self.transactions.clear();
            }
            0x10 => {
                let begun = Transaction { gaps_before: self.gaps, parts: Vec::new() };
                self.transactions.insert(id, begun);
            }
            0x11 => {
                if let Some(open) = self.transactions.get_mut(&id) {
                    let chunk = record.value.get(8..).unwrap_or_default();
                    open.parts.push((record.key.into(), chunk.into()));
                }
            }
            0x12 => match self.transactions.remove(&id) {
                Some(whole) if whole.gaps_before == self.gaps => self.commit(whole.parts),
                Some(_) => self.damage(offset, "a committed transaction is not whole"),
                // Begun in what was lost; without a loss the writer never began it.
                None if !self.damage.is_empty() => {
                    self.damage(offset, "a committed transaction is not whole");
                }
                None => {}
            },
            0x13 => drop(self.transactions.remove(&id)),
            0x14 => {}
            _ => self.damage(offset, "a record of a kind that is not known"),
        }
    }

    fn commit(&mut self, parts: Vec<Part>) {
        let mut whole: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
        for (key, chunk) in parts {
            whole.entry(key).or_default().extend_from_slice(&chunk);
        }
        self.state.extend(whole.into_iter().map(|(key, value)| (key, Some(value))));
    }
}

/// What is in place of a record, up to the next one that verifies.
struct Gap {
    blank: bool,
    /// The writer writes block by block, so what a cut leaves of the last record and the zeros behind it
    /// gives way to what was there before at the end of a block, and not in the middle of one.
    torn: bool,
    /// Records that it can have held, at most.
    lost: u64,
    /// The same if the end is in it, with the zeros that follow an end.
    lost_before_end: u64,
}

impl Gap {
    /// Looks at what is at `at`, before the next record that verifies.
    fn new(bytes: &[u8], at: usize, next: Option<usize>) -> Self {
        let end = next.unwrap_or(bytes.len());
        let records = |bytes: usize| (bytes / RECORD_BYTES_MIN) as u64;
        Self {
            blank: blank(bytes, at),
            torn: end >= at.next_multiple_of(BLOCK_BYTES),
            lost: records(end - at),
            lost_before_end: records((end - at).saturating_sub(BLOCK_BYTES)),
        }
    }
}

/// Whether zeros are at `at`, as the writer leaves them behind its last record: up to the end of the next block.
fn blank(bytes: &[u8], at: usize) -> bool {
    let end = (at / BLOCK_BYTES + 2) * BLOCK_BYTES;
    bytes.iter().take(end).skip(at).all(|&byte| byte == 0)
}

/// Yields where a record ends that is damaged where it lies: by its own length the log goes on there, or ends.
fn damaged(bytes: &[u8], at: usize, next: Option<usize>) -> Option<usize> {
    let rest = bytes.get(at..)?;
    let end = at + lengths(rest)?.record;
    let begun = rest.iter().take(HEADER_BYTES).any(|&byte| byte != 0);
    let ends = end <= next.unwrap_or(bytes.len()) && blank(bytes, end);
    (begun && (next == Some(end) || ends)).then_some(end)
}

/// What a search for the next record came to.
enum Found {
    At(usize),
    Nothing,
    /// It may sum no more: what lies behind is not known.
    Spent,
}

/// Finds the next record that verifies.
fn search(bytes: &[u8], from: usize, work: &mut usize) -> Found {
    let rest = bytes.get(from..).unwrap_or_default();
    for (at, window) in rest.windows(MAGIC.len()).enumerate() {
        if window != MAGIC {
            continue;
        }
        let candidate = rest.get(at..).unwrap_or_default();
        // A header that no record can have costs no sum, so it is not charged either.
        let sum_bytes = lengths(candidate).map_or(usize::MAX, |lengths| lengths.record);
        if sum_bytes > candidate.len() {
            continue;
        }
        let Some(left) = work.checked_sub(sum_bytes) else { return Found::Spent };
        *work = left;
        if record(candidate).is_some() {
            return Found::At(from + at);
        }
    }
    Found::Nothing
}

struct Record<'a> {
    op: u8,
    key: &'a [u8],
    value: &'a [u8],
    bytes: usize,
}

impl Record<'_> {
    /// Whether its kind comes with such lengths. A kind that is not known may have any.
    fn is_shaped(&self) -> bool {
        let (key_bytes, value_bytes) = (self.key.len(), self.value.len());
        match self.op {
            0x03 | 0x10 | 0x12 | 0x13 => key_bytes == 0 && value_bytes == 8,
            0x11 => key_bytes > 0 && (8..=8 + CHUNK_BYTES_MAX).contains(&value_bytes),
            0x14 => key_bytes == 0 && value_bytes == 0,
            _ => true,
        }
    }
}

/// What the header of a record says of its length, in bytes.
struct Lengths {
    key: usize,
    record: usize,
}

/// Reads the lengths at the start of `bytes`, if a record can have them, whatever else there is.
fn lengths(bytes: &[u8]) -> Option<Lengths> {
    let header: &[u8; HEADER_BYTES] = bytes.first_chunk()?;
    let [_, _, _, _, _, k0, k1, v0, v1, v2, v3] = *header;
    let key = usize::from(u16::from_le_bytes([k0, k1]));
    let value = usize::try_from(u32::from_le_bytes([v0, v1, v2, v3])).ok()?;
    let possible = key <= KEY_BYTES_MAX && value <= VALUE_BYTES_MAX;
    possible.then_some(Lengths { key, record: RECORD_BYTES_MIN + key + value })
}

/// Reads the record at the start of `bytes`, if one verifies; no length is trusted before it is checked.
fn record(bytes: &[u8]) -> Option<Record<'_>> {
    let Lengths { key: key_bytes, record: length } = lengths(bytes)?;
    if !bytes.starts_with(&MAGIC) {
        return None;
    }
    let (covered, sum) = bytes.get(..length)?.split_last_chunk()?;
    if CRC.checksum(covered) != u32::from_le_bytes(*sum) {
        return None;
    }
    let (header, body) = covered.split_at_checked(HEADER_BYTES)?;
    let (key, value) = body.split_at_checked(key_bytes)?;
    Some(Record { op: *header.get(4)?, key, value, bytes: length })
}

/// Reads a CHECKPOINT: generation and entries.
fn checkpoint(record: &Record<'_>) -> Option<(u32, u32)> {
    let [a, b, c, d, e, f, g, h] = *record.value.first_chunk()?;
    (record.op == 0x03 && record.is_shaped())
        .then_some((u32::from_le_bytes([a, b, c, d]), u32::from_le_bytes([e, f, g, h])))
}

/// Reads the superblock: whether region B is active, generation, entries.
fn superblock(image: &[u8]) -> Option<(bool, u32, u32)> {
    let bytes: &[u8; 20] = image.first_chunk()?;
    let [m0, m1, m2, m3, version, active, z0, z1, g0, g1, g2, g3, e0, e1, e2, e3, s0, s1, s2, s3] =
        *bytes;
    let sound = [m0, m1, m2, m3] == SUPERBLOCK_MAGIC
        && version == 1
        && active <= 1
        && [z0, z1] == [0; 2]
        && CRC.checksum(bytes.get(..16)?) == u32::from_le_bytes([s0, s1, s2, s3]);
    let numbers = (u32::from_le_bytes([g0, g1, g2, g3]), u32::from_le_bytes([e0, e1, e2, e3]));
    // The first compaction makes generation 1.
    (sound && numbers.0 >= 1).then_some((active == 1, numbers.0, numbers.1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes_of(op: u8, value: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([op, 0, 0]);
        bytes.extend(u32::try_from(value.len()).expect("short").to_le_bytes());
        bytes.extend(value);
        bytes.extend(CRC.checksum(&bytes).to_le_bytes());
        bytes
    }

    /// Where each fault goes through all that is open, this takes minutes, and four times as long for twice the bytes.
    #[test]
    fn many_faults_behind_many_open_transactions_are_read_in_one_go() {
        let open = (0..200_000_u64).flat_map(|id| bytes_of(0x10, &id.to_le_bytes()));
        let mut image: Vec<u8> = open.collect();
        let damaged = [vec![1], bytes_of(0x14, &[])].concat();
        image.extend(damaged.repeat(200_000));
        image.resize(image.len().next_multiple_of(BLOCK_BYTES), 0);
        let parsed = parse(&image);
        assert_eq!(parsed.open_transactions, 200_000);
        assert!(parsed.damage.len() > 5_000, "{}", parsed.damage.len());
    }

    /// What was begun before a fault is not whole, and what is begun behind it is.
    #[test]
    fn a_fault_voids_what_is_open_and_nothing_that_begins_behind_it() {
        let begin = |id: u64| bytes_of(0x10, &id.to_le_bytes());
        let commit = |id: u64| bytes_of(0x12, &id.to_le_bytes());
        let lines =
            [begin(1), begin(2), vec![1], begin(2), begin(3), commit(3), commit(2), commit(1)];
        let mut image = lines.concat();
        image.resize(image.len().next_multiple_of(BLOCK_BYTES), 0);
        let told: Vec<_> = parse(&image).damage.iter().map(|damage| damage.what).collect();
        assert_eq!(
            told,
            [
                "a record does not verify: damaged, or torn if it is the last",
                "a committed transaction is not whole"
            ]
        );
    }

    /// A superblock that verifies, alone in an image of one block: the region that it names is not there.
    #[test]
    fn damage_is_told_within_the_image() {
        let mut image = vec![0; BLOCK_BYTES];
        image[..12].copy_from_slice(b"NXS2\x01\x00\x00\x00\x02\x00\x00\x00");
        image[12] = 1;
        let sum = CRC.checksum(&image[..16]);
        image[16..20].copy_from_slice(&sum.to_le_bytes());
        for bytes in [20, 100, BLOCK_BYTES] {
            let parsed = parse(&image[..bytes]);
            assert!(!parsed.damage.is_empty());
            assert!(parsed.damage.iter().all(|damage| damage.offset <= bytes), "{bytes}");
        }
    }
}
