//! `statefs usage`: how much is stored, and how much may be.

use serde_json::{Value as Json, json};
use statefs_client::{Quota, Rights, Usage};

use super::{Online, beneath, of_key};
use crate::failure::{Failure, printable};
use crate::output::Output;
use crate::program::Format;

impl Online {
    pub(super) fn usage(&self, prefix: &str, output: &mut Output) -> Result<(), Failure> {
        let relative = beneath(prefix)?;
        let usage = self.directory(Rights::LIST)?.usage(relative);
        let Usage { bytes, keys, quotas } = usage.map_err(|error| of_key(error.into(), prefix))?;
        if output.format == Format::Json {
            let quotas: Vec<Json> = quotas.iter().map(quota_json).collect();
            return output
                .json(&json!({"bytes": bytes, "keys": keys, "prefix": prefix, "quotas": quotas}));
        }
        output.line(&format!("bytes: {bytes}"))?;
        output.line(&format!("keys: {keys}"))?;
        for quota in &quotas {
            output.line(&printable(&quota_text(quota)))?;
        }
        Ok(())
    }
}

fn quota_json(quota: &Quota) -> Json {
    let Quota { prefix, bytes_used, bytes_max, keys_used, keys_max, value_bytes_max } = quota;
    json!({
        "bytesMax": bytes_max, "bytesUsed": bytes_used, "keysMax": keys_max, "keysUsed": keys_used,
        "prefix": prefix, "valueBytesMax": value_bytes_max,
    })
}

fn quota_text(quota: &Quota) -> String {
    let Quota { prefix, bytes_used, bytes_max, keys_used, keys_max, value_bytes_max } = quota;
    let mut bounds = Vec::new();
    if let Some(max) = bytes_max {
        bounds.push(format!("{bytes_used} of {max} bytes"));
    }
    if let Some(max) = keys_max {
        bounds.push(format!("{keys_used} of {max} keys"));
    }
    if let Some(max) = value_bytes_max {
        bounds.push(format!("values of {max} bytes at most"));
    }
    format!("quota of {prefix}: {}", bounds.join(", "))
}
