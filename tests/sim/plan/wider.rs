//! What sets some histories apart: blocks that hold what they held earlier, while the volume runs, too; large values alone;
//! volumes that are filled to their brim.

use super::{
    Ack, Action, CHANGES_MAX, Change, Expect, HEAVY_KEYS, Harm, HarmKind, How, Making, Shape,
};
use crate::sim::Twist;
use core::ops::Range;

/// Most turns of a check, so that many end before the next harm.
const CHECK_TURNS: u16 = 300;
/// Turns in which an upload mostly ends, and cleaning has its time.
const UPLOAD_TURNS: u16 = 60;
/// KiB of the smallest device with segments that take many chunks, of one copy.
const LARGE_KIB: u16 = 1940;
/// Bytes of a value that takes more than one call.
const LARGE_BYTES: u32 = 64 << 10;
/// Turns in which the upload of one mostly ends, and cleaning has its time.
const LARGE_TURNS: u16 = 200;
/// Turns in which a checkpoint mostly ends.
const CHECKPOINT_TURNS: u16 = 60;
/// Values below this lie in groups of one block, one by one.
const SMALL_BYTES: u16 = 120;
/// Turns in which a commit mostly becomes durable.
const COMMIT_TURNS: u16 = 12;

impl Making {
    /// Changes the shape as the twist of the setup asks for it.
    pub(super) fn twist(&mut self, mut shape: Shape) -> Shape {
        match self.setup.twist {
            Twist::None => {}
            Twist::Lapses => {
                // Half have groups of one commit, many under one flush, and segments with room for what comes behind a tail.
                if self.rng.bool() {
                    shape.group_bytes_max = 100;
                    shape.flush_bytes_max = shape.flush_bytes_max.max(2048);
                    shape.device_kib = shape.device_kib.max(128);
                    self.blocks = 2 * shape.device_kib;
                }
            }
            Twist::Uploads => {
                self.keys = self.rng.u8(11..22);
                // Of these sizes it has the fewest segments, so that cleaning gives up the soonest.
                shape.device_kib = 128;
                self.blocks = 2 * shape.device_kib;
                (shape.keys, shape.value_record_bytes_max) = (self.keys, usize::MAX);
            }
            Twist::Large => {
                // So many take most of what there is room for.
                self.keys = self.rng.u8(11..13);
                shape.device_kib = LARGE_KIB;
                self.blocks = 2 * shape.device_kib;
                (shape.keys, shape.value_record_bytes_max) = (self.keys, usize::MAX);
            }
            Twist::Brim => {
                // Many fill the volume by their names alone; how many decides where a checkpoint takes a segment more.
                let many = self.rng.u8(120..=250);
                self.keys = if self.rng.u8(..4) == 0 { HEAVY_KEYS } else { many };
                shape.keys = self.keys;
            }
        }
        shape
    }

    /// Perhaps harms the volume, reads it and checks it.
    pub(super) fn lapse(&mut self) {
        if !self.setup.damage || self.rng.u8(..12) > 0 {
            return;
        }
        let harm = Harm { block: self.rng.u16(..self.blocks), kind: HarmKind::Garbage };
        let harm = self.gone_back(harm);
        self.step(Action::Harm(harm));
        for _ in 0..self.rng.u8(..4) {
            let (key, origin) = (self.key(), 0);
            self.step(Action::Get { key, origin });
        }
        if self.rng.bool() {
            let turns = self.rng.u16(..CHECK_TURNS);
            self.push(Action::Check, turns);
        }
    }

    /// Lets a block go back to what it held earlier, mostly, in place of `harm`.
    pub(super) fn gone_back(&mut self, harm: Harm) -> Harm {
        let rng = &mut self.rng;
        let kind = match rng.u8(..10) {
            0..=4 => HarmKind::Stale,
            5 | 6 => HarmKind::LostWrites(rng.u8(2..=8)),
            7 | 8 => HarmKind::Astray(rng.u16(..self.blocks)),
            _ => return harm,
        };
        // What changed last matters most.
        let most = 1 << rng.u8(..8);
        Harm { block: rng.u16(..most), kind }
    }

    /// Leaves a torn tail, writes over it, and loses some of those writes in one copy.
    pub(super) fn tail(&mut self) {
        self.push(Action::Check, CHECK_TURNS / 4);
        if self.rng.bool() {
            // A checkpoint then knows the use that is to have the tail, and the log begins in it.
            self.push(Action::Checkpoint, CHECKPOINT_TURNS);
            let commit = self.small();
            self.push(commit, 2 * COMMIT_TURNS);
        }
        // Many at once lie in groups of their own under one flush, of which the first may go and others stay.
        let at_once = self.rng.bool();
        let commit = |this: &mut Self| if at_once { this.small() } else { this.commit() };
        for _ in 0..self.rng.u8(2..7) {
            let (commit, turns) = (commit(self), if at_once { 0 } else { self.rng.u16(..3) });
            self.push(commit, turns);
        }
        if at_once {
            let (commit, turns) = (commit(self), self.rng.u16(1..8));
            self.push(commit, turns);
        }
        self.push(Action::Crash { how: How::PowerCut, recovery: 0, harm: None }, 0);
        for _ in 0..self.rng.u8(1..6) {
            let commit = commit(self);
            self.push(commit, COMMIT_TURNS);
        }
        let most = 1 << self.rng.u8(1..5);
        let block = self.rng.u16(..most);
        let lost = self.rng.u8(2..5);
        let kind = if self.rng.bool() { HarmKind::Stale } else { HarmKind::LostWrites(lost) };
        self.push(Action::Harm(Harm { block, kind }), 0);
        for _ in 0..self.rng.u8(..3) {
            let (key, origin) = (self.key(), 0);
            self.step(Action::Get { key, origin });
        }
        let turns = self.rng.u16(..CHECK_TURNS);
        self.push(Action::Check, turns);
    }

    /// A commit whose group takes one block.
    fn small(&mut self) -> Action {
        let bytes = (self.rng.u8(..5) > 0).then(|| self.rng.u16(..SMALL_BYTES).into());
        let change = Change { key: self.key(), bytes, expect: Expect::Any };
        Action::Commit { changes: [Some(change), None, None], ack: Ack::Durable, origin: 0 }
    }

    /// Large values written over and over, with few crashes, that take most of the volume: cleaning takes many segments for
    /// nobody else.
    pub(super) fn uploads(&mut self, shape: &Shape) {
        // Where more is taken, much is refused, and where less is, segments are free without cleaning.
        let most = u32::from(shape.device_kib) * 512 / u32::from(shape.copies);
        let mean = most * self.rng.u32(34..50) / 100 / u32::from(self.keys);
        let mean = u16::try_from(mean).unwrap_or(u16::MAX / 2);
        let (from, to) = (mean / 3 * 2, mean / 3 * 4);
        let upload = |this: &mut Self, key, turns| {
            let bytes = this.rng.u16(from..to);
            let change = Change { key, bytes: Some(bytes.into()), expect: Expect::Any };
            let cut = this.rng.u16(1..bytes);
            this.push(Action::Upload { change, cut, abandoned: false, origin: 0 }, turns);
        };
        for key in 0..self.keys {
            upload(self, key, 4 * UPLOAD_TURNS);
        }
        for _ in 0..self.rng.u16(500..2000) {
            let key = self.key();
            upload(self, key, UPLOAD_TURNS);
        }
        self.crash();
    }

    /// Values that take more than one call, and nothing else, until cleaning has taken each segment many times: more often than
    /// it would go on in vain.
    pub(super) fn large(&mut self) {
        let (first, more) = (0..self.keys, self.rng.u16(400..550));
        let again: Vec<u8> = (0..more).map(|_| self.key()).collect();
        for key in first.chain(again) {
            let bytes = Some(LARGE_BYTES + self.rng.u32(..LARGE_BYTES / 3));
            let change = Change { key, bytes, expect: Expect::Any };
            let cut = self.rng.u16(1..);
            let upload = Action::Upload { change, cut, abandoned: false, origin: 0 };
            self.push(upload, LARGE_TURNS);
        }
        self.crash();
    }

    /// Fills the volume with ever smaller values until nothing is taken, lets it be opened again, deletes, fills it again, and
    /// again.
    pub(super) fn brim(&mut self) {
        // New keys first or last: what they take in a checkpoint grows at once or one by one.
        let names_first = self.rng.bool();
        for most in [0, 400, 100, 30, 0].into_iter().skip(usize::from(!names_first)) {
            self.put_some(0..self.keys, most);
        }
        for _ in 0..self.rng.u8(4..16) {
            self.crash();
            for _ in 0..self.rng.u8(..6) {
                let key = self.key();
                self.push(Action::Delete { key }, 0);
            }
            let first = self.key();
            let last = self.rng.u8(first..self.keys);
            let most = [0, 0, 30, 200][self.rng.usize(..4)];
            self.put_some(first..last, most);
        }
    }

    /// Puts values of about this length under some keys.
    fn put_some(&mut self, keys: Range<u8>, most: u16) {
        let waits = self.rng.bool();
        for first in keys.clone().step_by(CHANGES_MAX) {
            let mut changes = [None; CHANGES_MAX];
            for (change, key) in changes.iter_mut().zip(first..keys.end) {
                let bytes = Some(self.rng.u16(..=most).into());
                *change = Some(Change { key, bytes, expect: Expect::Any });
            }
            let commit = Action::Commit { changes, ack: Ack::Durable, origin: 0 };
            self.push(commit, if waits { COMMIT_TURNS } else { 1 });
        }
        self.push(Action::Sync, 200);
        if self.rng.u8(..4) == 0 {
            self.push(Action::Crash { how: How::ProcessDeath, recovery: 0, harm: None }, 0);
        }
    }
}
