//! The build information of Go programs, taken out of a file while it streams by.

use std::fmt;

use super::hunt::{Hunt, Step};
use crate::ecosystem::Extract;
use crate::limit;

/// Starts the header.
const MAGIC: &[u8] = b"\xff Go buildinf:";
const HEADER_BYTES: usize = 32;
/// Bit of the header's flags: the strings follow.
const FLAG_INLINE: u8 = 2;
/// Bytes of a Go version: those of development toolchains have a commit and a date.
const VERSION_BYTES: u64 = 256;
/// Before and after the module data (`cmd/go/internal/modload.infoStart` and `infoEnd`).
const INFO_START: &[u8] = b"\x30\x77\xaf\x0c\x92\x74\x08\x02\x41\xe1\xc1\x07\xe6\xd6\x18\xe6";
const INFO_END: &[u8] = b"\xf9\x32\x43\x31\x86\x18\x20\x72\x00\x82\x42\x10\x41\x16\xd8\xf2";
const MARKER_BYTES: usize = 16;

/// The search through one file.
#[derive(Default)]
pub(super) struct Program {
    format: Format,
    headers: Hunt,
    markers: Hunt,
    heard: Heard,
}

#[derive(Default, PartialEq)]
enum Format {
    /// Less than [`FORMAT_BYTES`] were seen.
    #[default]
    Unknown,
    Executable,
    Other,
}

/// Bytes that tell the format of a file.
const FORMAT_BYTES: usize = 8;

/// What a file said so far.
#[derive(Default)]
struct Heard {
    builds: Vec<Build>,
    /// Module data between markers: those of the builds, and those of old programs.
    marked: Vec<Vec<u8>>,
    /// A header of before Go 1.18 was seen.
    has_pointers: bool,
    /// What is wrong with something between markers. It does not matter when the same is read elsewhere.
    marked_problem: Option<Flaw>,
    /// Bytes kept.
    n_bytes: usize,
    /// Not everything was kept.
    is_over: bool,
}

/// The build information of one program.
#[derive(PartialEq)]
struct Build {
    version: String,
    modules: Vec<u8>,
    problem: Option<Flaw>,
}

/// What is wrong with module data.
#[derive(Clone, Copy, PartialEq)]
enum Flaw {
    Damaged,
    TooLarge,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Damaged => f.write_str("the module data of the go program are damaged"),
            Flaw::TooLarge => write!(
                f,
                "the module data of the go program are larger than the limit of {} bytes",
                limit::GO_MODULES_BYTES
            ),
        }
    }
}

impl Extract for Program {
    fn feed(&mut self, bytes: &[u8]) -> bool {
        if self.format == Format::Other {
            return false;
        }
        self.headers.kept.extend_from_slice(bytes);
        self.markers.kept.extend_from_slice(bytes);
        if self.format == Format::Unknown {
            let Some(head) = self.headers.kept.first_chunk() else {
                return true;
            };
            if !is_executable(head) {
                *self = Program {
                    format: Format::Other,
                    ..Program::default()
                };
                return false;
            }
            self.format = Format::Executable;
        }
        self.search(false);
        true
    }

    fn finish(mut self: Box<Self>) -> Result<Option<Vec<u8>>, String> {
        if self.format != Format::Executable {
            return Ok(None);
        }
        self.search(true);
        self.heard.evidence()
    }
}

impl Program {
    fn search(&mut self, is_end: bool) {
        let heard = &mut self.heard;
        self.headers
            .search(MAGIC, is_end, |rest| heard.header(rest, is_end));
        self.markers
            .search(INFO_START, is_end, |rest| heard.marker(rest, is_end));
    }
}

/// Whether a file starts as ELF, PE, Mach-O or fat Mach-O. The last shares its magic with Java classes, whose
/// version, 45 and more, stands where Mach-O has its number of architectures.
fn is_executable(head: &[u8; FORMAT_BYTES]) -> bool {
    match head {
        [0x7f, b'E', b'L', b'F', ..]
        | [b'M', b'Z', ..]
        | [0xfe, 0xed, 0xfa, 0xce | 0xcf, ..]
        | [0xce | 0xcf, 0xfa, 0xed, 0xfe, ..] => true,
        [0xca, 0xfe, 0xba, 0xbe | 0xbf, 0, 0, 0, n] => *n < 45,
        _ => false,
    }
}

impl Heard {
    /// Reads what starts with [`MAGIC`]. The same bytes stand in programs that read build information, such
    /// as `go` itself; there no version follows.
    fn header(&mut self, rest: &[u8], is_end: bool) -> Step {
        let (Some(header), Some(body)) =
            (rest.first_chunk::<HEADER_BYTES>(), rest.get(HEADER_BYTES..))
        else {
            return Step::Need(HEADER_BYTES);
        };
        let [.., pointer_bytes, flags] = *header.first_chunk::<16>().unwrap_or(&[0; 16]);
        if flags & FLAG_INLINE == 0 {
            self.has_pointers |= matches!(pointer_bytes, 4 | 8) && flags <= 1;
            return Step::Past(MAGIC.len());
        }
        let (version, body) = match prefixed(body, VERSION_BYTES) {
            Prefixed::Text(version, body) => (version, body),
            Prefixed::Need(more) => return Step::Need(HEADER_BYTES + more),
            Prefixed::TooLong | Prefixed::Not => return Step::Past(MAGIC.len()),
        };
        let Some(version) = go_version(version) else {
            return Step::Past(MAGIC.len());
        };
        let (modules, problem) = match prefixed(body, limit::GO_MODULES_BYTES as u64) {
            Prefixed::Need(more) if !is_end => return Step::Need(rest.len() - body.len() + more),
            Prefixed::TooLong => (&b""[..], Some(Flaw::TooLarge)),
            Prefixed::Need(_) | Prefixed::Not => (&b""[..], Some(Flaw::Damaged)),
            // Not built in module mode.
            Prefixed::Text(b"", _) => (&b""[..], None),
            Prefixed::Text(framed, _) => framed
                .strip_prefix(INFO_START)
                .and_then(|modules| modules.strip_suffix(INFO_END))
                .map_or((&b""[..], Some(Flaw::Damaged)), |modules| (modules, None)),
        };
        let build = Build {
            version: version.to_owned(),
            modules: modules.to_vec(),
            problem,
        };
        if self.has_room(modules.len()) && !self.builds.contains(&build) {
            self.n_bytes += build.modules.len();
            self.builds.push(build);
        }
        Step::Past(MAGIC.len())
    }

    /// Reads what starts with [`INFO_START`]. Text cannot hold the start of another marker, so text is read
    /// but once.
    fn marker(&mut self, rest: &[u8], is_end: bool) -> Step {
        let text = rest.get(MARKER_BYTES..).unwrap_or_default();
        let within = text.get(..limit::GO_MODULES_BYTES).unwrap_or(text);
        let Some(end) = within.iter().position(|byte| !is_text(byte)) else {
            if text.len() > limit::GO_MODULES_BYTES {
                self.marked_problem = Some(Flaw::TooLarge);
                return Step::Past(MARKER_BYTES);
            }
            if is_end {
                self.marked_problem = Some(Flaw::Damaged);
            }
            // Twice as much, so that small pieces of a stream do not make us read the text again and again.
            let most = MARKER_BYTES + limit::GO_MODULES_BYTES + 1;
            return Step::Need(most.min(rest.len() * 2));
        };
        let (modules, tail) = text.split_at(end);
        if tail.len() < MARKER_BYTES && !is_end {
            return Step::Need(MARKER_BYTES + end + MARKER_BYTES);
        }
        // Nothing between is what the linker leaves in programs that read build information.
        if !tail.starts_with(INFO_END) {
            self.marked_problem = (end > 0).then_some(Flaw::Damaged).or(self.marked_problem);
        } else if end > 0 && self.has_room(end) && !self.marked.iter().any(|m| m == modules) {
            self.n_bytes += end;
            self.marked.push(modules.to_vec());
        }
        Step::Past(MARKER_BYTES)
    }

    /// Whether so many bytes more may be kept; else remembers that not all were.
    fn has_room(&mut self, n_bytes: usize) -> bool {
        // New programs hold their module data twice: after the header, and where the runtime reads them.
        let has_room = self.n_bytes + n_bytes <= 2 * limit::GO_MODULES_BYTES
            && self.builds.len() < limit::GO_PROGRAMS
            && self.marked.len() < limit::GO_PROGRAMS;
        self.is_over |= !has_room;
        has_room
    }

    /// The piece of evidence; `None` when this is no Go program.
    fn evidence(self) -> Result<Option<Vec<u8>>, String> {
        let mut text = Vec::new();
        for build in &self.builds {
            add(&mut text, &build.version, &build.modules);
            if let Some(problem) = build.problem {
                add_problem(&mut text, &problem.to_string());
            }
        }
        for modules in &self.marked {
            if !self.builds.iter().any(|build| build.modules == *modules) {
                add(&mut text, "", modules);
            }
        }
        if text.is_empty() && self.has_pointers {
            add(&mut text, "", b"");
            if let Some(problem) = self.marked_problem {
                add_problem(&mut text, &problem.to_string());
            }
        }
        if self.is_over {
            add_problem(&mut text, &too_many());
        }
        match self.marked_problem {
            Some(problem) if text.is_empty() => Err(problem.to_string()),
            _ => Ok((!text.is_empty()).then_some(text)),
        }
    }
}

/// Adds a program to a piece of evidence.
fn add(text: &mut Vec<u8>, version: &str, modules: &[u8]) {
    text.extend_from_slice(format!("go\t{version}\n").as_bytes());
    text.extend_from_slice(modules);
    if !modules.is_empty() && !modules.ends_with(b"\n") {
        text.push(b'\n');
    }
}

fn add_problem(text: &mut Vec<u8>, problem: &str) {
    text.extend_from_slice(format!("problem\t{problem}\n").as_bytes());
}

fn too_many() -> String {
    format!(
        "more than {} go programs or {} bytes of module data in one file",
        limit::GO_PROGRAMS,
        2 * limit::GO_MODULES_BYTES
    )
}

/// Bytes after their length, or why not.
enum Prefixed<'a> {
    /// And what follows them.
    Text(&'a [u8], &'a [u8]),
    /// So many bytes are needed, the length included.
    Need(usize),
    TooLong,
    /// No length stands here.
    Not,
}

/// Reads a length, as a varint of Go's `encoding/binary`, and so many bytes.
fn prefixed(bytes: &[u8], max: u64) -> Prefixed<'_> {
    // Five bytes of seven bits are more than any length we take, and cannot overflow.
    const LENGTH_BYTES: usize = 5;
    let mut length = 0_u64;
    for (at, byte) in bytes.iter().take(LENGTH_BYTES).enumerate() {
        length |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 != 0 {
            continue;
        }
        let rest = bytes.get(at + 1..).unwrap_or_default();
        return match usize::try_from(length) {
            Ok(length) if length as u64 <= max => match rest.split_at_checked(length) {
                Some((text, rest)) => Prefixed::Text(text, rest),
                None => Prefixed::Need(at + 1 + length),
            },
            _ => Prefixed::TooLong,
        };
    }
    if bytes.len() < LENGTH_BYTES {
        Prefixed::Need(bytes.len() + 1)
    } else {
        Prefixed::Not
    }
}

/// The version if it is one of Go: `go1.22.1 X:boringcrypto`, `devel go1.23-5e1e4d0 Fri …`, `devel +5e1e4d0 …`.
fn go_version(bytes: &[u8]) -> Option<&str> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_version = text.starts_with("devel ")
        || text
            .strip_prefix("go")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    (is_version && !text.chars().any(char::is_control)).then_some(text)
}

/// Whether the byte can stand in module data, which is text. Settings may hold other bytes, but only programs
/// of Go 1.18 and newer have settings, whose module data come with their length.
fn is_text(byte: &u8) -> bool {
    matches!(byte, b'\t' | b'\n' | b' '..=b'~' | 0x80..=0xf4)
}

#[cfg(test)]
mod tests {
    use memchr::memmem;

    use super::*;
    use crate::ecosystem::testdata;

    const MODULES: &str = "path\texample.com/a\nmod\texample.com/a\tv1.0.0\th1:x=\n\
                           dep\texample.com/b\tv0.1.0\th1:y=\nbuild\t-compiler=gc\n";

    fn framed(modules: &str) -> Vec<u8> {
        [INFO_START, modules.as_bytes(), INFO_END].concat()
    }

    fn varint(mut length: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        while length >= 0x80 {
            bytes.push(u8::try_from(length & 0x7f).unwrap() | 0x80);
            length >>= 7;
        }
        bytes.push(u8::try_from(length).unwrap());
        bytes
    }

    /// Header and strings as Go 1.18 and newer write them.
    fn build_information(version: &str, framed: &[u8]) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend([8, FLAG_INLINE]);
        bytes.extend([0; 16]);
        bytes.extend(varint(version.len()));
        bytes.extend(version.as_bytes());
        bytes.extend(varint(framed.len()));
        bytes.extend(framed);
        bytes
    }

    /// A header as Go 1.13 to 1.17 write it.
    fn pointers() -> Vec<u8> {
        [MAGIC, &[8, 0], &[0x77; 16]].concat()
    }

    fn elf(parts: &[&[u8]]) -> Vec<u8> {
        let mut bytes = b"\x7fELF\x02\x01\x01\0padding".to_vec();
        for part in parts {
            bytes.extend_from_slice(part);
            bytes.extend([0; 40]);
        }
        bytes
    }

    fn extract(bytes: &[u8], chunk: usize) -> Result<Option<String>, String> {
        let mut program = Box::new(Program::default());
        bytes.chunks(chunk).all(|chunk| program.feed(chunk));
        let text = program.finish()?;
        Ok(text.map(|text| String::from_utf8_lossy(&text).into_owned()))
    }

    /// In pieces of every size, which must not matter.
    fn extracted(bytes: &[u8]) -> Result<Option<String>, String> {
        let whole = extract(bytes, usize::MAX);
        for chunk in [1, 2, 7, 13, 14, 31, 100] {
            assert_eq!(extract(bytes, chunk), whole, "chunks of {chunk}");
        }
        whole
    }

    #[test]
    fn the_first_bytes_tell_executables() {
        for (head, wanted) in [
            (&b"\x7fELF\x02\x01\x01\0"[..], true),
            (b"MZ\x90\0\x03\0\0\0", true),
            (b"\xcf\xfa\xed\xfe\x07\0\0\x01", true),
            (b"\xfe\xed\xfa\xce\0\0\0\0", true),
            (b"\xca\xfe\xba\xbe\0\0\0\x02", true),
            (b"\xca\xfe\xba\xbe\0\0\0\x34", false),
            (b"#!/bin/s", false),
            (b"PK\x03\x04\0\0\0\0", false),
        ] {
            let mut program = Program::default();
            assert!(program.feed(&head[..3]), "{head:?}");
            assert_eq!(program.feed(&head[3..]), wanted, "{head:?}");
            assert_eq!(program.feed(b"more"), wanted, "{head:?}");
            assert_eq!(Box::new(program).finish(), Ok(None), "{head:?}");
        }
        assert_eq!(extracted(b""), Ok(None));
        assert_eq!(extracted(b"\x7fELF"), Ok(None));
    }

    #[test]
    fn programs_are_found() {
        let modules = framed(MODULES);
        let new = build_information("go1.20.1", &modules);
        let text = format!("go\tgo1.20.1\n{MODULES}");
        let other = build_information("go1.19", b"");
        for (name, bytes, want) in [
            ("new", elf(&[&new]), Some(text.clone())),
            (
                "at the very end",
                elf(&[b""]).into_iter().chain(new.clone()).collect(),
                Some(text.clone()),
            ),
            (
                "with the copy of the runtime",
                elf(&[&modules, &new]),
                Some(text.clone()),
            ),
            (
                "without modules",
                elf(&[&other]),
                Some("go\tgo1.19\n".to_owned()),
            ),
            ("not a program", elf(&[b"x"]), None),
            (
                "reads build information",
                elf(&[MAGIC, INFO_START, INFO_END, MAGIC]),
                None,
            ),
            (
                "reads it and is one",
                elf(&[MAGIC, &[0xff; 9], MAGIC, &new]),
                Some(text.clone()),
            ),
            (
                "two",
                elf(&[&new, &other]),
                Some(text.clone() + "go\tgo1.19\n"),
            ),
            (
                "odd bytes in settings",
                elf(&[&build_information("go1.20", &framed("build\tx=\x1b\0\n"))]),
                Some("go\tgo1.20\nbuild\tx=\x1b\0\n".to_owned()),
            ),
            ("twice", elf(&[&new, &new]), Some(text.clone())),
            (
                "old",
                elf(&[&modules, &pointers()]),
                Some(format!("go\t\n{MODULES}")),
            ),
            (
                "old without modules",
                elf(&[&pointers()]),
                Some("go\t\n".to_owned()),
            ),
            ("oldest", elf(&[&modules]), Some(format!("go\t\n{MODULES}"))),
        ] {
            assert_eq!(extracted(&bytes), Ok(want), "{name}");
        }
    }

    #[test]
    fn damage_is_told() {
        let modules = framed(MODULES);
        let new = build_information("go1.20.1", &modules);
        let damaged = Ok(Some(format!("go\tgo1.20.1\nproblem\t{}\n", Flaw::Damaged)));
        let cut = [&elf(&[])[..], &new[..new.len() - 20]].concat();
        assert_eq!(extracted(&cut), damaged, "cut");
        let unframed = build_information("go1.20.1", &modules[..modules.len() - 1]);
        let got = extracted(&elf(&[&unframed]));
        assert_eq!(got, damaged, "without its end");
        let no_modules = build_information("go1.20.1", b"");
        let garbage = [&no_modules[..no_modules.len() - 1], &[0xff; 20]].concat();
        assert_eq!(extracted(&elf(&[&garbage])), damaged, "length of garbage");
        // Markers that hold nothing understood are a problem only when nothing else is there.
        let alone = Err(Flaw::Damaged.to_string());
        assert_eq!(extracted(&elf(&[&modules[..40]])), alone, "marker alone");
        let both = Ok(Some(format!("go\tgo1.20.1\n{MODULES}")));
        assert_eq!(
            extracted(&elf(&[&modules[..40], &new])),
            both,
            "and a program"
        );
        let large = build_information("go1.20.1", &framed(&"x".repeat(limit::GO_MODULES_BYTES)));
        let want = Ok(Some(format!("go\tgo1.20.1\nproblem\t{}\n", Flaw::TooLarge)));
        for chunk in [4_096, 65_536, usize::MAX] {
            assert_eq!(extract(&elf(&[&large]), chunk), want, "too large");
        }
    }

    #[test]
    fn hostile_files_end_soon_and_stay_small() {
        let modules = framed("x\n");
        let distinct: Vec<u8> = (0..1_000)
            .flat_map(|n| build_information(&format!("go1.{n}"), &modules))
            .collect();
        let text = extract(&elf(&[&distinct]), 4_096).unwrap().unwrap();
        assert_eq!(text.matches("go\tgo").count(), limit::GO_PROGRAMS);
        assert!(text.ends_with(&format!("problem\t{}\n", too_many())));
        // Every header asks for almost four MiB, and every marker has no end.
        let greedy = [&build_information("go1.20", b"")[..39], &varint(4_000_000)].concat();
        for part in [greedy, INFO_START.to_vec(), MAGIC.to_vec()] {
            let bytes = elf(&[&part.repeat((8 << 20) / part.len())]);
            let mut program = Program::default();
            for chunk in bytes.chunks(65_536) {
                program.feed(chunk);
                let kept = program.headers.kept.len() + program.markers.kept.len();
                assert!(kept <= 4 * limit::GO_MODULES_BYTES, "{kept}");
            }
            drop(Box::new(program).finish());
        }
    }

    #[test]
    fn real_programs_in_pieces() {
        for file in ["go/debian", "go/npm"]
            .into_iter()
            .flat_map(testdata::files)
        {
            let path = &file.path;
            let whole = extract(&file.bytes, usize::MAX);
            assert!(matches!(whole, Ok(Some(_))), "{path}");
            for chunk in [4_096, 65_536] {
                assert_eq!(extract(&file.bytes, chunk), whole, "{path}");
            }
            // Small chunks take long in a debug build, so of these only the part that tells.
            let at = memmem::rfind(&file.bytes, MAGIC).unwrap();
            let part = [b"\x7fELF1234", &file.bytes[at - 1_000..at + 20_000]].concat();
            for chunk in [1, 7] {
                assert_eq!(extract(&part, chunk), whole, "{path}");
            }
        }
    }

    #[test]
    fn no_damage_panics() {
        let seed = elf(&[
            &framed("path\ta\n"),
            &build_information("go1.20.1", &framed("dep\ta/b\tv1\n=>\tc\tv2\th1:=\n")),
        ]);
        testdata::damaged(&seed, |bytes| {
            // The first bytes stay, or nothing would be looked at.
            let bytes = [b"\x7fELF1234", bytes].concat();
            assert_eq!(extract(&bytes, 11), extract(&bytes, usize::MAX));
        });
    }
}
