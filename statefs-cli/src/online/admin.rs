//! The administration of a whole store, and what is recorded of its use.

use serde_json::json;
use statefs_client::{AuditOutcome, AuditPage, AuditRecord, AuditRing, CheckReport, Reload};

use super::Online;
use super::figures::Figures;
use crate::args::{AdminVerb, AuditArgs};
use crate::failure::{Exit, Failure, printable, remark};
use crate::output::Output;
use crate::program::Format;

impl Online {
    pub(super) fn admin(&self, verb: &AdminVerb, output: &mut Output) -> Result<(), Failure> {
        let told = match verb {
            AdminVerb::Stats => self.stats(output),
            AdminVerb::Check { rate } => self.check(rate.unwrap_or(0), output),
            AdminVerb::Checkpoint => self.checkpoint(output),
            AdminVerb::Reload => self.reload(output),
        };
        told.map_err(|failure| match verb {
            AdminVerb::Stats => takes(failure, "it takes the right `admin.stats` on /state"),
            AdminVerb::Check { .. } => takes(failure, "it takes the right `admin.check` on /state"),
            AdminVerb::Checkpoint => {
                takes(failure, "it takes the right `admin.checkpoint` on /state")
            }
            AdminVerb::Reload => takes(failure, "it takes the right `admin.policy` on /state"),
        })
    }

    fn checkpoint(&self, output: &mut Output) -> Result<(), Failure> {
        self.client()?.admin().checkpoint()?;
        done(output, "checkpoint")
    }

    fn reload(&self, output: &mut Output) -> Result<(), Failure> {
        match self.client()?.admin().reload_policy()? {
            Reload::Loaded => done(output, "loaded"),
            Reload::Refused(why) => Err(Failure::new("INVALID_POLICY", Exit::Failure, why)),
        }
    }

    fn stats(&self, output: &mut Output) -> Result<(), Failure> {
        let figures = Figures::new(self.client()?.admin().stats()?);
        if output.format == Format::Json {
            return output.json(&figures.json());
        }
        for (name, value) in figures.iter() {
            output.line(&format!("{}: {value}", printable(name)))?;
        }
        Ok(())
    }

    fn check(&self, rate: u64, output: &mut Output) -> Result<(), Failure> {
        let report = self.client()?.admin().check(rate)?;
        let CheckReport { bytes_read, groups, repaired, damaged } = report;
        let object = json!({
            "bytesRead": bytes_read, "damaged": damaged, "groups": groups, "repaired": repaired,
        });
        let text = format!(
            "{groups} groups verify, {repaired} copies were repaired, {damaged} groups are lost \
             ({bytes_read} bytes read)"
        );
        output.either(&object, &text)?;
        if damaged == 0 {
            return Ok(());
        }
        let message = format!("{damaged} groups verify in no copy");
        Err(Failure::new("DATA_LOSS", Exit::DataLoss, message))
    }

    /// Prints the records of one ring, page by page, as far as they were asked for.
    pub(super) fn audit(&self, arguments: &AuditArgs, output: &mut Output) -> Result<(), Failure> {
        let AuditArgs { denials, after, limit } = arguments;
        let ring = if *denials { AuditRing::Denials } else { AuditRing::Mutations };
        let admin = self.client()?.admin();
        let (mut after, mut left) = (*after, limit.unwrap_or(u64::MAX));
        let asked_from = after;
        let mut first = true;
        while left > 0 {
            let wanted = u32::try_from(left).unwrap_or(0);
            let page = admin.audit(ring, after, wanted);
            let AuditPage { records, next, oldest } = page.map_err(|error| {
                takes(error.into(), "it takes the right `admin.audit` on /state")
            })?;
            // Who reads objects sees it by their numbers.
            let tells = first && output.format == Format::Text;
            if tells && asked_from > 0 && oldest > asked_from.saturating_add(1) {
                let gone = oldest - asked_from - 1;
                remark(&format!("{gone} records after {asked_from} are gone already"));
            }
            first = false;
            for record in &records {
                print_record(record, output)?;
            }
            left = left.saturating_sub(records.len() as u64);
            match next {
                Some(next) if next > after => after = next,
                Some(_) => {
                    let message = "the daemon's cursor does not advance";
                    return Err(Failure::new("PROTOCOL", Exit::Failure, message));
                }
                None => break,
            }
        }
        Ok(())
    }
}

/// Says what a denial lacks: for who holds no right of administration, the daemon does not learn which it was.
fn takes(failure: Failure, right: &'static str) -> Failure {
    if failure.code == "ACCESS_DENIED" { failure.advise(right) } else { failure }
}

fn done(output: &mut Output, what: &str) -> Result<(), Failure> {
    match output.format {
        Format::Json => output.json(&json!({what: true})),
        Format::Text => Ok(()),
    }
}

fn print_record(record: &AuditRecord, output: &mut Output) -> Result<(), Failure> {
    let AuditRecord { sequence, unix_millis, service, operation, key, rule, .. } = record;
    let AuditRecord { outcome, repeats, version, .. } = record;
    let outcome = match outcome {
        AuditOutcome::Applied => "applied",
        AuditOutcome::Denied => "denied",
        AuditOutcome::Unknown => "unknown",
    };
    if output.format == Format::Json {
        return output.json(&json!({
            "key": key, "operation": operation, "outcome": outcome, "repeats": repeats,
            "rule": rule, "sequence": sequence, "service": service, "unixMillis": unix_millis,
            "version": version.map(|version| version.to_string()),
        }));
    }
    let who = if service.is_empty() { "(nobody)" } else { service };
    let mut text = format!(
        "{sequence:>8}  {}  {outcome}  {who}  {operation}  {key}  {rule}",
        time(*unix_millis)
    );
    if let Some(version) = version {
        text.push_str(&format!("  version {version}"));
    }
    if *repeats > 0 {
        text.push_str(&format!("  (and {repeats} more)"));
    }
    output.line(&printable(&text))
}

/// Writes a time as UTC, such as `2026-11-25T21:40:00.123Z`; a dash where there was no clock.
fn time(unix_millis: u64) -> String {
    if unix_millis == 0 {
        return format!("{:<24}", "-");
    }
    let (seconds, millis) = (unix_millis / 1000, unix_millis % 1000);
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (of_day / 3600, of_day / 60 % 60, of_day % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// Turns days since 1970 into a date: years are counted from March, so that the day that some lack
/// is the last one, in eras of 400 years, after which the calendar repeats.
fn date(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097;
    let days = days + 719_468;
    let (era, of_era) = (days / ERA_DAYS, days % ERA_DAYS);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / (ERA_DAYS - 1)) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    (year, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_of_the_calendar() {
        for (millis, text) in [
            (1, "1970-01-01T00:00:00.001Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_709_251_199_999, "2024-02-29T23:59:59.999Z"),
            (1_709_251_200_000, "2024-03-01T00:00:00.000Z"),
            (1_798_761_599_000, "2026-12-31T23:59:59.000Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(time(millis), text);
        }
        assert_eq!(time(0).trim_end(), "-");
        // The last that there is: no overflow.
        time(u64::MAX);
    }
}
