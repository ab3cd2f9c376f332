//! Whose token it is: the organization, and the cluster if it belongs to one.

use std::fmt;

use super::wire::MetricsReading;

/// Where a token's queues live. Queue keys are unique only within one of these.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity {
    /// The organization's slug.
    pub organization: String,
    /// The cluster's UUID; `None` for an unclustered token. The cluster's name where the API offers no `/token`.
    pub cluster: Option<String>,
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.cluster {
            Some(cluster) => write!(f, "{}/{cluster}", self.organization),
            None => write!(f, "{}/(no cluster)", self.organization),
        }
    }
}

/// What `GET /token` says of a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenIdentity {
    /// The part that stays when somebody renames the cluster.
    pub identity: Identity,
    /// The cluster's name, which the metrics answer repeats.
    pub cluster_name: Option<String>,
}

impl TokenIdentity {
    /// The identity of a token where the API answers `/token` with 404: the metrics answer names no UUID, so the cluster's
    /// name stands in for it.
    pub fn of_metrics(reading: &MetricsReading) -> Self {
        let identity = Identity { organization: reading.organization.clone(), cluster: reading.cluster.clone() };
        Self { identity, cluster_name: reading.cluster.clone() }
    }

    /// Whether a metrics answer comes from elsewhere. A cluster that only one side names contradicts nothing: Buildkite
    /// documents a metrics answer without it.
    pub fn contradicts(&self, reading: &MetricsReading) -> bool {
        let named_differently = match (&self.cluster_name, &reading.cluster) {
            (Some(ours), Some(theirs)) => ours != theirs,
            (Some(_) | None, None) | (None, Some(_)) => false,
        };
        self.identity.organization != reading.organization || named_differently
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use jiff::Timestamp;

    use super::*;

    fn reading(organization: &str, cluster: Option<&str>) -> MetricsReading {
        MetricsReading {
            organization: organization.to_owned(),
            cluster: cluster.map(str::to_owned),
            queues: BTreeMap::new(),
            date: None,
            asked_at: Timestamp::UNIX_EPOCH,
        }
    }

    #[test]
    fn an_identity_reads_as_organization_and_cluster() {
        let clustered = Identity { organization: "acme".into(), cluster: Some("0190-uuid".into()) };
        assert_eq!(clustered.to_string(), "acme/0190-uuid");
        assert_eq!(Identity { cluster: None, ..clustered }.to_string(), "acme/(no cluster)");
    }

    #[test]
    fn only_what_both_sides_name_can_contradict() {
        let token = TokenIdentity {
            identity: Identity { organization: "acme".into(), cluster: Some("0190-uuid".into()) },
            cluster_name: Some("linux".into()),
        };
        assert!(!token.contradicts(&reading("acme", Some("linux"))));
        assert!(!token.contradicts(&reading("acme", None)));
        assert!(token.contradicts(&reading("acme", Some("mac"))));
        assert!(token.contradicts(&reading("other", Some("linux"))));
    }
}
