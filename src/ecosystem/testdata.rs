//! Real package databases for the tests, and bytes that were tampered with.

use std::collections::BTreeSet;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Candidate, Ecosystem, Found, Want};
use crate::sbom::Package;

/// A regular file of a case.
pub(super) struct File {
    /// Without leading slash.
    pub(super) path: String,
    pub(super) bytes: Vec<u8>,
}

/// The folder of the test data: `CROWSNEST_TESTDATA`, or `shared/testdata` beside the checkout or further up.
pub(super) fn dir() -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"));
    std::env::var_os("CROWSNEST_TESTDATA")
        .map(PathBuf::from)
        .into_iter()
        .chain(
            checkout
                .ancestors()
                .map(|folder| folder.join("shared/testdata")),
        )
        .find(|dir| dir.join("pkgdb").is_dir())
        .expect("no test data: set CROWSNEST_TESTDATA to the folder that holds `pkgdb`")
}

/// The regular files of `pkgdb/<case>/root.tar.gz`.
pub(super) fn files(case: &str) -> Vec<File> {
    let path = dir().join("pkgdb").join(case).join("root.tar.gz");
    let packed = std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let mut tar = Vec::new();
    flate2::read::MultiGzDecoder::new(&packed[..])
        .read_to_end(&mut tar)
        .unwrap();
    untar(&tar)
}

/// What `ecosystem` finds in the files of a case, with the path of each package. Panics on a problem.
pub(super) fn packages(ecosystem: &Ecosystem, case: &str) -> Vec<(String, Package)> {
    let mut packages = Vec::new();
    for file in files(case) {
        let Some(found) = read(ecosystem, &file) else {
            continue;
        };
        assert_eq!(found.problems, [""; 0], "{case}: {}", file.path);
        let path = &file.path;
        packages.extend(found.packages.into_iter().map(|p| (path.clone(), p)));
    }
    packages
}

/// What `ecosystem` finds in a file; `None` when it does not want it.
pub(super) fn read(ecosystem: &Ecosystem, file: &File) -> Option<Found> {
    let want = (ecosystem.wants)(&Candidate {
        path: &file.path,
        size: file.bytes.len() as u64,
    })?;
    let extracted;
    let bytes = match want {
        Want::Whole { max } => {
            assert!(file.bytes.len() as u64 <= max, "{}", file.path);
            &file.bytes
        }
        Want::Part(mut extract) => {
            file.bytes.chunks(65_536).all(|chunk| extract.feed(chunk));
            extracted = extract.finish().unwrap()?;
            &extracted
        }
    };
    Some(parsed(ecosystem, bytes))
}

/// What `ecosystem` reads out of the bytes of a file.
pub(super) fn parsed(ecosystem: &Ecosystem, bytes: &[u8]) -> Found {
    let mut found = Found::default();
    (ecosystem.parse)(bytes, &mut found);
    found
}

/// Whether `ecosystem` wants a small file of that path whole.
pub(super) fn wants(ecosystem: &Ecosystem, path: &str) -> bool {
    let candidate = Candidate { path, size: 100 };
    matches!((ecosystem.wants)(&candidate), Some(Want::Whole { .. }))
}

/// The rows of `expected.tsv` without its header.
pub(super) fn expected(case: &str) -> Vec<Vec<String>> {
    let path = dir().join("pkgdb").join(case).join("expected.tsv");
    let text = std::fs::read_to_string(path).unwrap();
    let rows = text.lines().skip(1);
    rows.map(|row| row.split('\t').map(str::to_owned).collect())
        .collect()
}

/// Fails with the rows that only one side has.
pub(super) fn assert_same(case: &str, got: Vec<Vec<String>>, want: Vec<Vec<String>>) {
    assert!(!want.is_empty(), "{case} expects nothing");
    assert_eq!(got.len(), want.len(), "{case}: number of packages");
    let (got, want): (BTreeSet<_>, BTreeSet<_>) =
        (got.into_iter().collect(), want.into_iter().collect());
    assert!(
        got == want,
        "{case}: missing {:?}, too many {:?}",
        want.difference(&got).collect::<Vec<_>>(),
        got.difference(&want).collect::<Vec<_>>()
    );
}

/// Gives every prefix of `seed` and some thousand damaged forms of it to `check`, the same on every run.
pub(super) fn damaged(seed: &[u8], mut check: impl FnMut(&[u8])) {
    for end in 0..=seed.len() {
        check(&seed[..end]);
    }
    const ODD: &[u8] = b"\0\n\r\t :=\"'\\#{}[]()\x7f\x80\xff\xfe\x1b";
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below.max(1)
    };
    for _ in 0..3_000 {
        let mut bytes = seed.to_vec();
        for _ in 0..=random(6) {
            let at = random(bytes.len());
            match random(5) {
                0 => bytes.truncate(at),
                1 => drop(bytes.drain(at..(at + random(20)).min(bytes.len()))),
                2 => bytes.insert(at, ODD[random(ODD.len())]),
                3 => bytes
                    .splice(at..at, seed[random(seed.len())..].iter().copied().take(40))
                    .for_each(drop),
                _ => {
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = u8::try_from(random(256)).unwrap();
                    }
                }
            }
        }
        check(&bytes);
    }
}

/// A reader of tar for files made by GNU tar, enough for our test data; the real one is held to more.
fn untar(tar: &[u8]) -> Vec<File> {
    let octal = |field: &[u8]| {
        let text = String::from_utf8_lossy(field);
        usize::from_str_radix(text.trim_matches(['\0', ' ']), 8).unwrap_or(0)
    };
    let text = |field: &[u8]| {
        let end = field.iter().position(|b| *b == 0).unwrap_or(field.len());
        String::from_utf8(field[..end].to_vec()).unwrap()
    };
    let mut files = Vec::new();
    let mut long_name = None;
    let mut at = 0;
    while at + 512 <= tar.len() && tar[at] != 0 {
        let header = &tar[at..at + 512];
        let size = octal(&header[124..136]);
        let bytes = &tar[at + 512..at + 512 + size];
        at += 512 + size.next_multiple_of(512);
        match header[156] {
            b'L' => long_name = Some(text(bytes)),
            kind => {
                assert!(
                    matches!(kind, b'0' | b'1' | b'2' | b'5'),
                    "unknown tar entry {}",
                    char::from(kind)
                );
                let path = long_name.take().unwrap_or_else(|| text(&header[..100]));
                if kind == b'0' {
                    files.push(File {
                        path: path.strip_prefix("root/").unwrap().to_owned(),
                        bytes: bytes.to_vec(),
                    });
                }
            }
        }
    }
    files
}
