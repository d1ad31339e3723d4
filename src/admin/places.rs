//! Who may be connected at once. A caller that dawdles makes room for one that comes later.
//!
//! Every connection is let in at once. When there are too many, one of those that wait for their
//! caller is ended: of the peer that has the most, the one that has waited the longest. So callers
//! that open connections and say nothing only ever push out each other.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The connections that are open.
#[derive(Clone, Default)]
pub(super) struct Places {
    inner: Arc<Mutex<Open>>,
    max: usize,
}

#[derive(Default)]
struct Open {
    next: u64,
    /// By age: the oldest first.
    callers: BTreeMap<u64, Caller>,
}

struct Caller {
    peer: IpAddr,
    /// Its request is here and being answered.
    is_served: bool,
    end: CancellationToken,
}

/// A connection's place, given back when dropped.
pub(super) struct Place {
    places: Places,
    number: u64,
    end: CancellationToken,
}

impl Places {
    /// Room for so many.
    pub(super) fn new(max: usize) -> Self {
        Self {
            max,
            ..Self::default()
        }
    }

    /// A place for one more; somebody else's ends where there are too many.
    pub(super) fn take(&self, peer: IpAddr) -> Place {
        let mut open = self.open();
        if open.callers.len() >= self.max {
            open.end_one();
        }
        let number = open.next;
        open.next += 1;
        let end = CancellationToken::new();
        let caller = Caller {
            peer,
            is_served: false,
            end: end.clone(),
        };
        open.callers.insert(number, caller);
        Place {
            places: self.clone(),
            number,
            end,
        }
    }

    /// A panic elsewhere leaves plain values here, so a poisoned lock is still good.
    fn open(&self) -> MutexGuard<'_, Open> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Open {
    /// Ends one that waits for its caller; where all are being answered, the oldest.
    fn end_one(&mut self) {
        let victim = self.victim(false).or_else(|| self.victim(true));
        if let Some(caller) = victim.and_then(|number| self.callers.remove(&number)) {
            caller.end.cancel();
        }
    }

    fn victim(&self, is_served: bool) -> Option<u64> {
        let callers = self.callers.iter();
        let candidates = callers.filter(|(_, caller)| caller.is_served == is_served);
        let of = |peer| self.callers.values().filter(|c| c.peer == peer).count();
        // The largest share, and the lowest number of equals.
        candidates
            .map(|(number, caller)| (of(caller.peer), std::cmp::Reverse(*number)))
            .max()
            .map(|(_, number)| number.0)
    }
}

impl Place {
    /// Waits until somebody else needs the place.
    pub(super) async fn is_needed(&self) {
        self.end.cancelled().await;
    }

    /// The request is here: it is answered before others are looked at.
    pub(super) fn serves(&self) {
        if let Some(caller) = self.places.open().callers.get_mut(&self.number) {
            caller.is_served = true;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.places.open().callers.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(last: u8) -> IpAddr {
        IpAddr::from([10, 0, 0, last])
    }

    fn ended(places: &[&Place]) -> Vec<bool> {
        places
            .iter()
            .map(|place| place.end.is_cancelled())
            .collect()
    }

    #[test]
    fn the_peer_with_the_most_gives_way_and_the_oldest_of_its_own() {
        let places = Places::new(4);
        let other = places.take(peer(2));
        let (a, b, c) = (
            places.take(peer(1)),
            places.take(peer(1)),
            places.take(peer(1)),
        );
        a.serves();
        let _new = places.take(peer(3));
        assert_eq!(ended(&[&other, &a, &b, &c]), [false, false, true, false]);
    }

    #[test]
    fn a_place_that_was_given_back_is_free() {
        let places = Places::new(1);
        drop(places.take(peer(1)));
        let one = places.take(peer(1));
        assert_eq!(ended(&[&one]), [false]);
        let two = places.take(peer(1));
        assert_eq!(ended(&[&one, &two]), [true, false]);
        drop(one);
        two.serves();
        let _three = places.take(peer(2));
        assert_eq!(ended(&[&two]), [true]);
    }
}
