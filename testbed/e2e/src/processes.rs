//! The agents' processes, where they are seen: the testbed's nodes are namespaces of this machine.

use std::{collections::BTreeMap, fs, process::Command};

use crate::{Outcome, waiting::ensure};

/// The processes of a network's agents (`namespace/name`), by the agents' names.
///
/// # Errors
/// If none of them runs on this machine.
pub fn agents_of(network: &str) -> Outcome<BTreeMap<String, u32>> {
    let mut found = BTreeMap::new();
    for process in fs::read_dir("/proc")? {
        let process = process?;
        // Other folders are no processes, and a process may end while it is looked at.
        let (Some(id), Ok(environment)) = (
            process.file_name().to_str().and_then(|name| name.parse().ok()),
            fs::read(process.path().join("environ")),
        ) else {
            continue;
        };
        let environment = String::from_utf8_lossy(&environment).into_owned();
        let variable = |name: &str| {
            environment
                .split('\0')
                .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
        };
        if variable("PEERNET_NETWORK") == Some(network)
            && let Some(name) = variable("PEERNET_NAME")
        {
            found.insert(name.to_owned(), id);
        }
    }
    ensure(!found.is_empty(), || {
        format!("no agent of {network} runs on this machine")
    })?;
    Ok(found)
}

/// Resident memory of a process, in KiB.
///
/// # Errors
/// If there is no such process.
pub fn resident_kib(id: u32) -> Outcome<u64> {
    let status = fs::read_to_string(format!("/proc/{id}/status"))?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = resident.and_then(|text| text.trim().strip_suffix(" kB")?.parse().ok());
    Ok(kib.ok_or("no VmRSS")?)
}

/// A process that does not run until this is dropped, also by a panic.
#[must_use = "the process goes on at once if this is dropped"]
#[derive(Debug)]
pub struct Stopped(u32);

impl Stopped {
    /// Stops a process as a debugger or a frozen machine does.
    ///
    /// # Errors
    /// If there is no such process.
    pub fn process(id: u32) -> Outcome<Self> {
        signal(id, "STOP")?;
        Ok(Self(id))
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        if let Err(failure) = signal(self.0, "CONT") {
            eprintln!("{failure}");
        }
    }
}

fn signal(id: u32, name: &str) -> Outcome {
    let output = Command::new("kill")
        .arg(format!("-{name}"))
        .arg(id.to_string())
        .output()?;
    ensure(output.status.success(), || {
        format!(
            "can't send {name} to process {id}: {}",
            String::from_utf8_lossy(&output.stderr)
        )
    })
}
