//! What a writer is refused, and when.

use policy::Policy;
use statefs::Durability;

use crate::restrictions::restrict;
use crate::rig::{If, POLICY, Rig, put, version};
use crate::streams::{done, write, writer};

const DURABLE: Durability = Durability::Durable;
static CHUNK: [u8; 60_000] = [b'x'; 60_000];

/// A full volume is another fault: it ends by itself.
#[test]
fn a_value_longer_than_any_may_be_is_told_so_before_the_volume_is_full() {
    let mut rig = Rig::open();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let mut request = rig.root(client).hello_request();
    request.get().set_protocol(1);
    let hello = rig.wait(request.send().promise).unwrap().unwrap();
    let most = hello.get().unwrap().get_limits().unwrap().get_large_value_bytes();
    let told = writer(&directory, "dump", If::Any, most + 1);
    let refused = format!("VALUE_TOO_LARGE: {} bytes, the limit is {most}", most + 1);
    assert_eq!(done(&mut rig, &told), refused);
    let untold = writer(&directory, "dump", If::Any, 0);
    let mut bytes = CHUNK.len() as u64;
    while bytes <= most {
        assert_eq!(write(&mut rig, &untold, &CHUNK), "", "{bytes} bytes of {most}");
        bytes += CHUNK.len() as u64;
    }
    let refused = format!("VALUE_TOO_LARGE: {bytes} bytes, the limit is {most}");
    assert_eq!(write(&mut rig, &untold, &CHUNK), refused);
    // What it took is given back at once, though it is held.
    for number in 0..20 {
        let written = put(&directory, &format!("k{number}"), &CHUNK, If::Any, DURABLE);
        version(&rig.wait(written).unwrap());
    }
    assert_eq!(done(&mut rig, &untold), refused);
    // One that would fit into an empty volume does not into this one.
    let other = writer(&directory, "dump", If::Any, most);
    let refused = (0..=most / CHUNK.len() as u64).find_map(|_| {
        let refused = write(&mut rig, &other, &CHUNK);
        (!refused.is_empty()).then_some(refused)
    });
    assert!(refused.expect("it is more than there is room for").starts_with("NO_SPACE: "));
}

/// Nothing is written before the end, so who may only put could ask as often as it likes how long a value is.
#[test]
fn a_writer_tells_nothing_of_a_key_that_may_not_be_seen() {
    let mut rig = Rig::open();
    let rights = "prefix = \"/state/net\"\nrights = [\"get\", \"list\", \"put\"]\n";
    let blind = "prefix = \"/state/net\"\nrights = [\"put\"]\nquota = { bytes = 100000 }\n";
    rig.server.set_policy(Policy::parse(&POLICY.replacen(rights, blind, 1)).unwrap());
    let (keeper, net) = (rig.connect("keeper"), rig.connect("net"));
    let (all, only_put) = (rig.directory(keeper, "/state"), rig.directory(net, "/state/net"));
    version(&rig.wait(put(&all, "net/k", &CHUNK, If::Any, DURABLE)).unwrap());
    let exceeded = "QUOTA_EXCEEDED: a quota allows 100000 bytes of keys and values";
    let (part, _) = restrict(&all, "net", "p", 0);
    for directory in [&only_put, &part] {
        for bytes in [0, 60_000, 70_000] {
            // One is there and makes room for it; the other is not.
            for key in ["k", "none"] {
                let told = writer(directory, key, If::Any, bytes);
                assert_eq!(write(&mut rig, &told, &CHUNK), "", "{key} of {bytes}");
                assert_eq!(write(&mut rig, &told, &[b'y'; 10_000]), "", "{key} of {bytes}");
            }
        }
        for key in ["k", "none"] {
            let long = writer(directory, key, If::Any, 100_001);
            assert_eq!(done(&mut rig, &long), exceeded, "no key makes room for that");
        }
        // What is on its way is bounded all the same.
        let (one, two) = (writer(directory, "a", If::Any, 0), writer(directory, "b", If::Any, 0));
        assert_eq!(write(&mut rig, &one, &CHUNK), "");
        assert_eq!(write(&mut rig, &two, &CHUNK), exceeded);
        assert_eq!(done(&mut rig, &one), exceeded, "the end decides");
    }
    // Who sees it is told at once.
    let told = writer(&all, "net/none", If::Any, 70_000);
    assert_eq!(write(&mut rig, &told, &CHUNK), exceeded);
    let fits = writer(&all, "net/k", If::Any, 70_000);
    assert_eq!(write(&mut rig, &fits, &CHUNK), "");
    version(&done(&mut rig, &fits));
}
