use serde_json::json;

use super::images;

#[test]
fn any_digest_list_is_parsed_or_rejected() {
    let sound = json!({"metadata": {"name": "approved"}, "data": {"digests": format!("sha256:{}\n", "0a".repeat(32)), "more": ""}});
    let readable = fuzz_input::Readable::default();
    bolero::check!().with_iterations(fuzz_input::ROUNDS).with_type::<(String, Vec<u8>)>().for_each(
        |(image, bytes)| {
            let _ = (images::pinned(image), images::running(image), images::is_digest(image));
            let Some(list) = readable.read(fuzz_input::spoiled(&sound, bytes)) else { return };
            let _ = images::from_config_map(&list);
        },
    );
}
