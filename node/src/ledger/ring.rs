//! The sliding window: a ring of sub-windows.

use std::time::Duration;

use super::{Moment, SLOTS};

/// A value for each sub-window of a window. Sub-windows are counted from the agent's start: none is older than that,
/// and none is shared with an earlier run.
#[derive(Debug)]
pub(super) struct Ring<T> {
    slot: Duration,
    slots: [Slot<T>; SLOTS],
}

#[derive(Debug, Default)]
struct Slot<T> {
    number: u64,
    value: T,
}

impl<T: Default> Ring<T> {
    pub(super) fn new(window: Duration) -> Self {
        Self {
            slot: (window / SLOTS as u32).max(Duration::from_nanos(1)),
            slots: std::array::from_fn(|_| Slot::default()),
        }
    }

    /// The sub-window of this time. `None` if it has left the window already.
    pub(super) fn at(&mut self, at: Moment) -> Option<&mut T> {
        let number = self.number(at);
        let slot = self
            .slots
            .get_mut(usize::try_from(number % SLOTS as u64).unwrap_or_default())?;
        if slot.number > number {
            return None;
        }
        if slot.number < number {
            *slot = Slot {
                number,
                value: T::default(),
            };
        }
        Some(&mut slot.value)
    }

    /// All sub-windows of the window that ends now, in no order.
    pub(super) fn window(&self, now: Moment) -> impl Iterator<Item = &T> {
        let newest = self.number(now);
        self.slots
            .iter()
            .filter(move |slot| slot.number + SLOTS as u64 > newest)
            .map(|slot| &slot.value)
    }

    /// The newest sub-window of the window that ends now for which `wanted` is true.
    pub(super) fn newest(&mut self, now: Moment, wanted: impl Fn(&T) -> bool) -> Option<&mut T> {
        let newest = self.number(now);
        self.slots
            .iter_mut()
            .filter(|slot| slot.number + SLOTS as u64 > newest && wanted(&slot.value))
            .max_by_key(|slot| slot.number)
            .map(|slot| &mut slot.value)
    }

    fn number(&self, at: Moment) -> u64 {
        u64::try_from(at.as_nanos() / self.slot.as_nanos().max(1)).unwrap_or(u64::MAX)
    }
}
