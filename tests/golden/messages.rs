//! One message for each method and direction, and one for each member of a union in it.

mod admin;
mod batches;
mod streams;

use capnp::capability::{FromClientHook, Promise, Request};
use capnp::message::{Builder, HeapAllocator};
use capnp::private::capability::{ClientHook, ParamsHook, ResultsHook};
use capnp::traits::{ImbueMut, Owned};
use capnp::{MessageSize, Word, any_pointer};
use statefs::{Durability, Feature, Mode, current, directory, state_fs, value};

/// A message in canonical form.
pub struct Message {
    pub is_result: bool,
    pub title: &'static str,
    pub bytes: Vec<u8>,
}

/// A method of the schema, and what makes its messages.
type Method = (&'static str, fn() -> Vec<Message>);

/// Every method of the schema.
pub const METHODS: &[Method] = &[
    ("StateFs.hello", hello),
    ("StateFs.health", health),
    ("StateFs.open", open),
    ("StateFs.describe", admin::describe),
    ("StateFs.admin", admin::admin),
    ("Directory.get", get),
    ("Directory.put", put),
    ("Directory.delete", delete),
    ("Directory.list", list),
    ("Directory.sync", sync),
    ("Directory.getMany", batches::get_many),
    ("Directory.commit", batches::commit),
    ("Directory.writer", streams::writer),
    ("Directory.reader", streams::reader),
    ("Directory.restrict", streams::restrict),
    ("Directory.usage", admin::usage),
    ("Writer.write", streams::write),
    ("Writer.done", streams::done),
    ("Reader.info", streams::info),
    ("Reader.read", streams::read),
    ("Revoker.revoke", streams::revoke),
    ("Admin.stats", admin::stats),
    ("Admin.check", admin::check),
    ("Admin.checkpoint", admin::checkpoint),
    ("Admin.reloadPolicy", admin::reload_policy),
    ("Admin.audit", admin::audit),
];

fn hello() -> Vec<Message> {
    let asked = request::<state_fs::hello_params::Owned>("protocol 1", |mut hello| {
        hello.set_client_name("golden 1.0");
        hello.set_protocol(1);
    });
    let told = result::<state_fs::hello_results::Owned>("the usual limits", |mut hello| {
        hello.set_protocol(1);
        hello.set_features(1 << Feature::Describe as u64 | 1 << Feature::Audit as u64);
        hello.set_service_name("updated");
        hello.set_software_version("statefsd 0.1.0");
        hello.reborrow().init_admin_rights(1).set(0, "admin.stats");
        let mut limits = hello.init_limits();
        limits.set_key_bytes(255);
        limits.set_value_bytes(64 << 10);
        limits.set_reply_bytes(1 << 20);
        limits.set_list_entries(1024);
        limits.set_frame_bytes((1 << 20) + (256 << 10));
        limits.set_frame_segments(16);
        limits.set_nesting(16);
        limits.set_traversal_bytes((2 << 20) + (512 << 10));
        limits.set_calls(64);
        limits.set_exports(1024);
        limits.set_bytes_in_flight(2 << 20);
        limits.set_connections(128);
        limits.set_batch_operations(128);
        limits.set_batch_bytes(1 << 20);
        limits.set_large_value_bytes(1 << 33);
        limits.set_streams(16);
        limits.set_restrictions(256);
    });
    vec![asked, told]
}

fn health() -> Vec<Message> {
    let mut messages = vec![request::<state_fs::health_params::Owned>("", |_| {})];
    for (title, mode, reason, loss_count) in [
        ("healthy", Mode::Healthy, "", 0),
        ("degraded", Mode::Degraded, "data was lost", 2),
        ("read-only", Mode::ReadOnly, "a flush failed", 0),
        ("sealed", Mode::Sealed, "no key was given", 0),
        ("failed", Mode::Failed, "no superblock is valid", 0),
    ] {
        messages.push(result::<state_fs::health_results::Owned>(title, |mut health| {
            health.set_mode(mode);
            // An empty text is a null pointer, as it is for a server that has nothing to say.
            if !reason.is_empty() {
                health.set_reason(reason);
            }
            health.set_loss_count(loss_count);
        }));
    }
    messages
}

fn open() -> Vec<Message> {
    let mut messages = vec![request::<state_fs::open_params::Owned>("all rights", |mut open| {
        open.set_prefix("/state/net");
        let mut rights = open.init_rights();
        rights.set_get(true);
        rights.set_list(true);
        rights.set_put(true);
        rights.set_delete(true);
        rights.set_watch(true);
        rights.set_snapshot(true);
        rights.set_delegate(true);
    })];
    // Each right has a bit of its own.
    for (title, right) in [
        ("the right get", 0),
        ("the right list", 1),
        ("the right put", 2),
        ("the right delete", 3),
        ("the right watch", 4),
        ("the right snapshot", 5),
        ("the right delegate", 6),
    ] {
        messages.push(request::<state_fs::open_params::Owned>(title, |mut open| {
            open.set_prefix("/state");
            let mut rights = open.init_rights();
            rights.set_get(right == 0);
            rights.set_list(right == 1);
            rights.set_put(right == 2);
            rights.set_delete(right == 3);
            rights.set_watch(right == 4);
            rights.set_snapshot(right == 5);
            rights.set_delegate(right == 6);
        }));
    }
    messages.push(with_capabilities::<state_fs::open_results::Owned>(
        "the directory",
        |mut open| {
            open.set_directory(directory::Client::new(Box::new(Nobody)));
        },
    ));
    messages
}

fn get() -> Vec<Message> {
    type Params = directory::get_params::Owned;
    type Results = directory::get_results::Owned;
    vec![
        request::<Params>("the whole value", |mut get| get.set_key("wifi/ssid")),
        request::<Params>("metadata only", |mut get| {
            get.set_key("wifi/ssid");
            get.set_metadata_only(true);
        }),
        result::<Results>("data loss", |mut get| get.set_data_loss(())),
        result::<Results>("absent", |mut get| get.set_absent(())),
        result::<Results>("a value", |get| fill(get.init_value(), b"home\n", 5)),
        result::<Results>("an empty value", |get| fill(get.init_value(), b"", 0)),
        result::<Results>("metadata", |get| fill(get.init_value(), b"", 65_536)),
        result::<Results>("a large value", |get| fill(get.init_large(), b"", 65_537)),
    ]
}

fn put() -> Vec<Message> {
    type Params = directory::put_params::Owned;
    type Results = directory::put_results::Owned;
    vec![
        request::<Params>("any, durable, precondition left out", |mut put| {
            put.set_key("wifi");
            put.set_value(b"on");
        }),
        request::<Params>("any, buffered", |mut put| {
            put.set_key("wifi");
            put.set_value(b"on");
            put.reborrow().init_precondition().set_any(());
            put.set_durability(Durability::Buffered);
        }),
        request::<Params>("if absent", |mut put| {
            put.set_key("wifi");
            put.set_value(b"on");
            put.reborrow().init_precondition().set_absent(());
            put.set_durability(Durability::Durable);
        }),
        request::<Params>("if the version is, strict", |mut put| {
            put.set_key("wifi");
            put.set_value(b"on");
            put.set_durability(Durability::Strict);
            put.init_precondition().set_version(VERSION);
        }),
        result::<Results>("indeterminate", |mut put| put.set_indeterminate(())),
        result::<Results>("version", |mut put| put.set_version(VERSION)),
        result::<Results>("conflict, another version", |put| {
            put.init_conflict().set_version(VERSION);
        }),
        result::<Results>("conflict, absent", |put| put.init_conflict().set_absent(())),
        result::<Results>("data loss", |mut put| put.set_data_loss(())),
    ]
}

fn delete() -> Vec<Message> {
    type Params = directory::delete_params::Owned;
    type Results = directory::delete_results::Owned;
    vec![
        request::<Params>("any, durable, precondition left out", |mut delete| {
            delete.set_key("wifi");
        }),
        request::<Params>("if the version is, buffered", |mut delete| {
            delete.set_key("wifi");
            delete.set_durability(Durability::Buffered);
            delete.init_precondition().set_version(VERSION);
        }),
        result::<Results>("indeterminate", |mut delete| delete.set_indeterminate(())),
        result::<Results>("deleted", |mut delete| delete.set_deleted(())),
        result::<Results>("absent", |mut delete| delete.set_absent(())),
        result::<Results>("conflict, another version", |delete| {
            let mut current: current::Builder<'_> = delete.init_conflict();
            current.set_version(VERSION);
        }),
        result::<Results>("data loss", |mut delete| delete.set_data_loss(())),
    ]
}

fn list() -> Vec<Message> {
    type Params = directory::list_params::Owned;
    type Results = directory::list_results::Owned;
    vec![
        request::<Params>("everything, as many as the server likes", |_| {}),
        request::<Params>("two keys, from within", |mut list| {
            list.set_prefix("wifi");
            list.set_after("wifi/channel");
            list.set_limit(2);
            list.set_keys_only(true);
        }),
        result::<Results>("nothing, and nothing lost", |mut list| {
            list.reborrow().init_entries(0);
            list.set_intact(true);
        }),
        result::<Results>("a page with a successor and a loss", |mut list| {
            list.set_next("wifi/ssid");
            let mut entries = list.init_entries(2);
            let mut lost = entries.reborrow().get(0);
            lost.set_key("wifi/key");
            lost.set_data_loss(());
            let mut present = entries.get(1);
            present.set_key("wifi/ssid");
            fill(present.init_value(), b"home\n", 5);
        }),
        result::<Results>("keys only", |mut list| {
            list.set_intact(true);
            let mut entry = list.init_entries(1).get(0);
            entry.set_key("wifi/ssid");
            fill(entry.init_value(), b"", 5);
        }),
        result::<Results>("a large value", |mut list| {
            list.set_intact(true);
            let mut entry = list.init_entries(1).get(0);
            entry.set_key("dump");
            fill(entry.init_large(), b"", 1 << 33);
        }),
    ]
}

fn sync() -> Vec<Message> {
    type Results = directory::sync_results::Owned;
    vec![
        request::<directory::sync_params::Owned>("", |_| {}),
        result::<Results>("indeterminate", |mut sync| sync.set_indeterminate(())),
        result::<Results>("durable", |mut sync| sync.set_durable(())),
    ]
}

fn fill(mut value: value::Builder<'_>, data: &[u8], bytes: u64) {
    value.set_version(VERSION);
    value.set_bytes(bytes);
    if !data.is_empty() {
        value.set_data(data);
    }
}

fn request<T: Owned>(title: &'static str, fill: impl FnOnce(T::Builder<'_>)) -> Message {
    Message { is_result: false, title, bytes: canonical::<T>(fill) }
}

fn result<T: Owned>(title: &'static str, fill: impl FnOnce(T::Builder<'_>)) -> Message {
    Message { is_result: true, title, bytes: canonical::<T>(fill) }
}

/// A message with capabilities has no canonical form; this one is a single segment, in order.
fn with_capabilities<T: Owned>(title: &'static str, fill: impl FnOnce(T::Builder<'_>)) -> Message {
    let mut message = Builder::new(HeapAllocator::new());
    let mut capabilities = Vec::new();
    let mut root = message.init_root::<any_pointer::Builder<'_>>();
    root.imbue_mut(&mut capabilities);
    fill(root.init_as::<T::Builder<'_>>());
    assert!(!capabilities.is_empty());
    let segments = message.get_segments_for_output();
    let [segment] = segments[..] else { panic!("one segment holds the message") };
    Message { is_result: true, title, bytes: segment.to_vec() }
}

fn canonical<T: Owned>(fill: impl FnOnce(T::Builder<'_>)) -> Vec<u8> {
    let mut message = Builder::new_default();
    fill(message.init_root::<T::Builder<'_>>());
    Word::words_to_bytes(&message.into_reader().canonicalize().unwrap()).to_vec()
}

/// A version with eight different bytes, so that their order shows.
const VERSION: u64 = 0x0807_0605_0403_0201;

/// A capability that is only ever put into a message.
struct Nobody;

impl ClientHook for Nobody {
    fn add_ref(&self) -> Box<dyn ClientHook> {
        Box::new(Self)
    }

    fn new_call(
        &self,
        _: u64,
        _: u16,
        _: Option<MessageSize>,
    ) -> Request<any_pointer::Owned, any_pointer::Owned> {
        unreachable!("nobody is called")
    }

    fn call(
        &self,
        _: u64,
        _: u16,
        _: Box<dyn ParamsHook>,
        _: Box<dyn ResultsHook>,
    ) -> Promise<(), capnp::Error> {
        unreachable!("nobody is called")
    }

    fn get_brand(&self) -> usize {
        0
    }

    fn get_ptr(&self) -> usize {
        0
    }

    fn get_resolved(&self) -> Option<Box<dyn ClientHook>> {
        None
    }

    fn when_more_resolved(&self) -> Option<Promise<Box<dyn ClientHook>, capnp::Error>> {
        None
    }

    fn when_resolved(&self) -> Promise<(), capnp::Error> {
        Promise::ok(())
    }
}
