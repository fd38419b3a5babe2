//! The policy changes while services work.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use rustix::process::Signal;
use statefs_client::{Client, ErrorCode, Rights};

use crate::machine::{Machine, PATIENCE};

/// Reloads; each takes a right away or gives it back.
const RELOADS: usize = 20;

/// What the other service does at least, and how often it writes at most.
const ROUNDS_MIN: u64 = 20;
const WRITES_MAX: u64 = 1000;

#[test]
fn reloads_under_load_count_at_once_and_touch_nobody_else() {
    let mut machine = Machine::new(32 << 20, &policy(true), &["steady", "fickle"]);
    machine.start();
    let over = AtomicBool::new(false);
    let (steady, fickle) = (machine.socket("steady"), machine.socket("fickle"));
    thread::scope(|scope| {
        // However it ends, so do the threads.
        let _over = SetOnDrop(&over);
        let steady = scope.spawn(|| {
            let client = Client::connect(&steady).unwrap();
            client.set_timeout(Some(PATIENCE));
            let own = client.directory("/state/steady", Rights::ALL);
            let mut round = 0_u64;
            while round < ROUNDS_MIN || !over.load(Ordering::Relaxed) {
                round += 1;
                // Reads alone go on for as long as it takes: the volume has an end.
                if round <= WRITES_MAX {
                    own.put_buffered("k", &round.to_le_bytes()).unwrap();
                }
                let held = own.get("k").unwrap().unwrap().data;
                assert_eq!(held, round.min(WRITES_MAX).to_le_bytes());
            }
        });
        // On a capability that is older than every reload.
        let client = Client::connect(&fickle).unwrap();
        client.set_timeout(Some(PATIENCE));
        let own = client.directory("/state/fickle", Rights::ALL);
        own.put("k", b"1").unwrap();
        for reload in 1..=RELOADS {
            let grants = reload % 2 == 0;
            machine.write_policy(&policy(grants));
            machine.signal(Signal::HUP);
            machine.until("the policy is in force", |machine| {
                machine.said().matches("another policy is in force").count() == reload
            });
            match own.put("k", b"1") {
                Ok(_) => assert!(grants, "reload {reload}"),
                Err(error) => {
                    assert_eq!(error.refusal(), Some(ErrorCode::AccessDenied), "{error}");
                    assert!(!grants, "reload {reload}");
                }
            }
            assert!(!steady.is_finished(), "nobody else notices");
        }
    });
    machine.check_health();
    machine.stop();
}

struct SetOnDrop<'a>(&'a AtomicBool);

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn policy(grants: bool) -> String {
    let right = if grants { "put" } else { "delete" };
    format!(
        "version = 1\n[service.steady]\nchannel = \"steady\"\n[service.fickle]\nchannel = \"fickle\"\n\
         [[grant]]\nto = \"steady\"\nprefix = \"/state/steady\"\nrights = [\"get\", \"put\"]\n\
         [[grant]]\nto = \"fickle\"\nprefix = \"/state/fickle\"\nrights = [\"{right}\"]\n"
    )
}
