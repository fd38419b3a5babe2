//! Directories that can do less, and that can be taken away.

use std::future::Future;
use std::pin::Pin;

use statefs::{Durability, directory, reader, revoker};

use crate::bounds::get_many;
use crate::rig::{Ask, If, Rig, delete, get, list, put, sync, version};
use crate::streams;

const DURABLE: Durability = Durability::Durable;

/// Asks for a part of a directory: `rights` are the first letters of get, list, put, delete.
pub(crate) fn restrict(
    directory: &directory::Client,
    prefix: &str,
    rights: &str,
    expiry_millis: u64,
) -> (directory::Client, revoker::Client) {
    let mut request = directory.restrict_request();
    request.get().set_prefix(prefix);
    request.get().set_expiry_millis(expiry_millis);
    let mut asked = request.get().init_rights();
    asked.set_get(rights.contains('g'));
    asked.set_list(rights.contains('l'));
    asked.set_put(rights.contains('p'));
    asked.set_delete(rights.contains('d'));
    let pipeline = request.send().pipeline;
    (pipeline.get_directory(), pipeline.get_revoker())
}

fn revoke(rig: &mut Rig, revoker: &revoker::Client) {
    rig.wait(revoker.revoke_request().send().promise).unwrap().unwrap();
}

#[test]
fn it_reaches_its_prefix_with_its_rights_and_no_more() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    rig.wait(put(&all, "a/b/k", b"1", If::Any, DURABLE));
    rig.wait(put(&all, "a/k", b"2", If::Any, DURABLE));
    let (narrow, _) = restrict(&all, "a/b", "gl", 0);
    assert_eq!(rig.wait(get(&narrow, "k")).unwrap(), "1");
    assert_eq!(rig.wait(get(&narrow, "a/k")).unwrap(), "absent", "keys are relative to it");
    assert_eq!(rig.wait(list(&narrow, Ask::default())).unwrap(), ["k=1"]);
    let mut refused = |directory: &directory::Client| {
        let written = put(directory, "k", b"x", If::Any, DURABLE);
        assert_eq!(rig.wait(written).unwrap(), "ACCESS_DENIED");
        assert_eq!(rig.wait(delete(directory, "k", If::Any)).unwrap(), "ACCESS_DENIED");
    };
    refused(&narrow);
    // Asking for more brings none, however often.
    let (same, _) = restrict(&narrow, "", "glpd", 0);
    refused(&same);
    assert_eq!(rig.wait(get(&same, "k")).unwrap(), "1");
    // A part for which nothing is left is refused at once.
    let (none, _) = restrict(&same, "x", "p", 0);
    assert_eq!(rig.wait(get(&none, "k")).unwrap(), "ACCESS_DENIED");
    for outside in ["..", "/state", "a//b", "../a"] {
        let (none, _) = restrict(&narrow, outside, "g", 0);
        let refused = rig.wait(get(&none, "k")).unwrap();
        assert!(refused.starts_with("INVALID_KEY: "), "{outside}: {refused}");
    }
}

#[test]
fn the_policy_of_the_moment_still_counts() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let (narrow, _) = restrict(&all, "net", "gp", 0);
    version(&rig.wait(put(&narrow, "k", b"1", If::Any, DURABLE)).unwrap());
    let readable = "rights = [\"get\"]";
    let text =
        crate::rig::POLICY.replace("rights = [\"get\", \"list\", \"put\", \"delete\"]", readable);
    rig.server.set_policy(policy::Policy::parse(&text).unwrap());
    let refused = rig.wait(put(&narrow, "k", b"2", If::Any, DURABLE)).unwrap();
    assert_eq!(refused, "ACCESS_DENIED");
    assert_eq!(rig.wait(get(&narrow, "k")).unwrap(), "1");
}

#[test]
fn revoking_ends_all_that_was_derived_and_nothing_else() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    rig.wait(put(&all, "a/k", b"1", If::Any, DURABLE));
    let (first, revoker) = restrict(&all, "a", "gp", 0);
    let (second, inner) = restrict(&first, "", "g", 0);
    let (third, _) = restrict(&second, "", "g", 0);
    let (sibling, _) = restrict(&all, "a", "g", 0);
    for directory in [&first, &second, &third, &sibling] {
        assert_eq!(rig.wait(get(directory, "k")).unwrap(), "1");
    }
    revoke(&mut rig, &inner);
    for (directory, expected) in [(&first, "1"), (&sibling, "1")] {
        assert_eq!(rig.wait(get(directory, "k")).unwrap(), expected);
    }
    let dead = "REVOKED: the capability was revoked";
    for directory in [&second, &third] {
        assert_eq!(rig.wait(get(directory, "k")).unwrap(), dead);
    }
    revoke(&mut rig, &revoker);
    revoke(&mut rig, &revoker);
    for directory in [&first, &second, &third] {
        assert_eq!(rig.wait(get(directory, "k")).unwrap(), dead);
        assert_eq!(rig.wait(put(directory, "k", b"2", If::Any, DURABLE)).unwrap(), dead);
        assert_eq!(rig.wait(delete(directory, "k", If::Any)).unwrap(), dead);
        assert_eq!(rig.wait(list(directory, Ask::default())).unwrap(), [dead]);
        assert_eq!(rig.wait(get(directory, "not//a key")).unwrap(), dead);
        let (child, _) = restrict(directory, "", "g", 0);
        assert_eq!(rig.wait(get(&child, "k")).unwrap(), dead);
        assert_eq!(rig.wait(sync(directory)).unwrap(), "durable", "it acts on no key");
    }
    assert_eq!(rig.wait(get(&sibling, "k")).unwrap(), "1");
    assert_eq!(rig.wait(get(&all, "a/k")).unwrap(), "1");
}

#[test]
fn a_call_that_was_let_in_before_goes_on() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let (narrow, revoker) = restrict(&all, "", "gp", 0);
    rig.settle();
    rig.device.holds = true;
    let written = put(&narrow, "k", b"1", If::Any, DURABLE);
    rig.settle();
    let revoked = revoker.revoke_request().send().promise;
    let later = put(&narrow, "k", b"2", If::Any, DURABLE);
    rig.settle();
    rig.device.holds = false;
    version(&rig.wait(written).unwrap());
    rig.wait(revoked).unwrap().unwrap();
    assert!(rig.wait(later).unwrap().starts_with("REVOKED: "));
    assert_eq!(rig.wait(get(&all, "k")).unwrap(), "1");
}

#[test]
fn it_ends_when_its_time_is_over_and_with_it_what_was_derived() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    rig.now = 5000;
    rig.settle();
    let (short, _) = restrict(&all, "", "g", 100);
    let (long, _) = restrict(&short, "", "g", u64::MAX);
    rig.settle();
    rig.now = 5099;
    assert_eq!(rig.wait(get(&long, "k")).unwrap(), "absent");
    // Nothing happens until then: the call is the first that the server hears of it.
    rig.now = 5100;
    for directory in [&short, &long] {
        let refused = rig.wait(get(directory, "k")).unwrap();
        assert_eq!(refused, "EXPIRED: the time of the capability is over");
    }
    assert_eq!(rig.wait(get(&all, "k")).unwrap(), "absent");
}

/// A read that waits for room is let in, but has not begun: it shows nothing of what is written when its directory is over.
#[test]
fn a_read_that_waits_past_its_end_shows_nothing() {
    type Call = fn(&directory::Client, &reader::Client) -> Pin<Box<dyn Future<Output = String>>>;
    let calls: [Call; 4] = [
        |lent, _| Box::pin(get(lent, "k")),
        |lent, _| {
            let lines = list(lent, Ask::default());
            Box::pin(async move { lines.await.concat() })
        },
        |lent, _| Box::pin(get_many(lent, "k")),
        |_, reader| {
            let answer = reader.read_request().send().promise;
            Box::pin(
                async move { answer.await.map_or_else(|error| error.extra, |_| "read".into()) },
            )
        },
    ];
    for (number, call) in calls.iter().enumerate() {
        let mut rig = Rig::open();
        let (client, other) = (rig.connect("keeper"), rig.connect("keeper"));
        let (mine, theirs) = (rig.directory(client, "/state"), rig.directory(other, "/state"));
        let (lent, _revoker) = restrict(&mine, "net", "gl", 1000);
        version(&rig.wait(put(&mine, "net/k", b"before", If::Any, DURABLE)).unwrap());
        let reader = streams::reader(&lent, "k");
        assert_eq!(streams::info(&mut rig, &reader), "6 bytes");
        rig.device.holds = true;
        let _put = put(&mine, "x", b"1", If::Any, DURABLE);
        let room = list(&mine, Ask::default());
        let held = call(&lent, &reader);
        rig.settle();
        rig.now += 1000;
        let buffered = put(&theirs, "net/k", b"after", If::Any, Durability::Buffered);
        version(&rig.wait(buffered).unwrap());
        rig.device.holds = false;
        let told = rig.wait(held).unwrap();
        assert_eq!(told, "EXPIRED: the time of the capability is over", "call {number}");
        assert!(rig.wait(room).unwrap().len() > 1, "who goes on is served");
    }
}

#[test]
fn a_flood_of_them_is_bounded_and_over_when_they_are_dropped() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let all = rig.directory(client, "/state");
    let mut chain = vec![restrict(&all, "", "g", 0)];
    for _ in 1..256 {
        let (last, _) = chain.last().unwrap();
        chain.push(restrict(last, "", "g", 0));
        // No more calls at once than a connection may have.
        rig.settle();
    }
    let (last, _) = chain.last().unwrap();
    assert_eq!(rig.wait(get(last, "k")).unwrap(), "absent");
    let (more, revoker) = restrict(&all, "", "g", 0);
    let refused = "OVERLOADED: the connection holds 256 restricted directories, which is the limit";
    assert_eq!(rig.wait(get(&more, "k")).unwrap(), refused);
    let error = rig.wait(revoker.revoke_request().send().promise).unwrap().err().unwrap();
    assert_eq!(error.extra, refused);
    // The first link is dropped, but the chain hangs on it.
    let first = chain.remove(0);
    let last = chain.pop().unwrap();
    drop((first, more, revoker));
    rig.settle();
    drop(last);
    rig.settle();
    let (one, _kept) = restrict(&all, "", "g", 0);
    assert_eq!(rig.wait(get(&one, "k")).unwrap(), "absent");
    let (more, _) = restrict(&all, "", "g", 0);
    assert_eq!(rig.wait(get(&more, "k")).unwrap(), refused);
    drop(chain);
    rig.settle();
    let (more, _) = restrict(&all, "", "g", 0);
    assert_eq!(rig.wait(get(&more, "k")).unwrap(), "absent");
}

#[test]
fn the_schema_describes_itself() {
    let mut rig = Rig::open();
    let client = rig.connect("elsewhere");
    let request = rig.root(client).describe_request().send().promise;
    let answer = rig.wait(request).unwrap().unwrap();
    let described = answer.get().unwrap();
    assert_eq!(described.get_schema().unwrap(), statefs::SCHEMA_IMAGE);
    assert_eq!(described.get_protocol(), statefs::PROTOCOL);
}
