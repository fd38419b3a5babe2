//! Runs the proofs and the weakened rules by name.
//!
//! `recovery-model` runs all; `P`, `X`, `C` a family; `P9 X14` by name; `--small` the small
//! instances; `--shortest` searches breadth first, with traces; `--table` prints rows for the README. A line that starts with `!` is a surprise: a
//! proof that failed, a weakening that did no harm, or a run that met its bound.

#![forbid(unsafe_code)]

use recovery_model::{clean, runs};
use std::process::ExitCode;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let (flags, names): (Vec<_>, Vec<_>) = args.iter().partition(|a| a.starts_with("--"));
    let small = flags.iter().any(|f| *f == "--small");
    let shortest = flags.iter().any(|f| *f == "--shortest");
    let as_table = flags.iter().any(|f| *f == "--table");
    let wanted =
        |name: &str| names.is_empty() || names.iter().any(|n| *n == name || *n == &name[..1]);
    let mut surprises = 0;
    for run in runs::runs().iter().filter(|r| wanted(r.name)) {
        let mut run = if small { run.small() } else { run.clone() };
        if shortest {
            (run.config.shortest, run.config.trace) = (true, true);
        }
        surprises += u32::from(!answer(&run, as_table));
    }
    for run in clean::runs().iter().filter(|r| wanted(r.name)) {
        surprises += u32::from(!answer_cleaning(run));
    }
    if surprises == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Explores `run` and prints what it found; false for a surprise.
fn answer(run: &runs::Run, as_table: bool) -> bool {
    let r = run.explore();
    let found = match &r.violation {
        Some((broken, _)) => format!("VIOLATION {broken}"),
        None if r.complete => "holds (exhaustive)".into(),
        None => "no violation found, BOUND REACHED".into(),
    };
    let expected = r.violation.is_none() == run.holds && (r.complete || !run.holds);
    if as_table {
        println!(
            "| {} | {}/{} | {found} | {} | {} | {} | {} | {} | {} |",
            run.title,
            run.config.groups,
            run.config.groups_later,
            r.states,
            r.images,
            r.recoveries,
            r.residual,
            r.refused,
            r.no_place
        );
        return expected;
    }
    println!("{}{}: {found}", if expected { "  " } else { "! " }, run.title);
    println!(
        "    states {} images {} recoveries {} residual {} losses {} refused {} no-place {} \
         stuck {} in-place {} at-cut {} combined {}",
        r.states,
        r.images,
        r.recoveries,
        r.residual,
        r.losses,
        r.refused,
        r.no_place,
        r.stuck,
        r.in_place,
        r.at_cut,
        r.combined
    );
    let trace = r.violation.map(|v| v.1).unwrap_or_default();
    for (i, line) in trace.iter().enumerate() {
        println!("      {}. {line}", i + 1);
    }
    for (i, line) in r.residual_trace.iter().flatten().enumerate() {
        if run.config.trace {
            println!("      residual {}. {line}", i + 1);
        }
    }
    expected
}

fn answer_cleaning(run: &clean::CleaningRun) -> bool {
    let r = clean::explore(run.rule);
    let expected = r.violation.is_none() == run.holds;
    let mark = if expected { "  " } else { "! " };
    let found =
        r.violation.as_ref().map_or("holds (exhaustive)".into(), |v| format!("VIOLATION {}", v.0));
    println!("{mark}{}: {found} ({} states)", run.title, r.states);
    for (i, line) in r.violation.iter().flat_map(|v| &v.1).enumerate() {
        println!("      {}. {line}", i + 1);
    }
    expected
}
