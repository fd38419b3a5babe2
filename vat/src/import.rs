//! Capabilities hosted by the peer.
use crate::conn::Conn;
use crate::hook::{AnyRequest, Cap, ClientHook, ParamsHook, ResultsHook};
use crate::local_call::forward_call;
use crate::request::Via;
use crate::wire::failed;
use alloc::boxed::Box;
use alloc::rc::Rc;
use capnp::capability::Promise;
use capnp::{Error, MessageSize, Result};
use core::cell::Cell;

/// One entry of the peer's export table. The peer is told when the last reference goes.
pub(crate) struct Import {
    conn: Rc<Conn>,
    id: u32,
    /// How often the peer sent it, which a `Release` has to balance.
    references: Cell<u32>,
}

impl Import {
    pub(crate) fn new(conn: Rc<Conn>, id: u32) -> Rc<Import> {
        Rc::new(Import { conn, id, references: Cell::new(1) })
    }

    pub(crate) fn id(&self) -> u32 {
        self.id
    }

    pub(crate) fn add_reference(&self) -> Result<()> {
        let references = self.references.get().checked_add(1);
        let overflow = || failed("too many references to one capability");
        self.references.set(references.ok_or_else(overflow)?);
        Ok(())
    }
}

impl Drop for Import {
    fn drop(&mut self) {
        {
            let mut tables = self.conn.tables.borrow_mut();
            tables.targets.remove(&core::ptr::from_ref(self).addr());
            // A new import may have taken the place of this one.
            if tables.imports.get(&self.id).is_some_and(|import| import.strong_count() == 0) {
                tables.imports.remove(&self.id);
            }
        }
        self.conn.send_release(self.id, self.references.get());
    }
}

/// A reference to an import.
pub(crate) struct ImportHook(pub(crate) Rc<Import>);

impl ClientHook for ImportHook {
    fn add_ref(&self) -> Cap {
        Box::new(ImportHook(self.0.clone()))
    }

    fn new_call(&self, interface: u64, method: u16, _: Option<MessageSize>) -> AnyRequest {
        self.0.conn.request(Via::Import(self.0.clone()), interface, method)
    }

    fn call(
        &self,
        interface: u64,
        method: u16,
        params: Box<dyn ParamsHook>,
        results: Box<dyn ResultsHook>,
    ) -> Promise<(), Error> {
        forward_call(self.new_call(interface, method, None), params, results)
    }

    fn get_brand(&self) -> usize {
        self.0.conn.brand()
    }

    fn get_ptr(&self) -> usize {
        Rc::as_ptr(&self.0).addr()
    }

    fn get_resolved(&self) -> Option<Cap> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Cap, Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), Error> {
        Promise::ok(())
    }
}
