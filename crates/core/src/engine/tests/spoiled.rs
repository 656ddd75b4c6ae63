//! Statuses that somebody has written into: what is remembered may be anything that can be read.

use serde_json::{Value, json};

use super::story::story;
use crate::engine::decide;
use fuzz_input::{ROUNDS, Readable, spoiled};

#[test]
fn any_status_permits_a_decision_about_the_plan() {
    let worlds: Vec<_> = (0..12)
        .map(|seconds| {
            let mut s =
                story("- {name: db}\n- {name: web, dependsOn: [db]}\n- {name: mail, dependsOn: [db]}");
            s.run(seconds);
            (s.world.plan.clone(), s.world.seen.clone())
        })
        .collect();
    let readable = Readable::default();
    bolero::check!().with_iterations(ROUNDS).with_type::<(u8, Vec<u8>)>().for_each(|(which, bytes)| {
        let (plan, seen) = &worlds[usize::from(*which) % worlds.len()];
        let mut seen = seen.clone();
        let statuses: Value = seen.services.iter().map(|service| json!(service.status)).collect();
        let Some(statuses) = readable.read::<Vec<_>>(spoiled(&statuses, bytes)) else { return };
        for (service, status) in seen.services.iter_mut().zip(statuses) {
            service.status = status;
        }
        assert_eq!(decide(plan, &seen).services.len(), plan.services.len());
    });
}
