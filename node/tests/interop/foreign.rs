//! Where the foreign programs are, and how they are run.

use std::{
    path::PathBuf,
    process::{Command, Output, Stdio},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::support::DEADLINE;

const POLL: Duration = Duration::from_millis(20);

/// A path in the folder that `testbed/interop/install` made.
pub(crate) fn installed(path: &str) -> PathBuf {
    let folder = std::env::var_os("PEERNET_INTEROP")
        .expect("PEERNET_INTEROP: the folder that testbed/interop/install printed");
    let path = PathBuf::from(folder).join(path);
    assert!(
        path.exists(),
        "{} is missing: run testbed/interop/install",
        path.display()
    );
    path
}

/// Runs a program to its end, in a thread of its own, since agents run in those of the test. The output must not be longer
/// than a pipe holds.
pub(crate) async fn run(mut command: Command) -> Output {
    let work = move || {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let begun = Instant::now();
        while child.try_wait().unwrap().is_none() {
            if begun.elapsed() > DEADLINE {
                child.kill().unwrap();
                panic!("{command:?}: {:?}", child.wait_with_output().unwrap());
            }
            std::thread::sleep(POLL);
        }
        child.wait_with_output().unwrap()
    };
    tokio::task::spawn_blocking(work).await.unwrap()
}

/// Runs a program that prints JSON, one value a line, and ends well.
pub(crate) async fn lines(command: Command) -> Vec<Value> {
    let output = run(command).await;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}\n{text}{errors}", output.status);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}
