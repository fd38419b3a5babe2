//! Capabilities on the wire: descriptors, exports and their reference counts.
use crate::broken::broken;
use crate::conn::{Conn, Export};
use crate::hook::{Cap, Caps, ClientHook, settled};
use crate::import::{Import, ImportHook};
use crate::rpc_capnp::{cap_descriptor, message_target, payload, promised_answer};
use crate::wire::{Target, failed, read_ops, write_ops};
use alloc::boxed::Box;
use alloc::format;
use alloc::rc::{Rc, Weak};
use alloc::vec::Vec;
use capnp::{Error, Result};

impl Conn {
    /// Reads the capability table of a message.
    ///
    /// # Errors
    /// The peer broke the protocol or a limit.
    pub(crate) fn read_caps(self: &Rc<Self>, payload: payload::Reader<'_>) -> Result<Caps> {
        let table = payload.get_cap_table()?;
        if table.len() > self.limits.cap_table {
            return Err(failed("too many capabilities in one message"));
        }
        table.iter().map(|descriptor| self.read_cap(descriptor)).collect()
    }

    /// Gives back the capabilities of a message that is refused unread. Sent one by one, because
    /// not every peer heeds `Return.releaseParamCaps`.
    pub(crate) fn decline_caps(&self, payload: payload::Reader<'_>) -> Result<()> {
        let table = payload.get_cap_table()?;
        if table.len() > self.limits.cap_table {
            return Err(failed("too many capabilities in one message"));
        }
        for descriptor in table {
            match descriptor.which() {
                Ok(cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)) => {
                    self.send_release(id, 1);
                }
                Ok(cap_descriptor::ThirdPartyHosted(third)) => {
                    self.send_release(third?.get_vine_id(), 1);
                }
                _ => {}
            }
        }
        Ok(())
    }

    pub(crate) fn send_release(&self, id: u32, references: u32) {
        self.send(|message| {
            let mut release = message.init_release();
            release.set_id(id);
            release.set_reference_count(references);
        });
    }

    /// What a message of the peer is addressed to.
    pub(crate) fn target(&self, target: message_target::Reader<'_>) -> Result<Cap> {
        match target.which()? {
            message_target::ImportedCap(id) => {
                self.exported(id).ok_or_else(|| failed("the target is not a current export"))
            }
            message_target::PromisedAnswer(promised) => self.promised(promised?),
        }
    }

    /// Writes the capability table of a message and gives the exports in it, one per reference.
    ///
    /// # Errors
    /// There are too many in this message, or on this connection. Then none is exported.
    pub(crate) fn write_caps(
        &self,
        caps: &Caps,
        payload: payload::Builder<'_>,
    ) -> Result<Vec<u32>> {
        let mut exports = Vec::new();
        if caps.is_empty() {
            return Ok(exports);
        }
        let count = u32::try_from(caps.len())
            .ok()
            .filter(|count| *count <= self.limits.cap_table)
            .ok_or_else(|| failed("too many capabilities in one message"))?;
        let mut table = payload.init_cap_table(count);
        for (index, cap) in (0u32..).zip(caps) {
            let Some(cap) = cap else { continue };
            match self.write_cap(&**cap, table.reborrow().get(index)) {
                Ok(export) => exports.extend(export),
                Err(error) => {
                    self.release_each(&exports);
                    return Err(error);
                }
            }
        }
        Ok(exports)
    }

    /// Drops references of the peer to an export.
    ///
    /// # Errors
    /// The peer never had them.
    pub(crate) fn release(&self, id: u32, references: u32) -> Result<()> {
        let released = {
            let tables = &mut *self.tables.borrow_mut();
            let export = tables.exports.get(id).ok_or_else(|| failed("release of no export"))?;
            export.references = export
                .references
                .checked_sub(references)
                .ok_or_else(|| failed("released more references than there are"))?;
            if export.references > 0 {
                return Ok(());
            }
            let address = export.address;
            tables.export_of.remove(&address);
            tables.exports.remove(id)
        };
        drop(released);
        Ok(())
    }

    /// Drops one reference to each of these exports, as far as the peer has not done so itself.
    pub(crate) fn release_each(&self, exports: &[u32]) {
        for id in exports {
            let _ = self.release(*id, 1);
        }
    }

    fn read_cap(self: &Rc<Self>, descriptor: cap_descriptor::Reader<'_>) -> Result<Option<Cap>> {
        Ok(Some(match descriptor.which() {
            Ok(cap_descriptor::None(())) => return Ok(None),
            Ok(cap_descriptor::SenderHosted(id) | cap_descriptor::SenderPromise(id)) => {
                self.import(id)?
            }
            Ok(cap_descriptor::ReceiverHosted(id)) => self
                .exported(id)
                .unwrap_or_else(|| broken(failed("a descriptor of no current export"))),
            Ok(cap_descriptor::ReceiverAnswer(promised)) => self.promised(promised?)?,
            Ok(cap_descriptor::ThirdPartyHosted(third)) => self.import(third?.get_vine_id())?,
            Err(_) => broken(failed("a capability descriptor of unknown type")),
        }))
    }

    fn import(self: &Rc<Self>, id: u32) -> Result<Cap> {
        let known = self.tables.borrow().imports.get(&id).and_then(Weak::upgrade);
        if let Some(import) = known {
            import.add_reference()?;
            return Ok(Box::new(ImportHook(import)));
        }
        if self.tables.borrow().imports.len() >= self.limits.imports {
            return Err(Error::overloaded(format!(
                "OVERLOADED: more than {} imported capabilities",
                self.limits.imports
            )));
        }
        let import = Import::new(self.clone(), id);
        let mut tables = self.tables.borrow_mut();
        tables.imports.insert(id, Rc::downgrade(&import));
        tables.targets.insert(Rc::as_ptr(&import).addr(), Target::Import(id));
        Ok(Box::new(ImportHook(import)))
    }

    fn exported(&self, id: u32) -> Option<Cap> {
        let mut tables = self.tables.borrow_mut();
        Some(tables.exports.get(id)?.cap.add_ref())
    }

    fn promised(&self, promised: promised_answer::Reader<'_>) -> Result<Cap> {
        let ops = read_ops(promised)?;
        let question = promised.get_question_id();
        let answer = self.tables.borrow().answers.get(&question).map(|entry| entry.answer.clone());
        Ok(match answer {
            Some(answer) => answer.cap(&ops, answer.clone()),
            None => broken(failed("pipelined on a call without capabilities, or finished")),
        })
    }

    /// Describes one capability, and exports it unless it is the peer's own.
    fn write_cap(
        &self,
        cap: &dyn ClientHook,
        mut descriptor: cap_descriptor::Builder<'_>,
    ) -> Result<Option<u32>> {
        let cap = settled(cap.add_ref());
        let address = cap.get_ptr();
        if cap.get_brand() == self.brand() {
            match self.tables.borrow().targets.get(&address) {
                Some(Target::Import(id)) => descriptor.set_receiver_hosted(*id),
                Some(Target::Answer(question, ops)) => {
                    write_ops(descriptor.init_receiver_answer(), *question, ops);
                }
                None => return Err(failed("a capability of a connection that is over")),
            }
            return Ok(None);
        }
        let tables = &mut *self.tables.borrow_mut();
        if let Some(id) = tables.export_of.get(&address).copied()
            && let Some(export) = tables.exports.get(id)
        {
            export.references = export
                .references
                .checked_add(1)
                .ok_or_else(|| failed("too many references to one capability"))?;
            descriptor.set_sender_hosted(id);
            return Ok(Some(id));
        }
        if tables.exports.count() >= self.limits.exports {
            return Err(Error::overloaded(format!(
                "OVERLOADED: more than {} exported capabilities",
                self.limits.exports
            )));
        }
        let id = tables.exports.add(Export { cap, address, references: 1 });
        tables.export_of.insert(address, id);
        descriptor.set_sender_hosted(id);
        Ok(Some(id))
    }
}
