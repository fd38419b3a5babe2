//! Lines that tell facts: each is written once its fact holds, and not before.
//!
//! That the suite would notice one that comes early, it proves with a machine that is told to write one early: feature `plants`,
//! word `plant=NAME`. Without the feature nothing of this is there.

use alloc::string::String;
use core::fmt;
use core::future::Future;

use crate::program::Print;

/// A line of the self-test.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Mark {
    /// What it is called as a plant.
    pub name: &'static str,
    /// What it says.
    pub line: &'static str,
}

impl Mark {
    /// Waits for a fact, and writes the line once it holds; what does not hold is an error and leaves no line.
    ///
    /// # Errors
    /// That of the fact.
    pub async fn after<T>(
        self,
        fact: impl Future<Output = Result<T, String>>,
        print: Print,
    ) -> Result<T, String> {
        early(self.name, print, format_args!("{}", self.line));
        let held = fact.await?;
        print(format_args!("{}", self.line));
        Ok(held)
    }
}

/// Where a line could be written before its fact: does nothing, but in a machine that was told to.
pub fn early(name: &str, print: Print, line: fmt::Arguments<'_>) {
    #[cfg(feature = "plants")]
    if PLANT.get().is_some_and(|plant| plant == name) {
        print(line);
    }
    #[cfg(not(feature = "plants"))]
    let _ = (name, print, line);
}

/// Takes the words of a machine, one of which may name a plant.
pub fn plant(words: &str) {
    #[cfg(feature = "plants")]
    for word in words.split_ascii_whitespace() {
        if let Some(name) = word.strip_prefix("plant=") {
            PLANT.call_once(|| name.into());
        }
    }
    #[cfg(not(feature = "plants"))]
    let _ = words;
}

#[cfg(feature = "plants")]
static PLANT: spin::Once<String> = spin::Once::new();
