//! What breaks: links, nodes, components. Each fault ends when its value is dropped, also by a panic.

use std::process::{Command, Stdio};

use crate::{
    Outcome,
    command::testbed,
    settings::SETTINGS,
    truth::held::{self, Held},
};

/// Something that is broken, until this is dropped.
#[must_use = "the fault ends at once if this is dropped"]
pub struct Fault {
    mend: Vec<Vec<String>>,
}

impl Fault {
    /// Nothing passes between two ends, nodes or addresses of pods.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn partition(a: &str, b: &str) -> Outcome<Self> {
        Self::begin(&[&["partition", a, b]], &[&["heal", a, b]]).await
    }

    /// So many percent of the packets from one end to the other are lost, in both directions.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn loss(a: &str, b: &str, percent: u32) -> Outcome<Self> {
        let percent = percent.to_string();
        Self::begin(
            &[&["loss", a, b, &percent], &["loss", b, a, &percent]],
            &[&["clear", a, b]],
        )
        .await
    }

    /// So many percent of the packets of one protocol, `udp` or `tcp`, are lost from one end to the other, and none back.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn loss_one_way(from: &str, to: &str, percent: u32, protocol: &str) -> Outcome<Self> {
        let percent = percent.to_string();
        Self::begin(
            &[&["loss", from, to, &percent, protocol]],
            &[&["clear", from, to]],
        )
        .await
    }

    /// Packets from one end to the other take so many milliseconds longer, plus a random part of `jitter`.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn delay(from: &str, to: &str, millis: u32, jitter: u32) -> Outcome<Self> {
        let (millis, jitter) = (millis.to_string(), jitter.to_string());
        Self::begin(&[&["delay", from, to, &millis, &jitter]], &[&["clear", from, to]]).await
    }

    /// Connections that one end opens to the other don't pass. Those that the other end opens do, in both directions.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn no_connections(from: &str, to: &str) -> Outcome<Self> {
        Self::begin(&[&["no-connections", from, to]], &[&["clear", from, to]]).await
    }

    /// Multicast does not pass between two nodes. All else does.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn no_multicast(a: &str, b: &str) -> Outcome<Self> {
        Self::begin(&[&["no-multicast", a, b]], &[&["clear", a, b]]).await
    }

    /// A node has no power.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn node_cut(node: &str) -> Outcome<Self> {
        Self::begin(&[&["node-cut", node]], &[&["node-return", node]]).await
    }

    /// A component of the control plane does not run.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn stopped(component: &str) -> Outcome<Self> {
        Self::begin(&[&["stop", component]], &[&["start", component]]).await
    }

    /// Ends the fault.
    ///
    /// # Errors
    /// If the testbed can't do it.
    pub async fn mend(mut self) -> Outcome {
        for arguments in std::mem::take(&mut self.mend) {
            testbed(&arguments.iter().map(String::as_str).collect::<Vec<_>>()).await?;
        }
        Ok(())
    }

    async fn begin(breaking: &[&[&str]], mending: &[&[&str]]) -> Outcome<Self> {
        let owned = |arguments: &&[&str]| arguments.iter().map(|argument| (*argument).to_owned()).collect();
        // From here on it is mended, even if it breaks only in part.
        let fault = Self {
            mend: mending.iter().map(owned).collect(),
        };
        for arguments in breaking {
            testbed(arguments).await?;
        }
        Ok(fault)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        let Some(program) = &SETTINGS.testbed else { return };
        for arguments in &self.mend {
            let mended = Command::new(program)
                .args(arguments)
                .stdin(Stdio::null())
                .output();
            if !mended.is_ok_and(|output| output.status.success()) {
                eprintln!("failed to mend: testbed/cluster {}", arguments.join(" "));
            }
        }
    }
}

/// How many packets a loss from one end to the other has dropped so far: the counters of the rule that drops them.
///
/// # Errors
/// If there is no such loss.
pub async fn dropped(from: &str, to: &str) -> Outcome<u64> {
    Ok(testbed(&["dropped", from, to]).await?.trim().parse()?)
}

/// What a delay from one end to the other has done so far.
///
/// # Errors
/// If there is no such delay.
pub async fn held(from: &str, to: &str) -> Outcome<Vec<Held>> {
    Ok(held::read(&testbed(&["held", from, to]).await?)?)
}

/// Ends what a killed run may have broken.
///
/// # Errors
/// If the testbed can't do it.
pub async fn end_all() -> Outcome {
    let Some(program) = &SETTINGS.testbed else {
        return Ok(());
    };
    testbed(&["heal"]).await?;
    testbed(&["clear"]).await?;
    // It fails when something does not run, and says what.
    let output = tokio::process::Command::new(program)
        .arg("status")
        .output()
        .await?;
    for line in String::from_utf8_lossy(&output.stdout).lines() {
        match line.split_once(": ") {
            Some((component, "stopped")) => testbed(&["start", component]).await.map(drop)?,
            Some((node, "power cut")) => testbed(&["node-return", node]).await.map(drop)?,
            _ => {}
        }
    }
    Ok(())
}
