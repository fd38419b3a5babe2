//! A store in memory that serves the schema over a vat: what the client's tests talk to.

use alloc::collections::BTreeMap;
use alloc::rc::Rc;
use alloc::string::String;
use alloc::vec::Vec;
use capnp::Error;
use core::cell::RefCell;
use core::ops::Bound;
use statefs::{ErrorCode, Mode, directory, precondition, state_fs};
use vat::{Limits, Vat};

/// Entries of one page, so that short lists have several.
pub(super) const PAGE_ENTRIES: usize = 3;

/// A key of this name is damaged; one of the other cannot be confirmed when it is written.
pub(super) const DAMAGED: &str = "damaged";
pub(super) const UNCONFIRMED: &str = "unconfirmed";

#[derive(Default)]
struct Keys {
    values: BTreeMap<String, (u64, Vec<u8>)>,
    written: u64,
}

struct Root(Rc<RefCell<Keys>>);

struct Subtree {
    keys: Rc<RefCell<Keys>>,
    prefix: String,
}

/// Makes the serving end of a connection to an empty store.
pub(super) fn serve() -> Vat {
    let root: state_fs::Client = vat::new_client(Root(Rc::default()));
    Vat::new(Some(root.client), Limits::default())
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
        Ok(())
    }
}
