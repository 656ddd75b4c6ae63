//! The leader is lost, and another replica takes over.

use rehearsal::SplitMix;
use rehearsal::trial::crew::Crew;
use rehearsal::trial::leaders::{Lost, takeover};

use crate::faults::{BINARY, stage};

/// As recoveries are rehearsed: long enough that a busy machine is not taken for a broken network.
const LEASE: u32 = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_leader_is_replaced_and_only_lease_holders_write() {
    let stage = stage().await;
    let (cluster, model) = &*stage;
    let crew = Crew::start(cluster, BINARY.as_ref(), 2, LEASE).await.unwrap();
    let seed = rehearsal::seed(7).unwrap();
    eprintln!("RESURGAM_SEED={seed}");
    let mut random = SplitMix::new(seed);
    for lost in [Lost::CutOff, Lost::Killed] {
        let effect = random.between(1, model.effects / 2);
        let name = format!("{lost:?}-{effect}").to_lowercase();
        let took = takeover(cluster, &crew, &name, (lost, effect), model).await.unwrap();
        eprintln!("{took:?}");
        // Random waits of whoever waits for the lease, and a machine that is busy.
        assert!(took.succession.taken_after < f64::from(3 * LEASE), "{took:?}");
        assert!(took.writes > 20, "hardly anything was looked at: {took:?}");
    }
}
