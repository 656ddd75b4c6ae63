//! Seeds choose what fails on the way to the API server.

use std::collections::BTreeMap;

use fault_proxy::Fault;
use rehearsal::trial::chaos::chaos;

use crate::faults::{crew, stage};

/// Seeds of the short form, unless RESURGAM_SEED names the one to play.
const SEEDS: [u64; 2] = [1, 2];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recovery_ends_the_same_whatever_a_seed_lets_fail() {
    let stage = stage().await;
    let (cluster, model) = &*stage;
    let crew = crew(cluster, 1).await;
    let seeds = std::env::var("RESURGAM_SEED").map_or(SEEDS.to_vec(), |_| vec![rehearsal::seed(0).unwrap()]);
    let mut struck: BTreeMap<Fault, u64> = BTreeMap::new();
    for seed in &seeds {
        eprintln!("RESURGAM_SEED={seed}");
        let befell = chaos(cluster, &crew, *seed, model).await.unwrap();
        eprintln!("{befell:?}");
        assert!(befell.faults.values().sum::<u64>() >= 20, "hardly anything failed: {befell:?}");
        for always in [Fault::Partition, Fault::Unauthorized] {
            assert!(befell.faults.get(&always) > Some(&0), "{always:?} is missing: {befell:?}");
        }
        for (fault, count) in befell.faults {
            *struck.entry(fault).or_default() += count;
        }
    }
    if seeds == SEEDS {
        assert!(struck.len() >= 12, "too few kinds of fault struck: {struck:?}");
    }
}
