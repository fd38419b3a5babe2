//! The daemon's figures: all of them, or what a glance at its health takes.

use serde_json::{Map, Value as Json, json};
use statefs_client::{Client, Counter, ErrorCode, Hello};

use super::progress::mebibytes;
use crate::failure::{Failure, remark};

/// The right that they take.
const RIGHT: &str = "admin.stats";

/// Figures by their names.
pub(super) struct Figures(Vec<Counter>);

impl Figures {
    /// Sorts figures by name.
    pub(super) fn new(mut counters: Vec<Counter>) -> Self {
        counters.sort_by(|one, other| one.name.cmp(&other.name));
        Self(counters)
    }

    /// Asks for them, if the policy lets the caller have them: a refusal would be recorded, and push out
    /// of the records what was refused to others.
    pub(super) fn ask(client: &Client, hello: &Hello) -> Result<Option<Self>, Failure> {
        if !hello.may(RIGHT) {
            return Ok(None);
        }
        match client.admin().stats() {
            // The policy was loaded anew since.
            Err(error) if error.refusal() == Some(ErrorCode::AccessDenied) => Ok(None),
            counters => Ok(Some(Self::new(counters?))),
        }
    }

    /// Says to people why there are none.
    pub(super) fn tell_missing() {
        remark(&format!("the daemon's figures take the right {RIGHT}"));
    }

    /// Yields all of them as one object.
    pub(super) fn json(&self) -> Json {
        let fields = self.0.iter().map(|Counter { name, value }| (name.clone(), json!(value)));
        Json::Object(fields.collect::<Map<_, _>>())
    }

    /// Yields all of them, in the order of their names.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, u64)> {
        self.0.iter().map(|Counter { name, value }| (&**name, *value))
    }

    /// Says in a few lines how full the volume is, what it replays, and what was checked and repaired.
    /// Each line needs figures of its own, and a daemon of another release may not have them.
    pub(super) fn summary(&self) -> Vec<String> {
        let lines = [
            self.value("keys").map(|keys| format!("keys: {keys}")),
            self.space(),
            self.value("log_bytes").map(|bytes| {
                format!("checkpoint: {} MiB of log since the last one", mebibytes(bytes))
            }),
            self.check(),
            self.value("repaired_copies_total")
                .map(|copies| format!("repairs: {copies} copies since the start")),
        ];
        lines.into_iter().flatten().collect()
    }

    fn space(&self) -> Option<String> {
        let (free, all) = (self.value("free_bytes")?, self.value("volume_bytes")?);
        Some(format!("space: {} of {} MiB free", mebibytes(free), mebibytes(all)))
    }

    fn check(&self) -> Option<String> {
        let (all, left) = (self.value("segments")?, self.value("check_segments_left")?);
        let (checks, losses) = (self.value("checks_total")?, self.value("check_losses")?);
        Some(match (left, checks) {
            (0, 0) => "check: none since the start".into(),
            (0, _) => format!("check: done, {losses} losses"),
            _ => format!("check: {} of {all} segments read", all.saturating_sub(left)),
        })
    }

    fn value(&self, name: &str) -> Option<u64> {
        self.iter().find(|(known, _)| *known == name).map(|(_, value)| value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(told: &[(&str, u64)]) -> Figures {
        let counter = |(name, value): &(&str, u64)| Counter { name: (*name).into(), value: *value };
        Figures::new(told.iter().map(counter).collect())
    }

    fn check(left: u64, checks: u64, losses: u64) -> Vec<String> {
        let told = [
            ("segments", 60),
            ("check_segments_left", left),
            ("checks_total", checks),
            ("check_losses", losses),
        ];
        figures(&told).summary()
    }

    #[test]
    fn a_check_is_told_by_how_far_it_came() {
        assert_eq!(check(0, 0, 0), ["check: none since the start"]);
        assert_eq!(check(48, 0, 0), ["check: 12 of 60 segments read"]);
        assert_eq!(check(60, 3, 2), ["check: 0 of 60 segments read"]);
        assert_eq!(check(0, 3, 2), ["check: done, 2 losses"]);
    }

    #[test]
    fn what_a_daemon_does_not_tell_is_left_out() {
        assert_eq!(figures(&[]).summary(), [""; 0]);
        assert_eq!(figures(&[("free_bytes", 1)]).summary(), [""; 0]);
        let full = figures(&[("free_bytes", 0), ("volume_bytes", 64 << 20)]);
        assert_eq!(full.summary(), ["space: 0.0 of 64.0 MiB free"]);
    }
}
