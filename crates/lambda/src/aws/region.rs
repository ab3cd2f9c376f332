//! Where the APIs of a region are.

use crate::{http_client::Origin, trouble::Trouble};

/// The longest name of a region that is believed; `us-gov-west-1` has 13 characters.
const NAME_MAX: usize = 32;

/// A region, by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region(String);

impl Region {
    /// From its name. It becomes a part of host names, so nothing but letters, digits and dashes is one.
    pub fn parse(name: &str) -> Result<Self, Trouble> {
        let is_plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if name.is_empty() || name.len() > NAME_MAX || !name.chars().all(is_plain) {
            let sentence = format!("{name:?} is no region of AWS; write it like eu-west-1");
            return Err(Trouble::Unusable(crate::trouble::shortened(&sentence)));
        }
        Ok(Self(name.to_owned()))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0
    }

    /// The host of a service in it: `sts.eu-west-1.amazonaws.com`.
    pub fn host(&self, service: &str) -> String {
        format!("{service}.{}.{}", self.0, self.suffix())
    }

    /// The address of a service in it, or the one that stands in for it.
    pub fn origin(&self, service: &str, instead: Option<&str>) -> Result<Origin, Trouble> {
        instead.map_or_else(|| Origin::parse(&format!("https://{}", self.host(service))), Origin::parse)
    }

    /// The partition's domain.
    fn suffix(&self) -> &'static str {
        // The longer beginning first, where one begins like the other.
        const SUFFIXES: [(&str, &str); 7] = [
            ("cn-", "amazonaws.com.cn"),
            ("us-isob-", "sc2s.sgov.gov"),
            ("us-isof-", "csp.hci.ic.gov"),
            ("us-iso-", "c2s.ic.gov"),
            ("eu-isoe-", "cloud.adc-e.uk"),
            ("eusc-", "amazonaws.eu"),
            ("", "amazonaws.com"),
        ];
        SUFFIXES.iter().find(|(start, _)| self.0.starts_with(start)).map_or("amazonaws.com", |(_, suffix)| suffix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_where_its_regions_partition_is() {
        for (region, host) in [
            ("eu-west-1", "sts.eu-west-1.amazonaws.com"),
            ("us-gov-west-1", "sts.us-gov-west-1.amazonaws.com"),
            ("cn-north-1", "sts.cn-north-1.amazonaws.com.cn"),
            ("us-iso-east-1", "sts.us-iso-east-1.c2s.ic.gov"),
            ("us-isob-east-1", "sts.us-isob-east-1.sc2s.sgov.gov"),
            ("eusc-de-east-1", "sts.eusc-de-east-1.amazonaws.eu"),
        ] {
            assert_eq!(Region::parse(region).unwrap().host("sts"), host);
        }
        for name in ["", "EU-WEST-1", "eu-west-1.evil.example", "eu west", "a/b"] {
            assert!(Region::parse(name).is_err(), "{name}");
        }
    }
}
