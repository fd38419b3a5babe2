//! Batches that are sent again, where what was remembered of them is not all that there is to know.

use statefs::Durability;
use statefsd::Limits;

use crate::batches::{Batch, send, tokened};
use crate::faults::full_of_damage;
use crate::rig::{Device, If, Rig, delete, get, put, sync, version};

const DURABLE: Durability = Durability::Durable;

/// What was acknowledged as buffered can come to nothing while the store goes on; sent again, it must not pass for applied.
#[test]
fn a_buffered_batch_that_was_lost_is_written_when_it_is_sent_again() {
    let mut rig = full_of_damage();
    let client = rig.connect("keeper");
    let directory = rig.directory(client, "/state");
    let value = [b'v'; 1000];
    for number in 0_u128.. {
        let key = format!("one/{number}");
        let (operations, token) = ([(&*key, Some(&value[..]), If::Any)], number.to_le_bytes());
        let batch = |durability| Batch { operations: &operations, durability, token: &token };
        let first = rig.wait(send(&directory, &batch(Durability::Buffered))).unwrap();
        assert!(first.starts_with("applied ["), "{first}");
        if rig.wait(sync(&directory)).unwrap() == "durable" {
            continue;
        }
        assert_eq!(rig.wait(get(&directory, &key)).unwrap(), "absent");
        // Deletes always work, and make room.
        for number in 0..number {
            rig.wait(delete(&directory, &format!("one/{number}"), If::Any)).unwrap();
        }
        let again = rig.wait(send(&directory, &batch(DURABLE))).unwrap();
        let there = rig.wait(get(&directory, &key)).unwrap() != "absent";
        assert_eq!(again.starts_with("applied ["), there, "{again}");
        assert_ne!(again, first);
        return;
    }
}

/// What tells whether a batch was written is not there for a while, as where a cable is loose; that is no reason to write it
/// twice.
#[test]
fn a_batch_of_which_the_device_tells_nothing_is_not_written_again() {
    let mut limits = Limits::default();
    limits.journal.cache_bytes = 0;
    let mut rig = Rig::new(Device::formatted(), limits);
    let (one, two) = (rig.connect("keeper"), rig.connect("keeper"));
    let (first, second) = (rig.directory(one, "/state"), rig.directory(two, "/state"));
    assert_eq!(rig.wait(get(&first, "k")).unwrap(), "absent");
    let operations = [("k", Some(&b"1"[..]), If::Any)];
    rig.device.holds = true;
    let _lost = send(&first, &tokened(&operations, DURABLE));
    rig.settle();
    rig.server.close(rig.clients[one].id);
    rig.device.holds = false;
    rig.settle();
    assert_eq!(rig.wait(get(&second, "k")).unwrap(), "1");
    version(&rig.wait(put(&second, "k", b"2", If::Any, DURABLE)).unwrap());
    rig.device.fails_read = true;
    let again = rig.wait(send(&second, &tokened(&operations, DURABLE))).unwrap();
    assert!(again.starts_with("IO_ERROR: "), "{again}");
    rig.device.fails_read = false;
    let again = rig.wait(send(&second, &tokened(&operations, DURABLE))).unwrap();
    assert!(again.starts_with("applied ["), "{again}");
    assert_eq!(rig.wait(get(&second, "k")).unwrap(), "2");
}
