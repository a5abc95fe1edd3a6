//! stub
use super::event::EventFd;
use super::*;
use std::sync::Arc;
pub(super) struct Epoll {
    event: Arc<EventFd>,
}
impl Epoll {
    pub(super) fn new(_p: &Rc<Pool>, _n: usize) -> Result<Self, Errno> {
        Ok(Self { event: Arc::new(EventFd::new()?) })
    }
    pub(super) fn start(&mut self, _k: SlotKey, _s: &mut Slots) {}
    pub(super) fn arm(&mut self, _k: SlotKey, _s: &mut Slots) {}
    pub(super) fn cancel(&mut self, _k: SlotKey, _s: &mut Slots) {}
    pub(super) fn cancel_all(&mut self, _s: &mut Slots) {}
    pub(super) fn reap(&mut self, _s: &mut Slots, _n: Instant) {}
    pub(super) fn park(&mut self, _s: &mut Slots, _w: Wait) -> Result<(), Errno> {
        Ok(())
    }
    pub(super) fn event(&self) -> Arc<EventFd> {
        self.event.clone()
    }
}
