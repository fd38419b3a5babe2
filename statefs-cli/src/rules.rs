//! The tools for policy files: what the daemon would say of one, without a daemon.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;

use policy::{
    Change, KeyError, Policy, PolicyError, Position, Prefix, Quota, Right, Rights, Target,
};
use serde_json::{Value as Json, json};

use crate::args::{ExplainArgs, Format, PolicyVerb};
use crate::failure::{Exit, Failure, counted};
use crate::output::Output;

/// Bytes of a file that are read; a policy's own limit is smaller.
const READ_BYTES_MAX: u64 = 4 << 20;

/// Runs one of the verbs.
pub(crate) fn run(verb: &PolicyVerb, output: Output) -> Result<(), Failure> {
    match verb {
        PolicyVerb::Check { file } => check(file, output),
        PolicyVerb::Explain(arguments) => explain(arguments, output),
        PolicyVerb::Diff { old, new } => diff(old, new, output),
    }
}

fn check(path: &Path, mut output: Output) -> Result<(), Failure> {
    output.work_on();
    let file = path.display().to_string();
    let errors = match Policy::parse(&text(path)?) {
        Ok(policy) => {
            let ((grants, ceilings), services) = (policy.rule_counts(), policy.services().len());
            let sound = json!({"services": services, "grants": grants, "ceilings": ceilings});
            let told = format!(
                "{file}: sound ({}, {}, {})",
                counted(services, "service"),
                counted(grants, "grant"),
                counted(ceilings, "ceiling")
            );
            output.either(&sound, &told)?;
            return output.finish();
        }
        Err(errors) => errors,
    };
    for error in &errors {
        let Position { line, column } = error.position;
        let fault = json!({
            "file": file, "line": line, "column": column, "message": error.kind.to_string(),
        });
        output.either(&fault, &error.in_file(&file).to_string())?;
    }
    output.finish()?;
    let faults = counted(errors.len(), "fault");
    Err(Failure::new("INVALID_POLICY", Exit::Failure, format!("{file}: {faults}")))
}

fn explain(arguments: &ExplainArgs, mut output: Output) -> Result<(), Failure> {
    let ExplainArgs { file, service, op, key } = arguments;
    let policy = load(file)?;
    let path = Prefix::parse(key).map_err(|error| bad_key(key, error))?;
    if Rights::ADMIN.contains(*op) && path != Prefix::root() {
        let message = format!("{op} acts on the whole store: ask for {}", Prefix::root().as_str());
        return Err(Failure::new("USAGE", Exit::Usage, message).about(key));
    }
    let target = match op {
        Right::List => Target::Within(&path),
        _ => Target::Prefix(&path),
    };
    let trace = policy.explain(service, *op, target);
    let lines = |positions: &mut dyn Iterator<Item = Position>| -> Vec<Json> {
        positions.map(|at| at.line.into()).collect()
    };
    let ceilings = trace.ceilings.iter();
    let ceilings: Vec<_> =
        ceilings.map(|(at, pass)| json!({"line": at.line, "lets": pass})).collect();
    let texts = |prefixes: &[Prefix]| -> Vec<Json> {
        prefixes.iter().map(|prefix| prefix.as_str().into()).collect()
    };
    let (rule, denial) = match &trace.outcome {
        Ok(rule) => (Some(rule.position().line), None),
        Err(denial) => (None, Some(denial)),
    };
    let missing = denial.and_then(|denial| denial.missing_grant()).map(|grant| {
        let rights: Vec<_> = grant.rights.iter().map(Right::name).collect();
        json!({"to": grant.to, "prefix": grant.prefix, "rights": rights})
    });
    let object = json!({
        "allowed": denial.is_none(), "service": service, "op": op.name(), "key": key, "rule": rule,
        "grants": lines(&mut trace.grants.iter().map(|rule| rule.position())),
        "ceilings": ceilings, "only": texts(&trace.shown), "hidden": texts(&trace.hidden),
        "reason": denial.map(ToString::to_string), "missing": missing,
    });
    output.either(&object, trace.to_string().trim_end())?;
    output.finish()?;
    if denial.is_none() {
        return Ok(());
    }
    // All is said; the exit code is for scripts.
    Err(Failure { code: "", message: String::new(), advice: "", exit: Exit::Denied })
}

fn diff(old: &Path, new: &Path, mut output: Output) -> Result<(), Failure> {
    for change in load(old)?.diff(&load(new)?) {
        match output.format {
            Format::Text => output.line(&change.to_string())?,
            Format::Json => output.json(&change_json(&change))?,
        }
    }
    output.finish()
}

fn change_json(change: &Change) -> Json {
    match change {
        Change::Service { service, before, after } => {
            json!({"change": "service", "service": **service, "before": before, "after": after})
        }
        Change::Rights { service, prefix, except, gained, lost } => {
            let names = |rights: policy::Rights| rights.iter().map(Right::name).collect::<Vec<_>>();
            let except: Vec<_> = except.iter().map(Prefix::as_str).collect();
            json!({
                "change": "rights", "service": **service, "prefix": prefix.as_str(),
                "except": except, "gained": names(*gained), "lost": names(*lost),
            })
        }
        Change::Quota { prefix, before, after } => {
            let quota = |quota: Quota| {
                json!({
                    "bytes": quota.bytes, "keys": quota.keys, "valueMax": quota.value_bytes_max,
                })
            };
            json!({
                "change": "quota", "prefix": prefix.as_str(),
                "before": before.map(quota), "after": after.map(quota),
            })
        }
    }
}

/// Reads a policy that has to be sound.
fn load(path: &Path) -> Result<Policy, Failure> {
    Policy::parse(&text(path)?).map_err(|errors| {
        let file = path.display().to_string();
        let faults: Vec<_> = errors.iter().map(|error| fault(&file, error)).collect();
        Failure::new("INVALID_POLICY", Exit::Failure, faults.join("\n"))
    })
}

fn fault(file: &str, error: &PolicyError) -> String {
    error.in_file(file).to_string()
}

fn text(path: &Path) -> Result<String, Failure> {
    let failed =
        |error: io::Error| Failure::new("POLICY_FILE", Exit::Failure, error).about(path.display());
    let file = File::open(path).map_err(failed)?;
    let mut text = String::new();
    file.take(READ_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

fn bad_key(key: &str, error: KeyError) -> Failure {
    Failure::new(error.code(), Exit::Failure, error).about(key)
}
