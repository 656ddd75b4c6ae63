//! Plans that are none.

use serde_json::Value;

use crate::api::RecoveryPlan;
use crate::plan::Plan;
use crate::simulate::load;
use fuzz_input::{ROUNDS, Readable, spoiled};

fn sound() -> Value {
    let mut plan: Value =
        serde_yaml::from_str(include_str!("../../../../../examples/three-boroughs/plan.yaml")).unwrap();
    plan["spec"]["services"].as_array_mut().unwrap().truncate(6);
    plan
}

#[test]
fn any_plan_compiles_deterministically_or_is_rejected() {
    let (sound, readable) = (sound(), Readable::default());
    bolero::check!().with_iterations(ROUNDS).with_type::<Vec<u8>>().for_each(|bytes| {
        let Some(plan) = readable.read::<RecoveryPlan>(spoiled(&sound, bytes)) else { return };
        assert_eq!(format!("{:?}", Plan::from_object(&plan)), format!("{:?}", Plan::from_object(&plan)));
    });
}

#[test]
fn any_plan_file_is_loaded_or_rejected() {
    let sound = sound();
    bolero::check!().with_iterations(ROUNDS / 4).with_type::<(u16, u8, Vec<u8>)>().for_each(
        |(at, byte, bytes)| {
            let mut text = serde_yaml::to_string(&spoiled(&sound, bytes)).unwrap().into_bytes();
            let at = usize::from(*at) % text.len();
            text[at] = *byte;
            let _ = load(&String::from_utf8_lossy(&text));
            let _ = load(&String::from_utf8_lossy(bytes));
        },
    );
}
