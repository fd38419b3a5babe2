//! The gate: nothing reaches a handler that the policy of this moment does not allow.
//!
//! A call may wait long before it is answered: for its turn, for the device, and for a peer that does not read its other
//! answers, which takes as long as the peer likes. So what tells of the store is asked for again when another policy came
//! meanwhile, before anything else: whoever is refused then learns nothing of what was read, nor that it could not be.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use policy::{Demand, Denial, Granted, Key, Policy, Prefix, Refusal, Right, Rights, Scope, decide};

use crate::error::Error;
use crate::event::Denied;
use crate::power::Power;
use crate::request::{Administer, Open};
use crate::session::Caller;

/// Rights that a directory can be good for. Those of administration act on no key.
pub(crate) const DIRECTORY_RIGHTS: [Right; 7] = [
    Right::Get,
    Right::List,
    Right::Put,
    Right::Delete,
    Right::Watch,
    Right::Snapshot,
    Right::Delegate,
];

/// Lets a request of `caller` pass that comes through a capability of this power.
///
/// # Errors
/// [`Error::Denied`]; who, what and why is an event for the daemon's log. [`Error::Revoked`] and
/// [`Error::Expired`].
pub(crate) fn admit<R: Demand>(
    caller: &Caller,
    power: &Power,
    request: R,
) -> Result<Granted<R>, Error> {
    power.check(caller.shared.clock.now())?;
    let policy = caller.policy();
    judge(caller, &policy, power.scope(), request)
}

/// Lets all of several requests pass, by one version of the policy, or none.
///
/// # Errors
/// Those of [`admit`], for the first that is refused.
pub(crate) fn admit_all<R: Demand>(
    caller: &Caller,
    power: &Power,
    requests: Vec<R>,
) -> Result<Vec<Granted<R>>, Error> {
    power.check(caller.shared.clock.now())?;
    let policy = caller.policy();
    requests.into_iter().map(|request| judge(caller, &policy, power.scope(), request)).collect()
}

/// Lets the whole store be looked after by whoever holds this right.
///
/// # Errors
/// [`Error::Denied`].
pub(crate) fn admit_admin(caller: &Caller, right: Right) -> Result<Granted<Administer>, Error> {
    let request = Administer { right, all: Prefix::root() };
    let Some(service) = &caller.service else {
        return Err(refuse_stranger(caller, right.name(), request.all.as_str()));
    };
    let policy = caller.policy();
    decide(&policy, service, None, request).map_err(|denial| refuse(caller, &denial))
}

/// Lets who holds some right of administration have the capability for it.
///
/// # Errors
/// [`Error::Denied`]; the event names none of these rights, as the call does not say which method shall follow it.
pub(crate) fn admit_any_admin(caller: &Caller) -> Result<(), Error> {
    const ANY: &str = "admin";
    let request = |right| Administer { right, all: Prefix::root() };
    let Some(service) = &caller.service else {
        return Err(refuse_stranger(caller, ANY, Prefix::root().as_str()));
    };
    let policy = caller.policy();
    let mut attempts =
        Rights::ADMIN.iter().map(|right| decide(&policy, service, None, request(right)).err());
    let Some(denial) = attempts.next().flatten() else { return Ok(()) };
    if attempts.any(|denied| denied.is_none()) {
        return Ok(());
    }
    let rule = match denial.refusal() {
        Refusal::NoGrant { to, .. } => {
            format!(
                "no grant to = {to:?}, prefix = {:?}, of a right that begins with admin.",
                denial.path()
            )
        }
        _ => denial.why().to_string(),
    };
    let reason = format!("{:?} may not administer {:?}: {rule}", denial.service(), denial.path());
    Err(deny(caller, Some(denial.service().into()), ANY, denial.path(), rule, reason))
}

/// Yields the rights of administration that the caller holds. What it lacks is no refusal: it asked
/// for nothing.
pub(crate) fn admin_rights(caller: &Caller) -> Rights {
    let policy = caller.policy();
    let holds = |right: &Right| {
        let request = Administer { right: *right, all: Prefix::root() };
        let service = caller.service.as_ref();
        service.is_some_and(|service| decide(&policy, service, None, request).is_ok())
    };
    Rights::ADMIN.iter().filter(holds).collect()
}

/// Tells whether a caller that was let in through a capability of this power may learn that a key is there, and how long its
/// value is. What it lacks is no refusal: it asked for neither.
pub(crate) fn sees(caller: &Caller, power: &Power, key: &Key) -> bool {
    let rights = caller.policy().rights_at(caller.service_name(), &key.clone().into());
    let rights = rights.intersection(power.scope().rights());
    rights.contains(Right::Get) || rights.contains(Right::List)
}

/// Lets a request for a whole subtree pass if no part of it is withheld.
///
/// # Errors
/// Those of [`admit`].
pub(crate) fn admit_whole<R: Demand>(
    caller: &Caller,
    power: &Power,
    request: R,
) -> Result<Granted<R>, Error> {
    let granted = admit(caller, power, request)?;
    let Some(hidden) = granted.hidden().first() else {
        return Ok(granted);
    };
    let reason = format!("a ceiling withholds {:?}, which is a part of it", hidden.as_str());
    let (right, path) = (granted.request().right().name(), granted.request().target().as_str());
    let service = Some(granted.service().name().into());
    Err(deny(caller, service, right, path, reason.clone(), reason))
}

fn judge<R: Demand>(
    caller: &Caller,
    policy: &Policy,
    scope: &Scope,
    request: R,
) -> Result<Granted<R>, Error> {
    let Some(service) = &caller.service else {
        return Err(refuse_stranger(caller, request.right().name(), request.target().as_str()));
    };
    decide(policy, service, Some(scope), request).map_err(|denial| refuse(caller, &denial))
}

/// Lets a directory be made by whoever holds some right on some key in it: at the root, or out of
/// another one.
///
/// # Errors
/// [`Error::Denied`]; the event names the first right that was asked for, or the first of all.
/// [`Error::Revoked`] and [`Error::Expired`].
pub(crate) fn admit_open(
    caller: &Caller,
    from: Option<&Power>,
    prefix: Prefix,
    rights: Rights,
) -> Result<Granted<Open>, Error> {
    if let Some(power) = from {
        power.check(caller.shared.clock.now())?;
    }
    let asked = rights.iter().next().unwrap_or(Right::Get);
    let Some(service) = &caller.service else {
        return Err(refuse_stranger(caller, asked.name(), prefix.as_str()));
    };
    let policy = caller.policy();
    let attempt = |by| {
        let request = Open { prefix: prefix.clone(), rights, by };
        decide(&policy, service, from.map(Power::scope), request)
    };
    let denial = match attempt(asked) {
        Ok(granted) => return Ok(granted),
        Err(denial) => denial,
    };
    let others = DIRECTORY_RIGHTS.into_iter().filter(|right| *right != asked);
    let mut others = others.map(attempt);
    others.find_map(Result::ok).ok_or_else(|| refuse(caller, &denial))
}

fn refuse(caller: &Caller, denial: &Denial) -> Error {
    let (service, rule) = (Some(denial.service().into()), denial.why().to_string());
    deny(caller, service, denial.right().name(), denial.path(), rule, denial.to_string())
}

fn refuse_stranger(caller: &Caller, right: &'static str, path: &str) -> Error {
    let peer = &caller.peer;
    let uid = peer.uid.map_or_else(String::new, |uid| format!(" with uid {uid}"));
    let reason = format!("the policy names no service on channel {:?}{uid}", peer.channel);
    deny(caller, None, right, path, reason.clone(), reason)
}

/// Tells of a refusal, where it is recorded and where it is logged.
fn deny(
    caller: &Caller,
    service: Option<String>,
    right: &'static str,
    path: &str,
    rule: String,
    reason: String,
) -> Error {
    caller.record_denial(right, path, rule);
    let (connection, path) = (caller.connection, path.into());
    let denied = Denied { connection, service, right, path, reason };
    caller.shared.events.borrow_mut().deny(denied);
    Error::Denied
}
