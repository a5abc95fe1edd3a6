//! stub
use super::*;
use std::sync::Arc;
pub(crate) struct Parker;
impl Parker {
    pub(crate) fn unpark(&self) {}
}
pub(super) struct Blocking {
    parker: Arc<Parker>,
}
impl Blocking {
    pub(super) fn new(_p: &Rc<Pool>) -> Result<Self, Errno> {
        Ok(Self { parker: Arc::new(Parker) })
    }
    pub(super) fn start(&mut self, _k: SlotKey, _s: &mut Slots) {}
    pub(super) fn arm(&mut self, _k: SlotKey, _s: &mut Slots) {}
    pub(super) fn cancel(&mut self, _k: SlotKey, _s: &mut Slots) {}
    pub(super) fn cancel_all(&mut self, _s: &mut Slots) {}
    pub(super) fn park(&mut self, _s: &mut Slots, _w: Wait) -> Result<(), Errno> {
        Ok(())
    }
    pub(super) fn parker(&self) -> Arc<Parker> {
        self.parker.clone()
    }
}
