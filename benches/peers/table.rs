//! The one table at the end.

use serde_json::json;

/// What the cost of a row is counted in; less is better in all of them.
#[derive(Clone, Copy, Debug)]
pub enum Unit {
    /// Server processor time for a message.
    NanosPerMessage,
    /// The same for a request.
    NanosPerRequest,
    /// Time of one thing.
    Micros,
    /// Wall time of the whole.
    Seconds,
    /// Processor time of the whole.
    SecondsOfCpu,
    /// Wall time of a part.
    SecondsPerMebibyte,
    /// Resident memory of a session.
    BytesPerSession,
}

impl Unit {
    fn show(self, cost: f64) -> String {
        match self {
            Unit::NanosPerMessage => format!("{cost:.0} ns CPU/msg"),
            Unit::NanosPerRequest => format!("{cost:.0} ns CPU/req"),
            Unit::Micros => format!("{cost:.1} us"),
            Unit::Seconds => format!("{cost:.3} s"),
            Unit::SecondsOfCpu => format!("{cost:.3} s CPU"),
            Unit::SecondsPerMebibyte => format!("{cost:.3} s/MiB"),
            Unit::BytesPerSession => format!("{cost:.0} B/session"),
        }
    }

    fn word(self) -> &'static str {
        match self {
            Unit::NanosPerMessage => "ns-cpu-per-message",
            Unit::NanosPerRequest => "ns-cpu-per-request",
            Unit::Micros => "us",
            Unit::Seconds => "s",
            Unit::SecondsOfCpu => "s-cpu",
            Unit::SecondsPerMebibyte => "s-per-mebibyte",
            Unit::BytesPerSession => "bytes-per-session",
        }
    }
}

/// One measured thing, or the reason why it was not measured.
#[derive(Debug)]
pub struct Row {
    /// The work; rows of one work are compared with each other.
    pub work: String,
    /// Who did it; ours begin with `sixfour`.
    pub peer: String,
    /// How much of it in a second, in words.
    pub rate: String,
    /// What it cost.
    pub cost: Option<(f64, Unit)>,
    /// What else is to be known.
    pub note: String,
}

impl Row {
    /// A row for what could not be measured.
    pub fn absent(work: &str, peer: &str, reason: String) -> Row {
        Row { work: work.into(), peer: peer.into(), rate: "-".into(), cost: None, note: reason }
    }

    fn is_ours(&self) -> bool {
        self.peer.starts_with("sixfour")
    }
}

/// Ratios of the row to ours of the same work, one for each of ours that was measured.
fn ratios<'a>(row: &Row, rows: &'a [Row]) -> Vec<(&'a str, f64)> {
    let Some((cost, _)) = row.cost else { return Vec::new() };
    let ours = rows.iter().filter(|other| other.work == row.work && other.is_ours());
    let ours = ours.filter_map(|other| other.cost.map(|(cost, _)| (other.peer.as_str(), cost)));
    ours.map(|(peer, ours)| (peer.trim_start_matches("sixfour-"), cost / ours)).collect()
}

/// Prints the table, or one JSON object a row; rows of one work come together.
pub fn print(mut rows: Vec<Row>, as_json: bool) {
    let works: Vec<String> = rows.iter().map(|row| row.work.clone()).collect();
    rows.sort_by_key(|row| works.iter().position(|work| *work == row.work));
    let rows = &rows;
    let head = ["work", "peer", "rate", "cost", "ratio to us", "note"].map(str::to_owned);
    let mut lines = vec![head];
    for row in rows {
        let ratios = ratios(row, rows);
        if as_json {
            let ratios: serde_json::Map<_, _> =
                ratios.iter().map(|(peer, ratio)| ((*peer).to_owned(), json!(ratio))).collect();
            let (cost, unit) = row.cost.map(|(cost, unit)| (cost, unit.word())).unzip();
            let object = json!({
                "work": row.work, "peer": row.peer, "rate": row.rate, "cost": cost,
                "unit": unit, "ratio_to": ratios, "note": row.note,
            });
            println!("{object}");
            continue;
        }
        let ratios: Vec<_> =
            ratios.iter().map(|(peer, ratio)| format!("{peer} {ratio:.2}")).collect();
        let cost = row.cost.map_or("-".to_owned(), |(cost, unit)| unit.show(cost));
        lines.push([
            row.work.clone(),
            row.peer.clone(),
            row.rate.clone(),
            cost,
            ratios.join(", "),
            row.note.clone(),
        ]);
    }
    if !as_json {
        print_aligned(&lines);
    }
}

fn print_aligned(lines: &[[String; 6]]) {
    let width = |column: usize| lines.iter().map(|line| line[column].len()).max().unwrap_or(0);
    let widths: [usize; 6] = std::array::from_fn(width);
    for (index, line) in lines.iter().enumerate() {
        let cells = line.iter().zip(widths).enumerate();
        let cells: Vec<_> = cells
            .map(|(column, (cell, width))| match column {
                2 | 3 if index > 0 => format!("{cell:>width$}"),
                _ => format!("{cell:<width$}"),
            })
            .collect();
        println!("{}", cells.join("  ").trim_end());
        let next_work = lines.get(index + 1).map(|next| &next[0]);
        if index == 0 || next_work.is_some_and(|next| *next != line[0]) {
            println!("{}", "-".repeat(widths.iter().sum::<usize>().min(100)));
        }
    }
}
