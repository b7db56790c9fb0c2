//! Aligned tables of measurements, on stdout.

use crate::process::Sample;

/// All runs of one command.
pub(crate) struct Series {
    pub(crate) name: String,
    pub(crate) samples: Vec<Sample>,
    /// What one run works through, and in what unit, for a rate: `(42.0, "MB")`.
    pub(crate) amount: Option<(f64, &'static str)>,
}

impl Series {
    pub(crate) fn new(name: impl Into<String>) -> Series {
        Series {
            name: name.into(),
            samples: Vec::new(),
            amount: None,
        }
    }
}

/// Least, median and greatest; 0 for nothing.
pub(crate) fn spread(values: impl Iterator<Item = f64>) -> [f64; 3] {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    match values[..] {
        [] => [0.0; 3],
        [least, .., most] => {
            let (below, above) = (values[(values.len() - 1) / 2], values[values.len() / 2]);
            [least, (below + above) / 2.0, most]
        }
        [one] => [one; 3],
    }
}

/// Prints one line for each command. `base` is the one that the others are compared with, run for run.
pub(crate) fn print(series: &[Series], base: Option<usize>) {
    let mut rows: Vec<Vec<String>> = vec![
        [
            "",
            "runs",
            "s min",
            "median",
            "max",
            "ratio min",
            "median",
            "max",
            "rate",
            "CPU s",
            "server",
            "others",
            "peak MiB",
            "bound by",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for one in series {
        let walls = spread(one.samples.iter().map(|sample| sample.wall));
        let base = base.map(|at| &series[at]);
        let ratios = match base {
            Some(base) if !std::ptr::eq(base, one) => {
                let pairs = one.samples.iter().zip(&base.samples);
                spread(pairs.map(|(ours, theirs)| ours.wall / theirs.wall))
                    .map(|ratio| format!("{ratio:.2}"))
            }
            _ => ["", "", ""].map(str::to_owned),
        };
        let middle = |field: fn(&Sample) -> f64| spread(one.samples.iter().map(field))[1];
        let peak = spread(one.samples.iter().map(|sample| sample.peak as f64))[2];
        let mut row = vec![one.name.clone(), one.samples.len().to_string()];
        row.extend(walls.map(|wall| format!("{wall:.2}")));
        row.extend(ratios);
        row.push(one.amount.map_or(String::new(), |(amount, unit)| {
            format!("{:.0} {unit}/s", amount / walls[1])
        }));
        row.push(format!("{:.2}", middle(|sample| sample.cpu)));
        row.push(format!("{:.2}", middle(|sample| sample.server_cpu)));
        row.push(format!("{:.2}", middle(|sample| sample.other_cpu)));
        row.push(format!("{:.1}", peak / f64::from(1 << 20)));
        row.push(bound(one));
        rows.push(row);
    }
    print_rows(&rows);
}

/// Prints rows of cells; the first column and the last are aligned to the left.
pub(crate) fn print_rows(rows: &[Vec<String>]) {
    let n_columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..n_columns).map(width).collect();
    for row in rows {
        let cells = row.iter().enumerate().map(|(at, cell)| {
            let width = widths[at];
            if at == 0 || at + 1 == n_columns {
                format!("{cell:<width$}")
            } else {
                format!("{cell:>width$}")
            }
        });
        let line = cells.collect::<Vec<_>>().join("  ");
        println!("  {}", line.trim_end());
    }
}

/// What the run waited for most, in words: processors that it, its server or others kept busy, or none.
fn bound(series: &Series) -> String {
    let n_cores = std::thread::available_parallelism().map_or(1, usize::from) as f64;
    // Processor seconds a second, that is cores.
    let part = |field: fn(&Sample) -> f64| {
        let (sum, wall) = series
            .samples
            .iter()
            .fold((0.0, 0.0), |(sum, wall), sample| {
                (sum + field(sample), wall + sample.wall)
            });
        sum / wall
    };
    let own = part(|sample| sample.cpu);
    let server = part(|sample| sample.server_cpu);
    let others = part(|sample| sample.other_cpu);
    let busy = own + server + others;
    let what = if others >= 0.25 * n_cores {
        "others: the machine is not quiet"
    } else if busy >= 0.9 * n_cores && own >= server {
        "its CPU"
    } else if busy >= 0.9 * n_cores {
        "the server's CPU"
    } else if own >= 0.85 {
        "one thread of it"
    } else if server >= 0.85 {
        "one thread of the server"
    } else {
        "waiting"
    };
    format!("{what} (cores: {own:.2} it, {server:.2} server, {others:.2} others, of {n_cores})")
}
