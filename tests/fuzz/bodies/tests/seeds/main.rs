//! The seeds of the targets whose inputs are encoded values. `UPDATE_SEEDS=1` writes them, after a change of a message.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::fs;
use std::path::Path;

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

fn scenes() -> Vec<opener::Seed> {
    [
        opener::creations(),
        opener::captures(),
        opener::calls(),
        opener::messages(),
        opener::connections(),
    ]
    .concat()
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
    ];
    for (name, scene) in scenes() {
        let calls = sockbroker_fuzz_bodies::opener::serve(&scene);
        assert_eq!(calls.len(), usize::from(GRANTED.contains(&name)), "{name}: {calls:?}");
    }
}
