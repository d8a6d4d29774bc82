//! Random frames through the programs in the kernel and through the same core on the host.

use netdp_tests::in_both_families;
use netdp_tests::kernel::frames::{Dice, Frame, SYN, TcpFlags};
use netdp_tests::kernel::model::Hook;
use netdp_tests::kernel::parity::{MAPPED, PORTS, Sides, established};
use netdp_tests::kernel::plan::Plan;
use netdp_tests::kernel::programs::{Code, Linear};
use netdp_tests::kernel::site::in_new_site;
use netdp_tests::kernel::tables::{ONLY_PORT, PUBLISHED, PUBLISHED_RANGE, TCP, UDP, tuple};

in_both_families!(random_frames);

/// Ports that no flow has.
const UNUSED: [u16; 2] = [6001, 6002];

/// Frames that are mostly sensible and sometimes broken, also ones that open flows; the tables stay the same.
fn random_frames<F: Plan>() {
    const FRAMES: u32 = 20_000;
    in_new_site(|site| {
        let sides = Sides::<F>::new(site, established::<F>(site));
        let mut dice = Dice::new(1);
        let mut actions = [0u32; 3];
        for _ in 0..FRAMES {
            let hook = dice.one_of(&Hook::ALL);
            let bytes = random_frame::<F>(&mut dice, hook);
            if sides.programs.accepts::<F>(bytes.len(), Linear::All) {
                let outcome = sides.run(hook, &bytes);
                let index =
                    [Code::Next, Code::Shot, Code::Redirect].iter().position(|a| *a == outcome.action);
                actions[index.expect("one of these three")] += 1;
            }
        }
        assert!(actions.iter().all(|count| *count > FRAMES / 20), "too one-sided: {actions:?}");
        sides.assert_same_flows();
    });
}

fn random_frame<F: Plan>(dice: &mut Dice, hook: Hook) -> Vec<u8> {
    let proto = dice.one_of(&[TCP, TCP, TCP, UDP, UDP, UDP, F::ICMP, F::ICMP, 132]);
    let addresses = [F::ENDPOINTS[0], F::ENDPOINTS[1], F::HOST, F::REMOTE, F::STRANGER];
    let ports = [PORTS.0, PORTS.1, MAPPED, ONLY_PORT, PUBLISHED.0, PUBLISHED.1, PUBLISHED_RANGE.0 + 3, 7003];
    let (src, dst) = match hook {
        Hook::FromContainer if dice.below(8) > 0 => (F::ENDPOINTS[0], dice.one_of(&addresses)),
        Hook::FromWorld if dice.below(8) > 0 => (dice.one_of(&addresses[3..]), F::HOST),
        _ => (dice.one_of(&addresses), dice.one_of(&addresses)),
    };
    // Two connections that would look the same to an endpoint have a port that is left to chance; so a server's port
    // only answers, and the gateway's address is only asked for what is not published.
    let (from, to) = match dice.below(8) {
        // What the host sends from a port that a flow has at that end gets another one, left to chance.
        _ if hook == Hook::ToWorld => ((src, dice.one_of(&UNUSED)), (dst, dice.one_of(&ports))),
        0 => ((src, PUBLISHED.1), (F::REMOTE, PORTS.0)),
        1 => ((src, dice.one_of(&ports[..4])), (F::GATEWAY, 53)),
        _ => ((src, dice.one_of(&ports[..4])), (dst, dice.one_of(&ports))),
    };
    let tuple = tuple(proto, from, to);
    let frame =
        if hook == Hook::FromWorld { Frame::<F>::of_world(tuple) } else { Frame::<F>::of_endpoint(0, tuple) };
    let frame = Frame {
        flags: dice.one_of(&[SYN, SYN, SYN, TcpFlags { ack: true, ..TcpFlags::default() }]),
        ttl: dice.one_of(&[0, 1, 2, 64, 64, 64, 255]),
        options: dice.one_of(&[0, 0, 0, 4, 24]),
        fragment: dice.one_of(&[
            (false, 0),
            (false, 0),
            (false, 0),
            (false, 0),
            (true, 0),
            (true, 5),
            (false, 5),
        ]),
        payload: dice.below(64),
        ..frame
    };
    let mut bytes = frame.bytes();
    if dice.below(4) == 0 {
        let at = dice.below(bytes.len());
        bytes[at] = dice.below(256) as u8;
    }
    if dice.below(8) == 0 {
        bytes.truncate(14 + dice.below(bytes.len() - 14));
    }
    bytes
}
