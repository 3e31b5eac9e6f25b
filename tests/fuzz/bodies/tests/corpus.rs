//! Runs the bodies of the fuzz targets on the committed corpora.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

use std::collections::BTreeSet;
use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use sockbroker_fuzz_bodies::TARGETS;

/// The smallest useful size of a corpus.
const FEWEST_SEEDS: usize = 10;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus")
}

fn replay(name: &str) {
    let (_, body) = TARGETS.iter().find(|(target, _)| *target == name).unwrap();
    let files = fs::read_dir(corpus().join(name)).unwrap();
    let mut seeds: Vec<_> = files.map(|file| file.unwrap().path()).collect();
    seeds.sort();
    assert!(
        seeds.len() >= FEWEST_SEEDS,
        "tests/fuzz/corpus/{name} has {} seeds: write at least {FEWEST_SEEDS}",
        seeds.len()
    );
    let breaks = |seed: &&PathBuf| {
        let bytes = fs::read(seed).unwrap();
        catch_unwind(|| body(&bytes)).is_err()
    };
    let broken: Vec<_> = seeds.iter().filter(breaks).collect();
    assert!(broken.is_empty(), "seeds that violate a property (see above): {broken:#?}");
}

#[test]
fn frame_corpus_passes() {
    replay("frame");
}

#[test]
fn request_corpus_passes() {
    replay("request");
}

#[test]
fn address_corpus_passes() {
    replay("address");
}

#[test]
fn ancillary_corpus_passes() {
    replay("ancillary");
}

#[test]
fn policy_corpus_passes() {
    replay("policy");
}

#[test]
fn messages_corpus_passes() {
    replay("messages");
}

#[test]
fn opener_corpus_passes() {
    replay("opener");
}

#[test]
fn pcapng_corpus_passes() {
    replay("pcapng");
}

#[test]
fn channel_corpus_passes() {
    replay("channel");
}

#[test]
fn every_target_has_a_program_and_a_corpus() {
    let targets: BTreeSet<String> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let names = |folder: PathBuf| -> BTreeSet<String> {
        let files = fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
        files.map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(corpus()), targets, "tests/fuzz/corpus");
    assert_eq!(names(corpus().join("../fuzz_targets")), targets, "tests/fuzz/fuzz_targets");
}
