//! The settings of a private network, and the file with its keys.

use std::{
    fs::File,
    io::Read,
    path::{Path, PathBuf},
    time::Duration,
};

use peernet_api::{
    identity::NetworkSecret,
    private_key::{self, MAX_FILE, PreSharedKey},
};

use super::{Invalid, values::invalid};

/// How often the file is read again.
const REREAD: Duration = Duration::from_secs(2);
/// How long a key that was replaced is accepted. Until every node has the new one, a minute or two pass.
const GRACE: Duration = Duration::from_secs(600);

const FILE: &str = "PEERNET_SWARM_KEY_FILE";

/// A private network.
#[derive(Clone, Debug)]
pub struct Private {
    /// Its keys at the start, at least one. The first is the one to connect by.
    pub keys: Vec<PreSharedKey>,
    /// Where they are from. Without it, the key follows from the network's secret, and never changes.
    pub file: Option<PathBuf>,
    /// How often the file is read again.
    pub reread: Duration,
    /// How long a key that was replaced is accepted.
    pub grace: Duration,
}

pub(super) fn private(
    is_private: bool,
    file: Option<&Path>,
    secret: &NetworkSecret,
) -> Result<Option<Private>, Invalid> {
    let keys = match (is_private, file) {
        (true, Some(file)) => swarm_keys(file)?,
        (true, None) => vec![secret.pre_shared_key()],
        (false, None) => return Ok(None),
        (false, Some(_)) => return invalid(FILE, "it is of no use without PEERNET_PRIVATE_NETWORK=true"),
    };
    Ok(Some(Private {
        keys,
        file: file.map(Path::to_owned),
        reread: REREAD,
        grace: GRACE,
    }))
}

/// Reads the keys of a private network.
///
/// # Errors
/// If the file can't be read, or holds something else. The message names the file, and nothing that it holds.
pub fn swarm_keys(file: &Path) -> Result<Vec<PreSharedKey>, Invalid> {
    let path = file.display();
    // One more than it may have shows that it has too many.
    let most = u64::try_from(MAX_FILE).unwrap_or(u64::MAX).saturating_add(1);
    let mut bytes = Vec::new();
    let read = File::open(file).and_then(|file| file.take(most).read_to_end(&mut bytes));
    if let Err(error) = read {
        return invalid(FILE, format!("failed to read {path}: {error}"));
    }
    private_key::parse(&bytes)
        .or_else(|error| invalid(FILE, format!("{path} holds no key of a private network: {error}")))
}
