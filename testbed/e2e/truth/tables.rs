//! Tables, as Markdown that people can also read as it is.

/// A table with its title and a word to it.
#[derive(Debug)]
pub(crate) struct Table {
    title: String,
    note: String,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(title: &str, note: &str, head: &[&str]) -> Self {
        Self {
            title: title.to_owned(),
            note: note.to_owned(),
            rows: vec![head.iter().map(|&cell| cell.to_owned()).collect()],
        }
    }

    pub(crate) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    /// Whether there is more than a head.
    pub(crate) fn is_empty(&self) -> bool {
        self.rows.len() < 2
    }

    pub(crate) fn markdown(&self) -> String {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or_default();
        let cell = |row: &[String], column: usize| row.get(column).cloned().unwrap_or_default();
        let widths: Vec<usize> = (0..columns)
            .map(|column| {
                self.rows
                    .iter()
                    .map(|row| cell(row, column).chars().count())
                    .max()
                    .unwrap_or_default()
            })
            .collect();
        let mut text = format!("### {}\n\n{}\n\n", self.title, self.note);
        for (number, row) in self.rows.iter().enumerate() {
            for (column, width) in widths.iter().enumerate() {
                text += &format!("| {:<width$} ", cell(row, column));
            }
            text += "|\n";
            if number == 0 {
                for width in &widths {
                    text += &format!("|{:-<width$}", "", width = width + 2);
                }
                text += "|\n";
            }
        }
        text + "\n"
    }
}

/// A duration in nanoseconds as people write it.
pub(crate) fn time(nanos: Option<i64>) -> String {
    let Some(nanos) = nanos else {
        return "none".to_owned();
    };
    let micros = nanos as f64 / 1e3;
    match micros.abs() {
        small if small < 9.95 => format!("{micros:.1} us"),
        middle if middle < 999.5 => format!("{micros:.0} us"),
        large if large < 999_500.0 => format!("{:.1} ms", micros / 1e3),
        _ => format!("{:.2} s", micros / 1e6),
    }
}

/// How many times as long.
pub(crate) fn ratio(value: Option<i64>, of: Option<i64>) -> String {
    match (value, of) {
        (Some(value), Some(of)) if of > 0 => {
            let ratio = value as f64 / of as f64;
            match ratio {
                small if small < 9.95 => format!("{ratio:.2}x"),
                middle if middle < 99.5 => format!("{ratio:.0}x"),
                _ => format!("{ratio:.0}x"),
            }
        }
        _ => "none".to_owned(),
    }
}

/// A share in percent.
pub(crate) fn percent(share: Option<f64>) -> String {
    share.map_or_else(|| "none".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// Whether a goal is met, or by how much it is missed: `largest` is how far from `truth` a value may be.
pub(crate) fn within(value: Option<i64>, truth: Option<i64>, largest: impl Fn(i64) -> i64) -> String {
    let (Some(value), Some(truth)) = (value, truth) else {
        return "MISSED: no value".to_owned();
    };
    let off = value - truth;
    if off.abs() <= largest(truth) {
        "met".to_owned()
    } else {
        format!("MISSED: {}{}", if off > 0 { "+" } else { "" }, time(Some(off)))
    }
}
