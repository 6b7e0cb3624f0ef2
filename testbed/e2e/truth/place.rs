//! Where things run: a network namespace, and the control groups that its agent runs in.

use std::{
    fs,
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use peernet_e2e::{Outcome, truth::pcap, waiting::eventually};
use tokio::{
    process::{Child, Command},
    time::timeout,
};

/// No measurement takes longer.
const DEADLINE: Duration = Duration::from_secs(240);
/// Enters control groups first, since they may be out of reach from where the program runs. `$1`: their number.
const ENTER: &str = r#"count=$1; shift; while [ "$count" -gt 0 ]; do echo $$ >"$1/cgroup.procs"; shift; count=$((count - 1)); done; exec "$@""#;

/// A place.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// File that stands for the network namespace.
    pub(crate) net: PathBuf,
    /// Control groups that rule the CPU time there; none, for those that this process is in.
    pub(crate) groups: Vec<PathBuf>,
    /// Its address.
    pub(crate) ip: Ipv4Addr,
}

impl Place {
    /// Where a process of this machine runs: pods of the test cluster are seen from here.
    pub(crate) fn of_process(id: u32, ip: Ipv4Addr) -> Outcome<Self> {
        let groups = fs::read_to_string(format!("/proc/{id}/cgroup"))?;
        let groups: Vec<PathBuf> = groups.lines().filter_map(cpu_group).collect();
        if groups.is_empty() {
            return Err(format!("process {id} has no control group for CPU time").into());
        }
        Ok(Self {
            net: format!("/proc/{id}/ns/net").into(),
            groups,
            ip,
        })
    }

    /// A program there, not yet started. It ends when its handle is dropped.
    pub(crate) fn command(&self, program: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", ENTER, "enter", &self.groups.len().to_string()]);
        command.args(&self.groups);
        command
            .arg("nsenter")
            .arg(format!("--net={}", self.net.display()));
        command.arg("--").arg(program).args(arguments);
        command.stdin(Stdio::null()).kill_on_drop(true);
        command
    }

    /// Runs a program there to its end; what it printed.
    pub(crate) async fn output(&self, program: &str, arguments: &[&str]) -> Outcome<Vec<u8>> {
        let mut command = self.command(Path::new(program), arguments);
        let output = timeout(DEADLINE, command.output())
            .await
            .map_err(|_| format!("{program}: not done in {DEADLINE:?}"))??;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let complaint = String::from_utf8_lossy(&output.stderr);
        Err(format!(
            "{program} {}: {}: {complaint}",
            arguments.join(" "),
            output.status
        )
        .into())
    }

    /// Starts a program there that goes on by itself, with its output in a file.
    pub(crate) fn start(&self, program: &Path, arguments: &[&str], log: &Path) -> Outcome<Child> {
        let log = fs::File::create(log)?;
        let mut command = self.command(program, arguments);
        command.stdout(log.try_clone()?).stderr(log);
        Ok(command.spawn()?)
    }

    /// Begins to capture what passes its interface.
    pub(crate) async fn capture(&self, file: PathBuf) -> Outcome<Capture> {
        let log = file.with_extension("log");
        let net = Self {
            groups: Vec::new(),
            ..self.clone()
        };
        let path = file.to_string_lossy();
        // A buffer that outlasts a time without a CPU; and no name look-ups.
        let arguments = [
            "-i",
            "eth0",
            "-n",
            "-s",
            "192",
            "-B",
            "16384",
            "--time-stamp-precision=nano",
            "-Z",
            "root",
            "-w",
            &path,
            "udp port 8620 or tcp port 4001",
        ];
        let program = net.start(Path::new("tcpdump"), &arguments, &log)?;
        eventually("tcpdump to listen", async || {
            let said = fs::read_to_string(&log)?;
            said.contains("listening on")
                .then_some(())
                .ok_or_else(|| said.into())
        })
        .await?;
        Ok(Capture { file, program })
    }
}

/// A line of `/proc/ID/cgroup` as a folder, if it is about CPU time: `4:cpu,cpuacct:/a/b`, or `0::/a/b` in version 2.
fn cpu_group(line: &str) -> Option<PathBuf> {
    let mut parts = line.splitn(3, ':').skip(1);
    let (controllers, path) = (parts.next()?, parts.next()?);
    let roots: &[&str] = if controllers.split(',').any(|name| name == "cpu") {
        &[controllers, "cpu"]
    } else if controllers.is_empty() {
        &["."]
    } else {
        return None;
    };
    roots
        .iter()
        .map(|root| {
            Path::new("/sys/fs/cgroup")
                .join(root)
                .join(path.trim_start_matches('/'))
        })
        .find(|folder| {
            folder.join("cgroup.procs").exists()
                && (folder.join("cpu.max").exists() || !controllers.is_empty())
        })
}

/// A capture at work.
pub(crate) struct Capture {
    file: PathBuf,
    program: Child,
}

impl Capture {
    /// Ends it; what it saw.
    pub(crate) async fn end(mut self) -> Outcome<Vec<pcap::Packet>> {
        let id = self.program.id().ok_or("tcpdump has ended before its time")?;
        // It writes what it holds, and ends.
        peernet_e2e::command::run("kill", &["-INT", &id.to_string()]).await?;
        timeout(Duration::from_secs(30), self.program.wait())
            .await
            .map_err(|_| "tcpdump does not end")??;
        let said = fs::read_to_string(self.file.with_extension("log"))?;
        if !said.contains("\n0 packets dropped by kernel") {
            return Err(format!("tcpdump missed packets: {said}").into());
        }
        Ok(pcap::read(&fs::read(&self.file)?)?)
    }
}

/// CPU time that a process has used with all its threads, in nanoseconds: the first figure of each `schedstat`.
pub(crate) fn cpu_nanos(id: u32) -> Outcome<u64> {
    let mut sum = 0;
    for task in fs::read_dir(format!("/proc/{id}/task"))? {
        let text = fs::read_to_string(task?.path().join("schedstat"))?;
        sum += text
            .split_whitespace()
            .next()
            .ok_or("an empty schedstat")?
            .parse::<u64>()?;
    }
    Ok(sum)
}
