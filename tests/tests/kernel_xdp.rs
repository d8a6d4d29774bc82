//! The XDP program in the kernel: what it drops, the TC program would have dropped for the same reason, and nothing
//! else is dropped.

use netdp_common::family::Address as _;
use netdp_common::header::ethernet;
use netdp_common::verdict::DropReason;
use netdp_tests::in_both_families;
use netdp_tests::kernel::frames::{ACK, Frame, SYN};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{Sides, established, frames};
use netdp_tests::kernel::plan::Plan;
use netdp_tests::kernel::programs::{Code, Linear};
use netdp_tests::kernel::site::in_new_site;
use netdp_tests::kernel::tables::{PUBLISHED, TCP, UDP, tuple};

// One for each family: to load the programs takes longer than to run them.
in_both_families!(what_nobody_is_told_about_is_dropped);

/// More than one buffer of a driver holds.
const HUGE: usize = 6000;

fn what_nobody_is_told_about_is_dropped<F: Plan>() {
    in_new_site(|site| {
        let mut tables = established::<F>(site);
        let list = [7, 1];
        // Not the remote: its flows are older than the list, and only the flow table tells that they may go on.
        tables.sources = vec![(list, F::ROUTER, F::Addr::BITS)];
        for publication in &mut tables.published {
            publication.value.sources = list;
        }
        let sides = Sides::<F>::new(site, tables);
        flows_are_passed(&sides);
        refusals_are_dropped(&sides);
        several_buffers_are_one_packet(&sides);
        what_is_cut_off_is_refused_for_endpoints(&sides);
    });
}

fn of_world<F: Plan>(proto: u8, from: (F::Addr, u16), to: (F::Addr, u16)) -> Frame<F> {
    Frame { flags: SYN, ..Frame::of_world(tuple(proto, from, to)) }
}

/// Shows a frame to both programs.
#[track_caller]
fn assert_refused<F: Plan>(sides: &Sides<'_, F>, bytes: &[u8], refused: Option<DropReason>) {
    assert_eq!(sides.programs.refused_early(bytes, Linear::All), refused, "{bytes:02x?}");
    let later = sides.run(Hook::FromWorld, bytes);
    if refused.is_some() {
        assert_eq!((later.action, later.reason), (Code::Shot, refused), "{bytes:02x?}");
    }
}

fn flows_are_passed<F: Plan>(sides: &Sides<'_, F>) {
    for (hook, frame, _) in frames::<F>() {
        match hook {
            Hook::FromWorld => {
                for options in [0, 8] {
                    assert_refused(sides, &Frame { options, ..frame.clone() }.bytes(), None);
                }
            }
            // What an endpoint sends does not come from outside: the TC program says that it is forged.
            Hook::FromContainer => {
                let forged = Frame { macs: Frame::<F>::of_world(frame.tuple).macs, ..frame };
                let early = sides.programs.refused_early(&forged.bytes(), Linear::All);
                assert_eq!(early, None, "{forged:?}");
            }
            Hook::ToWorld => {}
        }
    }
}

fn refusals_are_dropped<F: Plan>(sides: &Sides<'_, F>) {
    let (listed, stranger) = ((F::ROUTER, 1), (F::STRANGER, 1));
    let (endpoint, published) = ((F::ENDPOINTS[0], 80), (F::HOST, PUBLISHED.0));
    let not_published = Some(DropReason::NotPublished);
    for proto in [TCP, UDP] {
        assert_refused(sides, &of_world::<F>(proto, stranger, endpoint).bytes(), not_published);
        assert_refused(sides, &of_world::<F>(proto, stranger, (F::ALLOWED, 80)).bytes(), not_published);
        let frame = of_world::<F>(proto, stranger, published);
        assert_refused(sides, &frame.bytes(), Some(DropReason::NotAllowed));
        // To another host's MAC: a switch floods, and the stack drops it without a reason.
        let [from, _] = frame.macs;
        assert_refused(sides, &Frame { macs: [from, [2, 7, 7, 7, 7, 7]], ..frame }.bytes(), None);
        assert_refused(sides, &of_world::<F>(proto, stranger, (F::HOST, 22)).bytes(), None);
        assert_refused(sides, &of_world::<F>(proto, listed, published).bytes(), None);
    }
    assert_refused(sides, &of_world::<F>(F::ICMP, stranger, (F::ENDPOINTS[0], 0)).bytes(), not_published);
    // OSPF: what has no place in the flow table.
    assert_refused(sides, &of_world::<F>(89, stranger, endpoint).bytes(), not_published);
    // Of no connection: the host's stack answers.
    let stray = Frame { flags: ACK, ..of_world::<F>(TCP, stranger, published) };
    assert_refused(sides, &stray.bytes(), None);
    // Fragments are the TC program's.
    for fragment in [(true, 0), (true, 185), (false, 185)] {
        let frame = Frame { fragment, payload: 64, ..of_world::<F>(UDP, stranger, endpoint) };
        assert_eq!(sides.programs.refused_early(&frame.bytes(), Linear::All), None, "{fragment:?}");
    }
}

/// Their length is that of all.
fn several_buffers_are_one_packet<F: Plan>(sides: &Sides<'_, F>) {
    for (to, refused) in [(F::ENDPOINTS[0], Some(DropReason::NotPublished)), (F::HOST, None)] {
        let frame = of_world::<F>(UDP, (F::STRANGER, 1), (to, 22));
        let bytes = Frame { payload: HUGE, ..frame }.bytes();
        assert_eq!(sides.programs.refused_early(&bytes, Linear::All), refused);
    }
}

/// And else it is the host's own affair.
fn what_is_cut_off_is_refused_for_endpoints<F: Plan>(sides: &Sides<'_, F>) {
    for proto in [TCP, UDP, F::ICMP] {
        for (to, refused) in [(F::ENDPOINTS[0], Some(DropReason::NotPublished)), (F::HOST, None)] {
            let frame = of_world::<F>(proto, (F::STRANGER, 1), (to, PUBLISHED.0));
            let bytes = Frame { options: 8, payload: 40, ..frame }.bytes();
            for len in ethernet::LEN + F::HEADER_LEN..bytes.len() {
                assert_refused(sides, &bytes[..len], refused);
            }
        }
    }
}
