//! Tables for people: columns as wide as what stands in them, never cut.

use std::io::{self, Write};

use super::{Format, ImageRow, ImagesAnswer, NextTry, StatusAnswer, count, size};
use crate::printable::printable;

pub(super) const FORMAT: Format = Format {
    name: "table",
    summary: "Columns for people; times in UTC",
    images: Some(images),
    sbom: None,
    status: Some(status),
};

/// Rows that decide about the width of columns. Those behind them are written as they come, so that memory
/// stays bounded; a longer text among them makes its line longer.
const MEASURED: usize = 10_000;
/// Failures that are written out.
const FAILURES: usize = 20;

/// A column: its title, and on which side its texts stand.
#[derive(Clone, Copy)]
enum Column {
    Left(&'static str),
    Right(&'static str),
}

impl Column {
    fn title(self) -> &'static str {
        match self {
            Column::Left(title) | Column::Right(title) => title,
        }
    }
}

fn images(answer: ImagesAnswer<'_>, out: &mut dyn Write) -> io::Result<()> {
    let mut columns = vec![
        Column::Left("REPOSITORY"),
        Column::Left("TAG"),
        Column::Left("DIGEST"),
        Column::Left("PLATFORM"),
        Column::Right("PACKAGES"),
        Column::Right("SIZE"),
        Column::Left("LAST SEEN"),
        Column::Left("STATE"),
    ];
    if answer.with_gone {
        columns.push(Column::Left("GONE"));
    }
    let mut rows = answer
        .rows
        .map(|row| row.map(|row| cells(&row, answer.with_gone)));
    let mut measured = Vec::new();
    for row in rows.by_ref().take(MEASURED) {
        measured.push(row?);
    }
    let widths = widths(&columns, &measured);
    write_row(
        out,
        &columns,
        &widths,
        &columns
            .iter()
            .map(|column| column.title().to_owned())
            .collect::<Vec<_>>(),
    )?;
    for row in measured {
        write_row(out, &columns, &widths, &row)?;
    }
    for row in rows {
        write_row(out, &columns, &widths, &row?)?;
    }
    Ok(())
}

fn cells(row: &ImageRow, with_gone: bool) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    let mut cells = vec![
        printable(&row.repository).into_owned(),
        printable(&row.tag).into_owned(),
        row.image_digest
            .as_ref()
            .unwrap_or(&row.digest)
            .short()
            .to_owned(),
        or_dash(
            row.platform
                .as_deref()
                .map(|platform| printable(platform).into_owned()),
        ),
        or_dash(row.packages.map(|n| n.to_string())),
        or_dash(row.size.map(size)),
        row.last_seen.minute(),
        row.state.name().to_owned(),
    ];
    if with_gone {
        cells.push(or_dash(row.gone_at.map(|at| at.minute())));
    }
    cells
}

fn status(answer: &StatusAnswer, out: &mut dyn Write) -> io::Result<()> {
    writeln!(
        out,
        "store   {} ({})",
        printable(&answer.path),
        size(answer.bytes)
    )?;
    let incomplete = match answer.incomplete_images {
        0 => String::new(),
        n => format!(" ({n} incomplete)"),
    };
    writeln!(
        out,
        "holds   {} in {}",
        count(answer.tags, "tag"),
        match answer.repositories {
            1 => "1 repository".to_owned(),
            n => format!("{n} repositories"),
        }
    )?;
    writeln!(
        out,
        "        {}{incomplete} of {} ({}), {}",
        count(answer.images, "indexed image"),
        count(answer.layers, "layer"),
        size(answer.layer_bytes),
        count(answer.packages, "package")
    )?;
    let queue = answer.queue;
    let mut parts = Vec::new();
    if queue.pushed > 0 {
        parts.push(format!("{} just pushed", queue.pushed));
    }
    if queue.retrying > 0 {
        let next_try = queue.next_try.map(|at| format!(", next {}", at.minute()));
        let next_try = next_try.unwrap_or_default();
        parts.push(format!("{} to be tried again{next_try}", queue.retrying));
    }
    let parts = match parts.is_empty() {
        true => String::new(),
        false => format!(" ({})", parts.join("; ")),
    };
    writeln!(
        out,
        "queue   {} waiting{parts}, {} running, {} failed",
        queue.waiting, queue.running, queue.failed
    )?;
    if answer.events.waiting > 0 {
        let since = answer.events.waiting_since;
        let since = since.map(|at| format!(" since {}", at.minute()));
        writeln!(
            out,
            "        {} to be looked at{}",
            count(answer.events.waiting, "webhook"),
            since.unwrap_or_default()
        )?;
    }
    writeln!(out)?;
    sources(answer, out)?;
    if answer.failures.is_empty() {
        return Ok(());
    }
    writeln!(out, "\nnot indexed:")?;
    for failure in answer.failures.iter().take(FAILURES) {
        let attempts = match failure.attempts {
            0 => "failed in an earlier run".to_owned(),
            1 => "failed once".to_owned(),
            n => format!("failed {n} times"),
        };
        let next_try = match failure.next_try {
            NextTry::At(at) => format!("next try {}", at.minute()),
            NextTry::Now => "to be tried again now".to_owned(),
            NextTry::NextRun => "tried again by the next run, or after crowsnest retry".to_owned(),
            NextTry::WhenChanged => {
                "not tried again until the tag changes, or after crowsnest retry".to_owned()
            }
        };
        writeln!(out, "  {}", printable(&failure.image))?;
        writeln!(out, "    {}", printable(&failure.error))?;
        if let Some(hint) = &failure.hint {
            writeln!(out, "    hint: {}", printable(hint))?;
        }
        writeln!(out, "    {attempts}; {next_try}")?;
    }
    let n_more = answer.failures.len().saturating_sub(FAILURES) as u64 + answer.failures_unlisted;
    if n_more > 0 {
        writeln!(
            out,
            "  and {n_more} more: crowsnest images --state failed,retrying --format csv"
        )?;
    }
    Ok(())
}

fn sources(answer: &StatusAnswer, out: &mut dyn Write) -> io::Result<()> {
    let columns = [
        Column::Left("SOURCE"),
        Column::Right("REPOSITORIES"),
        Column::Right("TAGS"),
        Column::Left("LAST LISTED"),
    ];
    let rows: Vec<Vec<String>> = answer
        .sources
        .iter()
        .map(|source| {
            vec![
                printable(&source.name).into_owned(),
                source.repositories.to_string(),
                source.tags.to_string(),
                source
                    .listed_at
                    .map_or_else(|| "never".to_owned(), |at| at.minute()),
            ]
        })
        .collect();
    let widths = widths(&columns, &rows);
    write_row(
        out,
        &columns,
        &widths,
        &columns.map(|column| column.title().to_owned()),
    )?;
    for (source, row) in answer.sources.iter().zip(&rows) {
        write_row(out, &columns, &widths, row)?;
        if let Some(error) = &source.error {
            let since = source
                .error_since
                .map(|at| format!(" since {}", at.minute()));
            writeln!(
                out,
                "  not listed{}: {}",
                since.unwrap_or_default(),
                printable(error)
            )?;
        }
    }
    Ok(())
}

/// Characters of the widest text of each column.
fn widths(columns: &[Column], rows: &[Vec<String>]) -> Vec<usize> {
    let mut widths: Vec<usize> = columns.iter().map(|column| column.title().len()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    widths
}

fn write_row(
    out: &mut dyn Write,
    columns: &[Column],
    widths: &[usize],
    cells: &[String],
) -> io::Result<()> {
    let mut line = String::new();
    for ((column, width), cell) in columns.iter().zip(widths).zip(cells) {
        if !line.is_empty() {
            line.push_str("  ");
        }
        line.push_str(&match column {
            Column::Left(_) => format!("{cell:<width$}"),
            Column::Right(_) => format!("{cell:>width$}"),
        });
    }
    writeln!(out, "{}", line.trim_end())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testdata;

    #[test]
    fn images_stand_in_columns() {
        let mut rows = testdata::images().into_iter().map(Ok);
        let mut out = Vec::new();
        images(
            ImagesAnswer {
                rows: &mut rows,
                with_gone: true,
            },
            &mut out,
        )
        .unwrap();
        let (index, image) = (
            testdata::images()[1].digest.clone(),
            testdata::images()[1].image_digest.clone().unwrap(),
        );
        let expected = format!(
            "\
REPOSITORY          TAG                     DIGEST        PLATFORM     PACKAGES     SIZE  LAST SEEN         STATE    GONE
=cmd|' /C calc'!A0  a,\"b\"\\n\\x1b[2J\\u{{202e}}  {}  -                   -        -  2026-11-24 08:00  failed   -
r.example/app       0.9                     {1}  linux/amd64       104  28.2 MB  2026-11-24 08:00  partial  2026-11-24 08:00
r.example/app       1.0                     {1}  linux/amd64       104  28.2 MB  2026-11-24 08:00  indexed  -
",
            index.short(),
            image.short()
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn rows_behind_the_measured_ones_are_written_too() {
        let row = testdata::images()[2].clone();
        let longer = ImageRow {
            tag: "longer-than-any-tag-before".to_owned(),
            ..row.clone()
        };
        let mut rows = std::iter::repeat_n(row, MEASURED).chain([longer]).map(Ok);
        let mut out = Vec::new();
        images(
            ImagesAnswer {
                rows: &mut rows,
                with_gone: false,
            },
            &mut out,
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        assert_eq!(text.lines().count(), MEASURED + 2);
        assert!(
            text.lines()
                .last()
                .unwrap()
                .contains("longer-than-any-tag-before  ")
        );
    }

    #[test]
    fn a_status_reads_like_this() {
        let mut out = Vec::new();
        status(&testdata::status(), &mut out).unwrap();
        let expected = "\
store   /var/lib/crowsnest/crowsnest.db (5.0 MB)
holds   42 tags in 2 repositories
        43 indexed images (1 incomplete) of 51 layers (933 MB), 2743 packages
queue   5 waiting (2 just pushed; 1 to be tried again, next 2026-11-24 08:00), 3 running, 2 failed
        3 webhooks to be looked at since 2026-11-24 08:00

SOURCE         REPOSITORIES  TAGS  LAST LISTED
oci r.example             2    42  2026-11-24 08:00
  not listed since 2026-11-24 08:00: catalog: status 503
oci s.example             0     0  never

not indexed:
  r.example/a:1
    manifest: status 500
    failed 2 times; next try 2026-11-24 08:00
  r.example/b:1
    manifest: status 500
    failed once; tried again by the next run, or after crowsnest retry
  r.example/c:1\\x1b
    manifest: status 500
    hint: log in
    failed once; not tried again until the tag changes, or after crowsnest retry
  r.example/d:1
    manifest: status 500
    failed in an earlier run; to be tried again now
  and 4 more: crowsnest images --state failed,retrying --format csv
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
