//! Signals that come faster than answers.

#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, reason = "a test stops where it fails")]

mod common;

use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use common::Folder;
use rustix::process::{Signal, kill_process};
use rustix::thread::gettid;
use statefs_client::{Client, Error};

const TIMEOUT: Duration = Duration::from_millis(100);

/// A program that is profiled has a signal every few milliseconds, and each ends poll(2).
#[test]
fn a_daemon_that_is_silent_is_given_up_between_signals_too() {
    let folder = Folder::new();
    let path = folder.path().join("silent.sock");
    let _silent = UnixListener::bind(&path).unwrap();
    let heard = Arc::new(AtomicBool::new(false));
    signal_hook::flag::register(signal_hook::consts::SIGUSR1, heard.clone()).unwrap();
    let (waits, ended) = (gettid(), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            let until = Instant::now() + 200 * TIMEOUT;
            while !ended.load(Ordering::Relaxed) && Instant::now() < until {
                // By its number a thread is interrupted before the others of its process.
                kill_process(waits, Signal::USR1).unwrap();
                thread::sleep(TIMEOUT / 10);
            }
            assert!(ended.load(Ordering::Relaxed), "it waits as long as there are signals");
        });
        let client = Client::connect(&path).unwrap();
        client.set_timeout(Some(TIMEOUT));
        let called = client.health().unwrap_err();
        assert!(matches!(called, Error::TimedOut { .. }), "{called}");
        let calls = client.calls();
        let run = client.run(async { calls.health().await }).unwrap_err();
        ended.store(true, Ordering::Relaxed);
        assert!(matches!(run, Error::Disconnected { .. }), "{run}");
    });
    assert!(heard.load(Ordering::Relaxed));
}
