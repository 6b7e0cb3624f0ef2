//! What each transport costs an agent in its file and its memory.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use peernet_e2e::Outcome;
use tokio::time::sleep;

use crate::{bare::Bare, table::row};

/// Of one agent, two of which are the peers of the third.
const AGENTS: usize = 3;
const SETTLING: Duration = Duration::from_secs(30);

/// `folder` holds programs that are named after the transports that they were built with.
pub(crate) async fn measure(folder: &Path) -> Outcome<Vec<[String; 5]>> {
    let mut rows = Vec::new();
    for (built, spoken) in [
        ("tcp", "TCP"),
        ("tcp-websocket", "TCP"),
        ("tcp-quic", "TCP"),
        ("all", "TCP"),
        ("all", "TCP,WebSocket"),
        ("all", "TCP,QUIC"),
        ("all", "TCP,QUIC,WebSocket"),
    ] {
        let program: PathBuf = folder.join(built);
        if spoken == "TCP" {
            let size = std::fs::metadata(&program)?.len() as f64 / 1e6;
            rows.push(row(&format!("program built with {built}"), &[size], "MB", ""));
        }
        let mut bare = Bare::new(&program, "bench/sizes")?;
        bare.variables = vec![("PEERNET_TRANSPORTS", spoken.to_owned())];
        let agents = bare.start_all(AGENTS, AGENTS - 1).await?;
        sleep(SETTLING).await;
        let memory = agents
            .iter()
            .map(|agent| agent.resident_mib())
            .collect::<Outcome<Vec<_>>>()?;
        let what = format!("memory with 2 peers, built with {built}, speaks {spoken}");
        rows.push(row(&what, &memory, "MiB", ""));
    }
    Ok(rows)
}
