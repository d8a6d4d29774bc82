//! IPsec policies, in the calling thread's network namespace.

use std::io;

use netlink_packet_core::{NLM_F_REQUEST, NetlinkBuffer, NlasIterator};
use netlink_sys::protocols::NETLINK_XFRM;
use netlink_sys::{Socket, SocketAddr};
use nix::errno::Errno;

use super::error::{Error, Result};

/// `linux/xfrm.h`.
const XFRM_MSG_NEWSPDINFO: u16 = 0x24;
const XFRM_MSG_GETSPDINFO: u16 = 0x25;
/// `struct xfrmu_spdinfo`: numbers of policies; of the inbound, the outbound, the forwarded ones, and more.
const XFRMA_SPD_INFO: u16 = 1;
/// Bytes of a header and of a word of flags.
const REQUEST: usize = 20;
/// More than the answer has.
const BUFFER: usize = 4096;

/// How many policies there are for packets that leave; none where the kernel has no IPsec.
pub fn outbound_policies() -> Result<u32> {
    let doing = || "asking for the IPsec policies".to_owned();
    match ask() {
        Err(error) if error.raw_os_error() == Some(Errno::EPROTONOSUPPORT as i32) => Ok(0),
        answer => answer.and_then(|answer| outbound(&answer)).map_err(Error::system(doing)),
    }
}

fn ask() -> io::Result<Vec<u8>> {
    let mut socket = Socket::new(NETLINK_XFRM)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    let mut request = [0; REQUEST];
    let mut header = NetlinkBuffer::new(&mut request[..]);
    header.set_length(REQUEST as u32);
    header.set_message_type(XFRM_MSG_GETSPDINFO);
    header.set_flags(NLM_F_REQUEST);
    socket.send(&request, 0)?;
    let mut answer = Vec::with_capacity(BUFFER);
    socket.recv(&mut answer, 0)?;
    Ok(answer)
}

/// The second of the numbers in an answer.
fn outbound(answer: &[u8]) -> io::Result<u32> {
    let strange = || io::Error::other("the kernel answers something else");
    let message = NetlinkBuffer::new_checked(answer).map_err(io::Error::other)?;
    if message.message_type() != XFRM_MSG_NEWSPDINFO {
        return Err(strange());
    }
    let attributes = message.payload().get(4..).ok_or_else(strange)?;
    let info = NlasIterator::new(attributes).flatten().find(|attribute| attribute.kind() == XFRMA_SPD_INFO);
    let info = info.ok_or_else(strange)?;
    let number = info.value().get(4..8).and_then(|bytes| bytes.try_into().ok()).ok_or_else(strange)?;
    Ok(u32::from_ne_bytes(number))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Linux 6.18 answers where there are 2 policies in, 3 out and 1 forward.
    #[test]
    fn an_answer_is_read() {
        let mut answer = vec![48, 0, 0, 0, 0x24, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0];
        answer.extend([0, 0, 0, 0, 28, 0, 1, 0]);
        answer.extend([2u32, 3, 1, 0, 0, 0].iter().flat_map(|number| number.to_ne_bytes()));
        assert_eq!(outbound(&answer).unwrap(), 3);
        answer[4] = 2;
        outbound(&answer).unwrap_err();
        outbound(&answer[..12]).unwrap_err();
    }
}
