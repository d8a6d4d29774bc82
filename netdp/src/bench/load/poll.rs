//! Waiting for many sockets at once.

use std::os::fd::AsFd;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::bench::Error;

/// A set of sockets, each with a number of the caller's choice.
#[derive(Debug)]
pub struct Poll {
    epoll: Epoll,
    events: Vec<EpollEvent>,
}

impl Poll {
    /// An empty set.
    pub fn new() -> Result<Self, Error> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(Error::system("epoll_create"))?;
        Ok(Self { epoll, events: vec![EpollEvent::empty(); 512] })
    }

    /// Watches for something to read, an error or the end. Closing the socket ends it.
    pub fn add(&self, socket: impl AsFd, number: usize) -> Result<(), Error> {
        let event = EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLRDHUP, number as u64);
        self.epoll.add(socket, event).map_err(Error::system("epoll_ctl"))
    }

    /// The numbers of sockets that are ready; waits at most so long for the first.
    pub fn wait(&mut self, at_most: Duration) -> Vec<usize> {
        let milliseconds = u16::try_from(at_most.as_millis()).unwrap_or(u16::MAX);
        let ready = self.epoll.wait(&mut self.events, EpollTimeout::from(milliseconds)).unwrap_or(0);
        self.events[..ready].iter().map(|event| usize::try_from(event.data()).unwrap_or(usize::MAX)).collect()
    }
}
