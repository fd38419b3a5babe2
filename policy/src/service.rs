//! Who asks: evidence that a transport gathered, and the identity that a policy reads in it.

use alloc::boxed::Box;
use alloc::string::String;
use alloc::sync::Arc;
use core::cmp::Ordering;
use core::fmt;
use core::hash::{Hash, Hasher};

use crate::quote::Quoted;

/// Longest name of a service or a channel, in bytes: it stands in every audit record.
pub const NAME_BYTES_MAX: usize = 64;

/// What a transport knows of the other end of a connection. Only transports make one, from what
/// the kernel or the machine vouches for; nothing that the peer sent may go in.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The listening socket or the port that the connection came through.
    pub channel: String,
    /// The user that the kernel names, where there is one.
    pub uid: Option<u32>,
}

/// A service that a policy recognised in the evidence of a transport.
///
/// [`Policy::identify`](crate::Policy::identify) alone makes one: no bytes of a message become
/// an identity. The evidence travels along, and every decision holds it against the policy of
/// that moment, so a policy that moves a name to another user disowns the connections of the
/// old one. Equal by name; cheap to clone.
///
/// ```
/// let peer = policy::Peer { channel: "default".into(), uid: Some(0) };
/// assert!(policy::Policy::deny_all().identify(&peer).is_none());
/// ```
///
/// No other crate can write one down:
///
/// ```compile_fail,E0423
/// let forged = policy::ServiceId("keystored".into());
/// ```
///
/// ```compile_fail,E0277
/// let forged: policy::ServiceId = "keystored".into();
/// ```
#[derive(Clone)]
pub struct ServiceId(Arc<Identity>);

struct Identity {
    name: Arc<str>,
    peer: Peer,
}

impl ServiceId {
    pub(crate) fn new(name: &Arc<str>, peer: &Peer) -> Self {
        Self(Arc::new(Identity { name: Arc::clone(name), peer: peer.clone() }))
    }

    /// The service's name in the policy.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// What the transport vouched for when the connection was made.
    #[must_use]
    pub fn peer(&self) -> &Peer {
        &self.0.peer
    }

    pub(crate) fn shared_name(&self) -> &Arc<str> {
        &self.0.name
    }
}

impl PartialEq for ServiceId {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for ServiceId {}

impl PartialOrd for ServiceId {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ServiceId {
    fn cmp(&self, other: &Self) -> Ordering {
        self.name().cmp(other.name())
    }
}

impl Hash for ServiceId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.name().hash(state);
    }
}

impl fmt::Debug for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ServiceId({:?}, {:?})", self.name(), self.peer())
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a policy expects of a service's peers. A part that is left out expects nothing.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Badge {
    pub(crate) channel: Option<Box<str>>,
    pub(crate) uid: Option<u32>,
}

impl Badge {
    /// True if `peer` shows everything that is expected; expecting nothing matches nobody.
    pub(crate) fn matches(&self, peer: &Peer) -> bool {
        let channel = self.channel.as_deref().is_none_or(|channel| channel == peer.channel);
        let uid = self.uid.is_none_or(|uid| Some(uid) == peer.uid);
        let expects = self.channel.is_some() || self.uid.is_some();
        expects && channel && uid
    }

    /// True if one peer could match both.
    pub(crate) fn overlaps(&self, other: &Self) -> bool {
        fn agree<T: PartialEq>(one: Option<T>, two: Option<T>) -> bool {
            match (one, two) {
                (Some(one), Some(two)) => one == two,
                (None, _) | (_, None) => true,
            }
        }
        agree(self.channel.as_deref(), other.channel.as_deref()) && agree(self.uid, other.uid)
    }
}

/// Displays as the fields of a `[service]`.
impl fmt::Display for Badge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(channel) = &self.channel {
            write!(f, "channel = {}", Quoted(channel))?;
        }
        match (self.uid, &self.channel) {
            (Some(uid), Some(_)) => write!(f, ", uid = {uid}"),
            (Some(uid), None) => write!(f, "uid = {uid}"),
            (None, _) => Ok(()),
        }
    }
}

/// True for a name that needs no quoting anywhere: letters, digits, `.`, `_` and `-`.
pub(crate) fn is_name(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    (1..=NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn badge(channel: Option<&str>, uid: Option<u32>) -> Badge {
        Badge { channel: channel.map(Box::from), uid }
    }

    #[test]
    fn both_parts_must_match_when_both_are_named() {
        let peer = |channel: &str, uid| Peer { channel: channel.into(), uid };
        let table = [
            (badge(Some("a"), Some(1)), peer("a", Some(1)), true),
            (badge(Some("a"), Some(1)), peer("a", Some(2)), false),
            (badge(Some("a"), Some(1)), peer("b", Some(1)), false),
            (badge(Some("a"), Some(1)), peer("a", None), false),
            (badge(Some("a"), None), peer("a", None), true),
            (badge(Some("a"), None), peer("a", Some(7)), true),
            (badge(Some("a"), None), peer("ab", Some(7)), false),
            (badge(None, Some(0)), peer("x", Some(0)), true),
            (badge(None, Some(0)), peer("x", None), false),
            (badge(None, None), peer("x", Some(0)), false),
        ];
        for (badge, peer, expected) in table {
            assert_eq!(badge.matches(&peer), expected, "{badge:?} {peer:?}");
        }
    }

    #[test]
    fn overlap_is_exactly_a_peer_that_matches_both() {
        let options = [None, Some("a"), Some("b")];
        let uids = [None, Some(1), Some(2)];
        let all: alloc::vec::Vec<_> = options
            .iter()
            .flat_map(|channel| uids.iter().map(|uid| badge(*channel, *uid)))
            .filter(|badge| *badge != super::Badge { channel: None, uid: None })
            .collect();
        for one in &all {
            for two in &all {
                let shared = ["a", "b", "c"].iter().any(|channel| {
                    [None, Some(1), Some(2), Some(3)].iter().any(|uid| {
                        let peer = Peer { channel: (*channel).into(), uid: *uid };
                        one.matches(&peer) && two.matches(&peer)
                    })
                });
                assert_eq!(one.overlaps(two), shared, "{one:?} {two:?}");
            }
        }
    }

    #[test]
    fn names_are_plain() {
        for name in ["a", "keystored", "A-1_b.c", &"x".repeat(NAME_BYTES_MAX)] {
            assert!(is_name(name), "{name}");
        }
        for name in ["", "a b", "a/b", "ä", "a\n", &"x".repeat(NAME_BYTES_MAX + 1)] {
            assert!(!is_name(name), "{name}");
        }
    }
}
