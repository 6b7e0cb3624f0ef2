//! The table that a bench prints.

/// Smallest, median and largest of what was measured, and what it is to be.
pub(crate) fn row(what: &str, values: &[f64], unit: &str, goal: &str) -> [String; 5] {
    let mut values = values.to_vec();
    values.sort_by(f64::total_cmp);
    let show = |at: usize| {
        values
            .get(at)
            .map(|value| format!("{value:.2} {unit}"))
            .unwrap_or_default()
    };
    [
        what.to_owned(),
        show(0),
        show(values.len() / 2),
        show(values.len().saturating_sub(1)),
        goal.to_owned(),
    ]
}

pub(crate) fn print(rows: &[[String; 5]]) {
    let head = ["what", "smallest", "median", "largest", "goal"].map(str::to_owned);
    for [what, smallest, median, largest, goal] in std::iter::once(&head).chain(rows) {
        println!("note: {what:<58} {smallest:>12} {median:>12} {largest:>12}   {goal}");
    }
}
