//! Block contents and geometry.
//!
//! A content is interned: equal bytes have equal ids, so an id doubles as the tag. Id 0 is "does
//! not verify" (blank, garbage or unreadable).

use std::cell::RefCell;
use std::collections::HashMap;
use std::fmt::Write as _;

/// The number of an interned content.
pub type Id = u16;

/// One use of a segment, as the superblock lists it.
#[derive(Clone, Copy, Hash, PartialEq, Eq, Debug)]
pub struct Use {
    /// The segment.
    pub seg: u8,
    /// The epoch every group of this use carries.
    pub epoch: u8,
    /// The first block of the use.
    pub start: u8,
    /// The cut: the last LSN that counts here, 0 while the use is open.
    pub end: u8,
}

/// A superblock copy.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
pub struct Super {
    /// The sequence number; the highest valid one wins.
    pub seq: u8,
    /// The uses of segments in log order.
    pub log: Vec<Use>,
    /// The checkpoint's segment and epoch.
    pub checkpoint: Option<(u8, u8)>,
    /// The last LSN that the checkpoint covers.
    pub base: u8,
    /// The `durableLsn` it vouches for.
    pub durable: u8,
    /// Tells the updates of different mounts apart, as the random mount id does.
    pub salt: u8,
}

/// One block of a commit group. A group has one LSN, which keeps the space small.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
pub struct Group {
    /// The epoch of the use it was written in.
    pub epoch: u8,
    /// Its LSN.
    pub lsn: u8,
    /// The tag of the group before it.
    pub prev: Id,
    /// The `durableLsn` its header carries.
    pub durable: u8,
    /// Tells payloads apart.
    pub payload: u8,
    /// Blocks in all.
    pub len: u8,
    /// Which of them this is; 0 holds the header.
    pub part: u8,
    /// 0, or in a weakened rule the zone plus one.
    pub zone: u8,
}

/// What a block may hold.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
pub enum Content {
    /// Does not verify.
    Invalid,
    /// A block of a commit group.
    Group(Group),
    /// A checkpoint, one block.
    Checkpoint(Checkpoint),
    /// A superblock copy.
    Super(Super),
}

/// A checkpoint: the history it stands for and what was lost of it.
#[derive(Clone, Hash, PartialEq, Eq, Debug)]
pub struct Checkpoint {
    /// Its fresh epoch.
    pub epoch: u8,
    /// The groups it covers.
    pub state: Vec<Id>,
    /// The `durableLsn` it vouches for.
    pub durable: u8,
    /// The losses it carries on.
    pub lost: Vec<(u8, u8)>,
}

/// Interns `content` for this thread.
///
/// # Panics
/// If a run makes more than 65,535 different contents.
pub fn intern(content: Content) -> Id {
    TABLE.with(|table| {
        let table = &mut *table.borrow_mut();
        if table.all.is_empty() {
            table.all.push(Content::Invalid);
            table.ids.insert(Content::Invalid, 0);
        }
        if let Some(&id) = table.ids.get(&content) {
            return id;
        }
        let id = Id::try_from(table.all.len()).expect("bounds keep the content table small");
        table.all.push(content.clone());
        table.ids.insert(content, id);
        id
    })
}

/// Calls `read` with the content numbered `id`.
pub fn with<R>(id: Id, read: impl FnOnce(&Content) -> R) -> R {
    if id == 0 {
        return read(&Content::Invalid);
    }
    TABLE.with(|table| read(&table.borrow().all[usize::from(id)]))
}

/// The group block numbered `id`, if it is one.
pub fn group(id: Id) -> Option<Group> {
    with(id, |c| if let Content::Group(g) = c { Some(g.clone()) } else { None })
}

/// The superblock numbered `id`, if it is one.
pub fn superblock(id: Id) -> Option<Super> {
    with(id, |c| if let Content::Super(s) = c { Some(s.clone()) } else { None })
}

/// The checkpoint numbered `id`, if it is one.
pub fn checkpoint(id: Id) -> Option<Checkpoint> {
    with(id, |c| if let Content::Checkpoint(k) = c { Some(k.clone()) } else { None })
}

/// The LSN of the group numbered `id`.
///
/// # Panics
/// If `id` is no group.
pub fn lsn(id: Id) -> u8 {
    with(id, |c| if let Content::Group(g) = c { g.lsn } else { panic!("{id} is no group") })
}

/// The block `part` of the copy in `zone` of `group`.
pub fn part(group: &Group, part: u8, zone: u8) -> Id {
    intern(Content::Group(Group { part, zone, ..group.clone() }))
}

/// The identity of a group, whichever block of whichever copy it was read from.
pub fn canon(group: &Group) -> Id {
    part(group, 0, 0)
}

/// The `durableLsn` that the content vouches for; only the first block of a group has a header.
pub fn evidence(id: Id) -> u8 {
    with(id, |c| match c {
        Content::Group(g) if g.part == 0 => g.durable,
        Content::Checkpoint(k) => k.durable,
        Content::Super(s) => s.durable,
        Content::Group(_) | Content::Invalid => 0,
    })
}

/// The content in words.
pub fn show(id: Id) -> String {
    with(id, |c| match c {
        Content::Invalid => "bad".into(),
        Content::Group(g) => {
            let part = if g.len > 1 { format!(" part{}", g.part) } else { String::new() };
            format!("g{}[e{} D{} prev#{}{part}]", g.lsn, g.epoch, g.durable, g.prev)
        }
        Content::Checkpoint(k) => format!("ckpt[e{} n={} D{}]", k.epoch, k.state.len(), k.durable),
        Content::Super(s) => {
            let ck = s.checkpoint.map(|(g, e)| format!(" ck s{g}e{e} base{}", s.base));
            format!("sb{}[{}{} D{}]", s.seq, show_log(&s.log), ck.unwrap_or_default(), s.durable)
        }
    })
}

/// The list of uses in words: `s0e1@0..2` is segment 0, epoch 1, from block 0, cut at LSN 2.
pub fn show_log(log: &[Use]) -> String {
    let mut text = String::new();
    for u in log {
        let gap = if text.is_empty() { "" } else { " " };
        let _ = write!(text, "{gap}s{}e{}@{}", u.seg, u.epoch, u.start);
        if u.end > 0 {
            let _ = write!(text, "..{}", u.end);
        }
    }
    text
}

/// Superblock copies of a volume; they are blocks 0 to 3 of an image.
pub const SUPERS: u8 = 4;

/// The size of the log region; each zone holds a copy of every segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    /// Segments.
    pub segs: u8,
    /// Blocks of a segment.
    pub blocks: u8,
}

impl Geometry {
    /// Blocks of an image, superblocks included.
    pub fn total(self) -> u8 {
        SUPERS + 2 * self.segs * self.blocks
    }

    /// The block of an image at `zone`, `seg`, `block`.
    pub fn at(self, zone: u8, seg: u8, block: u8) -> u8 {
        SUPERS + (zone * self.segs + seg) * self.blocks + block
    }

    /// The block's name: `S2`, or `A0.1` for zone A, segment 0, block 1.
    pub fn name(self, at: u8) -> String {
        if at < SUPERS {
            return format!("S{at}");
        }
        let zone = if at - SUPERS < self.segs * self.blocks { 'A' } else { 'B' };
        let rest = (at - SUPERS) % (self.segs * self.blocks);
        format!("{zone}{}.{}", rest / self.blocks, rest % self.blocks)
    }
}

#[derive(Default)]
struct Table {
    all: Vec<Content>,
    ids: HashMap<Content, Id>,
}

thread_local! {
    static TABLE: RefCell<Table> = RefCell::default();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_have_equal_ids_and_invalid_is_zero() {
        let group = |lsn| {
            Content::Group(Group {
                epoch: 1,
                lsn,
                prev: 0,
                durable: 0,
                payload: 0,
                len: 1,
                part: 0,
                zone: 0,
            })
        };
        assert_eq!(intern(Content::Invalid), 0);
        assert_eq!(intern(group(1)), intern(group(1)));
        assert_ne!(intern(group(1)), intern(group(2)));
        assert_eq!(lsn(intern(group(2))), 2);
    }

    #[test]
    fn every_block_has_its_own_place_and_name() {
        let geometry = Geometry { segs: 3, blocks: 2 };
        let mut names: Vec<String> = (0..geometry.total()).map(|b| geometry.name(b)).collect();
        assert_eq!(names[usize::from(geometry.at(1, 2, 1))], "B2.1");
        names.sort();
        names.dedup();
        assert_eq!(names.len(), usize::from(geometry.total()));
    }
}
