//! A budget that calls take from in the order in which they ask.

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::cell::RefCell;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};

/// Amounts of something, such as bytes; clones share it.
#[derive(Clone)]
pub(crate) struct Permits(Rc<RefCell<Line>>);

struct Line {
    total: usize,
    free: usize,
    next: u64,
    /// Who waits, oldest first.
    waiting: VecDeque<(u64, Waker)>,
}

/// Some of the budget, given back when dropped.
pub(crate) struct Permit {
    permits: Permits,
    amount: usize,
}

impl Permits {
    pub(crate) fn new(total: usize) -> Self {
        let line = Line { total, free: total, next: 0, waiting: VecDeque::new() };
        Self(Rc::new(RefCell::new(line)))
    }

    /// Waits until `amount`, or all there is if that is less, is free and nobody asked before.
    pub(crate) fn take(&self, amount: usize) -> Take {
        let amount = amount.min(self.0.borrow().total);
        Take { permits: self.clone(), amount, number: None }
    }

    /// What is taken now.
    pub(crate) fn taken(&self) -> usize {
        let line = self.0.borrow();
        line.total - line.free
    }

    fn wake_first(&self) {
        let waker = self.0.borrow().waiting.front().map(|(_, waker)| waker.clone());
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// Waits for a [`Permit`].
pub(crate) struct Take {
    permits: Permits,
    amount: usize,
    /// The place in the line.
    number: Option<u64>,
}

impl Future for Take {
    type Output = Permit;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Permit> {
        let amount = self.amount;
        let mut line = self.permits.0.borrow_mut();
        let first = line.waiting.front().map(|(number, _)| *number);
        if (first.is_none() || first == self.number) && line.free >= amount {
            line.free -= amount;
            if first.is_some() {
                line.waiting.pop_front();
            }
            drop(line);
            self.number = None;
            self.permits.wake_first();
            return Poll::Ready(Permit { permits: self.permits.clone(), amount });
        }
        let number = self.number.unwrap_or_else(|| {
            line.next += 1;
            line.next
        });
        let waker = context.waker().clone();
        match line.waiting.iter_mut().find(|(waiting, _)| *waiting == number) {
            Some((_, known)) => *known = waker,
            None => line.waiting.push_back((number, waker)),
        }
        drop(line);
        self.number = Some(number);
        Poll::Pending
    }
}

impl Drop for Take {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            self.permits.0.borrow_mut().waiting.retain(|(waiting, _)| *waiting != number);
            self.permits.wake_first();
        }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.permits.0.borrow_mut().free += self.amount;
        self.permits.wake_first();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn poll(take: &mut Take) -> Option<Permit> {
        match Pin::new(take).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(permit) => Some(permit),
            Poll::Pending => None,
        }
    }

    #[test]
    fn the_line_is_kept_and_nothing_is_lost() {
        let permits = Permits::new(10);
        let first = poll(&mut permits.take(6)).expect("free");
        let (mut large, mut small) = (permits.take(8), permits.take(1));
        assert!(poll(&mut large).is_none());
        assert!(poll(&mut small).is_none(), "not past the one that asked before");
        assert_eq!(permits.taken(), 6);
        drop(first);
        assert!(poll(&mut small).is_none());
        let large = poll(&mut large).expect("its turn");
        let small = poll(&mut small).expect("its turn");
        assert_eq!(permits.taken(), 9);
        drop((large, small));
        assert_eq!(permits.taken(), 0);
    }

    #[test]
    fn who_gives_up_makes_room_in_the_line() {
        let permits = Permits::new(2);
        let held = poll(&mut permits.take(5)).expect("cut to what there is");
        let (mut gone, mut next) = (permits.take(2), permits.take(2));
        assert!(poll(&mut gone).is_none() && poll(&mut next).is_none());
        drop((held, gone));
        assert!(poll(&mut next).is_some());
    }
}
