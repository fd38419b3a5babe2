//! Mutated streams, in random pieces, to either end: no panic, no limit passed, nothing leaked.
//! Every case follows from its number, which a failure prints.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test stops where it fails, and its numbers are small"
)]
use std::cell::Cell;
use std::rc::Rc;
use vat::{Limits, Vat};
use vat_interop::echo_capnp::{counter, echo};
use vat_interop::{CallbackServer, Counts, EchoServer, Host, Runtime, drive};

const CASES: u64 = 10_000;

/// Uses every feature that a stream can hold.
async fn script(echo: echo::Client) {
    let host = Host::of(Runtime::Vat);
    let mut request = echo.make_counter_slow_request();
    request.get().set_ticks(3);
    let call = request.send();
    let counter = call.pipeline.get_counter();
    let added = [add(&counter), add(&counter)];
    let child = counter.child_request().send().pipeline.get_counter();
    let mut mine = echo.is_mine_request();
    mine.get().set_counter(child.clone());
    let mine = mine.send().promise;
    let mut bounce = echo.bounce_request();
    bounce.get().set_callback((host.callback)(CallbackServer::default()));
    let bounce = bounce.send();
    let callback = bounce.pipeline.get_callback();
    let poked = [callback.poke_request().send().promise, callback.poke_request().send().promise];
    for promise in added {
        let _ = promise.await;
    }
    let _ = (mine.await, call.promise.await, bounce.promise.await);
    let _ = callback.poke_request().send().promise.await;
    for promise in poked {
        let _ = promise.await;
    }
    let mut call_me = echo.call_me_request();
    call_me.get().set_n(2);
    call_me.get().set_callback((host.callback)(CallbackServer::default()));
    let _ = call_me.send().promise.await;
    let never = echo.never_request().send();
    let _ = echo.live_request().send().promise.await;
    drop(never);
    let mut write = echo.write_request();
    write.get().set_chunk(&[1; 40]);
    let _ = write.send().await;
    let mut fail = echo.fail_request();
    fail.get().set_why("X");
    let failing = fail.send().pipeline.get_counter();
    let _ = add(&failing).await;
    let mut many = echo.counters_request();
    many.get().set_n(3);
    let _ = many.send().promise.await;
}

fn add(
    counter: &counter::Client,
) -> capnp::capability::Promise<
    capnp::capability::Response<counter::add_results::Owned>,
    capnp::Error,
> {
    let mut request = counter.add_request();
    request.get().set_n(1);
    request.send().promise
}

fn server() -> (Vat, Rc<Counts>) {
    let counts = Rc::new(Counts::default());
    let object =
        vat::new_client::<echo::Client, _>(EchoServer::new(Host::of(Runtime::Vat), counts.clone()));
    (Vat::new(Some(object.client), Limits::default()), counts)
}

fn client() -> (Vat, Rc<Cell<bool>>) {
    let vat = Vat::new(None, Limits::default());
    let done = Rc::new(Cell::new(false));
    let (echo, finished) = (vat.bootstrap(), done.clone());
    vat.spawn(async move {
        script(echo).await;
        finished.set(true);
    })
    .unwrap();
    (vat, done)
}

/// What each end sends when nobody interferes.
fn record() -> (Vec<u8>, Vec<u8>) {
    let ((server, _counts), (client, done)) = (server(), client());
    let (mut up, mut down) = (Vec::new(), Vec::new());
    for _ in 0..1000 {
        drive(&client, |bytes| {
            server.receive(&bytes).unwrap();
            up.extend(bytes);
        });
        drive(&server, |bytes| {
            client.receive(&bytes).unwrap();
            down.extend(bytes);
        });
    }
    assert!(done.get());
    (up, down)
}

struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        // splitmix64
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) % end as u64) as usize
    }
}

fn mutate(stream: &[u8], random: &mut Random) -> Vec<u8> {
    let mut bytes = stream.to_vec();
    for _ in 0..1 + random.below(6) {
        let at = random.below(bytes.len());
        match random.below(6) {
            0 => bytes[at] = random.below(256) as u8,
            1 => bytes[at] ^= 1 << random.below(8),
            2 => bytes[at] = random.below(16) as u8,
            3 => {
                // A word from elsewhere.
                let (from, to) = (random.below(bytes.len() / 8) * 8, at / 8 * 8);
                let word: [u8; 8] = bytes[from..from + 8].try_into().unwrap();
                bytes[to..to + 8].copy_from_slice(&word);
            }
            4 => {
                // A part of the stream again: repeated messages, reused ids.
                let from = random.below(bytes.len() / 8) * 8;
                let again = bytes[from..].to_vec();
                bytes.extend(again);
            }
            _ => bytes.truncate(at.max(8) / 8 * 8),
        }
    }
    bytes
}

/// Prints the case if it panics.
struct Case(&'static str, u64);

impl Drop for Case {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("{} case {}", self.0, self.1);
        }
    }
}

/// Feeds a stream in pieces; tells whether the vat ended the connection.
fn feed(vat: &Vat, bytes: &[u8], random: &mut Random) -> bool {
    let limits = Limits::default();
    let mut rest = bytes;
    while !rest.is_empty() {
        let (piece, after) = rest.split_at((1 + random.below(400)).min(rest.len()));
        rest = after;
        if vat.receive(piece).is_err() {
            return true;
        }
        vat.poll(random.below(8));
        if random.below(2) == 0 {
            vat.take_output();
        }
        let stats = vat.stats();
        assert!(stats.calls <= limits.calls && stats.answers <= limits.answers, "{stats:?}");
        assert!(stats.exports <= limits.exports && stats.imports <= limits.imports, "{stats:?}");
        assert!(stats.questions <= limits.questions, "{stats:?}");
        assert!(stats.held_bytes <= limits.in_flight_bytes, "{stats:?}");
        assert!(stats.input_bytes <= limits.frame_bytes, "{stats:?}");
    }
    for _ in 0..50 {
        vat.poll(64);
        vat.take_output();
    }
    false
}

#[test]
fn a_server_survives_any_stream() {
    let (up, _) = record();
    let mut aborted = 0;
    for case in 0..CASES {
        let _case = Case("server", case);
        let mut random = Random(case);
        let bytes = mutate(&up, &mut random);
        let (vat, counts) = server();
        aborted += u32::from(feed(&vat, &bytes, &mut random));
        drop(vat);
        assert_eq!(counts.live.get(), 0, "counters outlive their connection");
    }
    // Both happen: mutations that break a rule, and ones that are carried out.
    assert!(aborted > 1000 && aborted < 9900, "{aborted}");
}

#[test]
fn a_client_survives_any_stream() {
    let (_, down) = record();
    let mut aborted = 0;
    for case in 0..CASES {
        let _case = Case("client", case);
        let mut random = Random(case ^ 0xc11e27);
        let bytes = mutate(&down, &mut random);
        let (vat, done) = client();
        while vat.poll(16) {}
        aborted += u32::from(feed(&vat, &bytes, &mut random));
        vat.disconnect(capnp::Error::disconnected("the end".into()));
        while vat.poll(16) {}
        assert!(done.get(), "every call ends with its connection");
        assert_eq!(vat.stats().tasks, 0);
    }
    assert!(aborted > 1000 && aborted < 9900, "{aborted}");
}
