//! Images of a played history that are judged a second time, and harmed where no promise but honesty holds.

use super::super::judge::{Judged, Misjudged, agrees, harm_groups, judge, misjudged};
use super::{Player, TURNS_MAX, chance};
use fastrand::Rng;
use journal::{Lsn, Report};

impl Player {
    /// Judges the image that a recovery is about to find, if its turn has come.
    pub(super) fn judged(&mut self) -> Option<Judged> {
        self.images += 1;
        let its_turn = self.judged_every > 0 && self.images.is_multiple_of(self.judged_every);
        // What an image shows of a block says nothing where that block cannot be read.
        if !its_turn || self.device.has_unreadable() {
            return None;
        }
        self.counts.images_judged += 1;
        judge(self.device.visible())
    }

    /// Compares a recovery with what its image was judged to be.
    pub(super) fn agreed(judged: Option<&Judged>, report: &Report) -> Result<(), String> {
        judged.map_or(Ok(()), |judged| agrees(judged, report))
    }

    /// Lets groups go bad in both copies, on a device beside this one, and looks at what a mount says of them:
    /// everything up to `acknowledged` had been acknowledged.
    pub(super) fn probe(&mut self, acknowledged: Lsn) -> Result<(), String> {
        let Some(before) = self.judged() else { return Ok(()) };
        let mut device = self.device.clone();
        let mut rng = Rng::with_seed(chance(self.seed ^ PROBES, self.images));
        harm_groups(&mut device, &before, &mut rng);
        let image = device.visible().to_vec();
        let Some(after) = judge(&image) else { return Ok(()) };
        std::mem::swap(&mut self.device, &mut device);
        let reports = [self.report(), self.report()];
        self.device = device;
        let [report, again] = reports;
        let (report, again) = (report?, again?);
        agrees(&after, &report)?;
        if again.lost != report.lost {
            return Err(format!(
                "{:?} is lost, and at the next mount {:?}",
                report.lost, again.lost
            ));
        }
        let found = misjudged(&before, acknowledged, &image, &after);
        self.counts.images_harmed += 1;
        self.counts.losses_told += after.lost.len() as u64;
        self.counts.torn_called_damaged += found.torn_called_damaged;
        self.counts.damaged_called_torn += found.damaged_called_torn;
        self.counts.torn_in_the_window += found.in_the_window;
        match found {
            Misjudged { torn_called_damaged: 0, damaged_called_torn: 0, .. } => Ok(()),
            _ => Err(format!("torn and damaged are mixed up: {found:?}, {after:?}")),
        }
    }
}

impl Player {
    /// Mounts what the device holds, and goes away.
    fn report(&mut self) -> Result<Report, String> {
        let (disk, task) = self.opening();
        let opened = self.drive(&disk, task, TURNS_MAX);
        let journal = opened.ok_or("opening a harmed image hangs")?;
        let journal = journal.map_err(|error| format!("a harmed image does not open: {error}"))?;
        Ok(journal.report().clone())
    }
}

/// Tells the choices for harmed images from those for steps.
const PROBES: u64 = 0x9e6c_63d0_876a_46b1;
