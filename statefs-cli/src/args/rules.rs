//! The command lines of the tools for policy files.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use policy::Right;

#[derive(Subcommand, Debug)]
pub(crate) enum PolicyVerb {
    /// Tell every fault of a policy file, as the daemon would when it loads it
    ///
    /// Each fault is a line `FILE:LINE:COLUMN: what`, which editors follow. The assertions of the file
    /// are held against its rules. Exits with 1 if there is a fault. Who owns the file, and who may
    /// write it, only the daemon judges.
    #[command(verbatim_doc_comment, after_help = CHECK)]
    Check {
        /// The policy file
        file: PathBuf,
    },
    /// Tell whether a service may do something, and the rules that decide
    ///
    /// Exits with 0 if it may and with 5 if not: then it names the ceiling that forbids it, or the
    /// smallest grant that is missing, as text to paste into the file.
    #[command(verbatim_doc_comment, after_help = EXPLAIN)]
    Explain(ExplainArgs),
    /// Tell which service gains or loses which right where, if NEW took the place of OLD
    ///
    /// It compares what the files mean: rules that were moved, split or worded otherwise are no
    /// difference. Prints nothing if there is none. Exits with 0 in either case.
    #[command(verbatim_doc_comment, after_help = DIFF)]
    Diff {
        /// The policy file in force
        old: PathBuf,
        /// The one to take its place
        new: PathBuf,
    },
}

#[derive(Args, Debug)]
pub(crate) struct ExplainArgs {
    /// The policy file
    pub(crate) file: PathBuf,
    /// Who asks: a name of the file
    #[arg(long, value_name = "NAME")]
    pub(crate) service: String,
    /// What for: a right, such as get, list, put, delete or admin.stats
    #[arg(long, value_parser = Right::parse)]
    pub(crate) op: Right,
    /// The whole key, or /state; for `list` whose names: this one and what lies beneath it
    pub(crate) key: String,
}

const CHECK: &str = "\
Examples:
  statefs policy check /etc/statefs/policy.toml && systemctl reload statefsd
  statefs policy check policy.toml -o json      a fault a line, or {\"ceilings\",\"grants\",\"services\"}";

const EXPLAIN: &str = "\
Examples:
  statefs policy explain policy.toml --service netd --op put /state/net/ssid
  statefs policy explain policy.toml --service operator --op list /state -o json";

const DIFF: &str = "\
Examples:
  statefs policy diff /etc/statefs/policy.toml new.toml
  statefs policy diff old.toml new.toml -o json      {\"change\":\"rights\" | \"service\" | \"quota\",...}";
