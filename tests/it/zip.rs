//! Reads the members of a ZIP archive, as the OSV dumps are published: stored or deflated, below 4 GiB
//! (<https://pkware.cachefly.net/webdocs/casestudies/APPNOTE.TXT>, sections 4.3.7, 4.3.12 and 4.3.16).
//!
//! Test data is trusted: what is not as expected is a panic.

use std::io::Read as _;

use flate2::read::DeflateDecoder;

/// Calls `each` with name and contents of every member, in the order of the central directory.
pub(crate) fn each_member(archive: &[u8], mut each: impl FnMut(&str, &[u8])) {
    let end = archive
        .windows(22)
        .rposition(|window| window.starts_with(b"PK\x05\x06"))
        .expect("the end of the central directory");
    let end = &archive[end..];
    let (n_members, mut at) = (number(end, 10, 2), number(end, 16, 4));
    for _ in 0..n_members {
        let entry = &archive[at..];
        assert!(
            entry.starts_with(b"PK\x01\x02"),
            "a directory entry at {at}"
        );
        let (method, packed, unpacked) = (
            number(entry, 10, 2),
            number(entry, 20, 4),
            number(entry, 24, 4),
        );
        let (n_name, n_extra, n_comment) = (
            number(entry, 28, 2),
            number(entry, 30, 2),
            number(entry, 32, 2),
        );
        let name = str::from_utf8(&entry[46..46 + n_name]).expect("a name in UTF-8");
        let member = &archive[number(entry, 42, 4)..];
        assert!(member.starts_with(b"PK\x03\x04"), "{name}: a local header");
        // The extra field of the local header has a length of its own.
        let start = 30 + number(member, 26, 2) + number(member, 28, 2);
        let packed = &member[start..start + packed];
        let mut contents = Vec::with_capacity(unpacked);
        match method {
            0 => contents.extend_from_slice(packed),
            8 => drop(
                DeflateDecoder::new(packed)
                    .read_to_end(&mut contents)
                    .expect("deflate"),
            ),
            method => panic!("{name}: method {method}"),
        }
        assert_eq!(contents.len(), unpacked, "{name}");
        each(name, &contents);
        at += 46 + n_name + n_extra + n_comment;
    }
}

/// A little-endian number.
fn number(bytes: &[u8], at: usize, n_bytes: usize) -> usize {
    bytes[at..at + n_bytes]
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | usize::from(*byte))
}
