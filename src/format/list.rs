//! The SBOM as a list for people: what the image is, how completely it was read, and a line a package.

use std::collections::BTreeMap;
use std::io::{self, Write};

use super::{Format, SbomAnswer, count, size};
use crate::printable::printable;
use crate::sbom::{Coverage, ImagePackage, Sbom};

pub(super) const FORMAT: Format = Format {
    name: "list",
    summary: "Facts about the image, then a line a package",
    images: None,
    sbom: Some(sbom),
    status: None,
};

/// Names of an image that are written out.
const NAMES: usize = 5;
/// Characters up to which a column grows for the sake of its longest text.
const WIDTH: usize = 40;
const TITLES: [&str; 5] = ["TYPE", "NAME", "VERSION", "LAYER", "EVIDENCE"];

fn sbom(answer: &SbomAnswer, out: &mut dyn Write) -> io::Result<()> {
    let sbom = &answer.sbom;
    for (at, name) in answer.names.iter().take(NAMES).enumerate() {
        let title = if at == 0 { "image:" } else { "" };
        fact(out, title, &printable(name))?;
    }
    if let Some(n_more) = answer.names.len().checked_sub(NAMES + 1) {
        fact(out, "", &format!("and {} more", n_more + 1))?;
    }
    fact(out, "digest:", sbom.digest.as_str())?;
    fact(out, "platform:", &printable(&sbom.platform))?;
    let distro = sbom
        .distro
        .as_ref()
        .map(|distro| match &distro.pretty_name {
            Some(name) => format!("{distro}, {name}"),
            None => distro.to_string(),
        });
    fact(
        out,
        "distro:",
        &printable(distro.as_deref().unwrap_or("unknown")),
    )?;
    fact(out, "size:", &size(sbom.size))?;
    for (position, layer) in sbom.layers.iter().enumerate() {
        let refused = if layer.refused.is_some() {
            ", not read"
        } else {
            ""
        };
        let text = format!("{} ({}{refused})", layer.digest, size(layer.size));
        fact(out, &format!("layer {position}:"), &text)?;
    }
    fact(out, "packages:", &packages_by_type(sbom))?;
    coverage(&sbom.coverage, out)?;
    if sbom.packages.is_empty() {
        return Ok(());
    }
    writeln!(out)?;
    packages(sbom, out)
}

fn fact(out: &mut dyn Write, title: &str, text: &str) -> io::Result<()> {
    writeln!(out, "{title:<10} {text}")
}

/// `213 (105 deb, 108 pypi)`
fn packages_by_type(sbom: &Sbom) -> String {
    let mut by_type: BTreeMap<&str, u64> = BTreeMap::new();
    for package in &sbom.packages {
        *by_type.entry(&package.kind).or_default() += 1;
    }
    let parts: Vec<String> = by_type
        .iter()
        .map(|(kind, n)| format!("{n} {}", printable(kind)))
        .collect();
    match parts.is_empty() {
        true => "0".to_owned(),
        false => format!("{} ({})", sbom.packages.len(), parts.join(", ")),
    }
}

fn coverage(coverage: &Coverage, out: &mut dyn Write) -> io::Result<()> {
    let n_problems = coverage.problems.len() as u64 + coverage.problems_unlisted;
    let text = format!(
        "{}{} of {} read, {}, {} masked, {}",
        if coverage.is_complete() {
            ""
        } else {
            "INCOMPLETE: "
        },
        coverage.layers_read,
        count(coverage.layers_total, "layer"),
        count(coverage.evidence, "evidence file"),
        coverage.masked,
        count(n_problems, "problem")
    );
    fact(out, "coverage:", &text)?;
    for problem in &coverage.problems {
        let path = match problem.path.is_empty() {
            true => String::new(),
            false => format!(" {}", printable(&problem.path)),
        };
        let text = format!(
            "{}{path}: {}",
            printable(&problem.subject),
            printable(&problem.message)
        );
        fact(out, "problem:", &text)?;
    }
    match coverage.problems_unlisted {
        0 => Ok(()),
        n => fact(
            out,
            "problem:",
            &format!("and {n} more that were not recorded one by one"),
        ),
    }
}

fn packages(sbom: &Sbom, out: &mut dyn Write) -> io::Result<()> {
    let distro = sbom.distro.as_ref().map(|distro| distro.id.as_str());
    let rows = sbom.packages.iter().map(|package| cells(package, distro));
    let mut rows: Vec<[String; 5]> = rows.collect();
    rows.insert(0, TITLES.map(str::to_owned));
    let mut widths = [0; 4];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count().min(WIDTH));
        }
    }
    let [kind, name, version, layer] = widths;
    for [a, b, c, d, e] in &rows {
        writeln!(
            out,
            "{a:<kind$}  {b:<name$}  {c:<version$}  {d:>layer$}  {e}"
        )?;
    }
    Ok(())
}

fn cells(package: &ImagePackage, distro: Option<&str>) -> [String; 5] {
    // The namespace of a distribution's package is the distribution, which stands above.
    let namespace = package.namespace.as_deref();
    let name = match namespace.filter(|namespace| Some(*namespace) != distro) {
        Some(namespace) => format!("{namespace}/{}", package.name),
        None => package.name.clone(),
    };
    let (layer, mut evidence) = match package.locations.first() {
        Some(first) => (first.layer.to_string(), printable(&first.path).into_owned()),
        None => (String::new(), String::new()),
    };
    if package.locations.len() > 1 {
        evidence = format!("{evidence} (and {} more)", package.locations.len() - 1);
    }
    [
        printable(&package.kind).into_owned(),
        printable(&name).into_owned(),
        printable(&package.version).into_owned(),
        layer,
        evidence,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testdata;

    #[test]
    fn an_sbom_reads_like_this() {
        let answer = testdata::sbom();
        let mut out = Vec::new();
        sbom(&answer, &mut out).unwrap();
        let expected = format!(
            "\
image:     r.example/app:1.0
           r.example/app:latest
digest:    {}
platform:  linux/amd64
distro:    debian-12, Debian \\x1b]0;x\\x07
size:      1.5 kB
layer 0:   {} (1.0 kB)
layer 1:   {} (500 B, not read)
packages:  2 (1 deb, 1 npm)
coverage:  INCOMPLETE: 1 of 2 layers read, 3 evidence files, 1 masked, 8 problems
problem:   npm q/package.json: not JSON
problem:   and 7 more that were not recorded one by one

TYPE  NAME       VERSION  LAYER  EVIDENCE
deb   libc6      1.0          0  var/lib/dpkg/status
npm   @a/b\\x9bc  1.0          0  x\\ny/package.json (and 1 more)
",
            answer.sbom.digest, answer.sbom.layers[0].digest, answer.sbom.layers[1].digest
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn an_image_without_packages_has_no_table() {
        let mut answer = testdata::sbom();
        answer.sbom.packages.clear();
        answer.names = (0..7).map(|n| format!("r.example/app:{n}")).collect();
        let mut out = Vec::new();
        sbom(&answer, &mut out).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("\n           and 2 more\n"), "{text}");
        assert!(
            text.contains("\npackages:  0\n") && !text.contains("TYPE"),
            "{text}"
        );
    }
}
