//! Counts what a connection holds. Guards give it back when they are dropped, wherever that is.
use alloc::rc::Rc;
use core::cell::Cell;

#[derive(Default)]
pub(crate) struct Meter {
    calls: Cell<usize>,
    bytes: Cell<usize>,
}

impl Meter {
    pub(crate) fn calls(&self) -> usize {
        self.calls.get()
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bytes.get()
    }

    pub(crate) fn enter_call(self: &Rc<Self>) -> CallSlot {
        self.calls.set(self.calls.get() + 1);
        CallSlot(self.clone())
    }

    pub(crate) fn hold(self: &Rc<Self>, bytes: usize) -> Held {
        self.bytes.set(self.bytes.get() + bytes);
        Held { meter: self.clone(), bytes }
    }
}

/// One running call.
pub(crate) struct CallSlot(Rc<Meter>);

impl Drop for CallSlot {
    fn drop(&mut self) {
        self.0.calls.set(self.0.calls.get() - 1);
    }
}

/// Some bytes of one message.
pub(crate) struct Held {
    meter: Rc<Meter>,
    bytes: usize,
}

impl Drop for Held {
    fn drop(&mut self) {
        self.meter.bytes.set(self.meter.bytes.get() - self.bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn guards_give_back_what_they_took() {
        let meter = Rc::new(Meter::default());
        let (call, held) = (meter.enter_call(), meter.hold(7));
        let more = meter.hold(5);
        assert_eq!((meter.calls(), meter.bytes()), (1, 12));
        drop((call, held));
        assert_eq!((meter.calls(), meter.bytes()), (0, 5));
        drop(more);
        assert_eq!(meter.bytes(), 0);
    }
}
