//! `statefs image dump`.

use std::cell::RefCell;
use std::future::poll_fn;
use std::path::Path;
use std::pin::pin;
use std::task::Poll;

use journal::{Digest, Journal, OpenError, Options, Seen, Shown};
use serde_json::{Value as Json, json};

use super::facts::Image;
use crate::base64;
use crate::failure::{Exit, Failure};
use crate::output::Output;

/// Prints all that the volume at `path` holds, and its digest. Changes no byte.
pub(crate) fn dump(path: &Path, mut output: Output) -> Result<(), Failure> {
    let found = walk(path, |key, seen, shown| output.json(&line(key, seen, shown)))?;
    output.json(&json!({"digest": found.digest.to_string()}))?;
    output.finish()?;
    if found.is_whole() {
        return Ok(());
    }
    Err(found.loss().about(path.display()))
}

/// What a volume held.
pub(crate) struct Found {
    pub(crate) digest: Digest,
    lost_count: u64,
    stretch_count: usize,
    doubt: bool,
}

impl Found {
    /// Whether nothing that had been acknowledged is known to be lost.
    pub(crate) fn is_whole(&self) -> bool {
        self.lost_count == 0 && self.stretch_count == 0 && !self.doubt
    }

    /// Says what is lost, or may be.
    fn loss(&self) -> Failure {
        let Self { lost_count, stretch_count, .. } = self;
        let mut told = Vec::new();
        if *lost_count > 0 {
            told.push(format!("{lost_count} of these values are lost"));
        }
        if *stretch_count > 0 {
            let stretches = format!("{stretch_count} stretches of the journal are lost");
            told.push(stretches + ", and their keys");
        } else if self.doubt {
            // It lies before the checkpoint, which tells that it was and not what it took.
            told.push("keys may be missing, which an earlier loss took".into());
        }
        let failure = Failure::new("DATA_LOSS", Exit::DataLoss, told.join("; "));
        if *lost_count > 0 || *stretch_count > 0 {
            return failure;
        }
        failure.advise("`statefs image salvage` brings these values into a new image without doubt")
    }
}

/// Shows every key of the volume at `path` to `each`, large values in parts. Where that fails, no more is read.
pub(crate) fn walk(
    path: &Path,
    mut each: impl FnMut(&[u8], &Seen, &Shown<'_>) -> Result<(), Failure>,
) -> Result<Found, Failure> {
    let mut image = Image::open(path, true)?;
    let opening = Journal::open_read_only(image.disk.clone(), Options::default());
    let journal = image.run(opening).map_err(|error| unopened(path, error))?;
    let mut lost_count = 0;
    let failed = RefCell::new(None);
    let digest = {
        let mut digesting = pin!(journal::digest(&journal, |key, seen, shown| {
            lost_count += u64::from(matches!(shown, Shown::Lost));
            if let Err(failure) = each(key, seen, &shown) {
                failed.borrow_mut().get_or_insert(failure);
            }
        }));
        // It waits for the device at each value, which is where it is left.
        image.run(poll_fn(|context| match (digesting.as_mut().poll(context), failed.take()) {
            (_, Some(failure)) => Poll::Ready(Err(failure)),
            (Poll::Ready(digest), None) => Poll::Ready(Ok(digest)),
            (Poll::Pending, None) => Poll::Pending,
        }))?
    };
    let stretch_count = journal.report().lost.len();
    Ok(Found { digest, lost_count, stretch_count, doubt: journal.has_doubt() })
}

/// One line: a value, or a part of a large one, which says where it begins and how long the whole is.
fn line(key: &[u8], seen: &Seen, shown: &Shown<'_>) -> Json {
    let (value, at) = match shown {
        Shown::Value(value) => (Some(*value), None),
        Shown::Part { at, bytes } => (Some(*bytes), Some(*at)),
        Shown::Lost => (None, None),
    };
    let (name, key) = match std::str::from_utf8(key) {
        Ok(key) => ("key", Json::from(key)),
        // No daemon writes such a key; a damaged or foreign volume may hold one.
        Err(_) => ("keyBytes", base64::encode(key).into()),
    };
    let value = value.map(base64::encode);
    let version = format!("{:016x}", seen.version().0);
    let part = at.map(|at| [("at", at.into()), ("bytes", seen.value_bytes.into())]);
    let fields = [(name, key), ("value", value.into()), ("version", version.into())];
    let fields = fields.into_iter().chain(part.into_iter().flatten());
    fields.map(|(name, value)| (name.to_owned(), value)).collect()
}

fn unopened(path: &Path, error: OpenError) -> Failure {
    let code = match error {
        // What the checkpoint covers cannot be read: acknowledged data is lost.
        OpenError::Checkpoint(_) => {
            // No daemon opens it either, so nothing could be put anew in it.
            let failure = Failure::new("DATA_LOSS", Exit::DataLoss, error).about(path.display());
            return failure
                .advise("`statefs image salvage` saves all that verifies into a new image");
        }
        OpenError::Blank => "BLANK",
        OpenError::NoSuperblock => "NO_VOLUME",
        OpenError::Version(_) => "FORMAT_VERSION",
        OpenError::Shrunk { .. } | OpenError::Geometry(_) => "GEOMETRY",
        OpenError::MountsUsedUp => "MOUNTS_USED_UP",
        OpenError::Flush(_) | OpenError::Write(_) | OpenError::Replay(_) => "DEVICE",
    };
    Failure::new(code, Exit::Failure, error).about(path.display())
}

#[cfg(test)]
mod tests {
    use super::super::fill::Fill;
    use super::*;
    use journal::FormatOptions;

    /// To a reader that is gone, the rest of a volume is not worth an hour.
    #[test]
    fn nothing_is_read_for_who_takes_nothing_more() {
        let folder = std::env::temp_dir().join(format!("statefs-dump-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("x.img");
        let mut fill = Fill::create(&path, 4 << 20, FormatOptions::default()).expect("a volume");
        for number in 0..40 {
            fill.put(format!("/state/{number:02}").as_bytes(), &[7; 4000]).expect("room");
        }
        fill.finish().expect("room");
        let gone = || Failure::new("OUTPUT", Exit::Failure, "gone");
        let mut shown = 0;
        let walked = walk(&path, |_, _, _| {
            shown += 1;
            if shown < 3 { Ok(()) } else { Err(gone()) }
        });
        assert_eq!(walked.err().map(|failure| failure.code), Some("OUTPUT"));
        assert_eq!(shown, 3);
        std::fs::remove_dir_all(&folder).expect("the folder");
    }
}
