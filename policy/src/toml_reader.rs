//! Reads typed fields out of a TOML table and remembers every fault with its place.

use alloc::string::String;
use alloc::vec::Vec;
use core::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::{PolicyError, PolicyErrorKind, Position};

/// A value of the file and where it stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Located<T> {
    pub(crate) value: T,
    pub(crate) at: Position,
}

/// One table of the file that may hold known fields only.
pub(crate) struct Section<'a> {
    pub(crate) name: &'static str,
    pub(crate) at: Position,
    table: &'a DeTable<'a>,
}

/// The text of the file, and the faults found in it so far.
pub(crate) struct Reader<'a> {
    text: &'a str,
    /// Where each line begins, so that a place costs one search.
    line_starts: Vec<usize>,
    errors: Vec<PolicyError>,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(offset, _)| offset + 1);
        let line_starts = core::iter::once(0).chain(ends).collect();
        Self {
            text,
            line_starts,
            errors: Vec::new(),
        }
    }

    /// The faults, in the order of the file; at most [`ERRORS_MAX`].
    pub(crate) fn into_errors(mut self) -> Vec<PolicyError> {
        self.errors.sort_by_key(|error| error.position);
        self.errors
    }

    pub(crate) fn is_clean(&self) -> bool {
        self.errors.is_empty()
    }

    /// Remembers a fault; past the limit it is dropped, there is enough to do.
    pub(crate) fn report(&mut self, position: Position, kind: PolicyErrorKind) {
        if self.errors.len() < ERRORS_MAX {
            self.errors.push(PolicyError { position, kind });
        }
    }

    /// The place of the byte that `span` begins with.
    pub(crate) fn position(&self, span: &Range<usize>) -> Position {
        let offset = span.start.min(self.text.len());
        let line = self.line_starts.partition_point(|start| *start <= offset);
        let start = self
            .line_starts
            .get(line.saturating_sub(1))
            .copied()
            .unwrap_or(0);
        let characters = self
            .text
            .get(start..offset)
            .map_or(0, |before| before.chars().count());
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        Position {
            line: count(line),
            column: count(characters + 1),
        }
    }

    /// Takes a table whose fields are all among `known`; others are reported.
    pub(crate) fn section<'t>(
        &mut self,
        name: &'static str,
        at: Position,
        value: &'t DeValue<'t>,
        known: &'static [&'static str],
    ) -> Option<Section<'t>> {
        let DeValue::Table(table) = value else {
            self.wrong_type(at, "a table", value);
            return None;
        };
        self.check_known(name, table, known);
        Some(Section { name, at, table })
    }

    pub(crate) fn check_known(
        &mut self,
        section: &'static str,
        table: &DeTable<'_>,
        known: &'static [&'static str],
    ) {
        for (key, _) in table
            .iter()
            .filter(|(key, _)| !known.contains(&&**key.get_ref()))
        {
            let at = self.position(&key.span());
            let field = String::from(&**key.get_ref());
            self.report(
                at,
                PolicyErrorKind::UnknownField {
                    section,
                    field,
                    known,
                },
            );
        }
    }

    /// The tables under the array of tables `name`, which may be missing.
    pub(crate) fn sections<'t>(
        &mut self,
        root: &'t DeTable<'t>,
        name: &'static str,
        title: &'static str,
        known: &'static [&'static str],
        count_max: usize,
    ) -> Vec<Section<'t>> {
        let Some(value) = root.get(name) else {
            return Vec::new();
        };
        let DeValue::Array(tables) = value.get_ref() else {
            let at = self.position(&value.span());
            self.wrong_type(at, "an array of tables", value.get_ref());
            return Vec::new();
        };
        if let Some(table) = tables.get(count_max) {
            let at = self.position(&table.span());
            self.report(
                at,
                PolicyErrorKind::TooMany {
                    what: title,
                    count_max,
                },
            );
        }
        let mut sections = Vec::new();
        for table in tables.iter().take(count_max) {
            let at = self.position(&table.span());
            sections.extend(self.section(title, at, table.get_ref(), known));
        }
        sections
    }

    /// The value of a field that must be there.
    pub(crate) fn required<'t>(
        &mut self,
        section: &Section<'t>,
        field: &'static str,
    ) -> Option<&'t Spanned<DeValue<'t>>> {
        let value = section.table.get(field);
        if value.is_none() {
            let section_name = section.name;
            let kind = PolicyErrorKind::MissingField {
                section: section_name,
                field,
            };
            self.report(section.at, kind);
        }
        value
    }

    pub(crate) fn text<'t>(&mut self, value: &'t Spanned<DeValue<'t>>) -> Option<Located<&'t str>> {
        let at = self.position(&value.span());
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(at, "a string", value.get_ref());
        }
        text.map(|value| Located { value, at })
    }

    pub(crate) fn number(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        range: core::ops::RangeInclusive<u64>,
    ) -> Option<Located<u64>> {
        let at = self.position(&value.span());
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type(at, "an integer", value.get_ref());
            return None;
        };
        let number = u64::from_str_radix(integer.as_str(), integer.radix()).ok();
        let legal = number.filter(|number| range.contains(number));
        if legal.is_none() {
            let (min, max) = (*range.start(), *range.end());
            self.report(at, PolicyErrorKind::OutOfRange { min, max });
        }
        legal.map(|value| Located { value, at })
    }

    /// A list of strings, neither empty nor repetitive.
    pub(crate) fn texts<'t>(
        &mut self,
        field: &'static str,
        value: &'t Spanned<DeValue<'t>>,
        count_max: usize,
    ) -> Option<Vec<Located<&'t str>>> {
        let at = self.position(&value.span());
        let DeValue::Array(items) = value.get_ref() else {
            self.wrong_type(at, "an array of strings", value.get_ref());
            return None;
        };
        if items.is_empty() {
            self.report(at, PolicyErrorKind::EmptyList { field });
            return None;
        }
        if items.len() > count_max {
            self.report(
                at,
                PolicyErrorKind::TooMany {
                    what: field,
                    count_max,
                },
            );
            return None;
        }
        let mut texts: Vec<Located<&str>> = Vec::new();
        for item in items.iter() {
            let Some(text) = self.text(item) else {
                continue;
            };
            if texts.iter().any(|earlier| earlier.value == text.value) {
                let item = String::from(text.value);
                self.report(text.at, PolicyErrorKind::Repeated { item });
            }
            texts.push(text);
        }
        (texts.len() == items.len()).then_some(texts)
    }

    pub(crate) fn wrong_type(&mut self, at: Position, expected: &'static str, is: &DeValue<'_>) {
        let found = is.type_str();
        self.report(at, PolicyErrorKind::WrongType { expected, found });
    }
}

impl<'a> Section<'a> {
    /// The value of a field that may be missing.
    pub(crate) fn optional(&self, field: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table.get(field)
    }
}

/// Most faults that one load reports: a screenful. Hostile text cannot make it more.
pub(crate) const ERRORS_MAX: usize = 32;
