//! The command lines of batches, of administration, and of what is recorded.

use std::path::PathBuf;

use clap::{Args, Subcommand};

#[derive(Args, Debug)]
pub(crate) struct CommitArgs {
    /// The file with the changes; `-` reads standard input
    pub(crate) file: PathBuf,
    /// 32 hex digits, chosen at random for this batch: run again with them, also after a lost
    /// answer, it is not applied twice
    #[arg(long, value_name = "HEX", value_parser = token)]
    pub(crate) token: Option<TokenBytes>,
    /// Return when the batch is ordered, not yet durable
    #[arg(long, conflicts_with = "strict")]
    pub(crate) buffered: bool,
    /// Return when the medium vouches for the batch in a second place
    #[arg(long)]
    pub(crate) strict: bool,
}

/// The bytes of a batch's token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TokenBytes(pub(crate) [u8; 16]);

#[derive(Args, Debug)]
pub(crate) struct AuditArgs {
    /// What was refused, instead of what was written and removed
    #[arg(long)]
    pub(crate) denials: bool,
    /// Only records behind the one with this number
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) after: u64,
    /// At most so many records [default: all that there are]
    #[arg(long, value_name = "N")]
    pub(crate) limit: Option<u64>,
}

#[derive(Subcommand, Debug)]
pub(crate) enum AdminVerb {
    /// Print the daemon's figures; those that end in `_total` only grow. Needs `admin.stats`
    #[command(after_help = STATS)]
    Stats,
    /// Read every copy of everything, and repair what one copy still has; the store serves meanwhile
    ///
    /// Needs `admin.check`. Waits for the end, which may be hours away. Exits with 6 if something verifies in no copy.
    #[command(verbatim_doc_comment, after_help = CHECK)]
    Check {
        /// Read so many bytes a second at most, with K, M or G; without it, or with 0, as fast as it goes
        #[arg(long, value_name = "BYTES", value_parser = super::size)]
        rate: Option<u64>,
    },
    /// Write a checkpoint now, so that the next start replays next to nothing. Needs
    /// `admin.checkpoint`
    #[command(after_help = CHECKPOINT)]
    Checkpoint,
    /// Have the daemon read its policy anew; a faulty one changes nothing, and its faults are told.
    /// Needs `admin.policy`
    #[command(after_help = RELOAD)]
    Reload,
}

/// Reads a token.
fn token(text: &str) -> Result<TokenBytes, String> {
    let mut bytes = [0; 16];
    let digits = text.len() == 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    for (at, byte) in bytes.iter_mut().enumerate() {
        let pair = text.get(2 * at..2 * at + 2).filter(|_| digits);
        let pair = pair.and_then(|pair| u8::from_str_radix(pair, 16).ok());
        *byte = pair.ok_or("a token is 32 hex digits, chosen at random")?;
    }
    Ok(TokenBytes(bytes))
}

pub(super) const COMMIT: &str = "\
Lines of a batch:
  {\"key\":\"/state/boot/slot\",\"text\":\"B\",\"ifVersion\":\"9f3c0d5e62a1b784\"}
  {\"key\":\"/state/boot/tries\",\"value\":\"Aw==\",\"ifAbsent\":true}
  {\"key\":\"/state/boot/pending\",\"delete\":true}

Examples:
  statefs commit update.ndjson
  statefs list /state/net -o json | jq -c '{key,value}' | statefs commit - --socket other.sock
  statefs commit update.ndjson --token 6f0c5a1de2b34798a1b2c3d4e5f60718";

pub(super) const USAGE: &str = "\
Examples:
  statefs usage
  statefs usage /state/net -o json      {\"bytes\",\"keys\",\"prefix\",\"quotas\"}";

pub(super) const AUDIT: &str = "\
Examples:
  statefs audit
  statefs audit --denials --limit 20
  statefs audit --after 41 -o json >> audit.ndjson";

const STATS: &str = "\
Examples:
  statefs admin stats
  statefs admin stats -o json";

const CHECK: &str = "\
Examples:
  statefs admin check
  statefs admin check --rate 4M -o json      {\"bytesRead\",\"damaged\",\"groups\",\"repaired\"}";

const CHECKPOINT: &str = "\
Examples:
  statefs admin checkpoint";

const RELOAD: &str = "\
Examples:
  statefs policy check /etc/statefs/policy.toml && statefs admin reload";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_32_hex_digits() {
        let bytes = token("000102030405060708090a0b0c0d0eFF").map(|token| token.0);
        assert_eq!(bytes, Ok([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 255]));
        for wrong in
            ["", "00", "+00102030405060708090a0b0c0d0e0f", &"0".repeat(33), &"\u{e9}".repeat(16)]
        {
            assert!(token(wrong).is_err(), "{wrong}");
        }
    }
}
