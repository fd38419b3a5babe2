//! Hosts that do one thing wrong, and the case that must notice.

use std::cell::Cell;
use std::rc::Rc;

use capnp::{Error, ErrorKind};
use statefs::{Mode, directory, reader, state_fs};
use vat::Vat;

/// What a host does wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(crate) enum Flaw {
    None,
    // Of the host itself.
    FlushesNothing,
    ForgetsAll,
    EndsInHaste,
    KnowsNobody,
    RecordsNothing,
    DeniesNobody,
    // Of something between the client and the daemon, which passes on all the rest.
    SaysDegraded,
    BoastsOfCalls,
    BoastsOfEntries,
    UnderstatesReplies,
    OpensTheParent,
    IgnoresRights,
    IgnoresPreconditions,
    LosesPuts,
    LosesOnePut,
    CutsValues,
    CutsKeys,
    CleansKeys,
    FoldsKeys,
    Overtakes,
    RepeatsVersions,
    AlwaysDeletes,
    DeletesBelow,
    RefusesSync,
    IgnoresPrefix,
    IgnoresAfter,
    IgnoresKeysOnly,
    DeniesDifferently,
    BoastsOfBatches,
    IgnoresTokens,
    SwapsParts,
    RestrictsNothing,
    CountsAll,
    DescribesNothing,
}

/// Each flaw with a case that notices it; every case is there.
pub(crate) const CAUGHT: &[(Flaw, &str)] = &[
    (Flaw::KnowsNobody, "greeting::hello_tells_each_its_name_and_the_limits"),
    (Flaw::SaysDegraded, "greeting::a_healthy_store_says_so_to_everybody"),
    (Flaw::LosesPuts, "keys::what_was_put_is_what_is_read"),
    (Flaw::AlwaysDeletes, "keys::what_is_not_there_is_absent"),
    (Flaw::DeletesBelow, "keys::keys_beneath_a_key_are_keys_of_their_own"),
    (Flaw::OpensTheParent, "keys::a_key_is_the_same_through_every_directory"),
    (Flaw::CleansKeys, "keys::a_key_that_breaks_a_rule_is_refused"),
    (Flaw::FoldsKeys, "keys::a_strange_key_that_breaks_none_is_taken"),
    (Flaw::RepeatsVersions, "writes::a_version_is_new_with_every_write"),
    (Flaw::IgnoresPreconditions, "writes::a_put_happens_only_if_its_precondition_holds"),
    (Flaw::IgnoresPreconditions, "writes::a_delete_happens_only_if_its_precondition_holds"),
    (Flaw::IgnoresPreconditions, "writes::preconditions_hold_for_every_durability"),
    (Flaw::RefusesSync, "writes::sync_needs_no_right_and_nothing_to_do"),
    (Flaw::CutsKeys, "limits::the_longest_key_is_taken_and_one_byte_more_is_not"),
    (Flaw::CutsValues, "limits::the_largest_value_is_taken_and_one_byte_more_is_not"),
    (Flaw::BoastsOfCalls, "limits::as_many_calls_as_the_limit_says_are_under_way"),
    (Flaw::BoastsOfEntries, "limits::a_page_holds_as_many_entries_as_the_limit_says"),
    (Flaw::UnderstatesReplies, "limits::a_page_ends_before_its_reply_is_too_large"),
    (Flaw::IgnoresPreconditions, "batches::all_of_a_batch_happens_or_nothing"),
    (Flaw::BoastsOfBatches, "batches::a_batch_up_to_the_limits_is_taken"),
    (Flaw::IgnoresTokens, "batches::a_token_is_answered_again"),
    (Flaw::SwapsParts, "derived::a_value_of_many_parts_is_visible_only_whole"),
    (Flaw::RestrictsNothing, "derived::a_restricted_directory_can_do_less_and_ends"),
    (Flaw::CountsAll, "derived::usage_counts_what_is_there"),
    (Flaw::DescribesNothing, "derived::the_schema_describes_itself"),
    (Flaw::RecordsNothing, "audit::each_change_has_one_record"),
    (Flaw::RecordsNothing, "audit::each_refusal_has_a_record_with_what_it_lacked"),
    (Flaw::FlushesNothing, "audit::a_record_survives_a_kill_with_its_change"),
    (Flaw::IgnoresPrefix, "lists::a_prefix_covers_whole_segments_in_the_order_of_bytes"),
    (Flaw::IgnoresAfter, "lists::pages_follow_each_other_without_gap_or_repeat"),
    (Flaw::IgnoresKeysOnly, "lists::an_entry_has_the_value_or_with_keys_only_its_size"),
    (Flaw::OpensTheParent, "lists::a_key_of_a_list_is_relative_to_the_directory"),
    (Flaw::Overtakes, "order::calls_of_a_connection_happen_in_their_order"),
    (Flaw::IgnoresPreconditions, "order::preconditions_see_what_is_under_way"),
    (Flaw::LosesPuts, "order::an_acknowledged_write_is_seen_by_others"),
    (Flaw::IgnoresPreconditions, "order::of_two_that_create_a_key_one_does"),
    (Flaw::LosesPuts, "order::an_acknowledged_write_outlives_its_connection"),
    (Flaw::CleansKeys, "order::a_connection_goes_on_behind_a_refusal"),
    (Flaw::DeniesNobody, "rights::a_stranger_is_denied_everything"),
    (Flaw::DeniesNobody, "rights::each_may_what_is_granted_and_no_more"),
    (Flaw::IgnoresRights, "rights::a_directory_is_good_for_the_rights_it_was_opened_with"),
    (Flaw::IgnoresPreconditions, "rights::a_precondition_takes_the_right_to_read"),
    (Flaw::DeniesNobody, "rights::what_is_hidden_leaves_no_trace"),
    (Flaw::DeniesNobody, "rights::names_are_not_values"),
    (Flaw::DeniesDifferently, "rights::a_denial_is_the_same_bytes_whether_the_key_is_there"),
    (Flaw::DeniesNobody, "rights::what_was_denied_has_changed_nothing"),
    (Flaw::FlushesNothing, "restarts::what_was_acknowledged_survives_a_kill"),
    (Flaw::FlushesNothing, "restarts::what_was_synced_survives_a_kill"),
    (Flaw::FlushesNothing, "restarts::a_durable_write_keeps_the_buffered_ones_before_it"),
    (Flaw::LosesOnePut, "restarts::after_a_kill_a_prefix_of_the_buffered_writes_is_there"),
    (Flaw::EndsInHaste, "restarts::a_clean_end_loses_nothing"),
    (Flaw::ForgetsAll, "restarts::versions_are_the_same_after_a_restart"),
    (Flaw::KnowsNobody, "restarts::everybody_is_known_again_after_a_restart"),
];

/// What sits between a client and the daemon: nothing, or two vats and the flaw between them.
pub(crate) struct Middle(Option<(Vat, Vat)>);

impl Middle {
    pub(crate) fn new(flaw: Flaw) -> Self {
        if flaw <= Flaw::DeniesNobody {
            return Self(None);
        }
        // The client's bounds are the daemon's business.
        let limits = vat::Limits { calls: 1024, ..vat::Limits::default() };
        let behind = Vat::new(None, limits);
        let root = Root { flaw, inner: behind.bootstrap() };
        let client: state_fs::Client = vat::new_client(root);
        Self(Some((Vat::new(Some(client.client), limits), behind)))
    }

    /// Takes what the client sent, and yields what reaches the daemon.
    pub(crate) fn there(&self, bytes: &[u8]) -> Vec<u8> {
        let Some((front, behind)) = &self.0 else { return bytes.to_vec() };
        front.receive(bytes).unwrap();
        while front.poll(64) | behind.poll(64) {}
        behind.take_output()
    }

    /// Takes what the daemon sent, and yields what reaches the client, and the daemon again.
    pub(crate) fn back(&self, bytes: &[u8]) -> (Vec<u8>, Vec<u8>) {
        let Some((front, behind)) = &self.0 else { return (bytes.to_vec(), Vec::new()) };
        behind.receive(bytes).unwrap();
        while front.poll(64) | behind.poll(64) {}
        (front.take_output(), behind.take_output())
    }
}

struct Root {
    flaw: Flaw,
    inner: state_fs::Client,
}

struct Directory {
    flaw: Flaw,
    inner: directory::Client,
    puts: Cell<usize>,
}

impl state_fs::Server for Root {
    async fn hello(
        self: Rc<Self>,
        params: state_fs::HelloParams,
        mut results: state_fs::HelloResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.hello_request();
        request.set(params.get()?)?;
        let answer = request.send().promise.await?;
        results.set(answer.get()?)?;
        let mut limits = results.get().get_limits()?;
        match self.flaw {
            Flaw::BoastsOfCalls => limits.set_calls(200),
            Flaw::BoastsOfEntries => limits.set_list_entries(1500),
            Flaw::UnderstatesReplies => limits.set_reply_bytes(500_000),
            Flaw::BoastsOfBatches => limits.set_batch_operations(200),
            _ => {}
        }
        Ok(())
    }

    async fn describe(
        self: Rc<Self>,
        _: state_fs::DescribeParams,
        mut results: state_fs::DescribeResults,
    ) -> Result<(), Error> {
        let answer = self.inner.describe_request().send().promise.await?;
        results.set(answer.get()?)?;
        if self.flaw == Flaw::DescribesNothing {
            results.get().init_schema(0);
        }
        Ok(())
    }

    async fn health(
        self: Rc<Self>,
        _: state_fs::HealthParams,
        mut results: state_fs::HealthResults,
    ) -> Result<(), Error> {
        let answer = self.inner.health_request().send().promise.await?;
        results.set(answer.get()?)?;
        if self.flaw == Flaw::SaysDegraded {
            results.get().set_mode(Mode::Degraded);
        }
        Ok(())
    }

    async fn open(
        self: Rc<Self>,
        params: state_fs::OpenParams,
        mut results: state_fs::OpenResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.open_request();
        request.set(params.get()?)?;
        let prefix = params.get()?.get_prefix()?.to_string()?;
        if self.flaw == Flaw::OpensTheParent
            && let Some((parent, _)) = prefix.rsplit_once('/')
        {
            request.get().set_prefix(parent);
        }
        if self.flaw == Flaw::IgnoresRights {
            let mut rights = request.get().init_rights();
            rights.set_get(true);
            rights.set_list(true);
            rights.set_put(true);
            rights.set_delete(true);
        }
        let answer = request.send();
        let inner = answer.pipeline.get_directory();
        answer.promise.await?;
        let directory = Directory { flaw: self.flaw, inner, puts: Cell::new(0) };
        results.get().set_directory(vat::new_client(directory));
        Ok(())
    }
}

impl Directory {
    /// The key that reaches the daemon.
    fn key(&self, key: capnp::Result<capnp::text::Reader<'_>>) -> Result<String, Error> {
        let key = key?.to_string()?;
        Ok(match self.flaw {
            Flaw::CutsKeys => key.chars().take(150).collect(),
            Flaw::CleansKeys => key.trim_matches('/').replace("//", "/"),
            Flaw::FoldsKeys => key.to_lowercase(),
            _ => key,
        })
    }

    /// The key that a put reaches.
    fn key_of_put(&self, key: String) -> String {
        self.puts.set(self.puts.get() + 1);
        let lost = self.flaw == Flaw::LosesPuts
            || (self.flaw == Flaw::LosesOnePut && self.puts.get() == 3);
        if lost { format!("{key}.lost") } else { key }
    }

    /// The denial that reaches the client.
    fn denial(&self, key: &str, error: Error) -> Error {
        if self.flaw == Flaw::DeniesDifferently && key == "present" {
            // The text is the same.
            return Error { kind: ErrorKind::Unimplemented, ..error };
        }
        error
    }
}

impl directory::Server for Directory {
    async fn get(
        self: Rc<Self>,
        params: directory::GetParams,
        mut results: directory::GetResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.get_request();
        request.set(params.get()?)?;
        let key = self.key(params.get()?.get_key())?;
        request.get().set_key(&key);
        let answer = request.send().promise.await.map_err(|error| self.denial(&key, error))?;
        results.set(answer.get()?)
    }

    async fn put(
        self: Rc<Self>,
        params: directory::PutParams,
        mut results: directory::PutResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.put_request();
        request.set(params.get()?)?;
        let key = self.key_of_put(self.key(params.get()?.get_key())?);
        request.get().set_key(&key);
        if self.flaw == Flaw::IgnoresPreconditions {
            request.get().init_precondition().set_any(());
        }
        if self.flaw == Flaw::CutsValues {
            let value = params.get()?.get_value()?;
            request.get().set_value(value.get(..value.len().min(65_000)).unwrap());
        }
        if self.flaw == Flaw::Overtakes {
            for _ in 0..4 {
                vat::yield_now().await;
            }
        }
        let answer = request.send().promise.await?;
        results.set(answer.get()?)?;
        if self.flaw == Flaw::RepeatsVersions {
            results.get().set_version(1);
        }
        Ok(())
    }

    async fn delete(
        self: Rc<Self>,
        params: directory::DeleteParams,
        mut results: directory::DeleteResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.delete_request();
        request.set(params.get()?)?;
        let key = self.key(params.get()?.get_key())?;
        request.get().set_key(&key);
        if self.flaw == Flaw::IgnoresPreconditions {
            request.get().init_precondition().set_any(());
        }
        if self.flaw == Flaw::DeletesBelow {
            let mut below = self.inner.delete_request();
            below.get().set_key(format!("{key}/c"));
            below.send().promise.await?;
        }
        let answer = request.send().promise.await?;
        results.set(answer.get()?)?;
        if self.flaw == Flaw::AlwaysDeletes {
            results.get().set_deleted(());
        }
        Ok(())
    }

    async fn list(
        self: Rc<Self>,
        params: directory::ListParams,
        mut results: directory::ListResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.list_request();
        request.set(params.get()?)?;
        match self.flaw {
            Flaw::IgnoresPrefix => request.get().set_prefix(""),
            Flaw::IgnoresAfter => request.get().set_after(""),
            Flaw::IgnoresKeysOnly => request.get().set_keys_only(false),
            _ => {}
        }
        let answer = request.send().promise.await?;
        results.set(answer.get()?)
    }

    async fn sync(
        self: Rc<Self>,
        _: directory::SyncParams,
        mut results: directory::SyncResults,
    ) -> Result<(), Error> {
        if self.flaw == Flaw::RefusesSync {
            return Err(Error::failed("ACCESS_DENIED".into()));
        }
        let answer = self.inner.sync_request().send().promise.await?;
        results.set(answer.get()?)
    }

    async fn get_many(
        self: Rc<Self>,
        params: directory::GetManyParams,
        mut results: directory::GetManyResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.get_many_request();
        request.set(params.get()?)?;
        let answer = request.send().promise.await?;
        results.set(answer.get()?)
    }

    async fn commit(
        self: Rc<Self>,
        params: directory::CommitParams,
        mut results: directory::CommitResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.commit_request();
        request.set(params.get()?)?;
        if self.flaw == Flaw::IgnoresTokens {
            request.get().init_token(0);
        }
        if self.flaw == Flaw::IgnoresPreconditions {
            let mut operations = request.get().get_operations()?;
            for at in 0..operations.len() {
                operations.reborrow().get(at).init_precondition().set_any(());
            }
        }
        let answer = request.send().promise.await?;
        results.set(answer.get()?)
    }

    async fn writer(
        self: Rc<Self>,
        params: directory::WriterParams,
        mut results: directory::WriterResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.writer_request();
        request.set(params.get()?)?;
        results.get().set_writer(request.send().pipeline.get_writer());
        Ok(())
    }

    async fn reader(
        self: Rc<Self>,
        params: directory::ReaderParams,
        mut results: directory::ReaderResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.reader_request();
        request.set(params.get()?)?;
        let inner = request.send().pipeline.get_reader();
        let reader = Reader { flaw: self.flaw, inner };
        results.get().set_reader(vat::new_client(reader));
        Ok(())
    }

    async fn restrict(
        self: Rc<Self>,
        params: directory::RestrictParams,
        mut results: directory::RestrictResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.restrict_request();
        request.set(params.get()?)?;
        if self.flaw == Flaw::RestrictsNothing {
            let mut rights = request.get().init_rights();
            rights.set_get(true);
            rights.set_put(true);
            rights.set_delete(true);
        }
        let pipeline = request.send().pipeline;
        results.get().set_directory(pipeline.get_directory());
        results.get().set_revoker(pipeline.get_revoker());
        Ok(())
    }

    async fn usage(
        self: Rc<Self>,
        params: directory::UsageParams,
        mut results: directory::UsageResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.usage_request();
        request.set(params.get()?)?;
        if self.flaw == Flaw::CountsAll {
            request.get().set_prefix("");
        }
        let answer = request.send().promise.await?;
        results.set(answer.get()?)
    }
}

struct Reader {
    flaw: Flaw,
    inner: reader::Client,
}

impl reader::Server for Reader {
    async fn info(
        self: Rc<Self>,
        _: reader::InfoParams,
        mut results: reader::InfoResults,
    ) -> Result<(), Error> {
        let answer = self.inner.info_request().send().promise.await?;
        results.set(answer.get()?)
    }

    async fn read(
        self: Rc<Self>,
        params: reader::ReadParams,
        mut results: reader::ReadResults,
    ) -> Result<(), Error> {
        let mut request = self.inner.read_request();
        request.set(params.get()?)?;
        let offset = params.get()?.get_offset();
        if self.flaw == Flaw::SwapsParts && offset > 0 {
            request.get().set_offset(offset ^ 4);
        }
        let answer = request.send().promise.await?;
        results.set(answer.get()?)
    }
}
