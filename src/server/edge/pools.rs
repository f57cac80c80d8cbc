//! The threads that work for devices.

use std::sync::Arc;

use super::Done;
use crate::sys::workers::Workers;

/// Jobs that may wait: more than there can be operations.
const QUEUE_MAX: usize = 4096;

pub(super) struct Pools {
    pub(super) clerk: Workers<Done>,
    /// Short jobs that keep an upload going.
    pub(super) receivers: Workers<Done>,
    /// Long jobs.
    pub(super) readers: Workers<Done>,
}

impl Pools {
    pub(super) fn new(waker: &Arc<mio::Waker>) -> Pools {
        Pools {
            clerk: Workers::new(1, QUEUE_MAX, Arc::clone(waker)),
            receivers: Workers::new(2, QUEUE_MAX, Arc::clone(waker)),
            readers: Workers::in_background(2, QUEUE_MAX, Arc::clone(waker)),
        }
    }

    pub(super) fn try_recv(&self) -> Option<Done> {
        let Pools { clerk, receivers, readers } = self;
        [clerk, receivers, readers].into_iter().find_map(Workers::try_recv)
    }
}
