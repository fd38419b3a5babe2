//! Planted faults: rules of the server switched off on purpose, to prove that the suites notice. The journal has its own.
//!
//! Without the feature `plant` every question answers *no* at compile time.

/// Lists the plants once: what each switches off, its variant, and the name that programs take.
macro_rules! plants {
    ($($(#[$what:meta])* $variant:ident = $name:literal,)*) => {
        /// A rule to switch off.
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Plant {
            $($(#[$what])* $variant,)*
        }

        impl Plant {
            /// Every plant, by the name that the simulator takes.
            pub const ALL: &[(&'static str, Self)] = &[$(($name, Self::$variant),)*];
        }
    };
}

plants! {
    /// Answer every write as if it had been asked for as buffered.
    AnswerEarly = "answer-early",
    /// Look a key up before the gate is asked, and tell that there is none.
    LookFirst = "look-first",
    /// Forget at a start which batches had tokens.
    TokensForgotten = "tokens-forgotten",
    /// Remember a batch with a token under a connection instead of a service.
    TokensOfConnection = "tokens-of-connection",
    /// Answer a sync without one.
    SyncSkipped = "sync-skipped",
    /// End a shutdown before what was acknowledged is durable.
    ShutdownUnsynced = "shutdown-unsynced",
    /// Charge no write to its quotas.
    QuotaUncharged = "quota-uncharged",
    /// Read past the caller's own writes that are on their way.
    OwnWritesUnseen = "own-writes-unseen",
}

/// The plants of one server: none, unless the feature is on and the caller asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plants {
    #[cfg(feature = "plant")]
    planted: Option<Plant>,
}

impl Plants {
    /// Plants one fault.
    #[cfg(feature = "plant")]
    #[must_use]
    pub fn one(plant: Plant) -> Self {
        Self { planted: Some(plant) }
    }

    /// Tells whether a rule is switched off.
    #[cfg(feature = "plant")]
    pub(crate) fn has(self, plant: Plant) -> bool {
        self.planted == Some(plant)
    }

    /// Tells whether a rule is switched off: never.
    #[cfg(not(feature = "plant"))]
    #[expect(clippy::unused_self, reason = "the twin of the planted build")]
    pub(crate) fn has(self, _: Plant) -> bool {
        false
    }
}
