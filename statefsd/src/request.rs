//! What calls ask for, parsed: whatever holds one of these holds well-formed keys.

use alloc::rc::Rc;
use alloc::vec::Vec;

use journal::{Durability, Precondition, Ring};
use policy::{Demand, Key, Prefix, Right, Rights, Target};

/// Say hello.
pub(crate) struct Hello<'a> {
    pub(crate) client: &'a [u8],
    pub(crate) protocol: u32,
}

/// Get a capability for a prefix.
#[derive(Clone)]
pub(crate) struct Open {
    pub(crate) prefix: Prefix,
    /// The most that the capability shall be good for.
    pub(crate) rights: Rights,
    /// The right under which this attempt asks; any one that is granted lets the call pass.
    pub(crate) by: Right,
}

/// Read one key.
#[derive(Clone)]
pub(crate) struct Get {
    pub(crate) key: Key,
    pub(crate) metadata_only: bool,
}

/// Change one key. Holds a value, so it is not shown.
pub(crate) struct Change {
    pub(crate) key: Key,
    /// `None` removes the key.
    pub(crate) value: Option<Rc<[u8]>>,
    pub(crate) precondition: Precondition,
}

/// Change one key in a call of its own.
pub(crate) struct Write {
    pub(crate) change: Change,
    pub(crate) durability: Durability,
}

/// Change several keys together.
pub(crate) struct Commit {
    pub(crate) changes: Vec<Change>,
    pub(crate) durability: Durability,
    /// What makes the call one that may be repeated.
    pub(crate) token: Option<Token>,
}

/// Write one key in chunks: what is asked at the beginning, for each of them and at the end.
#[derive(Clone)]
pub(crate) struct Store {
    pub(crate) key: Key,
    pub(crate) precondition: Precondition,
    pub(crate) durability: Durability,
}

/// What a client names a batch with.
pub(crate) type Token = [u8; 16];

/// Page through keys.
pub(crate) struct List {
    /// What names are relative to; its own path is no key of it.
    pub(crate) directory: Prefix,
    pub(crate) prefix: Prefix,
    pub(crate) after: Option<Key>,
    /// 0 for as many as there may be.
    pub(crate) limit: u32,
    pub(crate) keys_only: bool,
}

/// Count what a whole subtree holds.
pub(crate) struct Count {
    pub(crate) prefix: Prefix,
}

impl Demand for Count {
    fn right(&self) -> Right {
        Right::List
    }

    fn target(&self) -> Target<'_> {
        Target::Prefix(&self.prefix)
    }
}

/// Page through the records of one ring.
pub(crate) struct Audited {
    pub(crate) ring: Ring,
    pub(crate) after: u64,
    /// 0 for as many as there may be.
    pub(crate) limit: u32,
}

/// Look after the whole store.
pub(crate) struct Administer {
    pub(crate) right: Right,
    pub(crate) all: Prefix,
}

impl Demand for Administer {
    fn right(&self) -> Right {
        self.right
    }

    fn target(&self) -> Target<'_> {
        Target::Prefix(&self.all)
    }
}

impl Demand for Open {
    fn right(&self) -> Right {
        self.by
    }

    fn target(&self) -> Target<'_> {
        Target::Within(&self.prefix)
    }
}

impl Demand for Get {
    fn right(&self) -> Right {
        Right::Get
    }

    fn target(&self) -> Target<'_> {
        Target::Key(&self.key)
    }
}

impl Demand for Change {
    fn right(&self) -> Right {
        if self.value.is_some() { Right::Put } else { Right::Delete }
    }

    fn also(&self) -> Rights {
        answer_tells(self.precondition)
    }

    fn target(&self) -> Target<'_> {
        Target::Key(&self.key)
    }
}

impl Demand for Store {
    fn right(&self) -> Right {
        Right::Put
    }

    fn also(&self) -> Rights {
        answer_tells(self.precondition)
    }

    fn target(&self) -> Target<'_> {
        Target::Key(&self.key)
    }
}

impl Demand for Write {
    fn right(&self) -> Right {
        self.change.right()
    }

    fn also(&self) -> Rights {
        self.change.also()
    }

    fn target(&self) -> Target<'_> {
        self.change.target()
    }
}

impl Demand for List {
    fn right(&self) -> Right {
        Right::List
    }

    fn also(&self) -> Rights {
        if self.keys_only { Rights::EMPTY } else { Right::Get.into() }
    }

    fn target(&self) -> Target<'_> {
        Target::Within(&self.prefix)
    }
}

/// A precondition's answer tells of the key, which takes the right to read it.
fn answer_tells(precondition: Precondition) -> Rights {
    match precondition {
        Precondition::Any => Rights::EMPTY,
        Precondition::Absent | Precondition::Version(_) => Right::Get.into(),
    }
}
