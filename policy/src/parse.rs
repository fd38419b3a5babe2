//! The text of a policy file, read into a draft: every part well formed, nothing compared yet.

use alloc::string::String;
use alloc::vec::Vec;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::service::{Badge, is_name};
use crate::toml_reader::{Located, Reader, Section};
use crate::{PolicyErrorKind, Position, Prefix, Quota, Right, Rights, RuleFault};

/// Longest policy file, in bytes: room for some five hundred grants.
pub(crate) const TEXT_BYTES_MAX: usize = 64 * 1024;
/// Most services: as many as there may be connections.
const SERVICES_MAX: usize = 128;
/// Most grants: more do not fit the text.
const GRANTS_MAX: usize = 2048;
/// Most ceilings: each is looked at in every decision.
const CEILINGS_MAX: usize = 256;
/// Most assertions: more do not fit the text.
const ASSERTS_MAX: usize = 2048;
/// The version of the file that this program reads.
const VERSION: u64 = 1;

/// What a file says, part by part.
#[derive(Default)]
pub(crate) struct Draft {
    pub(crate) services: Vec<ServiceDraft>,
    pub(crate) grants: Vec<GrantDraft>,
    pub(crate) ceilings: Vec<CeilingDraft>,
    pub(crate) assertions: Vec<Assertion>,
}

pub(crate) struct ServiceDraft {
    pub(crate) name: String,
    pub(crate) badge: Badge,
    pub(crate) at: Position,
}

pub(crate) struct GrantDraft {
    pub(crate) to: Located<String>,
    pub(crate) prefix: Prefix,
    pub(crate) rights: Rights,
    pub(crate) quota: Option<Quota>,
    pub(crate) at: Position,
}

pub(crate) struct CeilingDraft {
    pub(crate) prefix: Prefix,
    pub(crate) only: Vec<Located<String>>,
    pub(crate) rights: Option<Rights>,
    pub(crate) at: Position,
}

pub(crate) struct Assertion {
    pub(crate) service: Located<String>,
    pub(crate) right: Right,
    pub(crate) path: Prefix,
    pub(crate) is_allowed: bool,
    pub(crate) at: Position,
}

/// Reads `text`; what cannot be read is reported and left out.
pub(crate) fn draft(reader: &mut Reader<'_>, text: &str) -> Draft {
    if text.len() > TEXT_BYTES_MAX {
        let (bytes, bytes_max) = (text.len(), TEXT_BYTES_MAX);
        let start = reader.position(&(0..0));
        reader.report(start, PolicyErrorKind::TooLong { bytes, bytes_max });
        return Draft::default();
    }
    // Only the first: what a parser says after that is mostly an echo.
    match DeTable::parse(text) {
        Ok(root) => document(reader, root.get_ref()),
        Err(error) => {
            let at = reader.position(&error.span().unwrap_or(text.len()..text.len()));
            // The message alone: the parser's own display repeats the line.
            let message = error.message().into();
            reader.report(at, PolicyErrorKind::Syntax { message });
            Draft::default()
        }
    }
}

fn document<'t>(reader: &mut Reader<'_>, root: &'t DeTable<'t>) -> Draft {
    const KNOWN: &[&str] = &["version", "service", "grant", "ceiling", "assert"];
    reader.check_known("a policy", root, KNOWN);
    version(reader, root);
    let mut draft = Draft { services: services(reader, root), ..Draft::default() };
    let known: &[&str] = &["to", "prefix", "rights", "quota"];
    for section in reader.sections(root, "grant", "[[grant]]", known, GRANTS_MAX) {
        draft.grants.extend(grant(reader, &section));
    }
    let known: &[&str] = &["prefix", "only", "rights"];
    for section in reader.sections(root, "ceiling", "[[ceiling]]", known, CEILINGS_MAX) {
        draft.ceilings.extend(ceiling(reader, &section));
    }
    let known: &[&str] = &["service", "op", "key", "expect"];
    for section in reader.sections(root, "assert", "[[assert]]", known, ASSERTS_MAX) {
        draft.assertions.extend(assertion(reader, &section));
    }
    draft
}

fn version(reader: &mut Reader<'_>, root: &DeTable<'_>) {
    let Some(value) = root.get("version") else {
        let start = reader.position(&(0..0));
        let kind = PolicyErrorKind::MissingField { section: "a policy", field: "version" };
        return reader.report(start, kind);
    };
    let at = reader.position(&value.span());
    let DeValue::Integer(integer) = value.get_ref() else {
        return reader.wrong_type(at, "an integer", value.get_ref());
    };
    if u64::from_str_radix(integer.as_str(), integer.radix()) != Ok(VERSION) {
        reader.report(at, PolicyErrorKind::UnknownVersion { known: VERSION });
    }
}

fn services<'t>(reader: &mut Reader<'_>, root: &'t DeTable<'t>) -> Vec<ServiceDraft> {
    let Some(value) = root.get("service") else {
        return Vec::new();
    };
    let DeValue::Table(table) = value.get_ref() else {
        let at = reader.position(&value.span());
        reader.wrong_type(at, "a table of services", value.get_ref());
        return Vec::new();
    };
    if let Some((name, _)) = table.iter().nth(SERVICES_MAX) {
        let (at, count_max) = (reader.position(&name.span()), SERVICES_MAX);
        reader.report(at, PolicyErrorKind::TooMany { what: "services", count_max });
    }
    let mut services = Vec::new();
    for (key, value) in table.iter().take(SERVICES_MAX) {
        let at = reader.position(&key.span());
        let name = Located { value: &**key.get_ref(), at };
        let name = checked_name(reader, name);
        let known: &[&str] = &["channel", "uid"];
        let section = reader.section("[service]", at, value.get_ref(), known);
        let (Some(name), Some(section)) = (name, section) else {
            continue;
        };
        services.extend(service(reader, name, &section));
    }
    services
}

fn service(
    reader: &mut Reader<'_>,
    name: Located<String>,
    section: &Section<'_>,
) -> Option<ServiceDraft> {
    let channel = match section.optional("channel") {
        Some(value) => {
            let text = reader.text(value)?;
            Some(checked_name(reader, text)?.value.into_boxed_str())
        }
        None => None,
    };
    let uid = match section.optional("uid") {
        Some(value) => {
            // The last one is what the kernel says for "no user".
            let uid = reader.number(value, 0..=u64::from(u32::MAX - 1))?;
            Some(u32::try_from(uid.value).ok()?)
        }
        None => None,
    };
    if channel.is_none() && uid.is_none() {
        let service = name.value;
        let kind = PolicyErrorKind::Rules(RuleFault::NoIdentity { service });
        reader.report(name.at, kind);
        return None;
    }
    Some(ServiceDraft { name: name.value, badge: Badge { channel, uid }, at: name.at })
}

fn grant(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<GrantDraft> {
    // Every field is read before any gives up, so that one load tells of all faults.
    let to = reader.required(section, "to").and_then(|value| reader.text(value));
    let to = to.and_then(|to| checked_name(reader, to));
    let prefix = required_path(reader, section, "prefix");
    let listed = reader.required(section, "rights");
    let rights = listed.and_then(|value| rights(reader, value));
    let quota = section.optional("quota").map(|value| quota(reader, value));
    let quota = match quota {
        Some(quota) => Some(quota?),
        None => None,
    };
    let (to, prefix, rights) = (to?, prefix?, rights?);
    report_held(reader, section, rights, &prefix);
    Some(GrantDraft { to, prefix, rights, quota, at: section.at })
}

fn quota(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Quota> {
    const KNOWN: &[&str] = &["bytes", "keys", "value_max"];
    let at = reader.position(&value.span());
    let section = reader.section("quota", at, value.get_ref(), KNOWN)?;
    let mut limit = |field| match section.optional(field) {
        Some(value) => {
            // TOML promises integers of 63 bits and no more.
            reader.number(value, 1..=i64::MAX.unsigned_abs()).map(|number| Some(number.value))
        }
        None => Some(None),
    };
    let (bytes, keys, value_bytes_max) = (limit("bytes"), limit("keys"), limit("value_max"));
    let (bytes, keys, value_bytes_max) = (bytes?, keys?, value_bytes_max?);
    if bytes.is_none() && keys.is_none() && value_bytes_max.is_none() {
        reader.report(at, PolicyErrorKind::EmptyTable { field: "quota" });
        return None;
    }
    Some(Quota { bytes, keys, value_bytes_max })
}

fn ceiling(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<CeilingDraft> {
    let prefix = required_path(reader, section, "prefix");
    let only = reader.required(section, "only");
    let only = only.and_then(|value| reader.texts("only", value, SERVICES_MAX));
    let only: Option<Vec<_>> =
        only.and_then(|names| names.into_iter().map(|name| checked_name(reader, name)).collect());
    let rights = match section.optional("rights") {
        Some(value) => Some(rights(reader, value)?),
        None => None,
    };
    Some(CeilingDraft { prefix: prefix?, only: only?, rights, at: section.at })
}

fn assertion(reader: &mut Reader<'_>, section: &Section<'_>) -> Option<Assertion> {
    let service = reader.required(section, "service").and_then(|value| reader.text(value));
    let service = service.and_then(|name| checked_name(reader, name));
    let op = reader.required(section, "op").and_then(|value| reader.text(value));
    let right = op.and_then(|op| match Right::parse(op.value) {
        Ok(right) => Some(right),
        Err(error) => {
            reader.report(op.at, PolicyErrorKind::UnknownRight(error));
            None
        }
    });
    let path = required_path(reader, section, "key");
    let expect = reader.required(section, "expect").and_then(|value| reader.text(value))?;
    let is_allowed = match expect.value {
        "allow" => true,
        "deny" => false,
        text => {
            let kind = PolicyErrorKind::UnknownExpectation { text: text.into() };
            reader.report(expect.at, kind);
            return None;
        }
    };
    let (service, right, path) = (service?, right?, path?);
    report_held(reader, section, right.into(), &path);
    Some(Assertion { service, right, path, is_allowed, at: section.at })
}

/// Reports a right that nobody can hold on `path` because it is about the whole volume.
fn report_held(reader: &mut Reader<'_>, section: &Section<'_>, rights: Rights, path: &Prefix) {
    let admin = rights.intersection(Rights::ADMIN).iter().next();
    if let Some(right) = admin.filter(|_| *path != Prefix::root()) {
        reader.report(section.at, PolicyErrorKind::Rules(RuleFault::NotOnRoot { right }));
    }
}

fn checked_name(reader: &mut Reader<'_>, name: Located<&str>) -> Option<Located<String>> {
    let value = String::from(name.value);
    if is_name(name.value) {
        return Some(Located { value, at: name.at });
    }
    reader.report(name.at, PolicyErrorKind::BadName { name: value });
    None
}

fn required_path(
    reader: &mut Reader<'_>,
    section: &Section<'_>,
    field: &'static str,
) -> Option<Prefix> {
    let value = reader.required(section, field)?;
    let text = reader.text(value)?;
    let path = Prefix::parse(text.value);
    if let Err(error) = path {
        reader.report(text.at, PolicyErrorKind::BadPath(error));
    }
    path.ok()
}

fn rights(reader: &mut Reader<'_>, value: &Spanned<DeValue<'_>>) -> Option<Rights> {
    let names = reader.texts("rights", value, Right::ALL.len())?;
    let mut rights = Rights::EMPTY;
    let mut is_known = true;
    for name in names {
        match Right::parse(name.value) {
            Ok(right) => rights = rights.union(right.into()),
            Err(error) => {
                is_known = false;
                reader.report(name.at, PolicyErrorKind::UnknownRight(error));
            }
        }
    }
    is_known.then_some(rights)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Policy, Target};
    use alloc::{format, string::ToString as _};

    const VALID: &str = include_str!("../tests/appliance.toml");

    /// Whatever comes out of a text, it is a usable policy or faults within the text.
    fn check(text: &str) {
        match Policy::parse(text) {
            Ok(policy) => {
                let names: Vec<String> = policy.services().map(String::from).collect();
                for name in names {
                    let trace = policy.explain(&name, Right::Get, Target::Prefix(&Prefix::root()));
                    assert!(trace.to_string().ends_with('\n'));
                }
            }
            Err(errors) => {
                assert!((1..=crate::toml_reader::ERRORS_MAX).contains(&errors.len()));
                let lines = u32::try_from(text.matches('\n').count() + 1).unwrap();
                for error in errors {
                    assert!((1..=lines).contains(&error.position.line), "{error} of {lines}");
                    assert!(error.position.column >= 1);
                    let shown = error.in_file("policy.toml").to_string();
                    assert!(!shown.contains(char::is_control), "{shown:?}");
                }
            }
        }
    }

    #[test]
    fn the_sample_loads() {
        assert!(Policy::parse(VALID).is_ok(), "{:?}", Policy::parse(VALID));
    }

    #[test]
    fn every_truncation_loads_or_is_refused() {
        for end in 0..VALID.len() {
            if let Some(text) = VALID.get(..end) {
                check(text);
            }
        }
    }

    #[test]
    fn mutations_load_or_are_refused() {
        let pieces: Vec<&str> = VALID.split_inclusive([' ', '\n', '"', '=', ',', '.']).collect();
        let hostile = ["\0", "\u{202e}", "[", "]", "{", "}", "\"\"\"", "'", "#", "-1", "1e9", "\r"];
        let mut random = fastrand::Rng::with_seed(7);
        for _ in 0..4000 {
            let mut text = pieces.clone();
            for _ in 0..random.usize(1..4) {
                let (at, other) = (random.usize(0..text.len()), random.usize(0..text.len()));
                match random.u8(0..4) {
                    0 => drop(text.remove(at)),
                    1 => text.insert(at, pieces[other % pieces.len()]),
                    2 => text[at] = hostile[random.usize(0..hostile.len())],
                    _ => text.swap(at, other),
                }
            }
            check(&text.concat());
        }
    }

    #[test]
    fn random_bytes_are_refused() {
        let mut random = fastrand::Rng::with_seed(11);
        for length in 0..400 {
            let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
            check(&String::from_utf8_lossy(&bytes));
        }
    }

    #[test]
    fn size_and_nesting_are_bounded() {
        check(&"[".repeat(TEXT_BYTES_MAX));
        check(&format!("x = {}", "[".repeat(TEXT_BYTES_MAX - 4)));
        check(&format!("x = {}", "{a=".repeat(TEXT_BYTES_MAX / 3 - 4)));
        check(&"a.".repeat(TEXT_BYTES_MAX / 2));
        check(&"[[grant]]\n".repeat(TEXT_BYTES_MAX / 10));
        check(&"[[ceiling]]\n".repeat(TEXT_BYTES_MAX / 12));
        let services = (0..2000).map(|n| format!("[service.s{n}]\nuid={n}\n"));
        check(&format!("version = 1\n{}", services.collect::<String>()));
        let comment = format!("version = 1\n#{}", "x".repeat(TEXT_BYTES_MAX - 13));
        assert_eq!(comment.len(), TEXT_BYTES_MAX);
        assert!(Policy::parse(&comment).is_ok());
        assert_eq!(
            Policy::parse(&format!("{comment}x")).unwrap_err()[0].to_string(),
            "line 1, column 1: a policy has at most 65536 bytes, this one has 65537"
        );
    }

    #[test]
    fn quotas_are_kept() {
        let policy = Policy::parse(VALID).unwrap();
        let kept: Vec<_> = policy
            .quotas()
            .map(|(rule, to, prefix, quota)| format!("{rule} {to} {prefix} {quota:?}"))
            .collect();
        let golden = "grant at line 18 keystored /state/keystore Quota { bytes: Some(65536), \
                      keys: Some(64), value_bytes_max: Some(4096) }";
        assert_eq!(kept, [golden]);
    }
}
