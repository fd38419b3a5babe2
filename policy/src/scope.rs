//! What a capability holds: a subtree, rights in it, and by whose authority.

use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::{Prefix, Rights, ServiceId};

/// The power of one directory capability.
///
/// It never grants anything: [`decide`](crate::decide) lets a request pass only where the scope
/// and the policy of the moment both do. A scope that was saved for another service draws on the
/// grants of the service that saved it first, within the ceilings of every service it went
/// through and of its holder, and only while the first still has the right `delegate`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Scope {
    prefix: Prefix,
    rights: Rights,
    savers: Vec<Arc<str>>,
}

impl Scope {
    /// Most services that a capability may be handed on by; each costs a look at every ceiling.
    pub const SAVERS_MAX: usize = 8;

    /// `rights` in `prefix`, by the authority of whoever holds the scope.
    #[must_use]
    pub fn new(prefix: Prefix, rights: Rights) -> Self {
        Self {
            prefix,
            rights,
            savers: Vec::new(),
        }
    }

    /// The scope that a sealed token describes; `savers` in the order of [`Scope::savers`].
    ///
    /// `None` if there are more than [`Scope::SAVERS_MAX`]. The names must come from a token
    /// that this server sealed: the first one's grants are drawn on.
    #[must_use]
    pub fn restore<'n>(
        prefix: Prefix,
        rights: Rights,
        savers: impl IntoIterator<Item = &'n str>,
    ) -> Option<Self> {
        let savers: Vec<_> = savers
            .into_iter()
            .take(Self::SAVERS_MAX + 1)
            .map(Arc::from)
            .collect();
        (savers.len() <= Self::SAVERS_MAX).then_some(Self {
            prefix,
            rights,
            savers,
        })
    }

    /// The part of this scope that lies in `prefix` and in `rights`; `None` if `prefix` is not
    /// within the scope's. Rights that the scope lacks stay lacking.
    #[must_use]
    pub fn restrict(&self, prefix: Prefix, rights: Rights) -> Option<Self> {
        let rights = self.rights.intersection(rights);
        let savers = self.savers.clone();
        self.prefix.covers_prefix(&prefix).then_some(Self {
            prefix,
            rights,
            savers,
        })
    }

    /// This scope as `holder` would hand it to another service; `None` once it went through
    /// [`Scope::SAVERS_MAX`] services. Whether `holder` may hand it on is asked of
    /// [`decide`](crate::decide), as a demand for `delegate`.
    #[must_use]
    pub fn saved_by(&self, holder: &ServiceId) -> Option<Self> {
        let mut saved = self.clone();
        saved.savers.push(Arc::clone(holder.shared_name()));
        (saved.savers.len() <= Self::SAVERS_MAX).then_some(saved)
    }

    /// The subtree.
    #[must_use]
    pub fn prefix(&self) -> &Prefix {
        &self.prefix
    }

    /// The rights in it.
    #[must_use]
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// The services it was handed on by, the first one first; empty for a holder's own.
    pub fn savers(&self) -> impl ExactSizeIterator<Item = &str> {
        self.savers.iter().map(|name| &**name)
    }

    pub(crate) fn shared_savers(&self) -> &[Arc<str>] {
        &self.savers
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Right;

    fn prefix(path: &str) -> Prefix {
        Prefix::parse(path).expect("a prefix")
    }

    #[test]
    fn restrict_only_narrows() {
        let read = Rights::parse(["get", "list"]).unwrap();
        let scope = Scope::new(prefix("/state/foo"), read);
        let narrow = scope
            .restrict(prefix("/state/foo/bar"), Rights::ALL)
            .unwrap();
        assert_eq!(
            (narrow.prefix().as_str(), narrow.rights()),
            ("/state/foo/bar", read)
        );
        let weak = scope
            .restrict(prefix("/state/foo"), Right::Get.into())
            .unwrap();
        assert_eq!(weak.rights(), Right::Get.into());
        assert_eq!(scope.restrict(prefix("/state"), read), None);
        assert_eq!(scope.restrict(prefix("/state/foobar"), read), None);
        assert_eq!(narrow.restrict(prefix("/state/foo"), read), None);
    }

    #[test]
    fn restore_bounds_the_chain() {
        let names = ["x"; Scope::SAVERS_MAX + 1];
        let most = names.into_iter().skip(1);
        let restored = Scope::restore(Prefix::root(), Rights::ALL, most).unwrap();
        assert_eq!(restored.savers().len(), Scope::SAVERS_MAX);
        assert_eq!(Scope::restore(Prefix::root(), Rights::ALL, names), None);
        let narrow = restored.restrict(prefix("/state/a"), Rights::ALL).unwrap();
        assert_eq!(
            narrow.savers().len(),
            Scope::SAVERS_MAX,
            "authority stays the savers'"
        );
    }
}
