//! Labels and annotations, and what may stand in them.

/// The pool that a Deployment or pod belongs to.
pub const POOL_LABEL: &str = "kitepool.dev/pool";
/// The generation (the Deployment's name) that a pod belongs to.
pub const GENERATION_LABEL: &str = "kitepool.dev/generation";
/// On a pod whose agents run a job, for as long as they do: what the chart's `PodDisruptionBudget` goes by.
pub const BUSY_LABEL: &str = "kitepool.dev/busy";
/// The queue, as far as it is a legal label value; for people, never read back.
pub const QUEUE_LABEL: &str = "kitepool.dev/queue";
/// Kubernetes' own label for who made an object.
pub const MANAGED_BY_LABEL: &str = "app.kubernetes.io/managed-by";
/// `up`, `down` or `all`: stops these directions at once.
pub const PAUSE_ANNOTATION: &str = "kitepool.dev/pause";
/// Any new value says: I have seen the trouble (contested, another identity) and resolved it.
pub const RESOLVED_ANNOTATION: &str = "kitepool.dev/resolved";

/// Kubernetes allows no longer label value.
const LABEL_VALUE_BYTES_MAX: usize = 63;

/// A text made into a legal label value: other characters become `_`, the ends are letters or digits.
pub fn label_value(text: &str) -> String {
    let legal = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.') { c } else { '_' };
    let cut: String = text.chars().map(legal).take(LABEL_VALUE_BYTES_MAX).collect();
    cut.trim_matches(|c: char| !c.is_ascii_alphanumeric()).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_queue_key_becomes_a_legal_label_value() {
        assert_eq!(label_value("linux/big:1"), "linux_big_1");
        assert_eq!(label_value("-x-"), "x");
        assert_eq!(label_value(&"a".repeat(80)).len(), 63);
        assert_eq!(label_value("/"), "");
    }
}
