//! What is counted of the admin API.

use super::Metrics;

impl Metrics {
    /// It has answered a request to an endpoint.
    pub fn admin_answered(&self, endpoint: &str, status: u16) {
        self.admin_requests.with_label_values(&[endpoint, &status.to_string()]).inc();
    }

    /// A record of the audit log had no room with those that wait for a route.
    pub fn audit_dropped(&self) {
        self.audit_dropped.with_label_values(&[] as &[&str]).inc();
    }
}
