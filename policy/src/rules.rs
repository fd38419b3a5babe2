//! The rules in force, ready to be asked.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::service::Badge;
use crate::{Peer, Position, Prefix, Refusal, Right, Rights, Scope, ServiceId};

/// A whole policy: who is who, who is granted what, and what nobody exceeds.
///
/// Immutable; a reload builds another one and swaps. Compare [`Policy::deny_all`].
#[derive(Clone, Default, Debug)]
pub struct Policy {
    pub(crate) services: BTreeMap<Arc<str>, Service>,
    pub(crate) ceilings: Vec<Ceiling>,
}

/// A service, with everything that is specific to it.
#[derive(Clone, Debug)]
pub(crate) struct Service {
    pub(crate) badge: Badge,
    /// In the order of the file.
    pub(crate) grants: Vec<Grant>,
    /// For each of the policy's ceilings, the rights that it lets this service have.
    pub(crate) passes: Vec<Rights>,
}

#[derive(Clone, Debug)]
pub(crate) struct Grant {
    pub(crate) prefix: Prefix,
    pub(crate) rights: Rights,
    pub(crate) quota: Option<Quota>,
    pub(crate) rule: RuleId,
}

/// Where a ceiling is; what it lets pass is in [`Service::passes`].
#[derive(Clone, Debug)]
pub(crate) struct Ceiling {
    pub(crate) prefix: Prefix,
    pub(crate) at: Position,
}

impl Policy {
    /// The policy of a server that was given none: it knows nobody and grants nothing.
    #[must_use]
    pub fn deny_all() -> Self {
        Self::default()
    }

    /// The service that `peer` is. At most one fits: a policy where one peer could be two
    /// services does not load.
    #[must_use]
    pub fn identify(&self, peer: &Peer) -> Option<ServiceId> {
        let (name, _) = self.services.iter().find(|(_, service)| service.badge.matches(peer))?;
        Some(ServiceId::new(name, peer))
    }

    /// The names of the services, sorted.
    pub fn services(&self) -> impl ExactSizeIterator<Item = &str> {
        self.services.keys().map(|name| &**name)
    }

    /// The grants that carry a quota: which rule, to whom, over what, how much.
    ///
    /// This crate keeps quotas and does not account: charging belongs to who knows the sizes.
    pub fn quotas(&self) -> impl Iterator<Item = (RuleId, &str, &Prefix, &Quota)> {
        self.services.iter().flat_map(|(name, service)| {
            service.grants.iter().filter_map(move |grant| {
                Some((grant.rule, &**name, &grant.prefix, grant.quota.as_ref()?))
            })
        })
    }

    /// The rights that `service` has on what has exactly this path, through no capability but its
    /// own; none if no service has the name. What acts on the whole volume counts on
    /// [`Prefix::root`] alone.
    #[must_use]
    pub fn rights_at(&self, service: &str, path: &Prefix) -> Rights {
        let name = Arc::from(service);
        let Ok(subject) = self.subject(&name, None, None) else {
            return Rights::EMPTY;
        };
        let granted = subject.grants_over(path.as_str()).map(|grant| grant.rights);
        let granted = granted.fold(Rights::EMPTY, Rights::union);
        let passing = subject.ceilings_over(path.as_str()).map(|(_, passes)| passes);
        let allowed = passing.fold(granted, Rights::intersection);
        if *path == Prefix::root() { allowed } else { allowed.minus(Rights::ADMIN) }
    }

    /// How many grants and how many ceilings there are.
    #[must_use]
    pub fn rule_counts(&self) -> (usize, usize) {
        let grants = self.services.values().map(|service| service.grants.len()).sum();
        (grants, self.ceilings.len())
    }

    /// Binds a name, and the capability it acts through, to today's rules. `evidence` is absent
    /// where only the rules are asked about, as in an explanation.
    pub(crate) fn subject<'a>(
        &'a self,
        name: &'a Arc<str>,
        evidence: Option<&Peer>,
        scope: Option<&'a Scope>,
    ) -> Result<Subject<'a>, Refusal> {
        let unknown = |name: &Arc<str>| Refusal::UnknownService { service: Arc::clone(name) };
        let holder = self.services.get(name).ok_or_else(|| unknown(name))?;
        if evidence.is_some_and(|peer| !holder.badge.matches(peer)) {
            return Err(unknown(name));
        }
        let savers = scope.map_or(&[][..], Scope::shared_savers);
        let mut root = (name, holder);
        for (index, saver) in savers.iter().enumerate() {
            let service = self.services.get(saver).ok_or_else(|| unknown(saver))?;
            if index == 0 {
                root = (saver, service);
            }
        }
        Ok(Subject { policy: self, holder: (name, holder), root, scope, savers })
    }
}

/// Somebody whom the policy knows, about to be judged.
pub(crate) struct Subject<'a> {
    policy: &'a Policy,
    holder: (&'a Arc<str>, &'a Service),
    /// Whose grants are drawn on: the holder's own, or those of the first saver.
    root: (&'a Arc<str>, &'a Service),
    scope: Option<&'a Scope>,
    savers: &'a [Arc<str>],
}

impl<'a> Subject<'a> {
    /// Finds the grant of `right` if all of `needed` is allowed on `path`, else why not.
    pub(crate) fn judge(
        &self,
        right: Right,
        needed: Rights,
        path: &str,
    ) -> Result<RuleId, Refusal> {
        self.check_scope(needed, path)?;
        for (index, ceiling) in self.policy.ceilings.iter().enumerate() {
            if ceiling.prefix.covers_path(path) {
                self.check_ceiling(index, ceiling, needed)?;
            }
        }
        let (to, _) = self.root;
        let needed = self.needed_of_savers(needed);
        let (mut given, mut rule) = (Rights::EMPTY, None);
        for grant in self.grants_over(path) {
            given = given.union(grant.rights);
            if rule.is_none() && grant.rights.contains(right) {
                rule = Some(grant.rule);
            }
        }
        match rule {
            Some(rule) if given.includes(needed) => Ok(rule),
            _ => Err(Refusal::NoGrant { to: Arc::clone(to), lacking: needed.minus(given) }),
        }
    }

    /// Finds what of `prefix` is allowed: the grant of `right` there, the subtrees that grants
    /// cover with all of `needed`, and those that ceilings keep back. Refuses if nothing is left.
    pub(crate) fn judge_within(
        &self,
        right: Right,
        needed: Rights,
        prefix: &Prefix,
    ) -> Result<(RuleId, Vec<Prefix>, Vec<Prefix>), Refusal> {
        let whole = match self.judge(right, needed, prefix.as_str()) {
            Ok(rule) => {
                return Ok((rule, Vec::from([prefix.clone()]), self.hidden(needed, prefix)));
            }
            // Grants below may still reach.
            Err(refusal @ Refusal::NoGrant { .. }) => refusal,
            Err(refusal) => return Err(refusal),
        };
        let below = self.root.1.grants.iter();
        let below = below.filter(|grant| prefix.covers_prefix(&grant.prefix));
        let (mut shown, mut ceiling, mut rule) = (Vec::new(), None, None);
        for grant in below {
            match self.judge(right, needed, grant.prefix.as_str()) {
                Ok(found) => {
                    rule.get_or_insert(found);
                    shown.push(grant.prefix.clone());
                }
                Err(refusal @ Refusal::Ceiling { .. }) => {
                    ceiling.get_or_insert(refusal);
                }
                Err(_) => {}
            }
        }
        match rule {
            Some(rule) => Ok((rule, outermost(shown), self.hidden(needed, prefix))),
            None => Err(ceiling.unwrap_or(whole)),
        }
    }

    /// The subtrees of `prefix` where a ceiling keeps back some of `needed`: sorted, none
    /// within another.
    pub(crate) fn hidden(&self, needed: Rights, prefix: &Prefix) -> Vec<Prefix> {
        let ceilings = self.policy.ceilings.iter().enumerate();
        let hidden = ceilings
            .filter(|(_, ceiling)| prefix.covers_prefix(&ceiling.prefix))
            .filter(|(index, ceiling)| self.check_ceiling(*index, ceiling, needed).is_err())
            .map(|(_, ceiling)| ceiling.prefix.clone());
        outermost(hidden.collect())
    }

    /// The grants that count and cover `path`, in the order of the file.
    pub(crate) fn grants_over(&self, path: &str) -> impl Iterator<Item = &'a Grant> {
        self.root.1.grants.iter().filter(move |grant| grant.prefix.covers_path(path))
    }

    /// The ceilings over `path` in the order of the file, and what each lets this subject have.
    pub(crate) fn ceilings_over(&self, path: &str) -> impl Iterator<Item = (&'a Ceiling, Rights)> {
        let (_, holder) = self.holder;
        let ceilings = self.policy.ceilings.iter().zip(holder.passes.iter().copied());
        ceilings.filter(move |(ceiling, _)| ceiling.prefix.covers_path(path))
    }

    fn check_scope(&self, needed: Rights, path: &str) -> Result<(), Refusal> {
        match self.scope {
            Some(scope)
                if !scope.prefix().covers_path(path) || !scope.rights().includes(needed) =>
            {
                let (prefix, rights) = (scope.prefix().clone(), scope.rights());
                Err(Refusal::OutsideCapability { prefix, rights })
            }
            Some(_) | None => Ok(()),
        }
    }

    fn check_ceiling(&self, index: usize, over: &Ceiling, needed: Rights) -> Result<(), Refusal> {
        let passes = |service: &Service| service.passes.get(index).copied().unwrap_or_default();
        let refuse = |name: &Arc<str>, lacking: Rights| match lacking.is_empty() {
            true => Ok(()),
            false => Err(Refusal::Ceiling { at: over.at, service: Arc::clone(name), lacking }),
        };
        let (name, holder) = self.holder;
        refuse(name, needed.minus(passes(holder)))?;
        let needed = self.needed_of_savers(needed);
        for saver in self.savers {
            let passed = self.policy.services.get(saver).map_or(Rights::EMPTY, passes);
            refuse(saver, needed.minus(passed))?;
        }
        Ok(())
    }

    /// Who hands authority on must have both it and the right to hand it on.
    fn needed_of_savers(&self, needed: Rights) -> Rights {
        if self.savers.is_empty() { needed } else { needed.union(Right::Delegate.into()) }
    }
}

/// Sorts `prefixes` and drops those that lie within another.
pub(crate) fn outermost(mut prefixes: Vec<Prefix>) -> Vec<Prefix> {
    // Shortest first, so that whatever covers another is kept before it is met.
    prefixes.sort_by_key(|prefix| prefix.as_str().len());
    let mut kept: Vec<Prefix> = Vec::new();
    for prefix in prefixes {
        if !kept.iter().any(|outer| outer.covers_prefix(&prefix)) {
            kept.push(prefix);
        }
    }
    kept.sort();
    kept
}

/// Names one grant of a policy by its place in the file.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct RuleId(pub(crate) Position);

impl RuleId {
    /// Where the grant begins.
    #[must_use]
    pub fn position(self) -> Position {
        self.0
    }
}

impl fmt::Display for RuleId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "grant at {}", self.0)
    }
}

/// How much a grant's prefix may hold, whoever wrote it. A part that is left out is unlimited.
///
/// Kept here; who knows the sizes charges against it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Quota {
    /// Bytes of keys and values together.
    pub bytes: Option<u64>,
    /// Number of keys.
    pub keys: Option<u64>,
    /// Bytes of the largest value.
    pub value_bytes_max: Option<u64>,
}
