//! What a policy decides: every service, right and telling path of a sample, with the rule or the
//! reason. A change of a decision shows as a change of a line.

use std::fmt::Write as _;

use policy::{Policy, Prefix, Refusal, Right, Rights, Target};

const SAMPLE: &str = include_str!("../../policy/tests/appliance.toml");

/// Inside, at the edge of and beside what the rules name.
const PATHS: &[&str] = &[
    "/state",
    "/state/boot",
    "/state/boot/slot",
    "/state/bootx",
    "/state/keystore",
    "/state/keystore/device.key",
    "/state/net",
    "/state/net/secrets",
    "/state/net/secrets/psk",
    "/state/net/ssid",
    "/state/other",
];

#[test]
fn decisions() {
    let policy = Policy::parse(SAMPLE).unwrap_or_else(|errors| panic!("{errors:?}"));
    let mut text = String::new();
    for service in policy.services() {
        for right in Right::ALL {
            writeln!(text, "{service} {right}").unwrap();
            let on_volume = Rights::ADMIN.contains(right);
            for path in PATHS.iter().filter(|path| !on_volume || **path == "/state") {
                let prefix = Prefix::parse(path).unwrap();
                let target = match right {
                    Right::List => Target::Within(&prefix),
                    _ => Target::Prefix(&prefix),
                };
                let trace = policy.explain(service, right, target);
                let decision = match &trace.outcome {
                    Ok(rule) => format!("allow, {rule}"),
                    Err(denial) => format!("deny, {}", why(denial.refusal())),
                };
                let parts = |word, prefixes: &[Prefix]| {
                    let paths: Vec<&str> = prefixes.iter().map(Prefix::as_str).collect();
                    if paths.is_empty() {
                        String::new()
                    } else {
                        format!(", {word} {}", paths.join(" "))
                    }
                };
                let (only, less) = (parts("only", &trace.shown), parts("less", &trace.hidden));
                let less = if trace.outcome.is_ok() { less } else { String::new() };
                writeln!(text, "  {path}: {decision}{only}{less}").unwrap();
            }
        }
    }
    let mut settings = insta::Settings::clone_current();
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings.bind(|| insta::assert_snapshot!("policy_decisions", text));
}

fn why(refusal: &Refusal) -> String {
    match refusal {
        Refusal::NoGrant { lacking, .. } => format!("no grant of {lacking}"),
        Refusal::Ceiling { at, lacking, .. } => format!("ceiling at {at} keeps {lacking}"),
        Refusal::UnknownService { .. } | Refusal::OutsideCapability { .. } => {
            unreachable!("known services ask, through no capability")
        }
    }
}
