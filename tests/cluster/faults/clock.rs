//! Wall clocks that are wrong, or are set.

use control_plane::ControlPlane;
use rehearsal::trial::clock::{WallClock, reset};
use rehearsal::trial::crew::Crew;
use rehearsal::trial::leaders::{Lost, takeover};

use crate::faults::{BINARY, stage};

const HOUR: i64 = 3600;
const LEASE: u32 = 5;

/// Clocks for so many replicas, that far from the right time. `None`, and that is said, where they cannot be had.
fn clocks(cluster: &ControlPlane, off: &[i64]) -> Option<Vec<WallClock>> {
    let clock = |(number, seconds): (usize, &i64)| {
        let clock = WallClock::new(cluster.dir().join(format!("clock-{number}"))).unwrap()?;
        clock.set(*seconds).unwrap();
        Some(clock)
    };
    let clocks: Option<Vec<_>> = off.iter().enumerate().map(clock).collect();
    if clocks.is_none() {
        assert!(
            std::env::var_os("RESURGAM_CLOCKS").is_none(),
            "RESURGAM_CLOCKS is set, and libfaketime is not here"
        );
        eprintln!("NOT TESTED: libfaketime is not here; RESURGAM_CLOCKS=1 makes that an error");
    }
    clocks
}

async fn crew<'a>(cluster: &'a ControlPlane, clocks: &[WallClock]) -> Crew<'a> {
    let by = |replica: usize| clocks[replica].environment();
    Crew::start_with(cluster, BINARY.as_ref(), clocks.len(), LEASE, by).await.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clock_set_by_an_hour_neither_opens_nor_delays_anything() {
    let stage = stage().await;
    let (cluster, model) = &*stage;
    let Some(clocks) = clocks(cluster, &[0]) else { return };
    let crew = crew(cluster, &clocks).await;
    let quarter = model.effects / 4;
    for (name, sets) in [
        ("forth-and-back", [(quarter, HOUR), (2 * quarter, -HOUR)]),
        ("right-and-ahead", [(2 * quarter, 0), (3 * quarter, HOUR)]),
    ] {
        reset(cluster, &crew, name, (&clocks[0], &sets), model).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_with_different_clocks_lead_one_after_the_other() {
    let stage = stage().await;
    let (cluster, model) = &*stage;
    let Some(clocks) = clocks(cluster, &[-HOUR, HOUR]) else { return };
    let crew = crew(cluster, &clocks).await;
    for lost in [Lost::Killed, Lost::CutOff] {
        let name = format!("hours-{lost:?}").to_lowercase();
        let took = takeover(cluster, &crew, &name, (lost, model.effects / 3), model).await.unwrap();
        eprintln!("{took:?}");
        assert!(took.succession.taken_after < f64::from(3 * LEASE), "{took:?}");
    }
}
