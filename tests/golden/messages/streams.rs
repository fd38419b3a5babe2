//! Large values in parts, and capabilities that can be taken away.

use capnp::capability::FromClientHook as _;
use statefs::{Durability, directory, reader, revoker, writer};

use super::{Message, Nobody, VERSION, fill, request, result, with_capabilities};

pub fn writer() -> Vec<Message> {
    vec![
        request::<directory::writer_params::Owned>("of an unknown size", |mut writer| {
            writer.set_key("dump");
        }),
        request::<directory::writer_params::Owned>("if absent, buffered", |mut writer| {
            writer.set_key("dump");
            writer.reborrow().init_precondition().set_absent(());
            writer.set_durability(Durability::Buffered);
            writer.set_bytes(1 << 33);
        }),
        with_capabilities::<directory::writer_results::Owned>("the writer", |mut results| {
            results.set_writer(writer::Client::new(Box::new(Nobody)));
        }),
    ]
}

pub fn write() -> Vec<Message> {
    vec![
        request::<writer::write_params::Owned>("a chunk", |mut write| write.set_chunk(b"first ")),
        // A stream's result is the empty struct of the standard schemas.
        result::<writer::done_params::Owned>("taken", |_| {}),
    ]
}

pub fn done() -> Vec<Message> {
    vec![
        request::<writer::done_params::Owned>("", |_| {}),
        result::<directory::put_results::Owned>("as for put", |mut put| put.set_version(VERSION)),
    ]
}

pub fn reader() -> Vec<Message> {
    vec![
        request::<directory::reader_params::Owned>("", |mut reader| reader.set_key("dump")),
        with_capabilities::<directory::reader_results::Owned>("the reader", |mut results| {
            results.set_reader(reader::Client::new(Box::new(Nobody)));
        }),
    ]
}

pub fn info() -> Vec<Message> {
    type Results = reader::info_results::Owned;
    vec![
        request::<reader::info_params::Owned>("", |_| {}),
        result::<Results>("data loss", |mut info| info.set_data_loss(())),
        result::<Results>("absent", |mut info| info.set_absent(())),
        result::<Results>("a value", |info| fill(info.init_value(), b"", 1 << 33)),
    ]
}

pub fn read() -> Vec<Message> {
    type Params = reader::read_params::Owned;
    type Results = reader::read_results::Owned;
    vec![
        request::<Params>("from the start, as much as may be", |_| {}),
        request::<Params>("a part", |mut read| {
            read.set_offset(1 << 33);
            read.set_bytes(6);
        }),
        result::<Results>("data loss", |mut read| read.set_data_loss(())),
        result::<Results>("changed", |mut read| read.set_changed(())),
        result::<Results>("absent", |mut read| read.set_absent(())),
        result::<Results>("a part", |mut read| read.set_data(b"first ")),
    ]
}

pub fn restrict() -> Vec<Message> {
    vec![
        request::<directory::restrict_params::Owned>("read below a prefix", |mut restrict| {
            restrict.set_prefix("wifi");
            restrict.reborrow().init_rights().set_get(true);
            restrict.set_expiry_millis(60_000);
        }),
        with_capabilities::<directory::restrict_results::Owned>("both", |mut results| {
            results.set_directory(directory::Client::new(Box::new(Nobody)));
            results.set_revoker(revoker::Client::new(Box::new(Nobody)));
        }),
    ]
}

pub fn revoke() -> Vec<Message> {
    vec![
        request::<revoker::revoke_params::Owned>("", |_| {}),
        result::<revoker::revoke_results::Owned>("", |_| {}),
    ]
}
