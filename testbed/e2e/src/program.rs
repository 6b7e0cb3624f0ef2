//! The agents' program, called in their pods by `kubectl exec`.

use serde_json::Value;

use crate::{Outcome, command::run_with_input, scenario::Scenario, settings::SETTINGS, waiting::ensure};

/// Where it lies in the agents' image.
const PROGRAM: &str = "/peernet-node";

/// Runs a command of the program in a pod and returns what it printed.
///
/// # Errors
/// If the command fails, with all that it printed.
pub async fn exec(scenario: &Scenario, pod: &str, command: &[&str]) -> Outcome<String> {
    let mut arguments = vec!["exec", pod, "--", PROGRAM];
    arguments.extend(command);
    scenario.kubectl(&arguments).await
}

/// [`exec`], with the answer as JSON.
///
/// # Errors
/// If the command fails, or prints something else.
pub async fn exec_json(scenario: &Scenario, pod: &str, command: &[&str]) -> Outcome<Value> {
    let mut command = command.to_vec();
    command.extend(["--output", "json"]);
    Ok(serde_json::from_str(&exec(scenario, pod, &command).await?)?)
}

/// Gives a pod's program commands line by line, and returns an answer for each.
///
/// # Errors
/// If there is not an answer to each.
pub async fn lines<S: AsRef<str>>(scenario: &Scenario, pod: &str, commands: &[S]) -> Outcome<Vec<Value>> {
    let arguments = [
        "--namespace",
        &scenario.namespace,
        "exec",
        "-i",
        pod,
        "--",
        PROGRAM,
        "lines",
        "--output",
        "json",
    ];
    let input: String = commands
        .iter()
        .flat_map(|command| [command.as_ref(), "\n"])
        .collect();
    let printed = run_with_input(&SETTINGS.kubectl, &arguments, &input).await?;
    let answers: Vec<Value> = printed
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure(answers.len() == commands.len(), || {
        format!("{} answers to {} commands", answers.len(), commands.len())
    })?;
    Ok(answers)
}
