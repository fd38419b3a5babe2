//! From a draft to a policy: the rules are compared with each other, put in force, and held
//! against the file's own assertions.

use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec::Vec;

use crate::parse::{Assertion, CeilingDraft, Draft, GrantDraft, draft};
use crate::rules::{Ceiling, Grant, Service};
use crate::toml_reader::{Located, Reader};
use crate::{Policy, PolicyError, PolicyErrorKind, Right, Rights, RuleFault, RuleId, Target};

impl Policy {
    /// Reads a policy file, at most 64 KiB of TOML with `version = 1`.
    ///
    /// Three passes, each only if the one before found nothing: the parts by themselves, the
    /// rules together, the assertions. Cost: quadratic in the number of rules, which the size
    /// of the text bounds.
    ///
    /// # Errors
    /// Every fault of the first pass that found one, in the order of the file, at most 32.
    pub fn parse(text: &str) -> Result<Self, Vec<PolicyError>> {
        let mut reader = Reader::new(text);
        let draft = draft(&mut reader, text);
        if reader.is_clean() {
            compare(&mut reader, &draft);
        }
        if !reader.is_clean() {
            return Err(reader.into_errors());
        }
        let policy = enforce(&draft);
        for assertion in &draft.assertions {
            check_assertion(&mut reader, &policy, assertion);
        }
        if reader.is_clean() { Ok(policy) } else { Err(reader.into_errors()) }
    }
}

/// Puts the rules of a sound draft in force.
pub(crate) fn enforce(draft: &Draft) -> Policy {
    let mut services: BTreeMap<Arc<str>, Service> = BTreeMap::new();
    for service in &draft.services {
        let passes = draft.ceilings.iter().map(|ceiling| passes(ceiling, &service.name)).collect();
        let badge = service.badge.clone();
        let service_rules = Service { badge, grants: Vec::new(), passes };
        services.insert(service.name.as_str().into(), service_rules);
    }
    for grant in &draft.grants {
        if let Some(service) = services.get_mut(grant.to.value.as_str()) {
            let GrantDraft { prefix, rights, quota, .. } = grant;
            let (prefix, rule) = (prefix.clone(), RuleId(grant.at));
            service.grants.push(Grant { prefix, rights: *rights, quota: *quota, rule });
        }
    }
    let ceilings = draft.ceilings.iter();
    let ceilings = ceilings.map(|c| Ceiling { prefix: c.prefix.clone(), at: c.at }).collect();
    Policy { services, ceilings }
}

/// The rights that `ceiling` lets the service called `name` have in its prefix.
fn passes(ceiling: &CeilingDraft, name: &str) -> Rights {
    let is_named = ceiling.only.iter().any(|only| only.value == name);
    if is_named { ceiling.rights.unwrap_or(Rights::ALL) } else { Rights::EMPTY }
}

/// Reports whatever makes well-formed rules unsound together.
pub(crate) fn compare(reader: &mut Reader<'_>, draft: &Draft) {
    compare_services(reader, draft);
    check_names(reader, draft);
    for (index, grant) in draft.grants.iter().enumerate() {
        if let Some(fault) = grant_fault(draft, index, grant) {
            reader.report(grant.at, PolicyErrorKind::Rules(fault));
        }
    }
    for (index, ceiling) in draft.ceilings.iter().enumerate() {
        let mut earlier = draft.ceilings.iter().take(index);
        if let Some(same) = earlier.find(|earlier| earlier.prefix == ceiling.prefix) {
            let (section, what) = ("the ceiling", "prefix");
            let fault = RuleFault::Duplicate { section, what, at: same.at };
            reader.report(ceiling.at, PolicyErrorKind::Rules(fault));
        }
    }
    for (index, one) in draft.assertions.iter().enumerate() {
        let mut earlier = draft.assertions.iter().take(index);
        let key = |a: &Assertion| (a.service.value.clone(), a.right, a.path.clone());
        if let Some(same) = earlier.find(|earlier| key(earlier) == key(one)) {
            let (section, what) = ("the assertion", "service, op and key");
            let fault = RuleFault::Duplicate { section, what, at: same.at };
            reader.report(one.at, PolicyErrorKind::Rules(fault));
        }
    }
}

/// Reports services of which one peer could be both.
fn compare_services(reader: &mut Reader<'_>, draft: &Draft) {
    let mut in_order: Vec<_> = draft.services.iter().collect();
    in_order.sort_by_key(|service| service.at);
    for (index, service) in in_order.iter().enumerate() {
        let mut earlier = in_order.iter().take(index);
        if let Some(other) = earlier.find(|other| other.badge.overlaps(&service.badge)) {
            let fault = RuleFault::Ambiguous {
                service: service.name.clone(),
                other: other.name.clone(),
                at: other.at,
            };
            reader.report(service.at, PolicyErrorKind::Rules(fault));
        }
    }
}

/// Reports names that no section defines.
fn check_names(reader: &mut Reader<'_>, draft: &Draft) {
    let mut check = |name: &Located<String>| {
        if !draft.services.iter().any(|service| service.name == name.value) {
            let fault = RuleFault::UnknownService { name: name.value.clone() };
            reader.report(name.at, PolicyErrorKind::Rules(fault));
        }
    };
    draft.grants.iter().for_each(|grant| check(&grant.to));
    draft.ceilings.iter().flat_map(|ceiling| &ceiling.only).for_each(&mut check);
    draft.assertions.iter().for_each(|assertion| check(&assertion.service));
}

/// Why `grant`, the one at `index`, says nothing that is not said or forbidden elsewhere.
fn grant_fault(draft: &Draft, index: usize, grant: &GrantDraft) -> Option<RuleFault> {
    let others = draft.grants.iter().enumerate().filter(|(other, _)| *other != index);
    let mut others = others.filter(|(_, other)| other.to.value == grant.to.value);
    // The later of two grants on one prefix is at fault, whatever rights they give: written as
    // one, they have one quota.
    let same = others.clone().find(|(other, same)| *other < index && same.prefix == grant.prefix);
    if let Some((_, same)) = same {
        let (section, what) = ("the grant", "service and prefix");
        return Some(RuleFault::Duplicate { section, what, at: same.at });
    }
    // A quota bounds the subtree even where a wider grant gives all its rights.
    let wider = others.find(|(_, other)| {
        other.prefix != grant.prefix
            && other.prefix.covers_prefix(&grant.prefix)
            && other.rights.includes(grant.rights)
    });
    if let Some((_, wider)) = wider.filter(|_| grant.quota.is_none()) {
        return Some(RuleFault::Covered { at: wider.at });
    }
    let mut left = grant.rights;
    for ceiling in draft.ceilings.iter().filter(|over| over.prefix.covers_prefix(&grant.prefix)) {
        left = left.intersection(passes(ceiling, &grant.to.value));
        if left.is_empty() {
            return Some(RuleFault::Forbidden { at: ceiling.at });
        }
    }
    None
}

/// Reports an assertion that the policy breaks.
///
/// A list shows whatever of its subtree is granted. So who denies it means every part, as the daemon does, and who allows it
/// means all of them, lest a grant that shrinks go unnoticed.
fn check_assertion(reader: &mut Reader<'_>, policy: &Policy, assertion: &Assertion) {
    let Assertion { service, right, path, is_allowed, at } = assertion;
    let target = match (right, is_allowed) {
        (Right::List, false) => Target::Within(path),
        _ => Target::Prefix(path),
    };
    let trace = policy.explain(&service.value, *right, target);
    let fault = match (trace.outcome, is_allowed) {
        (Ok(_), true) | (Err(_), false) => return,
        (Ok(rule), false) => RuleFault::AssertedDeny { at: rule.position() },
        (Err(denial), true) => RuleFault::AssertedAllow { denial: Box::new(denial) },
    };
    reader.report(*at, PolicyErrorKind::Rules(fault));
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString as _;

    /// Two services, on lines 1 to 3; what a test adds begins on line 4.
    const HEAD: &str = "version = 1\nservice.a = { channel = \"a\" }\nservice.b.channel = \"b\"\n";

    fn check(text: &str, expected: &[&str]) {
        let told: Vec<String> = match Policy::parse(text) {
            Ok(_) => Vec::new(),
            Err(errors) => errors.iter().map(|e| e.in_file("p.toml").to_string()).collect(),
        };
        assert_eq!(told, expected, "{text}");
    }

    fn check_rules(rules: &str, expected: &[&str]) {
        check(&alloc::format!("{HEAD}{rules}"), expected);
    }

    fn grant(to: &str, prefix: &str, rights: &str) -> String {
        alloc::format!("[[grant]]\nto = \"{to}\"\nprefix = \"{prefix}\"\nrights = {rights}\n")
    }

    #[test]
    fn the_file_itself() {
        check("version = 1", &[]);
        check("", &["p.toml:1:1: a policy lacks `version`"]);
        check("version = 2", &["p.toml:1:11: the version must be 1"]);
        check("version = -1", &["p.toml:1:11: the version must be 1"]);
        check("version = \"1\"", &["p.toml:1:11: expected an integer, found a string"]);
        check(
            "version = 1\n\n  colour = 2",
            &["p.toml:3:3: a policy has no field \"colour\"; it has \
               version service grant ceiling assert"],
        );
        check("version = 1\nversion = 1", &["p.toml:2:1: duplicate key"]);
        check(
            "version = 1\ngrant = 1",
            &["p.toml:2:9: expected an array of tables, found an integer"],
        );
        check(
            "version = 1\nservice = []",
            &["p.toml:2:11: expected a table of services, found an array"],
        );
    }

    #[test]
    fn services() {
        let check = |text: &str, expected: &[&str]| {
            check(&alloc::format!("version = 1\n{text}"), expected);
        };
        check("[service.a]", &["p.toml:2:10: service \"a\" names neither `channel` nor `uid`"]);
        check("[service.a]\nuid = 1\n[service.a]\nuid = 2", &["p.toml:4:10: duplicate key"]);
        check(
            "[service.a]\npid = 7\nuid = 4294967295",
            &[
                "p.toml:3:1: [service] has no field \"pid\"; it has channel uid",
                "p.toml:4:7: the number must be 0 to 4294967294",
            ],
        );
        check("service.a.uid = 'root'", &["p.toml:2:17: expected an integer, found a string"]);
        check(
            "[service.\"a b\"]\nuid = 1",
            &["p.toml:2:10: a name is 1 to 64 letters, digits, `.`, `_` or `-`; not \"a b\""],
        );
        check(
            "[service.z]\nuid = 1\n[service.a]\nuid = 1\nchannel = 'a'\n[service.b]\nuid = 2",
            &["p.toml:4:10: one peer could be both \"a\" and \"z\" (line 2)"],
        );
        check(
            "[service.a]\nuid = 1\n[service.b]\nchannel = 'b'",
            &["p.toml:4:10: one peer could be both \"b\" and \"a\" (line 2)"],
        );
        check("[service.a]\nuid=1\nchannel='x'\n[service.b]\nchannel='x'\nuid=2", &[]);
    }

    #[test]
    fn the_parts_of_rules() {
        check_rules(
            "[[grant]]\nprefix = \"/state/\"\nrights = [\"get\", \"gte\", \"get\"]\ncolour = 1",
            &[
                "p.toml:4:1: [[grant]] lacks `to`",
                "p.toml:5:10: a path does not end in a slash",
                "p.toml:6:18: \"gte\" is no right; the rights are get list put delete watch \
                 snapshot delegate admin.stats admin.check admin.checkpoint admin.policy \
                 admin.audit",
                "p.toml:6:25: \"get\" is named twice",
                "p.toml:7:1: [[grant]] has no field \"colour\"; it has to prefix rights quota",
            ],
        );
        check_rules(&grant("a", "/state", "[]"), &["p.toml:7:10: `rights` is empty"]);
        check_rules(
            &grant("a", "/state", "[1]"),
            &["p.toml:7:11: expected a string, found an integer"],
        );
        check_rules(
            &grant("a", "/stateful", "\"get\""),
            &[
                "p.toml:6:10: a path begins with /state/ and names what is below",
                "p.toml:7:10: expected an array of strings, found a string",
            ],
        );
        check_rules(
            &grant("a", "/state/x", "[\"get\", \"admin.stats\"]"),
            &["p.toml:4:1: admin.stats acts on the whole volume: it must be on \"/state\""],
        );
        let quota = |quota: &str, expected: &[&str]| {
            let rules = alloc::format!("{}quota = {quota}", grant("a", "/state", "[\"get\"]"));
            check_rules(&rules, expected);
        };
        quota("{ bytes = 1, keys = 0x10, value_max = 9223372036854775807 }", &[]);
        quota("{}", &["p.toml:8:9: `quota` says nothing"]);
        quota("{ keys = 0 }", &["p.toml:8:18: the number must be 1 to 9223372036854775807"]);
        quota(
            "{ files = 1 }",
            &[
                "p.toml:8:9: `quota` says nothing",
                "p.toml:8:11: quota has no field \"files\"; it has bytes keys value_max",
            ],
        );
        check_rules(
            "[[ceiling]]\nprefix = '/state/x'\nonly = []\nrights = ['get', 'get']",
            &["p.toml:6:8: `only` is empty", "p.toml:7:18: \"get\" is named twice"],
        );
        check_rules(
            "[[assert]]\nservice = 'a'\nop = 'read'\nkey = '/state/../x'\nexpect = 'no\\n'",
            &[
                "p.toml:6:6: \"read\" is no right; the rights are get list put delete watch \
                 snapshot delegate admin.stats admin.check admin.checkpoint admin.policy \
                 admin.audit",
                "p.toml:7:7: no segment is . or .., but the one at byte 7",
                "p.toml:8:10: expected \"allow\" or \"deny\", found \"no\\\\n\"",
            ],
        );
    }

    #[test]
    fn unknown_services() {
        check_rules(
            "grant = [{ to = 'c', prefix = '/state', rights = ['get'] }]\n\
             ceiling = [{ prefix = '/state/x', only = ['a', 'd'] }]\n\
             assert = [{ service = 'e', op = 'get', key = '/state/x', expect = 'deny' }]",
            &[
                "p.toml:4:17: no service is named \"c\"",
                "p.toml:5:48: no service is named \"d\"",
                "p.toml:6:23: no service is named \"e\"",
            ],
        );
    }

    #[test]
    fn duplicates_and_unreachable_grants() {
        let read = "[\"get\", \"list\"]";
        let rules = |rules: &[String], expected: &[&str]| check_rules(&rules.concat(), expected);
        let same = "p.toml:8:1: the grant at line 4 has the same service and prefix; write one";
        rules(&[grant("a", "/state/x", read), grant("a", "/state/x", "[\"put\"]")], &[same]);
        let wider = "[\"get\", \"list\", \"put\"]";
        rules(&[grant("a", "/state/x", read), grant("a", "/state/x", wider)], &[same]);
        rules(&[grant("a", "/state/x", read), grant("b", "/state/x", read)], &[]);
        let covered = "p.toml:8:1: the grant at line 4 gives all of this already";
        rules(&[grant("a", "/state/x", read), grant("a", "/state/x/y", "[\"get\"]")], &[covered]);
        let covered = "p.toml:4:1: the grant at line 8 gives all of this already";
        rules(&[grant("a", "/state/x/y", "[\"get\"]"), grant("a", "/state/x", read)], &[covered]);
        rules(&[grant("a", "/state/x", read), grant("a", "/state/xy", read)], &[]);
        rules(&[grant("a", "/state/x", read), grant("a", "/state/x/y", "[\"put\"]")], &[]);
        let bounded = grant("a", "/state/x/y", read) + "quota = { keys = 1 }\n";
        rules(&[grant("a", "/state/x", read), bounded], &[]);

        let ceiling = |text: &str| alloc::format!("[[ceiling]]\nprefix = '/state/x'\n{text}\n");
        let forbidden =
            "p.toml:4:1: this grant is unreachable: the ceiling at line 8 leaves nothing of it";
        let x = |rights| grant("a", "/state/x/y", rights);
        rules(&[x(read), ceiling("only = ['b']")], &[forbidden]);
        rules(&[x(read), ceiling("only = ['a']\nrights = ['put']")], &[forbidden]);
        rules(&[x(read), ceiling("only = ['a', 'b']\nrights = ['get']")], &[]);
        rules(&[grant("a", "/state", read), ceiling("only = ['b']")], &[]);
        let same = "p.toml:7:1: the ceiling at line 4 has the same prefix; write one";
        rules(&[ceiling("only = ['b']"), ceiling("only = ['a']")], &[same]);
    }

    #[test]
    fn assertions() {
        let assert = |op: &str, key: &str, expect: &str| {
            let rule = "[[assert]]\nservice = 'a'\n";
            alloc::format!("{rule}op = '{op}'\nkey = '{key}'\nexpect = '{expect}'\n")
        };
        let rules = |asserts: &[String], expected: &[&str]| {
            check_rules(&(grant("a", "/state/x", "['get']") + &asserts.concat()), expected);
        };
        rules(&[assert("get", "/state/x/y", "allow"), assert("put", "/state/x/y", "deny")], &[]);
        rules(
            &[assert("get", "/state/x", "deny"), assert("put", "/state/x", "allow")],
            &[
                "p.toml:8:1: the assertion fails: the grant at line 4 allows it",
                "p.toml:13:1: the assertion fails: \"a\" may not put \"/state/x\": \
                 no grant to = \"a\", prefix = \"/state/x\", rights = [\"put\"]",
            ],
        );
        let twice = [assert("get", "/state/x", "allow"), assert("get", "/state/x", "deny")];
        rules(
            &twice,
            &["p.toml:13:1: the assertion at line 8 has the same service, op and key; write one"],
        );
        let part = "p.toml:8:1: admin.audit acts on the whole volume: it must be on \"/state\"";
        rules(&[assert("admin.audit", "/state/keystore", "deny")], &[part]);
        rules(&[assert("admin.audit", "/state/x", "allow")], &[part]);
        rules(&[assert("admin.audit", "/state", "deny")], &[]);
    }

    #[test]
    fn an_assertion_about_a_list_is_about_every_part_of_it() {
        let check = |rights: &str, key: &str, expect: &str, expected: &[&str]| {
            let grant = grant("a", "/state/net/wifi", rights);
            let assert = "[[assert]]\nservice = 'a'\nop = 'list'";
            let text = alloc::format!("{grant}{assert}\nkey = '{key}'\nexpect = '{expect}'\n");
            check_rules(&text, expected);
        };
        let allows = "p.toml:8:1: the assertion fails: the grant at line 4 allows it";
        for key in ["/state", "/state/net", "/state/net/wifi", "/state/net/wifi/ssid"] {
            check("['list']", key, "deny", &[allows]);
            check("['get']", key, "deny", &[]);
        }
        check("['list']", "/state/net/eth", "deny", &[]);
        check("['list']", "/state/net/wifi", "allow", &[]);
        let lacks = "p.toml:8:1: the assertion fails: \"a\" may not list \"/state/net\": \
                     no grant to = \"a\", prefix = \"/state/net\", rights = [\"list\"]";
        check("['list']", "/state/net", "allow", &[lacks]);
    }

    #[test]
    fn columns_count_characters_and_faults_are_bounded() {
        check(
            "version = 1 # é\nä = 1",
            &["p.toml:2:1: invalid unquoted key, expected letters, numbers, `-`, `_`"],
        );
        check(
            "version = 1\nservice.a = { channel = \"é\", pid = 1 }",
            &[
                "p.toml:2:25: a name is 1 to 64 letters, digits, `.`, `_` or `-`; not \"é\"",
                "p.toml:2:30: [service] has no field \"pid\"; it has channel uid",
            ],
        );
        let many: String = (0..100).map(|n| alloc::format!("x{n} = 1\n")).collect();
        let errors = Policy::parse(&many).unwrap_err();
        assert_eq!(errors.len(), crate::toml_reader::ERRORS_MAX);
        assert!(errors.iter().all(|error| error.code() == "INVALID_POLICY"));
        assert_eq!(
            errors[0].to_string(),
            "line 1, column 1: a policy has no field \"x0\"; it has version service grant ceiling assert"
        );
    }
}
