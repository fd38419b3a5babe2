//! The client and a small server over two vats: stubs, frames, pipelining.

use alloc::rc::Rc;
use capnp::Error;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use statefs::state_fs;
use statefs_client::{Call, ErrorCode, Rights, StateFs};
use vat::{Limits, Vat};

/// Says hello and knows nothing else.
struct Root;

impl state_fs::Server for Root {
    async fn hello(
        self: Rc<Self>,
        params: state_fs::HelloParams,
        mut results: state_fs::HelloResults,
    ) -> Result<(), Error> {
        let name = params.get()?.get_client_name()?;
        let mut hello = results.get();
        hello.set_protocol(statefs::PROTOCOL);
        hello.set_service_name(name);
        Ok(())
    }
}

/// A greeting is answered, and a call on a directory that never comes gets the stable code.
pub(crate) fn check() -> Result<(), &'static str> {
    let root: state_fs::Client = vat::new_client(Root);
    let theirs = Vat::new(Some(root.client), Limits::default());
    let ours = Vat::new(None, Limits::default());
    let store = StateFs::over(&ours);
    let hello = wait(&ours, &theirs, store.hello("freestanding"))?;
    if hello.ok().and_then(|hello| hello.service).as_deref() != Some("freestanding") {
        return Err("the greeting is not answered");
    }
    let get = store.directory("/state/net", Rights::GET).get("wifi");
    match wait(&ours, &theirs, get)? {
        Err(error) if error.code() == ErrorCode::Unimplemented.text() => Ok(()),
        _ => Err("a call on nothing is not refused"),
    }
}

fn wait<T: 'static>(
    ours: &Vat,
    theirs: &Vat,
    call: Call<T>,
) -> Result<statefs_client::Result<T>, &'static str> {
    let mut call = pin!(call);
    for _ in 0..TURNS_MAX {
        if let Poll::Ready(result) = call.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Ok(result);
        }
        for (from, to) in [(ours, theirs), (theirs, ours)] {
            while from.poll(16) {}
            to.receive(&from.take_output()).map_err(|_| "a vat refuses the other's bytes")?;
        }
    }
    Err("a call is not answered")
}

const TURNS_MAX: u32 = 100;
