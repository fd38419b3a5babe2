//! A store in memory that serves the schema over a vat: what the client's tests talk to.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use capnp::Error;
use core::cell::RefCell;
use core::future::poll_fn;
use core::ops::Bound;
use core::task::{Context, Poll, Waker};
use statefs::{ErrorCode, Mode, directory, operation, precondition, reader, state_fs, writer};
use vat::{Limits, Vat};

/// Entries of one page, so that short lists have several.
pub(super) const PAGE_ENTRIES: usize = 3;

/// A key of this name is damaged; one of the other cannot be confirmed when it is written.
pub(super) const DAMAGED: &str = "damaged";
pub(super) const UNCONFIRMED: &str = "unconfirmed";

/// A value of this name, in parts, is not done before a sync is.
pub(super) const OVERTAKEN: &str = "overtaken";

/// The first who opens this directory is told to wait.
pub(super) const BUSY: &str = "/state/busy";

/// Batches that write this key may have been applied before: the first one of a connection is told so.
pub(super) const IN_DOUBT: &str = "in-doubt";

#[derive(Default)]
struct Keys {
    values: BTreeMap<String, (u64, Vec<u8>)>,
    written: u64,
    told_of_doubt: bool,
    told_to_wait: bool,
    synced: bool,
    /// What waits for a sync.
    overtaken: Option<Waker>,
}

impl Keys {
    fn wait_for_sync(&mut self, context: &Context<'_>) -> Poll<()> {
        self.overtaken = Some(context.waker().clone());
        if self.synced { Poll::Ready(()) } else { Poll::Pending }
    }
}

struct Root(Rc<RefCell<Keys>>);

struct Subtree {
    keys: Rc<RefCell<Keys>>,
    prefix: String,
}

/// Makes the serving end of a connection to an empty store.
pub(super) fn serve() -> Vat {
    serve_within(Limits::default())
}

/// The same with limits of its own.
pub(super) fn serve_within(limits: Limits) -> Vat {
    let root: state_fs::Client = vat::new_client(Root(Rc::default()));
    Vat::new(Some(root.client), limits)
}

impl state_fs::Server for Root {
    async fn hello(
        self: Rc<Self>,
        params: state_fs::HelloParams,
        mut results: state_fs::HelloResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let mut hello = results.get();
        hello.set_protocol(params.get_protocol().min(1));
        hello.set_service_name(params.get_client_name()?);
        hello.set_software_version("mini 1");
        hello.init_limits().set_calls(64);
        Ok(())
    }

    async fn health(
        self: Rc<Self>,
        _: state_fs::HealthParams,
        mut results: state_fs::HealthResults,
    ) -> Result<(), Error> {
        let mut health = results.get();
        health.set_mode(Mode::Degraded);
        health.set_reason("a key is damaged");
        health.set_loss_count(1);
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: state_fs::OpenParams,
        mut results: state_fs::OpenResults,
    ) -> Result<(), Error> {
        let prefix = params.get()?.get_prefix()?.to_string()?;
        if prefix == "/state/denied" {
            return Err(ErrorCode::AccessDenied.error("no grant"));
        }
        if prefix == BUSY && !core::mem::replace(&mut self.0.borrow_mut().told_to_wait, true) {
            return Err(ErrorCode::Overloaded.error("too much at once"));
        }
        let subtree = Subtree { keys: self.0.clone(), prefix };
        results.get().set_directory(vat::new_client(subtree));
        Ok(())
    }
}

impl Subtree {
    fn key(&self, key: capnp::Result<capnp::text::Reader<'_>>) -> Result<String, Error> {
        Ok(alloc::format!("{}/{}", self.prefix, key?.to_str()?))
    }

    fn current(&self, key: &str) -> u64 {
        self.keys.borrow().values.get(key).map_or(0, |(version, _)| *version)
    }

    /// The version that the key has instead of what was demanded, or nothing.
    fn conflict(&self, key: &str, demand: precondition::Reader<'_>) -> Option<u64> {
        let current = self.current(key);
        let holds = match demand.which() {
            Ok(precondition::Which::Any(())) => true,
            Ok(precondition::Which::Absent(())) => current == 0,
            Ok(precondition::Which::Version(version)) => current == version && version != 0,
            Err(_) => false,
        };
        (!holds).then_some(current)
    }
}

impl directory::Server for Subtree {
    async fn get(
        self: Rc<Self>,
        params: directory::GetParams,
        mut results: directory::GetResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let key = self.key(params.get_key())?;
        if key.ends_with(DAMAGED) {
            results.get().set_data_loss(());
            return Ok(());
        }
        let keys = self.keys.borrow();
        let Some((version, data)) = keys.values.get(&key) else {
            results.get().set_absent(());
            return Ok(());
        };
        let mut value = results.get().init_value();
        value.set_version(*version);
        value.set_bytes(data.len() as u64);
        if !params.get_metadata_only() {
            value.set_data(data);
        }
        Ok(())
    }

    async fn put(
        self: Rc<Self>,
        params: directory::PutParams,
        mut results: directory::PutResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let key = self.key(params.get_key())?;
        if key.ends_with(UNCONFIRMED) {
            results.get().set_indeterminate(());
            return Ok(());
        }
        match self.conflict(&key, params.get_precondition()?) {
            Some(0) => results.get().init_conflict().set_absent(()),
            Some(version) => results.get().init_conflict().set_version(version),
            None => {
                let mut keys = self.keys.borrow_mut();
                keys.written += 1;
                let version = keys.written;
                keys.values.insert(key, (version, params.get_value()?.to_vec()));
                results.get().set_version(version);
            }
        }
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: directory::DeleteParams,
        mut results: directory::DeleteResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let key = self.key(params.get_key())?;
        match self.conflict(&key, params.get_precondition()?) {
            Some(version) => results.get().init_conflict().set_version(version),
            None if self.keys.borrow_mut().values.remove(&key).is_some() => {
                results.get().set_deleted(());
            }
            None => results.get().set_absent(()),
        }
        Ok(())
    }

    async fn list(
        self: Rc<Self>,
        params: directory::ListParams,
        mut results: directory::ListResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let root = alloc::format!("{}/", self.prefix);
        let from = alloc::format!("{root}{}", params.get_after()?.to_str()?);
        let keys = self.keys.borrow();
        let range = keys.values.range((Bound::Excluded(from), Bound::Unbounded));
        let found: Vec<_> = range.take_while(|(key, _)| key.starts_with(&root)).collect();
        let page = &found[..found.len().min(PAGE_ENTRIES)];
        let mut answer = results.get();
        answer.set_intact(true);
        let mut entries = answer.reborrow().init_entries(u32::try_from(page.len()).unwrap());
        for (at, (key, (version, data))) in (0..).zip(page) {
            let mut entry = entries.reborrow().get(at);
            entry.set_key(&key[root.len()..]);
            let mut value = entry.init_value();
            value.set_version(*version);
            value.set_bytes(data.len() as u64);
            if !params.get_keys_only() {
                value.set_data(data);
            }
        }
        if let Some((last, _)) = page.last().filter(|_| found.len() > page.len()) {
            answer.set_next(&last[root.len()..]);
        }
        Ok(())
    }

    async fn sync(
        self: Rc<Self>,
        _: directory::SyncParams,
        mut results: directory::SyncResults,
    ) -> Result<(), Error> {
        results.get().set_durable(());
        let mut keys = self.keys.borrow_mut();
        keys.synced = true;
        if let Some(overtaken) = keys.overtaken.take() {
            overtaken.wake();
        }
        Ok(())
    }

    async fn commit(
        self: Rc<Self>,
        params: directory::CommitParams,
        mut results: directory::CommitResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let operations = params.get_operations()?;
        for (index, operation) in (0..).zip(operations) {
            let key = self.key(operation.get_key())?;
            if key.ends_with(IN_DOUBT)
                && !core::mem::replace(&mut self.keys.borrow_mut().told_of_doubt, true)
            {
                results.get().set_data_loss(statefs::BATCH_IN_DOUBT);
                return Ok(());
            }
            if key.ends_with(DAMAGED) {
                results.get().set_data_loss(index);
                return Ok(());
            }
            if let Some(current) = self.conflict(&key, operation.get_precondition()?) {
                let mut conflict = results.get().init_conflict();
                conflict.set_index(index);
                match current {
                    0 => conflict.init_current().set_absent(()),
                    version => conflict.init_current().set_version(version),
                }
                return Ok(());
            }
        }
        let mut versions = results.get().init_applied(operations.len());
        for (index, operation) in (0..).zip(operations) {
            let key = self.key(operation.get_key())?;
            let mut keys = self.keys.borrow_mut();
            keys.written += 1;
            let version = keys.written;
            match operation.which()? {
                operation::Put(value) => {
                    keys.values.insert(key, (version, value?.to_vec()));
                    versions.set(index, version);
                }
                _ => drop(keys.values.remove(&key)),
            }
        }
        Ok(())
    }

    async fn get_many(
        self: Rc<Self>,
        params: directory::GetManyParams,
        mut results: directory::GetManyResults,
    ) -> Result<(), Error> {
        let params = params.get()?;
        let keys = params.get_keys()?;
        let count = keys.len().min(u32::try_from(PAGE_ENTRIES).unwrap());
        let mut entries = results.get().init_entries(count);
        for index in 0..count {
            let key = self.key(keys.get(index))?;
            let mut entry = entries.reborrow().get(index);
            let held = self.keys.borrow().values.get(&key).cloned();
            match held {
                _ if key.ends_with(DAMAGED) => entry.set_data_loss(()),
                None => entry.set_absent(()),
                Some((version, data)) => {
                    let mut value = entry.init_value();
                    value.set_version(version);
                    value.set_bytes(data.len() as u64);
                    value.set_data(&data);
                }
            }
        }
        Ok(())
    }

    async fn writer(
        self: Rc<Self>,
        params: directory::WriterParams,
        mut results: directory::WriterResults,
    ) -> Result<(), Error> {
        let key = self.key(params.get()?.get_key())?;
        let upload = Upload { keys: self.keys.clone(), key, value: RefCell::default() };
        results.get().set_writer(vat::new_client(upload));
        Ok(())
    }

    async fn reader(
        self: Rc<Self>,
        params: directory::ReaderParams,
        mut results: directory::ReaderResults,
    ) -> Result<(), Error> {
        let key = self.key(params.get()?.get_key())?;
        let version = self.current(&key);
        let download = Download { keys: self.keys.clone(), key, version };
        results.get().set_reader(vat::new_client(download));
        Ok(())
    }
}

struct Upload {
    keys: Rc<RefCell<Keys>>,
    key: String,
    value: RefCell<Vec<u8>>,
}

impl writer::Server for Upload {
    async fn write(self: Rc<Self>, params: writer::WriteParams) -> Result<(), Error> {
        let chunk = params.get()?.get_chunk()?.to_vec();
        if self.key.ends_with(DAMAGED) {
            return Err(ErrorCode::NoSpace.error("no room for it"));
        }
        self.value.borrow_mut().extend(chunk);
        Ok(())
    }

    async fn done(
        self: Rc<Self>,
        _: writer::DoneParams,
        mut results: writer::DoneResults,
    ) -> Result<(), Error> {
        if self.key.ends_with(OVERTAKEN) {
            poll_fn(|context| self.keys.borrow_mut().wait_for_sync(context)).await;
        }
        let mut keys = self.keys.borrow_mut();
        keys.written += 1;
        let version = keys.written;
        keys.values.insert(self.key.clone(), (version, self.value.take()));
        results.get().set_version(version);
        Ok(())
    }
}

struct Download {
    keys: Rc<RefCell<Keys>>,
    key: String,
    version: u64,
}

impl reader::Server for Download {
    async fn info(
        self: Rc<Self>,
        _: reader::InfoParams,
        mut results: reader::InfoResults,
    ) -> Result<(), Error> {
        match self.keys.borrow().values.get(&self.key) {
            Some((version, data)) => {
                let mut value = results.get().init_value();
                value.set_version(*version);
                value.set_bytes(data.len() as u64);
            }
            None => results.get().set_absent(()),
        }
        Ok(())
    }

    async fn read(
        self: Rc<Self>,
        params: reader::ReadParams,
        mut results: reader::ReadResults,
    ) -> Result<(), Error> {
        let offset = usize::try_from(params.get()?.get_offset()).unwrap();
        match self.keys.borrow().values.get(&self.key) {
            Some((version, data)) if *version == self.version => {
                let rest = data.get(offset..).unwrap_or_default();
                results.get().set_data(&rest[..rest.len().min(1000)]);
            }
            _ => results.get().set_changed(()),
        }
        Ok(())
    }
}
