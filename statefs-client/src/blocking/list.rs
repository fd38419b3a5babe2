//! Walking a list page by page.

use std::vec::{self, Vec};

use super::Directory;
use crate::error::Result;
use crate::types::{Entry, ListOptions, Page};

/// The entries of a list, in the order of keys. Ends after the first error.
#[derive(Debug)]
pub struct List<'a> {
    directory: &'a Directory,
    options: ListOptions,
    page: vec::IntoIter<Entry>,
    more: bool,
    intact: bool,
}

impl<'a> List<'a> {
    pub(super) fn new(directory: &'a Directory, options: ListOptions) -> Self {
        Self { directory, options, page: Vec::new().into_iter(), more: true, intact: true }
    }

    /// Whether no data loss touches the pages seen so far; after the last entry, the whole list.
    #[must_use]
    pub fn is_intact(&self) -> bool {
        self.intact
    }

    fn turn_page(&mut self) -> Result<()> {
        let Page { entries, next, intact } = self.directory.page(&self.options)?;
        self.intact &= intact;
        self.more = next.is_some();
        if let Some(next) = next {
            self.options.after = next;
        }
        self.page = entries.into_iter();
        Ok(())
    }
}

impl Iterator for List<'_> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            if let Some(entry) = self.page.next() {
                return Some(Ok(entry));
            }
            if !self.more {
                return None;
            }
            if let Err(error) = self.turn_page() {
                self.more = false;
                return Some(Err(error));
            }
        }
    }
}
