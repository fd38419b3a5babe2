//! The policy: parsed and asked.

use policy::{Demand, Key, Peer, Policy, Right, Target, decide};

struct Get(Key);

impl Demand for Get {
    fn right(&self) -> Right {
        Right::Get
    }

    fn target(&self) -> Target<'_> {
        Target::Key(&self.0)
    }
}

/// One key is granted, another is not.
pub(crate) fn check() -> Result<(), &'static str> {
    let policy = policy()?;
    let service = policy.identify(&peer("keystored")).ok_or("the channel names nobody")?;
    let ask = |path| {
        let key = Key::parse(path).map_err(|_| "a key does not parse")?;
        Ok(decide(&policy, &service, None, Get(key)).is_ok())
    };
    match (ask("/state/keystore/device.key")?, ask("/state/boot/slot")?) {
        (true, false) => Ok(()),
        _ => Err("the policy decides wrongly"),
    }
}

/// Yields the policy of this program.
pub(crate) fn policy() -> Result<Policy, &'static str> {
    Policy::parse(POLICY).map_err(|_| "the policy does not parse")
}

/// Yields whom a service is known by.
pub(crate) fn peer(channel: &str) -> Peer {
    Peer { channel: channel.into(), uid: None }
}

const POLICY: &str = r#"
version = 1

[service.keystored]
channel = "keystored"

[[grant]]
to = "keystored"
prefix = "/state/keystore"
rights = ["get", "put"]

[service.updated]
channel = "updated"

[[grant]]
to = "updated"
prefix = "/state/boot"
rights = ["get", "put"]
"#;
