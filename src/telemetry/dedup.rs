//! What is counted of the store of deduplication keys.

use super::DedupMetrics;

impl DedupMetrics {
    /// The store has not answered.
    pub fn store_failed(&self, op: &str, class: &str) {
        self.0.dedup_failed.with_label_values(&[op, class]).inc();
    }

    /// Claims are somebody else's now.
    pub fn lost(&self, claims: usize) {
        self.0.dedup_lost.inc_by(claims as u64);
    }
}
