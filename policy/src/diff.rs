//! What another policy would change: who gains and who loses which right where. It compares
//! meanings, so that moved, split and reworded rules are no difference.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::quote::Quoted;
use crate::rules::outermost;
use crate::service::Badge;
use crate::{Policy, Prefix, Quota, Rights};

/// One difference between two policies. Displays as one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Another peer, or none, is the service.
    Service {
        /// Its name.
        service: Arc<str>,
        /// Whom it was, in the words of the file; `None` if there was none of the name.
        before: Option<String>,
        /// Whom it is.
        after: Option<String>,
    },
    /// A service gains or loses rights.
    Rights {
        /// Its name.
        service: Arc<str>,
        /// Where: here and below.
        prefix: Prefix,
        /// Where not: other changes tell what changes there, or nothing does. Sorted, none within
        /// another.
        except: Vec<Prefix>,
        /// What it may do from now on.
        gained: Rights,
        /// What it may do no more.
        lost: Rights,
    },
    /// A subtree may hold more or less, whoever writes.
    Quota {
        /// The subtree.
        prefix: Prefix,
        /// What it could hold; `None` if there was no bound.
        before: Option<Quota>,
        /// What it can.
        after: Option<Quota>,
    },
}

/// Rights gained and lost.
const NOTHING: (Rights, Rights) = (Rights::EMPTY, Rights::EMPTY);

impl Policy {
    /// Tells what would change if `after` took the place of this policy: services, then rights,
    /// then quotas, each in the order of names and paths.
    ///
    /// Cost: quadratic in the rules that concern one service, which the size of a file bounds.
    #[must_use]
    pub fn diff(&self, after: &Self) -> Vec<Change> {
        let names: BTreeSet<_> = self.services.keys().chain(after.services.keys()).collect();
        let mut changes = Vec::new();
        for name in &names {
            let badge = |policy: &Self| policy.services.get(*name).map(|one| one.badge.clone());
            let (before, after) = (badge(self), badge(after));
            if before != after {
                let told = |badge: Option<Badge>| badge.map(|badge| alloc::format!("{badge}"));
                let service = Arc::clone(name);
                changes.push(Change::Service { service, before: told(before), after: told(after) });
            }
        }
        for name in names {
            self.diff_rights(after, name, &mut changes);
        }
        self.diff_quotas(after, &mut changes);
        changes
    }

    fn diff_rights(&self, after: &Self, name: &Arc<str>, changes: &mut Vec<Change>) {
        let mut prefixes = BTreeSet::from([Prefix::root()]);
        for policy in [self, after] {
            let grants = policy.services.get(name).map_or(&[][..], |service| &service.grants);
            prefixes.extend(grants.iter().map(|grant| grant.prefix.clone()));
            prefixes.extend(policy.ceilings.iter().map(|ceiling| ceiling.prefix.clone()));
        }
        let delta = |prefix: &Prefix| {
            let (old, new) = (self.rights_at(name, prefix), after.rights_at(name, prefix));
            (new.minus(old), old.minus(new))
        };
        let change = |prefix: &Prefix, except, (gained, lost): (Rights, Rights)| Change::Rights {
            service: Arc::clone(name),
            prefix: prefix.clone(),
            except,
            gained,
            lost,
        };
        let (gained, lost) = delta(&Prefix::root());
        let whole = (gained.intersection(Rights::ADMIN), lost.intersection(Rights::ADMIN));
        if whole != NOTHING {
            changes.push(change(&Prefix::root(), Vec::new(), whole));
        }
        // What no rule tells apart has one answer: that of the innermost of these prefixes.
        let places = prefixes.into_iter().map(|prefix| {
            let (gained, lost) = delta(&prefix);
            (prefix, (gained.minus(Rights::ADMIN), lost.minus(Rights::ADMIN)))
        });
        let places: Vec<_> = places.collect();
        for (prefix, delta) in &places {
            // Of those that cover it the longest, which is the last in order, is the nearest.
            let mut over = places.iter().rev().filter(|(over, _)| over.covers_prefix(prefix));
            let is_told = over.nth(1).map_or(*delta == NOTHING, |(_, over)| over == delta);
            if is_told || *delta == NOTHING {
                continue;
            }
            let differs = |(below, d): &&(Prefix, _)| prefix.covers_prefix(below) && d != delta;
            let except = places.iter().filter(differs).map(|(below, _)| below.clone());
            changes.push(change(prefix, outermost(except.collect()), *delta));
        }
    }

    fn diff_quotas(&self, after: &Self, changes: &mut Vec<Change>) {
        let (before, after) = (self.quota_map(), after.quota_map());
        let prefixes: BTreeSet<_> = before.keys().chain(after.keys()).collect();
        for prefix in prefixes {
            let (before, after) = (before.get(prefix).copied(), after.get(prefix).copied());
            if before != after {
                changes.push(Change::Quota { prefix: prefix.clone(), before, after });
            }
        }
    }

    /// What each subtree may hold: the least of what the grants on it say.
    #[must_use]
    pub fn quota_map(&self) -> BTreeMap<Prefix, Quota> {
        let mut map = BTreeMap::new();
        for (_, _, prefix, quota) in self.quotas() {
            map.entry(prefix.clone())
                .and_modify(|least: &mut Quota| *least = least.least(*quota))
                .or_insert(*quota);
        }
        map
    }
}

impl Quota {
    /// What passes neither.
    fn least(self, other: Self) -> Self {
        let least = |one: Option<u64>, two: Option<u64>| one.into_iter().chain(two).min();
        Self {
            bytes: least(self.bytes, other.bytes),
            keys: least(self.keys, other.keys),
            value_bytes_max: least(self.value_bytes_max, other.value_bytes_max),
        }
    }
}

impl fmt::Display for Quota {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let parts =
            [("bytes", self.bytes), ("keys", self.keys), ("value_max", self.value_bytes_max)];
        let mut comma = "";
        f.write_str("{ ")?;
        for (name, value) in parts {
            if let Some(value) = value {
                write!(f, "{comma}{name} = {value}")?;
                comma = ", ";
            }
        }
        f.write_str(" }")
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service { service, before, after } => {
                let service = Quoted(service);
                match (before, after) {
                    (Some(before), Some(after)) => {
                        write!(f, "service {service} was {before}, is {after}")
                    }
                    (Some(before), None) => write!(f, "service {service} was {before}, is gone"),
                    (None, after) => {
                        write!(f, "service {service} is new: {}", after.as_deref().unwrap_or(""))
                    }
                }
            }
            Self::Rights { service, prefix, except, gained, lost } => {
                write!(f, "{}", Quoted(service))?;
                match (gained.is_empty(), lost.is_empty()) {
                    (_, true) => write!(f, " gains {gained}")?,
                    (true, false) => write!(f, " loses {lost}")?,
                    (false, false) => write!(f, " gains {gained} and loses {lost}")?,
                }
                write!(f, " in {}", Quoted(prefix.as_str()))?;
                for (index, hole) in except.iter().enumerate() {
                    let word = if index == 0 { " except in" } else { "," };
                    write!(f, "{word} {}", Quoted(hole.as_str()))?;
                }
                Ok(())
            }
            Self::Quota { prefix, before, after } => {
                write!(f, "the quota of {}", Quoted(prefix.as_str()))?;
                match (before, after) {
                    (Some(before), Some(after)) => write!(f, " was {before}, is {after}"),
                    (Some(before), None) => write!(f, " was {before}, is gone"),
                    (None, Some(after)) => write!(f, " is new: {after}"),
                    (None, None) => f.write_str(" is what it was"),
                }
            }
        }
    }
}

#[cfg(all(test, feature = "parse"))]
mod tests {
    use super::*;
    use alloc::string::ToString;

    const APPLIANCE: &str = include_str!("../tests/appliance.toml");

    fn check(replaced: &[(&str, &str)], expected: &[&str]) {
        let old = Policy::parse(APPLIANCE).expect("sound");
        let mut text = String::from(APPLIANCE);
        for (from, to) in replaced {
            assert!(text.contains(from), "{from}");
            text = text.replace(from, to);
        }
        let new = Policy::parse(&text).unwrap_or_else(|errors| panic!("{errors:?}"));
        let told: Vec<_> = old.diff(&new).iter().map(ToString::to_string).collect();
        assert_eq!(told, expected);
        assert!(new.diff(&new).is_empty());
    }

    #[test]
    fn words_and_order_are_no_difference() {
        let split = "[[grant]]\nto = \"netd\"\nprefix = \"/state/net\"\nrights = [\"get\", \"list\", \"watch\", \"put\"]";
        let grants = "[[grant]]\nto = \"netd\"\nprefix = \"/state/net\"\nrights = [\"put\", \"watch\", \"list\", \"get\"] # all";
        check(&[(split, grants)], &[]);
    }

    #[test]
    fn tells_who_gains_and_loses_what_where() {
        check(
            &[("rights = [\"get\", \"put\", \"delegate\"]", "rights = [\"get\", \"delete\"]")],
            &[
                "\"updated\" gains [\"delete\"] and loses [\"put\", \"delegate\"] in \"/state/boot\"",
            ],
        );
        check(
            &[("prefix = \"/state/net\"\nrights", "prefix = \"/state/net/lan\"\nrights")],
            &[
                "\"netd\" loses [\"get\", \"list\", \"put\", \"watch\"] in \"/state/net\" \
               except in \"/state/net/lan\", \"/state/net/secrets\"",
                "\"netd\" loses [\"list\", \"put\"] in \"/state/net/secrets\"",
            ],
        );
        // A ceiling that goes is a gain below it, and the file that says so asserts the contrary.
        check(
            &[(
                "only = [\"netd\", \"operator\"]\nrights = [\"list\", \"put\"]",
                "only = [\"netd\"]",
            )],
            &[
                "\"netd\" gains [\"get\", \"watch\"] in \"/state/net/secrets\"",
                "\"operator\" loses [\"list\"] in \"/state/net/secrets\"",
            ],
        );
    }

    #[test]
    fn tells_of_services_and_quotas() {
        check(
            &[
                ("uid = 953", "uid = 953\nchannel = \"net\""),
                ("keys = 64, ", ""),
                ("\"admin.stats\", ", ""),
            ],
            &[
                "service \"netd\" was uid = 953, is channel = \"net\", uid = 953",
                "\"operator\" loses [\"admin.stats\"] in \"/state\"",
                "the quota of \"/state/keystore\" was { bytes = 65536, keys = 64, value_max = 4096 }, \
               is { bytes = 65536, value_max = 4096 }",
            ],
        );
        let old = Policy::deny_all();
        let new = Policy::parse(
            "version = 1\nservice.a = { channel = \"c\", uid = 7 }\n[[grant]]\nto = 'a'\n\
             prefix = '/state'\nrights = ['get']\nquota = { keys = 1 }\n",
        );
        let new = new.expect("sound");
        let told = |one: &Policy, two: &Policy| -> Vec<_> {
            one.diff(two).iter().map(ToString::to_string).collect()
        };
        assert_eq!(
            told(&old, &new),
            [
                "service \"a\" is new: channel = \"c\", uid = 7",
                "\"a\" gains [\"get\"] in \"/state\"",
                "the quota of \"/state\" is new: { keys = 1 }"
            ]
        );
        assert_eq!(
            told(&new, &old),
            [
                "service \"a\" was channel = \"c\", uid = 7, is gone",
                "\"a\" loses [\"get\"] in \"/state\"",
                "the quota of \"/state\" was { keys = 1 }, is gone"
            ]
        );
    }
}
