//! Names of netdp's chains.

/// What the names of all chains of netdp begin with, whichever instance's they are.
pub(super) const ALL: &str = "NETDP-";
/// Longest name of a chain (`XT_EXTENSION_MAXNAMELEN` less its final zero).
const LONGEST: usize = 28;

/// The names of one instance's chains: `NETDP-HHHHHHH-WHAT`. An instance's name may be longer than what fits, so
/// seven digits of its hash tell instances in one namespace apart.
#[derive(Clone, Debug)]
pub(super) struct Names {
    prefix: String,
}

impl Names {
    pub(super) fn of(instance: &str) -> Self {
        Self { prefix: format!("{ALL}{:07x}-", hash(instance)) }
    }

    /// The chain of that name.
    pub(super) fn chain(&self, what: &str) -> String {
        let name = format!("{}{what}", self.prefix);
        debug_assert!(name.len() <= LONGEST, "{name}");
        name
    }

    /// The chain of that name that one network has, by its bridge's ifindex.
    pub(super) fn of_network(&self, what: &str, bridge: u32) -> String {
        self.chain(&format!("{what}{bridge}"))
    }

    /// The chain of one of a network's external addresses: the first one's is `SNAT`.
    pub(super) fn of_external(&self, number: usize, bridge: u32) -> String {
        let what = if number == 0 { "SNAT".to_owned() } else { format!("SN{number:x}") };
        self.of_network(&what, bridge)
    }

    /// Whether a chain is this instance's.
    pub(super) fn is_own(&self, chain: &str) -> bool {
        chain.starts_with(&self.prefix)
    }
}

/// FNV-1a, folded to 28 bits: the same in every version.
fn hash(text: &str) -> u32 {
    const OFFSET: u32 = 0x811c_9dc5;
    const PRIME: u32 = 0x0100_0193;
    let hash = text.bytes().fold(OFFSET, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(PRIME));
    (hash >> 28) ^ (hash & 0x0fff_ffff)
}

#[cfg(test)]
mod tests {
    use super::*;
    use netdp_common::flow::SNAT_ADDRESSES;

    #[test]
    fn the_longest_names_fit() {
        let names = Names::of(&"x".repeat(63));
        assert!(names.chain("snat_allocated").len() <= LONGEST);
        assert!(names.of_external(0, u32::MAX).len() <= LONGEST);
        assert!(names.of_external(SNAT_ADDRESSES - 1, u32::MAX).len() <= LONGEST);
    }

    #[test]
    fn instances_have_names_of_their_own() {
        let (one, other) = (Names::of("default"), Names::of("default2"));
        assert!(one.is_own(&one.chain("FORWARD")) && !one.is_own(&other.chain("FORWARD")));
        assert_eq!(one.chain("FORWARD"), Names::of("default").chain("FORWARD"));
    }
}
