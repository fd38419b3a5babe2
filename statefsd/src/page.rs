//! Pages of a list: which keys the caller may see, from where, and how much of them fits.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::future::{Future, poll_fn};
use core::pin::Pin;
use core::task::Poll;

use journal::{Journal, Origin, Seen};
use policy::{Granted, Key, Prefix};

use crate::error::Error;
use crate::limits::Limits;
use crate::request::{Get, List};
use crate::store::{Found, Store};

/// What a reply holds besides its entries: the call's frame, far pointers, `next`.
const REPLY_OVERHEAD_BYTES: usize = 1024;

/// The words of an entry that do not depend on its key and value: `Entry` and `Value`.
const ENTRY_BYTES: usize = 24 + 24;

/// Values of one page that are read at the same time.
const READS_AT_ONCE: usize = 16;

/// One page, with values where they were asked for.
pub(crate) struct Page {
    pub(crate) directory: Prefix,
    pub(crate) entries: Vec<(Key, Found)>,
    /// There are more keys behind the last one.
    pub(crate) more: bool,
    pub(crate) intact: bool,
}

/// The keys of one page.
pub(crate) struct Rows {
    directory: Prefix,
    rows: Vec<(Key, Seen)>,
    more: bool,
    /// What the entries may take of a reply.
    bytes_max: usize,
}

impl Rows {
    /// The last key, whatever becomes of it while the page is read.
    pub(crate) fn last(&self) -> Option<Key> {
        self.rows.last().map(|(key, _)| key.clone())
    }
}

/// Finds the keys of the page that `granted` asks for, in the order of their bytes; of a later part
/// of it those that are `behind` a key of it.
///
/// Cost: a step for each key of the page and one search for each subtree that is skipped, not for
/// the keys in it.
pub(crate) fn rows(
    journal: &Journal,
    granted: &Granted<List>,
    behind: Option<&Key>,
    limits: &Limits,
) -> Rows {
    let request = granted.request();
    let asked = usize::try_from(request.limit).unwrap_or(usize::MAX);
    let count_max = if asked == 0 { limits.list_entries } else { asked.min(limits.list_entries) };
    let bytes_max = limits.reply_bytes.saturating_sub(REPLY_OVERHEAD_BYTES);
    let directory = request.directory.clone();
    let mut page = Rows { directory, rows: Vec::new(), more: false, bytes_max };
    let mut bytes = 0;
    let mut from = start(request, behind.or(request.after.as_ref()));
    loop {
        let mut jump = None;
        journal.scan(&from, |path, seen| {
            let key = match step(granted, path) {
                Step::Show(key) => key,
                Step::Jump(to) => {
                    jump = to;
                    return false;
                }
            };
            let unshown = request.keys_only || seen.suspect || seen.large;
            let value_bytes = if unshown { 0 } else { seen.value_bytes };
            let value_bytes = usize::try_from(value_bytes).unwrap_or(usize::MAX);
            let cost = cost(&key, &request.directory, value_bytes);
            let full = page.rows.len() >= count_max || bytes + cost > bytes_max;
            if full && !page.rows.is_empty() {
                page.more = true;
                return false;
            }
            bytes += cost;
            page.rows.push((key, seen));
            true
        });
        match jump {
            Some(to) => from = to,
            None => return page,
        }
    }
}

/// Reads the values of a page.
///
/// # Errors
/// [`Error::Unreadable`] when the device does not read one of them.
pub(crate) async fn read(
    store: &Store,
    journal: &Journal,
    rows: Rows,
    keys_only: bool,
) -> Result<Page, Error> {
    let Rows { directory, rows, mut more, bytes_max } = rows;
    let mut entries = Vec::with_capacity(rows.len());
    for chunk in rows.chunks(READS_AT_ONCE) {
        let reads = chunk.iter().map(|(key, seen)| async move {
            if keys_only || seen.suspect {
                return Ok(store.metadata(key, seen));
            }
            store.value(journal, key, seen).await
        });
        let found = all(reads).await;
        for ((key, _), found) in chunk.iter().zip(found) {
            entries.push((key.clone(), found?));
        }
    }
    // Deleted while the page was read.
    entries.retain(|(_, found)| !matches!(found, Found::Absent));
    // Written over while the page was read, by more than it was.
    let fit = fit(
        entries.iter().map(|(key, found)| cost(key, &directory, found.data_bytes())),
        bytes_max,
    );
    more |= fit < entries.len();
    entries.truncate(fit);
    let damaged = entries.iter().any(|(_, found)| matches!(found, Found::DataLoss));
    let intact = !damaged && !journal.has_doubt();
    Ok(Page { directory, entries, more, intact })
}

/// Reads keys in their order, as long as a reply has room for what they hold; at least one.
///
/// Cost: at most [`READS_AT_ONCE`] values are read and not told.
pub(crate) async fn many(
    store: &Store,
    granted: &[Granted<Get>],
    origin: Origin,
    limits: &Limits,
) -> Result<Vec<Found>, Error> {
    let bytes_max = limits.reply_bytes.saturating_sub(REPLY_OVERHEAD_BYTES);
    let (mut bytes, mut told) = (0, Vec::new());
    for chunk in granted.chunks(READS_AT_ONCE) {
        let reads = chunk.iter().map(|granted| {
            let Get { key, metadata_only } = granted.request();
            store.get(key, origin, *metadata_only)
        });
        for found in all(reads).await {
            let found = found?;
            bytes += ENTRY_BYTES + found.data_bytes().next_multiple_of(8);
            if bytes > bytes_max && !told.is_empty() {
                return Ok(told);
            }
            told.push(found);
        }
    }
    Ok(told)
}

/// What to do about a key that a scan shows.
enum Step {
    /// It belongs to the page.
    Show(Key),
    /// It does not, and neither does anything before this; `None`: nothing else does either.
    Jump(Option<Vec<u8>>),
}

fn step(granted: &Granted<List>, path: &[u8]) -> Step {
    // Nobody can name a key that is none; only another program writes one.
    let key = core::str::from_utf8(path).ok().and_then(|path| Key::parse(path).ok());
    let Some(key) = key else {
        return Step::Jump(Some(after(path, 0)));
    };
    let Some(_) = granted.shown().iter().find(|shown| shown.covers(&key)) else {
        return Step::Jump(next_shown(granted, path));
    };
    if let Some(hidden) = granted.hidden().iter().find(|hidden| hidden.covers(&key)) {
        let hidden = hidden.as_str().as_bytes();
        // The keys below follow each other; between them and the path itself may lie others.
        let to = if path == hidden { after(path, 0) } else { after(hidden, b'/' + 1) };
        return Step::Jump(Some(to));
    }
    if granted.request().directory.relative(&key).is_none() {
        return Step::Jump(Some(after(path, 0)));
    }
    Step::Show(key)
}

/// Finds where the next subtree that is shown begins, or what lies below its own path.
fn next_shown(granted: &Granted<List>, path: &[u8]) -> Option<Vec<u8>> {
    let starts = granted.shown().iter().flat_map(|shown| {
        let shown = shown.as_str().as_bytes();
        [shown.to_vec(), after(shown, b'/')]
    });
    starts.filter(|start| start.as_slice() > path).min()
}

fn start(request: &List, behind: Option<&Key>) -> Vec<u8> {
    let prefix = request.prefix.as_str().as_bytes().to_vec();
    match behind {
        Some(key) => prefix.max(after(key.as_str().as_bytes(), 0)),
        None => prefix,
    }
}

fn after(path: &[u8], byte: u8) -> Vec<u8> {
    let mut after = Vec::with_capacity(path.len() + 1);
    after.extend_from_slice(path);
    after.push(byte);
    after
}

/// What an entry with so many bytes of a value takes in a message.
fn cost(key: &Key, directory: &Prefix, value_bytes: usize) -> usize {
    let name_bytes = directory.relative(key).map_or(0, str::len) + 1;
    let words = name_bytes.div_ceil(8).saturating_add(value_bytes.div_ceil(8));
    words.saturating_mul(8).saturating_add(ENTRY_BYTES)
}

/// Counts the entries at the front that fit together; the first one always does.
fn fit(costs: impl Iterator<Item = usize>, bytes_max: usize) -> usize {
    let mut bytes: usize = 0;
    let fits = |(at, cost): &(usize, usize)| {
        bytes = bytes.saturating_add(*cost);
        *at == 0 || bytes <= bytes_max
    };
    costs.enumerate().take_while(fits).count()
}

/// Runs a few futures at the same time, to the end of all.
pub(crate) async fn all<T, F: Future<Output = T>>(futures: impl Iterator<Item = F>) -> Vec<T> {
    let mut slots: Vec<(Pin<Box<F>>, Option<T>)> =
        futures.map(|future| (Box::pin(future), None)).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (future, end) in &mut slots {
            if end.is_none() {
                match future.as_mut().poll(context) {
                    Poll::Ready(ended) => *end = Some(ended),
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending { Poll::Pending } else { Poll::Ready(()) }
    })
    .await;
    slots.into_iter().filter_map(|(_, end)| end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_grew_while_it_was_read_goes_to_the_next_page() {
        assert_eq!(fit([40, 40, 20].into_iter(), 100), 3);
        assert_eq!(fit([40, 41, 20].into_iter(), 100), 2);
        assert_eq!(fit([101, 1].into_iter(), 100), 1);
        assert_eq!(fit([].into_iter(), 100), 0);
    }
}
