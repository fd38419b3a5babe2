//! What sets some histories apart: blocks that hold what they held earlier, while the volume runs, too; large values alone;
//! volumes that are filled to their brim.

use super::{
    Ack, Action, CHANGES_MAX, Change, Expect, HEAVY_KEYS, Harm, HarmKind, How, Making, Shape,
};
use crate::sim::Twist;

/// Most turns of a check, so that many end before the next harm.
const CHECK_TURNS: u16 = 300;
/// Turns in which an upload mostly ends, and cleaning has its time.
const UPLOAD_TURNS: u16 = 60;
/// Keys that fill a volume by their names alone.
const MANY_KEYS: u8 = 250;

impl Making {
    /// Changes the shape as the twist of the setup asks for it.
    pub(super) fn twist(&mut self, mut shape: Shape) -> Shape {
        match self.setup.twist {
            Twist::None | Twist::Lapses => {}
            Twist::Uploads => {
                self.keys = self.rng.u8(2..8);
                shape.device_kib = [96, 128, 192][self.rng.usize(..3)];
                self.blocks = 2 * shape.device_kib;
                (shape.keys, shape.value_record_bytes_max) = (self.keys, usize::MAX);
            }
            Twist::Brim => {
                self.keys = [HEAVY_KEYS, MANY_KEYS][self.rng.usize(..2)];
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

    /// Large values written over and over, with few crashes: cleaning takes many segments for nobody else.
    pub(super) fn uploads(&mut self) {
        let (from, to) = (900, self.rng.u16(1000..2600));
        let upload = |this: &mut Self, key, turns| {
            let bytes = this.rng.u16(from..to);
            let change = Change { key, bytes: Some(bytes), expect: Expect::Any };
            let cut = this.rng.u16(1..bytes);
            this.push(Action::Upload { change, cut, abandoned: false, origin: 0 }, turns);
        };
        for key in 0..self.keys {
            upload(self, key, 4 * UPLOAD_TURNS);
        }
        for _ in 0..self.rng.u8(1..4) {
            for _ in 0..self.rng.u16(100..900) {
                let key = self.key();
                upload(self, key, UPLOAD_TURNS);
            }
            self.crash();
        }
    }

    /// Fills the volume with ever smaller values until nothing is taken, lets it be opened again, deletes, and again.
    pub(super) fn brim(&mut self) {
        for _ in 0..self.rng.u8(2..6) {
            // New keys first or last: what they take in a checkpoint grows at once or one by one.
            if self.rng.bool() {
                self.put_all(0);
            }
            for most in [400, 100, 30, 0] {
                self.put_all(most);
            }
            for _ in 0..self.rng.u8(1..4) {
                self.crash();
                for _ in 0..self.rng.u8(..6) {
                    let key = self.key();
                    self.push(Action::Delete { key }, 0);
                }
            }
        }
    }

    /// Puts values of about this length under all keys.
    fn put_all(&mut self, most: u16) {
        let waits = self.rng.bool();
        for first in (0..self.keys).step_by(CHANGES_MAX) {
            let mut changes = [None; CHANGES_MAX];
            for (change, key) in changes.iter_mut().zip(first..self.keys) {
                let bytes = Some(self.rng.u16(..=most));
                *change = Some(Change { key, bytes, expect: Expect::Any });
            }
            let commit = Action::Commit { changes, ack: Ack::Durable, origin: 0 };
            self.push(commit, if waits { 12 } else { 1 });
        }
        self.push(Action::Sync, 200);
        if self.rng.u8(..4) == 0 {
            self.push(Action::Crash { how: How::ProcessDeath, recovery: 0, harm: None }, 0);
        }
    }
}
