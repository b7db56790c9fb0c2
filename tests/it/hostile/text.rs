//! Text that means to write to a terminal, into a log or into a spreadsheet.

use super::{pass, place, registry};
use crate::emulator::message::Response;
use crate::fake_registry::{Layer, dpkg_tar};

#[test]
fn text_from_outside_cannot_write_to_the_terminal_or_into_the_log() {
    let registry = registry();
    registry.image("zoo/evil", "1", &[Layer::gzip(&dpkg_tar("evil"))]);
    registry.hook(|request| {
        let is_it = request.path.contains("zoo/evil/manifests/sha256");
        let message = "\u{1b}]0;title\u{7}\u{1b}[2J\r\n::set-output name=x::y\n2026 error image failed \u{202e}";
        is_it.then(|| Response::status_error(404, message))
    });
    let place = place("text");
    let ended = pass(&registry, &place, 3, &[]);
    ended.says(&["error image failed", "zoo/evil:1", "set-output"]);
    assert!(
        !ended.stderr.contains(['\u{1b}', '\u{7}', '\r', '\u{202e}']),
        "{:?}",
        ended.stderr
    );
    assert!(
        ended.stderr.lines().all(|line| !line.starts_with("::")),
        "{}",
        ended.stderr
    );
}
