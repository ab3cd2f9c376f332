//! How much one address may send, so that whoever floods us takes nobody else's place.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
};

use crate::{budget::SourceBudget, clock::Clock};

/// A limit for each source.
#[derive(Debug)]
pub(super) struct Rate(SourceBudget<IpAddr>);

impl Rate {
    pub(super) fn new(requests_per_second: NonZeroU32, clock: Clock) -> Self {
        Self(SourceBudget::new(requests_per_second, clock))
    }

    /// Whether another request of this address may come in now.
    pub(super) fn lets_in(&self, address: IpAddr) -> bool {
        self.0.turn_if_free(&source(address)).is_ok()
    }
}

/// Who has one IPv6 address has at least all of its /64.
fn source(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
        address @ IpAddr::V4(_) => address,
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_one_source_takes_nothing_from_another() {
        let rate = Rate::new(NonZeroU32::new(10).unwrap(), Clock::fixed(Timestamp::UNIX_EPOCH));
        let (flood, quiet): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let passed = (0..1_000).filter(|_| rate.lets_in(flood)).count();
        assert_eq!(passed, 10);
        assert!(rate.lets_in(quiet));
        tokio::time::advance(std::time::Duration::from_secs(1)).await;
        assert!(rate.lets_in(flood));
    }

    #[test]
    fn addresses_of_one_network_are_one_source() {
        let parsed = |text: &str| text.parse::<IpAddr>().unwrap();
        assert_eq!(source(parsed("2001:db8:1:2:3::4")), source(parsed("2001:db8:1:2::9")));
        assert_ne!(source(parsed("2001:db8:1:2::")), source(parsed("2001:db8:1:3::")));
        assert_eq!(source(parsed("::ffff:192.0.2.1")), parsed("192.0.2.1"));
    }
}
