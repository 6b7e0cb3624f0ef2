//! Programs, with a deadline each.

use std::{ffi::OsStr, process::Stdio, time::Duration};

use tokio::{io::AsyncWriteExt, process::Command, time::timeout};

use crate::{Outcome, settings::SETTINGS};

/// No program that tests call works for longer.
const DEADLINE: Duration = Duration::from_secs(300);

/// Runs a program and returns what it printed.
///
/// # Errors
/// With all that it printed, if it fails or is not done in five minutes.
pub async fn run<A: AsRef<OsStr>>(program: &str, arguments: &[A]) -> Outcome<String> {
    run_with_input(program, arguments, "").await
}

/// Runs a program that reads `input`, and returns what it printed.
///
/// # Errors
/// As [`run`].
pub async fn run_with_input<A: AsRef<OsStr>>(program: &str, arguments: &[A], input: &str) -> Outcome<String> {
    let shown: Vec<_> = arguments
        .iter()
        .map(|argument| argument.as_ref().to_string_lossy())
        .collect();
    let shown = format!("{program} {}", shown.join(" "));
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .map_err(|error| format!("{shown}: {error}"))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A program that does not read its input may close it.
        let _ = stdin.write_all(input.as_bytes()).await;
    }
    let output = timeout(DEADLINE, child.wait_with_output())
        .await
        .map_err(|_| format!("{shown}: not done in {DEADLINE:?}"))??;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let complaint = String::from_utf8_lossy(&output.stderr);
    Err(format!("{shown}: {}\n{printed}{complaint}", output.status).into())
}

/// Runs `kubectl`.
///
/// # Errors
/// As [`run`].
pub async fn kubectl(arguments: &[&str]) -> Outcome<String> {
    run(&SETTINGS.kubectl, arguments).await
}

/// Runs `helm`.
///
/// # Errors
/// As [`run`].
pub async fn helm(arguments: &[&str]) -> Outcome<String> {
    run(&SETTINGS.helm, arguments).await
}

/// Runs a command of `testbed/cluster`.
///
/// # Errors
/// As [`run`], and where there is no testbed.
pub async fn testbed(arguments: &[&str]) -> Outcome<String> {
    let program = SETTINGS.testbed.as_ref().ok_or("PEERNET_TESTBED is not set")?;
    run(&program.to_string_lossy(), arguments).await
}
