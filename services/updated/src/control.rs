//! What a machine knows of its two slots, and how that may change.

use core::fmt;
use core::num::NonZeroU8;

/// Most tries that a new system gets: enough for a flaky start, few enough to come back within minutes.
pub const TRIES_MAX: u8 = 15;

/// One of the two places for a system.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Slot {
    /// The first.
    A,
    /// The second.
    B,
}

/// What is known of a slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// Nothing that may be booted: no system, one that is being written, or one that was given up.
    Empty,
    /// A system that has not yet said that it is good.
    Trying {
        /// Boots that it still gets.
        left: u8,
    },
    /// A system that has run well.
    Good,
}

/// The state of both slots. At least one of them is good.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Control {
    generation: u64,
    primary: Slot,
    slots: [Status; 2],
}

/// Why a control does not change.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refusal {
    /// The other slot is not good, so the machine would have nothing to boot.
    LastGood,
    /// There is nothing in the slot that could run.
    Empty,
    /// The slot still holds a system: [`Control::prepare`] it first.
    Occupied,
    /// The slot has no tries left: it was not to be booted.
    NoTries,
    /// More than [`TRIES_MAX`] tries.
    TooManyTries,
}

impl Slot {
    /// Yields the other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }

    fn index(self) -> usize {
        match self {
            Self::A => 0,
            Self::B => 1,
        }
    }
}

impl Control {
    /// Yields the first control of a machine: it runs from `good`, and the other slot is empty.
    #[must_use]
    pub fn first(good: Slot) -> Self {
        let control = Self { generation: 1, primary: good, slots: [Status::Empty; 2] };
        control.with(good, Status::Good)
    }

    /// Yields the first control after one that is damaged, of a generation that a random number chooses: what a
    /// loader has counted of the generations before is not held against it.
    pub(crate) fn anew(good: Slot, random: u64) -> Self {
        Self { generation: GENERATION_ANEW_MIN | random >> RANDOM_SHIFT, ..Self::first(good) }
    }

    /// Puts together what a record says; `None` if no slot were good.
    pub(crate) fn of_record(generation: u64, primary: Slot, slots: [Status; 2]) -> Option<Self> {
        let tries =
            |status: &Status| matches!(status, Status::Trying { left } if *left > TRIES_MAX);
        let sound = slots.contains(&Status::Good) && !slots.iter().any(tries) && generation > 0;
        sound.then_some(Self { generation, primary, slots })
    }

    /// Yields the number of this state of the control: one more at each change, from 1, and after a reset from a
    /// random one that is far above what changes come to. A boot loader that counts the boots of a generation
    /// begins anew with each.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Yields the slot that is booted as long as it may be.
    #[must_use]
    pub fn primary(&self) -> Slot {
        self.primary
    }

    /// Yields what is known of a slot.
    #[must_use]
    pub fn status(&self, slot: Slot) -> Status {
        let [a, b] = self.slots;
        match slot {
            Slot::A => a,
            Slot::B => b,
        }
    }

    /// Yields the slot to boot: the primary one if it is good or has tries left, else the other.
    ///
    /// `boots` is how many boots of this generation the loader has begun already, as far as it can count
    /// them; with 0 a system that hangs before it runs [`Control::begin`] is tried for ever.
    #[must_use]
    pub fn choose(&self, boots: u8) -> Slot {
        match self.status(self.primary) {
            Status::Good => self.primary,
            Status::Trying { left } if left > boots => self.primary,
            Status::Trying { .. } | Status::Empty => self.primary.other(),
        }
    }

    /// Gives up what is in `slot`, so that a system may be written there.
    ///
    /// # Errors
    /// [`Refusal::LastGood`].
    pub fn prepare(&self, slot: Slot) -> Result<Self, Refusal> {
        self.needs_good(slot.other())?;
        let primary = slot.other();
        Ok(Self { primary, ..self.with(slot, Status::Empty) }.counted(self))
    }

    /// Notes that a system was written to `slot`, and boots it from now on, `tries` times.
    ///
    /// # Errors
    /// [`Refusal::Occupied`], [`Refusal::TooManyTries`], [`Refusal::LastGood`].
    pub fn stage(&self, slot: Slot, tries: NonZeroU8) -> Result<Self, Refusal> {
        self.needs_good(slot.other())?;
        if self.status(slot) != Status::Empty {
            return Err(Refusal::Occupied);
        }
        if tries.get() > TRIES_MAX {
            return Err(Refusal::TooManyTries);
        }
        let trying = Status::Trying { left: tries.get() };
        Ok(Self { primary: slot, ..self.with(slot, trying) }.counted(self))
    }

    /// Notes that the system in `slot` has started: one try less, unless it is good.
    ///
    /// # Errors
    /// [`Refusal::Empty`], [`Refusal::NoTries`].
    pub fn begin(&self, slot: Slot) -> Result<Self, Refusal> {
        match self.status(slot) {
            Status::Good => Ok(*self),
            Status::Empty => Err(Refusal::Empty),
            Status::Trying { left } => {
                let left = left.checked_sub(1).ok_or(Refusal::NoTries)?;
                Ok(self.with(slot, Status::Trying { left }).counted(self))
            }
        }
    }

    /// Notes that the system in `slot` runs well: it is booted until something better comes.
    ///
    /// # Errors
    /// [`Refusal::Empty`].
    pub fn mark_good(&self, slot: Slot) -> Result<Self, Refusal> {
        match self.status(slot) {
            Status::Good => Ok(*self),
            Status::Empty => Err(Refusal::Empty),
            Status::Trying { .. } => Ok(self.with(slot, Status::Good).counted(self)),
        }
    }

    /// Goes back to the other slot, and gives up what is in the primary one.
    ///
    /// # Errors
    /// [`Refusal::LastGood`].
    pub fn roll_back(&self) -> Result<Self, Refusal> {
        self.prepare(self.primary)
    }

    fn needs_good(&self, slot: Slot) -> Result<(), Refusal> {
        if self.status(slot) == Status::Good { Ok(()) } else { Err(Refusal::LastGood) }
    }

    fn with(mut self, slot: Slot, status: Status) -> Self {
        if let Some(place) = self.slots.get_mut(slot.index()) {
            *place = status;
        }
        self
    }

    /// Counts the change from `before`; a change that changes nothing is none.
    fn counted(self, before: &Self) -> Self {
        assert!(self.slots.contains(&Status::Good), "a machine has something to boot");
        if self == *before {
            return self;
        }
        // Beyond any machine's life; standing still would only let a loader count on.
        Self { generation: before.generation.saturating_add(1), ..self }
    }
}

/// The least generation after a reset: no machine changes its control so often.
const GENERATION_ANEW_MIN: u64 = 1 << 52;

/// Leaves 52 random bits: no two resets meet, and the number is exact also for who reads JSON as floating-point.
const RANDOM_SHIFT: u32 = 12;

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::A => "A",
            Self::B => "B",
        })
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("empty"),
            Self::Trying { left } => write!(f, "trying, {left} left"),
            Self::Good => f.write_str("good"),
        }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::LastGood => {
                f.write_str("the other slot is not good; nothing would be left to boot")
            }
            Self::Empty => f.write_str("the slot is empty"),
            Self::Occupied => f.write_str("the slot holds a system; prepare it first"),
            Self::NoTries => f.write_str("the slot has no tries left"),
            Self::TooManyTries => write!(f, "more than {TRIES_MAX} tries"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;
    use std::vec::Vec;
    use std::{format, vec};

    const TWO: NonZeroU8 = NonZeroU8::new(2).unwrap();

    /// Everything that can be done to a control.
    fn changes(control: &Control) -> Vec<Result<Control, Refusal>> {
        let mut changed = vec![control.roll_back()];
        for slot in [Slot::A, Slot::B] {
            changed.extend([
                control.prepare(slot),
                control.stage(slot, TWO),
                control.begin(slot),
                control.mark_good(slot),
            ]);
        }
        changed
    }

    #[test]
    fn no_sequence_of_changes_leaves_nothing_to_boot() {
        let mut seen = BTreeSet::new();
        let mut open = vec![Control::first(Slot::A), Control::first(Slot::B)];
        while let Some(control) = open.pop() {
            let key = format!("{:?}", Control { generation: 0, ..control });
            if !seen.insert(key) {
                continue;
            }
            for boots in 0..4 {
                let slot = control.choose(boots);
                let tries = matches!(control.status(slot), Status::Trying { left } if left > boots);
                assert!(control.status(slot) == Status::Good || tries, "{control:?} boots {slot}");
            }
            open.extend(changes(&control).into_iter().flatten());
        }
        assert_eq!(seen.len(), 10, "all there is to reach: {seen:#?}");
    }

    #[test]
    fn a_new_system_is_tried_and_then_given_up_or_kept() {
        let a = Control::first(Slot::A);
        assert_eq!(a.prepare(Slot::A), Err(Refusal::LastGood));
        assert_eq!(a.roll_back(), Err(Refusal::LastGood));
        let staged = a.prepare(Slot::B).and_then(|control| control.stage(Slot::B, TWO)).unwrap();
        assert_eq!(
            (staged.choose(0), staged.choose(1), staged.choose(2)),
            (Slot::B, Slot::B, Slot::A)
        );
        assert_eq!(staged.stage(Slot::B, TWO), Err(Refusal::Occupied));
        assert_eq!(staged.prepare(Slot::A), Err(Refusal::LastGood));
        let once = staged.begin(Slot::B).unwrap();
        let twice = once.begin(Slot::B).unwrap();
        assert_eq!((once.choose(0), twice.choose(0)), (Slot::B, Slot::A));
        assert_eq!(twice.begin(Slot::B), Err(Refusal::NoTries));
        assert_eq!(twice.begin(Slot::A), Ok(twice));
        let good = twice.mark_good(Slot::B).unwrap();
        assert_eq!((good.choose(9), good.primary()), (Slot::B, Slot::B));
        let back = good.roll_back().unwrap();
        assert_eq!((back.choose(0), back.status(Slot::B)), (Slot::A, Status::Empty));
        assert_eq!(back.mark_good(Slot::B), Err(Refusal::Empty));
        assert!(staged.generation() < twice.generation() && twice.generation() < back.generation());
    }

    #[test]
    fn a_generation_after_damage_is_random_and_above_those_that_were_counted() {
        let anew = |random| Control::anew(Slot::B, random).generation();
        assert_eq!((anew(0), anew(1 << 12)), (1 << 52, (1 << 52) + 1));
        assert_eq!(anew(u64::MAX), (1 << 53) - 1);
    }

    #[test]
    fn what_changes_nothing_is_no_change() {
        let control = Control::first(Slot::A);
        for same in [control.prepare(Slot::B), control.begin(Slot::A), control.mark_good(Slot::A)] {
            assert_eq!(same, Ok(control));
        }
        let many = NonZeroU8::new(TRIES_MAX + 1).unwrap();
        assert_eq!(control.stage(Slot::B, many), Err(Refusal::TooManyTries));
    }
}
