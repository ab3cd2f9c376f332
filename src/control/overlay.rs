//! What our own writes left, as long as the watch has not shown it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use tokio::time::Instant;

use super::{act::Landed, snapshot::NamespaceSnapshot};

/// An entry that a healthy watch has not shown after this long never will be: the Deployment was gone before it could be. A
/// watch that died in silence is noticed after 75 s and lists again; until then its old numbers must not stand against
/// what we know, or our own write would pass for somebody else's.
pub(super) const OVERLAY_MAX: Duration = Duration::from_mins(2);

/// What our own writes left, until the cells show it.
#[derive(Debug, Default)]
pub struct Overlay {
    /// By the pool's uid and the Deployment's name.
    landed: BTreeMap<String, BTreeMap<String, (Landed, Instant)>>,
    /// The pods, by uid, on which a sign is on its way.
    moving: BTreeSet<String>,
}

impl Overlay {
    /// A write of the pool with this uid landed.
    pub fn landed(&mut self, uid: &str, deployment: String, landed: Landed, at: Instant) {
        self.landed.entry(uid.to_owned()).or_default().insert(deployment, (landed, at));
    }

    /// On these pods, by uid, a sign is on its way.
    pub fn set_moving(&mut self, moving: BTreeSet<String>) {
        self.moving = moving;
    }

    /// Whether nobody knows for sure what is written on a pod.
    pub(super) fn is_moving(&self, uid: &str) -> bool {
        self.moving.contains(uid)
    }

    /// What we left at this Deployment.
    pub(super) fn get(&self, uid: &str, deployment: &str) -> Option<Landed> {
        self.landed.get(uid)?.get(deployment).map(|(landed, _)| *landed)
    }

    /// What we left at each of a pool's Deployments.
    pub(super) fn of_pool(&self, uid: &str) -> impl Iterator<Item = (&str, Landed)> {
        let entries = self.landed.get(uid).into_iter().flatten();
        entries.map(|(deployment, (landed, _))| (deployment.as_str(), *landed))
    }

    /// Drops the entries of a pool that the cells show by now, and old ones.
    pub fn settle(&mut self, uid: &str, snapshot: &NamespaceSnapshot, now: Instant) {
        let Some(entries) = self.landed.get_mut(uid) else { return };
        entries.retain(|deployment, (landed, at)| {
            let is_old = snapshot.is_followed && now.saturating_duration_since(*at) > OVERLAY_MAX;
            !(is_old || snapshot.shows(deployment, *landed))
        });
        if entries.is_empty() {
            self.landed.remove(uid);
        }
    }

    /// The API server says that a Deployment is not there.
    pub fn gone(&mut self, uid: &str, deployment: &str) {
        if let Some(entries) = self.landed.get_mut(uid) {
            entries.remove(deployment);
        }
    }

    /// Forgets pools that are gone.
    pub fn retain(&mut self, is_there: impl Fn(&str) -> bool) {
        self.landed.retain(|uid, _| is_there(uid));
    }
}
