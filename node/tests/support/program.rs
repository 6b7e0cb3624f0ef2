//! The agent's program, in a process and perhaps a network namespace of its own.

use std::{
    fs,
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use peernet_api::{
    envelope,
    report::{PATH, PeerReport, Report},
};

use super::eventually;

/// A running agent, until this goes.
pub(crate) struct Agent {
    child: Child,
    /// The namespace that it runs in; nothing for that of the test.
    namespace: String,
    http: String,
    secret: PathBuf,
}

impl Agent {
    /// Starts an agent of the network `demo/mesh` with these settings over its defaults. With an empty name of a namespace, it runs
    /// where the test does; with one, nothing but the namespace tells it from another test's agent of that name.
    pub(crate) fn start(namespace: &str, name: &str, settings: &[(&str, &str)]) -> Self {
        let id = std::process::id();
        let secret = std::env::temp_dir().join(format!("peernet-agent-{id}-{namespace}-{name}"));
        fs::write(&secret, [7; 32]).unwrap();
        // The bench has one that is built as it is shipped.
        let program = std::env::var("PEERNET_NODE_PROGRAM");
        let program = program.unwrap_or_else(|_| env!("CARGO_BIN_EXE_peernet-node").to_owned());
        let mut command = if namespace.is_empty() {
            Command::new(&program)
        } else {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", namespace, &program]);
            command
        };
        let port = settings
            .iter()
            .find(|(variable, _)| *variable == "PEERNET_HTTP_PORT");
        let child = command
            .env("PEERNET_NETWORK", "demo/mesh")
            .env("PEERNET_NAME", name)
            .env("PEERNET_SECRET_FILE", &secret)
            .env("PEERNET_API_PORT", "0")
            .env(
                "RUST_LOG",
                std::env::var("RUST_LOG").unwrap_or_else(|_| "warn".into()),
            )
            .envs(settings.iter().copied())
            .stderr(Stdio::inherit())
            .spawn()
            .unwrap();
        Self {
            child,
            namespace: namespace.to_owned(),
            http: port.map_or("8080", |(_, port)| port).to_owned(),
            secret,
        }
    }

    /// The process: `ip netns exec` becomes the program that it runs.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// The most memory that it ever had, in bytes.
    pub(crate) fn peak_memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.id())).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() << 10
    }

    /// Asks from within the namespace: nothing leads there from outside.
    fn get(&self, path: &str) -> Result<Vec<u8>, String> {
        let script = format!(
            "exec 3<>/dev/tcp/127.0.0.1/{} && printf 'GET {path} HTTP/1.0\\r\\n\\r\\n' >&3 && cat <&3",
            self.http
        );
        let mut command = if self.namespace.is_empty() {
            Command::new("bash")
        } else {
            let mut command = Command::new("ip");
            command.args(["netns", "exec", &self.namespace, "bash"]);
            command
        };
        let output = command
            .args(["-c", &script])
            .output()
            .map_err(|error| error.to_string())?;
        let head = output.stdout.windows(4).position(|window| window == b"\r\n\r\n");
        let head = head.ok_or_else(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
        Ok(output.stdout[head + 4..].to_vec())
    }

    pub(crate) fn report(&self) -> Result<Report, String> {
        let answer = self.get(&format!("{PATH}?nonce=00"))?;
        Ok(envelope::open(&answer).map_err(|error| error.to_string())?.0)
    }

    pub(crate) fn row(&self, about: &str) -> Result<PeerReport, String> {
        let report = self.report()?;
        let row = report.peers.iter().find(|row| row.name == about);
        row.cloned().ok_or_else(|| format!("{:?}", report.peers))
    }

    /// Its row about a member, once that is as asked for.
    pub(crate) async fn row_when(
        &self,
        about: &str,
        what: &str,
        good: impl Fn(&PeerReport) -> bool,
    ) -> PeerReport {
        eventually(what, || async {
            let row = self.row(about)?;
            if good(&row) {
                Ok(row)
            } else {
                Err(format!("{row:?}"))
            }
        })
        .await
    }

    /// The value of a metric, by its name with labels.
    pub(crate) fn metric(&self, name: &str) -> Result<f64, String> {
        let text = String::from_utf8_lossy(&self.get("/metrics")?).into_owned();
        let value = text
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value
            .ok_or_else(|| format!("no {name} in\n{text}"))?
            .parse()
            .map_err(|error| format!("{name}: {error}"))
    }

    /// Waits until a metric is as asked for.
    pub(crate) async fn metric_when(&self, name: &str, good: impl Fn(f64) -> bool) -> f64 {
        eventually(name, || async {
            let value = self.metric(name)?;
            if good(value) {
                Ok(value)
            } else {
                Err(value.to_string())
            }
        })
        .await
    }

    /// Dials that it made, whatever came of them.
    pub(crate) fn dials(&self) -> f64 {
        let mut all = 0.0;
        for result in ["connected", "failed", "refused"] {
            all += self
                .metric(&format!("peernet_dials_total{{result=\"{result}\"}}"))
                .unwrap();
        }
        all
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // Two agents of one name may share it.
        let _ = fs::remove_file(&self.secret);
    }
}
