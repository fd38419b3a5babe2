//! The engine against a naive reading of the rules, over every small policy.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use crate::load::{compare, enforce};
use crate::parse::{CeilingDraft, Draft, GrantDraft, ServiceDraft};
use crate::service::Badge;
use crate::toml_reader::{Located, Reader};
use crate::{Change, Policy, PolicyErrorKind, Position, Prefix, Right, Rights, RuleFault, Scope};

const SERVICES: [&str; 2] = ["a", "b"];
const RIGHTS: [Right; 2] = [Right::Get, Right::Put];
const PREFIXES: [&str; 4] = ["/state", "/state/x", "/state/x/xy", "/state/xy"];

#[derive(Clone, Debug)]
struct ModelGrant {
    to: &'static str,
    prefix: &'static str,
    rights: &'static [Right],
}

#[derive(Clone, Debug)]
struct ModelCeiling {
    prefix: &'static str,
    only: &'static [&'static str],
    rights: Option<&'static [Right]>,
}

/// The rules read naively, segment by segment, with no tables made beforehand.
fn reference(
    grants: &[ModelGrant],
    ceilings: &[ModelCeiling],
    scope: Option<(&str, &[Right])>,
    service: &str,
    right: Right,
    path: &str,
) -> bool {
    let covers = |prefix: &str| {
        let mut segments = path.split('/');
        prefix.split('/').all(|segment| segments.next() == Some(segment))
    };
    let granted = grants
        .iter()
        .any(|grant| grant.to == service && covers(grant.prefix) && grant.rights.contains(&right));
    let under_ceilings = ceilings.iter().all(|ceiling| {
        let passes = ceiling.only.contains(&service)
            && ceiling.rights.is_none_or(|rights| rights.contains(&right));
        !covers(ceiling.prefix) || passes
    });
    let in_scope = scope.is_none_or(|(prefix, rights)| covers(prefix) && rights.contains(&right));
    granted && under_ceilings && in_scope
}

/// Every path of up to three segments below `/state` over two names, and `/state` itself. One
/// name begins with the other, which is where segments and characters part ways.
fn paths() -> Vec<Prefix> {
    let mut layers = vec_of(["/state".to_string()]);
    let mut all = layers.clone();
    for _ in 0..3 {
        let deeper = |path: &String| ["x", "xy"].map(|name| format!("{path}/{name}"));
        layers = layers.iter().flat_map(deeper).collect();
        all.extend(layers.clone());
    }
    all.iter().map(|path| Prefix::parse(path).expect("a path")).collect()
}

fn grant_pool() -> Vec<ModelGrant> {
    let mut pool = Vec::new();
    for to in SERVICES {
        for prefix in PREFIXES {
            for rights in [&RIGHTS[..1], &RIGHTS[1..], &RIGHTS[..]] {
                pool.push(ModelGrant { to, prefix, rights });
            }
        }
    }
    pool
}

/// Every set of up to one ceiling.
fn ceiling_pool() -> Vec<Vec<ModelCeiling>> {
    let mut pool = vec_of([Vec::new()]);
    for prefix in PREFIXES {
        for only in [&SERVICES[..1], &SERVICES[1..], &SERVICES[..]] {
            for rights in [None, Some(&RIGHTS[..1])] {
                pool.push(vec_of([ModelCeiling { prefix, only, rights }]));
            }
        }
    }
    pool
}

fn draft(grants: &[ModelGrant], ceilings: &[ModelCeiling]) -> Draft {
    let prefix = |path| Prefix::parse(path).expect("a prefix");
    let rights = |list: &[Right]| list.iter().copied().collect::<Rights>();
    let at = |line: usize| Position { line: u32::try_from(line).expect("few"), column: 1 };
    let name = |name: &str| Located { value: name.into(), at: at(1) };
    let services = SERVICES.iter().zip(0..).map(|(name, uid)| ServiceDraft {
        name: (*name).into(),
        badge: Badge { channel: None, uid: Some(uid) },
        at: at(1),
    });
    let grants = grants.iter().enumerate().map(|(index, grant)| GrantDraft {
        to: name(grant.to),
        prefix: prefix(grant.prefix),
        rights: rights(grant.rights),
        quota: None,
        at: at(10 + index),
    });
    let ceilings = ceilings.iter().enumerate().map(|(index, ceiling)| CeilingDraft {
        prefix: prefix(ceiling.prefix),
        only: ceiling.only.iter().map(|only| name(only)).collect(),
        rights: ceiling.rights.map(rights),
        at: at(20 + index),
    });
    Draft {
        services: services.collect(),
        grants: grants.collect(),
        ceilings: ceilings.collect(),
        assertions: Vec::new(),
    }
}

/// Calls `visit` with every set of up to `count_max` grants of `pool`.
fn each_set(pool: &[ModelGrant], count_max: usize, visit: &mut impl FnMut(&[ModelGrant])) {
    fn grow(
        rest: &[ModelGrant],
        set: &mut Vec<ModelGrant>,
        left: usize,
        visit: &mut impl FnMut(&[ModelGrant]),
    ) {
        visit(set);
        if left == 0 {
            return;
        }
        let mut rest = rest;
        while let Some((grant, later)) = rest.split_first() {
            set.push(grant.clone());
            grow(later, set, left - 1, visit);
            set.pop();
            rest = later;
        }
    }
    grow(pool, &mut Vec::new(), count_max, visit);
}

fn vec_of<T, const N: usize>(items: [T; N]) -> Vec<T> {
    items.into_iter().collect()
}

fn engine(policy: &Policy, scope: Option<&Scope>, name: &str, right: Right, path: &str) -> bool {
    let name = name.into();
    let subject = policy.subject(&name, None, scope).expect("a known service");
    subject.judge(right, right.into(), path).is_ok()
}

/// Compares every decision of `policy` and returns how many there were.
fn compare_all(
    policy: &Policy,
    grants: &[ModelGrant],
    ceilings: &[ModelCeiling],
    paths: &[Prefix],
) -> usize {
    for service in SERVICES {
        for right in RIGHTS {
            for path in paths.iter().map(Prefix::as_str) {
                let expected = reference(grants, ceilings, None, service, right, path);
                let found = engine(policy, None, service, right, path);
                assert_eq!(found, expected, "{service} {right} {path} {grants:?} {ceilings:?}");
            }
        }
    }
    SERVICES.len() * RIGHTS.len() * paths.len()
}

#[test]
fn engine_equals_reference_over_all_small_policies() {
    let (paths, pool, ceilings) = (paths(), grant_pool(), ceiling_pool());
    assert_eq!((paths.len(), pool.len(), ceilings.len()), (15, 24, 25));
    let mut decisions = 0;
    each_set(&pool, 3, &mut |grants| {
        for ceilings in &ceilings {
            let policy = enforce(&draft(grants, ceilings));
            decisions += compare_all(&policy, grants, ceilings, &paths);
        }
    });
    assert_eq!(decisions, (1 + 24 + 276 + 2024) * 25 * 60);
}

#[test]
fn a_scope_only_intersects() {
    let (paths, pool, ceilings) = (paths(), grant_pool(), ceiling_pool());
    each_set(&pool, 1, &mut |grants| {
        for ceilings in ceilings.iter().step_by(3) {
            let policy = enforce(&draft(grants, ceilings));
            for prefix in PREFIXES {
                for rights in [&RIGHTS[..1], &RIGHTS[..]] {
                    let set = rights.iter().copied().collect();
                    let scope = Scope::new(Prefix::parse(prefix).expect("a prefix"), set);
                    for (right, path) in
                        RIGHTS.iter().flat_map(|r| paths.iter().map(move |p| (*r, p)))
                    {
                        let (scoped, path) = (Some((prefix, rights)), path.as_str());
                        let expected = reference(grants, ceilings, scoped, "a", right, path);
                        let found = engine(&policy, Some(&scope), "a", right, path);
                        assert_eq!(found, expected, "{scope:?} {right} {path} {grants:?}");
                    }
                }
            }
        }
    });
}

/// What a list hides is what the reference refuses, key by key.
#[test]
fn hidden_is_what_a_ceiling_refuses() {
    let paths = paths();
    let all = RIGHTS.iter().copied().collect();
    let everything = [ModelGrant { to: "a", prefix: "/state", rights: &RIGHTS }];
    let pool: Vec<_> = ceiling_pool().into_iter().flatten().collect();
    for one in &pool {
        for two in &pool {
            let ceilings = [one.clone(), two.clone()];
            let policy = enforce(&draft(&everything, &ceilings));
            let name = "a".into();
            let subject = policy.subject(&name, None, None).expect("a known service");
            let hidden = subject.hidden(all, &Prefix::root());
            assert!(hidden.is_sorted());
            for path in &paths {
                let refused = RIGHTS.iter().any(|right| {
                    !reference(&everything, &ceilings, None, "a", *right, path.as_str())
                });
                let covering = hidden.iter().filter(|prefix| prefix.covers_prefix(path)).count();
                assert_eq!(covering, usize::from(refused), "{path} {ceilings:?}");
            }
        }
    }
}

/// A grant that the loader calls unreachable changes no decision when it goes.
#[test]
fn unreachable_grants_change_nothing() {
    let (paths, pool, ceilings) = (paths(), grant_pool(), ceiling_pool());
    let mut unreachable = 0;
    each_set(&pool, 2, &mut |grants| {
        for ceilings in &ceilings {
            let draft = draft(grants, ceilings);
            let mut reader = Reader::new("");
            compare(&mut reader, &draft);
            for error in reader.into_errors() {
                let index = usize::try_from(error.position.line).expect("few") - 10;
                let fault = match error.kind {
                    PolicyErrorKind::Rules(fault) => fault,
                    other => panic!("{other}"),
                };
                if matches!(fault, RuleFault::Covered { .. } | RuleFault::Forbidden { .. }) {
                    unreachable += 1;
                    let mut without = grants.to_vec();
                    without.remove(index);
                    compare_all(&enforce(&draft), &without, ceilings, &paths);
                }
            }
        }
    });
    assert!(unreachable > 1000, "{unreachable}");
}

/// What each service may do at each path.
fn all_rights(policy: &Policy, paths: &[Prefix]) -> Vec<Rights> {
    let at = |path| SERVICES.map(|service| policy.rights_at(service, path));
    paths.iter().flat_map(at).collect()
}

fn random_policy(
    random: &mut fastrand::Rng,
    grants: &[ModelGrant],
    ceilings: &[ModelCeiling],
) -> (Vec<ModelGrant>, Vec<ModelCeiling>) {
    let (grant_count, ceiling_count) = (random.usize(0..=4), random.usize(0..=3));
    let grants = random.choose_multiple(grants, grant_count);
    let ceilings = random.choose_multiple(ceilings, ceiling_count);
    (grants.into_iter().cloned().collect(), ceilings.into_iter().cloned().collect())
}

#[test]
fn the_rights_at_a_path_are_what_is_granted_there() {
    let (paths, pool, ceilings) = (paths(), grant_pool(), ceiling_pool());
    each_set(&pool, 2, &mut |grants| {
        for ceilings in &ceilings {
            let policy = enforce(&draft(grants, ceilings));
            for (service, path) in SERVICES.iter().flat_map(|s| paths.iter().map(move |p| (s, p))) {
                let granted = |right: &Right| {
                    reference(grants, ceilings, None, service, *right, path.as_str())
                };
                let expected: Rights = RIGHTS.iter().copied().filter(granted).collect();
                assert_eq!(policy.rights_at(service, path), expected, "{service} {path}");
            }
        }
    });
}

/// No order of rules matters, one more grant takes nothing away, one more ceiling gives nothing.
#[test]
fn order_is_nothing_grants_add_and_ceilings_take_away() {
    let (paths, pool) = (paths(), grant_pool());
    let over: Vec<_> = ceiling_pool().into_iter().flatten().collect();
    let mut random = fastrand::Rng::with_seed(1);
    let (mut gained, mut lost) = (0, 0);
    for _ in 0..20_000 {
        let (mut grants, mut ceilings) = random_policy(&mut random, &pool, &over);
        let before = all_rights(&enforce(&draft(&grants, &ceilings)), &paths);
        random.shuffle(&mut grants);
        random.shuffle(&mut ceilings);
        assert_eq!(all_rights(&enforce(&draft(&grants, &ceilings)), &paths), before);
        let one_more = random.choice(&pool).expect("a grant").clone();
        grants.push(one_more);
        let with_grant = all_rights(&enforce(&draft(&grants, &ceilings)), &paths);
        assert!(with_grant.iter().zip(&before).all(|(now, then)| now.includes(*then)));
        gained += usize::from(with_grant != before);
        let one_more = random.choice(&over).expect("a ceiling").clone();
        ceilings.push(one_more);
        let with_ceiling = all_rights(&enforce(&draft(&grants, &ceilings)), &paths);
        assert!(with_ceiling.iter().zip(&with_grant).all(|(now, then)| then.includes(*now)));
        lost += usize::from(with_ceiling != with_grant);
    }
    assert!(gained > 1000 && lost > 1000, "{gained} {lost}");
}

/// Each change that a comparison tells is one, where it says and nowhere else, and none is missing.
#[test]
fn a_comparison_tells_each_change_of_rights_once() {
    let (paths, pool) = (paths(), grant_pool());
    let over: Vec<_> = ceiling_pool().into_iter().flatten().collect();
    let mut random = fastrand::Rng::with_seed(2);
    let mut told = 0;
    for _ in 0..20_000 {
        let old = random_policy(&mut random, &pool, &over);
        let new = random_policy(&mut random, &pool, &over);
        let changes = enforce(&draft(&old.0, &old.1)).diff(&enforce(&draft(&new.0, &new.1)));
        for (name, path) in SERVICES.iter().flat_map(|s| paths.iter().map(move |p| (s, p))) {
            let there = changes.iter().filter_map(|change| match change {
                Change::Rights { service, prefix, except, gained, lost } => {
                    let here = prefix.covers_prefix(path)
                        && !except.iter().any(|hole| hole.covers_prefix(path));
                    (**service == **name && here).then_some((*gained, *lost))
                }
                Change::Service { .. } | Change::Quota { .. } => None,
            });
            let there: Vec<_> = there.collect();
            let may = |(grants, ceilings): &(Vec<_>, Vec<_>)| -> Rights {
                let granted =
                    |right: &Right| reference(grants, ceilings, None, name, *right, path.as_str());
                RIGHTS.iter().copied().filter(granted).collect()
            };
            let (before, after) = (may(&old), may(&new));
            let delta = (after.minus(before), before.minus(after));
            let expected = if before == after { Vec::new() } else { vec_of([delta]) };
            assert_eq!(there, expected, "{name} {path} {old:?} {new:?}");
            told += there.len();
        }
    }
    assert!(told > 10_000, "{told}");
}
