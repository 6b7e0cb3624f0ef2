//! The truth bench, `make truth`: PeerNet's numbers beside packet captures of both ends, raw round trips and what the faults
//! really did. Prints tables in Markdown, also into the file that it is given. A missed goal is shown, and fails nothing:
//! this machine may be busy with other things.
//!
//! ```text
//! truth bare FILE        in two bare network namespaces that it makes; root
//! truth pods FILE        in pods of the test cluster
//! ```
//!
//! `TRUTH` names what is measured, separated by commas: quiet, busy, throttled, delay, loss, cost, clock, or all. By default it is
//! all but clock, which steps this machine's wall clock.

#![allow(clippy::print_stdout, reason = "the tables are what this is for")]

mod bare;
mod bare_scenarios;
mod cost;
mod numbers;
mod observation;
mod place;
mod pods;
mod programs;
mod side_by_side;
mod stepped_clock;
mod tables;

use std::{fs, process::ExitCode};

use peernet_e2e::{Failure, Outcome, scenario::scenario};
use tables::Table;

/// Everything that is harmless to the machine, and what isn't.
const ALL: [&str; 6] = ["quiet", "busy", "throttled", "delay", "loss", "cost"];
const CLOCK: &str = "clock";

/// What is to be measured.
pub(crate) struct Selection(Vec<String>);

impl Selection {
    fn of_environment() -> Outcome<Self> {
        let wanted = std::env::var("TRUTH").unwrap_or_default();
        let mut found = Vec::new();
        for word in wanted.split(',').filter(|word| !word.is_empty()) {
            match word {
                "all" => found.extend(ALL.into_iter().chain([CLOCK]).map(str::to_owned)),
                CLOCK => found.push(word.to_owned()),
                word if ALL.contains(&word) => found.push(word.to_owned()),
                word => {
                    return Err(
                        format!("TRUTH: {word:?} is none of {}, {CLOCK}, all", ALL.join(", ")).into(),
                    );
                }
            }
        }
        if found.is_empty() {
            found.extend(ALL.map(str::to_owned));
        }
        Ok(Self(found))
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        self.0.iter().any(|word| word == name)
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = Selection::of_environment().and_then(|selection| match arguments.as_slice() {
        [place, file] if place == "bare" => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()?;
            show(&runtime.block_on(bare_scenarios::run(&selection))?, file)
        }
        [place, file] if place == "pods" => {
            scenario("truth", async |scenario| {
                show(&pods::run(scenario, &selection).await?, file)
            });
            Ok(())
        }
        _ => Err("usage: truth bare|pods FILE".into()),
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("truth: {failure}");
            ExitCode::FAILURE
        }
    }
}

fn show(tables: &[Table], file: &str) -> Outcome {
    let text: String = tables.iter().map(Table::markdown).collect();
    for line in text.lines() {
        println!("note: {line}");
    }
    fs::write(file, text).map_err(|error| Failure::from(format!("{file}: {error}")))
}
