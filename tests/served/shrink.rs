//! From a history of the whole server that fails to the fewest turns that still do.

use super::world::told;
use super::{Planted, Turns, play_turns};
use crate::sim::shrink::pieces;
use std::fmt::Write as _;

/// Yields the fewest of some turns that are found to fail, and how they do; nothing if all of them do not.
///
/// What is left may break another promise than the whole did. Each turn draws from its own number, so what others are
/// taken away leaves it as it was.
pub fn shrink(seed: u64, planted: Option<Planted>, all: &Turns) -> Option<(Turns, String)> {
    let mut found = (all.clone(), play_turns(seed, planted, all).err()?);
    loop {
        let before = found.0.count();
        pieces(
            &mut found,
            |(turns, _)| turns.count(),
            |found, piece| {
                let mut turns = found.0.clone();
                turns.0.drain(piece);
                if let Err(what) = play_turns(seed, planted, &turns) {
                    *found = (turns, what);
                }
            },
        );
        if found.0.count() == before {
            return Some(found);
        }
    }
}

impl Turns {
    /// Names the turns, life by life: the word that `--keep` takes. `0:3-5,9/2:1` are four turns of the first life and one
    /// of the third.
    pub fn word(&self) -> String {
        let mut word = String::new();
        let mut last = None;
        let mut turns = self.0.iter().copied().peekable();
        while let Some((life, first)) = turns.next() {
            let mut end = first;
            while let Some(next) = turns.next_if_eq(&(life, end + 1)) {
                end = next.1;
            }
            let _ = match last {
                Some(before) if before == life => write!(word, ","),
                Some(_) => write!(word, "/{life}:"),
                None => write!(word, "{life}:"),
            };
            let _ =
                if first == end { write!(word, "{first}") } else { write!(word, "{first}-{end}") };
            last = Some(life);
        }
        word
    }

    /// Reads such a word.
    ///
    /// # Errors
    /// A part of it is no number, or names more turns than a seed has.
    pub fn read(seed: u64, word: &str) -> Result<Self, String> {
        let all = Self::of_seed(seed);
        let mut turns = Vec::new();
        for part in word.split('/').filter(|part| !part.is_empty()) {
            let number = |text: &str| {
                text.parse::<u32>().map_err(|_| format!("{part}: {text} is no number"))
            };
            let (life, ranges) = part.split_once(':').ok_or_else(|| format!("{part}: no life"))?;
            let life = number(life)?;
            for range in ranges.split(',') {
                let (first, end) = range.split_once('-').unwrap_or((range, range));
                let range = number(first)?..=number(end)?;
                let of_range = |turn: &&(u32, u32)| turn.0 == life && range.contains(&turn.1);
                let before = turns.len();
                turns.extend(all.0.iter().filter(of_range));
                if turns.len() == before {
                    return Err(format!("{part}: there is no such turn"));
                }
            }
        }
        Ok(Self(turns))
    }

    /// Yields how many there are.
    pub fn count(&self) -> usize {
        self.0.len()
    }

    /// Tells them as a test that holds once what breaks them is mended.
    pub fn as_test(&self, seed: u64, what: &str) -> String {
        format!(
            "/// {what}\n///\n/// What was lost, and why the fix holds: tell it here.\n\
             #[test]\nfn name_it_after_what_was_lost() {{\n    \
             let turns = Turns::read({seed}, \"{}\").unwrap();\n    \
             play_turns({seed}, None, &turns).unwrap();\n}}\n",
            self.word()
        )
    }

    /// Says what is done, one thing to a line, and how many turns of bytes and of the device lie between.
    pub fn told(&self, seed: u64) -> String {
        let (mut text, mut between) = (String::new(), 0);
        for turn in &self.0 {
            let Some(what) = told(seed, *turn) else {
                between += 1;
                continue;
            };
            if between > 0 {
                let _ = writeln!(text, "  {between} turns");
            }
            let _ = writeln!(text, "  life {} turn {}: {what}", turn.0, turn.1);
            between = 0;
        }
        if between > 0 {
            let _ = writeln!(text, "  {between} turns");
        }
        text
    }
}
