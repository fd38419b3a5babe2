//! Calls that were refused for a limit of the connection, as far as later calls depend on them.
//!
//! A refused call is answered at once and never reaches its object, which for most is all there is to it. The calls of a
//! streaming method are parts of one thing: one that fails makes all that follow fail, be they let in. So the object has such a
//! call in its place among the others, without parameters, and fails there.
use crate::conn::Conn;
use crate::exec::{Kind, TaskId};
use crate::hook::{ClientHook, ParamsHook};
use crate::local_call::unwanted_results;
use alloc::boxed::Box;
use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use capnp::{Error, Result, any_pointer};
use core::cell::{Cell, RefCell};

/// Tells whether calls of a method, by the numbers of its interface and its own, are parts of one thing.
pub(crate) type Streams = fn(u64, u16) -> bool;

/// What is to be told of refused calls, and is not yet.
pub(crate) struct Refused {
    pub(crate) streams: Cell<Streams>,
    /// By the address of the object, or of the promise of one: one call that waits there makes all later ones fail.
    waiting: RefCell<BTreeMap<usize, TaskId>>,
}

impl Default for Refused {
    fn default() -> Self {
        Refused { streams: Cell::new(|_, _| false), waiting: RefCell::default() }
    }
}

impl Conn {
    /// Tells whether calls of a method are parts of one thing.
    pub(crate) fn streams(&self, interface: u64, method: u16) -> bool {
        (self.refused.streams.get())(interface, method)
    }

    /// Has the target of a refused call know of it.
    ///
    /// # Errors
    /// There are too many that do not know yet.
    pub(crate) fn tell_refused(
        self: &Rc<Self>,
        target: &dyn ClientHook,
        interface: u64,
        method: u16,
        reason: Error,
    ) -> Result<()> {
        let address = target.get_ptr();
        if self.refused.waiting.borrow().contains_key(&address) {
            return Ok(());
        }
        let reserved = self.tasks.borrow_mut().reserve(Kind::Spawned);
        let Some((task, waker)) = reserved else { return Err(reason) };
        let params = Box::new(RefusedParams(reason));
        let call = target.call(interface, method, params, unwanted_results());
        self.refused.waiting.borrow_mut().insert(address, task);
        let conn = Rc::downgrade(self);
        let told = Box::pin(async move {
            // Its failure is the object's, and told there.
            let _failed = call.await;
            if let Some(conn) = conn.upgrade() {
                conn.refused.waiting.borrow_mut().remove(&address);
            }
        });
        let none = self.tasks.borrow_mut().put(task, told);
        drop(none);
        waker.wake();
        Ok(())
    }

    /// Forgets what nobody waits for any more.
    pub(crate) fn forget_refused(&self) {
        for task in self.refused.waiting.take().into_values() {
            self.tasks.borrow_mut().cancel(task);
        }
    }
}

/// The parameters of a call that was refused: why it was.
struct RefusedParams(Error);

impl ParamsHook for RefusedParams {
    fn get(&self) -> Result<any_pointer::Reader<'_>> {
        Err(self.0.clone())
    }
}
