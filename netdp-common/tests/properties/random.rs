//! The choice of ports (G3, RFC 6056 section 3.3).

use netdp_common::flow::PortSpans;
use netdp_model::frame::{Carries, Sent};
use netdp_model::hook::Hook;
use netdp_model::ifindex::VETH_A;
use netdp_model::plan::{Place, Plan};

use crate::host::{host, translated};

/// Preferred ports, in two runs with an ephemeral one between them: 192 + 64.
const PORTS: u32 = 256;
const FIRST: u16 = 5000;
const SPANS: PortSpans = PortSpans::new(FIRST, 6255, (5192, 6191));

/// Ports drawn; 64 for each, which is ample for chi-square's approximation.
const DRAWN: u32 = 64 * PORTS;

/// The ports of one endpoint port's flows, each to its own remote, by a host with this secret: none is ever taken.
/// What they are drawn from besides the secret is the same every time.
fn drawn<F: Plan>(secret: [u64; 2]) -> Vec<u32> {
    let mut host = host::<F>(SPANS, DRAWN as usize);
    host.world.config.secret = secret;
    let port = |i: u32| {
        let (remote, dport) = (Place::Remote((i % 128) as u8), 1 + (i / 128) as u16);
        let (src, dst) = (F::at(Place::A), F::at(remote));
        let sent = Sent { src, dst, sport: 1000, dport, carries: Carries::Udp, ttl: 64 };
        let seen = translated(&mut host, 0, Hook::FromContainer(VETH_A), sent).expect("a port");
        match seen.sport {
            5000..5192 => u32::from(seen.sport - FIRST),
            6192..6256 => u32::from(seen.sport - 6192) + 192,
            other => panic!("{other} is not preferred"),
        }
    };
    (0..DRAWN).map(port).collect()
}

/// Chi-square of numbers below [`PORTS`] against the uniform distribution: 255 degrees of freedom.
fn chi_square(numbers: impl Iterator<Item = u32>) -> f64 {
    let mut counts = [0u32; PORTS as usize];
    numbers.for_each(|number| counts[number as usize] += 1);
    let total: u32 = counts.iter().sum();
    let expected = f64::from(total) / f64::from(PORTS);
    counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum()
}

/// Quantiles of chi-square with 255 degrees of freedom: one uniform sequence in a million is outside on either side.
/// (Too even is as bad: a counter is.)
const PLAUSIBLE: std::ops::Range<f64> = 161.0..377.0;

const SECRETS: [[u64; 2]; 3] = [[1, 2], [0, 0], [0x0123_4567_89ab_cdef, u64::MAX]];

pub(crate) fn uniform<F: Plan>() {
    for secret in SECRETS {
        let found = chi_square(drawn::<F>(secret).into_iter());
        assert!(PLAUSIBLE.contains(&found), "{found} with {secret:?}");
    }
}

/// A port tells nothing about the next one, nor about the same flow's under another secret.
pub(crate) fn unpredictable<F: Plan>() {
    let [own, other, _] = SECRETS.map(drawn::<F>);
    assert_eq!(own, drawn::<F>(SECRETS[0]), "something else is drawn from");
    let step = |pair: (&u32, &u32)| (pair.1 + PORTS - pair.0) % PORTS;
    for (name, found) in [
        ("one port and the next", chi_square(own.iter().zip(&own[1..]).map(step))),
        ("one port and the next but one", chi_square(own.iter().zip(&own[2..]).map(step))),
        ("two secrets", chi_square(own.iter().zip(&other).map(step))),
    ] {
        assert!(PLAUSIBLE.contains(&found), "{found} for {name}");
    }
}
