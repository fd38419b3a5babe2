//! Several keys in one call.

use statefs::{Durability, directory};

use super::{Message, VERSION, fill, request, result};

pub fn get_many() -> Vec<Message> {
    type Params = directory::get_many_params::Owned;
    type Results = directory::get_many_results::Owned;
    vec![
        request::<Params>("no key", |_| {}),
        request::<Params>("metadata of two keys", |mut many| {
            let mut keys = many.reborrow().init_keys(2);
            keys.set(0, "wifi/ssid");
            keys.set(1, "host");
            many.set_metadata_only(true);
        }),
        result::<Results>("a value, nothing, and a loss", |many| {
            let mut entries = many.init_entries(3);
            fill(entries.reborrow().get(0).init_value(), b"home\n", 5);
            entries.reborrow().get(1).set_absent(());
            entries.get(2).set_data_loss(());
        }),
    ]
}

pub fn commit() -> Vec<Message> {
    type Params = directory::commit_params::Owned;
    type Results = directory::commit_results::Owned;
    vec![
        request::<Params>("one put, preconditions left out", |commit| {
            let mut put = commit.init_operations(1).get(0);
            put.set_key("wifi");
            put.set_put(b"on");
        }),
        request::<Params>("a put and a delete with a token", |mut commit| {
            commit.set_durability(Durability::Buffered);
            commit.set_token(b"sixteen bytes...");
            let mut operations = commit.init_operations(2);
            let mut put = operations.reborrow().get(0);
            put.set_key("wifi");
            put.reborrow().init_precondition().set_absent(());
            put.set_put(b"on");
            let mut delete = operations.get(1);
            delete.set_key("lan");
            delete.reborrow().init_precondition().set_version(VERSION);
            delete.set_delete(());
        }),
        result::<Results>("indeterminate", |mut commit| commit.set_indeterminate(())),
        result::<Results>("a put and a delete were applied", |commit| {
            let mut versions = commit.init_applied(2);
            versions.set(0, VERSION);
            versions.set(1, 0);
        }),
        result::<Results>("conflict, another version", |commit| {
            let mut conflict = commit.init_conflict();
            conflict.set_index(1);
            conflict.init_current().set_version(VERSION);
        }),
        result::<Results>("conflict, absent", |commit| {
            let mut conflict = commit.init_conflict();
            conflict.set_index(0);
            conflict.init_current().set_absent(());
        }),
        result::<Results>("data loss", |mut commit| commit.set_data_loss(1)),
    ]
}
