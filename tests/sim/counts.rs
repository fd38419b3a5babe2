//! What a run exercised.

/// Makes a struct of counts, each with its meaning, that add up and are shown line by line.
macro_rules! tally {
    ($(#[$of:meta])* $tally:ident, $($(#[$what:meta])* $name:ident,)*) => {
        $(#[$of])*
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
        pub struct $tally {
            $($(#[$what])* pub $name: u64,)*
        }

        impl $tally {
            /// Adds another run's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }
        }

        /// One line for each count.
        impl std::fmt::Display for $tally {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let lines = [$((stringify!($name), self.$name),)*];
                lines.into_iter().try_for_each(|(name, count)| {
                    writeln!(f, "{count:>12}  {}", name.replace('_', " "))
                })
            }
        }
    };
}

pub(crate) use tally;

tally! {
    /// What a run exercised, counted.
    Counts,
    /// Histories played to their end.
    histories,
    /// Power cuts while clients worked, or nobody did.
    cuts_at_work,
    /// Deaths of the process while clients worked, the device's cache kept.
    deaths_at_work,
    /// Power cuts inside a recovery.
    cuts_in_recovery,
    /// Deaths of the process inside a recovery.
    deaths_in_recovery,
    /// Power cuts of the same moments with other fates of what no flush covered: each recovered, compared and left.
    other_ends,
    /// Images of these that were judged a second time, by the table of the model, to the same end.
    other_ends_judged,
    /// Crashes of the history itself by a panic of the engine.
    panics,
    /// Crashes while a checkpoint was being written, or values moved by cleaning.
    crashes_in_maintenance,
    /// Crashes of a volume that had refused a commit for want of room.
    crashes_of_full_volumes,
    /// Recoveries that ended, their whole state read and compared.
    recoveries,
    /// Turns of the device that these took.
    turns_of_recoveries,
    /// Recoveries that ended on a checkpoint.
    recoveries_from_checkpoint,
    /// Recoveries that found the groups of a torn tail, and dropped them.
    recoveries_with_torn_tail,
    /// Recoveries that the device failed.
    recoveries_failed,
    /// Blocks that went bad.
    blocks_damaged,
    /// Of these, those of a running volume.
    blocks_damaged_running,
    /// Of all, those that went back to what they held earlier, with their neighbours or alone.
    blocks_gone_back,
    /// Blocks that could not be read any more.
    blocks_unreadable,
    /// Copies that recovery wrote again.
    copies_repaired,
    /// Copies that a check wrote again.
    copies_scrubbed,
    /// Images of recoveries that were judged a second time, by the table of the model, to the same end.
    images_judged,
    /// Of these, images in which whole groups then went bad.
    images_harmed,
    /// Losses that mounts of those told.
    losses_told,
    /// Of these, losses of what had never been acknowledged.
    torn_called_damaged,
    /// Acknowledged groups that went without a word, although something intact vouched for them.
    damaged_called_torn,
    /// The same where nothing did: the window that watermarks and `strict` close.
    torn_in_the_window,
    /// Stores that stopped writing after a write or flush had failed.
    stores_stopped,
    /// Commits taken.
    commits,
    /// Commits acknowledged as durable.
    commits_acknowledged,
    /// Values of one call that were cut into chunks.
    values_cut,
    /// Commits refused for want of room.
    commits_refused_full,
    /// Deletes that a volume took which had no room for puts at all.
    deletes_of_full_volumes,
    /// Large values of which all parts went out, committed or given up.
    uploads,
    /// Syncs that were answered.
    syncs,
    /// Reads that were answered.
    reads,
    /// Checkpoints written.
    checkpoints,
    /// Checkpoints that a client asked for and was answered.
    checkpoints_asked,
    /// Segments cleaned.
    segments_cleaned,
    /// Values moved by cleaning.
    values_moved,
}

impl Counts {
    /// Yields the number of crashes, those among them that the histories left again.
    pub fn crashes(&self) -> u64 {
        let cuts = self.cuts_at_work + self.cuts_in_recovery + self.other_ends;
        cuts + self.deaths_at_work + self.deaths_in_recovery
    }
}
