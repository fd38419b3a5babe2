//! What a writer is refused, and when.

use statefs::Durability;

use crate::rig::{If, Rig, put, version};
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
