//! The seeds of the targets whose inputs are encoded values. `UPDATE_SEEDS=1` writes them, after a change of a message.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;

mod captures;
mod messages;
mod opener;

/// A seed and its name. Files with other names are findings.
type Seed = (&'static str, Vec<u8>);

fn compare(target: &str, seeds: &[Seed]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(target);
    for (name, bytes) in seeds {
        let path = folder.join(name);
        if std::env::var_os("UPDATE_SEEDS").is_some() {
            fs::write(&path, bytes).unwrap();
        }
        let stored = fs::read(&path).unwrap_or_default();
        assert_eq!(stored, *bytes, "{}: write it with UPDATE_SEEDS=1", path.display());
    }
}

#[test]
fn seeds_of_messages_are_messages() {
    let seeds = [
        messages::of_workers(),
        messages::of_the_opener(),
        messages::of_callers(),
        messages::of_readers(),
        messages::of_the_gateway(),
    ];
    compare("messages", &seeds.concat());
    compare("messages", &messages::damaged());
}

#[test]
fn seeds_of_the_opener_are_requests() {
    let scenes = scenes();
    let encode = |(name, scene)| (name, postcard::to_stdvec(&scene).unwrap());
    compare("opener", &scenes.into_iter().map(encode).collect::<Vec<_>>());
}

#[test]
fn seeds_of_pcapng_are_captures() {
    compare("pcapng", &captures::whole());
    compare("pcapng", &captures::damaged());
    let reads = |bytes: &[u8]| {
        let mut reader = sockbroker_pcapng::Reader::new(bytes);
        loop {
            match reader.next_block() {
                Ok(Some(_)) => {}
                end => return end.is_ok(),
            }
        }
    };
    for (name, bytes) in captures::whole() {
        assert!(reads(&bytes), "{name}");
    }
    for (name, bytes) in captures::damaged() {
        assert!(!reads(&bytes), "{name}");
    }
}

fn scenes() -> Vec<opener::Seed> {
    let own = [
        opener::creations(),
        opener::captures(),
        opener::calls(),
        opener::messages(),
        opener::connections(),
    ];
    [own.concat(), opener::networks()].concat()
}

#[test]
fn only_requests_that_the_policy_grants_reach_the_fake_kernel() {
    const GRANTED: &[&str] = &[
        "create-packet",
        "create-ping",
        "create-old-packet",
        "create-rcvall",
        "create-netlink",
        "create-fails",
        "hostname",
        "capture",
        "capture-of-root",
        "bind-port-80",
        "bind-with-interface",
        "bind-netlink",
        "connect-netlink",
        "option-mark",
        "option-device",
        "option-index",
        "option-null",
        "send-marked",
        "send-to-the-peer",
        "send-get-link",
        "named-capture",
        "caller-capture-here",
        "caller-create",
        "caller-raw",
        "caller-is-here",
        "caller-bind",
        "named-packet",
        "named-option",
        "owned-create",
        "owned-option",
        "owned-interfaces",
        "named-interfaces",
    ];
    for (name, scene) in scenes() {
        let calls = sockbroker_fuzz_bodies::opener::serve(&scene);
        assert_eq!(calls.len(), usize::from(GRANTED.contains(&name)), "{name}: {calls:?}");
    }
}

/// Numbers of a fixed sequence (`splitmix64`).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % bound as u64).unwrap()
    }
}

#[test]
fn changed_seeds_reach_the_fake_kernel_only_if_the_policy_grants_them() {
    const RUNS: usize = 200_000;
    let seeds: Vec<_> =
        scenes().into_iter().map(|(_, scene)| postcard::to_stdvec(&scene).unwrap()).collect();
    let mut numbers = Numbers(7);
    for _ in 0..RUNS {
        let mut bytes = seeds[numbers.below(seeds.len())].clone();
        for _ in 0..=numbers.below(3) {
            let at = numbers.below(bytes.len());
            match numbers.below(4) {
                0 => bytes[at] = u8::try_from(numbers.below(256)).unwrap(),
                1 => bytes[at] = bytes[at].wrapping_add(1),
                2 => bytes[at] = u8::try_from(numbers.below(32)).unwrap(),
                // The end of another seed, which often decodes.
                _ => {
                    let other = &seeds[numbers.below(seeds.len())];
                    let from = numbers.below(other.len());
                    bytes.truncate(at + 1);
                    bytes.extend(&other[from..]);
                }
            }
        }
        sockbroker_fuzz_bodies::opener::body(&bytes);
    }
}
