//! A decision with its working shown, for people who write policies.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::fmt;

use crate::quote::Quoted;
use crate::{Denial, Policy, Position, Prefix, Right, Rights, RuleId, Target};

/// Why a service may or may not do something. Displays as the lines to print.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Trace {
    /// What would be decided: the rule that grants, or the refusal.
    pub outcome: Result<RuleId, Denial>,
    /// Every grant that covers the path and gives the right, in the order of the file.
    pub grants: Vec<RuleId>,
    /// Every ceiling over the path, in the order of the file, and whether it lets this pass.
    pub ceilings: Vec<(Position, bool)>,
    /// For [`Target::Within`], the subtrees that would be shown if it is less than the whole.
    pub shown: Vec<Prefix>,
    /// For a subtree, those parts of it that a ceiling withholds.
    pub hidden: Vec<Prefix>,
    service: Arc<str>,
    right: Right,
    target: Arc<str>,
}

impl Policy {
    /// Shows how a request of `service` for `right` on `target` would be decided if it came over
    /// no capability but the service's own.
    #[must_use]
    pub fn explain(&self, service: &str, right: Right, target: Target<'_>) -> Trace {
        let (service, path): (Arc<str>, _) = (service.into(), target.as_str());
        let (mut grants, mut ceilings) = (Vec::new(), Vec::new());
        let (mut shown, mut hidden) = (Vec::new(), Vec::new());
        let subject = self.subject(&service, None, None);
        let outcome = subject.and_then(|subject| {
            let giving = subject.grants_over(path).filter(|grant| grant.rights.contains(right));
            grants.extend(giving.map(|grant| grant.rule));
            let over = subject.ceilings_over(path);
            ceilings.extend(over.map(|(ceiling, passes)| (ceiling.at, passes.contains(right))));
            let needed = Rights::from(right);
            match target {
                Target::Key(_) => subject.judge(right, needed, path),
                Target::Prefix(prefix) => {
                    hidden = subject.hidden(needed, prefix);
                    subject.judge(right, needed, path)
                }
                Target::Within(prefix) => {
                    let (rule, parts, holes) = subject.judge_within(right, needed, prefix)?;
                    // What nobody would see anyway is not withheld by the ceiling.
                    let seen = |hole: &Prefix| parts.iter().any(|part| part.covers_prefix(hole));
                    hidden = holes.into_iter().filter(seen).collect();
                    shown = parts.into_iter().filter(|part| part != prefix).collect();
                    Ok(rule)
                }
            }
        });
        let outcome = outcome.map_err(|refusal| Denial {
            service: Arc::clone(&service),
            right,
            path: path.into(),
            refusal,
        });
        Trace { outcome, grants, ceilings, shown, hidden, service, right, target: path.into() }
    }
}

impl fmt::Display for Trace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.outcome {
            Ok(_) => {
                let path = Quoted(&self.target);
                writeln!(f, "allow: {} may {} {path}", Quoted(&self.service), self.right)?;
            }
            Err(denial) => writeln!(f, "deny: {denial}")?,
        }
        for rule in &self.grants {
            writeln!(f, "  {rule} gives {}", self.right)?;
        }
        for (at, passes) in &self.ceilings {
            let verb = if *passes { "lets it pass" } else { "forbids it" };
            writeln!(f, "  ceiling at {at} {verb}")?;
        }
        if self.outcome.is_ok() {
            for part in &self.shown {
                writeln!(f, "  only in {}", Quoted(part.as_str()))?;
            }
            for hole in &self.hidden {
                writeln!(f, "  a ceiling withholds {}", Quoted(hole.as_str()))?;
            }
        }
        let Err(denial) = &self.outcome else {
            return Ok(());
        };
        match denial.missing_grant() {
            Some(missing) => write!(f, "  what is missing:\n{missing}"),
            None => Ok(()),
        }
    }
}

#[cfg(all(test, feature = "parse"))]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    fn check(service: &str, right: Right, path: &str, expected: &str) {
        let policy = Policy::parse(include_str!("../tests/appliance.toml")).expect("sound");
        let path = Prefix::parse(path).expect("a path");
        let trace = policy.explain(service, right, Target::Prefix(&path));
        assert_eq!(trace.to_string(), expected);
    }

    #[test]
    fn a_list_is_judged_by_what_it_would_show() {
        let policy = Policy::parse(include_str!("../tests/appliance.toml")).expect("sound");
        let check = |service: &str, path: &str, expected: &str| {
            let path = Prefix::parse(path).expect("a path");
            let trace = policy.explain(service, Right::List, Target::Within(&path));
            assert_eq!(trace.to_string(), expected);
        };
        check("netd", "/state", "allow: \"netd\" may list \"/state\"\n  only in \"/state/net\"\n");
        check(
            "operator",
            "/state",
            "allow: \"operator\" may list \"/state\"\n  grant at line 34 gives list\n  \
             a ceiling withholds \"/state/keystore\"\n",
        );
    }

    #[test]
    fn tells_the_lines_that_decide() {
        check(
            "netd",
            Right::Put,
            "/state/net/secrets/psk",
            "allow: \"netd\" may put \"/state/net/secrets/psk\"\n  \
             grant at line 29 gives put\n  \
             ceiling at line 43 lets it pass\n",
        );
        check(
            "operator",
            Right::Get,
            "/state/keystore/device.key",
            "deny: \"operator\" may not get \"/state/keystore/device.key\": \
             the ceiling at line 39 keeps [\"get\"] from \"operator\"\n  \
             grant at line 34 gives get\n  \
             ceiling at line 39 forbids it\n",
        );
        check(
            "updated",
            Right::Delete,
            "/state/boot/slot",
            "deny: \"updated\" may not delete \"/state/boot/slot\": no grant to = \"updated\", \
             prefix = \"/state/boot/slot\", rights = [\"delete\"]\n  \
             what is missing:\n\
             [[grant]]\nto = \"updated\"\nprefix = \"/state/boot/slot\"\nrights = [\"delete\"]\n",
        );
        check(
            "no\nbody",
            Right::Get,
            "/state",
            "deny: \"no\\u000Abody\" may not get \"/state\": \
             the policy knows no such peer as \"no\\u000Abody\"\n",
        );
    }
}
