//! The kernel's side: the object as the binary carries it, its maps filled, its programs run on given packets.

use std::time::Duration;

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, Map, MapData, PerCpuArray};
use aya::programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp};
use bytemuck::{Pod, Zeroable};
use netdp::datapath::ebpf::{OpenOptions, load_unpinned};
use netdp_common::flow::{
    AllowedKey, Flow, FragmentKey, FragmentWay, Kept, Network, PortBlock, PublishedKey, RESERVED_BLOCKS,
    SourceKey, Tuple, reserved_slot,
};
use netdp_common::verdict::{DropReason, Event};
use netdp_common::waiting::{ALL_SETS, PLACES};

use super::plan::Plan;
use super::tables::{FlowEntry, Tables};

/// Room for what a program could add to a packet.
const ROOM: usize = 256;

/// The programs, loaded.
pub struct Programs {
    object: aya::Ebpf,
}

/// What a program returned and left.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Outcome {
    /// What the program returned.
    pub action: Code,
    /// Why, if it dropped the packet.
    pub reason: Option<DropReason>,
    /// The packet afterwards.
    pub packet: Vec<u8>,
}

/// A program's return value.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// TCX_NEXT: the stack.
    Next,
    /// TC_ACT_SHOT.
    Shot,
    /// TC_ACT_REDIRECT; to where, BPF_PROG_TEST_RUN does not tell.
    Redirect,
    /// Anything else.
    Other(u32),
}

impl From<u32> for Code {
    fn from(value: u32) -> Self {
        match value {
            u32::MAX => Self::Next,
            2 => Self::Shot,
            7 => Self::Redirect,
            other => Self::Other(other),
        }
    }
}

/// The head of `struct __sk_buff`, as far as the test run reads it.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct Context {
    len_to_ingress_ifindex: [u32; 10],
    ifindex: u32,
    tc_index_to_data: [u32; 9],
    data_end: u32,
}

/// `struct xdp_md`.
#[repr(C)]
#[derive(Clone, Copy, Default, Pod, Zeroable)]
struct XdpContext {
    data: u32,
    data_end: u32,
    others: [u32; 4],
}

/// Of `enum xdp_action`.
const XDP_DROP: u32 = 1;
const XDP_PASS: u32 = 2;

/// Which bytes of a packet are in its linear part when a program starts.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Linear {
    /// All.
    All,
    /// So many; the others are in page fragments (Linux 6.19).
    First(u32),
}

impl Programs {
    /// Loads them all, with room for so many flows, in the calling thread's network namespace.
    pub fn load(flows_max: u32) -> Self {
        let object = load_unpinned(&OpenOptions { flows_max: Some(flows_max), ..OpenOptions::default() });
        Self { object: object.unwrap_or_else(|error| panic!("{error}")) }
    }

    /// Names of the programs and how many instructions the verifier looked at for each.
    pub fn verified_instructions(&self) -> Vec<(String, u32)> {
        let count = |(name, program): (&str, &aya::programs::Program)| {
            let info = program.info().expect("a loaded program's facts");
            (name.to_owned(), info.verified_instruction_count().unwrap_or(0))
        };
        self.object.programs().map(count).collect()
    }

    /// Tells the programs what `tables` say.
    pub fn fill<F: Plan>(&mut self, tables: &Tables<F::Addr>) {
        for endpoint in &tables.endpoints {
            self.mark_prefix(F::prefix_digest(&endpoint.addr));
            self.hash(&F::map("ENDPOINTS"))
                .insert(endpoint.addr, *endpoint, 0)
                .expect("an endpoint by address");
            self.hash(&F::map("SENDERS"))
                .insert(endpoint.ifindex, *endpoint, 0)
                .expect("an endpoint by veth");
        }
        for (sender, addr, bits) in &tables.allowed {
            self.mark_prefix(F::prefix_digest(addr));
            let map = self.object.map_mut(&F::map("ALLOWED")).expect("the trie");
            let mut trie: LpmTrie<&mut MapData, _, _> = map.try_into().expect("a trie");
            let key = AllowedKey { sender: *sender, addr: *addr };
            let key = Key::new(AllowedKey::<F::Addr>::PREFIX + bits, key);
            trie.insert(&key, 0u32, 0).expect("an allowed address");
        }
        let (bridge, network) = tables.network;
        self.hash(&F::map("NETWORKS")).insert(bridge, network, 0).expect("a network");
        for (number, timeouts) in (0..).zip(tables.timeouts) {
            self.array("TIMEOUTS").set(number, timeouts, 0).expect("a set of timeouts");
        }
        for (ifindex, uplink) in &tables.uplinks {
            self.hash::<u32, _>(&F::map("UPLINKS")).insert(ifindex, *uplink, 0).expect("an uplink");
        }
        for (list, addr, bits) in &tables.sources {
            let map = self.object.map_mut(&F::map("SOURCES")).expect("the trie");
            let mut trie: LpmTrie<&mut MapData, _, _> = map.try_into().expect("a trie");
            let key = Key::new(SourceKey::<F::Addr>::PREFIX + bits, SourceKey { list: *list, addr: *addr });
            trie.insert(&key, 0u32, 0).expect("a source");
        }
        for publication in &tables.published {
            let prefix = PublishedKey::<F::Addr>::PREFIX + publication.port_bits;
            let map = self.object.map_mut(&F::map("PUBLISHED")).expect("the trie");
            let mut trie: LpmTrie<&mut MapData, _, _> = map.try_into().expect("a trie");
            trie.insert(&Key::new(prefix, publication.key), publication.value, 0).expect("a published port");
            let first = publication.key.port.get();
            for port in first..first + (1 << (16 - publication.port_bits)) {
                self.reserve(publication.key.proto, port);
            }
        }
        self.add_flows::<F>(&tables.flows);
    }

    /// Enters flows.
    pub fn add_flows<F: Plan>(&mut self, flows: &[FlowEntry<F::Addr>]) {
        let mut table = self.hash::<Tuple<F::Addr>, Flow<F::Addr>>(&F::map("FLOWS"));
        for (key, flow) in flows {
            table.insert(key, *flow, 0).expect("room for a flow");
        }
    }

    /// Changes the options of a network.
    pub fn set_network<F: Plan>(&mut self, bridge: u32, network: &Network<F::Addr>) {
        self.hash(&F::map("NETWORKS")).insert(bridge, *network, 0).expect("a network");
    }

    /// Forgets everything that packets left behind.
    pub fn forget<F: Plan>(&mut self) {
        clear(self.hash::<Tuple<F::Addr>, Flow<F::Addr>>(&F::map("FLOWS")));
        clear(self.hash::<FragmentKey<F::Addr>, FragmentWay<F::Addr>>(&F::map("FRAGMENTS")));
        clear(self.hash::<Tuple<F::Addr>, [u32; 2]>(&F::map("EXHAUSTED")));
        clear(self.hash::<u32, u64>("TURNS"));
        self.forget_waiting::<F>();
    }

    fn forget_waiting<F: Plan>(&mut self) {
        for set in 0..ALL_SETS {
            let mut counts = self.array::<u64>(&F::map("WAITED"));
            let waited = counts.get(&set, 0).expect("a count");
            if waited == 0 {
                continue;
            }
            counts.set(set, 0, 0).expect("a count");
            let mut places = self.array::<Kept<F::Addr>>(&F::map("WAITING"));
            for place in 0..PLACES {
                places.set(set * PLACES + place, Kept::zeroed(), 0).expect("a place");
            }
        }
    }

    /// Takes an entry out of the flow table, from under the programs' feet.
    pub fn forget_flow<F: Plan>(&mut self, key: &Tuple<F::Addr>) {
        self.hash::<Tuple<F::Addr>, Flow<F::Addr>>(&F::map("FLOWS"))
            .remove(key)
            .expect("a flow that is there");
    }

    /// All entries of the flow table.
    pub fn flows<F: Plan>(&self) -> Vec<FlowEntry<F::Addr>> {
        let map = self.object.map(&F::map("FLOWS")).expect("the flow table");
        let table: HashMap<&MapData, Tuple<F::Addr>, Flow<F::Addr>> = map.try_into().expect("a hash map");
        table.iter().map(|entry| entry.expect("an entry that nobody removes")).collect()
    }

    /// Runs a program once on a packet that comes by (or leaves by) an interface.
    pub fn run(&self, program: &str, packet: &[u8], ifindex: u32, linear: Linear) -> Outcome {
        let before = self.drops();
        let mut after = vec![0; packet.len() + ROOM];
        let context = context(ifindex, linear);
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut after),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            ..TestRunOptions::default()
        };
        let result = self.program(program).test_run(options);
        let result = result.unwrap_or_else(|error| panic!("running {program}: {}", text(&error)));
        after.truncate(result.data_size_out as usize);
        let reason = DropReason::ALL.iter().zip(before).zip(self.drops());
        let reason = reason.filter(|((_, before), after)| before != after).map(|((reason, _), _)| *reason);
        let reasons: Vec<DropReason> = reason.collect();
        assert!(reasons.len() <= 1, "one packet, several reasons: {reasons:?}");
        Outcome { action: result.return_value.into(), reason: reasons.first().copied(), packet: after }
    }

    /// Tells the XDP program the MAC of its interface: the loopback of the namespace, as a test run takes no other.
    pub fn set_wire(&mut self, mac: [u8; 6]) {
        const LOOPBACK: u32 = 1;
        self.hash::<u32, [u8; 6]>("WIRES").insert(LOOPBACK, mac, 0).expect("a MAC");
    }

    /// Shows a packet to the XDP program, which leaves it as it is: why it is dropped, if it is.
    pub fn refused_early(&self, packet: &[u8], linear: Linear) -> Option<DropReason> {
        let before = self.drops();
        let mut after = vec![0; packet.len() + ROOM];
        let head = match linear {
            Linear::All => packet.len() as u32,
            Linear::First(bytes) => bytes,
        };
        let context = XdpContext { data_end: head, ..XdpContext::default() };
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut after),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            ..TestRunOptions::default()
        };
        let program = self.object.program("from_wire").expect("the XDP program");
        let program: &Xdp = program.try_into().expect("an XDP program");
        let result = program.test_run(options);
        let result = result.unwrap_or_else(|error| panic!("running from_wire: {}", text(&error)));
        after.truncate(result.data_size_out as usize);
        assert_eq!(after, packet, "the XDP program changes nothing");
        let reason = DropReason::ALL.iter().zip(before).zip(self.drops());
        let reason = reason.filter(|((_, before), after)| before != after).map(|((reason, _), _)| *reason);
        let reasons: Vec<DropReason> = reason.collect();
        assert_eq!(result.return_value, if reasons.is_empty() { XDP_PASS } else { XDP_DROP }, "{reasons:?}");
        assert!(reasons.len() <= 1, "one packet, several reasons: {reasons:?}");
        reasons.first().copied()
    }

    /// What a program returns that only user space runs.
    pub fn returned(&self, program: &str, packet: &[u8]) -> u32 {
        let options = TestRunOptions { data_in: Some(packet), ..TestRunOptions::default() };
        let result = self.program(program).test_run(options);
        result.unwrap_or_else(|error| panic!("running {program}: {}", text(&error))).return_value
    }

    /// Whether this kernel runs programs on such packets: newer ones want a whole IP header, older ones know no page
    /// fragments here.
    pub fn accepts<F: Plan>(&self, len: usize, linear: Linear) -> bool {
        let packet = [&[0; 12], &F::ETHERTYPE.to_be_bytes()[..], &vec![0; len - 14]].concat();
        let context = context(1, linear);
        let ctx_in = Some(bytemuck::bytes_of(&context));
        let options = TestRunOptions { data_in: Some(&packet), ctx_in, ..TestRunOptions::default() };
        self.program("to_world").test_run(options).is_ok()
    }

    /// Runs a program so many times on one packet, each time on what the last run left; mean time of a run in ns,
    /// rounded down by the kernel, and what the last run returned.
    pub fn repeat(&self, program: &str, packet: &[u8], ifindex: u32, times: u32) -> (Duration, Code) {
        let context = context(ifindex, Linear::All);
        let options = TestRunOptions {
            data_in: Some(packet),
            ctx_in: Some(bytemuck::bytes_of(&context)),
            repeat: times,
            ..TestRunOptions::default()
        };
        let result = self.program(program).test_run(options);
        let result = result.unwrap_or_else(|error| panic!("running {program}: {}", text(&error)));
        (result.duration, result.return_value.into())
    }

    /// An event's count, all CPUs.
    pub fn count(&self, event: Event) -> u64 {
        self.counter(event.index())
    }

    fn drops(&self) -> Vec<u64> {
        DropReason::ALL.iter().map(|reason| self.counter(reason.index())).collect()
    }

    fn counter(&self, index: u32) -> u64 {
        let counts: PerCpuArray<&MapData, u64> =
            self.object.map("COUNTS").expect("the counters").try_into().expect("a per-CPU array");
        counts.get(&index, 0).expect("a counter").iter().sum()
    }

    fn program(&self, name: &str) -> &SchedClassifier {
        let program = self.object.program(name).unwrap_or_else(|| panic!("no program {name}"));
        program.try_into().expect("a TC program")
    }

    fn map_mut(&mut self, name: &str) -> &mut Map {
        self.object.map_mut(name).unwrap_or_else(|| panic!("no map {name}"))
    }

    fn hash<K: aya::Pod, V: aya::Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.map_mut(name).try_into().expect("a hash map")
    }

    fn array<V: aya::Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        self.map_mut(name).try_into().expect("an array")
    }

    fn mark_prefix(&mut self, digest: u16) {
        let mut words: Array<&mut MapData, u64> = self.map_mut("PREFIXES").try_into().expect("an array");
        let index = u32::from(digest / 64);
        let word = words.get(&index, 0).expect("a word") | 1 << (digest % 64);
        words.set(index, word, 0).expect("a word");
    }

    fn reserve(&mut self, proto: u8, port: u16) {
        let slot = reserved_slot(proto).expect("a protocol with ports");
        let mut blocks: Array<&mut MapData, PortBlock> =
            self.map_mut("RESERVED").try_into().expect("an array");
        let index = slot * RESERVED_BLOCKS + u32::from(port >> 12);
        let mut block = blocks.get(&index, 0).expect("a block");
        block[usize::from(port >> 6) % block.len()] |= 1 << (port % 64);
        blocks.set(index, block, 0).expect("a block");
    }
}

fn clear<K: aya::Pod, V: aya::Pod>(mut map: HashMap<&mut MapData, K, V>) {
    let keys: Vec<K> = map.keys().map(|key| key.expect("a key that nobody removes")).collect();
    for key in keys {
        map.remove(&key).expect("a key that nobody removes");
    }
}

fn context(ifindex: u32, linear: Linear) -> Context {
    let data_end = match linear {
        Linear::All => 0,
        Linear::First(bytes) => bytes,
    };
    Context { ifindex, data_end, ..Context::default() }
}

fn text(error: &dyn std::error::Error) -> String {
    error.source().map_or_else(|| error.to_string(), |cause| format!("{error}: {}", text(cause)))
}
