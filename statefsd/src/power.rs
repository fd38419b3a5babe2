//! What a capability is good for at this moment: its scope, and whether it was taken away.
//!
//! A restricted capability knows the one that it was derived from, and each use asks the whole
//! chain. So nothing has to find what was derived: revoking one link ends all beyond it.

use alloc::rc::Rc;
use core::cell::Cell;

use policy::{Prefix, Rights, Scope};

use crate::error::Error;
use crate::slots::Slot;

/// The power of one capability; clones are the same power.
#[derive(Clone)]
pub(crate) struct Power {
    scope: Scope,
    under: Option<Rc<Restriction>>,
}

/// One link of the chain.
pub(crate) struct Restriction {
    above: Option<Rc<Restriction>>,
    revoked: Cell<bool>,
    /// In milliseconds of the server's clock.
    expiry: Option<u64>,
    _slot: Slot,
}

impl Power {
    /// The power of a directory that was opened.
    pub(crate) fn new(scope: Scope) -> Self {
        Self { scope, under: None }
    }

    /// The part of this power that lies in `prefix` and in `rights`, until `expiry`, and what takes
    /// it away; `None` if `prefix` is not within.
    pub(crate) fn restrict(
        &self,
        prefix: Prefix,
        rights: Rights,
        expiry: Option<u64>,
        slot: Slot,
    ) -> Option<(Self, Rc<Restriction>)> {
        let scope = self.scope.restrict(prefix, rights)?;
        let above = self.under.clone();
        let link = Restriction { above, revoked: Cell::new(false), expiry, _slot: slot };
        let link = Rc::new(link);
        Some((Self { scope, under: Some(link.clone()) }, link))
    }

    pub(crate) fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Refuses what was taken away or is over.
    ///
    /// # Errors
    /// [`Error::Revoked`], [`Error::Expired`].
    pub(crate) fn check(&self, now: u64) -> Result<(), Error> {
        let mut link = self.under.as_ref();
        while let Some(restriction) = link {
            if restriction.revoked.get() {
                return Err(Error::Revoked);
            }
            if restriction.expiry.is_some_and(|expiry| now >= expiry) {
                return Err(Error::Expired);
            }
            link = restriction.above.as_ref();
        }
        Ok(())
    }
}

impl Restriction {
    /// Ends the power, and all that was derived from it.
    pub(crate) fn revoke(&self) {
        self.revoked.set(true);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::slots::Slots;
    use alloc::vec::Vec;
    use policy::{Key, Right};

    /// Every prefix of at most three segments out of two.
    fn prefixes() -> Vec<Prefix> {
        let mut all = Vec::from([Prefix::root()]);
        for at in 0..7 {
            for segment in ["a", "b"] {
                let above: &Prefix = all.get(at).expect("made before");
                let below = above.join_prefix(segment).expect("a prefix");
                all.push(below);
            }
        }
        all
    }

    fn rights(random: &mut fastrand::Rng) -> Rights {
        Rights::from_bits(random.u16(..) & Rights::ALL.bits()).expect("rights")
    }

    /// Everything that a power reaches of a key.
    fn reach(power: &Power, key: &Key) -> Rights {
        if power.scope().prefix().covers(key) { power.scope().rights() } else { Rights::EMPTY }
    }

    struct Ask<'a>(Right, &'a Key);

    impl policy::Demand for Ask<'_> {
        fn right(&self) -> Right {
            self.0
        }

        fn target(&self) -> policy::Target<'_> {
            policy::Target::Key(self.1)
        }
    }

    const POLICY: &str = "
        version = 1
        service.s.uid = 1
        [[grant]]
        to = 's'
        prefix = '/state/a'
        rights = ['get', 'list', 'put']
        [[grant]]
        to = 's'
        prefix = '/state/b/b'
        rights = ['get', 'delete', 'delegate']
        [[ceiling]]
        prefix = '/state/a/b'
        only = ['s']
        rights = ['put']
    ";

    #[test]
    fn a_million_derivations_never_gain_a_right() {
        let mut random = fastrand::Rng::with_seed(11);
        let policy = policy::Policy::parse(POLICY).expect("a sound policy");
        let peer = policy::Peer { channel: "default".into(), uid: Some(1) };
        let service = policy.identify(&peer).expect("a known peer");
        let decide = |scope: Option<&Scope>, right, key: &Key| {
            policy::decide(&policy, &service, scope, Ask(right, key)).is_ok()
        };
        let keys = ["a", "b", "a/a", "a/b", "b/a", "b/b/a", "a/b/a", "a/b/a/b"];
        let keys = keys.map(|key| Prefix::root().join(key).expect("a key"));
        let (prefixes, slots) = (prefixes(), Slots::new(64));
        let (mut derived, mut refused, mut granted) = (0_u32, 0_u32, 0_u32);
        while derived < 1_000_000 {
            let mut chain = Vec::from([Power::new(Scope::new(Prefix::root(), Rights::ALL))]);
            for _ in 0..10 {
                let from = random.choice(&chain).expect("one at least").clone();
                let below = random.choice(&prefixes).expect("some");
                let asked = rights(&mut random);
                let slot = slots.take().expect("a chain has fewer links");
                let Some((power, _)) = from.restrict(below.clone(), asked, None, slot) else {
                    assert!(!from.scope().prefix().covers_prefix(below));
                    refused += 1;
                    continue;
                };
                derived += 1;
                let key = random.choice(&keys).expect("some");
                let wanted = if below.covers(key) { asked } else { Rights::EMPTY };
                assert_eq!(reach(&power, key), wanted.intersection(reach(&from, key)));
                // The policy's own decision, on some of them: it costs more than all the rest.
                if derived.is_multiple_of(8) {
                    let right = random.choice(Right::ALL).expect("some");
                    if decide(Some(power.scope()), right, key) {
                        granted += 1;
                        assert!(decide(Some(from.scope()), right, key) && decide(None, right, key));
                    }
                }
                chain.push(power);
            }
        }
        assert!(refused > 100_000 && granted > 1000, "{refused} {granted}");
    }

    #[test]
    fn what_was_derived_dies_with_what_it_was_derived_from_and_nothing_else_does() {
        let slots = Slots::new(usize::MAX);
        let mut random = fastrand::Rng::with_seed(5);
        for _ in 0..2000 {
            // Each link knows which one it hangs under; the first hangs under none.
            let root = Power::new(Scope::new(Prefix::root(), Rights::ALL));
            let mut tree: Vec<(Power, Option<Rc<Restriction>>, usize)> = Vec::new();
            tree.push((root, None, 0));
            for _ in 0..12 {
                let above = random.usize(..tree.len());
                let (power, ..) = tree.get(above).expect("in the tree");
                let slot = slots.take().expect("no bound");
                let derived = power.restrict(Prefix::root(), Rights::ALL, None, slot);
                let (power, link) = derived.expect("within");
                tree.push((power, Some(link), above));
            }
            let victim = random.usize(1..tree.len());
            if let Some((_, Some(link), _)) = tree.get(victim) {
                link.revoke();
            }
            for at in 0..tree.len() {
                let mut up = at;
                let dead = loop {
                    if up == victim {
                        break true;
                    }
                    if up == 0 {
                        break false;
                    }
                    up = tree.get(up).expect("in the tree").2;
                };
                let expected = if dead { Err(Error::Revoked) } else { Ok(()) };
                let (power, ..) = tree.get(at).expect("in the tree");
                assert_eq!(power.check(u64::MAX), expected);
            }
        }
    }

    #[test]
    fn the_earliest_expiry_of_the_chain_counts() {
        let slots = Slots::new(2);
        let restrict = |power: &Power, expiry| {
            let slot = slots.take().expect("two");
            power.restrict(Prefix::root(), Rights::ALL, Some(expiry), slot).expect("within").0
        };
        let root = Power::new(Scope::new(Prefix::root(), Rights::ALL));
        let short = restrict(&root, 10);
        let long = restrict(&short, 20);
        assert_eq!((long.check(9), short.check(9)), (Ok(()), Ok(())));
        assert_eq!((long.check(10), short.check(10)), (Err(Error::Expired), Err(Error::Expired)));
        assert_eq!(root.check(u64::MAX), Ok(()));
        assert!(slots.take().is_none());
        drop(short);
        assert!(slots.take().is_none(), "it is a link of a chain that is still held");
        drop(long);
        assert!(slots.take().is_some());
    }
}
