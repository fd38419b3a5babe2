//! The one decision, and the permission that only it can make.

use alloc::vec::Vec;
use core::fmt;

use crate::{Denial, Key, Policy, Prefix, Right, Rights, RuleId, Scope, ServiceId};

/// What a request asks of the policy. Implemented by every request of the daemon; the answers
/// must not change while the request lives.
///
/// | request | `right` | `also` | `target` |
/// |---|---|---|---|
/// | read one value | `get` | – | the key |
/// | write, if the version still is … | `put` | `get` | the key |
/// | list names | `list` | – | the prefix |
/// | list names and values | `list` | `get` | the prefix |
/// | list what may be seen of names | `list` | – | within the prefix |
/// | open a directory | any | – | within the prefix |
/// | a batch | – | – | one demand for each of its operations |
/// | administration | `admin.…` | – | [`Prefix::root`] |
pub trait Demand {
    /// The right that the operation is named and audited after.
    fn right(&self) -> Right;

    /// What is needed besides; nothing, unless said otherwise.
    fn also(&self) -> Rights {
        Rights::EMPTY
    }

    /// What it is needed on.
    fn target(&self) -> Target<'_>;
}

/// What a demand is about.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Target<'a> {
    /// One value.
    Key(&'a Key),
    /// A whole subtree. A grant must cover all of it; parts that a deeper ceiling withholds are
    /// [`Granted::hidden`].
    Prefix(&'a Prefix),
    /// Whatever of a subtree is allowed, refused only if that is nothing: [`Granted::shown`] less
    /// [`Granted::hidden`].
    Within(&'a Prefix),
}

impl<'a> Target<'a> {
    /// The whole path.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        match self {
            Self::Key(key) => key.as_str(),
            Self::Prefix(prefix) | Self::Within(prefix) => prefix.as_str(),
        }
    }
}

/// A request that the policy allows: the proof is that it exists.
///
/// Only [`decide`] makes one; its fields are private, and there is neither another constructor
/// nor a way to put another request into it.
///
/// ```compile_fail,E0451
/// # fn rule() -> policy::RuleId { loop {} }
/// # fn service() -> policy::ServiceId { loop {} }
/// let forged = policy::Granted { request: (), service: service(), rule: rule(), shown: vec![], hidden: vec![] };
/// ```
///
/// The same functions without the forgery compile:
///
/// ```
/// # fn rule() -> policy::RuleId { loop {} }
/// # fn service() -> policy::ServiceId { loop {} }
/// fn handle(granted: policy::Granted<()>) {
///     granted.into_request()
/// }
/// ```
pub struct Granted<R> {
    request: R,
    service: ServiceId,
    rule: RuleId,
    shown: Vec<Prefix>,
    hidden: Vec<Prefix>,
}

impl<R> Granted<R> {
    /// What was allowed.
    pub fn request(&self) -> &R {
        &self.request
    }

    /// What was allowed, to be done now.
    pub fn into_request(self) -> R {
        self.request
    }

    /// Who asked.
    pub fn service(&self) -> &ServiceId {
        &self.service
    }

    /// The first grant in the policy file that gives [`Demand::right`].
    pub fn rule(&self) -> RuleId {
        self.rule
    }

    /// The subtrees of the target that grants cover with all the rights needed, sorted, none
    /// within another: for [`Target::Prefix`] the target itself. Empty for a key.
    pub fn shown(&self) -> &[Prefix] {
        &self.shown
    }

    /// The subtrees of the target that a ceiling withholds from at least one of the rights
    /// needed, sorted, none within another. Empty for a key, and nearly always.
    pub fn hidden(&self) -> &[Prefix] {
        &self.hidden
    }
}

/// Leaves the request out: it may hold a value, and values stay out of logs.
impl<R> fmt::Debug for Granted<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Granted");
        shown.field("service", &self.service).field("rule", &self.rule).finish_non_exhaustive()
    }
}

impl<R: Demand> Granted<R> {
    /// True if the answer may speak of `key`: it is in the target, shown and not hidden.
    ///
    /// Cost: one search in [`Granted::shown`] and one in [`Granted::hidden`].
    pub fn shows(&self, key: &Key) -> bool {
        let inside = match self.request.target() {
            Target::Key(target) => target == key,
            Target::Prefix(_) | Target::Within(_) => {
                self.shown.iter().any(|prefix| prefix.covers(key))
            }
        };
        inside && !self.hidden.iter().any(|prefix| prefix.covers(key))
    }
}

/// Decides whether `service` may do what `request` asks, now and through `capability`.
///
/// It may if the policy still knows the service by the evidence of its connection, the
/// capability (where there is one) reaches the target with all the rights, every ceiling over
/// the target lets all of them pass, and each of them has a grant that covers the target. The
/// store is not looked at, so a refusal tells nothing about what is in it.
///
/// Cost: a pass over the ceilings and over the service's grants, no allocation unless refused.
///
/// # Errors
/// [`Denial`] with the reason for the daemon's log; the peer gets [`Denial::PUBLIC`].
pub fn decide<R: Demand>(
    policy: &Policy,
    service: &ServiceId,
    capability: Option<&Scope>,
    request: R,
) -> Result<Granted<R>, Denial> {
    let (right, needed) = (request.right(), request.also().union(request.right().into()));
    let subject = policy.subject(service.shared_name(), Some(service.peer()), capability);
    let path = request.target().as_str();
    let verdict = subject.and_then(|subject| match request.target() {
        Target::Key(_) => {
            let rule = subject.judge(right, needed, path)?;
            Ok((rule, Vec::new(), Vec::new()))
        }
        Target::Prefix(prefix) => {
            let rule = subject.judge(right, needed, path)?;
            let hidden = subject.hidden(needed, prefix);
            Ok((rule, Vec::from([prefix.clone()]), hidden))
        }
        Target::Within(prefix) => subject.judge_within(right, needed, prefix),
    });
    match verdict {
        Ok((rule, shown, hidden)) => {
            let service = service.clone();
            Ok(Granted { request, service, rule, shown, hidden })
        }
        Err(refusal) => {
            let service = service.shared_name().clone();
            Err(Denial { service, right, path: path.into(), refusal })
        }
    }
}

#[cfg(all(test, feature = "parse"))]
mod tests {
    use super::*;
    use crate::Peer;
    use alloc::format;
    use alloc::string::{String, ToString as _};

    const APPLIANCE: &str = include_str!("../tests/appliance.toml");

    struct Ask {
        right: Right,
        also: Rights,
        target: Prefix,
    }

    impl Demand for Ask {
        fn right(&self) -> Right {
            self.right
        }
        fn also(&self) -> Rights {
            self.also
        }
        fn target(&self) -> Target<'_> {
            Target::Prefix(&self.target)
        }
    }

    fn ask(rights: &str, path: &str) -> Ask {
        let mut names = rights.split('+').map(|name| Right::parse(name).expect("a right"));
        let right = names.next().expect("a right");
        Ask { right, also: names.collect(), target: Prefix::parse(path).expect("a path") }
    }

    fn policy() -> Policy {
        Policy::parse(APPLIANCE).expect("a sound policy")
    }

    fn service(policy: &Policy, name: &str) -> ServiceId {
        let (channel, uid) = match name {
            "keystored" => ("keystored", 991),
            "updated" => ("default", 951),
            "netd" => ("default", 953),
            "operator" => ("admin", 0),
            _ => unreachable!("no such service in the sample"),
        };
        let peer = Peer { channel: channel.into(), uid: Some(uid) };
        let service = policy.identify(&peer).expect("a known peer");
        assert_eq!(service.name(), name);
        service
    }

    #[test]
    fn the_rule_is_the_first_that_gives_the_right() {
        let grants =
            [("/state", "'get', 'list'"), ("/state/x", "'put'"), ("/state/x/y", "'put', 'get'")];
        let grants = grants.map(|(prefix, rights)| {
            format!("[[grant]]\nto = 'a'\nprefix = '{prefix}'\nrights = [{rights}]\n")
        });
        let text = format!("version = 1\nservice.a.uid = 1\n{}", grants.concat());
        let policy = Policy::parse(&text).expect("a sound policy");
        let peer = Peer { channel: "default".into(), uid: Some(1) };
        let a = policy.identify(&peer).expect("a known peer");
        for (rights, line) in [("put+get", 7), ("get+put", 3), ("list", 3)] {
            let granted = decide(&policy, &a, None, ask(rights, "/state/x/y")).expect("granted");
            assert_eq!(granted.rule().position().line, line, "{rights}");
        }
    }

    #[test]
    fn a_granted_value_stays_out_of_logs() {
        struct Put(&'static str, Key);
        impl Demand for Put {
            fn right(&self) -> Right {
                Right::Put
            }
            fn target(&self) -> Target<'_> {
                Target::Key(&self.1)
            }
        }
        let policy = policy();
        let request = Put("hunter2", Key::parse("/state/boot/slot").unwrap());
        let granted = decide(&policy, &service(&policy, "updated"), None, request).unwrap();
        assert!(!format!("{granted:?}").contains("hunter2"));
        assert!(granted.shows(&granted.request().1) && granted.hidden().is_empty());
        assert_eq!(granted.service().name(), "updated");
        assert_eq!(granted.into_request().0, "hunter2");
    }

    fn outcome(name: &str, scope: Option<&Scope>, rights: &str, path: &str) -> String {
        let policy = policy();
        match decide(&policy, &service(&policy, name), scope, ask(rights, path)) {
            Ok(granted) => granted.rule().to_string(),
            Err(denial) => denial.to_string(),
        }
    }

    #[test]
    fn grants_and_refuses() {
        let check = |name, rights, path, expected: &str| {
            assert_eq!(outcome(name, None, rights, path), expected);
        };
        check("keystored", "get", "/state/keystore/device.key", "grant at line 18");
        check("keystored", "put+get", "/state/keystore/device.key", "grant at line 18");
        check("keystored", "list+get", "/state/keystore", "grant at line 18");
        check("operator", "list", "/state", "grant at line 34");
        check("operator", "admin.stats", "/state", "grant at line 34");
        check("netd", "put", "/state/net/secrets/psk", "grant at line 29");
        check(
            "keystored",
            "get",
            "/state/keystores/x",
            "\"keystored\" may not get \"/state/keystores/x\": no grant to = \"keystored\", \
             prefix = \"/state/keystores/x\", rights = [\"get\"]",
        );
        check(
            "updated",
            "put+list+get",
            "/state/boot/slot",
            "\"updated\" may not put \"/state/boot/slot\": no grant to = \"updated\", \
             prefix = \"/state/boot/slot\", rights = [\"list\"]",
        );
        check(
            "operator",
            "get",
            "/state/keystore/device.key",
            "\"operator\" may not get \"/state/keystore/device.key\": \
             the ceiling at line 39 keeps [\"get\"] from \"operator\"",
        );
        check(
            "netd",
            "put+get",
            "/state/net/secrets/psk",
            "\"netd\" may not put \"/state/net/secrets/psk\": \
             the ceiling at line 43 keeps [\"get\"] from \"netd\"",
        );
        check(
            "updated",
            "get",
            "/state/boot\u{202e}",
            "\"updated\" may not get \"/state/boot\\u202E\": no grant to = \"updated\", \
             prefix = \"/state/boot\\u202E\", rights = [\"get\"]",
        );
    }

    #[test]
    fn a_capability_only_narrows() {
        let scope = |path, rights: &str| {
            let rights = Rights::parse(rights.split('+')).expect("rights");
            Scope::new(Prefix::parse(path).expect("a prefix"), rights)
        };
        let all = Scope::new(Prefix::root(), Rights::ALL);
        assert_eq!(outcome("netd", Some(&all), "get", "/state/net/a"), "grant at line 29");
        assert_eq!(
            outcome("netd", Some(&all), "delete", "/state/net/a"),
            outcome("netd", None, "delete", "/state/net/a"),
        );
        let read = scope("/state/net/wifi", "get+list");
        assert_eq!(outcome("netd", Some(&read), "get", "/state/net/wifi/a"), "grant at line 29");
        for (rights, path) in [("get", "/state/net"), ("put", "/state/net/wifi/a")] {
            let expected = format!(
                "\"netd\" may not {rights} \"{path}\": \
                 its capability holds [\"get\", \"list\"] in \"/state/net/wifi\""
            );
            assert_eq!(outcome("netd", Some(&read), rights, path), expected);
        }
    }

    #[test]
    fn a_saved_capability_joins_the_savers_grants_and_every_ceiling() {
        let saved = |path, savers: &[&str]| {
            let prefix = Prefix::parse(path).expect("a prefix");
            Scope::restore(prefix, Rights::ALL, savers.iter().copied()).expect("a short chain")
        };
        let boot = saved("/state/boot", &["updated"]);
        let check = |name, scope: &Scope, rights, path, expected: &str| {
            assert_eq!(outcome(name, Some(scope), rights, path), expected);
        };
        check("netd", &boot, "get", "/state/boot/slot", "grant at line 24");
        let handed_on = saved("/state/boot", &["updated", "netd"]);
        check("operator", &handed_on, "put", "/state/boot/slot", "grant at line 24");
        check(
            "netd",
            &boot,
            "list",
            "/state/boot",
            "\"netd\" may not list \"/state/boot\": no grant to = \"updated\", \
             prefix = \"/state/boot\", rights = [\"list\"]",
        );
        // Who may not hand on has handed on nothing.
        check(
            "operator",
            &saved("/state/net", &["netd"]),
            "put",
            "/state/net/a",
            "\"operator\" may not put \"/state/net/a\": no grant to = \"netd\", \
             prefix = \"/state/net/a\", rights = [\"delegate\"]",
        );
        // The holder's ceiling holds, and so does the saver's.
        for (holder, saver) in [("netd", "keystored"), ("keystored", "netd")] {
            check(
                holder,
                &saved("/state/keystore", &[saver]),
                "get",
                "/state/keystore/device.key",
                &format!(
                    "\"{holder}\" may not get \"/state/keystore/device.key\": \
                     the ceiling at line 39 keeps {} from \"netd\"",
                    if holder == "netd" { "[\"get\"]" } else { "[\"get\", \"delegate\"]" }
                ),
            );
        }
        check(
            "netd",
            &saved("/state/boot", &["updated", "gone"]),
            "get",
            "/state/boot/slot",
            "\"netd\" may not get \"/state/boot/slot\": the policy knows no such peer as \"gone\"",
        );
    }

    #[test]
    fn saving_names_the_holder() {
        let policy = policy();
        let (updated, netd) = (service(&policy, "updated"), service(&policy, "netd"));
        let own = Scope::new(Prefix::parse("/state/boot").unwrap(), Rights::ALL);
        let mut scope = own.saved_by(&updated).expect("short");
        assert!(scope.savers().eq(["updated"]));
        let slot = || ask("get", "/state/boot/slot");
        assert!(decide(&policy, &netd, Some(&scope), slot()).is_ok());
        for _ in 1..Scope::SAVERS_MAX {
            scope = scope.saved_by(&netd).expect("short");
        }
        assert_eq!(scope.saved_by(&netd), None);
    }

    #[test]
    fn a_list_knows_its_holes() {
        let policy = policy();
        let operator = service(&policy, "operator");
        let listed = |rights, path| {
            decide(&policy, &operator, None, ask(rights, path)).expect("a granted list")
        };
        let holes = |granted: &Granted<Ask>| {
            granted.hidden().iter().map(|p| p.to_string()).collect::<alloc::vec::Vec<_>>()
        };
        let names = listed("list", "/state");
        assert_eq!(holes(&names), ["/state/keystore"]);
        let values = listed("list+get", "/state");
        assert_eq!(holes(&values), ["/state/keystore", "/state/net/secrets"]);
        assert!(holes(&listed("list", "/state/boot")).is_empty());
        for (path, with_names, with_values) in [
            ("/state/keystore/device.key", false, false),
            ("/state/keystore", false, false),
            ("/state/keystorex", true, true),
            ("/state/net/secrets/psk", true, false),
            ("/state/net/ssid", true, true),
        ] {
            let key = Key::parse(path).unwrap();
            assert_eq!((names.shows(&key), values.shows(&key)), (with_names, with_values));
        }
        let outside = Key::parse("/state/net/ssid").unwrap();
        assert!(!listed("list", "/state/boot").shows(&outside));
    }

    struct Within(Ask);

    impl Demand for Within {
        fn right(&self) -> Right {
            self.0.right
        }
        fn also(&self) -> Rights {
            self.0.also
        }
        fn target(&self) -> Target<'_> {
            Target::Within(&self.0.target)
        }
    }

    #[test]
    fn a_part_of_a_subtree_is_granted_where_any_of_it_is() {
        let policy = policy();
        let within = |name, scope: Option<&Scope>, rights, path| {
            let request = Within(ask(rights, path));
            match decide(&policy, &service(&policy, name), scope, request) {
                Ok(granted) => {
                    let shown: Vec<_> = granted.shown().iter().map(Prefix::as_str).collect();
                    let hidden: Vec<_> = granted.hidden().iter().map(Prefix::as_str).collect();
                    format!("{} less {}", shown.join(" "), hidden.join(" "))
                }
                Err(denial) => denial.to_string(),
            }
        };
        let check = |name, rights, path, expected: &str| {
            assert_eq!(within(name, None, rights, path), expected);
        };
        check("netd", "list", "/state", "/state/net less /state/keystore");
        check("netd", "list+get", "/state/net/a", "/state/net/a less ");
        check("operator", "list", "/state", "/state less /state/keystore");
        let none = "\"updated\" may not list \"/state\": no grant to = \"updated\", \
             prefix = \"/state\", rights = [\"list\"]";
        check("updated", "list", "/state", none);
        let none = "\"operator\" may not get \"/state/keystore/a\": \
             the ceiling at line 39 keeps [\"get\"] from \"operator\"";
        check("operator", "get", "/state/keystore/a", none);
        // All that is granted below lies under a ceiling.
        let text = APPLIANCE.replace("to = \"netd\"\nprefix = \"/state/net\"", NARROW);
        let narrow = Policy::parse(&text).expect("a sound policy");
        let netd = service(&narrow, "netd");
        assert!(decide(&narrow, &netd, None, Within(ask("put", "/state"))).is_ok());
        let denial = decide(&narrow, &netd, None, Within(ask("get", "/state"))).unwrap_err();
        assert!(matches!(denial.refusal(), crate::Refusal::Ceiling { .. }), "{denial}");
        let scope = Scope::new(Prefix::parse("/state/net").unwrap(), Rights::ALL);
        assert_eq!(
            within("netd", Some(&scope), "get", "/state/net"),
            "/state/net less /state/net/secrets"
        );
        assert!(within("netd", Some(&scope), "get", "/state").contains("its capability"));
    }

    const NARROW: &str = "to = \"netd\"\nprefix = \"/state/net/secrets\"";

    #[test]
    fn identity_is_held_against_the_policy_of_the_moment() {
        let old = policy();
        let updated = service(&old, "updated");
        let slot = || ask("get", "/state/boot/slot");
        assert!(decide(&old, &updated, None, slot()).is_ok());
        let moved = Policy::parse(&APPLIANCE.replace("uid = 951", "uid = 952")).unwrap();
        let denial = decide(&moved, &updated, None, slot()).unwrap_err();
        assert_eq!(
            denial.to_string(),
            "\"updated\" may not get \"/state/boot/slot\": \
             the policy knows no such peer as \"updated\""
        );
        assert_eq!(denial.missing_grant(), None);
        assert!(decide(&Policy::deny_all(), &updated, None, slot()).is_err());
    }

    #[test]
    fn nobody_is_identified_by_half() {
        let policy = policy();
        let peer = |channel: &str, uid| Peer { channel: channel.into(), uid };
        for stranger in [
            peer("keystored", Some(990)),
            peer("default", Some(991)),
            peer("keystored", None),
            peer("admin", Some(1)),
            peer("default", None),
        ] {
            assert_eq!(policy.identify(&stranger), None, "{stranger:?}");
        }
    }

    #[test]
    fn the_peer_learns_one_word_and_the_log_what_to_write() {
        let policy = policy();
        let updated = service(&policy, "updated");
        let denial = decide(&policy, &updated, None, ask("list+get", "/state/boot")).unwrap_err();
        assert_eq!((denial.code(), Denial::PUBLIC), ("ACCESS_DENIED", "ACCESS_DENIED"));
        let (service, path) = (denial.service(), denial.path());
        assert_eq!((service, denial.right(), path), ("updated", Right::List, "/state/boot"));
        let missing = denial.missing_grant().expect("a grant is what lacks").to_string();
        assert_eq!(
            missing,
            "[[grant]]\nto = \"updated\"\nprefix = \"/state/boot\"\nrights = [\"list\"]\n"
        );
        let narrow = ask("list", "/state/boot/a");
        let denial = decide(&policy, &updated, None, narrow).unwrap_err();
        let missing = denial.missing_grant().unwrap().to_string();
        let repaired = Policy::parse(&format!("{APPLIANCE}\n{missing}")).expect("it pastes");
        assert!(decide(&repaired, &updated, None, ask("list", "/state/boot/a")).is_ok());
    }
}
