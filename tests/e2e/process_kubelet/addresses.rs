//! Addresses of pods: one of the loopback network for each, so that the processes of many pods may listen on the same port.

use std::{
    collections::VecDeque,
    net::Ipv4Addr,
    sync::{Mutex, PoisonError},
};

/// A program takes its addresses from one of these second numbers of 127.x.y.z, by its process number, so that two runs on one
/// machine hardly meet. Low ones are left to people.
const NETWORKS: std::ops::Range<u8> = 64..128;

/// The last numbers in use: 0 and 255 look like a network and a broadcast to some programs.
const LAST: std::ops::RangeInclusive<u8> = 1..=254;

/// Which addresses are free. One that was given back comes last.
#[derive(Debug)]
struct Free(VecDeque<Ipv4Addr>);

impl Free {
    fn of(network: u8, thirds: std::ops::RangeInclusive<u8>) -> Self {
        Self(thirds.flat_map(|third| LAST.map(move |last| Ipv4Addr::new(127, network, third, last))).collect())
    }

    fn take(&mut self) -> Option<Ipv4Addr> {
        self.0.pop_front()
    }

    fn give_back(&mut self, address: Ipv4Addr) {
        self.0.push_back(address);
    }
}

static FREE: Mutex<Option<Free>> = Mutex::new(None);

fn with_free<T>(work: impl FnOnce(&mut Free) -> T) -> T {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    work(free.get_or_insert_with(|| {
        let turn = std::process::id() % u32::from(NETWORKS.end - NETWORKS.start);
        let network = NETWORKS.start + u8::try_from(turn).unwrap_or_default();
        Free::of(network, 0..=255)
    }))
}

/// An address that is a pod's own until this is dropped.
#[derive(Debug)]
pub(crate) struct Address(pub(crate) Ipv4Addr);

impl Address {
    /// `None`: sixty thousand pods at once.
    pub(crate) fn take() -> Option<Self> {
        with_free(Free::take).map(Self)
    }
}

impl Drop for Address {
    fn drop(&mut self) {
        with_free(|free| free.give_back(self.0));
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::Free;

    #[test]
    fn no_address_is_given_twice_and_one_that_came_back_is_given_last() {
        let mut free = Free::of(64, 0..=0);
        let first = free.take().unwrap();
        free.give_back(first);
        let mut given: Vec<_> = std::iter::from_fn(|| free.take()).collect();
        assert_eq!(given.iter().collect::<BTreeSet<_>>().len(), 254);
        assert_eq!(given.pop(), Some(first));
        assert_eq!(free.take(), None);
    }
}
