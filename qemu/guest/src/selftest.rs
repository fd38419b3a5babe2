//! The machine's test of itself: a program that writes, is refused, and finds again what it wrote.

use alloc::boxed::Box;
use alloc::format;
use alloc::rc::Rc;
use alloc::string::String;
use core::cell::RefCell;

use statefs_client::Rights;

use crate::mark::Mark;
use crate::program::{Program, Start};
use crate::services;

/// The name by which a policy knows the test.
pub const CHANNEL: &str = "selftest";

/// How often the server starts in a test: once to write, once to find.
pub const STARTS: u32 = 2;

/// What was put was acknowledged, and is read back.
pub const PUT: Mark = Mark { name: "put", line: "SELFTEST: statefs put ok" };

/// Another server found what the first had acknowledged.
pub const PERSIST: Mark = Mark { name: "persist", line: "SELFTEST: statefs persist ok" };

/// Where the test may write, and where it may not; the policy says both.
const GRANTED: &str = "/state/selftest";
const DENIED: &str = "/state/selftest-denied";

/// Yields all that a test runs side by side: the test of the store, and the services.
#[must_use]
pub fn programs() -> [Program; 4] {
    [program(), services::keystored(), services::updated(), services::crashd()]
}

/// Yields the test of the store. What it wrote it keeps beside the server, so that the second start compares what was
/// replayed with what was acknowledged.
fn program() -> Program {
    let written: Rc<RefCell<Option<[u8; 32]>>> = Rc::default();
    let run = move |start: Start| -> crate::Task {
        let written = written.clone();
        Box::pin(async move {
            let before = *written.borrow();
            match before {
                None => {
                    write(&start).await?;
                    written.replace(Some(start.seed));
                    Ok(())
                }
                Some(value) => PERSIST.after(find(&start, &value), start.print).await,
            }
        })
    };
    Program { channel: CHANNEL, run: Box::new(run) }
}

async fn write(start: &Start) -> Result<(), String> {
    PUT.after(put(start), start.print).await?;
    let denied = start.store.directory(DENIED, Rights::GET).get("value").await;
    match denied {
        Err(error) if error.code() == "ACCESS_DENIED" => Ok(()),
        _ => Err("what nothing grants was not denied".into()),
    }
}

async fn put(start: &Start) -> Result<(), String> {
    let directory = start.store.directory(GRANTED, Rights::GET | Rights::PUT);
    let failed = |error| format!("a put failed: {error}");
    let version = directory.put("value", &start.seed).await.map_err(failed)?;
    let read = directory.get("value").await.map_err(|error| format!("a get failed: {error}"))?;
    if read.is_none_or(|read| read.data != start.seed || read.version != version) {
        return Err("what was put is not what is there".into());
    }
    Ok(())
}

async fn find(start: &Start, value: &[u8]) -> Result<(), String> {
    let directory = start.store.directory(GRANTED, Rights::GET);
    let read = directory.get("value").await.map_err(|error| format!("a get failed: {error}"))?;
    if read.is_none_or(|read| read.data != value) {
        return Err("what was acknowledged is not there after a restart".into());
    }
    Ok(())
}
