//! CSV (RFC 4180) with a header line, for spreadsheets and scripts; lines end in `\n`.
//!
//! *Invariant:* a text that a spreadsheet would take for a formula is written as it is: changing data so that
//! one reader is safe would make it wrong for all others.

use std::io::{self, Write};

use super::{Format, ImagesAnswer};
use crate::printable::printable;
use crate::time::Timestamp;

pub(super) const FORMAT: Format = Format {
    name: "csv",
    summary: "Comma-separated values with a header line; sizes in bytes, times in RFC 3339",
    images: Some(images),
    sbom: None,
    status: None,
};

const COLUMNS: &str = "repository,tag,digest,image_digest,platform,packages,size,first_seen,last_seen,gone_at,state,error";

fn images(answer: ImagesAnswer<'_>, out: &mut dyn Write) -> io::Result<()> {
    writeln!(out, "{COLUMNS}")?;
    for row in answer.rows {
        let row = row?;
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let moment = |at: Option<Timestamp>| at.map(|at| at.to_string()).unwrap_or_default();
        let fields = [
            row.repository,
            row.tag,
            row.digest.to_string(),
            row.image_digest
                .map(|digest| digest.to_string())
                .unwrap_or_default(),
            row.platform.unwrap_or_default(),
            number(row.packages),
            number(row.size),
            moment(Some(row.first_seen)),
            moment(Some(row.last_seen)),
            moment(row.gone_at),
            row.state.name().to_owned(),
            row.error.unwrap_or_default(),
        ];
        for (at, field) in fields.iter().enumerate() {
            if at > 0 {
                out.write_all(b",")?;
            }
            out.write_all(quoted(&printable(field)).as_bytes())?;
        }
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// A field, in quotes when it could be taken for anything else.
fn quoted(field: &str) -> String {
    let is_plain =
        |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'/' | b':');
    if !field.starts_with('-') && field.bytes().all(is_plain) {
        return field.to_owned();
    }
    format!("\"{}\"", field.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::testdata;

    #[test]
    fn every_text_stays_in_its_field() {
        let mut rows = testdata::images().into_iter().map(Ok);
        let mut out = Vec::new();
        let answer = ImagesAnswer {
            rows: &mut rows,
            with_gone: true,
        };
        images(answer, &mut out).unwrap();
        let (index, image) = (
            testdata::images()[1].digest.clone(),
            testdata::images()[1].image_digest.clone().unwrap(),
        );
        let at = "2026-11-24T08:00:00Z";
        let expected = format!(
            "{COLUMNS}\n\
             \"=cmd|' /C calc'!A0\",\"a,\"\"b\"\"\\n\\x1b[2J\\u{{202e}}\",{index},,,,,{at},{at},,failed,\"manifest: not found\"\n\
             r.example/app,0.9,{index},{image},linux/amd64,104,28231124,{at},{at},{at},partial,\n\
             r.example/app,1.0,{index},{image},linux/amd64,104,28231124,{at},{at},,indexed,\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn fields_are_quoted_when_needed() {
        for (field, text) in [
            ("", ""),
            ("a-b_c/d:1.0", "a-b_c/d:1.0"),
            ("a b", "\"a b\""),
            ("@SUM(A1)", "\"@SUM(A1)\""),
            ("-1+1", "\"-1+1\""),
            ("\"", "\"\"\"\""),
        ] {
            assert_eq!(quoted(field), text);
        }
    }
}
