//! Recovery a second time: what an image holds, found by simple loops over its bytes and judged by the model's table.
//!
//! It shares the format with the engine (headers, tags, superblocks) and nothing of how the engine reads or walks.

use blockdev::SimDevice;
use fastrand::Rng;
use journal::{
    BlockIndex, Header, Keys, Lost, Lsn, Report, SegmentIndex, Superblock, Tag, Use, Verifier, Zone,
};
use recovery_model::table::{Evidence, Later, Row, Seen, table};

/// What recovery must find an image to be.
#[derive(Debug)]
pub struct Judged {
    /// The groups that count, in order.
    pub accepted: Vec<Header>,
    /// What had been durable and is gone.
    pub lost: Vec<Lost>,
    /// Where the log goes on.
    pub next: Lsn,
    /// Groups that verify and do not count.
    pub torn: usize,
}

/// How the ends of acknowledged and other groups are told apart in an image in which whole groups went bad.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Misjudged {
    /// Ranges reported as lost that hold what was never acknowledged.
    pub torn_called_damaged: u64,
    /// Acknowledged groups that are gone without a report although something intact vouched for them.
    pub damaged_called_torn: u64,
    /// Acknowledged groups that are gone without a report, and nothing intact vouched for them: the window that
    /// `strict` and watermarks close.
    pub in_the_window: u64,
}

/// A group that was found at a place of a listed use.
struct Sighting {
    in_use: usize,
    header: Header,
    whole: bool,
}

/// An image and the frame of its volume.
struct Image<'a> {
    bytes: &'a [u8],
    superblock: Superblock,
    verifier: Verifier,
    /// The highest durable LSN that a superblock states.
    stated: Lsn,
}

/// Judges an image; `None` if no superblock verifies.
pub fn judge(bytes: &[u8]) -> Option<Judged> {
    let image = Image::new(bytes)?;
    let (sightings, evidence) = image.sightings();
    Some(image.walk(&sightings, evidence))
}

/// Compares a mount with what its image was judged to be.
///
/// # Errors
/// They differ.
pub fn agrees(judged: &Judged, report: &Report) -> Result<(), String> {
    let mounted = (report.groups, &report.lost, report.next, report.torn_groups as usize);
    let expected = (judged.accepted.len(), &judged.lost, judged.next, judged.torn);
    if mounted == expected {
        return Ok(());
    }
    Err(format!("the engine finds {mounted:?} in an image, the model's table {expected:?}"))
}

/// Lets whole groups near the end of the log go bad, in both copies.
pub fn harm_groups(device: &mut SimDevice, judged: &Judged, rng: &mut Rng) {
    let Some(image) = Image::new(device.visible()) else { return };
    let geometry = image.verifier.geometry;
    let mut places = Vec::new();
    for _ in 0..rng.usize(1..=2) {
        let behind = rng.usize(..judged.accepted.len().clamp(1, 5));
        let Some(header) = judged.accepted.iter().rev().nth(behind) else { continue };
        let block = header.block.0 + rng.u32(..header.blocks(&geometry));
        places.extend(
            geometry
                .zones()
                .map(|zone| geometry.block_offset(zone, header.segment, BlockIndex(block))),
        );
    }
    for place in places {
        device.corrupt(place, geometry.block_bytes(), blockdev::Damage::Random);
    }
}

/// Compares what recovery says of a harmed image with what was true before: `before` is the image then, and everything
/// up to `acknowledged` had been acknowledged.
pub fn misjudged(before: &Judged, acknowledged: Lsn, harmed: &[u8], after: &Judged) -> Misjudged {
    let mut found = Misjudged::default();
    found.torn_called_damaged +=
        after.lost.iter().filter(|lost| lost.last > acknowledged).count() as u64;
    let Some(image) = Image::new(harmed) else { return found };
    let evidence = image.evidence_anywhere();
    for header in before.accepted.iter().filter(|header| header.last <= acknowledged) {
        let kept = after.accepted.iter().any(|one| one.tag == header.tag);
        let told = after.lost.iter().any(|l| l.first <= header.first && header.last <= l.last);
        match kept || told {
            true => {}
            false if evidence >= header.first => found.damaged_called_torn += 1,
            false => found.in_the_window += 1,
        }
    }
    found
}

impl<'a> Image<'a> {
    fn new(bytes: &'a [u8]) -> Option<Self> {
        let slots = [0, SLOT_BYTES, bytes.len() - 2 * SLOT_BYTES, bytes.len() - SLOT_BYTES];
        let copies: Vec<_> = slots
            .iter()
            .filter_map(|at| Superblock::decode(bytes[*at..].first_chunk()?).ok())
            .collect();
        let stated = copies.iter().map(|copy| copy.durable).max()?;
        let superblock = copies.into_iter().max_by_key(|copy| copy.sequence)?;
        let keys = Keys::derive(&superblock.key);
        let geometry = superblock.geometry;
        let verifier = Verifier { volume: superblock.volume, keys, geometry };
        Some(Self { bytes, superblock, verifier, stated })
    }

    /// Yields the bytes from a place to the end of the device.
    fn at(&self, zone: Zone, segment: SegmentIndex, block: BlockIndex) -> &'a [u8] {
        let offset = self.verifier.geometry.block_offset(zone, segment, block);
        &self.bytes[usize::try_from(offset).expect("an image fits into memory")..]
    }

    fn header(&self, zone: Zone, segment: SegmentIndex, block: BlockIndex) -> Option<Header> {
        self.verifier.header(segment, block, self.at(zone, segment, block))
    }

    /// Yields every group of every listed use, in the order of the log, and the evidence of all places that count.
    fn sightings(&self) -> (Vec<Sighting>, Lsn) {
        let geometry = self.verifier.geometry;
        let (mut sightings, mut evidence) = (Vec::new(), self.stated);
        for segment in (0..geometry.segment_count()).map(SegmentIndex) {
            for head in
                geometry.zones().filter_map(|zone| self.header(zone, segment, BlockIndex(0)))
            {
                evidence = evidence.max(head.durable);
            }
        }
        for (in_use, use_) in self.superblock.log.iter().enumerate() {
            for block in (use_.start.0..geometry.segment_blocks()).map(BlockIndex) {
                let mut found: Option<Sighting> = None;
                for zone in geometry.zones() {
                    let header = self.header(zone, use_.segment, block);
                    let Some(header) = header.filter(|one| one.epoch == use_.epoch) else {
                        continue;
                    };
                    evidence = evidence.max(header.durable);
                    let bytes = self.at(zone, use_.segment, block);
                    let whole = self.verifier.records(&header, bytes).is_some();
                    match &mut found {
                        Some(other) if other.header.tag == header.tag => other.whole |= whole,
                        Some(_) => {}
                        None => found = Some(Sighting { in_use, header, whole }),
                    }
                }
                sightings.extend(found);
            }
        }
        (sightings, evidence)
    }

    /// Yields the highest durable LSN that anything valid on the medium states, wherever it lies.
    fn evidence_anywhere(&self) -> Lsn {
        let geometry = self.verifier.geometry;
        let mut evidence = self.stated;
        for segment in (0..geometry.segment_count()).map(SegmentIndex) {
            for block in (0..geometry.segment_blocks()).map(BlockIndex) {
                for zone in geometry.zones() {
                    let header = self.header(zone, segment, block);
                    evidence = header.map_or(evidence, |header| evidence.max(header.durable));
                }
            }
        }
        evidence
    }

    /// Walks the log, row by row.
    fn walk(&self, sightings: &[Sighting], evidence: Lsn) -> Judged {
        let uses = &self.superblock.log;
        let (mut accepted, mut lost) = (Vec::new(), Vec::new());
        let (mut in_use, mut block) = (0, uses.first().map_or(BlockIndex(0), |use_| use_.start));
        let mut want = self.superblock.base.next();
        let mut previous: Option<Tag> = Some(self.superblock.base_tag);
        loop {
            let place = Place { in_use, block, want, previous };
            let use_ = uses.get(in_use);
            let cut = use_.and_then(|use_| use_.end);
            let next_start = uses.get(in_use + 1).map(|next| next.start);
            let next = next_start.map(|block| Place { in_use: in_use + 1, block, ..place });
            let later = later(sightings, uses, place);
            let seen = Seen {
                closed: cut.is_some(),
                past_end: cut.is_some_and(|cut| want > cut),
                verifies: fits(sightings, place).is_some(),
                next_verifies: next.is_some_and(|next| fits(sightings, next).is_some()),
                later: match later {
                    None => Later::Absent,
                    Some(x)
                        if evidence.max(cut.unwrap_or(Lsn::NONE)) >= x.header.first.before() =>
                    {
                        Later::Reached
                    }
                    Some(_) => Later::Beyond,
                },
                evidence: if evidence >= want { Evidence::Covers } else { Evidence::Below },
            };
            let (last, goes_on) = match (table(seen), later) {
                (Row::Complete, _) => {
                    previous = None;
                    (None, next)
                }
                (Row::MovedOn, _) => (None, next),
                (Row::Accept, _) => {
                    let header = fits(sightings, place).expect("the row says so").header;
                    accepted.push(header);
                    want = header.last.next();
                    previous = Some(header.tag);
                    block = BlockIndex(header.block.0 + header.blocks(&self.verifier.geometry));
                    continue;
                }
                (Row::LossUpToLater, Some(x)) => {
                    let (in_use, block) = (x.in_use, x.header.block);
                    (Some(x.header.first.before()), Some(Place { in_use, block, ..place }))
                }
                (Row::LossUpToCut, _) => (cut, next),
                (Row::LossUpToEvidence, _) => (Some(evidence), None),
                (Row::End, _) | (Row::LossUpToLater, None) => (None, None),
            };
            if let Some(last) = last {
                lost.push(Lost { first: want, last });
                (want, previous) = (last.next(), None);
            }
            let ends = matches!(table(seen), Row::LossUpToEvidence | Row::End);
            (in_use, block) = match goes_on {
                Some(place) => (place.in_use, place.block),
                // Behind the list nothing is listed.
                None if !ends && in_use < uses.len() => (uses.len(), BlockIndex(0)),
                None => break,
            };
        }
        let torn = sightings.iter().filter(|sighting| sighting.header.last >= want).count();
        Judged { accepted, lost, next: want, torn }
    }
}

/// Where the walk is, and what it expects.
#[derive(Clone, Copy)]
struct Place {
    in_use: usize,
    block: BlockIndex,
    want: Lsn,
    previous: Option<Tag>,
}

/// Yields the group at a place, if it is whole and the expected one.
fn fits(sightings: &[Sighting], place: Place) -> Option<&Sighting> {
    sightings.iter().find(|Sighting { in_use, header, whole }| {
        let here = (*in_use, header.block) == (place.in_use, place.block);
        let chained = place.previous.is_none_or(|previous| previous == header.previous);
        here && *whole && header.first == place.want && chained
    })
}

/// Yields the first whole group behind a place whose first LSN is past the expected one; of a closed use only in it.
fn later<'a>(sightings: &'a [Sighting], uses: &[Use], place: Place) -> Option<&'a Sighting> {
    let closed = uses.get(place.in_use).is_some_and(|use_| use_.end.is_some());
    sightings.iter().find(|Sighting { in_use, header, whole }| {
        let behind = match in_use.cmp(&place.in_use) {
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => header.block >= place.block,
            std::cmp::Ordering::Greater => !closed,
        };
        let counts = uses[*in_use].end.is_none_or(|end| header.last <= end);
        behind && counts && *whole && header.first > place.want
    })
}

/// Bytes of a superblock's slot.
const SLOT_BYTES: usize = 4096;
