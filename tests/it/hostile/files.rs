//! Evidence inside an image: databases and metadata that are odd, huge or deep.

use super::{pass, place, registry};
use crate::fake_registry::{Layer, tar_file, tar_pax};

#[test]
fn evidence_under_very_long_names() {
    let registry = registry();
    let folder = "long/".repeat(100) + &"n".repeat(3_000) + "/node_modules/";
    let mut bytes = Vec::new();
    for n in 0..40_000 {
        bytes.extend(tar_pax("path", &format!("{folder}{n}/package.json")));
        bytes.extend(tar_file("x", b"{\"name\":\"x\",\"version\":\"1\"}"));
    }
    registry.image("zoo/evil", "1", &[Layer::gzip(&bytes)]);
    drop(bytes);
    let place = place("evidence");
    let ended = pass(&registry, &place, 0, &[]);
    assert_eq!(ended.total("incomplete"), 1);
    let problems = place.stored().problems();
    assert!(
        problems[0].contains("more evidence than the limit"),
        "{}",
        problems[0]
    );
}
