//! Go programs, by the build information the linker puts into them (Go's `debug/buildinfo` and
//! `runtime/debug.ParseBuildInfo`; `cmd/link/internal/ld.(*Link).buildinfo` writes it).
//!
//! In: ELF, PE and Mach-O files of any name. Out: modules of purl type `golang` and the standard library as
//! `stdlib`. Two forms are read while the file streams by:
//!
//! - Go 1.18 and newer: 32 bytes of header that start with a magic, then the Go version and the module data,
//!   each after its length as a varint.
//! - Go 1.12 to 1.17: the header holds pointers, which a stream cannot follow. The module data stand between
//!   two markers wherever the linker put them; the Go version stays unknown, which is a problem.
//!
//! The piece of evidence is text: for each program a line `go <TAB> version`, whose version may be empty, its
//! module data as the linker wrote it, and a line `problem <TAB> message` for what is missing.
//!
//! *Invariant:* headers of the file formats are not followed. All of a file is searched, so that programs
//! inside programs, fat Mach-O files and self-extracting ones are found too.

mod hunt;
mod program;

use memchr::memmem;

use self::program::Program;
use super::field::{lines, name_and_version, shown};
use super::{Candidate, Ecosystem, Found, Want};
use crate::sbom::Package;

/// Bytes below which a file is not looked at: the runtime alone is larger than half a MiB.
const SMALLEST_PROGRAM: u64 = 256 << 10;

pub(crate) const ROW: Ecosystem = Ecosystem {
    name: "go",
    summary: "Go modules (built into programs)",
    version: 1,
    of_distro: false,
    wants,
    parse,
};

/// Programs have any name, and not always the executable bit; but few files are so large, and the first
/// bytes tell.
fn wants(candidate: &Candidate<'_>) -> Option<Want> {
    (candidate.size >= SMALLEST_PROGRAM).then(|| Want::Part(Box::new(Program::default())))
}

/// A module as written in a `mod`, `dep` or `=>` line.
#[derive(Clone, Copy)]
struct Module<'a> {
    path: &'a [u8],
    version: &'a [u8],
}

fn parse(bytes: &[u8], found: &mut Found) {
    let mut last = None;
    for line in lines(bytes) {
        let mut columns = line.split(|byte| *byte == b'\t');
        let key = columns.next().unwrap_or_default();
        match key {
            b"go" => {
                finish(last.take(), None, found);
                toolchain(columns.next().unwrap_or_default(), found);
            }
            b"mod" | b"dep" => {
                finish(last.take(), None, found);
                last = module(line, columns, found);
            }
            b"=>" => {
                let replacement = module(line, columns, found);
                if last.is_none() {
                    found.problem(format!("`{}` replaces no module", shown(line)));
                }
                finish(last.take(), replacement, found);
            }
            b"problem" => found.problem(shown(columns.next().unwrap_or_default())),
            // `path`, the package of `main`, and `build`, the settings, name no module.
            _ => {}
        }
    }
    finish(last, None, found);
    // A file may hold several programs made of the same modules.
    found.packages.sort();
    found.packages.dedup();
}

/// The two columns after the key; the third, a checksum, may be absent.
fn module<'a>(
    line: &[u8],
    mut columns: impl Iterator<Item = &'a [u8]>,
    found: &mut Found,
) -> Option<Module<'a>> {
    match (columns.next(), columns.next()) {
        (Some(path), Some(version)) => Some(Module { path, version }),
        _ => {
            found.problem(format!("`{}` is not a module", shown(line)));
            None
        }
    }
}

/// Adds a module, or that which replaced it. One that was replaced by a local directory goes by its own name
/// and version: it is a changed copy of that. Modules that were built from a working directory have no
/// version: `(devel)`, or the one that `go mod` invents for local modules. They are no packages.
fn finish(module: Option<Module<'_>>, replacement: Option<Module<'_>>, found: &mut Found) {
    let has_version = |module: &Module<'_>| {
        !matches!(
            module.version,
            b"" | b"(devel)" | b"v0.0.0" | b"v0.0.0-00010101000000-000000000000"
        )
    };
    let Some(module) = module.map(|own| replacement.filter(has_version).unwrap_or(own)) else {
        return;
    };
    if has_version(&module)
        && let Some((path, version)) =
            name_and_version(Some(module.path), Some(module.version), found)
    {
        add_package(path, version, found);
    }
}

/// Adds the standard library, which has the version of the toolchain.
fn toolchain(version: &[u8], found: &mut Found) {
    // Experiments follow as ` X:…`, in newer releases as `-X:…` (go.dev/issue/75953), and notes of a
    // distribution in parentheses.
    let release = version
        .strip_prefix(b"devel ")
        .unwrap_or(version)
        .strip_prefix(b"go")
        .and_then(|release| release.split(|byte| *byte == b' ').next())
        .map(|release| {
            let end = memmem::find(release, b"-X:");
            end.and_then(|end| release.get(..end)).unwrap_or(release)
        });
    match release {
        Some(release) => {
            if let Some((name, version)) = name_and_version(Some(b"stdlib"), Some(release), found) {
                add_package(name, version, found);
            }
        }
        None if version.is_empty() => found.problem(
            "the go version cannot be read, as the program was built by go 1.17 or older"
                .to_owned(),
        ),
        None => found.problem(format!("`{}` is not a release of go", shown(version))),
    }
}

fn add_package(path: &str, version: &str, found: &mut Found) {
    let (namespace, name) = match path.rsplit_once('/') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, path),
    };
    if name.is_empty() {
        found.problem(format!("`{}` is not a module path", shown(path.as_bytes())));
        return;
    }
    found.package(Package {
        kind: "golang",
        namespace,
        name: name.to_owned(),
        version: version.to_owned(),
        architecture: None,
        source: None,
        licenses: Vec::new(),
    });
}

#[cfg(test)]
mod tests {
    use super::super::testdata;
    use super::*;

    fn parsed(text: &str) -> (Vec<String>, Vec<String>) {
        let found = testdata::parsed(&ROW, text.as_bytes());
        let purls = found.packages.iter().map(|p| p.purl(None).to_string());
        (purls.collect(), found.problems)
    }

    #[test]
    fn large_files_are_wanted_whatever_their_name() {
        for (size, wanted) in [(SMALLEST_PROGRAM, true), (SMALLEST_PROGRAM - 1, false)] {
            let candidate = Candidate {
                path: "opt/tool.bin",
                size,
            };
            assert_eq!((ROW.wants)(&candidate).is_some(), wanted);
        }
    }

    #[test]
    fn module_lines_become_packages() {
        for (name, text, want) in [
            (
                "main",
                "mod\ta.b/c\tv1.2.3\th1:x",
                &["pkg:golang/a.b/c@v1.2.3"][..],
            ),
            (
                "without checksum",
                "dep\ta.b/c\tv1.2.3\n",
                &["pkg:golang/a.b/c@v1.2.3"],
            ),
            ("development", "mod\ta.b/c\t(devel)\t\n", &[]),
            (
                "pseudo-version",
                "mod\ta.b/c\tv0.0.0-20230518123225-ceb2f9b3dab3+dirty\t\n",
                &["pkg:golang/a.b/c@v0.0.0-20230518123225-ceb2f9b3dab3%2Bdirty"],
            ),
            (
                "major version",
                "dep\ta.b/c/v2\tv2.0.1\t\n",
                &["pkg:golang/a.b/c/v2@v2.0.1"],
            ),
            (
                "case stays",
                "dep\tgithub.com/BurntSushi/toml\tv1.0.0\t",
                &["pkg:golang/github.com/BurntSushi/toml@v1.0.0"],
            ),
            (
                "one segment",
                "dep\tfoo\tv1.0.0\t",
                &["pkg:golang/foo@v1.0.0"],
            ),
            (
                "replaced",
                "dep\ta.b/c\tv1.0.0\n=>\td.e/f\tv1.5.0\th1:x\n",
                &["pkg:golang/d.e/f@v1.5.0"],
            ),
            (
                "replaced locally",
                "dep\ta.b/c\tv1.0.0\n=>\t../c\t(devel)\t\n",
                &["pkg:golang/a.b/c@v1.0.0"],
            ),
            (
                "replaced locally, old",
                "dep\ta.b/c\tv1.0.0\n=>\t../c\t\t\n",
                &["pkg:golang/a.b/c@v1.0.0"],
            ),
            (
                "staging",
                "dep\tk8s.io/api\tv0.0.0\n=>\t./staging/src/k8s.io/api\t(devel)\t\n",
                &[],
            ),
            (
                "standard library",
                "go\tgo1.22.3",
                &["pkg:golang/stdlib@1.22.3"],
            ),
            (
                "experiments",
                "go\tgo1.22.3 X:nocoverageredesign,boringcrypto\n",
                &["pkg:golang/stdlib@1.22.3"],
            ),
            (
                "experiments of go 1.26",
                "go\tgo1.26.8-X:jsonv2\n",
                &["pkg:golang/stdlib@1.26.8"],
            ),
            (
                "notes of a distribution",
                "go\tgo1.19.13 (Red Hat 1.19.13-1.el9)\n",
                &["pkg:golang/stdlib@1.19.13"],
            ),
            (
                "development toolchain",
                "go\tdevel go1.23-5e1e4d0 Fri Mar 1 2024\n",
                &["pkg:golang/stdlib@1.23-5e1e4d0"],
            ),
            ("others", "path\ta.b/c/cmd\nbuild\tvcs=git\n\n", &[]),
            (
                "twice",
                "go\tgo1.1\ndep\ta/b\tv1\ngo\tgo1.1\ndep\ta/b\tv1\n",
                &["pkg:golang/stdlib@1.1", "pkg:golang/a/b@v1"],
            ),
        ] {
            let (purls, problems) = parsed(text);
            assert_eq!(purls, want, "{name}");
            assert_eq!(problems, [""; 0], "{name}");
        }
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for (text, want) in [
            (
                "go\t\n",
                "the go version cannot be read, as the program was built by go 1.17 or older",
            ),
            (
                "go\tdevel +5e1e4d0 Fri\n",
                "`devel +5e1e4d0 Fri` is not a release of go",
            ),
            ("go\tgo\n", "package `stdlib`: `` is not a version"),
            ("dep\ta.b/c\n", "`dep\\ta.b/c` is not a module"),
            ("=>\ta\tv1\t\n", "`=>\\ta\\tv1\\t` replaces no module"),
            ("dep\ta b\tv1\n", "`a b` is not a package name"),
            ("dep\ta/\tv1\n", "`a/` is not a module path"),
            ("problem\tx\n", "x"),
        ] {
            let (purls, problems) = parsed(text);
            assert_eq!(problems, [want]);
            assert!(purls.is_empty(), "{want}");
        }
    }

    #[test]
    fn real_programs() {
        for case in ["go/debian", "go/npm"] {
            for file in testdata::files(case) {
                let path = format!("/{}", file.path);
                let want = testdata::expected(case)
                    .into_iter()
                    .filter(|row| row[0] == path && row[1] != "path" && row[3] != "(devel)")
                    .map(|row| {
                        let version = row[3].strip_prefix("go").unwrap_or(&row[3]);
                        vec![row[2].clone(), version.to_owned()]
                    })
                    .collect();
                let found = testdata::read(&ROW, &file).unwrap();
                assert_eq!(found.problems, [""; 0], "{path}");
                let got = found.packages.into_iter().map(|p| {
                    let parent = p.namespace.map_or_else(String::new, |path| path + "/");
                    vec![parent + &p.name, p.version]
                });
                testdata::assert_same(&path, got.collect(), want);
            }
        }
    }

    #[test]
    fn no_damage_panics() {
        let seed = b"go\tgo1.20\npath\tx\ndep\ta/b\tv1\n=>\tc\tv2\th1:=\nproblem\tx\n";
        testdata::damaged(seed, |bytes| drop(testdata::parsed(&ROW, bytes)));
    }
}
