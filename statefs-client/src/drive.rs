//! Running work over a vat whose bytes the caller moves.

use alloc::string::String;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};

use vat::Vat;

use crate::error::Error;

/// Turns of the vat between two looks at its transport.
const TURNS: usize = 256;

/// Runs `work`, whose calls go over `vat`, to its end; needs no runtime, no std and no thread.
///
/// `turn` moves bytes: it sends what [`Vat::take_output`] yields, waits for the peer in whatever
/// way the machine has, and feeds [`Vat::receive`]. It is called while the work waits for an answer
/// and for nothing else. What it returns as an error ends the connection with that cause, and the
/// work learns it from its calls: a write that was not answered is [`Error::Indeterminate`]. How
/// long to be patient is up to `turn`.
///
/// # Errors
/// Those of the work; [`Error::Indeterminate`] if the connection is over and the work still waits,
/// for something that is no call of it.
pub fn drive<T, E: From<Error>>(
    vat: &Vat,
    work: impl Future<Output = Result<T, E>>,
    mut turn: impl FnMut(&Vat) -> Result<(), String>,
) -> Result<T, E> {
    let mut work = pin!(work);
    // Nothing but the vat wakes a call, and this loop asks it after every turn.
    let mut context = Context::from_waker(Waker::noop());
    loop {
        while vat.poll(TURNS) {}
        if let Poll::Ready(result) = work.as_mut().poll(&mut context) {
            return result;
        }
        if vat.wants_poll() {
            continue;
        }
        if let Some(over) = vat.over() {
            return Err(Error::Indeterminate { cause: over.extra }.into());
        }
        if let Err(cause) = turn(vat) {
            vat.disconnect(capnp::Error::disconnected(cause));
        }
    }
}
