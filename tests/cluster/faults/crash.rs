//! The operator is killed at its n-th effect: asked for and not done, or done and not answered.

use fault_proxy::Moment;
use rehearsal::SplitMix;
use rehearsal::trial::crash::{Point, crash};

use crate::faults::{crew, stage};

/// One point in each of as many parts of a recovery, on the one side and on the other. `cargo xtask soak` takes every one.
fn sample(seed: u64, points: u64, effects: u64) -> Vec<Point> {
    // Not all recoveries are equally long: the last effects of this one may be missing in the next.
    let effects = effects - effects / 10;
    let mut random = SplitMix::new(seed);
    let part = |number: u64| 1 + number * effects / points;
    let side = |number: u64| if number.is_multiple_of(2) { Moment::Unanswered } else { Moment::Unsent };
    let point = |number: u64| Point {
        effect: random.between(part(number), part(number + 1)),
        moment: side(seed.wrapping_add(number)),
    };
    (0..points).map(point).collect()
}

async fn killed(replicas: usize, points: u64, name: &str) {
    let stage = stage().await;
    let (cluster, model) = &*stage;
    let crew = crew(cluster, replicas).await;
    assert!(model.effects > 3 * points, "{} effects only", model.effects);
    let seed = rehearsal::seed(5).unwrap();
    eprintln!("RESURGAM_SEED={seed}");
    let mut died = 0;
    for point in sample(seed, points, model.effects) {
        let name = format!("{name}-{}-{:?}", point.effect, point.moment).to_lowercase();
        let began = std::time::Instant::now();
        died += u64::from(crash(cluster, &crew, &name, point, model).await.unwrap());
        eprintln!("{point:?}: {:.1} s", began.elapsed().as_secs_f64());
    }
    assert!(died >= points - 1, "it came to {died} of {points} points only");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operator_killed_at_any_effect_does_nothing_twice() {
    killed(1, 8, "crash").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replica_that_takes_over_at_any_effect_does_nothing_twice() {
    killed(2, 4, "takeover").await;
}
