//! Planted faults: rules switched off on purpose, to prove that the suites notice.
//!
//! Without the feature `plant` every question answers *no* at compile time.

use crate::walk::Weakened;

/// A rule to switch off.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Plant {
    /// Acknowledge before the flush.
    AckBeforeFlush,
    /// Count writes that were issued after the flush began as covered by it (trace T17).
    LateWrites,
    /// Take a later group as proof that the gap before it was durable (trace T7).
    LaterProves,
    /// Update the superblock copies in a fixed order (trace T1).
    SuperblockOrder,
}

impl Plant {
    /// Every plant, by the name that the simulator takes.
    pub const ALL: [(&'static str, Self); 4] = [
        ("ack-before-flush", Self::AckBeforeFlush),
        ("late-writes", Self::LateWrites),
        ("later-proves", Self::LaterProves),
        ("superblock-order", Self::SuperblockOrder),
    ];
}

/// The plants of one journal: none, unless the feature is on and the caller asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plants {
    #[cfg(feature = "plant")]
    planted: Option<Plant>,
}

impl Plants {
    /// Plants one fault.
    #[cfg(feature = "plant")]
    pub fn one(plant: Plant) -> Self {
        Self { planted: Some(plant) }
    }

    #[cfg(feature = "plant")]
    fn has(self, plant: Plant) -> bool {
        self.planted == Some(plant)
    }

    #[cfg(not(feature = "plant"))]
    #[expect(clippy::unused_self, reason = "the twin of the planted build")]
    fn has(self, _: Plant) -> bool {
        false
    }

    pub(crate) fn ack_before_flush(self) -> bool {
        self.has(Plant::AckBeforeFlush)
    }

    pub(crate) fn late_writes(self) -> bool {
        self.has(Plant::LateWrites)
    }

    pub(crate) fn superblock_order(self) -> bool {
        self.has(Plant::SuperblockOrder)
    }

    pub(crate) fn weakened(self) -> Weakened {
        Weakened { later_proves: self.has(Plant::LaterProves) }
    }
}
