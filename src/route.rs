//! stub
use crate::event::Event;
/// stub
#[derive(Debug, Clone, Default)]
pub struct When;
impl When {
    /// stub
    pub fn accepts(&self, _: &Event) -> bool {
        true
    }
}
