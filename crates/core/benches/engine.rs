//! Time and allocations of the engine, at 10, 100 and 1,000 services: `cargo bench --bench engine`.
//!
//! Plans are layered: each service depends on two of the layer before, and a layer has a tenth of all.

use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use divan::{AllocProfiler, Bencher, black_box};
use k8s_openapi::jiff::Timestamp;
use resurgam_core::engine::{Engine, decide};
use resurgam_core::plan::Plan;
use resurgam_core::simulate::{Assumed, Limits, Script, World, play, sweep};

#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const SIZES: [usize; 3] = [10, 100, 1_000];
const ASSUMED: Assumed = Assumed { step: Duration::from_secs(300), isolation: Duration::from_secs(10) };

fn main() {
    divan::main();
}

fn compiled(size: usize, dependencies: impl Fn(usize) -> Vec<usize>) -> Plan {
    let mut yaml = "incidentRef: {name: nov}\nserviceAccountName: recovery\nmaxParallel: 8\n\
        defaults:\n  gates:\n    beforeRestore: [{name: images, imageDigests: {approvedFrom: {configMap: {name: images}}}}]\n    \
        beforeRelease: [{name: up, workloads: {}}]\n    continuous: [{name: beat, workloads: {}}]\nservices:\n"
        .to_owned();
    for id in 0..size {
        let needs: Vec<String> = dependencies(id).iter().map(|of| format!("s{of}")).collect();
        let _ = writeln!(yaml, "- {{name: s{id}, dependsOn: [{}]}}", needs.join(", "));
    }
    let spec = serde_yaml::from_str(&yaml).unwrap_or_else(|error| unreachable!("{error}"));
    Plan::compile("recovery", "bench", "uid-1", &spec)
}

fn layered(size: usize) -> Plan {
    let layer = size / 10;
    compiled(size, |id| match id / layer {
        0 => Vec::new(),
        row => vec![(row - 1) * layer + id % layer, (row - 1) * layer + (id + 1) % layer],
    })
}

fn chain(size: usize) -> Plan {
    compiled(size, |id| id.checked_sub(1).into_iter().collect())
}

/// Half of it recovered.
fn world(plan: Plan) -> World<'static> {
    let run = play(&plan, ASSUMED, plan.max_parallel).unwrap_or_else(|error| unreachable!("{error}"));
    let script = Script::calm(ASSUMED);
    let mut world = World::new(plan, script, Limits { looks: usize::MAX }, Timestamp::UNIX_EPOCH);
    let half = Timestamp::UNIX_EPOCH.checked_add(run.makespan / 2).unwrap_or(Timestamp::MAX);
    world.run(half).unwrap_or_else(|error| unreachable!("{error}"));
    world
}

/// One decision about everything, from nothing.
#[divan::bench(args = SIZES)]
fn decide_from_nothing(bencher: Bencher<'_, '_>, size: usize) {
    let world = world(layered(size));
    bencher.bench_local(|| decide(black_box(&world.plan), black_box(&world.seen)));
}

/// One decision after one service has changed.
#[divan::bench(args = SIZES)]
fn decide_after_one_change(bencher: Bencher<'_, '_>, size: usize) {
    let mut world = world(layered(size));
    let mut engine = Engine::new(Arc::new(world.plan.clone()));
    let _ = engine.decide(&world.seen);
    bencher.bench_local(|| {
        world.seen.services[size / 2].generation = Some(1);
        engine.decide(black_box(&world.seen))
    });
}

/// `simulate` of a layered plan, all rows of `maxParallel` included.
#[divan::bench(args = SIZES, sample_count = 3)]
fn simulate_layers(bencher: Bencher<'_, '_>, size: usize) {
    let plan = layered(size);
    bencher.bench_local(|| simulate(black_box(&plan)));
}

/// `simulate` of a chain.
#[divan::bench(args = SIZES, sample_count = 3)]
fn simulate_chain(bencher: Bencher<'_, '_>, size: usize) {
    let plan = chain(size);
    bencher.bench_local(|| simulate(black_box(&plan)));
}

fn simulate(plan: &Plan) -> Option<usize> {
    Some(sweep(plan, ASSUMED).ok()?.rows.len())
}
