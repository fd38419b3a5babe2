//! The command line: verbs, options, and their help.

mod changes;
mod rules;
mod tools;

use std::ffi::OsString;
use std::path::PathBuf;

pub(crate) use crate::program::Format;
use crate::program::Reach;
pub(crate) use changes::{AdminVerb, AuditArgs, CommitArgs};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;
pub(crate) use rules::{ExplainArgs, PolicyVerb};
use statefs_client::Version;
pub(crate) use tools::{FsckArgs, ImportArgs, InspectArgs, Origin, SalvageArgs, UndoArgs};

/// Reach a StateFS daemon, or work on a volume's image.
///
/// Data goes to standard output, everything else to standard error, both without colours. No verb
/// waits for ever: an answer that takes longer than 30 seconds is given up (but for that of `admin
/// check`), and what destroys asks only on a terminal.
#[derive(Parser, Debug)]
#[command(name = "statefs", version, verbatim_doc_comment, after_help = EXIT_CODES)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) reach: Reach,

    #[command(subcommand)]
    pub(crate) verb: Verb,
}

#[derive(Subcommand, Debug)]
pub(crate) enum Verb {
    #[command(flatten)]
    Online(OnlineVerb),
    /// Work on a volume's image or block device, without a daemon
    #[command(subcommand)]
    Image(ImageVerb),
    /// Work on a policy file, without a daemon
    #[command(subcommand)]
    Policy(PolicyVerb),
    /// Tell the whole story in a few seconds, with a real daemon; leaves nothing behind
    ///
    /// Makes an image, a policy with two services and a daemon in a temporary directory, then has
    /// them store, be refused, crash and recover. Every line is checked before it is printed; a
    /// check that fails ends with 1.
    #[command(verbatim_doc_comment, after_help = DEMO)]
    Demo,
    /// Print what makes a shell complete verbs and options
    #[command(after_help = tools::COMPLETIONS)]
    Completions {
        /// The shell
        shell: Shell,
    },
    /// Write the man pages of both programs, and print their paths
    #[command(after_help = tools::MAN)]
    Man {
        /// The folder to write them into; it is made when it is missing
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

#[derive(Subcommand, Debug)]
pub(crate) enum OnlineVerb {
    /// Write a key, and print the version of this write
    ///
    /// When this succeeds the value survives a power cut, unless --buffered says otherwise.
    #[command(verbatim_doc_comment, after_help = PUT)]
    Put(PutArgs),
    /// Print a key's value: its bytes and nothing else, also on a terminal
    #[command(after_help = GET)]
    Get {
        /// The whole key, such as /state/net/wifi
        key: String,
    },
    /// Remove a key; what lies beneath it stays
    #[command(after_help = DELETE)]
    Delete {
        /// The whole key
        key: String,
    },
    /// List keys in the order of their bytes, with version and size; with -o json, their values too
    ///
    /// But for values that are longer than a call takes: their lines say `"large":true`, and `get`
    /// reads them.
    #[command(verbatim_doc_comment, after_help = LIST)]
    List {
        /// A whole key: list it and what lies beneath it
        #[arg(default_value = "/state")]
        prefix: String,
        /// One whole key per line; needs only the right `list`
        #[arg(long)]
        keys_only: bool,
    },
    /// Ask for a barrier: what the store took as buffered before becomes durable
    ///
    /// The guarantee of `sync` belongs to a connection, and each run of this program is one of its
    /// own: it shows that the store can make writes durable, and orders nothing for others.
    #[command(verbatim_doc_comment, after_help = SYNC)]
    Sync,
    /// Tell what the store can do; fails unless it is healthy or degraded
    ///
    /// Who has the right `admin.stats` is also told how full the volume is, what a start would replay,
    /// how far a check came or what it found, and what was repaired.
    #[command(verbatim_doc_comment, after_help = HEALTH)]
    Health,
    /// Print the name under which the policy knows the caller
    #[command(after_help = WHOAMI)]
    Whoami,
    /// Tell a key's version and size, or the daemon's version, mode, limits and figures
    ///
    /// The figures take the right `admin.stats`; who lacks it is told the rest.
    #[command(verbatim_doc_comment, after_help = STAT)]
    Stat {
        /// The whole key
        key: Option<String>,
    },
    /// Make several changes together: all of them happen, at one moment, or none
    ///
    /// Each line of FILE is a JSON object, a change of a key of its own: `key`, the whole key; one of
    /// `text`, `value` (base64) and `"delete":true`; and, if something must hold of the key before the
    /// batch, `"ifAbsent":true` or `ifVersion`. Prints each key with its new version, in the order of
    /// the lines. A fault, a conflict and damage name their line, and nothing has happened then.
    #[command(verbatim_doc_comment, after_help = changes::COMMIT)]
    Commit(CommitArgs),
    /// Tell how much a key and what lies beneath it take, and the quotas that bound it
    #[command(after_help = changes::USAGE)]
    Usage {
        /// A whole key, or /state for everything; needs the right `list` on all of it
        #[arg(default_value = "/state")]
        prefix: String,
    },
    /// Print who wrote and removed what, or who was denied what; needs the right `admin.audit`
    ///
    /// Each of the two rings keeps its newest records and none for ever: what is to be kept is fetched
    /// from time to time, from the last number that was seen. No record holds a value.
    #[command(verbatim_doc_comment, after_help = changes::AUDIT)]
    Audit(AuditArgs),
    /// Look after the whole store, with rights that begin with `admin.`
    #[command(subcommand)]
    Admin(AdminVerb),
}

#[derive(Args, Debug)]
pub(crate) struct PutArgs {
    /// The whole key, such as /state/net/wifi
    pub(crate) key: String,
    /// The value; `-` or nothing reads standard input, `@FILE` a file. What is longer than a call
    /// takes goes in as a stream, and is visible only whole
    #[arg(value_name = "VALUE | - | @FILE")]
    pub(crate) value: Option<OsString>,
    /// Only if there is no such key
    #[arg(long, conflicts_with = "if_version")]
    pub(crate) if_absent: bool,
    /// Only if the key is in this version
    #[arg(long, value_name = "V")]
    pub(crate) if_version: Option<Version>,
    /// Return when the write is ordered, not yet durable
    #[arg(long, conflicts_with = "strict")]
    pub(crate) buffered: bool,
    /// Return when the medium vouches for the write in a second place: damage to both copies is
    /// then told as a loss even right after it
    #[arg(long)]
    pub(crate) strict: bool,
}

#[derive(Subcommand, Debug)]
pub(crate) enum ImageVerb {
    /// Make a volume, in a new file or on a blank file or block device, and print its id
    #[command(after_help = FORMAT)]
    Format(FormatArgs),
    /// Print all that a volume holds as JSON lines, in key order; changes nothing
    ///
    /// Each line has `key`, `value` (base64; null if it is lost) and `version` (hex), the last line
    /// `digest`. A large value is shown in parts, a line for each, which tells also `at`, where the
    /// part begins, and `bytes`, the length of the whole; a null among them means that it is lost. A
    /// key that is no text stands in base64, as `keyBytes`; one that does not begin with /state/ is
    /// the daemon's own. It reads what the store uses, never the whole device. Exits with 6 if
    /// anything that had been acknowledged is lost, after printing the rest.
    #[command(verbatim_doc_comment, after_help = DUMP)]
    Dump {
        /// The image or block device
        path: PathBuf,
    },
    /// Check both copies of everything that a volume uses; changes nothing unless told
    ///
    /// Names each fault, its place, the keys it concerns, and what --repair would do about it: write
    /// the copies that do not verify anew from those that do, and nothing else. A volume is clean
    /// only if nothing that had been acknowledged is lost.
    #[command(verbatim_doc_comment, after_help = tools::FSCK)]
    Fsck(FsckArgs),
    /// Put back what `fsck --repair` wrote over, from its undo file
    ///
    /// Tells how much of the file differs from what is there, asks, and writes that. All of the file
    /// is read and held against the volume before anything is written: one that is not whole, is of
    /// another volume, or names a place that no repair writes is refused. Where it was cut short it is
    /// run again. Of several undo files the newest comes first. Do it before the volume is served
    /// again: later it would damage a copy of what was written since.
    #[command(verbatim_doc_comment, after_help = tools::UNDO)]
    Undo(UndoArgs),
    /// Show what a volume looks like inside: segments, groups, checkpoint, damage; changes nothing
    ///
    /// Exits with 6 if anything that had been acknowledged is lost, after showing the rest.
    #[command(verbatim_doc_comment, after_help = tools::INSPECT)]
    Inspect(InspectArgs),
    /// Save all that verifies of a damaged volume into a new image, and report on the rest
    ///
    /// Takes the newest value of each key that verifies in any copy. Where later changes may be among
    /// what was lost, a key is kept and reported as `keptInDoubt`: the value may be an older one, or
    /// the key may have been deleted; one of which nothing verifies is a `keyLost`, and one whose newest
    /// record is a delete is left out as `deletedInDoubt`. The new volume knows no doubt: keep the
    /// report. It holds no audit records either: read those of the old one with `statefs audit` as long
    /// as a daemon serves it. It needs one copy of the superblock that verifies, which holds the key of
    /// all the tags. Exits with 0 if nothing was lost, with 6 if something was.
    #[command(verbatim_doc_comment, after_help = tools::SALVAGE)]
    Salvage(SalvageArgs),
    /// Make a volume of another system's image
    ///
    /// Keys and values come over as they are: envelopes and sealed values as the bytes that they are.
    /// An image that is damaged in any place, or holds a key that no volume takes, is reported on and
    /// not imported, with exit code 6; --salvage imports what is intact, and still exits with 6.
    #[command(verbatim_doc_comment, after_help = tools::IMPORT)]
    Import(ImportArgs),
}

#[derive(Args, Debug)]
pub(crate) struct FormatArgs {
    /// The file to make, or the existing file or block device to format
    pub(crate) path: PathBuf,
    /// Size of a new file in bytes, or with K, M, G or T; an existing one is taken as it is
    #[arg(long, value_parser = size)]
    pub(crate) size: Option<u64>,
    /// Copies of everything; 1 gives up the promises about single faults
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u8).range(1..=2))]
    pub(crate) copies: u8,
    /// Bytes of a block: 4096, or 512 where the device writes that little at once
    #[arg(long, value_name = "BYTES", default_value_t = 4096)]
    pub(crate) block_size: u32,
    /// Destroy what an existing file or device holds, once a terminal or --yes has confirmed it
    #[arg(long)]
    pub(crate) force: bool,
    /// Do not ask before anything is destroyed; without a terminal nobody could answer
    #[arg(long)]
    pub(crate) yes: bool,
}

/// Reads a size such as `64M`: powers of 1024.
fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|letter: char| letter.is_ascii_alphabetic());
    let unit = match text.get(digits.len()..).unwrap_or_default() {
        "" => 1,
        "K" | "KiB" => 1 << 10,
        "M" | "MiB" => 1 << 20,
        "G" | "GiB" => 1 << 30,
        "T" | "TiB" => 1 << 40,
        other => return Err(format!("the unit {other:?} is none of K, M, G and T")),
    };
    let count: u64 = digits.parse().map_err(|error| format!("{digits:?}: {error}"))?;
    count.checked_mul(unit).ok_or_else(|| "that many bytes do not exist".into())
}

const EXIT_CODES: &str = "\
Exit codes:
  0 ok              3 absent       6 data loss
  1 failure         4 conflict     7 unavailable (no daemon, read-only, sealed, overloaded)
  2 usage           5 denied       8 quota or space
  9 indeterminate: a write was not confirmed, or the connection was lost during one

First steps, with `statefsd --dev` in another terminal:
  statefs put /state/net/wifi on
  statefs get /state/net/wifi";

const PUT: &str = "\
A value that starts with a dash stands behind `--`; one that starts with @ comes through `-`.

Examples:
  statefs put /state/net/wifi on
  statefs put /state/boot/slot B --if-version 9f3c0d5e62a1b784
  head -c 32 /dev/urandom | statefs put /state/keys/device - --if-absent
  statefs put /state/crash/last @core.dump";

const GET: &str = "\
Examples:
  statefs get /state/net/wifi
  statefs get /state/keys/device > device.key
  statefs get /state/net/wifi -o json      {\"bytes\",\"key\",\"value\" (base64),\"version\"}";

const DELETE: &str = "\
Examples:
  statefs delete /state/net/wifi
  statefs delete /state/net/wifi || [ $? = 3 ]      gone, or never there";

const LIST: &str = "\
Examples:
  statefs list
  statefs list /state/net --keys-only
  statefs list -o json > backup.ndjson";

const SYNC: &str = "\
Examples:
  statefs sync
  statefs sync -o json      {\"durable\":true}";

const HEALTH: &str = "\
Examples:
  statefs health
  statefs health -o json      {\"counters\" (null without the right),\"lossCount\",\"mode\",\"reason\"}";

const WHOAMI: &str = "\
Examples:
  statefs whoami
  statefs --socket /run/statefs/keystored.sock whoami";

const STAT: &str = "\
Examples:
  statefs stat /state/net/wifi
  statefs stat -o json";

const FORMAT: &str = "\
Examples:
  statefs image format state.img --size 64M
  statefs image format /dev/mmcblk0p7
  statefs image format state.img --copies 1 --block-size 512 --force --yes";

const DUMP: &str = "\
Examples:
  statefs image dump state.img > backup.ndjson
  statefs image dump /dev/mmcblk0p7 | tail -n 1      {\"digest\":...}";

const DEMO: &str = "\
Examples:
  statefs demo
  statefs demo -o json      {\"proves\",\"step\"} each";

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn definitions_are_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_verb_has_examples() {
        fn check(command: &clap::Command) {
            let leaf = command.get_subcommands().next().is_none();
            let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
            assert!(!leaf || help.contains("Examples:"), "{}", command.get_name());
            command.get_subcommands().for_each(check);
        }
        check(&Cli::command());
    }

    #[test]
    fn sizes_are_read() {
        for (text, bytes) in [("64M", 64 << 20), ("4096", 4096), ("1GiB", 1 << 30), ("0K", 0)] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "64 M", "-1", "64m", "64MB", "17179869184G", "1.5G"] {
            assert!(size(text).is_err(), "{text}");
        }
    }
}
