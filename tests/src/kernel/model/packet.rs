//! A packet in a vector.

use netdp_common::header::ethernet;
use netdp_common::packet::{L4Fix, Packet, apply_difference, difference};

use super::super::plan::Plan;
use super::Frame;

impl<F: Plan> Packet for Frame<F> {
    fn l3(&self) -> usize {
        ethernet::LEN
    }

    fn ethertype(&self) -> u16 {
        u16::from_be_bytes([self.bytes[12], self.bytes[13]])
    }

    fn len(&self) -> usize {
        self.bytes.len()
    }

    fn addressed_to_us(&self) -> bool {
        self.bytes[..6] == self.site.mac(self.ifindex)
    }

    fn load<T: bytemuck::Pod>(&self, at: usize) -> Option<T> {
        self.bytes.get(at..at + size_of::<T>()).map(bytemuck::pod_read_unaligned)
    }

    fn store<T: bytemuck::Pod>(&mut self, at: usize, value: &T) -> Option<()> {
        let place = self.bytes.get_mut(at..at + size_of::<T>())?;
        place.copy_from_slice(bytemuck::bytes_of(value));
        Some(())
    }

    /// BPF_PROG_TEST_RUN aggregates nothing.
    fn segment_size(&self) -> u32 {
        0
    }

    fn resize(&mut self, len: usize) -> Option<()> {
        self.bytes.resize(len, 0);
        Some(())
    }

    fn replace_head(&mut self, old: usize, new: usize) -> Option<()> {
        let l3 = self.l3();
        self.bytes.splice(l3..l3 + old, std::iter::repeat_n(0, new));
        Some(())
    }

    /// BPF_PROG_TEST_RUN does not tell the kernel's: nothing to compare.
    fn set_next_hop(&mut self, _via: [u32; 4], _via_v6: bool) {}

    fn fix_l4_checksum(&mut self, at: usize, fix: &L4Fix) -> Option<()> {
        // The kernel's helper takes even offsets only.
        if !at.is_multiple_of(2) {
            return None;
        }
        let mut field: u16 = self.load(at)?;
        if fix.zero_is_none && field == 0 {
            return Some(());
        }
        let mangle = |field: u16| if fix.zero_is_none && field == 0 { u16::MAX } else { field };
        if fix.addresses != 0 {
            field = mangle(apply_difference(field, fix.addresses));
        }
        if fix.old_ports != fix.new_ports {
            field = mangle(apply_difference(field, difference(&[fix.old_ports], &[fix.new_ports], 0)));
        }
        self.store(at, &field)
    }
}
