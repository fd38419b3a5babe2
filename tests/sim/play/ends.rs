//! Other ends of a power cut: what else the device may have kept of the same moment, recovered and compared beside the history.

use super::{BLOCK_BYTES, Player, chance};
use blockdev::SimDevice;
use fastrand::Rng;
use journal::trip;

/// Ends that are drawn for each power cut, beside the one from which the history goes on. One takes half of what a crash of the
/// history takes: with more of them there are more crashes in the same time, and fewer moments. Of these about three are
/// left for each cut that has anything to decide, as some leave what another one does.
pub const ENDS: u32 = 4;
/// How what is seen at one of them ends.
pub const OTHER_END: &str = "at another end of the power cut";

impl Player {
    /// Tries the power cut that is about to come with other fates of what no flush covers, as far as those leave other bytes.
    /// The history does not notice: of all this it has the count alone.
    pub(super) fn try_other_ends(&mut self) -> Result<(), String> {
        let risks = self.device.risks().map(|risk| risk.offset as usize);
        let mut places: Vec<usize> = risks.collect();
        if self.ends == 0 || places.is_empty() {
            return Ok(());
        }
        places.sort_unstable();
        places.dedup();
        // An engine that is to panic does so in the history itself.
        let passes = trip::after(None);
        let (mounts, images, turns, counts) = (self.mounts, self.images, self.turns, self.counts);
        let mut device = self.spare.take().unwrap_or_else(|| self.device.clone());
        device.clone_from(&self.device);
        device.power_cut();
        let mut ends = vec![left_at(&places, &device)];
        let mut seeds = Rng::with_seed(chance(self.seed ^ OTHER_ENDS, self.at.into()));
        for _ in 0..self.ends {
            device.clone_from(&self.device);
            device.reseed(seeds.u64(..));
            device.power_cut();
            let end = left_at(&places, &device);
            if ends.contains(&end) {
                continue;
            }
            ends.push(end);
            std::mem::swap(&mut self.device, &mut device);
            let ended = self.other_end();
            std::mem::swap(&mut self.device, &mut device);
            ended.map_err(|what| format!("{what}, {OTHER_END}"))?;
        }
        self.spare = Some(device);
        (self.mounts, self.images, self.turns) = (mounts, images, turns);
        let judged = self.counts.images_judged - counts.images_judged;
        self.counts = counts;
        self.counts.other_ends += ends.len() as u64 - 1;
        self.counts.other_ends_judged += judged;
        trip::after(passes);
        Ok(())
    }

    /// Compares all of what a recovery makes of a device that has lost its power.
    fn other_end(&mut self) -> Result<(), String> {
        self.heal();
        let (disk, journal) =
            self.recovery()?.map_err(|error| format!("the volume does not open: {error}"))?;
        let state = self.found(&disk, &journal, |model, id, version| model.compare(id, version))?;
        self.model.allows(&state)
    }
}

/// Yields the bytes of the blocks at `places`.
fn left_at(places: &[usize], device: &SimDevice) -> Vec<u8> {
    let block = |place: &usize| &device.visible()[*place..*place + BLOCK_BYTES as usize];
    places.iter().flat_map(block).copied().collect()
}

/// Tells the choices for other ends from those for steps.
const OTHER_ENDS: u64 = 0x51b1_e3a7_0c94_7d2f;
