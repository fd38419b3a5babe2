//! What the daemon tells of itself, of its caller and of a key.

use serde_json::{Map, Value as Json, json};
use statefs_client::{Health, Hello, Limits, Rights};

use super::figures::Figures;
use super::{NAME, Online, absent, relative};
use crate::failure::{Exit, Failure, printable, remark};
use crate::output::Output;
use crate::program::Format;

impl Online {
    pub(super) fn health(&self, output: &mut Output) -> Result<(), Failure> {
        // How it fares is told by the exit code too, to whoever reads no further.
        output.work_on();
        let (_, Health { mode, reason, loss_count }, figures) = self.told()?;
        let mut text = match (reason.is_empty(), loss_count) {
            (true, 0) => mode.text().to_owned(),
            (false, 0) => format!("{}: {}", mode.text(), printable(&reason)),
            (_, losses) => {
                format!("{}: {} (losses: {losses})", mode.text(), printable(&reason))
            }
        };
        for line in figures.as_ref().map(Figures::summary).unwrap_or_default() {
            text.push('\n');
            text.push_str(&line);
        }
        let object = json!({
            "counters": figures.as_ref().map(Figures::json), "lossCount": loss_count,
            "mode": mode.text(), "reason": reason,
        });
        output.either(&object, &text)?;
        if figures.is_none() && output.format == Format::Text {
            Figures::tell_missing();
        }
        if mode.serves() {
            return Ok(());
        }
        Err(Failure::new("UNAVAILABLE", Exit::Unavailable, format!("the store is {}", mode.text())))
    }

    /// Asks the daemon for what it tells everybody, and for its figures where it tells those.
    fn told(&self) -> Result<(Hello, Health, Option<Figures>), Failure> {
        let client = self.client()?;
        let (hello, health) = (client.hello_as(NAME)?, client.health()?);
        let figures = Figures::ask(&client, &hello)?;
        Ok((hello, health, figures))
    }

    pub(super) fn whoami(&self, output: &mut Output) -> Result<(), Failure> {
        let service = self.client()?.hello_as(NAME)?.service;
        match (&service, output.format) {
            (_, Format::Json) => output.json(&json!({"service": service})),
            (Some(service), Format::Text) => output.line(&printable(service)),
            (None, Format::Text) => {
                remark("the policy does not name you, which denies you every key");
                Ok(())
            }
        }
    }

    pub(super) fn stat_key(&self, key: &str, output: &mut Output) -> Result<(), Failure> {
        let relative = relative(key)?;
        let metadata = self.directory(Rights::GET)?.get_metadata(relative);
        let metadata = metadata.map_err(|error| super::of_key(error.into(), key))?;
        let metadata = metadata.ok_or_else(|| absent(key))?;
        let version = metadata.version.to_string();
        let object = json!({"bytes": metadata.bytes, "key": key, "version": version});
        output.either(&object, &format!("version: {version}\nbytes: {}", metadata.bytes))
    }

    pub(super) fn stat(&self, output: &mut Output) -> Result<(), Failure> {
        let (hello, Health { mode, reason, loss_count }, figures) = self.told()?;
        let Hello { protocol, features, limits, service, software, admin_rights } = hello;
        let (limits, features) = (limit_rows(&limits), feature_names(features));
        if output.format == Format::Json {
            let limits: Map<_, _> =
                limits.iter().map(|(name, limit)| ((*name).to_owned(), json!(limit))).collect();
            return output.json(&json!({
                "adminRights": admin_rights,
                "counters": figures.as_ref().map(Figures::json),
                "features": features,
                "limits": limits,
                "lossCount": loss_count,
                "mode": mode.text(),
                "protocol": protocol,
                "reason": reason,
                "service": service,
                "software": software,
            }));
        }
        output.line(&format!("software: {}", printable(&software)))?;
        output.line(&format!("protocol: {protocol}"))?;
        output.line(&format!("features: {}", features.join(" ")))?;
        output.line(&format!("service: {}", printable(service.as_deref().unwrap_or_default())))?;
        output.line(&format!("adminRights: {}", printable(&admin_rights.join(" "))))?;
        output.line(&format!("mode: {}", mode.text()))?;
        output.line(&format!("reason: {}", printable(&reason)))?;
        output.line(&format!("lossCount: {loss_count}"))?;
        for (name, limit) in limits {
            output.line(&format!("limits.{name}: {limit}"))?;
        }
        let Some(figures) = figures else {
            Figures::tell_missing();
            return Ok(());
        };
        for (name, value) in figures.iter() {
            output.line(&format!("counters.{}: {value}", printable(name)))?;
        }
        Ok(())
    }
}

/// The features of a server, in the order of their bits.
const FEATURES: [&str; 9] =
    ["describe", "admin", "getMany", "commit", "tokens", "restrict", "streams", "usage", "audit"];

/// Names the features that are set; those of a newer server have no name here.
fn feature_names(features: u64) -> Vec<&'static str> {
    let set = |bit: &usize| features >> bit & 1 == 1;
    (0..FEATURES.len()).filter(set).filter_map(|bit| FEATURES.get(bit).copied()).collect()
}

/// Names each limit as the schema does.
fn limit_rows(limits: &Limits) -> [(&'static str, Json); 17] {
    [
        ("keyBytes", limits.key_bytes.into()),
        ("valueBytes", limits.value_bytes.into()),
        ("replyBytes", limits.reply_bytes.into()),
        ("listEntries", limits.list_entries.into()),
        ("frameBytes", limits.frame_bytes.into()),
        ("frameSegments", limits.frame_segments.into()),
        ("nesting", limits.nesting.into()),
        ("traversalBytes", limits.traversal_bytes.into()),
        ("calls", limits.calls.into()),
        ("exports", limits.exports.into()),
        ("bytesInFlight", limits.bytes_in_flight.into()),
        ("connections", limits.connections.into()),
        ("batchOperations", limits.batch_operations.into()),
        ("batchBytes", limits.batch_bytes.into()),
        ("largeValueBytes", limits.large_value_bytes.into()),
        ("streams", limits.streams.into()),
        ("restrictions", limits.restrictions.into()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Yields the names that `text` declares between two lines: `name @N …;`.
    fn declared(start: &str, end: &str) -> Vec<&'static str> {
        let schema = include_str!("../../../schema/statefs.capnp");
        let body = schema.split(start).nth(1).and_then(|rest| rest.split(end).next());
        let lines = body.expect("it is declared").lines().filter(|line| !line.contains('#'));
        let names = lines.filter_map(|line| line.trim().split_once(" @"));
        names.map(|(name, _)| name).collect()
    }

    #[test]
    fn features_and_limits_have_the_names_of_the_schema() {
        assert_eq!(declared("enum Feature @0x82516e546d8d1126 {", "\n}"), FEATURES);
        let limits = limit_rows(&Limits::default()).map(|(name, _)| name);
        assert_eq!(declared("struct Limits @0xb779df17b72d5eb1 {", "\n}"), limits);
    }

    #[test]
    fn unknown_features_have_no_name() {
        assert_eq!(feature_names(0), [""; 0]);
        assert_eq!(feature_names(0b1001), ["describe", "commit"]);
        assert_eq!(feature_names(1 << 63 | 1 << 8), ["audit"]);
    }
}
