//! The distribution, as os-release(5) says
//! (<https://www.freedesktop.org/software/systemd/man/latest/os-release.html>).
//!
//! In: `etc/os-release` and `usr/lib/os-release`, assignments in the manner of a shell. Out:
//! [`Found::distro`](super::Found), always; which of two files counts is for the caller to say.

use super::field::{lines, shown, word};
use super::{Candidate, Ecosystem, Found, Want};
use crate::limit;
use crate::sbom::Distro;

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "os-release",
    summary: "the distribution (etc/os-release, usr/lib/os-release)",
    version: 1,
    of_distro: false,
    wants,
    parse,
};

fn wants(candidate: &Candidate<'_>) -> Option<Want> {
    matches!(candidate.path, "etc/os-release" | "usr/lib/os-release").then_some(Want::Whole {
        max: limit::EVIDENCE_FILE_BYTES,
    })
}

fn parse(bytes: &[u8], found: &mut Found) {
    let mut distro = Distro::default();
    for line in lines(bytes) {
        let line = line.trim_ascii();
        // A file cut off or filled up with NULs is damaged, but empty lines and comments are in the format.
        if line.is_empty() || line.starts_with(b"#") {
            continue;
        }
        let Some((key, value)) = assignment(line) else {
            found.problem(format!("`{}` is not an assignment", shown(line)));
            continue;
        };
        let (value, is_whole) = unquoted(value);
        if !is_whole {
            found.problem(format!("`{}` has an open quote", shown(line)));
        }
        let value = String::from_utf8_lossy(&value).into_owned();
        let value = (!value.is_empty()).then_some(value);
        // Of repeated keys the last one counts, as when a shell reads the file.
        match key {
            b"ID" => distro.id = value.unwrap_or_default().to_lowercase(),
            b"ID_LIKE" => distro.id_like = value,
            b"VERSION_ID" => distro.version_id = value,
            b"VERSION_CODENAME" => distro.codename = value,
            b"PRETTY_NAME" => distro.pretty_name = value,
            b"CPE_NAME" => distro.cpe = value,
            _ => {}
        }
    }
    if let Some(version) = &distro.version_id
        && word(version.as_bytes()).is_none()
    {
        found.problem(format!(
            "`{}` is not a VERSION_ID",
            shown(version.as_bytes())
        ));
        distro.version_id = None;
    }
    if word(distro.id.as_bytes()).is_none() {
        found.problem(if distro.id.is_empty() {
            "no ID, so `linux` is taken, as os-release(5) says".to_owned()
        } else {
            format!(
                "`{}` is not an ID, so `linux` is taken",
                shown(distro.id.as_bytes())
            )
        });
        "linux".clone_into(&mut distro.id);
    }
    found.distro = Some(distro);
}

/// Splits `KEY=value`. `None` when the key is none: letters, digits and `_`.
fn assignment(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let equals = line.iter().position(|byte| *byte == b'=')?;
    let (key, value) = line.split_at(equals);
    let is_key = !key.is_empty() && key.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'_');
    is_key.then_some((key, value.get(1..).unwrap_or_default()))
}

/// The value without its quotes and escapes, and whether every quote was closed. As systemd reads it: pieces
/// in and out of quotes follow one another, between single quotes everything stands for itself, and between
/// double quotes a backslash escapes only `"`, `\`, `$` and the backtick.
fn unquoted(value: &[u8]) -> (Vec<u8>, bool) {
    let mut plain = Vec::with_capacity(value.len());
    let mut quote = None;
    let mut bytes = value.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b'"' | b'\'') => quote = Some(byte),
            (Some(open), _) if byte == open => quote = None,
            (None, b'\\') => plain.extend(bytes.next()),
            (Some(b'"'), b'\\') => match bytes.next() {
                Some(escaped @ (b'"' | b'\\' | b'$' | b'`')) => plain.push(escaped),
                Some(other) => plain.extend([b'\\', other]),
                None => plain.push(b'\\'),
            },
            _ => plain.push(byte),
        }
    }
    (plain, quote.is_none())
}

#[cfg(test)]
mod tests {
    use super::super::testdata;
    use super::*;

    fn parsed(bytes: &[u8]) -> (Distro, Vec<String>) {
        let found = testdata::parsed(&ROW, bytes);
        assert!(found.packages.is_empty());
        (found.distro.unwrap(), found.problems)
    }

    #[test]
    fn only_the_two_paths_are_wanted() {
        for (path, wanted) in [
            ("etc/os-release", true),
            ("usr/lib/os-release", true),
            ("srv/root/etc/os-release", false),
            ("etc/os-release.bak", false),
            ("etc/lsb-release", false),
        ] {
            assert_eq!(testdata::wants(&ROW, path), wanted, "{path}");
        }
    }

    #[test]
    fn quoting_follows_the_shell() {
        for (name, text, id, version) in [
            ("plain", "ID=debian\nVERSION_ID=12\n", "debian", Some("12")),
            (
                "double",
                "ID=\"alma\"\nVERSION_ID=\"8.4\"",
                "alma",
                Some("8.4"),
            ),
            ("single", "ID='arch'\n", "arch", None),
            (
                "carriage returns",
                "ID=arch\r\nVERSION_ID=1\r\n",
                "arch",
                Some("1"),
            ),
            ("pieces", "ID=a\"b\"'c'\n", "abc", None),
            ("escapes", "ID=\"a\\\"\\\\\\$b\\c\"\n", "a\"\\$b\\c", None),
            ("escape outside", "ID=a\\ b", "linux", None),
            ("single keeps backslash", "ID='a\\b'", "a\\b", None),
            ("case", "ID=Debian", "debian", None),
            ("comment", "#ID=a\n  # x\n\nID=b", "b", None),
            (
                "repeated",
                "ID=a\nID=b\nVERSION_ID=1\nVERSION_ID=",
                "b",
                None,
            ),
            (
                "trailing space",
                "ID=\"a\" \nVERSION_ID=2\t",
                "a",
                Some("2"),
            ),
            ("byte order mark", "\u{feff}ID=a", "a", None),
            ("hash in value", "ID=a#b", "a#b", None),
        ] {
            let (distro, _) = parsed(text.as_bytes());
            assert_eq!(distro.id, id, "{name}");
            assert_eq!(distro.version_id.as_deref(), version, "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (text, id, want) in [
            (
                &b""[..],
                "linux",
                "no ID, so `linux` is taken, as os-release(5) says",
            ),
            (
                b"ID=",
                "linux",
                "no ID, so `linux` is taken, as os-release(5) says",
            ),
            (
                b"ID='a b'",
                "linux",
                "`a b` is not an ID, so `linux` is taken",
            ),
            (b"ID=\"a", "a", "`ID=\"a` has an open quote"),
            (b"ID=a\nx", "a", "`x` is not an assignment"),
            (b"ID=a\n=b", "a", "`=b` is not an assignment"),
            (
                b"ID=a\n\0\0\xff",
                "a",
                "`\\x00\\x00\u{fffd}` is not an assignment",
            ),
            (b"ID=a\nVERSION_ID='1 2'", "a", "`1 2` is not a VERSION_ID"),
        ] {
            let (distro, problems) = parsed(text);
            assert_eq!(problems, [want]);
            assert_eq!(distro.id, id, "{want}");
        }
    }

    #[test]
    fn all_fields_are_read() {
        let (distro, problems) = parsed(
            b"PRETTY_NAME=\"Ubuntu 22.04 LTS\"\nID=ubuntu\nID_LIKE=debian\nVERSION_ID=\"22.04\"\n\
              VERSION_CODENAME=jammy\nCPE_NAME=\"cpe:/o:x\"\nLOGO=\"y\"\n",
        );
        let some = |text: &str| Some(text.to_owned());
        assert!(problems.is_empty());
        assert_eq!(
            distro,
            Distro {
                id: "ubuntu".to_owned(),
                id_like: some("debian"),
                version_id: some("22.04"),
                codename: some("jammy"),
                pretty_name: some("Ubuntu 22.04 LTS"),
                cpe: some("cpe:/o:x"),
            }
        );
    }

    #[test]
    fn real_files() {
        let want = [
            (
                "almalinux",
                "almalinux-8.4",
                "AlmaLinux 8.4 (Electric Cheetah)",
            ),
            (
                "alpine-edge",
                "alpine-3.22.0_alpha20250108",
                "Alpine Linux edge",
            ),
            ("arch", "arch", "Arch Linux"),
            ("azurelinux", "azurelinux-3.0", "Microsoft Azure Linux 3.0"),
            ("centos", "centos-8", "CentOS Linux 8 (Core)"),
            ("debian", "debian-8", "Debian GNU/Linux 8 (jessie)"),
            ("debian-sid", "debian", "Debian GNU/Linux trixie/sid"),
            ("echo", "echo-1", "Echo Linux"),
            ("gentoo", "gentoo", "Gentoo/Linux"),
            (
                "hummingbird",
                "hummingbird-20251124",
                "Hummingbird OS 20251124",
            ),
            ("mariner", "mariner-1.0", "CBL-Mariner/Linux"),
            ("oraclelinux", "ol-8.3", "Oracle Linux Server 8.3"),
            ("photon", "photon-2.0", "VMware Photon OS/Linux"),
            (
                "postmarketos-edge",
                "postmarketos-edge",
                "postmarketOS edge",
            ),
            (
                "redhat",
                "rhel-7.3",
                "Red Hat Enterprise Linux Server 7.3 (Maipo)",
            ),
            (
                "rockylinux",
                "rocky-8.4",
                "Rocky Linux 8.4 (Green Obsidian)",
            ),
            (
                "scientific",
                "scientific-7.5",
                "Scientific Linux 7.5 (Nitrogen)",
            ),
            ("ubuntu", "ubuntu-20.04", "Ubuntu 20.04 LTS"),
            ("wolfi", "wolfi-20220914", "Wolfi"),
        ];
        let dir = testdata::dir().join("pkgdb/os-release");
        let mut names: Vec<_> = std::fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name != "ORIGIN")
            .collect();
        names.sort();
        assert_eq!(names, want.map(|(name, ..)| name));
        for (name, release, pretty_name) in want {
            let (distro, problems) = parsed(&std::fs::read(dir.join(name)).unwrap());
            assert_eq!(problems, [""; 0], "{name}");
            assert_eq!(distro.to_string(), release);
            assert_eq!(distro.pretty_name.as_deref(), Some(pretty_name));
        }
    }

    #[test]
    fn no_damage_panics() {
        let seed =
            b"PRETTY_NAME=\"Debian \\\"12\\\"\"\n# x\nID='debian'\nVERSION_ID=\"12\"\r\nX=\\a\n";
        testdata::damaged(seed, |bytes| assert!(!parsed(bytes).0.id.is_empty()));
    }
}
