//! Identifiers that the API server and its controllers draw.

use sha2::{Digest as _, Sha256};

use crate::Chance;

/// The letters of Kubernetes: none that could spell a word, none that look alike.
const LETTERS: [char; 27] = [
    'b', 'c', 'd', 'f', 'g', 'h', 'j', 'k', 'l', 'm', 'n', 'p', 'q', 'r', 's', 't', 'v', 'w', 'x', 'z', '2', '4', '5',
    '6', '7', '8', '9',
];

/// Draws names.
#[derive(Debug)]
pub(super) struct Names {
    uids: Chance,
    suffixes: Chance,
    addresses: u32,
}

impl Names {
    pub(super) fn new(seed: u64) -> Self {
        Self { uids: Chance::new(seed, "uids"), suffixes: Chance::new(seed, "suffixes of pod names"), addresses: 0 }
    }

    /// A random UUID.
    pub(super) fn uid(&mut self) -> String {
        let mut draw = |end| self.uids.below(end);
        let (a, b, c, d) = (draw(u32::MAX), draw(1 << 16), draw(1 << 12), draw(1 << 12));
        format!("{a:08x}-{b:04x}-4{c:03x}-8{d:03x}-{:06x}{:06x}", draw(1 << 24), draw(1 << 24))
    }

    /// What makes a pod's name its own.
    pub(super) fn suffix(&mut self) -> String {
        (0..5).filter_map(|_| LETTERS.get(usize::try_from(self.suffixes.below(27)).ok()?)).collect()
    }

    /// An address of a pod; none is given twice.
    pub(super) fn address(&mut self) -> String {
        self.addresses = self.addresses.wrapping_add(1);
        let [_, high, middle, low] = self.addresses.to_be_bytes();
        format!("10.{high}.{middle}.{low}")
    }
}

/// The hash of a pod template, in the letters of Kubernetes.
pub(super) fn template_hash(template: &serde_json::Value) -> String {
    let digest = Sha256::digest(template.to_string().as_bytes());
    digest.iter().take(10).filter_map(|byte| LETTERS.get(usize::from(*byte) % LETTERS.len())).collect()
}
