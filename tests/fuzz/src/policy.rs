//! The policy file: what parses decides, and what does not says where and why.

use policy::{Key, Peer, Policy, Right, Target};

/// Parses the bytes as a policy file, and asks what it allows.
///
/// # Panics
/// When an error names no line of the file, or somebody is allowed what no grant can give.
pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let policy = match Policy::parse(text) {
        Ok(policy) => policy,
        Err(errors) => {
            assert!(!errors.is_empty());
            let lines = text.lines().count().max(1) + 1;
            for error in errors {
                assert!(error.position.line as usize <= lines, "{}", error.in_file("policy.toml"));
                assert!(!error.code().is_empty());
            }
            return;
        }
    };
    let key = Key::parse("/state/net/wifi").expect("a key");
    let names: Vec<String> = policy.services().map(str::to_owned).collect();
    for name in &names {
        for right in [Right::Get, Right::Put, Right::Delete] {
            drop(policy.explain(name, right, Target::Key(&key)));
        }
    }
    for (channel, uid) in [("default", None), ("default", Some(0)), ("net", Some(1000))] {
        let peer = Peer { channel: channel.into(), uid };
        let known = policy.identify(&peer);
        assert!(known.is_none_or(|service| names.iter().any(|name| name == service.name())));
    }
}
